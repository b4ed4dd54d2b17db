//! Engines: the manifest says what a model is and how its input and output are meant.

pub mod coco;
mod file;
pub mod manifest;
pub mod onnx;

pub use manifest::{
    Channels, HeadChoice, InputSpec, Manifest, ManifestError, OutputSpec, Range, Thresholds, digest,
};
