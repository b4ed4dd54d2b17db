//! `engine build`: from ONNX and manifest to an engine and its stamp.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::calibrator::{self, Calibrator};
use super::report::{self, Report};
use super::{Host, Subject};
use crate::cli::engine::{EngineBuildArgs, ProgressForm};
use crate::cli::{Code, Failure};
use crate::engine::built;
use crate::engine::order::{self, Order};
use crate::engine::progress::Estimate;
use crate::engine::stamp::{Model, Precision, SCHEMA, Stamp};
use crate::event::rfc3339;
use crate::gpu::trt;
use crate::logging::Console;

/// Builds and writes it.
pub fn run(args: &EngineBuildArgs, console: &Console) -> Result<(), Failure> {
    let mut subject = Subject::load(&args.model)?;
    apply(args, &mut subject)?;
    let order = order::of(&subject.manifest, args.batch.map(usize::from).or(subject.batch))?;
    if let Some(wanted) = subject.manifest.tensorrt.batches.filter(|_| args.batches.is_some())
        && wanted != order.wanted.options.batches
    {
        let text = format!(
            "--batches: the model takes {} at a time and no other number: export it with a dynamic batch, or leave --batches out",
            order.wanted.options.batch
        );
        return Err(Failure::new(Code::Config, text));
    }
    let host = Host::open(&args.machine, &subject.configured);
    // What this library wants of INT8 is said first; without one, what all do.
    host.as_ref().map_or(Ok(()), |host| check_precision(host, &order))?;
    if needs_calibration(&order) {
        calibrator::named(&subject.manifest)?;
    }
    let host = host?;
    let place = Place::new(args, &subject, &order, &host);
    place.spares(args, &subject)?;
    // Not after ten minutes of building.
    built::prepare(&place.engine)?;
    built::prepare(&place.timing_cache)?;
    let mut calibrator = open_calibrator(&subject, &order, &host)?;
    let start = Instant::now();
    let built = build(args, &subject, &order, &host, &place, calibrator.as_mut(), console)?;
    calibrator.map_or(Ok(()), Calibrator::finish)?;
    let mut stamp = stamp(&subject, &order, &host, start.elapsed());
    built::write(&place.engine, &built.engine, &mut stamp)?;
    save_cache(&place.timing_cache, &built.timing_cache);
    let text = told(&place.engine, built.engine.len(), &stamp);
    match args.progress {
        ProgressForm::Json => report::line(100, text),
        ProgressForm::Auto => println!("{text}"),
    }
    Ok(())
}

/// What the command line says in the manifest's place.
fn apply(args: &EngineBuildArgs, subject: &mut Subject) -> Result<(), Failure> {
    if let Some(onnx) = &args.onnx {
        subject.manifest.take_model(onnx);
    }
    let spec = &mut subject.manifest.tensorrt;
    spec.precision = args.precision.unwrap_or(spec.precision);
    spec.workspace = args.workspace.or(spec.workspace);
    if let Some(calibration) = &args.calibration {
        spec.calibration = Some(calibration.clone());
    }
    if let Some(batches) = &args.batches {
        let row: Result<[u16; 3], _> = batches.as_slice().try_into();
        let Ok([least, best, most]) = row else {
            return Err(Failure::new(Code::Config, "--batches: give three numbers, such as 1,8,16"));
        };
        if least > best || best > most {
            return Err(Failure::new(Code::Config, "--batches: give rising numbers, such as 1,8,16"));
        }
        spec.batches = Some([least, best, most].map(usize::from));
    }
    Ok(())
}

/// Where the results go.
struct Place {
    engine: PathBuf,
    timing_cache: PathBuf,
}

impl Place {
    fn new(args: &EngineBuildArgs, subject: &Subject, order: &Order, host: &Host) -> Self {
        let manifest = &subject.manifest;
        let configured = subject.configured.engine.as_ref();
        let named = args.out.as_ref().or(configured).cloned();
        let engine = named.unwrap_or_else(|| host.engine_in(&subject.folder, manifest, order.wanted.options.batch));
        let beside = engine.parent().unwrap_or(Path::new(""));
        let timing_cache = args.timing_cache.clone();
        let timing_cache = timing_cache.unwrap_or_else(|| host.name(manifest, 0).timing_cache(beside));
        Self { engine, timing_cache }
    }

    /// Nothing that is read, or written as well, is written over.
    fn spares(&self, args: &EngineBuildArgs, subject: &Subject) -> Result<(), Failure> {
        let manifest = &subject.manifest;
        let read = [
            Some(&manifest.model),
            args.model.manifest.as_ref(),
            args.model.config.as_ref(),
            manifest.tensorrt.calibration.as_ref(),
        ];
        let read = || read.into_iter().flatten().chain(&manifest.tensorrt.plugins);
        super::spares(&self.engine, read())?;
        super::spares(&self.timing_cache, read().chain([&self.engine]))
    }
}

/// Libraries that take the precision from the model are given it, or refused.
fn check_precision(host: &Host, order: &Order) -> Result<(), Failure> {
    let (wanted, written) = (order.wanted.options.precision, order.written);
    let library = host.library.name();
    if host.library.is_strongly_typed() {
        if wanted == Precision::Int8 && written != Precision::Int8 {
            let text = format!(
                "INT8 with {library} needs QuantizeLinear and DequantizeLinear in the model: make one with \
                 scripts/quantize-onnx (watchpost-quantize-onnx where the package is installed) or NVIDIA's ModelOpt, and \
                 give it as `model`"
            );
            return Err(Failure::new(Code::Config, text));
        }
        if wanted != written {
            tracing::warn!(
                "{library} takes the precision from the model, which is written in {written}, not {wanted}"
            );
        }
        return Ok(());
    }
    if wanted == Precision::Int8 && written == Precision::Fp16 {
        let text = "the model is written in float16, of which INT8 cannot be made: export it in float32".to_owned();
        return Err(Failure::new(Code::Config, text));
    }
    if written == Precision::Int8 && wanted != Precision::Int8 {
        let text = format!(
            "the model is quantized, {wanted} is wanted: set precision = \"int8\", or give the model before"
        );
        return Err(Failure::new(Code::Config, text));
    }
    Ok(())
}

/// A quantized model brings its own scales.
fn needs_calibration(order: &Order) -> bool {
    order.wanted.options.precision == Precision::Int8 && order.written != Precision::Int8
}

/// The calibrator, where precision and library ask for one.
fn open_calibrator(subject: &Subject, order: &Order, host: &Host) -> Result<Option<Calibrator>, Failure> {
    if !needs_calibration(order) || host.library.is_strongly_typed() {
        return Ok(None);
    }
    let version = &host.machine.tensorrt.version;
    Calibrator::open(&subject.manifest, order, version, host.device()?).map(Some)
}

fn build(
    args: &EngineBuildArgs,
    subject: &Subject,
    order: &Order,
    host: &Host,
    place: &Place,
    calibrator: Option<&mut Calibrator>,
    console: &Console,
) -> Result<trt::Built, Failure> {
    let spec = &subject.manifest.tensorrt;
    let timing_cache = built::read_cache(&place.timing_cache)?.filter(|bytes| !bytes.is_empty());
    let options = trt::BuildOptions {
        precision: match spec.precision {
            Precision::Fp32 => trt::Precision::F32,
            Precision::Fp16 => trt::Precision::F16,
            Precision::Int8 => trt::Precision::Int8,
        },
        workspace_bytes: spec.workspace,
        profile: order.shapes.profile.clone(),
        dla_core: spec.dla_core,
        gpu_fallback: spec.dla_core.is_some(),
        sparse: spec.sparse,
        plugins: spec.plugins.clone(),
        timing_cache,
        // Calibration feeds float32.
        half_io: spec.precision == Precision::Fp16,
    };
    // How long it took last time is in the stamp of last time.
    let before = built::stamp(&place.engine).ok().map(|stamp| Duration::from_secs(stamp.seconds));
    let estimate = Estimate::new(before, options.timing_cache.is_some());
    let what = format!("building {}", subject.manifest.name);
    let report = Report::start(args.progress, console, &what, estimate);
    let mut progress = |progress: trt::Progress| {
        if let trt::Progress::Cache(bytes) = progress {
            save_cache(&place.timing_cache, bytes);
        }
        report.tell(&progress);
    };
    let calibrator = calibrator.map(|calibrator| calibrator as &mut dyn trt::Calibrator);
    let model = &subject.manifest.model;
    Ok(trt::build(&host.library, model, &options, calibrator, &mut progress)?)
}

/// A build goes on without its cache; the next one is slow.
fn save_cache(path: &Path, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    if let Err(error) = built::write_whole(path, bytes) {
        tracing::warn!("the timing cache is not kept: {error}");
    }
}

fn stamp(subject: &Subject, order: &Order, host: &Host, took: Duration) -> Stamp {
    Stamp {
        schema: SCHEMA.to_owned(),
        watchpost: env!("CARGO_PKG_VERSION").to_owned(),
        built: rfc3339(SystemTime::now()),
        seconds: took.as_secs().max(1),
        sha256: String::new(),
        model: Model {
            name: subject.manifest.name.clone(),
            sha256: order.wanted.model_sha256.clone().unwrap_or_default(),
            precision: order.written,
            meaning: Some(subject.manifest.meaning()),
        },
        tensorrt: host.machine.tensorrt.clone(),
        gpu: host.machine.gpu.clone(),
        options: order.wanted.options.clone(),
    }
}

fn told(engine: &Path, bytes: usize, stamp: &Stamp) -> String {
    let gpu = stamp.gpu.as_ref().map_or_else(|| "any GPU that it takes".to_owned(), |gpu| gpu.name.clone());
    let (path, mib, seconds) = (engine.display(), bytes as f64 / f64::from(1 << 20), stamp.seconds);
    format!("{path}: {mib:.1} MiB, built in {seconds} s by {} for {gpu}", stamp.tensorrt)
}
