//! Libraries in C that a test makes to be opened instead of real ones.

use std::fs;
use std::path::Path;
use std::process::Command;

/// A shared library of that name with that text; `arguments` of `cc` stand behind it.
pub fn library(folder: &Path, name: &str, text: &str, arguments: &[&str]) {
    let source = folder.join("source.c");
    fs::write(&source, text).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o", name]).arg(source).args(arguments).current_dir(folder);
    assert!(cc.status().expect("no cc: run scripts/setup").success());
}
