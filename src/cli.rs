//! The command line: argument types and exit codes.

pub mod engine;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::gpu::trt::Library;

/// Edge video analytics: many cameras in, batched detections out on MQTT.
#[derive(Debug, Parser)]
#[command(name = "watchpost", version, long_version = long_version(), about, max_term_width = 100)]
#[command(after_long_help = EXIT_CODES)]
pub struct Cli {
    /// What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG).
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon.
    Run {
        /// Configuration file.
        #[arg(default_value = "/etc/watchpost/watchpost.toml")]
        config: PathBuf,
    },
    /// Check a configuration and this machine: every problem at once.
    Check {
        /// Configuration file.
        #[arg(default_value = "/etc/watchpost/watchpost.toml")]
        config: PathBuf,
    },
    /// Connect to one camera, say what it delivers and save one picture.
    Probe(ProbeArgs),
    /// Run a model over pictures.
    Detect(DetectArgs),
    /// TensorRT engines: build, calibrate, inspect, check, bench.
    #[command(subcommand)]
    Engine(engine::EngineCommand),
    /// Measure end to end, the engine alone and decoding alone, in one run.
    Bench(BenchArgs),
    /// Print the JSON Schemas of the messages.
    Schema {
        /// Write one file a message into this folder instead.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Write man pages and shell completions.
    #[command(hide = true)]
    Manual {
        /// Folder in which `man` and `completions` are made.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// What [`Code`] says, for those who read the help.
const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 a fault of watchpost's own; 2 wrong arguments; 69 device, engine, model or library not available; \
74 the spool cannot be read or written; 78 the configuration is wrong.";

/// What `--version` says: the commit where a package was built, and which TensorRT this program can use, too.
fn long_version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let slices = Library::slices();
        let slices = if slices.is_empty() { "none".to_owned() } else { slices.join(", ") };
        let commit = option_env!("WATCHPOST_COMMIT").map(|commit| format!(" ({commit})")).unwrap_or_default();
        format!("{}{commit}\nTensorRT {slices}", env!("CARGO_PKG_VERSION"))
    });
    &TEXT
}

/// Arguments of `probe`.
#[derive(Args, Debug)]
pub struct ProbeArgs {
    /// `rtsp://`, `rtsps://`, `v4l2://`, `test://`, `file://` or a path. A password in it is never shown.
    pub url: String,
    /// How long to watch.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Where the picture goes.
    #[arg(long, default_value = "probe.jpg", value_name = "FILE")]
    pub jpeg: PathBuf,
    /// RTP over UDP instead of TCP.
    #[arg(long)]
    pub udp: bool,
    /// Certificate authority (PEM) of an RTSPS camera.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Accept any certificate.
    #[arg(long)]
    pub insecure: bool,
}

/// Arguments of `detect`.
#[derive(Args, Debug)]
pub struct DetectArgs {
    /// Engine manifest.
    #[arg(long, value_name = "MANIFEST")]
    pub engine: PathBuf,
    /// ONNX file in place of the manifest's.
    #[arg(long, value_name = "ONNX")]
    pub model: Option<PathBuf>,
    /// Pictures, or folders of them.
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// Write COCO results here; the image id is the number in the file name.
    #[arg(long, value_name = "FILE")]
    pub coco: Option<PathBuf>,
    /// Follow objects through videos, with the default settings of [tracking]: a line of JSON a frame and a track.
    #[arg(long, conflicts_with = "coco")]
    pub track: bool,
    /// With --track, most frames a second of video time.
    #[arg(long, value_name = "N", requires = "track")]
    pub fps_max: Option<f32>,
    /// Least score [default: 0.01 with --coco, 0.1 with --track, else the manifest's].
    #[arg(long)]
    pub confidence: Option<f32>,
    /// Overlap limit of NMS [default: 0.65 with --coco, else the manifest's].
    #[arg(long)]
    pub nms: Option<f32>,
    /// Inference precision: auto, f32, f16, bf16.
    #[arg(long, default_value = "auto")]
    pub precision: String,
    /// OpenVINO device.
    #[arg(long, default_value = "CPU")]
    pub device: String,
    /// Path of libopenvino_c.so.
    #[arg(long, value_name = "FILE")]
    pub openvino: Option<PathBuf>,
    /// Run this TensorRT engine, built by `engine build` from the same manifest.
    #[arg(long, value_name = "ENGINE")]
    pub built: Option<PathBuf>,
    /// Folder of TensorRT's libraries.
    #[arg(long, value_name = "DIR")]
    pub tensorrt: Option<PathBuf>,
}

/// Arguments of `bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Configuration file; its cameras should be files with `pace = "fast"` and `repeat = true`.
    pub config: PathBuf,
    /// Seconds for each of the three measurements.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Write the figures here as JSON too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Why the process ends, for scripts and service managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Something of ours is wrong.
    Internal = 1,
    /// Device, engine, model or library unavailable.
    Unavailable = 69,
    /// The spool cannot be read or written.
    Spool = 74,
    /// The configuration is wrong: a restart does not help.
    Config = 78,
}

/// An error that ends the process.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// One sentence, or one a problem.
    pub text: String,
}

impl Failure {
    /// A failure with its text.
    pub fn new(code: Code, text: impl ToString) -> Self {
        Self { code, text: text.to_string() }
    }
}
