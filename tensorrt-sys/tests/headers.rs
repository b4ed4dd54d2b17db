//! The shim against header sets that no slice is built from: other versions of TensorRT-RTX 1 than the newest.

use std::path::Path;
use std::process::Command;

/// scripts/get-tensorrt-headers brings them; without them the test says so.
#[test]
fn the_shim_compiles_for_every_version_of_rtx_1() {
    let fetched = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tensorrt-headers");
    let mut compiled = 0;
    for entry in std::fs::read_dir(&fetched).into_iter().flatten() {
        let headers = entry.unwrap().path();
        if !headers.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rtx-")) {
            continue;
        }
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let output = Command::new(compiler)
            .args(["-std=c++17", "-fsyntax-only", "-Wno-deprecated-declarations", "-DSLICE=rtx1", "-Ishim"])
            .arg("-isystem")
            .arg(&headers)
            .args(["-isystem", "shim/cuda", "shim/slice.cpp"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", headers.display());
        compiled += 1;
    }
    if compiled == 0 {
        eprintln!("skipped: no headers in {}: run scripts/get-tensorrt-headers", fetched.display());
    }
}
