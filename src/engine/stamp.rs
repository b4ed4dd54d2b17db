//! What a built engine was built for. A TensorRT engine is good for one TensorRT, one GPU and one set of options; on any
//! other it fails, or answers wrongly, in words that help nobody. So it is stamped, and the stamp is read first.
//!
//! Pure: the file beside the engine is [`super::built`]'s.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Version of the stamp's own form.
pub const SCHEMA: &str = "watchpost.engine/1";

/// How an engine computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32 throughout.
    Fp32,
    /// float16 where the builder finds it faster.
    Fp16,
    /// 8-bit integers where calibration allows, else float16.
    Int8,
}

impl Precision {
    /// As it is written in manifests, on the command line and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        }
    }

    /// From how it is written.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Fp32, Self::Fp16, Self::Int8].into_iter().find(|precision| precision.name() == name)
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The library that built an engine, or is to run it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// `TensorRT` or `TensorRT-RTX`.
    pub flavour: Flavour,
    /// All its numbers, such as `8.5.3.1`: engines of neighbouring versions do not load.
    pub version: String,
}

/// Which of NVIDIA's two libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flavour {
    /// TensorRT.
    TensorRT,
    /// TensorRT for RTX.
    #[serde(rename = "TensorRT-RTX")]
    Rtx,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flavour = match self.flavour {
            Flavour::TensorRT => "TensorRT",
            Flavour::Rtx => "TensorRT-RTX",
        };
        write!(f, "{flavour} {}", self.version)
    }
}

/// A GPU and its driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Its name, as the driver says it.
    pub name: String,
    /// Compute capability, such as `9.0`.
    pub sm: String,
    /// The newest CUDA that its driver takes, such as `13.0`. For people: engines do not depend on it.
    pub cuda: String,
}

/// What was asked of the builder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// How it computes.
    pub precision: Precision,
    /// Frames a call, at which the engine was tuned.
    pub batch: usize,
    /// Least, best and most frames a call; all [`Options::batch`] unless the model's batch is dynamic and the manifest
    /// says otherwise.
    pub batches: [usize; 3],
    /// Width and height of the input in pixels.
    pub input: (u32, u32),
    /// Most bytes of GPU memory that a layer may use while it runs; `None`: as the builder likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<u64>,
    /// The deep-learning accelerator (Jetson) that runs what it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dla_core: Option<u32>,
    /// Weights of which half are 0, in the pattern that GPUs have a fast path for, are used so.
    pub sparse: bool,
    /// SHA-256 of each plug-in library, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<String>,
    /// What INT8 was calibrated with, by its SHA-256 ([`super::calibration::identity`]); `None` without, and in what is wanted where the file is not on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<String>,
}

/// The model that was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name in the manifest.
    pub name: String,
    /// SHA-256 of the ONNX file.
    pub sha256: String,
    /// The precision that it is written in: TensorRT 11 and TensorRT-RTX compute in it, whatever was asked of them.
    pub precision: Precision,
    /// What its manifest said of its pictures and boxes then ([`super::Manifest::meaning`]); `None` in stamps of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
}

/// What stands beside an engine file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// [`SCHEMA`].
    pub schema: String,
    /// watchpost's version.
    pub watchpost: String,
    /// When the build ended, RFC 3339.
    pub built: String,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// SHA-256 of the engine file.
    pub sha256: String,
    /// What was built.
    pub model: Model,
    /// What built it.
    pub tensorrt: Runtime,
    /// The GPU it was built on; `None` where there was none and the library builds for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// What was asked for.
    pub options: Options,
}

/// The machine that is to run an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its TensorRT.
    pub tensorrt: Runtime,
    /// Its GPU; `None` where it has none: what depends on it is then not compared.
    pub gpu: Option<Gpu>,
}

/// What an engine is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what is wanted.
    Good,
    /// It runs here, and may serve until what is wanted is built: in words, why it is not that.
    Meanwhile(Vec<String>),
    /// It cannot serve: in words, why.
    Unfit(Vec<String>),
}

/// What configuration and manifest ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// SHA-256 of the ONNX file; `None` where it is not at hand.
    pub model_sha256: Option<String>,
    /// The options.
    pub options: Options,
}

impl Stamp {
    /// What keeps the engine from being used on `machine` as `wanted`, one clause each; empty where nothing does.
    pub fn mismatch(&self, machine: &Machine, wanted: &Wanted) -> Vec<String> {
        let mut facts = Vec::new();
        if self.tensorrt != machine.tensorrt {
            facts.push(format!("it was built by {}, this machine has {}", self.tensorrt, machine.tensorrt));
        }
        if let (Some(built), Some(here)) = (&self.gpu, &machine.gpu) {
            gpu_mismatch(built, here, &mut facts);
        }
        if let Some(sha256) = wanted.model_sha256.as_ref().filter(|sha256| **sha256 != self.model.sha256) {
            let (old, new) = (short(&self.model.sha256), short(sha256));
            facts.push(format!("it was built from another model (SHA-256 {old}…, the model here has {new}…)"));
        }
        options_mismatch(&self.options, &wanted.options, &mut facts);
        facts
    }

    /// What the engine is good for on `machine`, where `wanted` is, and `meaning` is the manifest's. An engine of another
    /// model or other options serves meanwhile if it takes the same pictures, as many at a time, and its boxes mean the same:
    /// under another list of labels it would call a person a car.
    pub fn verdict(&self, machine: &Machine, wanted: &Wanted, meaning: &str) -> Verdict {
        let facts = self.mismatch(machine, wanted);
        if facts.is_empty() {
            return Verdict::Good;
        }
        let own = Wanted { model_sha256: None, options: self.options.clone() };
        let [least, _, most] = self.options.batches;
        let runs = self.mismatch(machine, &own).is_empty();
        let takes = self.options.input == wanted.options.input && (least..=most).contains(&wanted.options.batch);
        let means = self.model.meaning.as_deref() == Some(meaning);
        if runs && takes && means { Verdict::Meanwhile(facts) } else { Verdict::Unfit(facts) }
    }
}

/// The sentence about an engine that does not fit: what [`Stamp::mismatch`] found, and what to do.
pub fn refusal(engine: &Path, facts: &[String]) -> String {
    let facts = facts.join("; ");
    format!("engine {}: {facts}: build it again with `watchpost engine build`", engine.display())
}

/// The first hex digits of a digest, enough to tell two apart.
pub fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

fn gpu_mismatch(built: &Gpu, here: &Gpu, facts: &mut Vec<String>) {
    // Two GPUs of one compute capability differ in memory and in the number of processors, which kernels were chosen by.
    if built.name != here.name || built.sm != here.sm {
        let named = |gpu: &Gpu| format!("{} (SM {})", gpu.name, gpu.sm);
        facts.push(format!("it was built on {}, this machine has {}", named(built), named(here)));
    }
}

fn options_mismatch(built: &Options, wanted: &Options, facts: &mut Vec<String>) {
    let mut differ = |what: &str, built: String, wanted: String| {
        if built != wanted {
            facts.push(format!("it was built {what} {built}, {wanted} is wanted"));
        }
    };
    differ("for", built.precision.to_string(), wanted.precision.to_string());
    let size = |(width, height): (u32, u32)| format!("{width}x{height}");
    differ("for input", size(built.input), size(wanted.input));
    let workspace = |bytes: Option<u64>| bytes.map_or_else(|| "no limit".to_owned(), mebibytes);
    differ("with a workspace of", workspace(built.workspace), workspace(wanted.workspace));
    let core = |core: Option<u32>| core.map_or_else(|| "the GPU".to_owned(), |core| format!("DLA core {core}"));
    differ("for", core(built.dla_core), core(wanted.dla_core));
    let sparse = |sparse: bool| if sparse { "sparse weights" } else { "dense weights" }.to_owned();
    differ("for", sparse(built.sparse), sparse(wanted.sparse));
    if built.plugins != wanted.plugins {
        facts.push("it was built with other plug-in libraries".to_owned());
    }
    if wanted.calibration.is_some() && built.calibration != wanted.calibration {
        facts.push("it was calibrated with other frames, or another table".to_owned());
    }
    let [least, _, most] = built.batches;
    if !(least..=most).contains(&wanted.batch) {
        let takes = if least == most { most.to_string() } else { format!("{least} to {most}") };
        facts.push(format!("it takes batches of {takes}, {} is wanted", wanted.batch));
    }
}

/// A size in whole MiB, or bytes where it is none.
fn mebibytes(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) { format!("{} MiB", bytes >> 20) } else { format!("{bytes} bytes") }
}

#[cfg(test)]
pub(super) mod tests;
