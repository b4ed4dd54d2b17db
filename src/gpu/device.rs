//! One GPU and its primary context, which the runtime API, TensorRT and the decoders share.

use std::ffi::{CStr, c_char};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUcontext, CUctx_flags, CUdevice, CUdevice_attribute};

use super::driver;
use super::error::{GpuError, check};

/// Longest name of a GPU that is asked for, in bytes.
const NAME_BYTES: usize = 128;

/// An opened GPU. Clones are the same one. The primary context lives as long as the process: decoders work in it too, a pipeline
/// that refuses to stop is left behind at work, and libraries tidy up in it when the process ends.
#[derive(Clone, Debug)]
pub struct Device {
    primary: Arc<Primary>,
}

#[derive(Debug)]
struct Primary {
    ordinal: usize,
    context: CUcontext,
    name: String,
    compute_capability: (u32, u32),
    driver_version: (u32, u32),
}

// SAFETY: the context is a handle that the driver lets every thread use; the rest is plain data.
unsafe impl Send for Primary {}
// SAFETY: as above.
unsafe impl Sync for Primary {}

/// How threads wait for a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// For decoders that are pressed, which wait for each picture: to spin takes all cores (32 files read as fast as possible: 13
    /// of 16). And where nothing waits long or often.
    Asleep,
    /// As the driver likes, which on most machines is to spin. For decoders at a camera's pace that wait for a copy of some
    /// microseconds: to sleep takes more (128 cameras at 25 frames/s: 423 us of processor time a frame, and 382 so).
    Spinning,
}

impl Device {
    /// Opens GPU `ordinal`, counted from 0 as `nvidia-smi` and CUDA_VISIBLE_DEVICES have it. Threads that wait for it sleep.
    ///
    /// # Errors
    ///
    /// [`GpuError::Unavailable`] without a driver, with one older than CUDA 11.4, and where there is no such GPU.
    pub fn open(ordinal: usize) -> Result<Self, GpuError> {
        Self::open_waiting(ordinal, Waits::Asleep)
    }

    /// The same, with another way to wait in the whole process. The first to open the GPU decides.
    ///
    /// # Errors
    ///
    /// As [`Device::open`].
    pub fn open_waiting(ordinal: usize, waits: Waits) -> Result<Self, GpuError> {
        let driver_version = driver::open()?;
        let device = find(ordinal)?;
        let name = device_name(device)?;
        let major = attribute(device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let flags = match waits {
            Waits::Asleep => CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC,
            Waits::Spinning => CUctx_flags::CU_CTX_SCHED_AUTO,
        };
        // SAFETY: `device` comes from the driver. It refuses a context in use by older rules; then the flags stay.
        let _ = unsafe { sys::cuDevicePrimaryCtxSetFlags_v2(device, flags as u32) };
        let mut context = std::ptr::null_mut();
        let doing = format!("opening GPU {ordinal}");
        // SAFETY: `device` comes from the driver, `context` lives over the call. It is never released.
        check(unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, device) }, &doing)?;
        let compute_capability = (major, minor);
        let primary = Primary { ordinal, context, name, compute_capability, driver_version };
        Ok(Self { primary: Arc::new(primary) })
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.primary.ordinal
    }

    /// The primary context, a `CUcontext`. Valid until the process ends.
    pub fn raw_context(&self) -> usize {
        self.primary.context as usize
    }

    /// Its name, as in "NVIDIA H100 80GB HBM3".
    pub fn name(&self) -> String {
        self.primary.name.clone()
    }

    /// Major and minor number of its architecture: (9, 0) is sm_90.
    pub fn compute_capability(&self) -> (u32, u32) {
        self.primary.compute_capability
    }

    /// The newest CUDA version that the driver knows.
    pub fn driver_version(&self) -> (u32, u32) {
        self.primary.driver_version
    }

    /// Free and total memory in bytes.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`] where the device is gone.
    pub fn memory(&self) -> Result<(u64, u64), GpuError> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both live over the call, and the context is current.
        check(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) }, "asking for its free memory")?;
        Ok((free as u64, total as u64))
    }

    /// Makes the context current on this thread. Everything in `gpu` does so itself; callers need it around calls of
    /// other libraries.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`] where the device is gone.
    pub fn bind(&self) -> Result<(), GpuError> {
        // SAFETY: the context was retained by `open`, and is never released.
        check(unsafe { sys::cuCtxSetCurrent(self.primary.context) }, "making its context current")
    }

    /// Whether both are the same GPU.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.primary.context == other.primary.context
    }
}

fn find(ordinal: usize) -> Result<CUdevice, GpuError> {
    let mut count = 0;
    // SAFETY: the driver is initialised, `count` lives over the call.
    check(unsafe { sys::cuDeviceGetCount(&mut count) }, "counting GPUs")?;
    let count = usize::try_from(count).unwrap_or(0);
    if ordinal >= count {
        return Err(GpuError::Unavailable(format!(
            "there is no GPU {ordinal}: the driver finds {count}, counted from 0; choose one of them"
        )));
    }
    let mut device = 0;
    // SAFETY: `ordinal` is below the count, `device` lives over the call.
    check(unsafe { sys::cuDeviceGet(&mut device, ordinal as i32) }, &format!("looking for GPU {ordinal}"))?;
    Ok(device)
}

fn device_name(device: CUdevice) -> Result<String, GpuError> {
    let mut bytes = [0 as c_char; NAME_BYTES];
    // SAFETY: the driver writes at most as many bytes as it is told, the zero at the end among them.
    let code = unsafe { sys::cuDeviceGetName(bytes.as_mut_ptr(), NAME_BYTES as i32, device) };
    check(code, "asking for its name")?;
    // SAFETY: the array is zero-terminated: the last byte was never written, or is the driver's zero.
    Ok(unsafe { CStr::from_ptr(bytes.as_ptr()) }.to_string_lossy().into_owned())
}

fn attribute(device: CUdevice, attribute: CUdevice_attribute) -> Result<u32, GpuError> {
    let mut value = 0;
    // SAFETY: `value` lives over the call, `device` comes from the driver.
    check(unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, device) }, "asking for its architecture")?;
    Ok(u32::try_from(value).unwrap_or(0))
}
