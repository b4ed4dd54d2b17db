//! Engines: the manifest says what a model is and how its input and output are meant, the stamp what a built engine was
//! built for.

pub mod built;
pub mod calibration;
pub mod coco;
mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod manifest;
pub mod onnx;
pub mod order;
pub mod progress;
pub mod shapes;
pub mod stamp;
pub mod trial;

pub use manifest::{
    Channels, HeadChoice, InputSpec, Manifest, ManifestError, OutputSpec, Range, TensorrtSpec, Thresholds, digest,
};
