//! The hand-over from a camera to inference: the newest frame wins. The only lossy step on the hot path.
//!
//! A live camera's slot holds one frame and never makes the decoder wait. The slot of a file read as fast as
//! possible holds one batch and makes its feeder wait instead, so that no frame is lost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam::channel::Sender;

use crate::frame::{CameraId, Frame};
use crate::metrics::CameraMetrics;

/// Frames that have come into all slots together, and at how many inference wants to be woken: 128 cameras of 25 frames
/// a second would wake it 3,200 times a second, for a batch every 10 ms.
#[derive(Debug, Default)]
pub struct Arrivals {
    count: AtomicU64,
    wanted: AtomicU64,
}

impl Arrivals {
    /// How many have come. To be read before the slots are looked at.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Lets frames wake from the one on that makes `count` of them; `None`: no frame wakes. `true`: they have come
    /// already, and nobody may say so.
    pub fn want(&self, count: Option<u64>) -> bool {
        let count = count.unwrap_or(u64::MAX);
        self.wanted.store(count, Ordering::SeqCst);
        // One total order: either this sees the frame counted, or `came` sees what is wanted.
        self.count() >= count
    }

    /// Counts a frame that did not displace another; whether it is to wake.
    fn came(&self, is_more: bool) -> bool {
        let count = self.count.fetch_add(is_more.into(), Ordering::SeqCst) + u64::from(is_more);
        count >= self.wanted.load(Ordering::SeqCst)
    }
}

/// How a slot's writer wakes its reader.
#[derive(Clone, Debug)]
pub struct Waker {
    sender: Sender<()>,
    arrivals: Arc<Arrivals>,
}

impl Waker {
    /// Wakes by `sender`, frames as `arrivals` says.
    pub fn new(sender: Sender<()>, arrivals: Arc<Arrivals>) -> Self {
        Self { sender, arrivals }
    }

    fn frame(&self, is_more: bool) {
        if self.arrivals.came(is_more) {
            self.wake();
        }
    }

    fn wake(&self) {
        // Full means awake already; disconnected means that inference has ended.
        let _ = self.sender.try_send(());
    }
}

impl From<Sender<()>> for Waker {
    /// Wakes with every frame.
    fn from(sender: Sender<()>) -> Self {
        Self::new(sender, Arc::default())
    }
}

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
    resting: AtomicBool,
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
    waker: Waker,
}

/// The inference thread's end.
pub struct SlotReader {
    shared: Arc<Shared>,
}

/// Makes a slot of `depth` frames (1 for a live camera). `waker` is told of every frame and of the end.
pub fn slot(
    camera: CameraId,
    metrics: CameraMetrics,
    depth: usize,
    weight: u8,
    waker: impl Into<Waker>,
) -> (SlotWriter, SlotReader) {
    assert!(depth > 0 && weight > 0, "a slot holds at least one frame and has a share");
    let state = State { frames: VecDeque::with_capacity(depth), closed: false, interrupted: false };
    let shared = Arc::new(Shared {
        camera,
        metrics,
        depth,
        weight,
        live: AtomicBool::new(false),
        resting: AtomicBool::new(false),
        state: Mutex::new(state),
        taken: Condvar::new(),
    });
    (SlotWriter { shared: Arc::clone(&shared), waker: waker.into() }, SlotReader { shared })
}

impl SlotWriter {
    /// Puts a frame; a frame still there is overwritten and counted. Never blocks.
    pub fn put(&self, frame: Frame) {
        let mut state = self.shared.lock();
        let old = if state.frames.len() == self.shared.depth { state.frames.pop_front() } else { None };
        state.frames.push_back(frame);
        drop(state);
        self.waker.frame(old.is_none());
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
        self.waker.frame(true);
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
        self.waker.wake();
    }

    /// Whether the motion gate is shut: batches do not wait for a camera in front of which nothing moves.
    pub fn set_resting(&self, resting: bool) {
        if self.shared.resting.swap(resting, Ordering::Relaxed) != resting && resting {
            self.waker.wake();
        }
    }
}

impl Drop for SlotWriter {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.waker.wake();
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
    /// The camera delivers frames, and its motion gate is not shut.
    pub live: bool,
    /// Share under overload, 1..=10.
    pub weight: u8,
    /// Its frames are still to be judged by the motion gate ([`Frame::is_unjudged`]).
    pub unjudged: bool,
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

    /// What the batch decision needs; `None`: the writer is gone and nothing is left.
    pub fn view(&self) -> Option<SlotView> {
        let state = self.shared.lock();
        (!state.closed || !state.frames.is_empty()).then(|| SlotView {
            ready: state.frames.len(),
            depth: self.shared.depth,
            since: state.frames.front().map(|f| f.info.decoded),
            live: self.shared.live.load(Ordering::Relaxed) && !self.shared.resting.load(Ordering::Relaxed),
            weight: self.shared.weight,
            unjudged: state.frames.front().is_some_and(Frame::is_unjudged),
        })
    }

    /// Takes the oldest frame, if there is one.
    pub fn take(&self) -> Option<Frame> {
        let frame = self.shared.lock().frames.pop_front();
        self.shared.taken.notify_one();
        frame
    }

    /// Takes the oldest frame, if the motion gate has yet to judge it.
    pub fn take_unjudged(&self) -> Option<Frame> {
        let mut state = self.shared.lock();
        let frame = if state.frames.front()?.is_unjudged() { state.frames.pop_front() } else { None };
        drop(state);
        self.shared.taken.notify_one();
        frame
    }

    /// As [`SlotWriter::set_resting`], where frames are judged at this end.
    pub fn set_resting(&self, resting: bool) {
        self.shared.resting.store(resting, Ordering::Relaxed);
    }

    /// Frames that it holds: 1 for a live camera, a batch for a lossless file.
    pub fn depth(&self) -> usize {
        self.shared.depth
    }

    /// Its share under overload, 1..=10.
    pub fn weight(&self) -> u8 {
        self.shared.weight
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
    fn frames_wake_from_the_one_on_that_is_wanted() {
        let (wake, woken) = bounded(1);
        let arrivals = Arc::new(Arrivals::default());
        let waker = || Waker::new(wake.clone(), Arc::clone(&arrivals));
        let slots: Vec<_> =
            (0..3).map(|_| slot(CameraId::new("gate"), CameraMetrics::default(), 1, 5, waker())).collect();
        let come = |slot: usize| {
            slots[slot].0.put(frame(0));
            woken.try_recv().is_ok()
        };
        assert!(!arrivals.want(Some(2)));
        assert!(!come(0));
        assert!(!come(0), "it displaced the first: there is no more to take");
        assert!(come(1));
        assert!(arrivals.want(Some(2)), "they are there already");
        assert!(!arrivals.want(None));
        assert!(!come(2));
        assert_eq!(arrivals.count(), 3);
        drop(slots);
        assert!(woken.try_recv().is_ok(), "the end is always told");
    }

    #[test]
    fn a_camera_that_rests_is_not_waited_for_and_says_so_once() {
        let (wake, woken) = bounded(1);
        let (writer, reader) = slot(CameraId::new("gate"), CameraMetrics::default(), 1, 5, wake);
        writer.set_live(true);
        assert!(woken.try_recv().is_ok());
        for (resting, wakes, live) in
            [(false, false, true), (true, true, false), (true, false, false), (false, false, true)]
        {
            writer.set_resting(resting);
            assert_eq!((woken.try_recv().is_ok(), reader.view().unwrap().live), (wakes, live));
        }
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
