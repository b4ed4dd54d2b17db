//! What INT8 by calibration may have of a net: shim/mixed.h, compiled without TensorRT.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

fn compiled_and_run() -> BTreeMap<String, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mixed.cpp");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mixed");
    let output = Command::new("c++")
        .args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&program, &source])
        .output()
        .expect("no c++: run scripts/setup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split_once(' ').unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

#[test]
fn int8_gets_convolutions_between_convolutions_and_nothing_that_it_ruins() {
    let layers = compiled_and_run();
    for (what, names) in [
        // Both what it computes and what it gives.
        (
            "half",
            "depthwise depthwise.sigmoid depthwise.mul left.sigmoid left.mul boxes scores scores.sigmoid head soft \
             distances output grouped.sigmoid grouped.mul middle attention second",
        ),
        // Computes in INT8, for layers that do not.
        ("half-out", "left grouped first"),
        (
            "free",
            "stem stem.sigmoid stem.mul right right.sigmoid right.mul point point.sigmoid point.mul join shape \
             shape.slice resize matrix",
        ),
    ] {
        for name in names.split_whitespace() {
            assert_eq!(layers[name], what, "{name}: {layers:?}");
        }
    }
    assert_eq!(layers.len(), 34, "{layers:?}");
}
