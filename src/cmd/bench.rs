//! `bench`: end to end, the engine alone and decoding alone, in turn within one run, so that their ratio holds on a
//! machine whose speed wanders. On a GPU also the engine and decoding beside each other, neither waiting for the other:
//! they share its memory, and no arrangement of both can be faster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, bounded};
use serde::Serialize;

use super::status_line::Progress;
use crate::analyze::Output;
use crate::backend::Settings;
use crate::camera;
use crate::cli::{BenchArgs, Code, Failure};
use crate::config::Config;
use crate::daemon::{Graph, Surroundings};
use crate::engine::Manifest;
use crate::health::Board;
use crate::infer::News;
use crate::logging::Console;
use crate::metrics::{CameraMetrics, LatencySnapshot, Metrics};
use crate::publish::Publisher;
use crate::{process, slot, worker};

/// Each measurement is split into this many, in turn.
const ROUNDS: u64 = 4;
/// Before each measurement: pipelines start, caches warm.
const WARM_UP: Duration = Duration::from_millis(1500);
/// An engine is read and warm after so long.
const ENGINE_OPENS: Duration = Duration::from_secs(2);
/// Longest wait for every camera's first frame, and between two looks.
const ALL_STARTED: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What was measured.
#[derive(Debug, Default, Serialize)]
struct Figures {
    node: String,
    model: String,
    runtime: String,
    broker: String,
    streams: usize,
    seconds_each: f64,
    engine_alone_fps: f64,
    decode_alone_fps: f64,
    /// Beside each other; 0 where there is no GPU.
    engine_beside_decode_fps: f64,
    decode_beside_engine_fps: f64,
    limit_fps: f64,
    end_to_end_fps: f64,
    /// End to end over the limit.
    ratio: f64,
    decode_cpu_us_per_frame: f64,
    end_to_end_cpu_us_per_frame: f64,
    objects_per_frame: f64,
    batch_fill: f64,
    rss_mib: f64,
    frames: Accounts,
    stages: Vec<Stage>,
}

/// What became of the frames of all end-to-end rounds, start and stop included.
#[derive(Debug, Default, Serialize)]
struct Accounts {
    decoded: u64,
    inferred: u64,
    overwritten: u64,
    skipped_fps: u64,
    gated: u64,
    dropped: u64,
}

#[derive(Debug, Serialize)]
struct Stage {
    name: &'static str,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
}

/// Frames, wall time and processor time of one kind of measurement, over its rounds.
#[derive(Default)]
struct Sum {
    frames: u64,
    wall: Duration,
    cpu: Duration,
}

impl Sum {
    /// Adds what `frames` counts during `time`.
    fn measure(&mut self, time: Duration, frames: impl Fn() -> u64) {
        let (before, start) = (frames(), Instant::now());
        let cpu = process::cpu_time().unwrap_or_default();
        std::thread::sleep(time);
        self.frames += frames() - before;
        self.wall += start.elapsed();
        self.cpu += process::cpu_time().unwrap_or_default().saturating_sub(cpu);
    }

    fn fps(&self) -> f64 {
        self.frames as f64 / self.wall.as_secs_f64().max(1e-9)
    }

    fn cpu_us_per_frame(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.frames.max(1) as f64
    }
}

/// One run of all three.
pub fn run(args: &BenchArgs, console: &Console) -> Result<(), Failure> {
    let (config, manifest) = super::load(&args.config)?;
    super::start_gstreamer()?;
    let slice = Duration::from_secs(args.seconds) / ROUNDS as u32;
    let settings = super::backend(&config, &manifest)?.without_stand_ins();
    settings.gpu_share().into_iter().for_each(camera::use_gpu);
    let on_gpu = settings.gpu_share().is_some();
    let turns = if on_gpu { 4 } else { 3 };
    let mut progress = Progress::new(console, "measurements", ROUNDS * turns, Instant::now());
    let (mut engine, mut decode, mut beside) = (Sum::default(), Sum::default(), Beside::default());
    let metrics = Arc::new(Metrics::default());
    let around = Surroundings { boot: super::boot(), metrics, board: Board::default() };
    let (commands, _orders) = bounded(1);
    let (publisher, publishing) =
        super::start_publisher(&config, &around, &config.state_dir.join("bench"), commands)?;
    let mut whole = EndToEnd::new(around, publisher);
    for _ in 0..ROUNDS {
        let (images, wall, cpu) = settings.engine_alone(slice)?;
        engine.frames += images;
        engine.wall += wall;
        engine.cpu += cpu;
        progress.advance(Instant::now(), 1);
        decode_alone(&config, slice, &mut decode, None);
        progress.advance(Instant::now(), 1);
        if on_gpu {
            beside.measure(&config, &settings, slice)?;
            progress.advance(Instant::now(), 1);
        }
        whole.round(&config, &manifest, &settings, slice)?;
        progress.advance(Instant::now(), 1);
    }
    drop(progress);
    let figures = Figures {
        engine_beside_decode_fps: beside.engine.fps(),
        decode_beside_engine_fps: beside.decode.fps(),
        ..whole.figures(&config, &engine, &decode, on_gpu)
    };
    drop(whole);
    publishing.finish(Duration::from_secs(5));
    print(&figures);
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&figures).map_err(|e| Failure::new(Code::Internal, e))?;
        std::fs::write(path, text).map_err(|e| Failure::new(Code::Config, format!("{}: {e}", path.display())))?;
    }
    Ok(())
}

/// The engine and decoding at once.
#[derive(Default)]
struct Beside {
    engine: Sum,
    decode: Sum,
}

impl Beside {
    /// The engine's measurement begins when it is open and warm, just before that of decoding.
    fn measure(&mut self, config: &Config, settings: &Settings, time: Duration) -> Result<(), Failure> {
        let (begin, begun) = bounded::<()>(1);
        let asked = settings.clone();
        let engine = worker::spawn("engine", move || {
            let _ = begun.recv();
            asked.engine_alone(time)
        });
        decode_alone(config, time, &mut self.decode, Some(&begin));
        drop(begin);
        let (images, wall, _) =
            engine.join().map_err(|_| Failure::new(Code::Internal, "the engine's thread panicked"))??;
        self.engine.frames += images;
        self.engine.wall += wall;
        Ok(())
    }
}

/// The cameras as configured, their frames thrown away as soon as they are decoded. `beside` is told when all of them
/// run, and has [`ENGINE_OPENS`] to begin.
fn decode_alone(config: &Config, time: Duration, sum: &mut Sum, beside: Option<&Sender<()>>) {
    let (metrics, board) = (Metrics::default(), Board::default());
    let (wake, woken) = bounded(1);
    let (mut readers, mut cameras, mut counters) = (Vec::new(), Vec::new(), Vec::new());
    for camera in &config.cameras {
        let counter = metrics.camera(&camera.id);
        let (writer, reader) = slot::slot(camera.id.clone(), counter.clone(), 1, camera.priority, wake.clone());
        cameras.push(camera::start(camera.clone(), writer, counter.clone(), board.clone()));
        readers.push(reader);
        counters.push(counter);
    }
    drop(wake);
    let drain = worker::spawn("drain", move || {
        while !readers.iter().all(slot::SlotReader::ended) {
            for reader in &readers {
                drop(reader.take());
            }
            let _ = woken.recv();
        }
    });
    settle(&counters, |c| c.decoded.get());
    if let Some(beside) = beside {
        let _ = beside.send(());
        std::thread::sleep(ENGINE_OPENS);
    }
    sum.measure(time, || counters.iter().map(|c| c.decoded.get()).sum());
    let threads: Vec<_> = cameras.into_iter().map(|camera| camera.thread).collect();
    for thread in threads {
        let _ = thread.join();
    }
    let _ = drain.join();
}

/// Waits until every camera is on its way, and a little longer: a GPU's decoders take seconds to open.
fn settle(counters: &[CameraMetrics], frames: impl Fn(&CameraMetrics) -> u64) {
    let (before, start): (Vec<u64>, _) = (counters.iter().map(&frames).collect(), Instant::now());
    while start.elapsed() < ALL_STARTED && counters.iter().zip(&before).any(|(c, before)| frames(c) == *before) {
        std::thread::sleep(LOOK_EVERY);
    }
    std::thread::sleep(WARM_UP);
}

/// The whole data path, over its rounds.
struct EndToEnd {
    around: Surroundings,
    publisher: Publisher,
    objects: Arc<AtomicU64>,
    messages: Arc<AtomicU64>,
    sum: Sum,
    rss: u64,
    runtime: String,
}

impl EndToEnd {
    fn new(around: Surroundings, publisher: Publisher) -> Self {
        let (objects, messages) = (Arc::default(), Arc::default());
        Self { around, publisher, objects, messages, sum: Sum::default(), rss: 0, runtime: String::new() }
    }

    fn round(
        &mut self,
        config: &Config,
        manifest: &Manifest,
        settings: &Settings,
        time: Duration,
    ) -> Result<(), Failure> {
        let (sink, objects, messages) =
            (self.publisher.clone(), Arc::clone(&self.objects), Arc::clone(&self.messages));
        let count = move |camera: &_, output: Output<'_>| {
            if let Output::Detections(message) = output {
                objects.fetch_add(message.objects.len() as u64, Ordering::Relaxed);
                messages.fetch_add(1, Ordering::Relaxed);
            }
            super::run::say(&sink, camera, output);
        };
        let graph = Graph::start(config, manifest, settings, &self.around, Box::new(count));
        let spec = graph.news.iter().find_map(|news| match news {
            News::Opened(spec) => Some(spec),
            News::Building(_) | News::Failed(_) => None,
        });
        let Some(spec) = spec else {
            graph.stop()?;
            return Err(Failure::new(Code::Internal, "inference ended without a word"));
        };
        self.runtime = spec.runtime;
        let counters: Vec<_> = config.cameras.iter().map(|c| self.around.metrics.camera(&c.id)).collect();
        settle(&counters, |c| c.inferred.get());
        self.sum.measure(time, || counters.iter().map(|c| c.inferred.get()).sum());
        self.rss = self.rss.max(process::rss_bytes().unwrap_or(0));
        graph.stop()?;
        Ok(())
    }

    fn figures(&self, config: &Config, engine: &Sum, decode: &Sum, on_gpu: bool) -> Figures {
        let metrics = &self.around.metrics;
        let limit = match on_gpu {
            // Decoder and engine are units of their own.
            true => engine.fps().min(decode.fps()),
            false => 1.0 / (1.0 / engine.fps() + 1.0 / decode.fps()),
        };
        let mut frames = Accounts::default();
        for counts in config.cameras.iter().map(|c| metrics.camera(&c.id).counts()) {
            frames.decoded += counts.decoded;
            frames.inferred += counts.inferred;
            frames.overwritten += counts.overwritten;
            frames.skipped_fps += counts.skipped_fps;
            frames.gated += counts.gated;
            frames.dropped += counts.dropped;
        }
        let messages = self.messages.load(Ordering::Relaxed).max(1);
        Figures {
            node: config.node.clone(),
            model: config.engine.manifest.display().to_string(),
            runtime: self.runtime.clone(),
            broker: format!("{:?}", config.mqtt.broker),
            streams: config.cameras.len(),
            seconds_each: self.sum.wall.as_secs_f64(),
            engine_alone_fps: engine.fps(),
            decode_alone_fps: decode.fps(),
            limit_fps: limit,
            engine_beside_decode_fps: 0.0,
            decode_beside_engine_fps: 0.0,
            end_to_end_fps: self.sum.fps(),
            ratio: self.sum.fps() / limit,
            decode_cpu_us_per_frame: decode.cpu_us_per_frame(),
            end_to_end_cpu_us_per_frame: self.sum.cpu_us_per_frame(),
            objects_per_frame: self.objects.load(Ordering::Relaxed) as f64 / messages as f64,
            batch_fill: metrics.lanes_filled.get() as f64 / metrics.lanes_total.get().max(1) as f64,
            rss_mib: self.rss as f64 / f64::from(1 << 20),
            frames,
            stages: stages(metrics),
        }
    }
}

fn stages(metrics: &Metrics) -> Vec<Stage> {
    let s = &metrics.stages;
    let named = [
        ("decode", &s.decode),
        ("queue", &s.queue),
        ("preprocess", &s.preprocess),
        ("infer", &s.infer),
        ("head", &s.head),
        ("analyze", &s.analyze),
        ("total", &s.total),
    ];
    let ms = |snapshot: &LatencySnapshot, q: f64| snapshot.quantile_s(q) * 1e3;
    let stage = |(name, latency): (&'static str, &crate::metrics::Latency)| {
        let snapshot = latency.snapshot();
        let (p50_ms, p95_ms, p99_ms) = (ms(&snapshot, 0.5), ms(&snapshot, 0.95), ms(&snapshot, 0.99));
        Stage { name, p50_ms, p95_ms, p99_ms }
    };
    named.into_iter().map(stage).collect()
}

fn print(f: &Figures) {
    println!("{} streams, {}, broker {}", f.streams, f.runtime, f.broker);
    println!("{:<14} {:>9}  {:>14}", "", "frames/s", "CPU µs a frame");
    println!("{:<14} {:>9.1}", "engine alone", f.engine_alone_fps);
    println!("{:<14} {:>9.1}  {:>14.0}", "decode alone", f.decode_alone_fps, f.decode_cpu_us_per_frame);
    if f.engine_beside_decode_fps > 0.0 {
        let (engine, decode) = (f.engine_beside_decode_fps, f.decode_beside_engine_fps);
        println!("{:<14} {engine:>9.1}  engine, {decode:.1} decode", "both at once");
    }
    println!("{:<14} {:>9.1}", "limit", f.limit_fps);
    println!("{:<14} {:>9.1}  {:>14.0}", "end to end", f.end_to_end_fps, f.end_to_end_cpu_us_per_frame);
    println!("end to end / limit = {:.3}", f.ratio);
    println!(
        "{:.2} objects a frame, batches {:.0} % full, RSS {:.0} MiB",
        f.objects_per_frame,
        f.batch_fill * 100.0,
        f.rss_mib
    );
    let a = &f.frames;
    println!(
        "frames: {} decoded = {} inferred + {} overwritten + {} skipped + {} gated + {} dropped",
        a.decoded, a.inferred, a.overwritten, a.skipped_fps, a.gated, a.dropped
    );
    println!("{:<12} {:>8} {:>8} {:>8}", "ms", "p50", "p95", "p99");
    for stage in &f.stages {
        println!("{:<12} {:>8.2} {:>8.2} {:>8.2}", stage.name, stage.p50_ms, stage.p95_ms, stage.p99_ms);
    }
}
