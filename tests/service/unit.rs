//! The unit as `systemd-analyze` sees it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Exposure allowed, in tenths of systemd's points.
const EXPOSURE_MAX: &str = "20";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The unit as it is, but with the program that was built.
pub fn unit() -> String {
    let text = fs::read_to_string(root().join("systemd/watchpost.service")).unwrap();
    assert!(text.contains("/usr/bin/watchpost"), "{text}");
    text.replace("/usr/bin/watchpost", env!("CARGO_BIN_EXE_watchpost"))
}

fn analyze(arguments: &[&str], path: &Path) -> Option<Output> {
    let done = Command::new("systemd-analyze").arg("--no-pager").args(arguments).arg(path).output();
    if done.is_err() {
        eprintln!("skipped: no systemd-analyze: run scripts/setup");
    }
    done.ok()
}

fn written(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("watchpost.service");
    fs::write(&path, unit()).unwrap();
    path
}

#[test]
fn the_unit_is_one_that_systemd_knows_with_and_without_a_gpu() {
    let folder = TempDir::new().unwrap();
    let path = written(&folder);
    for with_gpu in [false, true] {
        if with_gpu {
            let drop_ins = folder.path().join("watchpost.service.d");
            fs::create_dir(&drop_ins).unwrap();
            fs::copy(root().join("systemd/gpu.conf"), drop_ins.join("gpu.conf")).unwrap();
        }
        let Some(said) = analyze(&["verify"], &path) else { return };
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success() && words.is_empty(), "with a GPU: {with_gpu}: {words}");
    }
}

#[test]
fn the_unit_exposes_little() {
    let folder = TempDir::new().unwrap();
    let options = ["security", "--offline=true", "--threshold", EXPOSURE_MAX];
    let Some(said) = analyze(&options, &written(&folder)) else { return };
    let words = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{words}");
    assert!(words.contains("Overall exposure level for watchpost.service: "), "{words}");
}
