//! What a manifest orders of the builder, and what an engine must therefore be stamped with.

use std::path::{Path, PathBuf};

use super::calibration;
use super::manifest::{Manifest, ManifestError, digest};
use super::onnx::{OnnxFault, graph};
use super::shapes::{self, Shapes};
use super::stamp::{Options, Precision, Wanted};

/// An order for one machine's builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What the engine will be stamped with.
    pub wanted: Wanted,
    /// The inputs' shapes.
    pub shapes: Shapes,
    /// Inputs beside the picture.
    pub others: Vec<String>,
    /// The precision that the model is written in: that of engines whose library takes it from the model.
    pub written: Precision,
}

/// Why there is no order.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// Model or plug-in library cannot be read.
    #[error("{what} {}: {fault}", path.display())]
    Read {
        /// `model` or `plug-in`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        fault: OnnxFault,
    },
    /// The model is another than the manifest's.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Manifest and model contradict each other.
    #[error("model {}: {reason}", model.display())]
    Shapes {
        /// The ONNX file.
        model: PathBuf,
        /// One sentence.
        reason: String,
    },
}

/// The order of a manifest for `batch` frames a call; `None`: the batch that the model fixes, else 1. The model's digest
/// is checked first.
///
/// # Errors
///
/// Why the model cannot be built as the manifest says.
pub fn of(manifest: &Manifest, batch: Option<usize>) -> Result<Order, OrderError> {
    let path = &manifest.model;
    let graph = graph::read(path).map_err(|fault| read_error("model", path, fault))?;
    let sha256 = manifest.check_sha256()?;
    let fail = |reason| OrderError::Shapes { model: path.clone(), reason };
    let (picture, _) = shapes::picture(&graph.inputs, manifest).map_err(fail)?;
    let batch = batch.or(picture.shape[0]).unwrap_or(1);
    let shapes = shapes::choose(&graph.inputs, manifest, batch, manifest.tensorrt.batches).map_err(fail)?;
    let others = graph.inputs.iter().filter(|input| input.name != shapes.picture).map(|i| i.name.clone()).collect();
    let options = options(manifest, batch, shapes.batches, shapes.size)?;
    Ok(Order { wanted: Wanted { model_sha256: Some(sha256), options }, shapes, others, written: graph.precision })
}

/// What an engine must be stamped with to serve `batch` frames a call: as [`of`], but where the model itself is not on
/// this machine, the manifest's own digest and size will do.
///
/// # Errors
///
/// As [`of`], and where the model is not there and the manifest does not say `input.size`.
pub fn wanted(manifest: &Manifest, batch: usize) -> Result<Wanted, OrderError> {
    match (manifest.model.exists(), manifest.input.size) {
        (false, Some(size)) => {
            let batches = manifest.tensorrt.batches.unwrap_or([batch; 3]);
            let options = options(manifest, batch, batches, size)?;
            Ok(Wanted { model_sha256: manifest.sha256.clone(), options })
        }
        _ => Ok(of(manifest, Some(batch))?.wanted),
    }
}

fn options(
    manifest: &Manifest,
    batch: usize,
    batches: [usize; 3],
    input: (u32, u32),
) -> Result<Options, OrderError> {
    let spec = &manifest.tensorrt;
    let digest = |path: &PathBuf| digest(path).map_err(|error| read_error("plug-in", path, error.into()));
    // It is needed where an engine is built: to run one it need not be there.
    let frames = spec.calibration.as_ref().filter(|_| spec.precision == Precision::Int8);
    Ok(Options {
        precision: spec.precision,
        batch,
        batches,
        input,
        workspace: spec.workspace,
        dla_core: spec.dla_core,
        sparse: spec.sparse,
        plugins: spec.plugins.iter().map(digest).collect::<Result<_, _>>()?,
        calibration: frames.and_then(|path| calibration::identity(path).ok()),
    })
}

fn read_error(what: &'static str, path: &Path, fault: OnnxFault) -> OrderError {
    OrderError::Read { what, path: path.to_owned(), fault }
}
