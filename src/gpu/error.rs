//! What can go wrong on a GPU, by what the caller may do about it.

use cudarc::driver::sys::{self, CUresult};

use super::trt::TrtError;

/// Why the GPU did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// No driver, no such device, a library that is missing or too old: nothing will work before it is installed.
    #[error("{0}")]
    Unavailable(String),
    /// Settings, model and device contradict each other: nothing will work before one is changed.
    #[error("{0}")]
    Config(String),
    /// The device has not enough free memory.
    #[error("{0}")]
    Memory(String),
    /// A call failed while running: what is open on the device must be opened anew.
    #[error("{0}")]
    Failed(String),
}

impl From<TrtError> for GpuError {
    fn from(error: TrtError) -> Self {
        match error {
            // An engine that does not fit is as good as none.
            TrtError::Unavailable(text) | TrtError::Engine(text) => Self::Unavailable(text),
            TrtError::Model(text) => Self::Config(text),
            TrtError::Failed(text) => Self::Failed(text),
        }
    }
}

/// `Ok` where a driver call succeeded; `doing` says in words what it was for, as in "while ...".
pub(super) fn check(code: CUresult, doing: &str) -> Result<(), GpuError> {
    match code {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(GpuError::Memory(format!(
            "the GPU ran out of memory while {doing}: lower the batch, or stop what else holds memory on this GPU"
        ))),
        code => Err(GpuError::Failed(format!(
            "the GPU failed while {doing} ({}): open it anew; where it fails again, look for `Xid` in the kernel's log",
            name(code)
        ))),
    }
}

/// The name of a driver's answer, as in `CUDA_ERROR_ILLEGAL_ADDRESS`.
pub(super) fn name(code: CUresult) -> String {
    let mut text = std::ptr::null();
    // SAFETY: the driver is loaded (there is an answer of it), and writes a pointer to a string that lives forever.
    let known = unsafe { sys::cuGetErrorName(code, &mut text) } == CUresult::CUDA_SUCCESS && !text.is_null();
    if !known {
        return format!("{code:?}");
    }
    // SAFETY: a zero-terminated string of static life, see above.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
