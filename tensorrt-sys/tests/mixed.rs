//! What INT8 by calibration gets of a net: shim/mixed.h, compiled without TensorRT.

use std::path::Path;
use std::process::Command;

#[test]
fn int8_gets_convolutions_that_lead_to_convolutions_and_nothing_that_it_ruins() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mixed.cpp");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mixed");
    let output = Command::new("c++")
        .args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&program, &source])
        .output()
        .expect("no c++: run scripts/setup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run =
        |table: &[&str]| String::from_utf8(Command::new(&program).args(table).output().unwrap().stdout).unwrap();

    // Neither the depthwise convolution nor the last ones, nor one that computes its filters.
    let quantized = run(&[]);
    let readers: Vec<&str> = quantized.lines().filter(|line| line.contains(" reads ")).collect();
    let wanted =
        [("stem", "image", 1), ("left", "stem.mul", 1), ("right", "stem.mul", 1), ("point", "depthwise.mul", 1)];
    let wanted: Vec<String> = wanted
        .iter()
        .chain(&[("grouped", "resize", 4)])
        .map(|(name, from, groups)| {
            let readers = format!("{name}.sigmoid {name}.mul");
            format!("{name} reads {from}.q.dq and constant.q.dq, {groups} groups, read by {readers}")
        })
        .collect();
    assert_eq!(readers, wanted, "{quantized}");
    // One scale for a tensor, however many read it; of the table, and of the largest value of each filter.
    let count = |line: &str| quantized.lines().filter(|each| *each == line).count();
    assert_eq!(count("scale of 1: 2.0079") + count("scale of 1: 1.0000"), 4, "{quantized}");
    assert_eq!(count("scale of 2: 0.1000 1.0000"), 5, "{quantized}");
    assert_eq!(count("filters of 2 x 4 x 1 x 3"), 5, "{quantized}");
    assert_eq!(count("axis") + count("an old one is read"), 0, "{quantized}");

    assert!(quantized.starts_with("1\n"), "{quantized}");
    // Of filters in float16 nothing is quantized, and that is said.
    assert_eq!(run(&["half"]), "0\n");
    let other = run(&["TRT-8503-MinMaxCalibration\nsomething: 3f800000\nimage: zero\n"]);
    assert_eq!(other, "the calibration table knows none of the model's tensors: calibrate again\n");
}
