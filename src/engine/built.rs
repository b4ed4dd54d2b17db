//! Built engines on disk: where they lie, how they get there whole, and how they are read.
//!
//! Beside each engine `NAME.engine` stands its stamp, `NAME.engine.toml`. Nothing is handed to TensorRT before the
//! file has the digest of its stamp: a file that was cut off, or comes from elsewhere, can end a process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::stamp::{Precision, SCHEMA, Stamp};
use crate::process::{EVERYONES, is_everyones, with_end};

/// Largest engine file: a detector's has tens of MiB.
const ENGINE_BYTES_MAX: u64 = 4 << 30;
/// Largest stamp.
const STAMP_BYTES_MAX: u64 = 64 << 10;
/// Largest timing cache or calibration table: a few MiB at most.
const CACHE_BYTES_MAX: u64 = 256 << 20;

/// A file that is being written was written to within this time: frames come minutes apart at most.
const PART_LASTS: Duration = Duration::from_secs(3600);

/// One step of a build as `watchpost engine build --progress json` prints it, one JSON object a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressLine {
    /// Per cent of the whole, 0 to 100; never less than in the line before.
    pub pct: u8,
    /// What is being done, for people.
    pub text: String,
}

/// What a built engine's file is named by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// The manifest's name.
    pub model: &'a str,
    /// Frames a call.
    pub batch: usize,
    /// How it computes.
    pub precision: Precision,
    /// Compute capability; `None` without a GPU.
    pub sm: Option<(u32, u32)>,
    /// The GPU's name; `None` without one.
    pub gpu: Option<String>,
    /// TensorRT's version.
    pub tensorrt: &'a str,
}

impl Name<'_> {
    /// The engine's file in `folder`, such as `yolo-b16-fp16-sm90-trt8.5.3.engine`.
    pub fn engine(&self, folder: &Path) -> PathBuf {
        let Self { model, batch, precision, tensorrt, .. } = self;
        let model: String =
            model.chars().map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
        folder.join(format!("{model}-b{batch}-{precision}-{}-trt{tensorrt}.engine", sm(self.sm)))
    }

    /// The builder's measurements in `folder`, one file for all models of a kind of GPU and a TensorRT, such as
    /// `timing-sm90-nvidia-h200-trt8.5.3.cache`.
    pub fn timing_cache(&self, folder: &Path) -> PathBuf {
        let of = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "-").to_ascii_lowercase();
        let gpu = self.gpu.as_deref().map_or_else(String::new, |name| format!("-{}", of(name)));
        folder.join(format!("timing-{}{gpu}-trt{}.cache", sm(self.sm), self.tensorrt))
    }
}

fn sm(capability: Option<(u32, u32)>) -> String {
    capability.map_or_else(|| "any".to_owned(), |(major, minor)| format!("sm{major}{minor}"))
}

/// Where built engines lie below the daemon's `state_dir`.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("engines")
}

/// The stamp's file of an engine's.
pub fn stamp_path(engine: &Path) -> PathBuf {
    with_end(engine, ".toml")
}

/// Why a built engine cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BuiltError {
    /// It is not there.
    #[error("engine {}: there is no such file: run `watchpost engine build`, or give another path", .0.display())]
    Missing(PathBuf),
    /// It has no stamp.
    #[error(
        "engine {}: it has no stamp {}: only engines that `watchpost engine build` made are loaded, so build it again",
        .0.display(), stamp_path(.0).display()
    )]
    Unstamped(PathBuf),
    /// Its stamp is not one.
    #[error("engine {}: its stamp cannot be read ({reason}): build it again with `watchpost engine build`", engine.display())]
    Stamp {
        /// The engine.
        engine: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It, or its stamp, could be another's work by now.
    #[error("{}: {EVERYONES}, or build the engine again", .0.display())]
    Writable(PathBuf),
    /// It is not the file that was stamped.
    #[error(
        "engine {}: it is not the file that was built (SHA-256 {found}, its stamp says {stamped}): it was cut off or \
         changed, so build it again with `watchpost engine build`",
        engine.display()
    )]
    Digest {
        /// The engine.
        engine: PathBuf,
        /// What the stamp says.
        stamped: String,
        /// What the file has.
        found: String,
    },
    /// The system refuses.
    #[error("{}: {source}: give a path that this user may use", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The stamp of the engine at `engine`.
///
/// # Errors
///
/// [`BuiltError::Missing`] where the engine is not there, [`BuiltError::Writable`] where everyone may change one of the two,
/// else why its stamp cannot be read.
pub fn stamp(engine: &Path) -> Result<Stamp, BuiltError> {
    if !engine.exists() {
        return Err(BuiltError::Missing(engine.to_owned()));
    }
    let broken = |reason: String| BuiltError::Stamp { engine: engine.to_owned(), reason };
    let bytes = match read(&stamp_path(engine), STAMP_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BuiltError::Unstamped(engine.to_owned()));
        }
        Err(error) => return Err(broken(error.to_string())),
    };
    for path in [engine.to_owned(), stamp_path(engine)] {
        let metadata = fs::metadata(&path).map_err(|source| BuiltError::File { path: path.clone(), source })?;
        if is_everyones(&metadata) {
            return Err(BuiltError::Writable(path));
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| broken("it is not UTF-8 text".to_owned()))?;
    let stamp: Stamp = toml::from_str(&text).map_err(|e| broken(e.message().replace('\n', " ")))?;
    if stamp.schema != SCHEMA {
        return Err(broken(format!("it is of another watchpost, {:?} and not {SCHEMA:?}", stamp.schema)));
    }
    Ok(stamp)
}

/// Other engines of a model in `engine`'s folder, with their stamps, the newest first. What cannot be read is none.
pub fn beside_it(engine: &Path, model: &str) -> Vec<(PathBuf, Stamp)> {
    let Ok(entries) = fs::read_dir(folder_of(engine)) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let others = paths.filter(|path| path != engine && path.extension().is_some_and(|end| end == "engine"));
    let stamped = others.filter_map(|path| stamp(&path).ok().map(|stamp| (path, stamp)));
    let mut found: Vec<_> = stamped.filter(|(_, stamp)| stamp.model.name == model).collect();
    // RFC 3339 in UTC, always with as many digits: as text it sorts by time.
    found.sort_by(|(_, a), (_, b)| b.built.cmp(&a.built));
    found
}

/// The bytes of the engine at `engine`, once they have the digest of `stamp`.
///
/// # Errors
///
/// [`BuiltError::Digest`] where they have another, [`BuiltError::Missing`] and [`BuiltError::File`].
pub fn load(engine: &Path, stamp: &Stamp) -> Result<Vec<u8>, BuiltError> {
    let bytes = read(engine, ENGINE_BYTES_MAX).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => BuiltError::Missing(engine.to_owned()),
        _ => BuiltError::File { path: engine.to_owned(), source },
    })?;
    let found = sha256(&bytes);
    if found == stamp.sha256 {
        return Ok(bytes);
    }
    Err(BuiltError::Digest { engine: engine.to_owned(), stamped: stamp.sha256.clone(), found })
}

/// Writes an engine and then its stamp, each whole or not at all. `stamp` gets the engine's digest.
///
/// # Errors
///
/// [`BuiltError::File`]: an engine that was there before is there still, or has a stamp that does not fit it and so
/// is refused by [`load`].
pub fn write(engine: &Path, bytes: &[u8], stamp: &mut Stamp) -> Result<(), BuiltError> {
    stamp.sha256 = sha256(bytes);
    let path = stamp_path(engine);
    let text = toml::to_string(stamp)
        .map_err(|e| BuiltError::File { path: path.clone(), source: io::Error::other(e.to_string()) })?;
    write_whole(engine, bytes)?;
    write_whole(&path, text.as_bytes())
}

/// Writes a file so that a reader sees the old one or the whole new one, also after a power cut. Its folder is made.
///
/// # Errors
///
/// [`BuiltError::File`].
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), BuiltError> {
    let fail = |source| BuiltError::File { path: path.to_owned(), source };
    let folder = folder_of(path);
    fs::create_dir_all(folder).map_err(fail)?;
    let part = beside(path);
    // Not for everyone to change, whatever the umask: an engine that is would be refused.
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&part);
    let written = made.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let done = written.and_then(|()| fs::rename(&part, path)).and_then(|()| File::open(folder)?.sync_all());
    done.map_err(|error| {
        // What is half written helps nobody; that it cannot be removed either is told by the first error.
        let _ = fs::remove_file(&part);
        fail(error)
    })
}

/// Makes a file's folder and sees that files can be made there: before the work, not after it.
///
/// # Errors
///
/// [`BuiltError::File`].
pub fn prepare(path: &Path) -> Result<(), BuiltError> {
    let fail = |source| BuiltError::File { path: path.to_owned(), source };
    if path.is_dir() {
        return Err(fail(io::ErrorKind::IsADirectory.into()));
    }
    fs::create_dir_all(folder_of(path)).map_err(fail)?;
    let part = beside(path);
    File::create(&part).and_then(|_| fs::remove_file(&part)).map_err(fail)
}

/// A file of the builder's own, such as a timing cache; `None` where there is none yet.
///
/// # Errors
///
/// [`BuiltError::File`] where there is one that cannot be read.
pub fn read_cache(path: &Path) -> Result<Option<Vec<u8>>, BuiltError> {
    match read(path, CACHE_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BuiltError::File { path: path.to_owned(), source }),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name of this process's own in the same folder. What processes that are no more began of the same file goes: they were
/// ended half-way.
pub(super) fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for entry in fs::read_dir(folder_of(path)).into_iter().flatten().flatten() {
        let other = entry.file_name().to_string_lossy().into_owned();
        let process = other.strip_prefix(&name).and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".part"));
        let process = process.filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()));
        // One of another container is not seen: but a file that is being written is young.
        let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
        let is_old = age.is_some_and(|age| age > PART_LASTS);
        if is_old && process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            // It stays where it cannot be removed, and disturbs nobody.
            let _ = fs::remove_file(entry.path());
        }
    }
    with_end(path, &format!(".{}.part", std::process::id()))
}

fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests;
