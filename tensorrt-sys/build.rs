//! Compiles shim/slice.cpp once for each TensorRT header set at hand.
//!
//! A slice's headers are, in this order: those of `TENSORRT_INCLUDE_DIR_8`, `_10`, `_11` or `_RTX`; those of
//! `TENSORRT_INCLUDE_DIR`, the compiler's own (`/usr/include`) and those that scripts/get-tensorrt-headers left in the
//! target folder, where their version is that slice's. Without any the crate has no slices, and watchpost no TensorRT.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the slice's symbol and `cfg`, ending of its variable, folder that the script makes.
const SLICES: [(&str, &str, &str); 4] =
    [("v8", "8", "8"), ("v10", "10", "10"), ("v11", "11", "11"), ("rtx1", "RTX", "rtx")];
const FILES: [&str; 3] = ["NvInfer.h", "NvInferVersion.h", "NvOnnxParser.h"];

fn main() {
    for file in ["shim.h", "slice.cpp", "mixed.h", "build.h", "cuda/cuda_runtime_api.h"] {
        println!("cargo::rerun-if-changed=shim/{file}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let fetched = fetched_headers();
    // Made here so that cargo has something to watch: a file that is not there counts as changed, each time.
    fs::create_dir_all(&fetched).unwrap_or_else(|error| panic!("{}: {error}", fetched.display()));
    println!("cargo::rerun-if-changed={}", fetched.display());

    let shared = shared_headers();
    for (slice, ending, folder) in SLICES {
        println!("cargo::rustc-check-cfg=cfg(tensorrt_{slice})");
        if let Some(headers) = named_headers(slice, ending)
            .or_else(|| shared.iter().find(|headers| slice_of(headers) == Some(slice)).cloned())
            .or_else(|| Some(fetched.join(folder)).filter(|headers| slice_of(headers) == Some(slice)))
        {
            println!("cargo::rerun-if-changed={}", headers.join("NvInferVersion.h").display());
            println!("cargo::rustc-cfg=tensorrt_{slice}");
            compile(slice, &headers);
        }
    }
}

fn compile(slice: &str, headers: &Path) {
    let mut compiler = cc::Build::new();
    compiler.cpp(true).std("c++17").opt_level(1).debug(false).pic(true);
    compiler.flag("-fvisibility=hidden").flag("-fvisibility-inlines-hidden").flag("-Wno-deprecated-declarations");
    // Not warned about: the headers are not ours.
    compiler.flag("-isystem").flag(headers).flag("-isystem").flag("shim/cuda");
    compiler.define("SLICE", slice).include("shim").file("shim/slice.cpp").compile(&format!("watchpost_{slice}"));
}

/// The folder that this slice's own variable names.
fn named_headers(slice: &str, ending: &str) -> Option<PathBuf> {
    let variable = format!("TENSORRT_INCLUDE_DIR_{ending}");
    let headers = folder_in(&variable)?;
    let found = slice_of(&headers);
    assert!(
        found == Some(slice),
        "{variable}={}: it needs {} of TensorRT {ending}, and has those of {}: give the folder of the right ones",
        headers.display(),
        FILES.join(", "),
        found.unwrap_or("none"),
    );
    Some(headers)
}

/// Folders whose headers say themselves which slice they are for.
fn shared_headers() -> Vec<PathBuf> {
    if let Some(headers) = folder_in("TENSORRT_INCLUDE_DIR") {
        assert!(
            slice_of(&headers).is_some(),
            "TENSORRT_INCLUDE_DIR={}: no {} of TensorRT 8.5 to 8.6, 10, 11 or RTX 1 there: give the folder that has them",
            headers.display(),
            FILES.join(", "),
        );
        return vec![headers];
    }
    let target = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let system = [format!("/usr/include/{target}-linux-gnu"), "/usr/include".to_owned()];
    system.iter().map(PathBuf::from).filter(|headers| slice_of(headers).is_some()).collect()
}

fn folder_in(variable: &str) -> Option<PathBuf> {
    println!("cargo::rerun-if-env-changed={variable}");
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Which slice a folder's headers are for; `None` where one is missing, or there is no slice for their version.
fn slice_of(headers: &Path) -> Option<&'static str> {
    if !FILES.iter().all(|file| headers.join(file).is_file()) {
        return None;
    }
    let text = fs::read_to_string(headers.join("NvInferVersion.h")).ok()?;
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("#define ")?.trim().strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u32>().ok()
    };
    if number("TRT_MAJOR_RTX ").is_some() {
        return (number("TRT_MAJOR_RTX ") == Some(1)).then_some("rtx1");
    }
    // From 10.12 on the number is behind a second name.
    let of =
        |part: &str| number(&format!("NV_TENSORRT_{part} ")).or_else(|| number(&format!("TRT_{part}_ENTERPRISE ")));
    match (of("MAJOR")?, of("MINOR")?) {
        // Tensors are found by name since 8.5.
        (8, 5..) => Some("v8"),
        (10, _) => Some("v10"),
        (11, _) => Some("v11"),
        _ => None,
    }
}

/// `tensorrt-headers` in the folder that cargo builds in.
fn fetched_headers() -> PathBuf {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    // TARGET[/TRIPLE]/PROFILE/build/PACKAGE/out; this file is in TARGET alone.
    let target = out.ancestors().find(|folder| folder.join(".rustc_info.json").is_file());
    target.or_else(|| out.ancestors().nth(4)).expect("OUT_DIR is deep").join("tensorrt-headers")
}
