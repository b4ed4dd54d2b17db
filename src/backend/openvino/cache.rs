//! Compiled models that OpenVINO keeps between starts. It writes them without waiting for the disk and reads them without a look
//! at what is in them: after a power cut, or on a card that wears out, a model computes something else, or fails at each start.
//! So each has its digest beside it, and one that has another, or none, is compiled anew.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::built::{self, BuiltError};
use crate::engine::digest;
use crate::process::with_end;

/// Removes every compiled model that is not as it was when it was sealed.
pub fn prune(folder: &Path) {
    for model in models(folder) {
        let sealed = fs::read_to_string(seal_of(&model)).ok();
        let is_whole = sealed.is_some_and(|sealed| digest(&model).is_ok_and(|found| found == sealed.trim_end()));
        if is_whole {
            continue;
        }
        tracing::warn!("{}: it is not as it was written, and is compiled anew", model.display());
        let _ = fs::remove_file(seal_of(&model));
        if let Err(error) = fs::remove_file(&model) {
            tracing::error!("{}: {error}: remove it, or the model may compute something else", model.display());
        }
    }
}

/// Notes the digests of what was written since.
pub fn seal(folder: &Path) {
    for model in models(folder).into_iter().filter(|model| !seal_of(model).exists()) {
        if let Err(error) = seal_one(&model) {
            tracing::warn!("{}: {error}: it will be compiled anew at the next start", model.display());
        }
    }
}

fn seal_one(model: &Path) -> Result<(), BuiltError> {
    let fail = |source: io::Error| BuiltError::File { path: model.to_owned(), source };
    File::open(model).and_then(|file| file.sync_all()).map_err(fail)?;
    let found = digest(model).map_err(fail)?;
    built::write_whole(&seal_of(model), found.as_bytes())
}

/// A folder that is not there has none.
fn models(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths.filter(|path| path.is_file() && path.extension() != Some(OsStr::new("sha256"))).collect()
}

fn seal_of(model: &Path) -> PathBuf {
    with_end(model, ".sha256")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_cut_off_or_never_sealed_is_removed_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).expect("written");
        for name in ["whole.blob", "changed.blob", "cut.blob", "empty.blob"] {
            write(name, b"a compiled model");
        }
        seal(dir.path());
        write("changed.blob", b"a compiled\0\0\0\0\0\0");
        write("cut.blob", b"a compiled");
        write("empty.blob", b"");
        write("later.blob", b"another");
        prune(dir.path());
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
        left.sort();
        assert_eq!(left, ["whole.blob", "whole.blob.sha256"]);
        seal(dir.path());
        prune(dir.path());
        assert!(dir.path().join("whole.blob").exists());
        prune(&dir.path().join("nowhere"));
    }
}
