//! Whether a frame is given to the model. Pure: its cells, the time and what is known of earlier frames are arguments.
//!
//! Change is measured against a running average of each cell, the simplest of the background models (M. Piccardi,
//! "Background subtraction techniques: a review", IEEE SMC 2004, section 2.1): it follows light that changes slowly, and
//! what stands still becomes part of it.

use std::time::{Duration, Instant};

use super::cells::{CELLS, GRID};
use crate::config::MotionConfig;
use crate::letterbox::{Fit, Letterbox};
use crate::mask::RegionMask;

/// Time constant of the running average: light that changes by less than `threshold` in it is no motion. Whoever stood there
/// stays behind in it as a ghost that moves on: with 3 s the place of the one-by-one clip was still for 9 % of its frames,
/// with 1 s for 32 % (`benches/gate`).
const FOLLOWS_IN: Duration = Duration::from_secs(1);
/// Frames come in the order in which they are shown, and some arrived a little before the one shown before them. A step
/// back beyond this is a file that is read again.
const DISORDER: Duration = Duration::from_secs(1);

/// Why a frame is given to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Something moves, the light changes, or there is nothing yet to compare with.
    Motion,
    /// Something moved no longer than `hold` ago.
    Hold,
    /// A track lives.
    Track,
    /// None was given for as long as `refresh`.
    Refresh,
    /// What is in a frame given for one of these reasons is not yet known: it may be a track.
    Awaited,
}

/// What is known of the frames given to the model so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// No track lives.
    Nothing,
    /// A track lives, be it tentative or lost from sight, or a picture is waited for.
    Wanted,
    /// The last frame given for a reason is not yet analysed.
    NotYet,
}

/// The decision for one camera.
#[derive(Debug)]
pub struct Judge {
    config: MotionConfig,
    /// By cell: 1 where it counts, 0 where a mask covers any of it.
    counts: Vec<u8>,
    /// Cells that must change.
    changed_min: u32,
    /// By cell: the running average; empty while there is none.
    reference: Vec<f32>,
    /// The latest frame's time.
    seen: Option<Instant>,
    /// Time that has passed from frame to frame.
    now: Duration,
    moved: Duration,
    passed: Duration,
}

impl Judge {
    /// Knows nothing: the next frame is motion.
    pub fn new(config: &MotionConfig, mask: Option<&RegionMask>) -> Self {
        let mut counts = vec![1; CELLS];
        // A frame of any shape on the grid; pixels smaller than cells, so that neighbours of a mask count.
        let grid = (GRID.0 as u32, GRID.1 as u32);
        let letterbox = Letterbox::new((32 * grid.0, 32 * grid.1), grid, Fit::Stretch);
        for span in mask.map(|mask| mask.spans(&letterbox)).unwrap_or_default() {
            counts[span.y as usize * GRID.0..][span.x0 as usize..span.x1 as usize].fill(0);
        }
        let counted = counts.iter().filter(|counts| **counts == 1).count();
        Self {
            changed_min: (config.area * counted as f32).ceil().max(1.0) as u32,
            config: config.clone(),
            counts,
            reference: Vec::new(),
            seen: None,
            now: Duration::ZERO,
            moved: Duration::ZERO,
            passed: Duration::ZERO,
        }
    }

    /// Forgets the scene: the camera was away.
    pub fn reset(&mut self) {
        self.reference.clear();
    }

    /// Whether the frame of time `at` with these [`CELLS`] cells is given to the model, and why.
    pub fn judge(&mut self, at: Instant, cells: &[u8], known: Known) -> Option<Reason> {
        let passed = self.forward(at);
        let moves = self.moves(cells, passed);
        if moves {
            self.moved = self.now;
        }
        let reason = if moves {
            Reason::Motion
        } else if known == Known::Wanted {
            Reason::Track
        } else if self.now.saturating_sub(self.moved) < self.config.hold {
            Reason::Hold
        } else if self.now.saturating_sub(self.passed) >= self.config.refresh {
            Reason::Refresh
        } else if known == Known::NotYet {
            Reason::Awaited
        } else {
            return None;
        };
        self.passed = self.now;
        Some(reason)
    }

    /// Time since the frame before.
    fn forward(&mut self, at: Instant) -> Duration {
        let seen = self.seen.unwrap_or(at);
        let passed = at.saturating_duration_since(seen);
        self.seen = Some(if at + DISORDER < seen { at } else { seen.max(at) });
        self.now += passed;
        passed
    }

    /// Compares with the reference, and lets it follow.
    fn moves(&mut self, cells: &[u8], passed: Duration) -> bool {
        if self.reference.is_empty() {
            self.reference.extend(cells.iter().map(|cell| f32::from(*cell)));
            return true;
        }
        let follow = 1.0 - (-passed.as_secs_f32() / FOLLOWS_IN.as_secs_f32()).exp();
        let threshold = f32::from(self.config.threshold);
        let mut changed = 0;
        for ((reference, cell), counts) in self.reference.iter_mut().zip(cells).zip(&self.counts) {
            let off = f32::from(*cell) - *reference;
            changed += u32::from(*counts & u8::from(off.abs() >= threshold));
            *reference += off * follow;
        }
        changed >= self.changed_min
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
