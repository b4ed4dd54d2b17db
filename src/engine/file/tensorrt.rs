//! `[tensorrt]` of a manifest: how the engine is built.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::Check;
use crate::config::parse_size;
use crate::engine::manifest::TensorrtSpec;
use crate::engine::stamp::Precision;

/// Frames that a call may take.
const BATCH_MAX: usize = 256;
/// Plug-in libraries.
const PLUGINS_MAX: usize = 16;
/// Accelerators of the largest Jetson.
const DLA_CORES: std::ops::RangeInclusive<u32> = 0..=1;

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TensorrtFile {
    precision: Option<Precision>,
    workspace: Option<Spanned<String>>,
    batches: Option<Spanned<[usize; 3]>>,
    plugins: Option<Spanned<Vec<PathBuf>>>,
    dla_core: Option<Spanned<u32>>,
    sparse: Option<bool>,
    calibration: Option<Spanned<PathBuf>>,
}

impl Check<'_> {
    pub(super) fn tensorrt(&mut self, file: TensorrtFile, folder: &Path) -> TensorrtSpec {
        let TensorrtFile { precision, workspace, batches, plugins, dla_core, sparse, calibration } = file;
        let bytes = workspace.as_ref().and_then(|size| parse_size(size.get_ref())).filter(|bytes| *bytes > 0);
        if workspace.is_some() && bytes.is_none() {
            let text = "is no size: give one with a unit in quotes, such as \"1GiB\"".to_owned();
            self.wrong("tensorrt.workspace", workspace.as_ref(), text);
        }
        if batches.as_ref().is_some_and(|batches| !are_batches(batches.get_ref())) {
            let text = format!("is no row: give [least, best, most] frames a call, rising, from 1 to {BATCH_MAX}");
            self.wrong("tensorrt.batches", batches.as_ref(), text);
        }
        if plugins.as_ref().is_some_and(|plugins| plugins.get_ref().len() > PLUGINS_MAX) {
            self.wrong("tensorrt.plugins", plugins.as_ref(), format!("is too long: give at most {PLUGINS_MAX}"));
        }
        if dla_core.as_ref().is_some_and(|core| !DLA_CORES.contains(core.get_ref())) {
            let text = format!("is no accelerator: give {} or {}", DLA_CORES.start(), DLA_CORES.end());
            self.wrong("tensorrt.dla_core", dla_core.as_ref(), text);
        }
        if dla_core.is_some() && precision == Some(Precision::Fp32) {
            let text = "computes in fp16 or int8 only: give one of them as precision".to_owned();
            self.wrong("tensorrt.dla_core", dla_core.as_ref(), text);
        }
        TensorrtSpec {
            precision: precision.unwrap_or(Precision::Fp16),
            workspace: bytes,
            batches: batches.map(Spanned::into_inner),
            plugins: plugins
                .map_or_else(Vec::new, |p| p.into_inner().iter().map(|path| folder.join(path)).collect()),
            dla_core: dla_core.map(Spanned::into_inner),
            sparse: sparse.unwrap_or(false),
            calibration: calibration.map(|path| folder.join(path.get_ref())),
        }
    }
}

/// Least, best and most frames a call.
fn are_batches(batches: &[usize; 3]) -> bool {
    let [least, best, most] = *batches;
    1 <= least && least <= best && best <= most && most <= BATCH_MAX
}
