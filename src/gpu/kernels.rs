//! Our own kernels: compiled for the device when it is opened, and kept on disk.

use std::ffi::{CStr, CString, c_void};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction, CUmodule, CUresult};
use sha2::{Digest, Sha256};

use super::device::Device;
use super::error::{GpuError, check, name};
use super::nvrtc::{Nvrtc, Target};
use super::stream::Stream;

/// All of them, as one program. None includes a header.
pub(super) const SOURCE: &str = concat!(
    "#line 1 \"lane.cu\"\n",
    include_str!("lane.cu"),
    "#line 1 \"letterbox.cu\"\n",
    include_str!("letterbox.cu"),
    "#line 1 \"head.cu\"\n",
    include_str!("head.cu"),
    "#line 1 \"motion.cu\"\n",
    include_str!("motion.cu"),
    "#line 1 \"thumbnail.cu\"\n",
    include_str!("thumbnail.cu"),
);

/// How they are compiled. C++14 is what the oldest NVRTC has.
pub(super) const OPTIONS: &[&str] = &["--std=c++14"];

/// The kernels' names.
pub(super) const NAMES: &[&CStr] = &[
    c"letterbox",
    c"luma_cells",
    c"head_rows",
    c"head_planes_f32",
    c"head_planes_f16",
    c"head_end_to_end",
    c"head_selected",
    c"head_queries",
    c"shrink",
];

/// Bytes of the digest that a file in the cache begins with.
const DIGEST_BYTES: usize = 32;
/// Most bytes of a file in the cache.
const CACHED_BYTES_MAX: u64 = 64 << 20;

/// The kernels, loaded on a device. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Kernels {
    module: Arc<Module>,
    cached: bool,
}

#[derive(Debug)]
struct Module {
    device: Device,
    raw: CUmodule,
    /// As [`NAMES`].
    functions: Vec<CUfunction>,
}

// SAFETY: handles that the driver lets every thread use.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

/// One launch of a kernel of a single argument.
pub(super) struct Launch {
    /// One of [`NAMES`].
    pub(super) name: &'static str,
    /// Blocks of threads.
    pub(super) grid: [u32; 3],
    /// Threads of a block.
    pub(super) threads: u32,
}

impl Kernels {
    /// Compiles the kernels for `device`, or takes them from the folder `cache`, where they are kept by source,
    /// architecture, compiler and options. A file there that is broken is written anew; a folder that cannot be
    /// written is logged and lived without.
    ///
    /// # Errors
    ///
    /// [`GpuError::Unavailable`] where no NVRTC for this device is installed, or the driver is too old for it.
    pub fn load(device: &Device, cache: Option<&Path>) -> Result<Self, GpuError> {
        let (nvrtc, target) = Nvrtc::open(device.driver_version(), device.compute_capability())?;
        let key = key(nvrtc.version(), target);
        let file = cache.map(|folder| folder.join(format!("kernels-{}-{}", target.name(), &key[..16])));
        if let Some(image) = file.as_deref().and_then(read) {
            match Module::load(device, &image) {
                Ok(module) => return Ok(Self { module: Arc::new(module), cached: true }),
                Err(error) => tracing::debug!("kernels from the cache do not load: {error}"),
            }
        }
        let source = CString::new(SOURCE).map_err(|error| {
            GpuError::Failed(format!("the kernels' source is not a C string ({error}): build anew"))
        })?;
        let image = nvrtc.compile(&source, target, OPTIONS)?;
        if !image.log.is_empty() {
            tracing::debug!("NVRTC says of the kernels: {}", image.log);
        }
        let module = Module::load(device, &image.bytes)?;
        if let Some(file) = file
            && let Err(error) = write(&file, &image.bytes)
        {
            tracing::warn!("{} cannot be written ({error}): kernels are compiled at each start", file.display());
        }
        Ok(Self { module: Arc::new(module), cached: false })
    }

    /// Whether they came from the cache.
    pub fn cached(&self) -> bool {
        self.cached
    }

    /// Puts a kernel on a stream. `args` is the kernel's one argument, laid out as in its `.cu` file.
    pub(super) fn launch<T>(&self, stream: &Stream, launch: &Launch, args: &T) -> Result<(), GpuError> {
        let module = &*self.module;
        if !stream.device().is(&module.device) {
            return Err(GpuError::Config("stream and kernels are on different GPUs: use one GPU an engine".into()));
        }
        let [x, y, z] = launch.grid;
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        let at = NAMES.iter().position(|name| name.to_bytes() == launch.name.as_bytes());
        let Some(function) = at.and_then(|at| module.functions.get(at)) else {
            return Err(GpuError::Failed(format!("there is no kernel `{}`: build anew", launch.name)));
        };
        let mut params = [std::ptr::from_ref(args).cast_mut().cast::<c_void>()];
        let raw = stream.bind()?;
        let none = std::ptr::null_mut();
        // SAFETY: the function takes one argument of `T`'s layout, read during the call; the stream is of its device.
        // Addresses within `args` were checked by the callers against the buffers they lie in.
        let code = unsafe {
            sys::cuLaunchKernel(*function, x, y, z, launch.threads, 1, 1, 0, raw, params.as_mut_ptr(), none)
        };
        check(code, &format!("starting `{}`", launch.name))
    }
}

impl Module {
    fn load(device: &Device, image: &[u8]) -> Result<Self, GpuError> {
        device.bind()?;
        // Portable code is text, which must end with a zero.
        let image: Vec<u8> = image.iter().copied().chain([0]).collect();
        let mut raw = std::ptr::null_mut();
        // SAFETY: the driver checks what it is given, and copies it; the context is current. Unloaded by `drop`.
        let code = unsafe { sys::cuModuleLoadData(&mut raw, image.as_ptr().cast()) };
        match code {
            CUresult::CUDA_ERROR_INVALID_IMAGE
            | CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUresult::CUDA_ERROR_INVALID_PTX
            | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
                let (major, minor) = device.driver_version();
                return Err(GpuError::Unavailable(format!(
                    "the driver, for CUDA {major}.{minor}, does not load the compiled kernels ({}): install the NVRTC of \
                     CUDA {major}, or a newer driver",
                    name(code)
                )));
            }
            code => check(code, "loading kernels")?,
        }
        let mut module = Self { device: device.clone(), raw, functions: Vec::with_capacity(NAMES.len()) };
        for name in NAMES {
            let mut function = std::ptr::null_mut();
            // SAFETY: the module is loaded, the name zero-terminated, and `function` lives over the call.
            let code = unsafe { sys::cuModuleGetFunction(&mut function, raw, name.as_ptr()) };
            check(code, &format!("looking for the kernel `{}`", name.to_string_lossy()))?;
            module.functions.push(function);
        }
        Ok(module)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: loaded by `load`, unloaded once; the driver waits for what runs of it.
            let _ = unsafe { sys::cuModuleUnload(self.raw) };
        }
    }
}

/// What a compiled program depends on, as hex digits.
fn key(nvrtc: (u32, u32), target: Target) -> String {
    let mut hash = Sha256::new();
    for part in [SOURCE, &target.name(), &format!("{}.{}", nvrtc.0, nvrtc.1), &OPTIONS.join(" ")] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The program in a file of the cache, if it is there and whole.
fn read(file: &Path) -> Option<Vec<u8>> {
    let small = fs::metadata(file).is_ok_and(|meta| meta.len() <= CACHED_BYTES_MAX);
    let bytes = small.then(|| fs::read(file).ok()).flatten()?;
    let (digest, image) = bytes.split_at_checked(DIGEST_BYTES)?;
    (Sha256::digest(image).as_slice() == digest).then(|| image.to_vec())
}

/// Writes beside the file, then renames: a reader sees all of it or the one before.
fn write(file: &Path, image: &[u8]) -> io::Result<()> {
    let folder = file.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    fs::create_dir_all(&folder)?;
    let beside = file.with_extension(format!("new-{}", std::process::id()));
    let written = fs::File::create(&beside).and_then(|mut out| {
        out.write_all(Sha256::digest(image).as_slice())?;
        out.write_all(image)?;
        out.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&beside, file));
    if renamed.is_err() {
        // What is left is a partial file that no reader opens.
        let _ = fs::remove_file(&beside);
    }
    renamed
}

#[cfg(test)]
mod tests;
