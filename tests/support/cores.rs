//! Who may have the processor: tests that load it, or measure time, run alone. A file's lock, because test runners
//! differ in whether tests are threads or processes.

use std::fs::{self, File};
use std::path::Path;

/// A test's share of the processor, until dropped.
pub struct Cores(#[expect(dead_code, reason = "held, not read")] File);

fn file() -> File {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(folder).unwrap();
    File::create(folder.join("cores.lock")).unwrap()
}

/// For tests that load every core, or measure time: no other runs.
pub fn all_cores() -> Cores {
    let file = file();
    file.lock().unwrap();
    Cores(file)
}

/// For tests that mostly wait: others of the kind may run.
pub fn some_cores() -> Cores {
    let file = file();
    file.lock_shared().unwrap();
    Cores(file)
}
