//! `engine bench`: the engine alone in a loop, on several contexts at once. What end to end is held against.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::inspect::Running;
use super::{Configured, Host, Subject};
use crate::cli::engine::EngineBenchArgs;
use crate::cli::{Code, Failure};
use crate::cmd::status_line::Progress;
use crate::engine::built;
use crate::engine::stamp::Wanted;
use crate::gpu::device::Device;
use crate::gpu::error::GpuError;
use crate::gpu::stream::{Event, Graph};
use crate::gpu::trt::Engine;
use crate::logging::Console;
use crate::worker;

/// Batches put on a stream before it is waited for: the GPU must not wait for us, and a batch has hundreds of kernels.
const AHEAD: usize = 8;
/// Not measured: the GPU's clock rises, memory is touched.
const WARM_UP: Duration = Duration::from_secs(1);

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    engine: String,
    model: String,
    runtime: String,
    gpu: String,
    batch: usize,
    contexts: usize,
    graphs: bool,
    seconds: f64,
    images_per_second: f64,
    batch_ms_p50: f64,
    batch_ms_p99: f64,
}

/// Runs it and prints the figures.
pub fn run(args: &EngineBenchArgs, console: &Console) -> Result<(), Failure> {
    let (host, path) = find(args)?;
    let stamp = built::stamp(&path)?;
    let bytes = built::load(&path, &stamp)?;
    let batch = args.batch.map_or(stamp.options.batch, usize::from);
    let options = crate::engine::stamp::Options { batch, ..stamp.options.clone() };
    host.check(&path, &stamp, Some(&Wanted { model_sha256: None, options }))?;
    let device = host.device()?;
    let engine = Engine::load(&host.library, &bytes, stamp.options.dla_core)?;
    let contexts = usize::from(args.contexts);
    let lanes: Result<Vec<Lane>, Failure> =
        (0..contexts).map(|_| Lane::new(&engine, batch, device, !args.no_graph)).collect();
    let time = Duration::from_secs(args.seconds);
    let progress = Progress::new(console, "measuring", 1, Instant::now());
    let measured = measure(lanes?, time)?;
    drop(progress);
    let mut times: Vec<f32> = measured.iter().flat_map(|lane| lane.ms.iter().copied()).collect();
    times.sort_by(f32::total_cmp);
    let quantile = |q: f64| times.get((times.len() as f64 * q) as usize).copied().map_or(0.0, f64::from);
    let figures = Figures {
        engine: path.display().to_string(),
        model: stamp.model.name.clone(),
        runtime: host.machine.tensorrt.to_string(),
        gpu: device.name(),
        batch,
        contexts,
        graphs: !args.no_graph,
        seconds: time.as_secs_f64(),
        images_per_second: measured.iter().map(|lane| lane.batches_per_second * batch as f64).sum(),
        batch_ms_p50: quantile(0.5),
        batch_ms_p99: quantile(0.99),
    };
    print(&figures, args.json)
}

fn print(figures: &Figures, json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string_pretty(figures).map_err(|e| Failure::new(Code::Internal, e))?;
        println!("{text}");
        return Ok(());
    }
    let Figures { model, runtime, gpu, batch, contexts, .. } = figures;
    let graphs = if figures.graphs { "with CUDA graphs" } else { "without CUDA graphs" };
    println!("{model}, {runtime}, {gpu}, batch {batch}, {contexts} context(s) {graphs}, {:.0} s", figures.seconds);
    println!("images/s          {:>10.1}", figures.images_per_second);
    println!("ms a batch   p50  {:>10.3}", figures.batch_ms_p50);
    println!("             p99  {:>10.3}", figures.batch_ms_p99);
    Ok(())
}

/// The machine, and the engine given or, of a manifest, the one that lies beside it.
fn find(args: &EngineBenchArgs) -> Result<(Host, PathBuf), Failure> {
    if args.engine.extension().is_none_or(|ending| ending != "toml") {
        // A file that is not there is told before a library that is not.
        built::stamp(&args.engine)?;
        return Ok((Host::open(&args.machine, &Configured::default())?, args.engine.clone()));
    }
    let subject = Subject::of_manifest(&args.engine)?;
    let host = Host::open(&args.machine, &Configured::default())?;
    let path = host.engine_in(&subject.folder, &subject.manifest, args.batch.map_or(1, usize::from));
    Ok((host, path))
}

/// One context on its way through the loop.
struct Lane {
    running: Running,
    graph: Option<Graph>,
    /// Between the batches.
    marks: Vec<Event>,
}

struct Measured {
    batches_per_second: f64,
    /// Of each batch, from the end of the one before.
    ms: Vec<f32>,
}

impl Lane {
    fn new(engine: &Engine, batch: usize, device: &Device, with_graph: bool) -> Result<Self, Failure> {
        let mut running = Running::of_batch(engine, batch, device)?;
        // The first batch sets up what a graph cannot hold.
        running.enqueue()?;
        running.stream().synchronize()?;
        let graph = match with_graph {
            true => {
                let stream = running.stream().clone();
                let context = running.context_mut();
                let work = || context.enqueue(stream.raw()).map_err(|e| GpuError::Failed(e.to_string()));
                Some(stream.capture(work)?)
            }
            false => None,
        };
        let marks = (0..=AHEAD).map(|_| Event::new(device)).collect::<Result<_, _>>()?;
        Ok(Self { running, graph, marks })
    }

    fn run(mut self, time: Duration) -> Result<Measured, Failure> {
        let warm = Instant::now();
        while warm.elapsed() < WARM_UP {
            self.round()?;
        }
        let (start, mut ms) = (Instant::now(), Vec::new());
        while start.elapsed() < time {
            self.round()?;
            for pair in self.marks.windows(2) {
                ms.push(pair[1].ms_since(&pair[0])?);
            }
        }
        let batches_per_second = ms.len() as f64 / start.elapsed().as_secs_f64();
        Ok(Measured { batches_per_second, ms })
    }

    fn round(&mut self) -> Result<(), Failure> {
        let stream = self.running.stream().clone();
        self.marks[0].record(&stream)?;
        for mark in &self.marks[1..] {
            match &self.graph {
                Some(graph) => graph.launch(&stream)?,
                None => self.running.enqueue()?,
            }
            mark.record(&stream)?;
        }
        Ok(stream.synchronize()?)
    }
}

/// All lanes at once, each on a thread of its own.
fn measure(lanes: Vec<Lane>, time: Duration) -> Result<Vec<Measured>, Failure> {
    let run = |(number, lane): (usize, Lane)| worker::spawn(&format!("trt-{number}"), move || lane.run(time));
    let threads: Vec<_> = lanes.into_iter().enumerate().map(run).collect();
    let ended = threads.into_iter().map(|thread| {
        thread.join().unwrap_or_else(|_| Err(Failure::new(Code::Internal, "a measuring thread panicked")))
    });
    ended.collect()
}
