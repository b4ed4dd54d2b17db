use super::*;
use crate::backend::{Back, Lane};
use crate::config::MotionConfig;
use crate::frame::{Colour, CudaImage, Image, PixelFormat};
use crate::letterbox::{Fit, Letterbox};
use crate::motion::{CELLS, Gate, Pass};
use crate::slot::{SlotWriter, Waker, slot};
use crate::worker;
use crossbeam::channel::bounded;

/// Finishes each batch at once, with the outcome scripted for it. All cells of a frame are as bright as its width; one of
/// width 0 cannot be read, neither for its cells nor for the model.
struct Scripted {
    spec: ModelSpec,
    waiting: VecDeque<Vec<Frame>>,
    looked_at: Vec<Frame>,
    script: Arc<std::sync::Mutex<VecDeque<Option<BackendError>>>>,
    /// No batch ends.
    hangs: Arc<AtomicBool>,
    wake: Sender<()>,
}

impl Backend for Scripted {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn submit(&mut self, frames: Vec<Frame>) -> Result<(), BackendError> {
        assert!(self.waiting.len() < self.spec.in_flight && frames.len() <= self.spec.lanes);
        self.waiting.push_back(frames);
        let _ = self.wake.try_send(());
        Ok(())
    }

    fn try_collect(&mut self, out: &mut Batch) -> Result<bool, BackendError> {
        if self.hangs.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let Some(frames) = self.waiting.pop_front() else { return Ok(false) };
        if let Some(Some(error)) = self.script.lock().expect("not poisoned").pop_front() {
            return Err(error);
        }
        let letterbox = Letterbox::new((8, 8), (8, 8), Fit::Centre);
        let lane = |f: Frame| Lane {
            frame: f.info,
            letterbox,
            candidates: crate::yolo::Candidates::default(),
            thumbnail: None,
        };
        let (read, lost): (Vec<_>, Vec<_>) = frames.into_iter().partition(|frame| frame.info.size.0 > 0);
        out.lanes = read.into_iter().map(lane).collect();
        out.lost = lost.into_iter().map(|frame| (frame.info.camera, "it cannot be mapped".to_owned())).collect();
        Ok(true)
    }

    fn look(&mut self, frames: Vec<Frame>) -> Result<(), BackendError> {
        assert!(self.looked_at.is_empty() && !frames.is_empty());
        self.looked_at = frames;
        let _ = self.wake.try_send(());
        Ok(())
    }

    fn looked(&mut self, back: &mut Back<'_>) -> Result<bool, BackendError> {
        if self.hangs.load(Ordering::Relaxed) {
            return Ok(false);
        }
        for frame in self.looked_at.drain(..) {
            let cells = [frame.info.size.0 as u8; CELLS];
            let is_there = frame.info.size.0 > 0;
            back(frame, if is_there { Ok(&cells) } else { Err("it cannot be mapped") });
        }
        Ok(true)
    }
}

struct Bench {
    writer: SlotWriter,
    counters: CameraMetrics,
    batches: Receiver<Batch>,
    free: Sender<Batch>,
    news: Receiver<News>,
    stopping: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
    heart: Heartbeat,
    swaps: Sender<()>,
    /// The next opening fails.
    shut: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<(), BackendError>>,
}

fn start(lanes: usize, script: Vec<Option<BackendError>>) -> Bench {
    let (wake, roster, out) = (bounded(1), bounded(4), bounded(64));
    let (free, news, swaps) = (bounded(4), bounded(4), bounded(1));
    free.0.send(Batch::new(Instant::now())).expect("room");
    let script = Arc::new(std::sync::Mutex::new(VecDeque::from(script)));
    let counters = CameraMetrics::default();
    let arrivals = Arc::new(Arrivals::default());
    let waker = Waker::new(wake.0.clone(), Arc::clone(&arrivals));
    let (writer, reader) = slot(CameraId::new("gate"), counters.clone(), 4, 5, waker);
    roster.0.send(reader).expect("room");
    let (hangs, heart) = (Arc::new(AtomicBool::new(false)), Heartbeat::new(Instant::now()));
    let hanging = Arc::clone(&hangs);
    let shut = Arc::new(AtomicBool::new(false));
    let (shutting, openings) = (Arc::clone(&shut), std::cell::Cell::new(0));
    let open: Open = Box::new(move |wake| {
        if shutting.swap(false, Ordering::Relaxed) {
            return Err(BackendError::Unavailable("the new engine cannot be read".to_owned()));
        }
        openings.set(openings.get() + 1);
        let (name, digest, runtime) = ("scripted".to_owned(), openings.get().to_string(), String::new());
        let spec = ModelSpec { name, lanes, input: (8, 8), in_flight: 1, digest, runtime, engine: None };
        Ok(Box::new(Scripted {
            spec,
            waiting: VecDeque::new(),
            looked_at: Vec::new(),
            script: Arc::clone(&script),
            hangs: Arc::clone(&hanging),
            wake,
        }))
    });
    let stopping = Arc::new(AtomicBool::new(false));
    let inference = Inference {
        open,
        swaps: swaps.1,
        roster: roster.1,
        wake,
        arrivals,
        out: out.0,
        free: free.1,
        deadline: Duration::from_millis(5),
        stopping: Arc::clone(&stopping),
        metrics: Arc::new(Metrics::default()),
        heart: heart.clone(),
        news: news.0,
    };
    let thread = worker::spawn("infer-test", move || inference.run());
    let (batches, free, news, swaps) = (out.1, free.0, news.1, swaps.0);
    Bench { writer, counters, batches, free, news, stopping, hangs, heart, swaps, shut, thread }
}

fn frame(seq: u64) -> Frame {
    let mut frame = Frame::solid(&CameraId::new("gate"), (8, 8), Instant::now());
    frame.info.seq = seq;
    frame
}

#[test]
fn a_stop_waits_for_no_frame_that_is_not_with_the_backend_yet() {
    let Bench { writer, counters, stopping, thread, batches: _batches, free: _free, .. } = start(2, Vec::new());
    stopping.store(true, Ordering::Relaxed);
    assert!(thread.join().unwrap().is_ok());
    let (decoded, inferred) = (u64::from(writer.put_lossless(frame(0))), counters.inferred.get());
    drop(writer);
    assert_eq!((decoded, inferred, counters.dropped.get()), (1, 0, 1), "what is left is counted");
}

#[test]
fn frames_go_through_in_order_and_the_loop_ends_with_its_cameras() {
    let bench = start(2, Vec::new());
    let Bench { writer, counters, batches, free, thread, .. } = bench;
    let feeder = worker::spawn("feed-test", move || (0..50).all(|seq| writer.put_lossless(frame(seq))));
    let mut seen = Vec::new();
    while let Ok(mut batch) = batches.recv() {
        seen.extend(batch.lanes.drain(..).map(|lane| lane.frame.seq));
        let _ = free.try_send(batch);
    }
    assert!(feeder.join().is_ok_and(|all| all) && thread.join().is_ok_and(|end| end.is_ok()));
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
    assert_eq!((counters.inferred.get(), counters.dropped.get()), (50, 0));
}

fn of_three_batches_the_second_is_lost(error: BackendError) {
    let bench = start(1, vec![None, Some(error), None]);
    for seq in 0..3 {
        assert!(bench.writer.put_lossless(frame(seq)));
    }
    for expected in [0, 2] {
        let batch = bench.batches.recv().expect("a batch");
        assert_eq!(batch.lanes[0].frame.seq, expected);
        let _ = bench.free.try_send(batch);
    }
    drop(bench.writer);
    assert!(bench.thread.join().is_ok_and(|end| end.is_ok()));
    assert_eq!((bench.counters.inferred.get(), bench.counters.dropped.get()), (2, 1));
}

#[test]
fn a_dropped_batch_is_counted_and_lived_with() {
    of_three_batches_the_second_is_lost(BackendError::DropBatch("a bad frame".to_owned()));
}

#[test]
fn a_frame_that_cannot_be_read_costs_no_other_of_its_batch() {
    let Bench { writer, counters, batches, free, thread, .. } = start(3, Vec::new());
    for (seq, width) in [(0, 8), (1, 0), (2, 8)] {
        let mut frame = frame(seq);
        frame.info.size.0 = width;
        assert!(writer.put_lossless(frame));
    }
    drop(writer);
    let mut seen = Vec::new();
    while let Ok(batch) = batches.recv() {
        seen.extend(batch.lanes.iter().map(|lane| lane.frame.seq));
        assert!(batch.lost.is_empty(), "the loop has counted them");
        let _ = free.send(batch);
    }
    assert!(thread.join().unwrap().is_ok());
    assert_eq!((seen, counters.inferred.get(), counters.dropped.get()), (vec![0, 2], 2, 1));
}

#[test]
fn what_contradicts_the_manifest_ends_a_start_and_later_costs_its_batch() {
    let unlabelled = || BackendError::Config("the model reports class 9".to_owned());
    of_three_batches_the_second_is_lost(unlabelled());
    let bench = start(1, vec![Some(unlabelled())]);
    assert!(bench.writer.put_lossless(frame(0)));
    assert!(bench.thread.join().is_ok_and(|end| matches!(end, Err(BackendError::Config(_)))));
}

#[test]
fn a_failed_backend_is_opened_anew_once_and_then_ends_the_loop() {
    let lost = || Some(BackendError::Reopen("the device is gone".to_owned()));
    let bench = start(1, vec![lost(), None, lost()]);
    assert!(bench.writer.put_lossless(frame(0)));
    assert!(matches!(bench.news.recv(), Ok(News::Opened(_))));
    assert!(matches!(bench.news.recv(), Ok(News::Failed(text)) if text.contains("gone")));
    assert!(matches!(bench.news.recv(), Ok(News::Opened(_))));
    assert!(bench.writer.put_lossless(frame(1)));
    let _ = bench.free.try_send(bench.batches.recv().expect("a batch"));
    assert!(bench.writer.put_lossless(frame(2)));
    assert!(bench.thread.join().is_ok_and(|end| matches!(end, Err(BackendError::Reopen(_)))));
    assert_eq!((bench.counters.inferred.get(), bench.counters.dropped.get()), (1, 2));
}

#[test]
fn a_newer_engine_takes_over_between_two_batches_and_one_that_cannot_be_opened_leaves_the_old_one() {
    let bench = start(1, Vec::new());
    let put = |seq| assert!(bench.writer.put_lossless(frame(seq)));
    let next = || {
        let batch = bench.batches.recv().expect("a batch");
        let (seq, engine) = (batch.lanes[0].frame.seq, batch.model.engine.clone());
        let _ = bench.free.try_send(batch);
        (seq, engine)
    };
    let news = || bench.news.recv().expect("news");
    let swap = || {
        bench.swaps.send(()).expect("room");
        bench.writer.set_live(true);
    };
    assert!(matches!(news(), News::Opened(spec) if spec.digest == "1"));
    put(0);
    let (_, first) = next();
    bench.shut.store(true, Ordering::Relaxed);
    swap();
    assert!(
        matches!(news(), News::Building(Building::Failed(text)) if text.contains("the old one goes on: the new engine cannot be read"))
    );
    put(1);
    assert_eq!(next(), (1, first.clone()));
    put(2);
    swap();
    assert!(matches!(news(), News::Opened(spec) if spec.digest == "2"));
    put(3);
    drop(bench.writer);
    for seq in [2, 3] {
        assert_eq!(next().0, seq);
    }
    assert!(bench.thread.join().is_ok_and(|end| end.is_ok()));
    let counts = bench.counters.counts();
    assert_eq!((counts.inferred, counts.dropped, counts.overwritten), (4, 0, 0));
}

/// The backend hangs with this frame: that is no progress until it goes on.
fn hangs_with(frame: Frame) {
    let bench = start(1, Vec::new());
    bench.hangs.store(true, Ordering::Relaxed);
    assert!(bench.writer.put_lossless(frame));
    // Several turns of the loop.
    assert!(bench.batches.recv_timeout(4 * TICK).is_err());
    assert!(bench.heart.age(Instant::now()) > 3 * TICK);
    bench.hangs.store(false, Ordering::Relaxed);
    let _ = bench.free.try_send(bench.batches.recv().expect("a batch"));
    drop(bench.writer);
    assert!(bench.thread.join().is_ok_and(|end| end.is_ok()));
    assert!(bench.heart.age(Instant::now()) < 3 * TICK);
}

#[test]
fn a_batch_that_never_ends_is_no_progress_however_often_it_is_asked_for() {
    hangs_with(frame(0));
}

/// The decoder whose frame is looked at hangs, say: the watchdog is to see it.
#[test]
fn a_look_that_never_ends_is_no_progress_either() {
    hangs_with(on_device(Pass::new(gate(), Instant::now()), 0, 50));
}

/// A frame on the device, as bright as it is said.
fn on_device(pass: Pass, seq: u64, brightness: u32) -> Frame {
    let mut frame = frame(seq);
    (frame.info.size.0, frame.info.gate) = (brightness, Some(pass));
    let colour = Colour { bt709: true, full_range: false };
    let (format, width, height, planes, strides) = (PixelFormat::Nv12, brightness, 8, [0; 3], [0; 3]);
    let (stream, loan) = (0, Box::new(()));
    frame.image = Image::Cuda(CudaImage { format, width, height, planes, strides, colour, stream, loan });
    frame
}

fn gate() -> Arc<Gate> {
    let (hold, refresh) = (Duration::ZERO, Duration::from_secs(30));
    Arc::new(Gate::new(&MotionConfig { threshold: 10, area: 0.002, hold, refresh }, None))
}

#[test]
fn frames_on_the_device_are_judged_before_they_fill_a_batch() {
    let bench = start(1, Vec::new());
    let gate = gate();
    let start = Instant::now();
    let pass = |seq: u64| Pass::new(Arc::clone(&gate), start + Duration::from_millis(40 * seq));
    let put = |seq, brightness| assert!(bench.writer.put_lossless(on_device(pass(seq), seq, brightness)));
    let next = || {
        let batch = bench.batches.recv().expect("a batch");
        let seqs: Vec<u64> = batch.lanes.iter().map(|lane| lane.frame.seq).collect();
        let _ = bench.free.try_send(batch);
        seqs.iter().for_each(|seq| pass(*seq).tell(*seq, false, false));
        seqs
    };
    put(0, 50);
    assert_eq!(next(), [0]);
    (1..5).for_each(|seq| put(seq, 50));
    put(5, 90);
    assert_eq!(next(), [5]);
    // The camera is taken down while its last frame is looked at.
    put(6, 140);
    drop(bench.writer);
    let batch = bench.batches.recv().expect("a batch");
    assert_eq!(batch.lanes[0].frame.seq, 6);
    assert!(bench.thread.join().is_ok_and(|end| end.is_ok()));
    let counts = bench.counters.counts();
    assert_eq!((counts.inferred, counts.gated, counts.dropped, counts.overwritten), (3, 4, 0, 0));
}

#[test]
fn a_frame_that_cannot_be_looked_at_is_lost_alone() {
    let bench = start(4, Vec::new());
    let gate = gate();
    let start = Instant::now();
    // Looked at together or one after the other: the first passes as such, the others since nobody has said what was in it.
    for (seq, brightness) in [(0, 50), (1, 0), (2, 50), (3, 0), (4, 50)] {
        let pass = Pass::new(Arc::clone(&gate), start + Duration::from_millis(40 * seq));
        assert!(bench.writer.put_lossless(on_device(pass, seq, brightness)));
    }
    drop(bench.writer);
    let mut seen = Vec::new();
    while let Ok(mut batch) = bench.batches.recv() {
        seen.extend(batch.lanes.drain(..).map(|lane| lane.frame.seq));
        let _ = bench.free.try_send(batch);
    }
    assert!(bench.thread.join().is_ok_and(|end| end.is_ok()));
    assert_eq!(seen, [0, 2, 4]);
    let counts = bench.counters.counts();
    assert_eq!((counts.inferred, counts.gated, counts.dropped, counts.overwritten), (3, 0, 2, 0));
}
