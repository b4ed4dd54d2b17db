//! Where CUDA's toolkits, or JetPack, keep their libraries.

use std::fs;
use std::path::{Path, PathBuf};

/// A library's name, and the major version of CUDA that it is of.
pub(super) type Versioned = (u32, &'static str);

/// Parts of a path that end in `*` stand for all that begin so, the last first.
const FOLDERS: &[&str] = &[
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/*/lib",
    "/usr/local/cuda-*/lib64",
    "/usr/local/cuda-*/targets/*/lib",
];

/// Where `libraries` (the newest first) may be, the best first. Names without a folder are looked up by the loader.
pub(super) fn candidates(libraries: &[Versioned], driver: u32) -> Vec<PathBuf> {
    let folders: Vec<PathBuf> = FOLDERS.iter().flat_map(|pattern| expand(pattern)).collect();
    let mut found = Vec::new();
    for (_, name) in by_preference(libraries, driver) {
        found.push(PathBuf::from(name));
        found.extend(folders.iter().map(|folder| folder.join(name)).filter(|path| path.exists()));
    }
    found
}

/// The driver's own version first, then older ones, then newer ones.
pub(super) fn by_preference(libraries: &[Versioned], driver: u32) -> Vec<Versioned> {
    let (mut first, newer): (Vec<_>, Vec<_>) = libraries.iter().copied().partition(|(major, _)| *major <= driver);
    first.extend(newer.into_iter().rev());
    first
}

/// What in `folder` begins with `start`, the last first.
pub(super) fn beginning(folder: &Path, start: &str) -> Vec<PathBuf> {
    // A folder that is not there has nothing in it.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(start)).map(|e| e.path()).collect();
    found.sort();
    found.reverse();
    found
}

/// The existing folders that a pattern of [`FOLDERS`] stands for.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        found = match part.strip_suffix('*') {
            None => found.into_iter().map(|folder| folder.join(part)).collect(),
            Some(start) => found.iter().flat_map(|folder| beginning(folder, start)).collect(),
        };
    }
    found.retain(|folder| folder.is_dir());
    found
}
