//! Frames in NVIDIA's multimedia memory: a mapped buffer is an `NvBufSurface`.
//!
//! The layout is that of NVIDIA's public header `nvbufsurface.h`. Newer ones only added fields behind those used here:
//! it is the same in those of 2019 (DeepStream 4, JetPack 4), of DeepStream 6 and JetPack 5, and of DeepStream 9
//! (2026). Of a batch only the first surface is read, whose size has grown.

#![allow(unsafe_code)]

use gstreamer as gst;

use crate::camera::decode;
use crate::camera::pipeline::CameraError;
use crate::frame::{Colour, CudaImage, GpuShare, Image, NvmmImage, PixelFormat};

const PLANES_MAX: usize = 4;

/// The beginning of `NvBufSurface`.
#[repr(C)]
struct Surfaces {
    gpu_id: u32,
    batch_size: u32,
    num_filled: u32,
    is_contiguous: bool,
    memory_type: u32,
    list: *const Surface,
}

/// The beginning of `NvBufSurfaceParams`.
#[repr(C)]
struct Surface {
    width: u32,
    height: u32,
    pitch: u32,
    colour_format: u32,
    layout: u32,
    descriptor: u64,
    data_size: u32,
    data: *const u8,
    planes: PlaneParams,
}

/// The beginning of `NvBufSurfacePlaneParams`.
#[repr(C)]
struct PlaneParams {
    count: u32,
    width: [u32; PLANES_MAX],
    height: [u32; PLANES_MAX],
    pitch: [u32; PLANES_MAX],
    offset: [u32; PLANES_MAX],
}

/// `NvBufSurfaceMemType`.
mod memory_type {
    pub const DEFAULT: u32 = 0;
    pub const CUDA_PINNED: u32 = 1;
    pub const CUDA_DEVICE: u32 = 2;
    pub const CUDA_UNIFIED: u32 = 3;
    pub const SURFACE_ARRAY: u32 = 4;
}

/// `NVBUF_LAYOUT_PITCH`.
const LAYOUT_PITCH: u32 = 0;

/// What a surface's colour format says: layout, and BT.709 and full range where it does say so.
fn colour_format(number: u32) -> Option<(PixelFormat, bool, bool)> {
    match number {
        2 => Some((PixelFormat::I420, false, false)),
        4 => Some((PixelFormat::I420, false, true)),
        31 => Some((PixelFormat::I420, true, false)),
        32 => Some((PixelFormat::I420, true, true)),
        6 => Some((PixelFormat::Nv12, false, false)),
        7 => Some((PixelFormat::Nv12, false, true)),
        33 => Some((PixelFormat::Nv12, true, false)),
        34 => Some((PixelFormat::Nv12, true, true)),
        _ => None,
    }
}

/// A surface with the planes of one frame, still without its loan.
#[derive(Debug, PartialEq)]
struct Found {
    format: PixelFormat,
    size: (u32, u32),
    colour: Colour,
    /// Addresses and strides; `None` where the GPU has to map them.
    planes: Option<([u64; 3], [usize; 3])>,
}

/// The frame in a buffer of NVMM memory, whose caps say `size` and `colour`.
pub(super) fn image(buffer: gst::Buffer, size: (u32, u32), colour: Colour) -> Result<Image, CameraError> {
    let unmapped = |_| CameraError::Stream("a frame could not be mapped as an NVMM surface".to_owned());
    let mapped = buffer.into_mapped_buffer_readable().map_err(unmapped)?;
    let address = mapped.as_slice().as_ptr();
    if mapped.size() < size_of::<Surfaces>() || !address.cast::<Surfaces>().is_aligned() {
        let text = "the pipeline's NVMM frames hold no NvBufSurface: use the elements of JetPack 5 or newer, or DeepStream";
        return Err(CameraError::Setup(text.to_owned()));
    }
    // SAFETY: buffers of `memory:NVMM` hold an `NvBufSurface`, of which at least the part read is there, aligned; it and
    // its list stay as they are while the buffer is mapped.
    let found = unsafe { read(address.cast(), colour, decode::gpu()) }.map_err(CameraError::Setup)?;
    let (surface, loan) = (address as usize, Box::new(mapped));
    let Found { format, size: (width, height), colour, planes } = found;
    holds((width, height), size).map_err(CameraError::Setup)?;
    Ok(match planes {
        // V4L2 gives a surface away when it is decoded.
        Some((planes, strides)) => {
            Image::Cuda(CudaImage { format, width, height, planes, strides, colour, stream: 0, loan })
        }
        None => Image::Nvmm(NvmmImage { width, height, colour, surface, index: 0, loan }),
    })
}

/// Frames are read in the size of their caps: a surface must have it.
fn holds(surface: (u32, u32), caps: (u32, u32)) -> Result<(), String> {
    if surface.0 >= caps.0 && surface.1 >= caps.1 {
        return Ok(());
    }
    Err(format!(
        "the pipeline gives NVMM surfaces of {}x{} and says {}x{}: end it with the decoder, or name the size after its converter",
        surface.0, surface.1, caps.0, caps.1
    ))
}

/// Reads a surface list and its first surface.
///
/// # Safety
///
/// `surfaces` leads to an `NvBufSurface` that nobody changes, and its list to as many surfaces as it says.
unsafe fn read(surfaces: *const Surfaces, colour: Colour, gpu: Option<GpuShare>) -> Result<Found, String> {
    // SAFETY: the caller's promise.
    let surfaces = unsafe { &*surfaces };
    if surfaces.batch_size == 0 || surfaces.list.is_null() {
        return Err(
            "the pipeline gives NVMM frames without a surface: end it with the decoder or nvvidconv".to_owned()
        );
    }
    // SAFETY: the list is there and has a first surface.
    let surface = unsafe { &*surfaces.list };
    let Some((format, bt709, full_range)) = colour_format(surface.colour_format) else {
        return Err(format!(
            "the pipeline gives NVMM surfaces of colour format {}: end it with video/x-raw(memory:NVMM),format=NV12",
            surface.colour_format
        ));
    };
    if surface.layout != LAYOUT_PITCH {
        return Err(
            "the pipeline gives block-linear NVMM surfaces: end it with nvvidconv bl-output=false".to_owned()
        );
    }
    let colour = Colour { bt709: colour.bt709 || bt709, full_range: colour.full_range || full_range };
    let size = (surface.width, surface.height);
    let planes = match surfaces.memory_type {
        memory_type::CUDA_PINNED | memory_type::CUDA_DEVICE | memory_type::CUDA_UNIFIED => {
            Some(on_device(surfaces, surface, format, gpu)?)
        }
        // The platform's own: device memory has an address, surface arrays have none.
        memory_type::DEFAULT if !surface.data.is_null() => Some(on_device(surfaces, surface, format, gpu)?),
        memory_type::DEFAULT | memory_type::SURFACE_ARRAY if format == PixelFormat::Nv12 => None,
        memory_type::DEFAULT | memory_type::SURFACE_ARRAY => {
            return Err(
                "the pipeline gives I420 surfaces: end it with video/x-raw(memory:NVMM),format=NV12".to_owned()
            );
        }
        other => {
            return Err(format!(
                "the pipeline gives NVMM surfaces of memory type {other}, which the GPU does not read: set \
                 nvbuf-memory-type on its converter to the default"
            ));
        }
    };
    Ok(Found { format, size, colour, planes })
}

/// Addresses and strides of a surface in CUDA memory.
fn on_device(
    surfaces: &Surfaces,
    surface: &Surface,
    format: PixelFormat,
    gpu: Option<GpuShare>,
) -> Result<([u64; 3], [usize; 3]), String> {
    if let Some(gpu) = gpu
        && i64::from(surfaces.gpu_id) != i64::from(gpu.device)
    {
        return Err(format!(
            "the pipeline decodes on GPU {}, the engine runs on GPU {}: set gpu-id on the decoder",
            surfaces.gpu_id, gpu.device
        ));
    }
    let wanted = if format == PixelFormat::I420 { 3 } else { 2 };
    let (mut offsets, mut strides) = ([0; 3], [0; 3]);
    for plane in 0..wanted {
        (offsets[plane], strides[plane]) =
            (surface.planes.offset[plane] as usize, surface.planes.pitch[plane] as usize);
    }
    let end = super::end(format, (surface.width, surface.height), offsets, strides);
    let fits = end.is_some_and(|end| end <= surface.data_size as usize);
    if surface.data.is_null() || surface.planes.count as usize != wanted || !fits {
        return Err("the pipeline gives NVMM surfaces without their planes: end it with the decoder".to_owned());
    }
    let mut planes = [0; 3];
    for plane in 0..wanted {
        planes[plane] = surface.data as u64 + offsets[plane] as u64;
    }
    Ok((planes, strides))
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    const COLOUR: Colour = Colour { bt709: false, full_range: false };
    const GPU: Option<GpuShare> = Some(GpuShare { context: 1, device: 0, frames: 4 });

    /// Of the compiler on 64-bit Linux, for the headers named above.
    #[test]
    fn the_layout_is_that_of_the_public_headers() {
        let of_list = [
            offset_of!(Surfaces, gpu_id),
            offset_of!(Surfaces, batch_size),
            offset_of!(Surfaces, num_filled),
            offset_of!(Surfaces, is_contiguous),
            offset_of!(Surfaces, memory_type),
            offset_of!(Surfaces, list),
        ];
        assert_eq!(of_list, [0, 4, 8, 12, 16, 24]);
        assert_eq!(size_of::<Surfaces>(), 32);
        let of_surface = [
            offset_of!(Surface, width),
            offset_of!(Surface, height),
            offset_of!(Surface, pitch),
            offset_of!(Surface, colour_format),
            offset_of!(Surface, layout),
            offset_of!(Surface, descriptor),
            offset_of!(Surface, data_size),
            offset_of!(Surface, data),
            offset_of!(Surface, planes),
        ];
        assert_eq!(of_surface, [0, 4, 8, 12, 16, 24, 32, 40, 48]);
        let of_planes = [
            offset_of!(PlaneParams, count),
            offset_of!(PlaneParams, width),
            offset_of!(PlaneParams, height),
            offset_of!(PlaneParams, pitch),
            offset_of!(PlaneParams, offset),
        ];
        assert_eq!(of_planes, [0, 4, 20, 36, 52]);
    }

    /// A 1080p NV12 surface as DeepStream's decoder makes them.
    fn decoded() -> Surface {
        let planes = PlaneParams {
            count: 2,
            width: [1920, 960, 0, 0],
            height: [1080, 540, 0, 0],
            pitch: [2048, 2048, 0, 0],
            offset: [0, 2048 * 1088, 0, 0],
        };
        Surface {
            width: 1920,
            height: 1080,
            pitch: 2048,
            colour_format: 6,
            layout: LAYOUT_PITCH,
            descriptor: 0,
            data_size: 2048 * 1088 * 3 / 2,
            data: 0x7f00_0000_0000 as *const u8,
            planes,
        }
    }

    fn found(memory_type: u32, surface: &Surface) -> Result<Found, String> {
        let list =
            Surfaces { gpu_id: 0, batch_size: 1, num_filled: 1, is_contiguous: true, memory_type, list: surface };
        // SAFETY: both are of this test.
        unsafe { read(&list, COLOUR, GPU) }
    }

    #[test]
    fn device_memory_is_read_by_address() {
        for memory_type in [memory_type::DEFAULT, memory_type::CUDA_DEVICE, memory_type::CUDA_UNIFIED] {
            let planes = Some(([0x7f00_0000_0000, 0x7f00_0022_0000, 0], [2048, 2048, 0]));
            let wanted = Found { format: PixelFormat::Nv12, size: (1920, 1080), colour: COLOUR, planes };
            assert_eq!(found(memory_type, &decoded()), Ok(wanted));
        }
        let full = found(2, &Surface { colour_format: 34, ..decoded() }).unwrap();
        assert_eq!(full.colour, Colour { bt709: true, full_range: true });
    }

    #[test]
    fn a_surface_smaller_than_its_caps_is_refused() {
        assert_eq!(holds((1920, 1088), (1920, 1080)), Ok(()));
        for surface in [(1280, 1080), (1920, 720)] {
            let error = holds(surface, (1920, 1080)).unwrap_err();
            assert!(error.contains("and says 1920x1080"), "{error}");
        }
    }

    #[test]
    fn surface_arrays_are_left_to_the_gpu() {
        let array = Surface { data: std::ptr::null(), descriptor: 42, data_size: 0, ..decoded() };
        for memory_type in [memory_type::DEFAULT, memory_type::SURFACE_ARRAY] {
            assert_eq!(found(memory_type, &array).map(|found| found.planes), Ok(None));
        }
    }

    #[test]
    fn what_no_kernel_reads_is_refused_in_words() {
        let one_plane = PlaneParams { count: 1, ..decoded().planes };
        let far = PlaneParams { offset: [0, u32::MAX, 0, 0], ..decoded().planes };
        let array = |surface| Surface { data: std::ptr::null(), ..surface };
        for (memory_type, surface, text) in [
            (2, Surface { colour_format: 29, ..decoded() }, "colour format 29"),
            (2, Surface { colour_format: 19, ..decoded() }, "colour format 19"),
            (2, Surface { layout: 1, ..decoded() }, "bl-output=false"),
            (4, array(Surface { layout: 1, ..decoded() }), "bl-output=false"),
            (4, array(Surface { colour_format: 2, ..decoded() }), "I420"),
            (5, decoded(), "memory type 5"),
            (2, Surface { planes: one_plane, ..decoded() }, "without their planes"),
            (2, Surface { planes: far, ..decoded() }, "without their planes"),
            (2, array(decoded()), "without their planes"),
        ] {
            let error = found(memory_type, &surface).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
        let surface = decoded();
        let list = |gpu_id, batch_size| Surfaces {
            gpu_id,
            batch_size,
            num_filled: 1,
            is_contiguous: true,
            memory_type: 2,
            list: &surface,
        };
        // SAFETY: all are of this test.
        let read = |list: &Surfaces| unsafe { read(list, COLOUR, GPU) }.unwrap_err();
        assert!(read(&list(0, 0)).contains("without a surface"));
        assert!(read(&list(1, 1)).contains("set gpu-id"));
    }
}
