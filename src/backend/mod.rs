//! The one trait with several production implementations: frames in, candidates out.

pub mod openvino;
pub mod planar;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::engine::Manifest;
use crate::event::Model;
use crate::frame::{Frame, FrameInfo};
use crate::infer::Open;
use crate::letterbox::Letterbox;
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
}

/// A finished batch. Reused through a free list, so that the lists keep their memory.
#[derive(Debug)]
pub struct Batch {
    /// One entry a frame, in the order submitted; at most [`ModelSpec::lanes`].
    pub lanes: Vec<Lane>,
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
        Self { lanes: Vec::new(), submitted: now, finished: now, preprocess: zero, infer: zero, decode: zero }
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
    /// The backend must be opened anew.
    #[error("backend failed: {0}")]
    Reopen(String),
}

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
}

/// The opener of the configured backend, for the inference thread. Fills `model` when it first succeeds.
pub fn opener(config: &Config, manifest: &Manifest, model: Arc<OnceLock<Model>>) -> Open {
    let settings = openvino::Settings::new(config, manifest);
    Box::new(move |wake| {
        let backend = openvino::OpenVino::open(&settings, wake)?;
        let spec = backend.spec();
        // Set once; a backend opened anew runs the same model.
        let _ = model.set(Model {
            name: spec.name.clone(),
            input: [spec.input.0, spec.input.1],
            engine: format!("sha256:{}", spec.digest),
        });
        Ok(Box::new(backend))
    })
}
