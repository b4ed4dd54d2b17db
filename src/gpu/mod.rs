//! NVIDIA GPUs: the only module that knows CUDA and TensorRT.
//!
//! Nothing is linked: the driver, NVRTC and TensorRT are opened at run time, and their absence is a sentence.

pub mod trt;
