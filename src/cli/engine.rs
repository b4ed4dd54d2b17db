//! Arguments of `engine`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::config::parse_size;
use crate::engine::stamp::Precision;

/// What is done about a TensorRT engine.
#[derive(Debug, Subcommand)]
pub enum EngineCommand {
    /// Build a TensorRT engine of a model, for the GPU and the TensorRT of this machine.
    Build(EngineBuildArgs),
    /// Gather frames for INT8, from live cameras or from a folder.
    Calibrate(EngineCalibrateArgs),
    /// Show what a built engine is: its stamp, its layers after fusion, their time.
    Inspect(EngineFileArgs),
    /// Find operators that TensorRT will not take, and whether an engine fits this machine.
    Check(EngineCheckArgs),
    /// Run a built engine alone in a loop.
    Bench(EngineBenchArgs),
}

/// The machine's part.
#[derive(Args, Clone, Debug)]
pub struct MachineArgs {
    /// Folder of libnvinfer and the ONNX parser [default: the configuration's, else the loader's path].
    #[arg(long, value_name = "DIR")]
    pub tensorrt: Option<PathBuf>,
    /// Number of the CUDA device [default: the configuration's, else 0].
    #[arg(long, value_name = "N")]
    pub device: Option<usize>,
}

/// The model's part: a manifest, or a configuration that names one.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct ModelArgs {
    /// Engine manifest.
    #[arg(long, value_name = "MANIFEST")]
    pub manifest: Option<PathBuf>,
    /// Configuration file: its manifest, model, batch, device and state_dir hold.
    #[arg(long, value_name = "CONFIG")]
    pub config: Option<PathBuf>,
}

/// Arguments of `engine build`.
#[derive(Args, Debug)]
pub struct EngineBuildArgs {
    /// Manifest or configuration.
    #[command(flatten)]
    pub model: ModelArgs,
    /// ONNX file in place of the manifest's.
    #[arg(long, value_name = "ONNX")]
    pub onnx: Option<PathBuf>,
    /// Frames a call [default: the configuration's, else the model's, else 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub batch: Option<u16>,
    /// Least, best and most frames a call of a model whose batch is dynamic, such as 1,8,16 [default: the manifest's].
    #[arg(long, value_name = "MIN,OPT,MAX", value_delimiter = ',', num_args = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub batches: Option<Vec<u16>>,
    /// fp32, fp16 or int8 [default: the manifest's].
    #[arg(long, value_name = "PRECISION", value_parser = precision)]
    pub precision: Option<Precision>,
    /// Where the engine goes [default: the configuration's, else a name that says what it is for, in state_dir/engines,
    /// or in `built` beside the manifest].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The builder's measurements, read and written [default: beside the engine, one file a GPU and TensorRT].
    #[arg(long, value_name = "FILE")]
    pub timing_cache: Option<PathBuf>,
    /// Most GPU memory that a layer may use while it runs, such as 1GiB [default: the manifest's].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub workspace: Option<u64>,
    /// For int8: frames of `engine calibrate`, or a table of TensorRT's [default: the manifest's].
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// How progress is told.
    #[arg(long, value_enum, default_value_t = ProgressForm::Auto)]
    pub progress: ProgressForm,
    /// TensorRT and GPU.
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressForm {
    /// A bar on a terminal, else a line every ten seconds.
    Auto,
    /// A JSON object a line on standard output, each second.
    Json,
}

/// Arguments of `engine calibrate`.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["images", "config"])))]
pub struct EngineCalibrateArgs {
    /// Engine manifest [default: the configuration's].
    #[arg(long, value_name = "MANIFEST", required_unless_present = "config")]
    pub manifest: Option<PathBuf>,
    /// Pictures and clips, or folders of them.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub images: Vec<PathBuf>,
    /// Configuration file: frames come from its cameras.
    #[arg(long, value_name = "CONFIG")]
    pub config: Option<PathBuf>,
    /// How long to watch the cameras: a day's light and traffic make better frames than a minute's.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// How many frames in all.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub frames: u16,
    /// Where they go; put this path into the manifest as `tensorrt.calibration`.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `engine inspect`.
#[derive(Args, Debug)]
pub struct EngineFileArgs {
    /// A built engine.
    pub engine: PathBuf,
    /// A plug-in library that it was built with; once for each.
    #[arg(long, value_name = "FILE")]
    pub plugins: Vec<PathBuf>,
    /// Print the inspector's own JSON in place of the table.
    #[arg(long)]
    pub json: bool,
    /// TensorRT and GPU.
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// Arguments of `engine check`.
#[derive(Args, Debug)]
pub struct EngineCheckArgs {
    /// Engine manifest.
    pub manifest: PathBuf,
    /// A built engine whose stamp is held against manifest and machine.
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<PathBuf>,
    /// Frames a call that the engine must take [default: what it was built for].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub batch: Option<u16>,
    /// TensorRT and GPU.
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// Arguments of `engine bench`.
#[derive(Args, Debug)]
pub struct EngineBenchArgs {
    /// A built engine, or a manifest beside whose `built` folder one for this machine lies.
    pub engine: PathBuf,
    /// Frames a call [default: what the engine was tuned for].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub batch: Option<u16>,
    /// Contexts at work at once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub contexts: u16,
    /// How long to measure.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// A plug-in library that it was built with; once for each [default: the manifest's].
    #[arg(long, value_name = "FILE")]
    pub plugins: Vec<PathBuf>,
    /// Without CUDA graphs.
    #[arg(long)]
    pub no_graph: bool,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
    /// TensorRT and GPU.
    #[command(flatten)]
    pub machine: MachineArgs,
}

fn precision(text: &str) -> Result<Precision, String> {
    Precision::from_name(text).ok_or_else(|| "give fp32, fp16 or int8".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).filter(|bytes| *bytes > 0).ok_or_else(|| "give a size with a unit, such as 1GiB".to_owned())
}
