//! TensorRT: opens the library that is there, loads engines and runs them, builds engines from ONNX.
//!
//! [`Library::open`] finds libnvinfer or libtensorrt_rtx and the slice of `tensorrt-sys` for its version;
//! [`Engine`] and [`Context`] run, [`build`] and [`unsupported`] are for `watchpost engine`. All of it wants the GPU
//! bound on the calling thread (`Device::bind`), but for TensorRT-RTX, which builds without one.
#![allow(unsafe_code, reason = "calls of a C ABI, each with its reason")]

mod builder;
mod layers;
mod library;
mod log;
mod nodes;
mod run;

use std::fmt;
use std::path::PathBuf;

pub use super::element::Element;
pub use builder::{build, unsupported};
pub use library::Library;
pub use run::{Context, Engine};

/// Why TensorRT does not do it. Each is a sentence with the next step.
#[derive(Debug, thiserror::Error)]
pub enum TrtError {
    /// No library, none that fits, or no GPU.
    #[error("{0}")]
    Unavailable(String),
    /// This engine file does not fit this TensorRT or this GPU, or is no engine.
    #[error("{0}")]
    Engine(String),
    /// The ONNX file is broken, or has something that TensorRT cannot run.
    #[error("{0}")]
    Model(String),
    /// Anything else that went wrong while building or running.
    #[error("{0}")]
    Failed(String),
}

/// Of a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the four numbers of a version")]
pub struct TrtVersion {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
    /// 0 where the library does not tell (TensorRT 8).
    pub build: u32,
}

impl fmt::Display for TrtVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        if self.build > 0 { write!(f, ".{}", self.build) } else { Ok(()) }
    }
}

/// Of an `nvinfer1::DataType`.
fn element(data_type: i32) -> Element {
    match data_type {
        0 => Element::F32,
        1 => Element::F16,
        2 => Element::I8,
        3 => Element::I32,
        4 => Element::Bool,
        5 => Element::U8,
        8 => Element::I64,
        _ => Element::Other,
    }
}

/// An input or output of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoTensor {
    /// As the model names it.
    pub name: String,
    /// An input, not an output.
    pub input: bool,
    /// `None`: varies, see [`Context::set_shape`].
    pub shape: Vec<Option<usize>>,
    /// What the buffer holds.
    pub element: Element,
    /// In which order.
    pub layout: Layout,
}

impl IoTensor {
    /// Bytes of a buffer for it in that shape.
    ///
    /// # Errors
    ///
    /// [`TrtError::Engine`] where it is laid out as nothing here is.
    pub fn bytes(&self, shape: &[usize]) -> Result<usize, TrtError> {
        let in_fours = match self.layout {
            Layout::Linear => None,
            Layout::Packed => shape.len().checked_sub(3),
            Layout::Other => {
                return Err(TrtError::Engine(format!(
                    "tensor {:?} of the engine is neither laid out row by row nor packed in fours: build it with \
                     watchpost engine build",
                    self.name
                )));
            }
        };
        let places = |(at, length): (usize, &usize)| {
            if in_fours == Some(at) { length.next_multiple_of(4) } else { *length }
        };
        Ok(shape.iter().enumerate().map(places).product::<usize>() * self.element.bytes())
    }
}

/// In which order a tensor's values lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Row by row, channel by channel.
    Linear,
    /// Channels of a place side by side, in fours, what is left of the last four unused: TensorRT's CHW4.
    Packed,
    /// One that nothing here reads or writes.
    Other,
}

/// What an engine computes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// 32-bit floats (TF32 in the tensor cores, which is TensorRT's own default).
    #[default]
    F32,
    /// 16-bit floats where they are faster.
    F16,
    /// 8-bit integers where the calibration or the model's Q/DQ nodes allow, else 16-bit floats.
    Int8,
}

/// How to build. TensorRT 11 and RTX take the precision from the model: there `precision` and `half_io` say nothing.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// What to compute in.
    pub precision: Precision,
    /// Most scratch memory of one layer. `None`: TensorRT's own limit, the whole GPU.
    pub workspace_bytes: Option<u64>,
    /// Smallest, usual and largest shape of each input whose shape varies.
    pub profile: Vec<(String, [Vec<usize>; 3])>,
    /// Build for this core of the deep learning accelerator, not for the GPU.
    pub dla_core: Option<u32>,
    /// Layers that the accelerator cannot run go to the GPU.
    pub gpu_fallback: bool,
    /// Use 2:4 sparsity where the weights have it.
    pub sparse: bool,
    /// Libraries of plugins to open before the model is read.
    pub plugins: Vec<PathBuf>,
    /// An earlier build's, of this GPU and TensorRT; another's is begun anew.
    pub timing_cache: Option<Vec<u8>>,
    /// FP16 inputs and outputs in place of FP32 ones.
    pub half_io: bool,
}

/// What [`build`] tells while it runs, on the thread that called it.
#[derive(Clone, Copy)]
pub enum Progress<'a> {
    /// A line of TensorRT's log, from information up.
    Message(&'a str),
    /// A phase has `done` of `total` steps; several may run, one within the other. Of TensorRT 8 it is the
    /// layers that its log names.
    Phase {
        /// TensorRT's name of it.
        name: &'a str,
        /// Steps so far.
        done: u32,
        /// Steps in all.
        total: u32,
    },
    /// The timing cache so far, now and then: kept, it makes the next build of this model short.
    Cache(&'a [u8]),
}

/// What [`build`] made.
#[derive(Clone)]
pub struct Built {
    /// The serialized engine.
    pub engine: Vec<u8>,
    /// What was timed; for a next build.
    pub timing_cache: Vec<u8>,
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Built({} bytes, timing cache of {})", self.engine.len(), self.timing_cache.len())
    }
}

/// Pictures for an INT8 calibration (TensorRT 8 and 10).
pub trait Calibrator {
    /// Pictures in a batch.
    fn batch_size(&self) -> usize;
    /// The device address of the next batch for an input, of the input's shape and 32-bit floats; `None`: no more.
    fn next(&mut self, input: &str) -> Option<u64>;
    /// An earlier calibration's result, which makes the pictures needless.
    fn read_cache(&mut self) -> Option<Vec<u8>>;
    /// The result, to be kept.
    fn write_cache(&mut self, cache: &[u8]);
}

/// An ONNX node that TensorRT does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name, or its first output's where it has none; empty where no node is to blame.
    pub node: String,
    /// Its operator; empty where no node is to blame.
    pub op: String,
    /// TensorRT's words.
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.op.is_empty() {
            return f.write_str(&self.reason);
        }
        write!(f, "node {:?} ({}): {}", self.node, self.op, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_tensor_has_room_for_four_channels() {
        let bytes = |layout, shape: &[usize]| {
            let tensor = IoTensor {
                name: "images".to_owned(),
                input: true,
                shape: Vec::new(),
                element: Element::F16,
                layout,
            };
            tensor.bytes(shape)
        };
        assert_eq!(bytes(Layout::Linear, &[2, 3, 5, 7]).ok(), Some(2 * 3 * 5 * 7 * 2));
        assert_eq!(bytes(Layout::Packed, &[2, 3, 5, 7]).ok(), Some(2 * 4 * 5 * 7 * 2));
        assert_eq!(bytes(Layout::Packed, &[8, 5, 7]).ok(), Some(8 * 5 * 7 * 2));
        assert!(matches!(bytes(Layout::Other, &[2, 3, 5, 7]), Err(TrtError::Engine(_))));
    }
}
