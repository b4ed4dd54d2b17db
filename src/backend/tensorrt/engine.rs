//! From a built engine file to a loaded engine whose tensors we can read and write.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::candidate::{Candidate, State, wrong_order};
use super::{Settings, build};
use crate::backend::{BackendError, Building, Progress};
use crate::engine::Manifest;
use crate::engine::built;
use crate::engine::order;
use crate::engine::stamp::{Stamp, short};
use crate::engine::trial::Trial;
use crate::event::EngineStamp;
use crate::gpu::error::GpuError;
use crate::gpu::head::HeadPlan;
use crate::gpu::kernels::Kernels;
use crate::gpu::lanes::Plan;
use crate::gpu::letterbox::InputFormat;
use crate::gpu::surface::SurfaceMap;
use crate::gpu::trt::{Element, Engine, IoTensor, Layout, TrtError};
use crate::worker;
use crate::yolo::TensorSpec;
use crate::yolo::head::Head;

/// An engine ready for its contexts.
pub struct Loaded {
    /// The engine.
    pub engine: Engine,
    /// How its tensors are read and written.
    pub plan: Plan,
    /// First 12 hex digits of the engine file's SHA-256.
    pub digest: String,
    /// What runs it, for people.
    pub runtime: String,
    /// What it was built for.
    pub stamp: EngineStamp,
    /// To be kept until its contexts are made: it may end the process until then.
    pub trial: Trial,
}

/// The engine is there, or can be built: a look before anything is started.
///
/// # Errors
///
/// Why it can be neither.
pub fn look(settings: &Settings) -> Result<(), BackendError> {
    look_at(settings, &Candidate::find(settings)?)
}

fn look_at(settings: &Settings, candidate: &Candidate) -> Result<(), BackendError> {
    match &candidate.state {
        State::Good(..) => Ok(()),
        State::Old { .. } | State::Unusable(_) if settings.tensorrt.build => {
            order::of(&settings.manifest, settings.lanes).map(drop).map_err(wrong_order)
        }
        State::Old { text, .. } | State::Unusable(text) => Err(BackendError::Unavailable(text.clone())),
    }
}

/// Everything [`open`] does with an engine that is there, on this machine; says that one will be built, and looks for what
/// that needs.
///
/// # Errors
///
/// As [`open`].
pub fn check(settings: &Settings) -> Result<(), BackendError> {
    let candidate = Candidate::find(settings)?;
    look_at(settings, &candidate)?;
    settings.device.bind()?;
    match &candidate.state {
        // Nothing is written by a look.
        State::Good(at, stamp) => {
            let bare = Settings { state_dir: None, ..settings.clone() };
            load(&bare, at, stamp)?.map(drop).map_err(|Unfit(text)| BackendError::Unavailable(text))
        }
        State::Old { text, .. } | State::Unusable(text) => {
            settings.library.find_parser().map_err(|error| BackendError::Unavailable(error.to_string()))?;
            Kernels::load(&settings.device, None)?;
            println!("{text}; `watchpost run` does that");
            Ok(())
        }
    }
}

/// Opens the engine that is wanted and makes it `ready`. One that is missing or unfit is built first; while one that runs can
/// serve, the wanted one is built beside it.
///
/// # Errors
///
/// [`BackendError::Unavailable`] where there is none and none can be built, [`BackendError::Config`] where engine and
/// manifest contradict each other.
pub fn open<T>(
    settings: &Settings,
    progress: &Progress,
    ready: impl Fn(Loaded) -> Result<T, BackendError>,
) -> Result<T, BackendError> {
    let candidate = Candidate::find(settings)?;
    let path = candidate.path;
    let unfit = match candidate.state {
        State::Good(at, stamp) => match load(settings, &at, &stamp)? {
            Ok(loaded) => return ready(loaded),
            Err(Unfit(text)) => text,
        },
        State::Old { at, stamp, text } if settings.tensorrt.build => {
            let stand_in = load(settings, &at, &stamp).map_err(|error| error.to_string());
            let stand_in = stand_in.and_then(|loaded| loaded.map_err(|Unfit(text)| text));
            match stand_in.and_then(|loaded| ready(loaded).map_err(|error| error.to_string())) {
                Ok(ready) => {
                    tracing::warn!("{text}; {} serves until a new one is built", at.display());
                    build_beside(settings, path, progress);
                    return Ok(ready);
                }
                // What the manifest says now may not fit an engine of before, or the GPU not have the memory for it: one that
                // only was to stand in keeps nobody from the one that is wanted.
                Err(why) => format!("{text}; meanwhile {} cannot serve: {why}", at.display()),
            }
        }
        State::Old { text, .. } | State::Unusable(text) => text,
    };
    if !settings.tensorrt.build {
        return Err(BackendError::Unavailable(format!("{unfit}, or set engine.tensorrt.build = true")));
    }
    // An engine served in this process: nothing that takes minutes is done while it could go on, or start anew.
    if settings.has_served.load(Ordering::Relaxed) {
        return Err(BackendError::Unavailable(unfit));
    }
    // What the engine needs beside itself is looked for before minutes are spent on it.
    Kernels::load(&settings.device, kernel_cache(settings).as_deref())?;
    tracing::warn!("{unfit}; it is being built now");
    let (at, stamp) = build_wanted(settings, &path, progress, false)?;
    load(settings, &at, &stamp)?.map_err(|Unfit(text)| BackendError::Unavailable(text)).and_then(ready)
}

/// Builds what is wanted. An engine that does not fit even then would be built again and again.
fn build_wanted(
    settings: &Settings,
    path: &Path,
    progress: &Progress,
    beside: bool,
) -> Result<(PathBuf, Stamp), BackendError> {
    build::run(settings, path, progress, beside)?;
    match Candidate::find(settings)?.state {
        State::Good(at, stamp) => Ok((at, stamp)),
        State::Old { text, .. } | State::Unusable(text) => {
            Err(BackendError::Unavailable(format!("the engine that was just built does not fit: {text}")))
        }
    }
}

/// One builder at a time: a backend that is opened anew meanwhile waits for the same.
fn build_beside(settings: &Settings, path: PathBuf, progress: &Progress) {
    if settings.is_building.swap(true, Ordering::Relaxed) {
        return;
    }
    let (settings, progress) = (settings.clone(), Arc::clone(progress));
    worker::spawn("build", move || {
        let built = build_wanted(&settings, &path, &progress, true);
        settings.is_building.store(false, Ordering::Relaxed);
        progress(match built {
            Ok(_) => Building::Done,
            Err(BackendError::Stopped) => return,
            Err(error) => Building::Failed(format!("{error}; the old engine goes on")),
        });
    });
}

/// Why an engine file is as good as none: cut off, say, or refused by TensorRT whatever its stamp says. Another may do.
struct Unfit(String);

/// Loads an engine whose file has the digest of its stamp. What is not the file's fault is an error: a new one would fare no
/// better.
fn load(settings: &Settings, path: &Path, stamp: &Stamp) -> Result<Result<Loaded, Unfit>, BackendError> {
    let bytes = match built::load(path, stamp) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(Err(Unfit(error.to_string()))),
    };
    let trial = match Trial::begin(settings.state_dir.as_deref(), stamp) {
        Ok(trial) => trial,
        Err(refused) => {
            let text = format!("engine {}: {}", path.display(), refused.text);
            return if refused.may_be_rebuilt {
                Ok(Err(Unfit(text)))
            } else {
                Err(BackendError::Unavailable(text))
            };
        }
    };
    for plugin in &settings.manifest.tensorrt.plugins {
        settings.library.load_plugins(plugin).map_err(GpuError::from)?;
    }
    let engine = match Engine::load(&settings.library, &bytes, stamp.options.dla_core) {
        Ok(engine) => engine,
        Err(TrtError::Engine(text)) => return Ok(Err(Unfit(format!("engine {}: {text}", path.display())))),
        Err(error) => return Err(GpuError::from(error).into()),
    };
    let plan = plan(settings, &engine)?;
    let (contexts, precision) = (settings.tensorrt.contexts, stamp.options.precision);
    let runtime = format!("{}, {}, {precision}, {contexts} contexts", stamp.tensorrt, settings.device.name());
    let (digest, stamp) = (short(&stamp.sha256).to_owned(), essentials(stamp));
    Ok(Ok(Loaded { engine, plan, digest, runtime, stamp, trial }))
}

/// Where compiled kernels are kept.
fn kernel_cache(settings: &Settings) -> Option<PathBuf> {
    settings.state_dir.as_ref().map(|folder| folder.join("kernels"))
}

/// What messages say of a stamp.
fn essentials(stamp: &Stamp) -> EngineStamp {
    let (gpu, sm) = stamp.gpu.as_ref().map(|gpu| (gpu.name.clone(), gpu.sm.clone())).unzip();
    let (tensorrt, precision) = (stamp.tensorrt.to_string(), stamp.options.precision.to_string());
    EngineStamp { tensorrt, gpu, sm, precision, batch: stamp.options.batch }
}

/// What an engine's tensors mean.
struct Tensors {
    picture: Picture,
    size: Option<(String, Element)>,
    outputs: Vec<IoTensor>,
    head: Head,
}

/// The picture input.
struct Picture {
    name: String,
    lanes: usize,
    /// Width and height in pixels.
    size: (u32, u32),
    element: Element,
    /// See [`InputFormat::packed`].
    packed: bool,
}

impl Tensors {
    /// Finds the picture input and the head. Every shape is fixed afterwards: the batch is `lanes` where the engine
    /// leaves it open.
    fn find(tensors: &[IoTensor], manifest: &Manifest, lanes: Option<usize>) -> Result<Self, BackendError> {
        let inputs: Vec<&IoTensor> = tensors.iter().filter(|t| t.input).collect();
        let wrong = |text: String| BackendError::Config(format!("engine of {}: {text}", manifest.name));
        let picture = inputs.iter().find(|t| t.shape.len() == 4 && t.shape[1] == Some(3)).ok_or_else(|| {
            let list: Vec<String> = inputs.iter().map(|t| spec(t).to_string()).collect();
            wrong(format!(
                "no input is a picture (N x 3 x height x width) among {}: export the model with an NCHW input",
                list.join(", ")
            ))
        })?;
        let side = |d: Option<usize>| d.and_then(|d| u32::try_from(d).ok()).filter(|d| (1..=8192).contains(d));
        let own = side(picture.shape[3]).zip(side(picture.shape[2]));
        let input = own.or(manifest.input.size).ok_or_else(|| {
            wrong("its input size is open: set input.size = [width, height] in the manifest".to_owned())
        })?;
        let lanes = match (picture.shape[0], lanes) {
            (Some(built), Some(wanted)) if built != wanted => {
                return Err(wrong(format!(
                    "it was built for batches of {built}, the configuration says {wanted}: set engine.batch = {built}, or \
                     build it anew"
                )));
            }
            (Some(built), _) => built,
            (None, wanted) => wanted.unwrap_or(1),
        };
        let fixed = |tensor: &IoTensor| {
            let mut tensor = IoTensor { shape: tensor.shape.clone(), name: tensor.name.clone(), ..*tensor };
            if let Some(batch) = tensor.shape.first_mut() {
                *batch = Some(batch.unwrap_or(lanes));
            }
            tensor
        };
        let packed = (picture.layout, picture.element) == (Layout::Packed, Element::F16);
        let is_known = |t: &IoTensor| t.layout == Layout::Linear || (packed && t.name == picture.name);
        if let Some(other) = tensors.iter().find(|t| !is_known(t)) {
            let text = format!(
                "its tensor {} is laid out as nothing here is: build it with watchpost engine build",
                spec(other)
            );
            return Err(wrong(text));
        }
        let outputs: Vec<IoTensor> = tensors.iter().filter(|t| !t.input).map(fixed).collect();
        if let Some(open) = outputs.iter().find(|t| t.shape.iter().any(Option::is_none)) {
            let text = format!("its output {} has no fixed size: export the model with fixed outputs", spec(open));
            return Err(wrong(text));
        }
        let input_specs: Vec<TensorSpec> = inputs.iter().map(|t| spec(t)).collect();
        let output_specs: Vec<TensorSpec> = outputs.iter().map(spec).collect();
        let (choice, logits, labels) = (manifest.output.head, manifest.output.logits, manifest.labels.len());
        let head = Head::resolve(choice, logits, &input_specs, &output_specs, input, labels)
            .map_err(|e| wrong(e.to_string()))?;
        let size = head.size_input().map(|index| (inputs[index].name.clone(), inputs[index].element));
        let picture = Picture { name: picture.name.clone(), lanes, size: input, element: picture.element, packed };
        Ok(Self { picture, size, outputs, head })
    }
}

fn spec(tensor: &IoTensor) -> TensorSpec {
    let integer = !matches!(tensor.element, Element::F32 | Element::F16);
    TensorSpec { name: tensor.name.clone(), shape: tensor.shape.clone(), integer }
}

/// Elements of a tensor of fixed shape.
fn elements(tensor: &IoTensor) -> usize {
    tensor.shape.iter().map(|d| d.unwrap_or(1)).product()
}

/// What the size input is fed: width and height of the input, a pair a lane.
fn size_content(element: Element, lanes: usize, input: (u32, u32)) -> Result<Vec<u8>, BackendError> {
    let pair: Vec<u8> = match element {
        Element::I64 => [i64::from(input.0), i64::from(input.1)].iter().flat_map(|v| v.to_ne_bytes()).collect(),
        Element::I32 => [input.0, input.1].iter().flat_map(|v| v.to_ne_bytes()).collect(),
        Element::F32 => [input.0 as f32, input.1 as f32].iter().flat_map(|v| v.to_ne_bytes()).collect(),
        other => {
            let text = format!("the engine's size input holds {other:?}: export the model with int64");
            return Err(BackendError::Config(text));
        }
    };
    Ok(pair.repeat(lanes))
}

/// The plan of an engine's buffers.
fn plan(settings: &Settings, engine: &Engine) -> Result<Plan, BackendError> {
    let manifest = &settings.manifest;
    let tensors = Tensors::find(&engine.tensors(), manifest, settings.lanes)?;
    let Picture { name, lanes, size: input, element, packed } = tensors.picture;
    let half = match element {
        Element::F32 => false,
        Element::F16 => true,
        other => {
            let text =
                format!("the engine's picture input holds {other:?}: build it with float32 or float16 inputs");
            return Err(BackendError::Config(text));
        }
    };
    let size = match tensors.size {
        Some((name, element)) => Some((name, size_content(element, lanes, input)?)),
        None => None,
    };
    let specs: Vec<TensorSpec> = tensors.outputs.iter().map(spec).collect();
    let kinds: Vec<Element> = tensors.outputs.iter().map(|t| t.element).collect();
    let cache = kernel_cache(settings);
    let format = InputFormat { spec: manifest.input.clone(), size: input, half, packed };
    let whole = vec![lanes, 3, input.1 as usize, input.0 as usize];
    let open = engine.tensors().into_iter().filter(|tensor| tensor.input && tensor.shape.contains(&None));
    // Beside the picture there is only the size, a pair a lane.
    let shapes =
        open.map(|t| if t.name == name { (t.name, whole.clone()) } else { (t.name, vec![lanes, 2]) }).collect();
    Ok(Plan {
        device: settings.device.clone(),
        kernels: Kernels::load(&settings.device, cache.as_deref())?,
        head: HeadPlan::new(&tensors.head, &specs, &kinds, manifest.thresholds.confidence)?,
        lanes,
        shapes,
        picture: name,
        format,
        size,
        surfaces: Mutex::new(SurfaceMap::new(&settings.device)),
        outputs: tensors.outputs.iter().map(|t| (t.name.clone(), elements(t) * t.element.bytes())).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, input: bool, shape: &[Option<usize>], element: Element) -> IoTensor {
        IoTensor { name: name.to_owned(), input, shape: shape.to_vec(), element, layout: Layout::Linear }
    }

    fn manifest(more: &str) -> Manifest {
        let text = format!("name = \"m\"\nmodel = \"m.onnx\"\nlabels = \"coco80\"\n{more}");
        Manifest::parse(&text, Path::new(""), |_| Err(std::io::ErrorKind::NotFound.into())).expect("a manifest")
    }

    /// A YOLOv8 of 64 x 64 with this batch.
    fn yolov8(batch: Option<usize>) -> Vec<IoTensor> {
        let picture = tensor("images", true, &[batch, Some(3), Some(64), Some(64)], Element::F16);
        vec![picture, tensor("output0", false, &[batch, Some(84), Some(84)], Element::F16)]
    }

    fn find(tensors: &[IoTensor], more: &str, lanes: Option<usize>) -> Result<Tensors, String> {
        Tensors::find(tensors, &manifest(more), lanes).map_err(|error| error.to_string())
    }

    #[test]
    fn the_batch_is_the_engines_or_where_that_is_open_the_configurations() {
        for (built, wanted, lanes) in [(Some(16), None, 16), (Some(16), Some(16), 16), (None, Some(4), 4)] {
            let found = find(&yolov8(built), "", wanted).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((found.picture.lanes, found.picture.size), (lanes, (64, 64)));
            assert_eq!(found.outputs[0].shape, [Some(lanes), Some(84), Some(84)]);
        }
        let error = find(&yolov8(Some(16)), "", Some(4)).err().unwrap_or_default();
        assert!(
            error.contains("built for batches of 16, the configuration says 4: set engine.batch = 16"),
            "{error}"
        );
    }

    #[test]
    fn an_engine_that_the_manifest_does_not_fit_is_refused_in_words() {
        let open = tensor("images", true, &[Some(1), Some(3), None, None], Element::F32);
        let flat = tensor("images", true, &[Some(1), Some(12288)], Element::F32);
        let output = tensor("output0", false, &[Some(1), Some(84), Some(84)], Element::F32);
        let endless = tensor("output0", false, &[Some(1), Some(84), None], Element::F32);
        let picture = &yolov8(Some(1))[0];
        for (tensors, more, words) in [
            (vec![flat, output.clone()], "", "no input is a picture (N x 3 x height x width)"),
            (vec![open.clone(), output.clone()], "", "its input size is open: set input.size"),
            (vec![picture.clone(), endless], "", "has no fixed size"),
            (vec![picture.clone(), output.clone()], "[output]\nhead = \"detr\"\n", "`head = \"detr\"`"),
        ] {
            let error = find(&tensors, more, None).err().unwrap_or_default();
            assert!(error.contains(words), "{error}");
        }
        let sized = find(&[open, output], "[input]\nsize = [64, 64]\n", None);
        assert!(sized.is_ok_and(|found| found.picture.size == (64, 64)));
    }

    #[test]
    fn a_picture_of_float16_may_be_packed_and_nothing_else() {
        let laid = |at: usize, layout: Layout, element: Element| {
            let mut tensors = yolov8(Some(1));
            (tensors[at].layout, tensors[at].element) = (layout, element);
            find(&tensors, "", None).map(|found| found.picture.packed)
        };
        assert_eq!(laid(0, Layout::Linear, Element::F16), Ok(false));
        assert_eq!(laid(0, Layout::Packed, Element::F16), Ok(true));
        for (at, layout, element) in
            [(0, Layout::Other, Element::F16), (0, Layout::Packed, Element::F32), (1, Layout::Packed, Element::F16)]
        {
            let error = laid(at, layout, element).expect_err("nobody writes or reads it");
            assert!(error.contains("is laid out as nothing here is"), "{error}");
        }
    }

    #[test]
    fn the_size_input_is_fed_width_and_height_a_lane() {
        let bytes = size_content(Element::I64, 2, (640, 480)).expect("int64 will do");
        assert_eq!(bytes, [640i64, 480, 640, 480].iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>());
        assert!(size_content(Element::Bool, 1, (8, 8)).is_err());
    }
}
