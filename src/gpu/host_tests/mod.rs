//! The kernels' arithmetic without a GPU: their sources, compiled as C++ and run on the CPU, against the host's own
//! letterbox and head decoding. What a GPU adds (warps, caches, launches) is for `tests/gpu.rs`.

mod head;
mod letterbox;
#[path = "../../../tests/support/gpu.rs"]
mod support;
mod thumbnail;

// The name by which `support` knows this crate.
extern crate self as watchpost;

use std::ffi::{CString, c_char};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::Library;

use super::head::HeadArgs;
use super::letterbox::LetterboxArgs;
use super::motion::MotionArgs;
use super::thumbnail::ThumbnailArgs;

/// The kernels as functions. One at a time: what they may read is one list.
struct Host {
    forget: unsafe extern "C" fn(),
    allow: unsafe extern "C" fn(usize, usize),
    bad_reads: unsafe extern "C" fn() -> u64,
    from_half: unsafe extern "C" fn(u16) -> f32,
    to_half: unsafe extern "C" fn(f32) -> u16,
    letterbox: unsafe extern "C" fn(*const LetterboxArgs, *const [u32; 3]),
    head: unsafe extern "C" fn(*const c_char, *const HeadArgs, *const [u32; 3]) -> bool,
    luma_cells: unsafe extern "C" fn(*const MotionArgs, u32),
    shrink: unsafe extern "C" fn(*const ThumbnailArgs, *const [u32; 3]),
    _library: Library,
}

impl Host {
    fn get() -> MutexGuard<'static, Self> {
        static HOST: OnceLock<Mutex<Host>> = OnceLock::new();
        let host = HOST.get_or_init(|| Mutex::new(Self::build())).lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: takes nothing.
        unsafe { (host.forget)() };
        host
    }

    fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libharness.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gpu/host_tests/harness.cpp");
        // By the name that Debian gives the compiler for this program's processor, which qemu may be.
        let output = Command::new(format!("{}-linux-gnu-g++", std::env::consts::ARCH))
            .args(["-x", "c++", "-std=c++14", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"])
            // As Rust has it: no products folded into sums, and undefined behaviour ends the test.
            .args(["-ffp-contract=off", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-shared", "-fPIC"])
            .arg(source)
            .arg("-o")
            .arg(&library)
            .output()
            .expect("g++ is missing: run scripts/setup");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // SAFETY: the library is the one just built; the types are those of harness.cpp.
        unsafe {
            let library = Library::new(library).unwrap();
            Self {
                forget: *library.get(b"host_forget").unwrap(),
                allow: *library.get(b"host_allow").unwrap(),
                bad_reads: *library.get(b"host_bad_reads").unwrap(),
                from_half: *library.get(b"host_from_half").unwrap(),
                to_half: *library.get(b"host_to_half").unwrap(),
                letterbox: *library.get(b"host_letterbox").unwrap(),
                head: *library.get(b"host_head").unwrap(),
                luma_cells: *library.get(b"host_luma_cells").unwrap(),
                shrink: *library.get(b"host_shrink").unwrap(),
                _library: library,
            }
        }
    }

    /// Lets the kernels read `data`; its address.
    fn allow<T>(&self, data: &[T]) -> u64 {
        self.allow_bytes(data.as_ptr() as usize, size_of_val(data))
    }

    fn allow_bytes(&self, address: usize, bytes: usize) -> u64 {
        // SAFETY: takes any numbers.
        unsafe { (self.allow)(address, bytes) };
        address as u64
    }

    fn assert_only_allowed_reads(&self) {
        // SAFETY: takes nothing.
        assert_eq!(unsafe { (self.bad_reads)() }, 0, "reads beyond what was given, or not aligned");
    }

    fn to_half(&self, value: f32) -> u16 {
        // SAFETY: takes any number.
        unsafe { (self.to_half)(value) }
    }

    fn widen(&self, bits: u16) -> f32 {
        // SAFETY: takes any number.
        unsafe { (self.from_half)(bits) }
    }

    /// `args` must hold addresses of memory that is large enough.
    fn letterbox(&self, args: &LetterboxArgs, lanes: u32) {
        // SAFETY: both arguments live over the call; the caller answers for the addresses within.
        unsafe { (self.letterbox)(args, &args.grid(lanes)) };
        self.assert_only_allowed_reads();
    }

    /// `args` must hold addresses of memory that is large enough.
    fn head(&self, name: &str, args: &HeadArgs, grid: [u32; 3]) {
        let name = CString::new(name).unwrap();
        // SAFETY: all arguments live over the call; the caller answers for the addresses within.
        assert!(unsafe { (self.head)(name.as_ptr(), args, &grid) }, "{name:?}");
        self.assert_only_allowed_reads();
    }

    /// `args` must hold addresses of memory that is large enough.
    fn luma_cells(&self, args: &MotionArgs, lanes: u32) {
        // SAFETY: the argument lives over the call; the caller answers for the addresses within.
        unsafe { (self.luma_cells)(args, lanes) };
        self.assert_only_allowed_reads();
    }

    /// `args` must hold addresses of memory that is large enough.
    fn shrink(&self, args: &ThumbnailArgs) {
        // SAFETY: both arguments live over the call; the caller answers for the addresses within.
        unsafe { (self.shrink)(args, &args.grid()) };
        self.assert_only_allowed_reads();
    }
}

#[test]
fn float16_comes_back_as_it_was() {
    let host = Host::get();
    for bits in 0..=u16::MAX {
        let value = host.widen(bits);
        assert!(value.is_nan() || host.to_half(value) == bits, "{bits:#x} {value}");
    }
    for _ in 0..10_000 {
        let value =
            f32::from_bits(fastrand::u32(0x3000_0000..0x4800_0000)) * if fastrand::bool() { 1.0 } else { -1.0 };
        let bits = host.to_half(value);
        assert_eq!(host.widen(bits), support::widen(bits), "{value}");
        let error = |bits| (f64::from(support::widen(bits)) - f64::from(value)).abs();
        assert!(value.abs() > 65_504.0 || error(bits) <= error(support::narrow(value)), "{value}");
    }
    for (value, bits) in [(1.0, 0x3c00), (65_519.0, 0x7bff), (65_520.0, 0x7c00), (2049.0, 0x6800), (2051.0, 0x6802)]
    {
        assert_eq!(host.to_half(value), bits, "{value}");
    }
    assert_eq!(host.to_half(f32::from_bits(0x3300_0001)), 1, "more than half of the least is the least");
    assert_eq!(host.to_half(f32::from_bits(0x3300_0000)), 0, "half of the least is 0");
}
