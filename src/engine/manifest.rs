//! The engine manifest: one TOML file a model, tracked in `engines/`.

use std::path::PathBuf;
use std::sync::Arc;

use crate::letterbox::Fit;
use crate::yolo::head::HeadKind;

/// What a model is and how its input and output are meant.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Name published with every detection.
    pub name: String,
    /// The ONNX file, relative paths resolved against the manifest's folder.
    pub model: PathBuf,
    /// SHA-256 of the ONNX file, lower-case hex, checked before it is loaded where given.
    pub sha256: Option<String>,
    /// Class names by class number.
    pub labels: Arc<Vec<String>>,
    /// The input tensor.
    pub input: InputSpec,
    /// The output tensors.
    pub output: OutputSpec,
    /// Default thresholds.
    pub thresholds: Thresholds,
}

/// How a picture becomes the input tensor (NCHW, float32 or float16 as the model says).
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    /// Width and height in pixels, for models whose own size is dynamic; the model's size rules where fixed.
    pub size: Option<(u32, u32)>,
    /// Values of a white pixel.
    pub range: Range,
    /// Order of the planes.
    pub channels: Channels,
    /// Letterbox style.
    pub fit: Fit,
    /// Grey level of the padding, 0..255.
    pub pad: u8,
    /// Subtracted from each plane (in `channels` order, after scaling to `range`).
    pub mean: [f32; 3],
    /// Divides each plane after `mean`; never 0.
    pub std: [f32; 3],
}

/// Range of a pixel value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// 0.0 ..= 1.0
    Unit,
    /// 0.0 ..= 255.0
    Byte,
}

/// Order of the colour planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}

/// How the output tensors are read.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputSpec {
    /// Recognised from the tensors' shapes, or named.
    pub head: HeadChoice,
    /// Scores are logits: a sigmoid is applied.
    pub logits: bool,
}

/// How the head is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadChoice {
    /// From the tensors' names and shapes.
    Auto,
    /// This one, or the model is refused.
    Named(HeadKind),
}

/// Default thresholds of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Least score of a detection, 0..1.
    pub confidence: f32,
    /// Overlap (IoU) above which the weaker of two boxes of a class is dropped, 0..1.
    pub nms: f32,
    /// Most boxes a frame handed to NMS.
    pub max_candidates: usize,
    /// Most boxes a frame after NMS.
    pub max_detections: usize,
}
