//! Finds TensorRT's library and the slice for its version.

use std::collections::BTreeSet;
use std::ffi::{CString, c_void};
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libloading::os::unix::{Library as Shared, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW, Symbol};
use tensorrt_sys::{Entry, Table};

use super::log::{self, Call};
use super::{TrtError, TrtVersion};
use crate::process::{EVERYONES, is_everyones};

/// Libraries of plugins that TensorRT knows. They stay for the life of the process.
static PLUGINS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Newest first; those without a number come with development packages.
const NAMES: [&str; 6] = [
    "libnvinfer.so.11",
    "libnvinfer.so.10",
    "libnvinfer.so.8",
    "libtensorrt_rtx.so.1",
    "libnvinfer.so",
    "libtensorrt_rtx.so",
];
/// From this TensorRT 8 on tensors are found by name.
const FIRST_OF_8: u32 = 5;
/// TensorRT-RTX took functions out of the middle of its classes here: slices of before and after do not mix.
const RTX_BREAK: u32 = 5;

/// TensorRT, opened; a clone is the same one. It stays open until the process ends.
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

struct Inner {
    /// Without a parser.
    entry: Entry,
    table: &'static Table,
    version: TrtVersion,
    rtx: bool,
    /// Where the library was found; `None`: by the loader.
    folder: Option<PathBuf>,
    /// `createNvOnnxParser_INTERNAL` as a number, and the parser's version.
    parser: OnceLock<Result<(usize, i32), String>>,
}

// SAFETY: the pointers are functions of libraries that are never closed; each can be called from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above; nothing is written but the `OnceLock`.
unsafe impl Sync for Inner {}

impl Library {
    /// Opens the newest TensorRT for which this program has a slice: in a folder, or where the loader looks.
    ///
    /// # Errors
    ///
    /// [`TrtError::Unavailable`]: none there, or none that fits; says which were found and which would fit.
    pub fn open(folder: Option<&Path>) -> Result<Self, TrtError> {
        let mut found = String::new();
        for name in NAMES {
            let path = folder.map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
            if folder.is_some() && !path.exists() {
                continue;
            }
            match Self::open_one(&path, folder) {
                Ok(library) => return Ok(library),
                // The loader's words for a library that is nowhere say nothing new.
                Err(reason) if folder.is_none() && reason.starts_with(name) && reason.contains("No such file") => {}
                Err(reason) => {
                    // Writing to a string does not fail.
                    let _ =
                        write!(found, "{}{}: {reason}", if found.is_empty() { "" } else { "; " }, path.display());
                }
            }
        }
        let place = folder.map_or_else(|| "where the loader looks".to_owned(), |f| format!("in {}", f.display()));
        let slices = Self::slices().join(", ");
        Err(TrtError::Unavailable(match (found.is_empty(), slices.is_empty()) {
            (_, true) => format!(
                "this watchpost was built without TensorRT's headers and cannot use TensorRT: run \
                 scripts/get-tensorrt-headers and build it again{}",
                if found.is_empty() { String::new() } else { format!(" ({found})") }
            ),
            (true, _) => format!(
                "there is no TensorRT {place} (libnvinfer.so.N, libtensorrt_rtx.so.1): install {}, or give its folder",
                packages(&tensorrt_sys::slices())
            ),
            (false, _) => {
                format!("no TensorRT {place} can be used: {found}; this watchpost has slices for TensorRT {slices}")
            }
        }))
    }

    fn open_one(path: &Path, folder: Option<&Path>) -> Result<Self, String> {
        let library = open_shared(path, RTLD_LOCAL)?;
        let number = call_version(&library, "getInferLibVersion")
            .ok_or("it is no TensorRT library: it has no getInferLibVersion")?;
        let (rtx, mut version) = decode(number);
        version.build =
            call_version(&library, "getInferLibBuildVersion").and_then(|n| n.try_into().ok()).unwrap_or(0);
        let table = pick(&tensorrt_sys::slices(), rtx, version)?;
        let create_runtime = function(&library, "createInferRuntime_INTERNAL")
            .ok_or("it has no createInferRuntime_INTERNAL: install TensorRT anew")?;
        let entry = Entry {
            create_runtime,
            create_builder: function(&library, "createInferBuilder_INTERNAL").unwrap_or(ptr::null_mut()),
            plugin_registry: function(&library, "getPluginRegistry").unwrap_or(ptr::null_mut()),
            create_parser: ptr::null_mut(),
            version: number,
            parser_version: 0,
        };
        // TensorRT has threads and a logger until the process ends.
        std::mem::forget(library);
        log::install(table);
        let folder = folder.map(Path::to_owned);
        let inner = Inner { entry, table, version, rtx, folder, parser: OnceLock::new() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The library's own, not the headers'.
    pub fn version(&self) -> TrtVersion {
        self.inner.version
    }

    /// TensorRT-RTX, whose versions count from 1.
    pub fn is_rtx(&self) -> bool {
        self.inner.rtx
    }

    /// "TensorRT 10.3.0", "TensorRT-RTX 1.7.1.116".
    pub fn name(&self) -> String {
        format!("{} {}", if self.inner.rtx { "TensorRT-RTX" } else { "TensorRT" }, self.inner.version)
    }

    /// Whether the precision comes from the model, and calibration with it: TensorRT 11 and RTX.
    pub fn is_strongly_typed(&self) -> bool {
        self.inner.table.strongly_typed != 0
    }

    /// It tells nobody how far a build has come: TensorRT 8.
    pub fn has_no_progress(&self) -> bool {
        !self.inner.rtx && self.inner.version.major < 10
    }

    /// What this program can use, with the headers' versions: "8 (8.5.3)", "RTX 1 (1.7.1)".
    pub fn slices() -> Vec<String> {
        let name = |table: &&Table| {
            let [major, minor, patch, _] = table.headers;
            format!("{}{major} ({major}.{minor}.{patch})", if table.rtx != 0 { "RTX " } else { "" })
        };
        tensorrt_sys::slices().iter().map(name).collect()
    }

    /// Opens a library of plugins, once a process: `libnvinfer_plugin`, or one of the model's own.
    ///
    /// # Errors
    ///
    /// [`TrtError::Unavailable`]: it cannot be opened, or has no plugins for this TensorRT.
    pub fn load_plugins(&self, path: &Path) -> Result<(), TrtError> {
        let refuse = |reason: String| {
            TrtError::Unavailable(format!(
                "{}: {} cannot use its plugins: {reason}: give a library built for this TensorRT",
                path.display(),
                self.name()
            ))
        };
        if fs::metadata(path).is_ok_and(|metadata| is_everyones(&metadata)) {
            return Err(TrtError::Unavailable(format!("{}: {EVERYONES}", path.display())));
        }
        // TensorRT refuses plugins that it knows already.
        let mut loaded = PLUGINS.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.contains(path) {
            return Ok(());
        }
        // GLOBAL: one library of plugins may want another's.
        let library = open_shared(path, RTLD_GLOBAL).map_err(refuse)?;
        let init = function(&library, "initLibNvInferPlugins");
        let asked = ["getCreators", "getPluginCreators"].iter().any(|name| function(&library, name).is_some());
        // Its plugins are known to TensorRT from now on.
        std::mem::forget(library);
        if init.is_none() && !asked {
            // They registered themselves while the library was opened.
            loaded.insert(path.to_owned());
            return Ok(());
        }
        let file =
            CString::new(path.as_os_str().as_bytes()).map_err(|_| refuse("the path has a zero byte".to_owned()))?;
        let call = Call::begin(None);
        // SAFETY: the entry's pointers are this library's, the path outlives the call, `init` is null or the function
        // that the shim says.
        let status = unsafe {
            (self.table().load_plugins)(&self.inner.entry, file.as_ptr(), init.unwrap_or(ptr::null_mut()))
        };
        if status != tensorrt_sys::OK {
            return Err(refuse(call.reason()));
        }
        loaded.insert(path.to_owned());
        Ok(())
    }

    pub(super) fn table(&self) -> &'static Table {
        self.inner.table
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.inner.entry
    }

    /// The entry with the ONNX parser in it, which is opened on first use.
    ///
    /// # Errors
    ///
    /// [`TrtError::Unavailable`]: no parser of this version.
    pub(super) fn entry_with_parser(&self) -> Result<Entry, TrtError> {
        let parser = self.inner.parser.get_or_init(|| self.open_parser());
        match parser {
            Ok((address, version)) => Ok(Entry {
                create_parser: ptr::with_exposed_provenance_mut(*address),
                parser_version: *version,
                ..self.inner.entry
            }),
            Err(reason) => Err(TrtError::Unavailable(format!(
                "{} has no ONNX parser here ({reason}): install NVIDIA's package {}, or build the engine elsewhere",
                self.name(),
                self.parser_package()
            ))),
        }
    }

    /// Its package, by NVIDIA's names: RTX brings the parser with it.
    fn parser_package(&self) -> String {
        if self.inner.rtx {
            "of TensorRT-RTX".to_owned()
        } else {
            format!("libnvonnxparsers{}", self.inner.version.major)
        }
    }

    /// Whether engines can be built: the ONNX parser is there.
    ///
    /// # Errors
    ///
    /// [`TrtError::Unavailable`]: no parser of this version; names its package.
    pub fn find_parser(&self) -> Result<(), TrtError> {
        self.entry_with_parser().map(drop)
    }

    fn open_parser(&self) -> Result<(usize, i32), String> {
        let major = self.inner.version.major;
        let plain = if self.inner.rtx { "libtensorrt_onnxparser_rtx.so" } else { "libnvonnxparser.so" };
        let place = |name: &str| match &self.inner.folder {
            Some(folder) => folder.join(name),
            None => PathBuf::from(name),
        };
        if let Some(folder) = &self.inner.folder {
            // The parser names the first, the builder opens the second by name alone: in a folder that the loader does
            // not search they are found because they are open already.
            let version = self.inner.version;
            for name in [
                format!("libnvinfer_plugin.so.{major}"),
                format!("libnvinfer_builder_resource.so.{major}.{}.{}", version.minor, version.patch),
            ] {
                let path = folder.join(name);
                if path.exists() {
                    match open_shared(&path, RTLD_LOCAL) {
                        Ok(library) => std::mem::forget(library),
                        Err(reason) => tracing::debug!("{}: {reason}", path.display()),
                    }
                }
            }
        }
        let library = open_shared(&place(&format!("{plain}.{major}")), RTLD_LOCAL)
            .or_else(|first| open_shared(&place(plain), RTLD_LOCAL).map_err(|_| first))?;
        let create =
            function(&library, "createNvOnnxParser_INTERNAL").ok_or("it has no createNvOnnxParser_INTERNAL")?;
        let version = call_version(&library, "getNvOnnxParserVersion").ok_or("it has no getNvOnnxParserVersion")?;
        std::mem::forget(library);
        Ok((create.expose_provenance(), version))
    }
}

/// NVIDIA's packages of the TensorRT that these slices are for, newest first.
fn packages(slices: &[&'static Table]) -> String {
    let mut majors: Vec<i32> = slices.iter().filter(|table| table.rtx == 0).map(|table| table.headers[0]).collect();
    majors.sort_unstable_by(|a, b| b.cmp(a));
    let names: Vec<String> = majors.iter().map(|major| format!("libnvinfer{major}")).collect();
    match names.is_empty() {
        true => "TensorRT-RTX".to_owned(),
        false => format!("NVIDIA's package {} (nvidia-jetpack on a Jetson)", names.join(" or ")),
    }
}

/// The slice for a library.
fn pick(slices: &[&'static Table], rtx: bool, version: TrtVersion) -> Result<&'static Table, String> {
    let TrtVersion { major, minor, .. } = version;
    let what = format!("{} {version}", if rtx { "TensorRT-RTX" } else { "TensorRT" });
    if !rtx && (major < 8 || (major == 8 && minor < FIRST_OF_8)) {
        return Err(format!("it is {what}, and 8.5 is the oldest that can be used"));
    }
    let fits = |headers: &[i32; 4]| u32::try_from(headers[0]).is_ok_and(|of| of == major);
    let slice = slices.iter().find(|table| (table.rtx != 0) == rtx && fits(&table.headers));
    let table = slice.ok_or_else(|| format!("it is {what}, for which this watchpost has no slice"))?;
    let after = |minor: u32| minor >= RTX_BREAK;
    let headers_minor = u32::try_from(table.headers[1]).unwrap_or(0);
    if rtx && after(minor) != after(headers_minor) {
        return Err(format!(
            "it is {what}, and the slice is for RTX 1.{headers_minor}: RTX changed in between, at 1.{RTX_BREAK}"
        ));
    }
    Ok(table)
}

/// 8503 is 8.5.3, 100300 is 10.3.0, 10701 is RTX 1.7.1: TensorRT's own numbers have four digits before 10, and six from
/// there on. Without the build.
fn decode(number: i32) -> (bool, TrtVersion) {
    let number = u32::try_from(number).unwrap_or(0);
    let (major, rest) =
        if number < 10_000 { (number / 1000, number % 1000) } else { (number / 10_000, number % 10_000) };
    let rtx = (10_000..100_000).contains(&number);
    (rtx, TrtVersion { major, minor: rest / 100, patch: rest % 100, build: 0 })
}

fn open_shared(path: &Path, scope: i32) -> Result<Shared, String> {
    // SAFETY: opening runs the library's initializers; that is what whoever installed or named it asks for.
    unsafe { Shared::open(Some(path), RTLD_NOW | scope) }.map_err(|error| {
        // "dlopen failed" is in the way of the reason.
        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
    })
}

/// A function's address; `None` where the library has none of this name.
fn function(library: &Shared, name: &str) -> Option<*mut c_void> {
    // SAFETY: only the address is taken; nothing is called here.
    let symbol: Symbol<*mut c_void> = unsafe { library.get(name.as_bytes()) }.ok()?;
    Some(symbol.into_raw()).filter(|address| !address.is_null())
}

fn call_version(library: &Shared, name: &str) -> Option<i32> {
    // SAFETY: NVIDIA's functions of these names take nothing and return an int.
    let symbol: Symbol<unsafe extern "C" fn() -> i32> = unsafe { library.get(name.as_bytes()) }.ok()?;
    // SAFETY: as above.
    Some(unsafe { symbol() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u32, minor: u32, patch: u32) -> TrtVersion {
        TrtVersion { major, minor, patch, build: 0 }
    }

    #[test]
    fn numbers_are_read_as_each_generation_writes_them() {
        assert_eq!(decode(8503), (false, version(8, 5, 3)));
        assert_eq!(decode(8602), (false, version(8, 6, 2)));
        assert_eq!(decode(100_006), (false, version(10, 0, 6)));
        assert_eq!(decode(101_600), (false, version(10, 16, 0)));
        assert_eq!(decode(110_400), (false, version(11, 4, 0)));
        assert_eq!(decode(10_701), (true, version(1, 7, 1)));
        assert_eq!(decode(20_000), (true, version(2, 0, 0)));
        assert_eq!(decode(-1), (false, version(0, 0, 0)));
        assert_eq!(version(8, 5, 3).to_string(), "8.5.3");
        assert_eq!(TrtVersion { build: 116, ..version(1, 7, 1) }.to_string(), "1.7.1.116");
    }

    #[test]
    fn what_is_missing_is_named_by_its_package() {
        let all = tensorrt_sys::slices();
        let named = packages(&all);
        for table in all.iter().filter(|table| table.rtx == 0) {
            assert!(named.contains(&format!("libnvinfer{}", table.headers[0])), "{named}");
        }
        assert_eq!(packages(&[]), "TensorRT-RTX");
        let nowhere = Library::open(Some(Path::new("/nowhere"))).err().unwrap().to_string();
        assert!(all.is_empty() || nowhere.contains(&format!("install {named}, or give its folder")), "{nowhere}");
    }

    #[test]
    fn a_version_without_a_slice_is_refused_in_words() {
        let all = tensorrt_sys::slices();
        for (rtx, version, words) in [
            (false, version(7, 2, 3), "8.5 is the oldest"),
            (false, version(8, 4, 1), "8.5 is the oldest"),
            (false, version(9, 2, 0), "TensorRT 9.2.0, for which this watchpost has no slice"),
            (false, version(12, 0, 0), "no slice"),
        ] {
            let refused = pick(&all, rtx, version).err().unwrap();
            assert!(refused.contains(words), "{refused}");
        }
        for table in &all {
            let [major, minor, patch, _] = table.headers.map(|part| u32::try_from(part).unwrap());
            let found = pick(&all, table.rtx != 0, version(major, minor, patch)).unwrap();
            assert!(ptr::eq(found, *table));
            if table.rtx != 0 {
                let other = if minor >= RTX_BREAK { RTX_BREAK - 1 } else { RTX_BREAK };
                let refused = pick(&all, true, version(1, other, 0)).err().unwrap();
                assert!(refused.contains("RTX changed in between"), "{refused}");
            }
        }
    }
}
