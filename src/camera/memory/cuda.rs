//! Frames in CUDA memory, and the one context in which all cameras' decoders work.
//!
//! Written against GStreamer's own source, 1.22 to 1.26. In 1.22 a decoder copies each picture into a buffer of an
//! unbounded pool and waits for its stream before it pushes the buffer: frames are complete, and frames that are held
//! stop nobody. From 1.24 on it pushes the decoder's own surfaces, as many as it was told are needed (and copies
//! beyond that), with the work still on its stream, which each frame names.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use gstreamer as gst;
use gstreamer::glib::translate::from_glib_full;
use gstreamer_video::{VideoInfo, VideoMeta};

use crate::camera::decode;
use crate::camera::pipeline::CameraError;
use crate::frame::{Colour, CudaImage, GpuShare, PixelFormat};

const LIBRARY_NAME: &str = "libgstcuda-1.0.so.0";
/// `GST_CUDA_MEMORY_TYPE_NAME`.
const MEMORY_TYPE: &str = "gst.cuda.memory";
/// `GST_MAP_CUDA`: the map is the device address.
const MAP_CUDA: gst::ffi::GstMapFlags = gst::ffi::GST_MAP_FLAG_LAST << 1;

/// What is used of GStreamer's CUDA library, whose ABI is the same from 1.22 on.
struct Library {
    /// Loads the driver. Without it the next call aborts the process.
    load: unsafe extern "C" fn() -> gst::glib::ffi::gboolean,
    wrap: unsafe extern "C" fn(context: *mut c_void, device: c_int) -> *mut gst::ffi::GstObject,
    announce: unsafe extern "C" fn(context: *mut gst::ffi::GstObject) -> *mut gst::ffi::GstContext,
    /// The `CUcontext` of a `GstCudaContext`.
    handle: Handle,
    /// From 1.24 on: the `GstCudaStream` of a memory, or NULL, and the `CUstream` of that.
    stream: Option<(StreamOf, Handle)>,
}

type StreamOf = unsafe extern "C" fn(memory: *mut gst::ffi::GstMemory) -> *mut c_void;
type Handle = unsafe extern "C" fn(of: *mut c_void) -> *mut c_void;

/// The public part of `GstCudaMemory`, as gstcudamemory.h has it from 1.22 on.
#[repr(C)]
struct CudaMemory {
    memory: gst::ffi::GstMemory,
    context: *mut c_void,
}

static LIBRARY: OnceLock<Result<Library, CameraError>> = OnceLock::new();
static CONTEXT: OnceLock<Result<gst::Context, CameraError>> = OnceLock::new();

impl Library {
    fn get() -> Result<&'static Self, CameraError> {
        LIBRARY.get_or_init(Self::open).as_ref().map_err(Clone::clone)
    }

    fn open() -> Result<Self, CameraError> {
        let missing = |e: libloading::Error| {
            CameraError::Setup(format!(
                "cameras cannot share the GPU's context: {e}: install libgstreamer-plugins-bad1.0-0 1.22 or newer"
            ))
        };
        // SAFETY: the library of GStreamer's CUDA plug-in, whose initialisers only register types.
        let library = unsafe { libloading::Library::new(LIBRARY_NAME) }.map_err(missing)?;
        // SAFETY: the types are those of gstcudaloader.h, gstcudacontext.h and gstcudautils.h.
        let load = unsafe { library.get(b"gst_cuda_load_library\0") }.map(|symbol| *symbol);
        // SAFETY: as above.
        let wrap = unsafe { library.get(b"gst_cuda_context_new_wrapped\0") }.map(|symbol| *symbol);
        // SAFETY: as above.
        let announce = unsafe { library.get(b"gst_context_new_cuda_context\0") }.map(|symbol| *symbol);
        // SAFETY: as above.
        let of_context = unsafe { library.get::<Handle>(b"gst_cuda_context_get_handle\0") }.map(|symbol| *symbol);
        // SAFETY: as above, of gstcudamemory.h; a `GstCudaMemory` begins with its `GstMemory`.
        let of_memory = unsafe { library.get::<StreamOf>(b"gst_cuda_memory_get_stream\0") }.map(|symbol| *symbol);
        // SAFETY: as above, of gstcudastream.h.
        let handle = unsafe { library.get::<Handle>(b"gst_cuda_stream_get_handle\0") }.map(|symbol| *symbol);
        let found = Self {
            load: load.map_err(missing)?,
            wrap: wrap.map_err(missing)?,
            announce: announce.map_err(missing)?,
            handle: of_context.map_err(missing)?,
            stream: of_memory.ok().zip(handle.ok()),
        };
        // It registers types with GLib, so it stays for the life of the process.
        std::mem::forget(library);
        Ok(found)
    }
}

/// Whether contexts can be shared.
///
/// # Errors
///
/// A sentence naming the package that is missing.
pub fn library() -> Result<(), CameraError> {
    Library::get().map(|_| ())
}

/// Whether a camera's decoder waits on the host for the copy of each picture: before GStreamer 1.24.
pub fn decoders_wait_for_copies() -> bool {
    Library::get().is_ok_and(|library| library.stream.is_none())
}

/// What makes every element of a pipeline work in the context of the engine's GPU, where it is set on the pipeline
/// before it starts. One context for all: 32 of them cost 10 s, 3 cores and 2.8 GB more than a shared one.
///
/// # Errors
///
/// A sentence naming what is missing.
pub fn context(gpu: GpuShare) -> Result<gst::Context, CameraError> {
    CONTEXT.get_or_init(|| share(gpu)).clone()
}

fn share(gpu: GpuShare) -> Result<gst::Context, CameraError> {
    let library = Library::get()?;
    let refused = || {
        let device = gpu.device;
        CameraError::Setup(format!("GStreamer cannot use GPU {device}: check NVIDIA's driver with nvidia-smi"))
    };
    // SAFETY: takes nothing, opens NVIDIA's driver.
    if unsafe { (library.load)() } == gst::glib::ffi::GFALSE {
        return Err(refused());
    }
    // SAFETY: GStreamer is initialised (pipelines exist), the driver is loaded, the context lives as long as the
    // cameras (`GpuShare`). NULL or a reference of our own comes back.
    let wrapped = unsafe { (library.wrap)(gpu.context as *mut c_void, gpu.device) };
    if wrapped.is_null() {
        return Err(refused());
    }
    // SAFETY: a valid `GstCudaContext`, of which the new context takes a reference of its own.
    let context = unsafe { (library.announce)(wrapped) };
    // SAFETY: gives our reference back.
    unsafe { gst::ffi::gst_object_unref(wrapped.cast()) };
    if context.is_null() {
        return Err(refused());
    }
    // SAFETY: a valid context whose reference is ours.
    Ok(unsafe { from_glib_full(context) })
}

/// A buffer whose memory is mapped for the device; unmapped and given back when dropped.
struct Mapped {
    map: gst::ffi::GstMapInfo,
    /// `CUstream` that may still be working on it, which the memory holds; 0: none.
    stream: usize,
    _buffer: gst::Buffer,
}

// SAFETY: the pointers in the map lead to memory that `_buffer` keeps; CUDA memory is mapped and unmapped under its own
// lock, from any thread.
unsafe impl Send for Mapped {}

impl Mapped {
    fn new(buffer: gst::Buffer) -> Result<Self, CameraError> {
        if buffer.n_memory() != 1 || !buffer.peek_memory(0).is_type(MEMORY_TYPE) {
            let text = "the decoder gives frames in host memory where CUDA memory was promised: give the camera decode \
                = \"software\"";
            return Err(CameraError::Setup(text.to_owned()));
        }
        let memory = buffer.peek_memory(0).as_ptr().cast_mut();
        let mut map = std::mem::MaybeUninit::uninit();
        // SAFETY: a valid memory, for which `map` is filled in where the call succeeds. A map for READ is shared.
        let done = unsafe { gst::ffi::gst_memory_map(memory, map.as_mut_ptr(), gst::ffi::GST_MAP_READ | MAP_CUDA) };
        if done == gst::glib::ffi::GFALSE {
            return Err(CameraError::Stream("a frame could not be mapped into CUDA memory".to_owned()));
        }
        // SAFETY: filled in by the call that succeeded.
        let mut mapped = Self { map: unsafe { map.assume_init() }, stream: 0, _buffer: buffer };
        let library = Library::get()?;
        // SAFETY: the memory is a `GstCudaMemory`, as its type says, and holds its context.
        let context = unsafe { (library.handle)((*memory.cast::<CudaMemory>()).context) } as usize;
        if let Some(gpu) = decode::gpu()
            && context != gpu.context
        {
            let device = gpu.device;
            return Err(CameraError::Setup(format!(
                "the pipeline decodes in another CUDA context than the engine's: name video/x-raw(memory:CUDAMemory) in its \
                 description, and let its elements use GPU {device}"
            )));
        }
        if let Some((of_memory, handle)) = library.stream {
            // SAFETY: the memory is a `GstCudaMemory`, as its type says; of a stream that is NULL the handle is, too.
            mapped.stream = unsafe { handle(of_memory(memory)) } as usize;
        }
        Ok(mapped)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, unmapped once; the buffer that keeps the memory is dropped after this.
        unsafe { gst::ffi::gst_memory_unmap(self.map.memory, &mut self.map) };
    }
}

/// The device addresses of a frame. Dropping the loan may call CUDA (a pool that has ended frees its memory), so it is
/// not dropped in a host function of a stream.
pub(super) fn image(
    buffer: gst::Buffer,
    info: &VideoInfo,
    format: PixelFormat,
    colour: Colour,
) -> Result<CudaImage, CameraError> {
    let (offsets, strides) = match buffer.meta::<VideoMeta>() {
        Some(meta) => (meta.offset().to_vec(), super::strides(meta.stride())?),
        None => (info.offset().to_vec(), super::strides(info.stride())?),
    };
    let mut starts = [0; 3];
    starts.iter_mut().zip(&offsets).for_each(|(start, offset)| *start = *offset);
    let mapped = Mapped::new(buffer)?;
    let end = super::end(format, (info.width(), info.height()), starts, strides);
    if end.is_none_or(|end| end > mapped.map.size) {
        return Err(CameraError::Stream("a frame is larger than its CUDA memory".to_owned()));
    }
    let base = mapped.map.data as u64;
    let plane = |index: usize| if index < offsets.len() { base + starts[index] as u64 } else { 0 };
    Ok(CudaImage {
        format,
        width: info.width(),
        height: info.height(),
        planes: [plane(0), plane(1), plane(2)],
        strides,
        colour,
        stream: mapped.stream,
        loan: Box::new(mapped),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_for_a_shared_context_is_said() {
        gst::init().unwrap();
        match library() {
            Err(CameraError::Setup(text)) => assert!(text.contains("libgstreamer-plugins-bad1.0-0"), "{text}"),
            Err(other) => panic!("{other:?}"),
            // SAFETY: only looked for; the driver's initialisers do nothing that a test minds.
            Ok(()) if unsafe { libloading::Library::new("libcuda.so.1") }.is_err() => {
                let error = share(GpuShare { context: 8, device: 0, frames: 1 }).unwrap_err();
                assert!(error.to_string().contains("check NVIDIA's driver with nvidia-smi"), "{error}");
            }
            Ok(()) => eprintln!("a driver is there: tests/gpu_cameras.rs shares its context"),
        }
    }

    #[test]
    fn host_memory_is_not_taken_for_device_memory() {
        gst::init().unwrap();
        let info = VideoInfo::builder(gstreamer_video::VideoFormat::Nv12, 64, 64).build().unwrap();
        let buffer = gst::Buffer::with_size(info.size()).unwrap();
        let colour = Colour { bt709: false, full_range: false };
        let error = image(buffer, &info, PixelFormat::Nv12, colour).err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("host memory where CUDA memory was promised")));
    }
}
