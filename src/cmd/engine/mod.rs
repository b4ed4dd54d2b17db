//! `engine`: TensorRT engines, from building to timing.

mod bench;
mod build;
mod calibrate;
mod calibrator;
mod check;
mod inspect;
mod report;

use std::path::{Path, PathBuf};

use crate::cli::engine::{EngineCommand, MachineArgs, ModelArgs};
use crate::cli::{Code, Failure};
use crate::config::{EngineConfig, TensorrtConfig};
use crate::engine::Manifest;
use crate::engine::built::{self, BuiltError, Name};
use crate::engine::order::OrderError;
use crate::engine::stamp::{Machine, Stamp, Wanted, refusal};
use crate::gpu::device::Device;
use crate::gpu::error::GpuError;
use crate::gpu::machine;
use crate::gpu::trt::{Engine, Library, TrtError};
use crate::logging::Console;

/// Runs one of them.
pub fn run(command: &EngineCommand, console: &Console) -> Result<(), Failure> {
    match command {
        EngineCommand::Build(args) => build::run(args, console),
        EngineCommand::Calibrate(args) => calibrate::run(args, console),
        EngineCommand::Inspect(args) => inspect::run(args),
        EngineCommand::Check(args) => check::run(args),
        EngineCommand::Bench(args) => bench::run(args, console),
    }
}

/// Refuses to write a result over one of the `others`.
fn spares<'a>(result: &Path, others: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), Failure> {
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match others.into_iter().find(|other| place(other) == place(result)) {
        None => Ok(()),
        Some(other) => {
            let text =
                format!("{}: it would be written over {}: give another path", result.display(), other.display());
            Err(Failure::new(Code::Config, text))
        }
    }
}

/// A manifest, and what a configuration adds to it.
struct Subject {
    manifest: Manifest,
    /// The configured batch.
    batch: Option<usize>,
    /// Where engines are kept where nothing else is said.
    folder: PathBuf,
    configured: Configured,
}

/// What a configuration says of TensorRT.
#[derive(Default)]
struct Configured {
    library: Option<PathBuf>,
    device: usize,
    engine: Option<PathBuf>,
}

impl Configured {
    fn of(engine: &EngineConfig) -> Self {
        let TensorrtConfig { library, engine, device, contexts: _, build: _ } = &engine.tensorrt;
        Self { library: library.clone(), device: *device, engine: engine.clone() }
    }
}

impl Subject {
    fn load(args: &ModelArgs) -> Result<Self, Failure> {
        if let Some(path) = &args.config {
            let (config, manifest) = super::load(path)?;
            let (batch, folder) = (Some(config.engine.batch), built::folder(&config.state_dir));
            return Ok(Self { manifest, batch, folder, configured: Configured::of(&config.engine) });
        }
        // Held by the command line: one of the two is there.
        Self::of_manifest(args.manifest.as_deref().unwrap_or(Path::new("")))
    }

    fn of_manifest(path: &Path) -> Result<Self, Failure> {
        let folder = path.parent().unwrap_or(Path::new("")).join("built");
        Ok(Self { manifest: super::manifest(path)?, batch: None, folder, configured: Configured::default() })
    }
}

/// TensorRT and the GPU of this machine.
struct Host {
    library: Library,
    /// `None` where there is none, and the library builds without one.
    device: Option<Device>,
    machine: Machine,
}

impl Host {
    /// Opens both. TensorRT-RTX may go without a GPU.
    fn open(args: &MachineArgs, configured: &Configured) -> Result<Self, Failure> {
        let folder = args.tensorrt.as_deref().or(configured.library.as_deref());
        let library = Library::open(folder)?;
        let ordinal = args.device.unwrap_or(configured.device);
        let device = match Device::open(ordinal) {
            Ok(device) => Some(device),
            Err(GpuError::Unavailable(reason)) if library.is_rtx() => {
                tracing::debug!("without a GPU: {reason}");
                None
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(device) = &device {
            device.bind()?;
        }
        let machine = machine::describe(&library, device.as_ref());
        Ok(Self { library, device, machine })
    }

    /// Where an engine of this machine lies in `folder`.
    fn engine_in(&self, folder: &Path, manifest: &Manifest, batch: usize) -> PathBuf {
        self.name(manifest, batch).engine(folder)
    }

    fn name<'a>(&'a self, manifest: &'a Manifest, batch: usize) -> Name<'a> {
        Name {
            model: &manifest.name,
            batch,
            precision: manifest.tensorrt.precision,
            sm: self.device.as_ref().map(Device::compute_capability),
            gpu: self.device.as_ref().map(Device::name),
            tensorrt: &self.machine.tensorrt.version,
        }
    }

    /// The GPU, for what cannot go without.
    fn device(&self) -> Result<&Device, Failure> {
        self.device.as_ref().ok_or_else(|| {
            let text =
                format!("{} needs an NVIDIA GPU for this: run it on a machine that has one", self.library.name());
            Failure::new(Code::Unavailable, text)
        })
    }

    /// Opens a built engine with the plug-in libraries that it needs.
    fn load(&self, path: &Path, bytes: &[u8], stamp: &Stamp, plugins: &[PathBuf]) -> Result<Engine, Failure> {
        if plugins.is_empty() && !stamp.options.plugins.is_empty() {
            let text =
                format!("engine {}: it was built with plug-in libraries: give them as --plugins", path.display());
            return Err(Failure::new(Code::Config, text));
        }
        plugins.iter().try_for_each(|plugin| self.library.load_plugins(plugin))?;
        Ok(Engine::load(&self.library, bytes, stamp.options.dla_core)?)
    }

    /// The stamp fits this machine and `wanted`, or what it was built for where nothing is wanted.
    fn check(&self, engine: &Path, stamp: &Stamp, wanted: Option<&Wanted>) -> Result<(), Failure> {
        let own = Wanted { model_sha256: None, options: stamp.options.clone() };
        let facts = stamp.mismatch(&self.machine, wanted.unwrap_or(&own));
        if facts.is_empty() { Ok(()) } else { Err(Failure::new(Code::Unavailable, refusal(engine, &facts))) }
    }
}

impl From<TrtError> for Failure {
    fn from(error: TrtError) -> Self {
        Self::new(Code::Unavailable, error)
    }
}

impl From<GpuError> for Failure {
    fn from(error: GpuError) -> Self {
        let code = match error {
            GpuError::Config(_) => Code::Config,
            GpuError::Unavailable(_) | GpuError::Memory(_) | GpuError::Failed(_) => Code::Unavailable,
        };
        Self::new(code, error)
    }
}

impl From<BuiltError> for Failure {
    fn from(error: BuiltError) -> Self {
        let code = match error {
            BuiltError::File { .. } => Code::Config,
            _ => Code::Unavailable,
        };
        Self::new(code, error)
    }
}

impl From<OrderError> for Failure {
    fn from(error: OrderError) -> Self {
        let code = match error {
            OrderError::Read { .. } => Code::Unavailable,
            OrderError::Manifest(_) | OrderError::Shapes { .. } => Code::Config,
        };
        Self::new(code, error)
    }
}
