//! NVRTC, NVIDIA's run-time compiler, opened at run time: whichever of CUDA 11, 12 and 13 is installed.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use libloading::Library;

use super::error::GpuError;
use super::toolkit::{self, Versioned};

/// Names a library, or a folder with one, to be used and no other.
const VARIABLE: &str = "WATCHPOST_NVRTC";
/// Major versions that are looked for, and their libraries' names.
const LIBRARIES: &[Versioned] = &[(13, "libnvrtc.so.13"), (12, "libnvrtc.so.12"), (11, "libnvrtc.so.11.2")];
/// Most characters of a compiler's messages that go into an error.
const LOG_CHARS_MAX: usize = 2000;

const SUCCESS: c_int = 0;

type Program = *mut c_void;
type Query<T> = unsafe extern "C" fn(Program, *mut T) -> c_int;

/// An opened NVRTC.
pub(super) struct Nvrtc {
    version: (u32, u32),
    /// Architectures it compiles for, as 90 for sm_90, ascending.
    architectures: Vec<u32>,
    path: PathBuf,
    functions: Functions,
    /// Keeps the functions where they are, and for good: what the library leaves for the process's end stays in place, too.
    _libraries: ManuallyDrop<Vec<Library>>,
}

struct Functions {
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_size: Query<usize>,
    log: Query<c_char>,
    cubin_size: Query<usize>,
    cubin: Query<c_char>,
    ptx_size: Query<usize>,
    ptx: Query<c_char>,
}

/// What a program is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Machine code of exactly this architecture.
    Machine(u32),
    /// Portable code, which the driver translates: the device is newer than the compiler.
    Portable(u32),
}

impl Target {
    /// The compiler's name of it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Machine(number) => format!("sm_{number}"),
            Self::Portable(number) => format!("compute_{number}"),
        }
    }
}

/// A compiled program.
pub(super) struct Image {
    /// What the driver loads.
    pub(super) bytes: Vec<u8>,
    /// The compiler's warnings; empty where there are none.
    pub(super) log: String,
}

impl Nvrtc {
    /// The first installed NVRTC that compiles for a device of `compute_capability`, the driver's own major version
    /// (`driver`) before others: a driver does not load what a newer compiler has made.
    ///
    /// # Errors
    ///
    /// [`GpuError::Unavailable`] where there is none.
    pub(super) fn open(driver: (u32, u32), compute_capability: (u32, u32)) -> Result<(Self, Target), GpuError> {
        Self::first(candidates(driver.0), driver, compute_capability)
    }

    fn first(
        candidates: Vec<PathBuf>,
        driver: (u32, u32),
        compute_capability: (u32, u32),
    ) -> Result<(Self, Target), GpuError> {
        let mut tried = Vec::new();
        for path in candidates {
            let opened = Self::open_path(&path).and_then(|nvrtc| {
                let target = target(&nvrtc.architectures, compute_capability);
                let fits = format!("NVRTC {}.{} does not know this GPU", nvrtc.version.0, nvrtc.version.1);
                target.map(|target| (nvrtc, target)).ok_or(fits)
            });
            match opened {
                Ok(found) => return Ok(found),
                Err(why) => tried.push(format!("{}: {why}", path.display())),
            }
        }
        // The loader's own words are the same for each name: the first and what lies in a toolkit's folder say enough.
        tried.dedup();
        tried.truncate(3);
        Err(GpuError::Unavailable(format!(
            "no NVRTC for this GPU is installed ({}): install NVIDIA's package cuda-nvrtc-{}-N \
             (nvidia-jetpack on a Jetson), or name the library in {VARIABLE}",
            tried.join("; "),
            driver.0
        )))
    }

    /// Opens the library at `path`.
    pub(super) fn open_path(path: &Path) -> Result<Self, String> {
        let mut libraries = builtins(path);
        // SAFETY: NVRTC has no initialisers that depend on us.
        let library = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
        let functions = Functions::find(&library).map_err(|error| error.to_string())?;
        let version = version(&library)?;
        let architectures = architectures(&library)?;
        libraries.push(library);
        Ok(Self {
            version,
            architectures,
            path: path.to_owned(),
            functions,
            _libraries: ManuallyDrop::new(libraries),
        })
    }

    /// Major and minor number.
    pub(super) fn version(&self) -> (u32, u32) {
        self.version
    }

    /// Architectures it compiles for, as 90 for sm_90, ascending.
    #[cfg(test)]
    pub(super) fn architectures(&self) -> &[u32] {
        &self.architectures
    }

    /// Compiles `source`, which includes no headers.
    ///
    /// # Errors
    ///
    /// [`GpuError::Unavailable`] with the compiler's messages.
    pub(super) fn compile(&self, source: &CStr, target: Target, options: &[&str]) -> Result<Image, GpuError> {
        let program = Building::new(&self.functions, source).map_err(|code| self.failed(code, ""))?;
        let architecture = format!("--gpu-architecture={}", target.name());
        let options: Vec<CString> = std::iter::once(architecture.as_str())
            .chain(options.iter().copied())
            .map(|option| CString::new(option).unwrap_or_default())
            .collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the program is alive, and the options are as many zero-terminated strings as said.
        let code = unsafe { (self.functions.compile)(program.raw, pointers.len() as c_int, pointers.as_ptr()) };
        let log = program.read(self.functions.log_size, self.functions.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).trim_matches(['\0', '\n', ' ']).to_owned();
        if code != SUCCESS {
            return Err(self.failed(code, &log));
        }
        let (size, data) = match target {
            Target::Machine(_) => (self.functions.cubin_size, self.functions.cubin),
            Target::Portable(_) => (self.functions.ptx_size, self.functions.ptx),
        };
        let bytes = program.read(size, data).map_err(|code| self.failed(code, ""))?;
        Ok(Image { bytes, log })
    }

    fn failed(&self, code: c_int, log: &str) -> GpuError {
        // SAFETY: takes any number; returns a zero-terminated string of static life.
        let why = unsafe { CStr::from_ptr((self.functions.error_string)(code)) }.to_string_lossy().into_owned();
        let log: String = log.chars().take(LOG_CHARS_MAX).collect();
        GpuError::Unavailable(format!(
            "NVRTC {}.{} ({}) does not compile the kernels ({why}): install another version, or name it in {VARIABLE} {log}",
            self.version.0,
            self.version.1,
            self.path.display()
        ))
    }
}

impl Functions {
    fn find(library: &Library) -> Result<Self, libloading::Error> {
        // SAFETY: the types are those of `nvrtc.h`, unchanged from CUDA 11.1 to 13.
        unsafe {
            Ok(Self {
                error_string: *library.get(b"nvrtcGetErrorString")?,
                create: *library.get(b"nvrtcCreateProgram")?,
                destroy: *library.get(b"nvrtcDestroyProgram")?,
                compile: *library.get(b"nvrtcCompileProgram")?,
                log_size: *library.get(b"nvrtcGetProgramLogSize")?,
                log: *library.get(b"nvrtcGetProgramLog")?,
                cubin_size: *library.get(b"nvrtcGetCUBINSize")?,
                cubin: *library.get(b"nvrtcGetCUBIN")?,
                ptx_size: *library.get(b"nvrtcGetPTXSize")?,
                ptx: *library.get(b"nvrtcGetPTX")?,
            })
        }
    }
}

/// A program on its way through the compiler.
struct Building<'a> {
    functions: &'a Functions,
    raw: Program,
}

impl<'a> Building<'a> {
    fn new(functions: &'a Functions, source: &CStr) -> Result<Self, c_int> {
        let mut raw = std::ptr::null_mut();
        let (name, none) = (c"watchpost.cu", std::ptr::null());
        // SAFETY: both strings are zero-terminated and copied; no headers are given. Destroyed by `drop`.
        let code = unsafe { (functions.create)(&mut raw, source.as_ptr(), name.as_ptr(), 0, none, none) };
        if code == SUCCESS { Ok(Self { functions, raw }) } else { Err(code) }
    }

    /// What `data` writes, of the length that `size` says.
    fn read(&self, size: Query<usize>, data: Query<c_char>) -> Result<Vec<u8>, c_int> {
        let mut length = 0;
        // SAFETY: the program is alive, `length` lives over the call.
        match unsafe { size(self.raw, &mut length) } {
            SUCCESS => {}
            code => return Err(code),
        }
        let mut bytes = vec![0; length];
        // SAFETY: the compiler writes exactly the length it has said.
        match unsafe { data(self.raw, bytes.as_mut_ptr().cast()) } {
            SUCCESS => Ok(bytes),
            code => Err(code),
        }
    }
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        unsafe { (self.functions.destroy)(&mut self.raw) };
    }
}

fn version(library: &Library) -> Result<(u32, u32), String> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the type is that of `nvrtc.h`; both numbers live over the call.
    let code = unsafe {
        let version = library.get::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int>(b"nvrtcVersion");
        version.map_err(|error| error.to_string())?(&mut major, &mut minor)
    };
    match (code, u32::try_from(major), u32::try_from(minor)) {
        (SUCCESS, Ok(major), Ok(minor)) => Ok((major, minor)),
        _ => Err(format!("it does not say its version ({code})")),
    }
}

fn architectures(library: &Library) -> Result<Vec<u32>, String> {
    type Get = unsafe extern "C" fn(*mut c_int) -> c_int;
    let mut count = 0;
    // SAFETY: the type is that of `nvrtc.h`; `count` lives over the call.
    let code = unsafe {
        let number = library.get::<Get>(b"nvrtcGetNumSupportedArchs").map_err(|error| error.to_string())?;
        number(&mut count)
    };
    let mut numbers = vec![0; usize::try_from(count).unwrap_or(0)];
    if code != SUCCESS || numbers.is_empty() {
        return Err(format!("it does not say what it compiles for ({code})"));
    }
    // SAFETY: the library writes as many numbers as it has said.
    let code = unsafe {
        let get = library.get::<Get>(b"nvrtcGetSupportedArchs").map_err(|error| error.to_string())?;
        get(numbers.as_mut_ptr())
    };
    if code != SUCCESS {
        return Err(format!("it does not say what it compiles for ({code})"));
    }
    let mut architectures: Vec<u32> = numbers.into_iter().filter_map(|n| u32::try_from(n).ok()).collect();
    architectures.sort_unstable();
    Ok(architectures)
}

/// Machine code where the compiler knows the device, else portable code of the newest that it knows below it.
fn target(architectures: &[u32], (major, minor): (u32, u32)) -> Option<Target> {
    let device = major * 10 + minor;
    if architectures.contains(&device) {
        return Some(Target::Machine(device));
    }
    architectures.iter().copied().filter(|known| *known < device).max().map(Target::Portable)
}

/// Libraries to try, the best first. Names without a folder are looked up by the loader.
fn candidates(driver: u32) -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        let named = PathBuf::from(named);
        return if named.is_dir() { within(&named, driver) } else { vec![named] };
    }
    let mut found = toolkit::candidates(LIBRARIES, driver);
    found.push("libnvrtc.so".into());
    found
}

fn within(folder: &Path, driver: u32) -> Vec<PathBuf> {
    let known = toolkit::by_preference(LIBRARIES, driver).into_iter().map(|(_, name)| folder.join(name));
    known.chain([folder.join("libnvrtc.so")]).filter(|path| path.exists()).collect()
}

/// NVRTC opens a second library by its bare name, which the loader does not find beside it in a folder it does not
/// know: opened before, it is found by that name.
fn builtins(path: &Path) -> Vec<Library> {
    let Some(folder) = path.parent().filter(|folder| folder.is_absolute()) else { return Vec::new() };
    toolkit::beginning(folder, "libnvrtc-builtins.so.")
        .into_iter()
        // SAFETY: a library of data and code without initialisers that depend on us.
        .filter_map(|file| unsafe { Library::new(file) }.ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_nvrtc_is_told_of_its_package() {
        let none = std::env::current_exe().unwrap();
        for (candidates, words) in [(Vec::new(), ""), (vec![none.clone(), none.clone()], none.to_str().unwrap())] {
            let error = Nvrtc::first(candidates, (12, 4), (9, 0)).map(drop).unwrap_err().to_string();
            assert!(error.contains("no NVRTC for this GPU") && error.contains("cuda-nvrtc-12-N"), "{error}");
            assert!(error.contains(words) && error.matches(" cannot ").count() <= 1, "{error}");
        }
    }

    #[test]
    fn the_drivers_own_version_comes_first_and_newer_ones_last() {
        let majors = |driver| {
            toolkit::by_preference(LIBRARIES, driver).into_iter().map(|(major, _)| major).collect::<Vec<u32>>()
        };
        assert_eq!(majors(13), [13, 12, 11]);
        assert_eq!(majors(12), [12, 11, 13]);
        assert_eq!(majors(11), [11, 12, 13]);
        assert_eq!(majors(14), [13, 12, 11]);
    }

    #[test]
    fn machine_code_where_the_device_is_known_else_portable_code_of_an_older_one() {
        let known = [75, 80, 86, 90, 100];
        assert_eq!(target(&known, (9, 0)), Some(Target::Machine(90)));
        assert_eq!(target(&known, (10, 3)), Some(Target::Portable(100)));
        assert_eq!(target(&known, (8, 7)), Some(Target::Portable(86)));
        assert_eq!(target(&known, (7, 2)), None);
    }

    #[test]
    fn a_file_that_is_no_nvrtc_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libnvrtc.so.13");
        std::fs::write(&path, b"not a library").unwrap();
        assert!(Nvrtc::open_path(&path).is_err_and(|error| !error.is_empty()));
    }
}
