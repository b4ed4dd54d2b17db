//! OpenVINO: CPUs, Intel GPUs and NPUs.
//!
//! Each infer request has a thread of its own (`ov-<n>`) that writes its input tensor, runs the engine and reads the
//! head, so that one batch is prepared while another is in the engine. Batches are handed back in the order
//! submitted. The library is opened at run time, by path.

mod cache;
mod model;
mod request;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use openvino::{CompiledModel, Core, DeviceType, PropertyKey, RwPropertyKey};

use super::{Backend, BackendError, Batch, ModelSpec};
use crate::config::{EngineConfig, OpenvinoConfig, Precision};
use crate::engine::Manifest;
use crate::engine::onnx::graph;
use crate::engine::stamp::Precision as Written;
use crate::frame::Frame;
use crate::thumbnail::Thumbnails;
use crate::{process, worker};
use model::Layout;
use request::{Done, Job, Request};

/// What to open: everything [`OpenVino::open`] needs, so that a failed backend can be opened anew.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The model and how its tensors are meant.
    pub manifest: Manifest,
    /// Frames a call takes.
    pub lanes: usize,
    /// Library, device, precision, requests.
    pub openvino: OpenvinoConfig,
    /// Where compiled models are kept between starts; `None` compiles every time.
    pub cache_dir: Option<PathBuf>,
}

impl Settings {
    /// From a checked engine section. Compiled models are kept below `state_dir`.
    pub fn new(engine: &EngineConfig, manifest: &Manifest, state_dir: Option<&Path>) -> Self {
        let cache_dir = state_dir.map(|folder| folder.join("openvino"));
        Self { manifest: manifest.clone(), lanes: engine.batch, openvino: engine.openvino.clone(), cache_dir }
    }
}

/// A compiled model with its infer requests.
pub struct OpenVino {
    spec: ModelSpec,
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    /// Numbers of the batches in flight, the oldest first.
    in_flight: VecDeque<u64>,
    /// Finished before their turn.
    early: BTreeMap<u64, Done>,
    /// Batches whose lists are used again.
    spare: Vec<Batch>,
    next: u64,
    thumbnails: Option<Thumbnails>,
    threads: Vec<JoinHandle<()>>,
}

/// Places where the library is looked for when the configuration names none.
const LIBRARY_NAMES: [&str; 4] = [
    "libopenvino_c.so",
    "/opt/watchpost/openvino/libopenvino_c.so",
    "/usr/lib/watchpost/openvino/libopenvino_c.so",
    "/opt/intel/openvino/runtime/lib/intel64/libopenvino_c.so",
];
/// A function that only the library has.
const LIBRARY_FUNCTION: &[u8] = b"ov_core_create";
/// Environment variable that names the library.
pub const LIBRARY_VARIABLE: &str = "WATCHPOST_OPENVINO";

/// Opens the library; once it is open, later calls do nothing.
///
/// # Errors
///
/// A sentence that says how to get it.
pub fn load_library(configured: Option<&Path>) -> Result<(), BackendError> {
    let from_environment = std::env::var_os(LIBRARY_VARIABLE).map(PathBuf::from);
    let named = configured.map(Path::to_path_buf).or(from_environment);
    let places = named.map_or_else(|| LIBRARY_NAMES.iter().map(PathBuf::from).collect(), |place| vec![place]);
    let mut failures = Vec::new();
    for place in places {
        match is_openvino(&place).and_then(|()| openvino_sys::library::load_from(&place)) {
            Ok(()) => return Ok(()),
            // The loader's words name the file, and so do those around them.
            Err(error) => {
                failures.push(error.rsplit("could not be opened: ").next().unwrap_or_default().to_owned())
            }
        }
    }
    // Of several places the first is the loader's own search, whose words say the most.
    let first = failures.first().cloned().unwrap_or_default();
    Err(BackendError::Unavailable(format!(
        "the OpenVINO library cannot be opened ({first}): run scripts/get-openvino (watchpost-get-openvino where the \
         package is installed), or set engine.openvino.library or {LIBRARY_VARIABLE} to libopenvino_c.so"
    )))
}

/// Another library would be opened as gladly, and its first missing function be the end of the process.
fn is_openvino(place: &Path) -> Result<(), String> {
    if place.components().count() == 1 {
        // Not a path: the loader looks for it.
        return Ok(());
    }
    let bytes = std::fs::read(place).map_err(|e| format!("{}: {e}", place.display()))?;
    if bytes.windows(LIBRARY_FUNCTION.len()).any(|window| window == LIBRARY_FUNCTION) {
        return Ok(());
    }
    Err(format!("{} is not OpenVINO's C library", place.display()))
}

/// OpenVINO's version, for people; the library must be open.
pub fn version() -> String {
    openvino::version().build_number
}

/// Library and model are there: a look before anything is started.
///
/// # Errors
///
/// [`BackendError::Unavailable`] where one of them is not.
pub fn look(settings: &Settings) -> Result<(), BackendError> {
    load_library(settings.openvino.library.as_deref())?;
    check_model(settings)
}

/// The model's file is there and whole; needs no library.
///
/// # Errors
///
/// [`BackendError::Unavailable`] where it is not.
pub fn check_model(settings: &Settings) -> Result<(), BackendError> {
    model::check_file(&settings.manifest.model)
}

/// Library, model and manifest fit together on this machine: everything [`OpenVino::open`] does but to compile.
///
/// # Errors
///
/// As [`OpenVino::open`].
pub fn check(settings: &Settings) -> Result<(), BackendError> {
    let mut core = start(settings)?;
    model::load(&mut core, settings).map(drop)
}

/// Runs the engine alone for `time`, on the same requests and streams as [`OpenVino`] and nothing around it. Returns
/// images, wall time and processor time of this process.
///
/// # Errors
///
/// As [`OpenVino::open`].
pub fn engine_alone(settings: &Settings, time: Duration) -> Result<(u64, Duration, Duration), BackendError> {
    let mut core = start(settings)?;
    let (mut compiled, layout) = compile(&mut core, settings)?;
    let requests = create_requests(&mut compiled, settings, &Arc::new(layout))?;
    let (start, cpu) = (Instant::now(), process::cpu_time().unwrap_or_default());
    let run = |(number, mut request): (usize, Request)| {
        worker::spawn(&format!("ov-{number}"), move || request.infer_until(start + time))
    };
    let threads: Vec<_> = requests.into_iter().enumerate().map(run).collect();
    let mut batches = 0;
    for thread in threads {
        batches += thread.join().map_err(|_| gone())??;
    }
    let cpu = process::cpu_time().unwrap_or_default().saturating_sub(cpu);
    Ok((batches * settings.lanes as u64, start.elapsed(), cpu))
}

fn start(settings: &Settings) -> Result<Core, BackendError> {
    load_library(settings.openvino.library.as_deref())?;
    let mut core = Core::new().map_err(|e| BackendError::Unavailable(format!("OpenVINO does not start: {e}")))?;
    find_device(&core, &settings.openvino.device)?;
    configure(&mut core, &device(&settings.openvino.device), settings)?;
    Ok(core)
}

/// The device is on this machine. `AUTO` and the like find one themselves.
fn find_device(core: &Core, name: &str) -> Result<(), BackendError> {
    let devices = core.available_devices().map_err(|e| unavailable("the list of devices", &e))?;
    let there: Vec<&str> = devices.iter().map(AsRef::as_ref).collect();
    // OpenVINO lists one GPU as GPU, several as GPU.0, GPU.1; GPU means the first of them.
    let plain = |device: &&str| device.split('.').next() == Some(name);
    let first = name.strip_suffix(".0").is_some_and(|kind| there.contains(&kind));
    if name.starts_with("AUTO") || first || there.contains(&name) || there.iter().any(plain) {
        return Ok(());
    }
    Err(BackendError::Unavailable(format!(
        "OpenVINO has no device {name} on this machine, only {}: set engine.openvino.device (--device) to one of these, or \
         install the driver",
        there.join(", ")
    )))
}

fn compile(core: &mut Core, settings: &Settings) -> Result<(CompiledModel, Layout), BackendError> {
    let loaded = model::load(core, settings)?;
    settings.cache_dir.as_deref().into_iter().for_each(cache::prune);
    let compiled = core.compile_model(&loaded.model, device(&settings.openvino.device)).map_err(|e| {
        let (name, file) = (&settings.openvino.device, settings.manifest.model.display());
        BackendError::Unavailable(format!("OpenVINO cannot compile {file} for device {name}: {}", words(&e)))
    })?;
    settings.cache_dir.as_deref().into_iter().for_each(cache::seal);
    Ok((compiled, loaded.layout))
}

/// The infer requests, the first of them warm.
fn create_requests(
    compiled: &mut CompiledModel,
    settings: &Settings,
    layout: &Arc<Layout>,
) -> Result<Vec<Request>, BackendError> {
    let mut requests = Vec::new();
    for _ in 0..settings.openvino.requests {
        let infer = compiled.create_infer_request().map_err(|e| unavailable("an infer request", &e))?;
        requests.push(Request::new(infer, settings, Arc::clone(layout))?);
    }
    if let Some(first) = requests.first_mut() {
        first.warm_up()?;
    }
    Ok(requests)
}

impl OpenVino {
    /// Loads the library, compiles the model and warms it. `wake` is told of every finished batch.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unavailable`] where library, device or model file cannot be had,
    /// [`BackendError::Config`] where the manifest and the model contradict each other.
    pub fn open(settings: &Settings, wake: Sender<()>) -> Result<Self, BackendError> {
        let mut core = start(settings)?;
        let (mut compiled, layout) = compile(&mut core, settings)?;
        let layout = Arc::new(layout);
        let in_flight = settings.openvino.requests;
        let (jobs, waiting) = bounded::<Job>(in_flight);
        let (finished, done) = bounded::<Done>(in_flight);
        let run = |(number, request): (usize, Request)| {
            let (waiting, finished, wake) = (waiting.clone(), finished.clone(), wake.clone());
            worker::spawn(&format!("ov-{number}"), move || request.run(&waiting, &finished, &wake))
        };
        let requests = create_requests(&mut compiled, settings, &layout)?;
        let threads = requests.into_iter().enumerate().map(run).collect();
        let spec = ModelSpec {
            name: settings.manifest.name.clone(),
            lanes: settings.lanes,
            input: layout.input,
            in_flight,
            digest: layout.digest.clone(),
            runtime: describe(&compiled, settings),
            engine: None,
        };
        Ok(Self {
            spec,
            jobs: Some(jobs),
            done,
            in_flight: VecDeque::new(),
            early: BTreeMap::new(),
            spare: Vec::new(),
            next: 0,
            thumbnails: None,
            threads,
        })
    }
}

impl Backend for OpenVino {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn submit(&mut self, frames: Vec<Frame>) -> Result<(), BackendError> {
        if self.in_flight.len() == self.spec.in_flight {
            return Err(BackendError::DropBatch("every infer request is busy".to_owned()));
        }
        let Some(jobs) = &self.jobs else { return Err(gone()) };
        let now = Instant::now();
        let batch = self.spare.pop().unwrap_or_else(|| Batch::new(now));
        let mut due = |frame: &Frame| self.thumbnails.as_mut().and_then(|thumbnails| thumbnails.due(&frame.info));
        let blanks = frames.iter().map(&mut due).collect();
        // Never blocks: there is room for as many jobs as may be in flight.
        jobs.send(Job { number: self.next, frames, blanks, batch, submitted: now }).map_err(|_| gone())?;
        self.in_flight.push_back(self.next);
        self.next += 1;
        Ok(())
    }

    fn try_collect(&mut self, out: &mut Batch) -> Result<bool, BackendError> {
        self.early.extend(self.done.try_iter().map(|done| (done.number, done)));
        let Some(oldest) = self.in_flight.front() else { return Ok(false) };
        let Some(done) = self.early.remove(oldest) else {
            // A thread that ended without an answer took its batch with it.
            return if self.threads.iter().all(|t| !t.is_finished()) { Ok(false) } else { Err(gone()) };
        };
        self.in_flight.pop_front();
        done.outcome?;
        self.spare.push(std::mem::replace(out, done.batch));
        if let Some(thumbnails) = &mut self.thumbnails {
            super::keep_what_shows_something(thumbnails, &mut out.lanes);
        }
        Ok(true)
    }

    fn set_thumbnails(&mut self, thumbnails: Thumbnails) {
        self.thumbnails = Some(thumbnails);
    }
}

impl Drop for OpenVino {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn gone() -> BackendError {
    BackendError::Reopen("an inference thread has ended".to_owned())
}

fn device(name: &str) -> DeviceType<'static> {
    match name {
        "CPU" => DeviceType::CPU,
        "GPU" => DeviceType::GPU,
        "NPU" => DeviceType::NPU,
        other => DeviceType::Other(other.to_owned().into()),
    }
}

/// OpenVINO's last error text without its source locations.
fn words(error: &openvino::InferenceError) -> String {
    let detail = openvino::get_last_error_message();
    let detail = detail.as_deref().unwrap_or_default();
    let line = detail.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with("Exception from"));
    line.map_or_else(|| error.to_string(), str::to_owned)
}

fn unavailable(what: &str, error: &openvino::InferenceError) -> BackendError {
    BackendError::Unavailable(format!("OpenVINO fails at {what}: {}", words(error)))
}

fn configure(core: &mut Core, device: &DeviceType<'static>, settings: &Settings) -> Result<(), BackendError> {
    let chosen = &settings.openvino;
    let mut set = |key: RwPropertyKey, value: &str| {
        core.set_property(device, &key, value).map_err(|e| {
            BackendError::Config(format!(
                "engine.openvino: device {} refuses {} = {value}: {}",
                chosen.device,
                key.as_ref(),
                words(&e)
            ))
        })
    };
    set(RwPropertyKey::HintPerformanceMode, "THROUGHPUT")?;
    let precision = match chosen.precision {
        Precision::Auto => None,
        Precision::F32 => Some("f32"),
        Precision::F16 => Some("f16"),
        Precision::Bf16 => Some("bf16"),
    };
    if let Some(precision) = precision {
        set(RwPropertyKey::HintInferencePrecision, precision)?;
    }
    let automatic = chosen.device.starts_with("AUTO");
    if !automatic {
        let streams = if chosen.streams == 0 { chosen.requests } else { chosen.streams };
        set(RwPropertyKey::NumStreams, &streams.to_string())?;
    }
    if chosen.threads > 0 {
        set(RwPropertyKey::InferenceNumThreads, &chosen.threads.to_string())?;
    }
    // Of a model with QuantizeLinear its own low-precision kernels make other numbers, in which nothing is found (OpenVINO
    // 2026.4 with what scripts/quantize-onnx makes: best scores of .01 in place of .86). In floating point it is right.
    let model = &settings.manifest.model;
    if chosen.device == "CPU" && graph::read(model).is_ok_and(|graph| graph.precision == Written::Int8) {
        tracing::warn!(
            "model {}: it is quantized, which is for TensorRT: OpenVINO runs it in floating point; the model before is \
             faster here",
            model.display()
        );
        set(RwPropertyKey::Other("LP_TRANSFORMS_MODE".into()), "NO")?;
    }
    if let Some(folder) = &settings.cache_dir {
        set(RwPropertyKey::CacheDir, &folder.to_string_lossy())?;
    }
    Ok(())
}

fn describe(compiled: &CompiledModel, settings: &Settings) -> String {
    let key = PropertyKey::Rw(RwPropertyKey::HintInferencePrecision);
    let precision = compiled.get_property(&key).map(|p| p.into_owned()).unwrap_or_else(|_| "?".to_owned());
    let name = version();
    let name = name.split('-').next().unwrap_or_default();
    format!("OpenVINO {name}, {}, {precision}, {} requests", settings.openvino.device, settings.openvino.requests)
}
