//! nvJPEG, NVIDIA's JPEG encoder, opened at run time where CUDA's toolkit or JetPack has brought it.

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::Path;

use libloading::Library;

use super::device::Device;
use super::error::GpuError;
use super::memory::{DeviceBuffer, Pinned};
use super::stream::Stream;
use super::toolkit::{self, Versioned};

/// JetPack has another library of this name without a number, which is not this one.
const LIBRARIES: &[Versioned] = &[(13, "libnvjpeg.so.13"), (12, "libnvjpeg.so.12"), (11, "libnvjpeg.so.11")];

const SUCCESS: c_int = 0;
/// `NVJPEG_INPUT_RGBI`: red, green and blue of a pixel beside each other.
const RGB: c_int = 5;
/// `NVJPEG_CSS_420`.
const HALF_COLOUR: c_int = 2;

type Handle = *mut c_void;
/// A `cudaStream_t`, which is a `CUstream`.
type RawStream = *mut c_void;
type Create = unsafe extern "C" fn(Handle, *mut Handle, RawStream) -> c_int;
type Destroy = unsafe extern "C" fn(Handle) -> c_int;
type Set = unsafe extern "C" fn(Handle, c_int, RawStream) -> c_int;

/// `nvjpegImage_t`.
#[repr(C)]
struct Planes {
    channel: [*mut u8; 4],
    pitch: [usize; 4],
}

struct Functions {
    create: unsafe extern "C" fn(*mut Handle) -> c_int,
    destroy: Destroy,
    create_state: Create,
    destroy_state: Destroy,
    create_params: Create,
    destroy_params: Destroy,
    set_quality: Set,
    set_sampling: Set,
    encode: unsafe extern "C" fn(Handle, Handle, Handle, *const Planes, c_int, c_int, c_int, RawStream) -> c_int,
    retrieve: unsafe extern "C" fn(Handle, Handle, *mut u8, *mut usize, RawStream) -> c_int,
}

/// An encoder on a device: one picture at a time, on a stream of its own.
pub struct Encoder {
    /// Before what it works on: dropped first.
    codec: Codec,
    stream: Stream,
    pinned: Pinned,
    image: DeviceBuffer,
}

/// What nvJPEG holds; null where it could not be made.
struct Codec {
    device: Device,
    functions: Functions,
    library: Handle,
    state: Handle,
    params: Handle,
    /// For good, as NVRTC's: what it leaves for the process's end stays in place.
    _library: ManuallyDrop<Library>,
}

// SAFETY: handles that nvJPEG lets any thread use, one at a time, which `&mut self` sees to.
unsafe impl Send for Codec {}

impl Encoder {
    /// The first nvJPEG that works on `device`.
    ///
    /// # Errors
    ///
    /// [`GpuError::Unavailable`] where none is installed, else as the driver says.
    pub fn open(device: &Device) -> Result<Self, GpuError> {
        let mut tried = Vec::new();
        for path in toolkit::candidates(LIBRARIES, device.driver_version().0) {
            match library(&path) {
                Ok((library, functions)) => {
                    let stream = Stream::in_background(device)?;
                    let codec = Codec::new(library, functions, &stream)?;
                    let (pinned, image) = (Pinned::new(device, 0)?, DeviceBuffer::new(device, 0)?);
                    return Ok(Self { codec, stream, pinned, image });
                }
                Err(why) => tried.push(why),
            }
        }
        let why = tried.into_iter().next().unwrap_or_default();
        Err(GpuError::Unavailable(format!("no nvJPEG is installed ({why})")))
    }

    /// A picture of `width` times `height` pixels, three bytes each, as a JPEG of `quality` 1 to 100 with halved colour.
    ///
    /// # Errors
    ///
    /// [`GpuError::Config`] where `rgb` has another length, else as the driver and nvJPEG say.
    pub fn encode(&mut self, rgb: &[u8], width: u32, height: u32, quality: u8) -> Result<Vec<u8>, GpuError> {
        if rgb.is_empty() || rgb.len() != 3 * width as usize * height as usize {
            return Err(GpuError::Config(format!("{} bytes are no picture of {width}x{height}", rgb.len())));
        }
        if self.image.len() < rgb.len() {
            let device = self.stream.device();
            (self.pinned, self.image) = (Pinned::new(device, rgb.len())?, DeviceBuffer::new(device, rgb.len())?);
        }
        self.pinned.bytes_mut()[..rgb.len()].copy_from_slice(rgb);
        self.stream.upload(&self.pinned, 0, &self.image, 0, rgb.len())?;
        let jpeg = self.codec.encode(&self.image, (width, height), quality, &self.stream);
        // Whatever came of it, nothing reads the buffers any more when they are written again or freed.
        self.stream.synchronize()?;
        jpeg
    }
}

impl Codec {
    fn new(library: Library, functions: Functions, stream: &Stream) -> Result<Self, GpuError> {
        let (device, null) = (stream.device().clone(), std::ptr::null_mut());
        device.bind()?;
        let mut codec = Self {
            device,
            functions,
            library: null,
            state: null,
            params: null,
            _library: ManuallyDrop::new(library),
        };
        let (raw, functions) = (stream.raw() as RawStream, &codec.functions);
        // SAFETY: the context is current, the pointer lives over the call; destroyed by `drop`.
        check(unsafe { (functions.create)(&mut codec.library) }, "opening")?;
        // SAFETY: as above, and the library's handle and the stream are alive.
        check(unsafe { (functions.create_state)(codec.library, &mut codec.state, raw) }, "opening")?;
        // SAFETY: as above.
        check(unsafe { (functions.create_params)(codec.library, &mut codec.params, raw) }, "opening")?;
        // SAFETY: the parameters are alive.
        check(unsafe { (functions.set_sampling)(codec.params, HALF_COLOUR, raw) }, "opening")?;
        Ok(codec)
    }

    /// `image` holds as many pixels of three bytes.
    fn encode(
        &mut self,
        image: &DeviceBuffer,
        (width, height): (u32, u32),
        quality: u8,
        stream: &Stream,
    ) -> Result<Vec<u8>, GpuError> {
        self.device.bind()?;
        let bytes = image.range(0, 3 * width as usize * height as usize)?;
        let mut planes = Planes { channel: [std::ptr::null_mut(); 4], pitch: [0; 4] };
        (planes.channel[0], planes.pitch[0]) = (bytes as *mut u8, 3 * width as usize);
        let (raw, functions) = (stream.raw() as RawStream, &self.functions);
        let (width, height) = (width as c_int, height as c_int);
        // SAFETY: the parameters and the stream are alive, the context is current.
        check(unsafe { (functions.set_quality)(self.params, c_int::from(quality), raw) }, "encoding")?;
        // SAFETY: all handles are alive; the picture lies within `image`, which outlives the work: the caller waits for it.
        let code =
            unsafe { (functions.encode)(self.library, self.state, self.params, &planes, RGB, width, height, raw) };
        check(code, "encoding")?;
        let (mut length, null) = (0, std::ptr::null_mut());
        // SAFETY: without a buffer it writes the length alone, once the picture is encoded.
        check(unsafe { (functions.retrieve)(self.library, self.state, null, &mut length, raw) }, "encoding")?;
        stream.synchronize()?;
        let mut jpeg = vec![0; length];
        // SAFETY: the buffer has the length that was asked for, which is told again.
        check(
            unsafe { (functions.retrieve)(self.library, self.state, jpeg.as_mut_ptr(), &mut length, raw) },
            "encoding",
        )?;
        stream.synchronize()?;
        jpeg.truncate(length);
        Ok(jpeg)
    }
}

impl Drop for Codec {
    fn drop(&mut self) {
        if self.device.bind().is_err() {
            return;
        }
        let handles = [
            (self.functions.destroy_params, self.params),
            (self.functions.destroy_state, self.state),
            (self.functions.destroy, self.library),
        ];
        for (destroy, handle) in handles.into_iter().filter(|(_, handle)| !handle.is_null()) {
            // SAFETY: made by `new`, destroyed once; `encode` has waited for what used it.
            unsafe { destroy(handle) };
        }
    }
}

fn library(path: &Path) -> Result<(Library, Functions), String> {
    // SAFETY: nvJPEG has no initialisers that depend on us.
    let library = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
    let functions = Functions::find(&library).map_err(|error| error.to_string())?;
    Ok((library, functions))
}

impl Functions {
    fn find(library: &Library) -> Result<Self, libloading::Error> {
        // SAFETY: the types are those of `nvjpeg.h`, the same in 11.9, 12.4 and 13.3.
        unsafe {
            Ok(Self {
                create: *library.get(b"nvjpegCreateSimple")?,
                destroy: *library.get(b"nvjpegDestroy")?,
                create_state: *library.get(b"nvjpegEncoderStateCreate")?,
                destroy_state: *library.get(b"nvjpegEncoderStateDestroy")?,
                create_params: *library.get(b"nvjpegEncoderParamsCreate")?,
                destroy_params: *library.get(b"nvjpegEncoderParamsDestroy")?,
                set_quality: *library.get(b"nvjpegEncoderParamsSetQuality")?,
                set_sampling: *library.get(b"nvjpegEncoderParamsSetSamplingFactors")?,
                encode: *library.get(b"nvjpegEncodeImage")?,
                retrieve: *library.get(b"nvjpegEncodeRetrieveBitstream")?,
            })
        }
    }
}

fn check(code: c_int, doing: &str) -> Result<(), GpuError> {
    if code == SUCCESS {
        return Ok(());
    }
    Err(GpuError::Failed(format!("nvJPEG failed while {doing} (status {code})")))
}
