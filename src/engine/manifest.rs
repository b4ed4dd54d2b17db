//! The engine manifest: one TOML file a model, tracked in `engines/`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::file;
use super::stamp::Precision;
use crate::config::{EngineConfig, Problems};
use crate::letterbox::Fit;
use crate::yolo::head::HeadKind;

/// What a model is and how its input and output are meant.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Name published with every detection.
    pub name: String,
    /// The ONNX file, relative paths resolved against the manifest's folder.
    pub model: PathBuf,
    /// SHA-256 of the ONNX file, 64 lower-case hex digits, checked before it is loaded where given.
    pub sha256: Option<String>,
    /// Class names by class number.
    pub labels: Arc<Vec<String>>,
    /// The input tensor.
    pub input: InputSpec,
    /// The output tensors.
    pub output: OutputSpec,
    /// Default thresholds.
    pub thresholds: Thresholds,
    /// How a TensorRT engine is built.
    pub tensorrt: TensorrtSpec,
}

/// How a picture becomes the input tensor (NCHW, float32 or float16 as the model says).
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    /// Width and height in pixels, for models whose own size is dynamic; the model's size rules where fixed.
    pub size: Option<(u32, u32)>,
    /// Values of a white pixel.
    pub range: Range,
    /// Order of the planes.
    pub channels: Channels,
    /// Letterbox style.
    pub fit: Fit,
    /// Grey level of the padding, 0..255.
    pub pad: u8,
    /// Subtracted from each plane (in `channels` order, after scaling to `range`).
    pub mean: [f32; 3],
    /// Divides each plane after `mean`; never 0.
    pub std: [f32; 3],
}

impl InputSpec {
    /// For each plane of the tensor, in `channels` order: factor and constant from 0..255 to the tensor's value.
    pub fn values(&self) -> [[f32; 2]; 3] {
        let unit = match self.range {
            Range::Byte => 1.0,
            Range::Unit => 1.0 / 255.0,
        };
        [0, 1, 2].map(|plane: usize| [unit / self.std[plane], -self.mean[plane] / self.std[plane]])
    }

    /// The padding's value in each plane of the tensor, in `channels` order.
    pub fn pad_values(&self) -> [f32; 3] {
        self.values().map(|[factor, constant]| f32::from(self.pad) * factor + constant)
    }
}

/// Range of a pixel value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Range {
    /// 0.0 ..= 1.0
    #[serde(rename = "0..1")]
    Unit,
    /// 0.0 ..= 255.0
    #[serde(rename = "0..255")]
    Byte,
}

/// Order of the colour planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}

/// How the output tensors are read.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputSpec {
    /// Recognised from the tensors' shapes, or named.
    pub head: HeadChoice,
    /// Scores are logits: a sigmoid is applied.
    pub logits: bool,
}

/// How the head is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadChoice {
    /// From the tensors' names and shapes.
    Auto,
    /// This one, or the model is refused.
    Named(HeadKind),
}

/// Default thresholds of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Least score of a detection, 0..1.
    pub confidence: f32,
    /// Overlap (IoU) above which the weaker of two boxes of a class is dropped, 0..1.
    pub nms: f32,
    /// Most boxes a frame handed to NMS.
    pub max_candidates: usize,
    /// Most boxes a frame after NMS.
    pub max_detections: usize,
}

/// How a TensorRT engine is built of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorrtSpec {
    /// How it computes.
    pub precision: Precision,
    /// Most bytes of GPU memory that a layer may use while it runs; `None`: as the builder likes.
    pub workspace: Option<u64>,
    /// Least, best and most frames a call, for models whose batch is dynamic; `None`: the configured batch alone.
    pub batches: Option<[usize; 3]>,
    /// Plug-in libraries, relative paths resolved against the manifest's folder.
    pub plugins: Vec<PathBuf>,
    /// The deep-learning accelerator (Jetson) that runs what it can, the GPU the rest.
    pub dla_core: Option<u32>,
    /// Weights that are sparse in the pattern of two in four are used so.
    pub sparse: bool,
    /// What INT8 is calibrated with: frames of `watchpost engine calibrate`, or a table of TensorRT's own.
    pub calibration: Option<PathBuf>,
}

/// Most bytes of a manifest, and of a `labels_file`.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Bytes hashed at a time.
const DIGEST_BYTES: usize = 1 << 16;

/// Why a manifest or its model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file cannot be read.
    #[error("{} cannot be read ({source}): give the path of a file this user may read", path.display())]
    Read {
        /// The manifest or the model.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The manifest is not valid; every problem with its line.
    #[error("{} is not a valid engine manifest:\n{problems}", path.display())]
    Invalid {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        problems: Problems,
    },
    /// The model is not the one that the manifest was written for.
    #[error(
        "{} has the SHA-256 {found}, but the manifest says {expected}: get the right file, or correct `sha256` \
         in the manifest if the model was changed on purpose",
        model.display()
    )]
    Sha256 {
        /// The ONNX file.
        model: PathBuf,
        /// What the manifest says.
        expected: String,
        /// What the file has.
        found: String,
    },
}

impl Manifest {
    /// Reads and checks the manifest at `path`. The model file itself is not looked at.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Read`], or [`ManifestError::Invalid`] with every problem found.
    pub fn load(path: &Path) -> Result<Self, ManifestError> {
        let text = read_text(path).map_err(|source| ManifestError::Read { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder, read_text)
            .map_err(|problems| ManifestError::Invalid { path: path.to_owned(), problems })
    }

    /// Checks a manifest given as text. Paths in it are resolved against `folder`; `read` reads the
    /// `labels_file` if it names one. Any text is answered, none panics.
    ///
    /// # Errors
    ///
    /// Every problem found, with its line and path.
    pub fn parse(
        text: &str,
        folder: &Path,
        read: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Self, Problems> {
        file::parse(text, folder, read)
    }

    /// The manifest with what the configuration says in its place: model file and thresholds.
    pub fn overridden(&self, engine: &EngineConfig) -> Self {
        let mut manifest = self.clone();
        if let Some(model) = &engine.model {
            manifest.take_model(model);
        }
        let thresholds = &mut manifest.thresholds;
        thresholds.confidence = engine.confidence.unwrap_or(thresholds.confidence);
        thresholds.nms = engine.nms.unwrap_or(thresholds.nms);
        manifest
    }

    /// Another ONNX file in place of its own; the digest is not that one's.
    pub fn take_model(&mut self, model: &Path) {
        self.model = model.to_owned();
        self.sha256 = None;
    }

    /// What the model's pictures and boxes mean, as 64 lower-case hex digits: the same for two models of which one can serve in
    /// the other's place, size and batch apart. Another version of this program may give others.
    pub fn meaning(&self) -> String {
        let input = InputSpec { size: None, ..self.input.clone() };
        format!("{:x}", Sha256::digest(format!("{:?} {input:?} {:?}", self.labels, self.output)))
    }

    /// Hashes the model file and compares it with `sha256` where that is given; to be called before the model is
    /// loaded. Returns the digest, 64 lower-case hex digits.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Read`] or [`ManifestError::Sha256`].
    pub fn check_sha256(&self) -> Result<String, ManifestError> {
        let found =
            digest(&self.model).map_err(|source| ManifestError::Read { path: self.model.clone(), source })?;
        match &self.sha256 {
            Some(expected) if *expected != found => {
                Err(ManifestError::Sha256 { model: self.model.clone(), expected: expected.clone(), found })
            }
            _ => Ok(found),
        }
    }
}

/// SHA-256 of a file, 64 lower-case hex digits.
///
/// # Errors
///
/// What the system says of the file.
pub fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; DIGEST_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(format!("{:x}", hash.finalize())),
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A text file of at most [`TEXT_BYTES_MAX`].
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > TEXT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
