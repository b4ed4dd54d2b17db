//! The hand-over from a camera to inference: the newest frame wins. The only lossy step on the hot path.
//!
//! A live camera's slot holds one frame and never makes the decoder wait. The slot of a file read as fast as
//! possible holds one batch and makes its feeder wait instead, so that no frame is lost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam::channel::Sender;

use crate::frame::{CameraId, Frame};
use crate::metrics::CameraMetrics;

struct State {
    frames: VecDeque<Frame>,
    /// The writer is gone: nothing comes any more.
    closed: bool,
    /// A waiting writer gives up: its pipeline is being stopped.
    interrupted: bool,
}

struct Shared {
    camera: CameraId,
    metrics: CameraMetrics,
    /// Frames held: 1 for a live camera, a batch for a lossless file.
    depth: usize,
    /// Share under overload, 1..=10.
    weight: u8,
    live: AtomicBool,
    state: Mutex<State>,
    taken: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    /// Inference ended before it took them.
    fn drop(&mut self) {
        let left = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).frames.len();
        self.metrics.dropped.inc_by(left as u64);
    }
}

/// The camera's end. Closing is dropping.
pub struct SlotWriter {
    shared: Arc<Shared>,
    wake: Sender<()>,
}

/// The inference thread's end.
pub struct SlotReader {
    shared: Arc<Shared>,
}

/// Makes a slot of `depth` frames (1 for a live camera). `wake` is told of every frame and of the end.
pub fn slot(
    camera: CameraId,
    metrics: CameraMetrics,
    depth: usize,
    weight: u8,
    wake: Sender<()>,
) -> (SlotWriter, SlotReader) {
    assert!(depth > 0 && weight > 0, "a slot holds at least one frame and has a share");
    let state = State { frames: VecDeque::with_capacity(depth), closed: false, interrupted: false };
    let shared = Arc::new(Shared {
        camera,
        metrics,
        depth,
        weight,
        live: AtomicBool::new(false),
        state: Mutex::new(state),
        taken: Condvar::new(),
    });
    (SlotWriter { shared: Arc::clone(&shared), wake }, SlotReader { shared })
}

impl SlotWriter {
    /// Puts a frame; a frame still there is overwritten and counted. Never blocks.
    pub fn put(&self, frame: Frame) {
        let mut state = self.shared.lock();
        let old = if state.frames.len() == self.shared.depth { state.frames.pop_front() } else { None };
        state.frames.push_back(frame);
        drop(state);
        self.wake();
        if old.is_some() {
            self.shared.metrics.overwritten.inc();
        }
        // `old` is dropped here, after the lock: it returns a buffer to a decoder's pool.
    }

    /// Puts a frame when there is room. Gives the frame up, counted as dropped, where [`SlotWriter::interrupt`]
    /// says so.
    pub fn put_lossless(&self, frame: Frame) -> bool {
        let mut state = self.shared.lock();
        while state.frames.len() == self.shared.depth && !state.interrupted {
            state = self.shared.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.interrupted {
            drop(state);
            self.shared.metrics.dropped.inc();
            return false;
        }
        state.frames.push_back(frame);
        drop(state);
        self.wake();
        true
    }

    /// Ends a waiting [`SlotWriter::put_lossless`] and every later one, until [`SlotWriter::resume`].
    pub fn interrupt(&self) {
        self.shared.lock().interrupted = true;
        self.shared.taken.notify_all();
    }

    /// Allows [`SlotWriter::put_lossless`] to wait again.
    pub fn resume(&self) {
        self.shared.lock().interrupted = false;
    }

    /// Whether the camera delivers frames: batches wait for live cameras only.
    pub fn set_live(&self, live: bool) {
        self.shared.live.store(live, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        // Full means awake already; disconnected means that inference has ended.
        let _ = self.wake.try_send(());
    }
}

impl Drop for SlotWriter {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.wake();
    }
}

/// A slot as the batch decision sees it.
#[derive(Clone, Copy, Debug)]
pub struct SlotView {
    /// Frames ready.
    pub ready: usize,
    /// Frames there may be: 1 for a live camera, a batch for a lossless file.
    pub depth: usize,
    /// Arrival of the oldest of them in the slot, by when it left the decoder.
    pub since: Option<Instant>,
    /// The camera delivers frames.
    pub live: bool,
    /// Share under overload, 1..=10.
    pub weight: u8,
}

impl SlotReader {
    /// The camera.
    pub fn camera(&self) -> &CameraId {
        &self.shared.camera
    }

    /// The camera's counters.
    pub fn metrics(&self) -> &CameraMetrics {
        &self.shared.metrics
    }

    /// What the batch decision needs.
    pub fn view(&self) -> SlotView {
        let state = self.shared.lock();
        SlotView {
            ready: state.frames.len(),
            depth: self.shared.depth,
            since: state.frames.front().map(|f| f.info.decoded),
            live: self.shared.live.load(Ordering::Relaxed),
            weight: self.shared.weight,
        }
    }

    /// Takes the oldest frame, if there is one.
    pub fn take(&self) -> Option<Frame> {
        let frame = self.shared.lock().frames.pop_front();
        self.shared.taken.notify_one();
        frame
    }

    /// The writer is gone and nothing is left.
    pub fn ended(&self) -> bool {
        let state = self.shared.lock();
        state.closed && state.frames.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::channel::bounded;
    use std::time::Instant;

    fn frame(seq: u64) -> Frame {
        let mut frame = Frame::solid(&CameraId::new("gate"), (8, 8), Instant::now());
        frame.info.seq = seq;
        frame
    }

    #[test]
    fn the_newest_frame_wins_and_the_old_one_is_counted() {
        let (wake, woken) = bounded(1);
        let metrics = CameraMetrics::default();
        let (writer, reader) = slot(CameraId::new("gate"), metrics.clone(), 1, 5, wake);
        for seq in 0..5 {
            writer.put(frame(seq));
        }
        assert_eq!(woken.len(), 1);
        assert_eq!(reader.take().map(|f| f.info.seq), Some(4));
        assert!(reader.take().is_none());
        assert_eq!(metrics.overwritten.get(), 4);
        assert!(!reader.ended());
        drop(writer);
        assert!(reader.ended());
    }

    #[test]
    fn frames_that_nobody_took_are_counted_as_dropped() {
        let metrics = CameraMetrics::default();
        let (writer, reader) = slot(CameraId::new("gate"), metrics.clone(), 2, 5, bounded(1).0);
        writer.put(frame(0));
        writer.put(frame(1));
        drop((writer, reader));
        assert_eq!((metrics.dropped.get(), metrics.overwritten.get()), (2, 0));
    }

    #[test]
    fn a_lossless_writer_waits_and_loses_nothing() {
        let (wake, woken) = bounded(1);
        let metrics = CameraMetrics::default();
        let (writer, reader) = slot(CameraId::new("file"), metrics.clone(), 2, 5, wake);
        let feeder = crate::worker::spawn("feed-test", move || (0..100).all(|seq| writer.put_lossless(frame(seq))));
        let mut seen = Vec::new();
        while seen.len() < 100 {
            match reader.take() {
                Some(frame) => seen.push(frame.info.seq),
                None => drop(woken.recv()),
            }
        }
        assert!(feeder.join().is_ok_and(|all| all));
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert_eq!(metrics.overwritten.get(), 0);
    }

    #[test]
    fn interrupt_frees_a_waiting_writer_and_counts_its_frame() {
        let (wake, _woken) = bounded(1);
        let metrics = CameraMetrics::default();
        let (writer, reader) = slot(CameraId::new("file"), metrics.clone(), 1, 5, wake);
        assert!(writer.put_lossless(frame(0)));
        let writer = Arc::new(writer);
        let feeder = {
            let writer = Arc::clone(&writer);
            crate::worker::spawn("feed-test", move || writer.put_lossless(frame(1)))
        };
        writer.interrupt();
        assert!(feeder.join().is_ok_and(|put| !put));
        assert_eq!(metrics.dropped.get(), 1);
        assert_eq!(reader.take().map(|f| f.info.seq), Some(0));
    }
}
