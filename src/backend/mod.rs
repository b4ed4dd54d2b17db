//! The one trait with several production implementations: frames in, candidates out.

pub mod openvino;
pub mod planar;
pub mod tensorrt;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use crate::config::{BackendChoice, EngineConfig};
use crate::engine::Manifest;
use crate::event::{EngineStamp, Model};
use crate::frame::{CameraId, Frame, FrameInfo, GpuShare};
use crate::gpu::device::{Device, Waits};
use crate::letterbox::Letterbox;
use crate::thumbnail::{Thumbnail, Thumbnails};
use crate::yolo::Candidates;

/// What a backend runs and how much of it at once.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// Name from the manifest.
    pub name: String,
    /// Frames a call takes.
    pub lanes: usize,
    /// Width and height of the input in pixels.
    pub input: (u32, u32),
    /// Batches that may be in flight.
    pub in_flight: usize,
    /// First 12 hex digits of the model's (or engine's) SHA-256.
    pub digest: String,
    /// What runs it, for people: library, version, device, precision.
    pub runtime: String,
    /// What its engine was built for, where there is one.
    pub engine: Option<EngineStamp>,
}

impl ModelSpec {
    /// As messages name it.
    pub fn model(&self) -> Model {
        let engine = format!("sha256:{}", self.digest);
        Model { name: self.name.clone(), input: [self.input.0, self.input.1], engine }
    }
}

/// One frame's share of a batch. Boxes are in input pixels until `letterbox` is inverted.
#[derive(Clone, Debug)]
pub struct Lane {
    /// The frame it came from; its pixels have gone back to the decoder.
    pub frame: FrameInfo,
    /// How the frame was fitted.
    pub letterbox: Letterbox,
    /// Boxes over the confidence threshold.
    pub candidates: Candidates,
    /// The frame in small, where the backend was given [`Thumbnails`], one was due, and something was found or it was
    /// asked for.
    pub thumbnail: Option<Arc<Thumbnail>>,
}

/// A finished batch. Reused through a free list, so that the lists keep their memory.
#[derive(Debug)]
pub struct Batch {
    /// One entry a frame that was read, in the order submitted; at most [`ModelSpec::lanes`].
    pub lanes: Vec<Lane>,
    /// Frames that could not be read, by camera, and why: they are in no lane. Taken by the inference loop.
    pub lost: Vec<(CameraId, String)>,
    /// What ran it; set by the inference loop.
    pub model: Arc<Model>,
    /// When the frames were handed to the backend.
    pub submitted: Instant,
    /// When the candidates were there.
    pub finished: Instant,
    /// Time spent writing the input tensor.
    pub preprocess: Duration,
    /// Time spent in the engine.
    pub infer: Duration,
    /// Time spent reading the head.
    pub decode: Duration,
}

impl Batch {
    /// An empty batch.
    pub fn new(now: Instant) -> Self {
        let zero = Duration::ZERO;
        Self {
            lanes: Vec::new(),
            lost: Vec::new(),
            model: Arc::default(),
            submitted: now,
            finished: now,
            preprocess: zero,
            infer: zero,
            decode: zero,
        }
    }
}

/// What went wrong, by what the caller may do.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The engine cannot be had on this machine as configured: exit 69.
    #[error("{0}")]
    Unavailable(String),
    /// The engine or manifest contradicts itself: exit 78.
    #[error("{0}")]
    Config(String),
    /// This batch is lost, the next may work.
    #[error("batch dropped: {0}")]
    DropBatch(String),
    /// The daemon was told to stop while the engine was being built.
    #[error("stopped while the engine was being built")]
    Stopped,
    /// The backend must be opened anew.
    #[error("backend failed: {0}")]
    Reopen(String),
}

/// Frames that are looked at together for the motion gate, at most.
pub const LOOK_MAX: usize = 64;

/// Takes a frame back that was looked at, with its [`crate::motion::CELLS`] cells, or why there are none.
pub type Back<'b> = dyn FnMut(Frame, Result<&[u8], &str>) + 'b;

/// Runs an engine over batches of frames.
///
/// Opened, used and dropped on the inference thread. `open` functions get a `wake` sender: a finished batch sends
/// on it, so that a batch at low load does not wait for the next frame.
pub trait Backend {
    /// What it runs.
    fn spec(&self) -> &ModelSpec;

    /// Letterboxes the frames into the input tensor and starts the engine. Takes the frames by value: each stays
    /// alive until it has been read. `frames` holds 1 to [`ModelSpec::lanes`] frames.
    ///
    /// # Errors
    ///
    /// [`BackendError::DropBatch`] where an image is of a kind this backend cannot read, or where
    /// [`ModelSpec::in_flight`] batches are out already; [`BackendError::Reopen`] where the engine is gone.
    fn submit(&mut self, frames: Vec<Frame>) -> Result<(), BackendError>;

    /// The oldest submitted batch's candidates into `out`, if it has finished. Never blocks.
    ///
    /// # Errors
    ///
    /// What became of the oldest batch; it is no longer in flight then.
    fn try_collect(&mut self, out: &mut Batch) -> Result<bool, BackendError>;

    /// Starts to read the cells ([`crate::motion`]) of frames in the device's memory, beside the batches. Takes the frames
    /// by value, 1 to [`LOOK_MAX`], and is not called again before they have come back; wakes like a finished batch.
    ///
    /// # Errors
    ///
    /// [`BackendError::DropBatch`] where this backend reads no such frames, [`BackendError::Reopen`] where the device is gone.
    fn look(&mut self, frames: Vec<Frame>) -> Result<(), BackendError> {
        let memory = frames.first().map_or("", |frame| frame.image.memory());
        Err(BackendError::DropBatch(format!(
            "frames in {memory} are not for this backend: set decode = \"software\""
        )))
    }

    /// Gives each frame back, once all have been read; false before. One that could not be read, since it cannot be mapped, costs
    /// the others nothing. Never blocks.
    ///
    /// # Errors
    ///
    /// [`BackendError::Reopen`] where the device is gone, and with it the frames.
    fn looked(&mut self, _back: &mut Back<'_>) -> Result<bool, BackendError> {
        Ok(true)
    }

    /// From now on lanes in which something is found, or that were asked for, come with thumbnails, as these say. A backend
    /// that cannot write them leaves them out.
    fn set_thumbnails(&mut self, _thumbnails: Thumbnails) {}
}

/// Tells `thumbnails` what was found, and drops those of lanes in which nothing was and that nobody asked for.
fn keep_what_shows_something(thumbnails: &mut Thumbnails, lanes: &mut [Lane]) {
    for lane in lanes {
        let anything = !lane.candidates.boxes.is_empty();
        thumbnails.found(&lane.frame.camera, anything);
        if !anything {
            lane.thumbnail.take_if(|thumbnail| !thumbnail.is_asked());
        }
    }
}

/// Made by NVIDIA's kernel driver where it is loaded.
const GPU_NODE: &str = "/dev/nvidiactl";

/// A backend as configured: everything needed to open it, now and after a failure.
#[derive(Clone)]
pub enum Settings {
    /// CPUs, Intel GPUs and NPUs.
    OpenVino(openvino::Settings),
    /// NVIDIA GPUs.
    TensorRt(tensorrt::Settings),
}

impl Settings {
    /// Nothing but the engine that is wanted will do: it is measured.
    #[must_use]
    pub fn without_stand_ins(self) -> Self {
        match self {
            Self::OpenVino(_) => self,
            Self::TensorRt(settings) => Self::TensorRt(settings.without_stand_ins()),
        }
    }

    /// The backend that a checked engine section asks for on this machine. Compiled models, engines and kernels are kept below
    /// `state_dir`; threads that wait for a GPU do it as `waits` says.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unavailable`] where TensorRT is asked for by name and cannot be had.
    pub fn choose(
        engine: &EngineConfig,
        manifest: &Manifest,
        state_dir: Option<&Path>,
        waits: Waits,
    ) -> Result<Self, BackendError> {
        let gpu = || Device::open_waiting(engine.tensorrt.device, waits);
        let openvino = || Self::OpenVino(openvino::Settings::new(engine, manifest, state_dir));
        match engine.backend {
            BackendChoice::Openvino => Ok(openvino()),
            BackendChoice::Tensorrt => {
                tensorrt::Settings::on(gpu()?, engine, manifest, state_dir).map(Self::TensorRt)
            }
            BackendChoice::Auto => {
                let device = match gpu() {
                    Ok(device) => device,
                    Err(error) => {
                        if Path::new(GPU_NODE).exists() {
                            tracing::warn!("there is an NVIDIA GPU, but OpenVINO runs the model: {error}");
                        }
                        return Ok(openvino());
                    }
                };
                match tensorrt::Settings::on(device, engine, manifest, state_dir) {
                    Ok(settings) => Ok(Self::TensorRt(settings)),
                    Err(error) => {
                        tracing::warn!("there is an NVIDIA GPU, but OpenVINO runs the model: {error}");
                        Ok(openvino())
                    }
                }
            }
        }
    }

    /// Whatever can be looked at before anything is started is there.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn look(&self) -> Result<(), BackendError> {
        match self {
            Self::OpenVino(settings) => openvino::look(settings),
            Self::TensorRt(settings) => tensorrt::look(settings),
        }
    }

    /// Opens the backend and warms it. `wake` is told of every finished batch, `progress` of an engine being built.
    ///
    /// # Errors
    ///
    /// Why it cannot be had.
    pub fn open(&self, wake: Sender<()>, progress: &Progress) -> Result<Box<dyn Backend>, BackendError> {
        Ok(match self {
            Self::OpenVino(settings) => Box::new(openvino::OpenVino::open(settings, wake)?),
            Self::TensorRt(settings) => Box::new(tensorrt::TensorRt::open(settings, wake, progress)?),
        })
    }

    /// Runs the engine alone for `time`: images, wall time and processor time of this process.
    ///
    /// # Errors
    ///
    /// As [`Settings::open`].
    pub fn engine_alone(&self, time: Duration) -> Result<(u64, Duration, Duration), BackendError> {
        match self {
            Self::OpenVino(settings) => openvino::engine_alone(settings, time),
            Self::TensorRt(settings) => tensorrt::engine_alone(settings, time),
        }
    }

    /// The GPU that it works on through CUDA, if it does.
    pub fn device(&self) -> Option<&Device> {
        match self {
            Self::OpenVino(_) => None,
            Self::TensorRt(settings) => Some(settings.device()),
        }
    }

    /// Where cameras should decode into, if the backend reads device memory.
    pub fn gpu_share(&self) -> Option<GpuShare> {
        match self {
            Self::OpenVino(_) => None,
            Self::TensorRt(settings) => Some(settings.share()),
        }
    }
}

/// What becomes of an engine that is being built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Building {
    /// It goes on.
    Step {
        /// Percent, never backward.
        pct: u8,
        /// What is being done.
        text: String,
        /// An older engine serves meanwhile.
        beside: bool,
    },
    /// It is done while an older engine serves: opening anew takes the new one.
    Done,
    /// It failed while an older engine serves, which goes on.
    Failed(String),
}

/// Hears of an engine being built, on whatever thread does it; false stops it.
pub type Progress = Arc<dyn Fn(Building) -> bool + Send + Sync>;

/// For those whom nobody waits for.
pub fn nothing_is_built() -> Progress {
    Arc::new(|_| true)
}
