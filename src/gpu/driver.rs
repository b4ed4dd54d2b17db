//! The NVIDIA driver's library, opened at run time. `cudarc` panics where the library or a function of it is missing,
//! so both are looked for here before its first call.

use std::path::Path;
use std::sync::OnceLock;

use cudarc::driver::sys::{self, CUresult};
use libloading::Library;

use super::error::{GpuError, check, name};

/// The library, as every driver installs it.
const LIBRARY: &str = "libcuda.so.1";
/// Where it lies on hosts whose loader does not know it: containers, Jetson, WSL, Debian.
const FOLDERS: &[&str] = &[
    "/usr/local/nvidia/lib64",
    "/usr/lib/aarch64-linux-gnu/tegra",
    "/usr/lib/aarch64-linux-gnu/nvidia",
    "/usr/lib/wsl/lib",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
];
/// The oldest driver: CUDA 11.4, that of JetPack 5.
const OLDEST: i32 = 11_040;

/// Every function of the driver that `gpu` calls.
const FUNCTIONS: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuDeviceGet",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxSetFlags_v2",
    "cuCtxSetCurrent",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemsetD8Async",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuCtxGetStreamPriorityRange",
    "cuStreamCreateWithPriority",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuStreamIsCapturing",
    "cuLaunchHostFunc",
    "cuLaunchKernel",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventElapsedTime",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuModuleUnload",
];

/// Opens and initialises the driver, once a process; its CUDA version as major, minor.
pub(super) fn open() -> Result<(u32, u32), GpuError> {
    static DRIVER: OnceLock<Result<(u32, u32), GpuError>> = OnceLock::new();
    DRIVER.get_or_init(start).clone()
}

fn start() -> Result<(u32, u32), GpuError> {
    let library = load()?;
    for function in FUNCTIONS {
        // SAFETY: the symbol is looked up, not called.
        if unsafe { library.get::<*const ()>(function.as_bytes()) }.is_err() {
            return Err(too_old(&format!("has no {function}")));
        }
    }
    // The process keeps the library: `cudarc` opens the same one and holds addresses of it.
    std::mem::forget(library);
    let mut version = 0;
    // SAFETY: the library and the function are there; `version` lives over the call. Needs no initialisation.
    check(unsafe { sys::cuDriverGetVersion(&mut version) }, "asking the driver for its version")?;
    if version < OLDEST {
        return Err(too_old(&format!("is for CUDA {}.{}", version / 1000, version % 1000 / 10)));
    }
    // SAFETY: as above; the flags must be 0.
    match unsafe { sys::cuInit(0) } {
        CUresult::CUDA_SUCCESS => Ok((version as u32 / 1000, version as u32 % 1000 / 10)),
        CUresult::CUDA_ERROR_NO_DEVICE => Err(GpuError::Unavailable(
            "the NVIDIA driver finds no GPU: check `nvidia-smi`, and that this service may open /dev/nvidia*"
                .into(),
        )),
        code => Err(GpuError::Unavailable(format!(
            "the NVIDIA driver does not start ({}): check `nvidia-smi`; after an update of the driver, restart the machine",
            name(code)
        ))),
    }
}

fn load() -> Result<Library, GpuError> {
    let paths = FOLDERS.iter().map(|folder| Path::new(folder).join(LIBRARY));
    let mut first = None;
    for path in std::iter::once(LIBRARY.into()).chain(paths) {
        // SAFETY: the driver's library has no initialisers that depend on us; it stays loaded.
        match unsafe { Library::new(&path) } {
            Ok(library) => return Ok(library),
            Err(error) => first = first.or(Some(error)),
        }
    }
    let why = first.map(|error| error.to_string()).unwrap_or_default();
    Err(GpuError::Unavailable(format!(
        "the NVIDIA driver cannot be opened ({why}): install it (nvidia-driver on Debian, nvidia-driver-N on Ubuntu, \
         nvidia-l4t-cuda on a Jetson), or use another backend"
    )))
}

fn too_old(what: &str) -> GpuError {
    GpuError::Unavailable(format!(
        "the NVIDIA driver is too old, it {what}: install one for CUDA {}.{} or newer",
        OLDEST / 1000,
        OLDEST % 1000 / 10
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Each file's text, tests of the folder included.
    fn texts(folder: &Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => texts(&path, out),
                false => out.extend(std::fs::read_to_string(path)),
            }
        }
    }

    /// One that an old driver lacks would end the process where it is called.
    #[test]
    fn every_function_of_the_driver_that_is_called_is_looked_for() {
        let mut all = Vec::new();
        texts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gpu"), &mut all);
        let called: BTreeSet<&str> = all
            .iter()
            .flat_map(|text| text.split("sys::cu").skip(1))
            .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
            .filter(|name| name.starts_with(char::is_uppercase))
            .collect();
        let listed: BTreeSet<&str> = FUNCTIONS.iter().filter_map(|name| name.strip_prefix("cu")).collect();
        assert_eq!(called, listed);
    }

    #[test]
    fn a_missing_driver_is_a_sentence_and_not_a_panic() {
        match open() {
            Ok(version) => assert!(version >= (11, 4)),
            Err(GpuError::Unavailable(text)) => assert!(text.contains(": "), "{text}"),
            Err(other) => panic!("{other:?}"),
        }
    }
}
