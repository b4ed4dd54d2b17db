//! What a user is told where NVIDIA's driver is not as it should be. A library that the test makes stands in for it; it is made
//! by `cc`.

extern crate watchpost;

mod support;

use std::fs;
use std::path::Path;

use support::library::library;
use support::program::{Site, Written, ended};
use tempfile::TempDir;
use watchpost::gpu::device::Device;

/// Exit code: something that is needed is not there, and may come.
const UNAVAILABLE: i32 = 69;

/// Answers of the driver.
const OUT_OF_MEMORY: u32 = 2;
const NO_DEVICE: u32 = 100;
const MISMATCH: u32 = 803;

/// What the library says where it is asked.
#[derive(Clone, Copy)]
struct Says {
    version: u32,
    init: u32,
    retain: u32,
    /// All that `watchpost` calls is there.
    whole: bool,
}

const SOUND: Says = Says { version: 12_040, init: 0, retain: 0, whole: true };

/// Makes a `libcuda.so.1` in `folder`.
fn driver(folder: &Path, says: Says) {
    let Says { version, init, retain, whole } = says;
    let mut source = format!(
        "#include <string.h>\nint cuDriverGetVersion(int *v) {{ *v = {version}; return 0; }}\n\
         int cuInit(unsigned f) {{ return {init}; }}\n\
         int cuDevicePrimaryCtxRetain(void **c, int d) {{ *c = (void *)1; return {retain}; }}\n\
         int cuGetErrorName(int e, const char **s) {{ *s = \"CUDA_ERROR_OF_A_TEST\"; return 0; }}\n\
         int cuDeviceGet(int *d, int n) {{ *d = n; return 0; }}\n\
         int cuDeviceGetCount(int *n) {{ *n = 1; return 0; }}\n\
         int cuDeviceGetName(char *s, int n, int d) {{ strncpy(s, \"A test's GPU\", n); return 0; }}\n\
         int cuDeviceGetAttribute(int *v, int a, int d) {{ *v = 9; return 0; }}\n"
    );
    let called = include_str!("../src/gpu/driver.rs").split('"').filter(|word| word.starts_with("cu"));
    for function in called.filter(|name| whole && !source.contains(&format!(" {name}("))).collect::<Vec<_>>() {
        source += &format!("int {function}(void) {{ return 0; }}\n");
    }
    library(folder, "libcuda.so.1", &source, &["-w"]);
    // The other name under which it is looked for.
    fs::copy(folder.join("libcuda.so.1"), folder.join("libcuda.so")).unwrap();
}

/// `run` and `check` with a driver in `libraries`: each says why not, once, with the exit code of what may come.
fn refuse(libraries: &Path, words: &[&str]) {
    let site = Site::new();
    let written = Written { engine: "manifest = \"tiny.toml\"\nbackend = \"tensorrt\"", ..Written::default() };
    let mut run = site.run(&written);
    let said = ended(run.args(["--log", "off"]).env("LD_LIBRARY_PATH", libraries));
    said.says(UNAVAILABLE, words);
    let mut check = support::program::program();
    let said = ended(check.arg("check").arg(site.config(&written)).env("LD_LIBRARY_PATH", libraries));
    said.says(UNAVAILABLE, words);
}

#[test]
fn what_is_wrong_with_the_driver_is_said_in_words() {
    let cases: [(Says, &[&str]); 6] = [
        (
            Says { whole: false, ..SOUND },
            &["the NVIDIA driver is too old, it has no cu", "install one for CUDA 11.4"],
        ),
        (Says { version: 11_000, ..SOUND }, &["the NVIDIA driver is too old, it is for CUDA 11.0", "or newer"]),
        (Says { init: NO_DEVICE, ..SOUND }, &["the NVIDIA driver finds no GPU", "check `nvidia-smi`"]),
        (Says { init: MISMATCH, ..SOUND }, &["the NVIDIA driver does not start", "restart the machine"]),
        (
            Says { retain: OUT_OF_MEMORY, ..SOUND },
            &["the GPU ran out of memory while opening GPU 0", "or stop what else"],
        ),
        // A sound driver, and no TensorRT.
        (SOUND, &["TensorRT", "libnvinfer.so"]),
    ];
    for (says, words) in cases {
        let libraries = TempDir::new().unwrap();
        driver(libraries.path(), says);
        refuse(libraries.path(), words);
    }
}

#[test]
fn a_machine_without_a_driver_says_so() {
    if Device::open(0).is_ok() {
        return eprintln!("skipped: there is a GPU here");
    }
    let nothing = TempDir::new().unwrap();
    refuse(nothing.path(), &["the NVIDIA driver cannot be opened", "or use another backend"]);
}
