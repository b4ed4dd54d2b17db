//! NVIDIA GPUs: the only module that knows CUDA and TensorRT.
//!
//! Nothing is linked: the driver, NVRTC and TensorRT are opened at run time, and their absence is a sentence.
//!
//! [`device`] opens a GPU, [`memory`] and [`stream`] are what work is made of, [`kernels`] compiles our own for it:
//! [`letterbox`] writes the input, [`head`] reads the outputs, [`motion`] looks for change,
//! [`thumbnail`] makes frames small, [`nvjpeg`] encodes them. [`trt`] is TensorRT, and
//! [`lanes`] a batch's way through all of them.

#![allow(unsafe_code, reason = "the libraries are C; safe callers get bounds-checked buffers and owned handles")]

pub mod alone;
pub mod device;
mod driver;
pub mod element;
pub mod error;
pub mod head;
pub mod kernels;
pub mod lanes;
pub mod letterbox;
pub mod machine;
pub mod mask;
pub mod memory;
pub mod motion;
pub mod nvjpeg;
mod nvrtc;
pub mod stream;
pub mod surface;
pub mod thumbnail;
mod toolkit;
pub mod trt;

#[cfg(test)]
mod host_tests;
