//! Surfaces of a Jetson's multimedia memory, mapped for CUDA: `NvBufSurface` → EGL image → device addresses.
//!
//! Written against NVIDIA's public headers nvbufsurface.h (JetPack 5 to 7) and cudaEGL.h. A decoder has few surfaces
//! and gives them out again and again, so a mapping is kept as long as the surface has the same EGL image: a surface
//! that was made anew has none yet, even where it lies at the address of an old one.

use std::collections::HashMap;
use std::ffi::{c_int, c_uint, c_void};

use libloading::Library;

use super::device::Device;
use super::error::GpuError;
use crate::frame::NvmmImage;

/// Names of the vendor's library, the first of the multimedia packages, the second of older ones.
const LIBRARY_NAMES: [&str; 2] = ["libnvbufsurface.so", "libnvbufsurface.so.1.0.0"];
const DRIVER_NAME: &str = "libcuda.so.1";
/// Mappings kept: more than the surfaces of 64 cameras.
const MAPPINGS_MAX: usize = 2048;
/// A mapping not asked for in so many calls is of a surface that is gone, or that rests: it keeps the surface's memory. Frames that
/// are being read were asked for later: at most 8 batches of 64, and a look.
const CALLS_KEPT: u64 = 8192;
/// The same where memory is short.
const CALLS_IN_USE: u64 = 1024;
/// Offset of `surfaceList` in `NvBufSurface`.
const LIST_OFFSET: usize = 24;
/// Of `mappedAddr.eglImage` in `NvBufSurfaceParams`: what stands before are 48 bytes, 232 of planes, four addresses.
const EGL_IMAGE_OFFSET: usize = 48 + 232 + 4 * 8;
/// `CU_EGL_FRAME_TYPE_PITCH`: planes are addresses, not arrays.
const FRAME_TYPE_PITCH: c_uint = 1;
/// `CU_GRAPHICS_REGISTER_FLAGS_READ_ONLY`.
const READ_ONLY: c_uint = 1;

/// `CUeglFrame`.
#[repr(C)]
struct EglFrame {
    planes: [*mut c_void; 3],
    width: c_uint,
    height: c_uint,
    depth: c_uint,
    pitch: c_uint,
    plane_count: c_uint,
    channels: c_uint,
    frame_type: c_uint,
    colour_format: c_uint,
    array_format: c_uint,
}

type Resource = *mut c_void;

/// What is used of both libraries. They stay open until the process ends.
struct Functions {
    map: unsafe extern "C" fn(surface: *mut c_void, index: c_int) -> c_int,
    register: unsafe extern "C" fn(resource: *mut Resource, image: *mut c_void, flags: c_uint) -> c_int,
    frame: unsafe extern "C" fn(frame: *mut EglFrame, resource: Resource, index: c_uint, mip: c_uint) -> c_int,
    unregister: unsafe extern "C" fn(resource: Resource) -> c_int,
}

impl Functions {
    fn open() -> Result<Self, GpuError> {
        let missing = |e: &dyn std::fmt::Display| {
            GpuError::Unavailable(format!(
                "the camera's NVMM surfaces cannot be mapped ({e}): install nvidia-l4t-multimedia, or set decode = \
                 \"software\""
            ))
        };
        let open = |name: &str| {
            // SAFETY: a library of NVIDIA's whose initialisers have no conditions.
            unsafe { Library::new(name) }
        };
        let [first, second] = LIBRARY_NAMES;
        let surfaces = open(first).or_else(|_| open(second)).map_err(|e| missing(&e))?;
        let driver = open(DRIVER_NAME).map_err(|e| missing(&e))?;
        // SAFETY: the types are those of nvbufsurface.h and cudaEGL.h.
        let functions = unsafe {
            Self {
                map: *surfaces.get(b"NvBufSurfaceMapEglImage\0").map_err(|e| missing(&e))?,
                register: *driver.get(b"cuGraphicsEGLRegisterImage\0").map_err(|e| missing(&e))?,
                frame: *driver.get(b"cuGraphicsResourceGetMappedEglFrame\0").map_err(|e| missing(&e))?,
                unregister: *driver.get(b"cuGraphicsUnregisterResource\0").map_err(|e| missing(&e))?,
            }
        };
        std::mem::forget((surfaces, driver));
        Ok(functions)
    }
}

struct Mapping {
    egl_image: usize,
    resource: Resource,
    planes: [u64; 3],
    strides: [usize; 3],
    /// When it was last asked for, in calls.
    used: u64,
}

/// The mappings of the surfaces seen so far.
pub struct SurfaceMap {
    device: Device,
    functions: Option<Functions>,
    known: HashMap<usize, Mapping>,
    calls: u64,
}

// SAFETY: the resources are handles that the driver lets every thread use; the map itself is used by one at a time.
unsafe impl Send for SurfaceMap {}

impl SurfaceMap {
    /// An empty one; the libraries are opened with the first surface.
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), functions: None, known: HashMap::new(), calls: 0 }
    }

    /// Device addresses and strides of the surface's planes, valid while the image lives.
    ///
    /// # Errors
    ///
    /// [`GpuError::Unavailable`] without the libraries, [`GpuError::Config`] where the surface cannot be mapped or is not
    /// pitch-linear NV12, [`GpuError::Failed`] where the driver does not take it.
    pub fn planes(&mut self, image: &NvmmImage) -> Result<([u64; 3], [usize; 3]), GpuError> {
        self.calls += 1;
        if self.calls.is_multiple_of(CALLS_IN_USE) {
            self.forget_unused(CALLS_KEPT);
        }
        // SAFETY: the image is a loan of a mapped `NvBufSurface`.
        let egl_image = unsafe { egl_image(image) };
        if let Some(mapping) = self.known.get_mut(&image.surface)
            && mapping.egl_image == egl_image
        {
            mapping.used = self.calls;
            return Ok((mapping.planes, mapping.strides));
        }
        self.forget(image.surface);
        if self.known.len() == MAPPINGS_MAX
            && let Some(oldest) = self.known.iter().min_by_key(|(_, mapping)| mapping.used).map(|(at, _)| *at)
        {
            self.forget(oldest);
        }
        let mapping = self.map(image).or_else(|error| {
            // Mappings of surfaces that are gone may hold what it lacks.
            if self.forget_unused(CALLS_IN_USE) > 0 { self.map(image) } else { Err(error) }
        })?;
        let found = (mapping.planes, mapping.strides);
        self.known.insert(image.surface, mapping);
        Ok(found)
    }

    fn map(&mut self, image: &NvmmImage) -> Result<Mapping, GpuError> {
        self.device.bind()?;
        let functions = match &mut self.functions {
            Some(functions) => functions,
            empty => empty.insert(Functions::open()?),
        };
        let text = |what: &str, code: c_int| {
            format!(
                "an NVMM surface cannot be mapped for CUDA ({what} answers {code}): look at the kernel's log, or set \
                 decode = \"software\""
            )
        };
        let failed = |what: &str, code: c_int| GpuError::Failed(text(what, code));
        let surface = image.surface as *mut c_void;
        // SAFETY: the image keeps the surface; mapping one that is mapped changes nothing.
        let code = unsafe { (functions.map)(surface, image.index as c_int) };
        // SAFETY: as in `planes`.
        let egl_image = unsafe { egl_image(image) };
        if code != 0 || egl_image == 0 {
            // This call is not the driver's: it says nothing of the device, which need not be opened anew for it.
            return Err(GpuError::Config(text("NvBufSurfaceMapEglImage", code)));
        }
        let mut resource = std::ptr::null_mut();
        // SAFETY: an EGL image that lives as long as its surface; `resource` is written where it answers 0.
        let code = unsafe { (functions.register)(&mut resource, egl_image as *mut c_void, READ_ONLY) };
        if code != 0 {
            return Err(failed("cuGraphicsEGLRegisterImage", code));
        }
        let mut frame = std::mem::MaybeUninit::<EglFrame>::zeroed();
        // SAFETY: a registered resource; all zeroes are a value of the frame.
        let (code, frame) = unsafe {
            let code = (functions.frame)(frame.as_mut_ptr(), resource, 0, 0);
            (code, frame.assume_init())
        };
        let fits = frame.frame_type == FRAME_TYPE_PITCH && frame.plane_count == 2;
        if code != 0 || !fits {
            // SAFETY: registered above, and not kept.
            unsafe { (functions.unregister)(resource) };
        }
        if code != 0 {
            return Err(failed("cuGraphicsResourceGetMappedEglFrame", code));
        }
        if !fits {
            return Err(GpuError::Config(
                "the pipeline gives NVMM surfaces that are not pitch-linear NV12: end it with nvvidconv bl-output=false \
                 and video/x-raw(memory:NVMM),format=NV12"
                    .to_owned(),
            ));
        }
        let pitch = frame.pitch as usize;
        let planes = [frame.planes[0] as u64, frame.planes[1] as u64, 0];
        Ok(Mapping { egl_image, resource, planes, strides: [pitch, pitch, 0], used: self.calls })
    }

    /// Gives back what was not asked for in the last `calls`; how many that were.
    fn forget_unused(&mut self, calls: u64) -> usize {
        let before = self.calls.saturating_sub(calls);
        let unused: Vec<usize> =
            self.known.iter().filter(|(_, mapping)| mapping.used < before).map(|(at, _)| *at).collect();
        unused.iter().for_each(|surface| self.forget(*surface));
        unused.len()
    }

    /// Gives a mapping back; its surface may be gone.
    fn forget(&mut self, surface: usize) {
        if let (Some(mapping), Some(functions)) = (self.known.remove(&surface), &self.functions) {
            // SAFETY: registered once, unregistered once.
            unsafe { (functions.unregister)(mapping.resource) };
        }
    }
}

impl Drop for SurfaceMap {
    fn drop(&mut self) {
        for surface in self.known.keys().copied().collect::<Vec<_>>() {
            self.forget(surface);
        }
    }
}

/// `surfaceList[index].mappedAddr.eglImage`, 0 where it is not mapped.
///
/// # Safety
///
/// `image.surface` leads to an `NvBufSurface` whose list has the first surface.
unsafe fn egl_image(image: &NvmmImage) -> usize {
    // Surfaces grew over the versions: only the first is at a known place, and decoders give one a buffer.
    debug_assert_eq!(image.index, 0);
    // SAFETY: the caller's promise; both offsets are those of every public header.
    unsafe {
        let list = *((image.surface + LIST_OFFSET) as *const usize);
        *((list + EGL_IMAGE_OFFSET) as *const usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_egl_image_is_found_where_the_header_has_it() {
        let mut surface = [0usize; 64];
        surface[EGL_IMAGE_OFFSET / 8] = 0x1234;
        let mut list = [0usize; 8];
        list[LIST_OFFSET / 8] = surface.as_ptr() as usize;
        let colour = crate::frame::Colour { bt709: true, full_range: false };
        let surface = list.as_ptr() as usize;
        let image = NvmmImage { width: 64, height: 64, colour, surface, index: 0, loan: Box::new(()) };
        // SAFETY: both are of this test and large enough.
        assert_eq!(unsafe { egl_image(&image) }, 0x1234);
        assert_eq!((EGL_IMAGE_OFFSET, size_of::<EglFrame>()), (312, 64));
    }
}
