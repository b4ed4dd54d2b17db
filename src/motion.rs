//! The motion gate: frames of a camera are given to the model only while something moves in its picture.
//!
//! A frame in host memory is judged where it comes from its decoder ([`Gate::judge_image`]), one in device memory by the
//! inference loop, once its cells have been read there ([`Pass::judge`]). Analysis tells the gate what came of each frame
//! ([`Pass::tell`]): while a track lives, all frames pass.

mod cells;
mod judge;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::MotionConfig;
use crate::frame::SystemImage;
use crate::mask::RegionMask;

pub use cells::{CELLS, GRID, Look};
pub use judge::{Judge, Known, Reason};

/// The gate of one camera, over all its connections.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    /// What analysis said last: 0, or the frame's number plus 1, doubled, plus 1 where a track lives.
    told: AtomicU64,
    /// Somebody waits for a picture of what is there now.
    asked: AtomicBool,
}

#[derive(Debug)]
struct State {
    judge: Judge,
    look: Look,
    /// The last frame that was given to the model for a reason of its own.
    given: Option<u64>,
}

impl Gate {
    /// Knows nothing of its camera: the first frame passes.
    pub fn new(config: &MotionConfig, mask: Option<&RegionMask>) -> Self {
        let state = State { judge: Judge::new(config, mask), look: Look::default(), given: None };
        Self { state: Mutex::new(state), told: AtomicU64::new(0), asked: AtomicBool::new(false) }
    }

    /// A new connection: the scene may be another one.
    pub fn reset(&self) {
        self.lock().judge.reset();
    }

    /// Whether all frames pass, until one has become the picture that somebody asked for.
    pub fn ask(&self, waits: bool) {
        self.asked.store(waits, Ordering::Relaxed);
    }

    /// Whether frame number `seq` of time `at` is given to the model, by its pixels.
    pub fn judge_image(&self, seq: u64, at: Instant, image: &SystemImage) -> bool {
        let mut state = self.lock();
        let State { judge, look, given } = &mut *state;
        self.judged(judge, given, seq, at, look.cells(image))
    }

    fn judge_cells(&self, seq: u64, at: Instant, cells: &[u8]) -> bool {
        let mut state = self.lock();
        let State { judge, given, .. } = &mut *state;
        self.judged(judge, given, seq, at, cells)
    }

    fn judged(&self, judge: &mut Judge, given: &mut Option<u64>, seq: u64, at: Instant, cells: &[u8]) -> bool {
        let told = self.told.load(Ordering::Relaxed);
        let known = match *given {
            _ if told & 1 == 1 || self.asked.load(Ordering::Relaxed) => Known::Wanted,
            Some(given) if told >> 1 <= given => Known::NotYet,
            _ => Known::Nothing,
        };
        let reason = judge.judge(at, cells, known);
        // What a frame shows that passes while another is awaited is not awaited in its turn: the gate would never close.
        if reason.is_some_and(|reason| reason != Reason::Awaited) {
            *given = Some(seq);
        }
        reason.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A frame's way to its camera's gate.
#[derive(Clone, Debug)]
pub struct Pass {
    gate: Arc<Gate>,
    at: Instant,
}

impl Pass {
    /// For a frame of time `at`.
    pub fn new(gate: Arc<Gate>, at: Instant) -> Self {
        Self { gate, at }
    }

    /// Whether frame number `seq` is given to the model, by its [`CELLS`] cells.
    pub fn judge(&self, seq: u64, cells: &[u8]) -> bool {
        self.gate.judge_cells(seq, self.at, cells)
    }

    /// Frame number `seq` has been analysed: a track lives, or none, and it became the picture that was asked for, or not.
    pub fn tell(&self, seq: u64, lives: bool, shown: bool) {
        if shown {
            self.gate.ask(false);
        }
        self.gate.told.store((seq + 1) << 1 | u64::from(lives), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn gate(hold: Duration) -> Arc<Gate> {
        let config = MotionConfig { threshold: 10, area: 0.002, hold, refresh: Duration::from_secs(30) };
        Arc::new(Gate::new(&config, None))
    }

    #[test]
    fn nothing_is_gated_until_what_was_given_is_analysed_nor_while_a_track_lives() {
        let (gate, start) = (gate(Duration::ZERO), Instant::now());
        let image = SystemImage::solid(640, 360, [90, 128, 128]);
        let at = |seq: u64| start + Duration::from_millis(40 * seq);
        let passes = |seq| gate.judge_image(seq, at(seq), &image);
        let tell = |seq, lives| Pass::new(Arc::clone(&gate), at(seq)).tell(seq, lives, false);
        assert!(passes(0), "the first frame of all");
        assert!(passes(1) && passes(2), "the first is not yet analysed");
        tell(0, false);
        assert!(!passes(3), "frames 1 and 2 were given for nothing of their own");
        tell(2, true);
        assert!(passes(4) && passes(5), "a track lives");
        tell(4, false);
        assert!(passes(6), "frame 5 was given while a track lived");
        tell(5, false);
        assert!(!passes(7));
    }

    #[test]
    fn all_pass_until_one_became_the_picture_that_was_asked_for() {
        let (gate, start) = (gate(Duration::ZERO), Instant::now());
        let image = SystemImage::solid(640, 360, [90, 128, 128]);
        let passes = |seq: u64| gate.judge_image(seq, start + Duration::from_millis(40 * seq), &image);
        let pass = Pass::new(Arc::clone(&gate), start);
        assert!(passes(0));
        pass.tell(0, false, false);
        assert!(!passes(1));
        gate.ask(true);
        assert!(passes(2) && passes(3), "the first may come too soon after another picture");
        pass.tell(2, false, false);
        assert!(passes(4));
        pass.tell(4, false, true);
        assert!(!passes(5));
    }

    #[test]
    fn after_a_new_connection_the_first_frame_passes() {
        let (gate, start) = (gate(Duration::ZERO), Instant::now());
        let image = SystemImage::solid(640, 360, [90, 128, 128]);
        let pass = Pass::new(Arc::clone(&gate), start);
        assert!(gate.judge_image(0, start, &image));
        pass.tell(0, false, false);
        assert!(!gate.judge_image(1, start, &image));
        gate.reset();
        assert!(gate.judge_image(2, start, &image));
        pass.tell(2, false, false);
        assert!(!pass.judge(3, &[90; CELLS]), "cells of a device are judged like a host's");
        assert!(pass.judge(4, &[120; CELLS]));
    }
}
