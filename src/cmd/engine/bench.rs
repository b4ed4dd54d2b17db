//! `engine bench`: the engine alone in a loop, on several contexts at once. What end to end is held against.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Configured, Host, Subject};
use crate::cli::engine::EngineBenchArgs;
use crate::cli::{Code, Failure};
use crate::cmd::status_line::Progress;
use crate::engine::built;
use crate::engine::order;
use crate::engine::stamp::Wanted;
use crate::gpu::alone;
use crate::logging::Console;

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
    let Found { host, path, plugins } = find(args)?;
    let stamp = built::stamp(&path)?;
    let bytes = built::load(&path, &stamp)?;
    let batch = args.batch.map_or(stamp.options.batch, usize::from);
    let options = crate::engine::stamp::Options { batch, ..stamp.options.clone() };
    host.check(&path, &stamp, Some(&Wanted { model_sha256: None, options }))?;
    let device = host.device()?;
    let engine = host.load(&path, &bytes, &stamp, &plugins)?;
    let contexts = usize::from(args.contexts);
    let time = Duration::from_secs(args.seconds);
    let progress = Progress::new(console, "measuring", 1, Instant::now());
    let measured = alone::measure(&engine, batch, device, contexts, !args.no_graph, time)?;
    drop(progress);
    let mut times = measured.batch_ms;
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
        images_per_second: (measured.batches * batch as u64) as f64 / measured.wall.as_secs_f64(),
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

/// What is to be measured, and where.
struct Found {
    host: Host,
    path: PathBuf,
    plugins: Vec<PathBuf>,
}

/// The machine, and the engine given or, of a manifest, the one that `engine build` puts beside it.
fn find(args: &EngineBenchArgs) -> Result<Found, Failure> {
    let plugins = args.plugins.clone();
    if args.engine.extension().is_none_or(|ending| ending != "toml") {
        // A file that is not there is told before a library that is not.
        built::stamp(&args.engine)?;
        let host = Host::open(&args.machine, &Configured::default())?;
        return Ok(Found { host, path: args.engine.clone(), plugins });
    }
    let Subject { manifest, folder, .. } = Subject::of_manifest(&args.engine)?;
    let batch = match args.batch {
        Some(batch) => usize::from(batch),
        // As `engine build` chooses it.
        None => order::of(&manifest, None)?.wanted.options.batch,
    };
    let host = Host::open(&args.machine, &Configured::default())?;
    let path = host.engine_in(&folder, &manifest, batch);
    let plugins = if plugins.is_empty() { manifest.tensorrt.plugins } else { plugins };
    Ok(Found { host, path, plugins })
}
