//! What this machine is, as stamps of engines say it.

use super::device::Device;
use super::trt::Library;
use crate::engine::stamp::{Flavour, Gpu, Machine, Runtime};

/// A library and a GPU.
pub fn describe(library: &Library, device: Option<&Device>) -> Machine {
    let flavour = if library.is_rtx() { Flavour::Rtx } else { Flavour::TensorRT };
    let dotted = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    let gpu = device.map(|device| Gpu {
        name: device.name(),
        sm: dotted(device.compute_capability()),
        cuda: dotted(device.driver_version()),
    });
    Machine { tensorrt: Runtime { flavour, version: library.version().to_string() }, gpu }
}
