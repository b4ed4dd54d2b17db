//! What INT8 is calibrated with: frames as a model sees them, in one file, and the table that TensorRT makes of them.
//!
//! A frames file begins with one line of JSON ([`Header`]), padded with spaces to [`HEADER_BYTES`]; then come the frames
//! one after the other, letterboxed, 3 planes of height x width bytes in the model's channel order. An element of the
//! input tensor is `byte x factor + constant` of its plane. Bytes and not floats: a quarter of the size, and half a
//! grey level is nothing to a histogram.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::built::{self, BuiltError};
use super::manifest::{Channels, InputSpec, Range, digest};
use crate::letterbox::Fit;
use crate::process::with_end;

/// Version of the file's form.
pub const SCHEMA: &str = "watchpost.frames/1";
/// Version of the table's own first line. 1 was of entropy, which a table brings with it into the next build.
const TABLE_SCHEMA: &str = "watchpost.table/2";
/// Bytes before the first frame.
pub const HEADER_BYTES: usize = 64 << 10;
/// Sources that the header names; the rest are counted together.
const SOURCES_MAX: usize = 256;
/// Most frames of a file: TensorRT's own documents speak of 500.
pub const FRAMES_MAX: usize = 4096;
/// Longest side of a frame, in pixels.
const SIDE_MAX: u32 = 8192;
/// How every table of TensorRT's begins.
const TABLE_MAGIC: &[u8] = b"TRT-";

/// What a frames file is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`SCHEMA`].
    pub schema: String,
    /// How many.
    pub frames: usize,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// How a picture becomes the input tensor.
    pub input: Input,
    /// SHA-256 of everything behind the header.
    pub sha256: String,
    /// Where they come from.
    pub sources: Vec<Source>,
}

/// How a picture became bytes, and how these become the input tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Letterbox style, as manifests write it.
    pub letterbox: String,
    /// Grey level of the padding.
    pub pad: u8,
    /// Order of the planes.
    pub channels: String,
    /// Of each plane: times this,
    pub factor: [f32; 3],
    /// plus this.
    pub constant: [f32; 3],
}

/// A camera or a file, and how many frames it gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// How many.
    pub frames: usize,
}

impl Input {
    /// As a manifest says it.
    pub fn of(spec: &InputSpec) -> Self {
        let unit = match spec.range {
            Range::Byte => 1.0,
            Range::Unit => 1.0 / 255.0,
        };
        let letterbox = match spec.fit {
            Fit::Centre => "centre",
            Fit::TopLeft => "top-left",
            Fit::Stretch => "stretch",
        };
        let channels = match spec.channels {
            Channels::Rgb => "rgb",
            Channels::Bgr => "bgr",
        };
        Self {
            letterbox: letterbox.to_owned(),
            pad: spec.pad,
            channels: channels.to_owned(),
            factor: [0, 1, 2].map(|plane: usize| unit / spec.std[plane]),
            constant: [0, 1, 2].map(|plane: usize| 0.0 - spec.mean[plane] / spec.std[plane]),
        }
    }
}

/// Why calibration cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// The system refuses.
    #[error("calibration {}: {source}: run `watchpost engine calibrate`, or give a path that this user may use", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else, or broken.
    #[error("calibration {}: {reason}: run `watchpost engine calibrate` again", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A frames file being written: frames go to numbered places, and may be replaced. What is not finished leaves nothing.
pub struct Recording {
    path: PathBuf,
    part: PathBuf,
    file: File,
    size: (u32, u32),
    input: Input,
    frames: usize,
}

impl Recording {
    /// Begins a file of frames of `size` (width, height) that will stand at `path`.
    ///
    /// # Errors
    ///
    /// [`CalibrationError::File`].
    pub fn create(path: &Path, spec: &InputSpec, size: (u32, u32)) -> Result<Self, CalibrationError> {
        let fail = |source| CalibrationError::File { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        let part = built::beside(path);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&part).map_err(fail)?;
        Ok(Self { path: path.to_owned(), part, file, size, input: Input::of(spec), frames: 0 })
    }

    /// Frames so far.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Writes a frame of 3 x height x width bytes to place `index`: an earlier one's, or the next.
    ///
    /// # Errors
    ///
    /// [`CalibrationError::File`].
    ///
    /// # Panics
    ///
    /// Where `pixels` has another length, or `index` leaves a gap.
    pub fn put(&mut self, index: usize, pixels: &[u8]) -> Result<(), CalibrationError> {
        let bytes = frame_bytes(self.size);
        assert!(pixels.len() == bytes && index <= self.frames, "a frame of another size, or a gap");
        let at = SeekFrom::Start((HEADER_BYTES + index * bytes) as u64);
        let written = self.file.seek(at).and_then(|_| self.file.write_all(pixels));
        written.map_err(|source| CalibrationError::File { path: self.path.clone(), source })?;
        self.frames = self.frames.max(index + 1);
        Ok(())
    }

    /// Ends the file and puts it in its place.
    ///
    /// # Errors
    ///
    /// [`CalibrationError::File`].
    pub fn finish(mut self, sources: Vec<Source>) -> Result<Header, CalibrationError> {
        self.complete(sources).map_err(|source| CalibrationError::File { path: self.path.clone(), source })
    }

    fn complete(&mut self, mut sources: Vec<Source>) -> io::Result<Header> {
        if let Some(rest) = sources.get(SOURCES_MAX..).map(|rest| rest.iter().map(|s| s.frames).sum()) {
            sources.truncate(SOURCES_MAX);
            sources.push(Source { name: "others".to_owned(), frames: rest });
        }
        let sha256 = digest_from(&mut self.file, HEADER_BYTES)?;
        let (size, input) = (self.size, self.input.clone());
        let header = Header { schema: SCHEMA.to_owned(), frames: self.frames, size, input, sha256, sources };
        let mut line = serde_json::to_vec(&header).map_err(io::Error::other)?;
        if line.len() >= HEADER_BYTES {
            return Err(io::Error::other("the sources' names are too long"));
        }
        line.resize(HEADER_BYTES - 1, b' ');
        line.push(b'\n');
        self.file.rewind()?;
        self.file.write_all(&line)?;
        self.file.sync_all()?;
        fs::rename(&self.part, &self.path)?;
        Ok(header)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // After `finish` it is there no longer; else it is of no use.
        let _ = fs::remove_file(&self.part);
    }
}

/// The bytes of a file behind the header, hashed.
fn digest_from(file: &mut File, at: usize) -> io::Result<String> {
    file.seek(SeekFrom::Start(at as u64))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{:x}", hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn frame_bytes(size: (u32, u32)) -> usize {
    3 * size.0 as usize * size.1 as usize
}

/// What a manifest names as its calibration.
pub enum Calibration {
    /// Frames of our own.
    Frames(Frames),
    /// A table of TensorRT's, wherever it comes from.
    Table(Vec<u8>),
}

/// A whole frames file.
pub struct Frames {
    /// What it is.
    pub header: Header,
    path: PathBuf,
    file: File,
    bytes: Vec<u8>,
}

/// Opens what stands at `path` and checks it as a whole.
///
/// # Errors
///
/// Why it is no calibration.
pub fn open(path: &Path) -> Result<Calibration, CalibrationError> {
    let fail = |source| CalibrationError::File { path: path.to_owned(), source };
    let broken = |reason: String| CalibrationError::Broken { path: path.to_owned(), reason };
    let mut file = File::open(path).map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    let mut head = vec![0; HEADER_BYTES.min(usize::try_from(length).unwrap_or(HEADER_BYTES))];
    file.read_exact(&mut head).map_err(fail)?;
    if head.starts_with(TABLE_MAGIC) {
        let table = built::read_cache(path).map_err(|e| broken(e.to_string()))?;
        return Ok(Calibration::Table(table.unwrap_or_default()));
    }
    if head.len() < HEADER_BYTES || !head.starts_with(br#"{"schema":"watchpost.frames/"#) {
        return Err(broken("it holds neither frames nor a table of TensorRT's".to_owned()));
    }
    let header: Header =
        serde_json::from_slice(&head).map_err(|e| broken(format!("its header is broken ({e})")))?;
    if header.schema != SCHEMA {
        return Err(broken(format!("it is of another watchpost, {:?} and not {SCHEMA:?}", header.schema)));
    }
    let sides = 1..=SIDE_MAX;
    let is_sane = sides.contains(&header.size.0) && sides.contains(&header.size.1) && header.frames <= FRAMES_MAX;
    if !is_sane || length != (HEADER_BYTES + header.frames * frame_bytes(header.size)) as u64 {
        return Err(broken("it is cut off, or longer than its header says".to_owned()));
    }
    if header.frames == 0 {
        return Err(broken("it holds no frames".to_owned()));
    }
    if digest_from(&mut file, HEADER_BYTES).map_err(fail)? != header.sha256 {
        return Err(broken("its frames are not those that were written".to_owned()));
    }
    let bytes = vec![0; frame_bytes(header.size)];
    Ok(Calibration::Frames(Frames { header, path: path.to_owned(), file, bytes }))
}

/// What tells a calibration from another: [`Header::sha256`] of frames, which are not read for that, and the SHA-256 of a table.
///
/// # Errors
///
/// It cannot be read.
pub fn identity(path: &Path) -> io::Result<String> {
    let mut head = Vec::new();
    File::open(path)?.take(HEADER_BYTES as u64).read_to_end(&mut head)?;
    serde_json::from_slice::<Header>(&head).map_or_else(|_| digest(path), |header| Ok(header.sha256))
}

impl Frames {
    /// What keeps the frames from being a model's input, in one sentence.
    ///
    /// # Errors
    ///
    /// [`CalibrationError::Broken`].
    pub fn check(&self, spec: &InputSpec, size: (u32, u32)) -> Result<(), CalibrationError> {
        let broken = |reason: String| CalibrationError::Broken { path: self.path.clone(), reason };
        if self.header.size != size {
            let (width, height) = self.header.size;
            let (wanted, model) = (format!("{}x{}", size.0, size.1), format!("{width}x{height}"));
            return Err(broken(format!("its frames are {model}, the model takes {wanted}")));
        }
        if self.header.input != Input::of(spec) {
            return Err(broken("its frames were made for another [input] than the manifest's".to_owned()));
        }
        Ok(())
    }

    /// Frame `index` as elements of the input tensor, 3 x height x width float32.
    ///
    /// # Errors
    ///
    /// [`CalibrationError::File`].
    ///
    /// # Panics
    ///
    /// Where `out` has another length.
    pub fn read(&mut self, index: usize, out: &mut [f32]) -> Result<(), CalibrationError> {
        let at = SeekFrom::Start((HEADER_BYTES + index * self.bytes.len()) as u64);
        let read = self.file.seek(at).and_then(|_| self.file.read_exact(&mut self.bytes));
        read.map_err(|source| CalibrationError::File { path: self.path.clone(), source })?;
        assert_eq!(out.len(), self.bytes.len(), "a tensor of another size");
        let plane = out.len() / 3;
        for (index, (to, from)) in out.chunks_exact_mut(plane).zip(self.bytes.chunks_exact(plane)).enumerate() {
            let (factor, constant) = (self.header.input.factor[index], self.header.input.constant[index]);
            to.iter_mut().zip(from).for_each(|(to, from)| *to = f32::from(*from) * factor + constant);
        }
        Ok(())
    }
}

/// What a table was made of: it serves no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableKey {
    /// [`Header::sha256`].
    pub frames: String,
    /// SHA-256 of the ONNX file.
    pub model: String,
    /// TensorRT's version.
    pub tensorrt: String,
}

/// Where the table of a frames file is kept.
pub fn table_path(frames: &Path) -> PathBuf {
    with_end(frames, ".table")
}

/// The table made earlier of the same frames and model by the same TensorRT, if there is one.
///
/// # Errors
///
/// [`BuiltError::File`].
pub fn read_table(path: &Path, key: &TableKey) -> Result<Option<Vec<u8>>, BuiltError> {
    let Some(bytes) = built::read_cache(path)? else { return Ok(None) };
    Ok(bytes.strip_prefix(table_line(key).as_bytes()).map(<[u8]>::to_vec))
}

/// Keeps a table.
///
/// # Errors
///
/// [`BuiltError::File`].
pub fn write_table(path: &Path, key: &TableKey, table: &[u8]) -> Result<(), BuiltError> {
    built::write_whole(path, &[table_line(key).as_bytes(), table].concat())
}

fn table_line(key: &TableKey) -> String {
    let TableKey { frames, model, tensorrt } = key;
    format!("{TABLE_SCHEMA} frames={frames} model={model} tensorrt={tensorrt}\n")
}

#[cfg(test)]
mod tests;
