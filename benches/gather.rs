//! Processor time of the inference loop a frame, and how long frames wait: `cargo bench --bench gather`. 128 cameras of
//! 25 frames a second, evenly apart, in batches of 32 that a backend without work finishes after 4 ms (Linux).

use std::collections::VecDeque;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, bounded};
use watchpost::backend::{Backend, BackendError, Batch, Lane, ModelSpec};
use watchpost::frame::{CameraId, Frame};
use watchpost::infer::Inference;
use watchpost::letterbox::{Fit, Letterbox};
use watchpost::metrics::{CameraMetrics, Metrics};
use watchpost::slot::{Arrivals, Waker, slot};
use watchpost::worker::{self, Heartbeat};
use watchpost::yolo::Candidates;

const CAMERAS: u32 = 128;
const LANES: usize = 32;
const SECONDS: u32 = 10;
const FRAME: Duration = Duration::from_millis(40);
const BATCH: Duration = Duration::from_millis(4);

struct Idle {
    spec: ModelSpec,
    running: VecDeque<(Instant, Vec<Frame>)>,
    begun: Sender<Instant>,
}

impl Backend for Idle {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn submit(&mut self, frames: Vec<Frame>) -> Result<(), BackendError> {
        let now = Instant::now();
        self.running.push_back((now, frames));
        let _ = self.begun.send(now);
        Ok(())
    }

    fn try_collect(&mut self, out: &mut Batch) -> Result<bool, BackendError> {
        if self.running.front().is_none_or(|(begun, _)| begun.elapsed() < BATCH) {
            return Ok(false);
        }
        let Some((begun, frames)) = self.running.pop_front() else { return Ok(false) };
        let letterbox = Letterbox::new((8, 8), (8, 8), Fit::Centre);
        let lane = |f: Frame| Lane { frame: f.info, letterbox, candidates: Candidates::default(), thumbnail: None };
        (out.submitted, out.lanes) = (begun, frames.into_iter().map(lane).collect());
        Ok(true)
    }
}

fn main() {
    let (wake, roster, out) = (bounded(1), bounded(CAMERAS as usize), bounded(4));
    let (free, news, swaps) = (bounded(4), bounded(4), bounded(1));
    let _ = free.0.send(Batch::new(Instant::now()));
    let arrivals = Arc::new(Arrivals::default());
    let mut writers = Vec::new();
    for n in 0..CAMERAS {
        let waker = Waker::new(wake.0.clone(), Arc::clone(&arrivals));
        let (writer, reader) = slot(CameraId::new(&format!("cam{n:03}")), CameraMetrics::default(), 1, 5, waker);
        writer.set_live(true);
        writers.push(writer);
        let _ = roster.0.send(reader);
    }
    let inference = Inference {
        open: Box::new(|wake| {
            let (begun, batches) = bounded::<Instant>(4);
            worker::spawn("driver", move || {
                for begun in batches {
                    std::thread::sleep((begun + BATCH).saturating_duration_since(Instant::now()));
                    let _ = wake.try_send(());
                }
            });
            let (name, digest, runtime) = ("idle".to_owned(), String::new(), String::new());
            let spec = ModelSpec { name, lanes: LANES, input: (8, 8), in_flight: 2, digest, runtime, engine: None };
            Ok(Box::new(Idle { spec, running: VecDeque::new(), begun }))
        }),
        swaps: swaps.1,
        roster: roster.1,
        wake,
        arrivals,
        out: out.0,
        free: free.1,
        deadline: Duration::from_millis(40),
        stopping: Arc::default(),
        metrics: Arc::new(Metrics::default()),
        heart: Heartbeat::new(Instant::now()),
        news: news.0,
    };
    let thread = worker::spawn("gathering", move || inference.run());
    let taker = worker::spawn("taker", move || {
        let (mut frames, mut waited) = (0u32, Duration::ZERO);
        for batch in out.1 {
            frames += batch.lanes.len() as u32;
            waited += batch.lanes.iter().map(|lane| batch.submitted - lane.frame.decoded).sum::<Duration>();
            let _ = free.0.send(batch);
        }
        (frames, waited)
    });
    let begun = Instant::now();
    for number in 0..SECONDS * 25 * CAMERAS {
        std::thread::sleep((begun + FRAME / CAMERAS * number).saturating_duration_since(Instant::now()));
        let camera = (number % CAMERAS) as usize;
        writers[camera].put(Frame::solid(&CameraId::new("gate"), (8, 8), Instant::now()));
    }
    let spent = spent("gathering");
    drop((writers, roster.0));
    let _ = thread.join();
    let (frames, waited) = taker.join().unwrap_or_default();
    let us = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(frames.max(1));
    println!(
        "infer: {:.1} µs a frame; a frame waits {:.0} µs for its batch; {frames} frames",
        us(spent),
        us(waited)
    );
}

/// Time on a processor of the thread of this name.
fn spent(name: &str) -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc").flatten();
    let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default();
    let ns = tasks.filter(|task| read(task.path().join("comm")).trim() == name).filter_map(|task| {
        read(task.path().join("schedstat")).split(' ').next().and_then(|ns| ns.parse::<u64>().ok())
    });
    Duration::from_nanos(ns.sum())
}
