//! Configuration: `file` is what was written, [`Config`] is what is true.
//!
//! All commands use the same [`load`]. Every problem is reported at once, with its line and path.

mod analytics;
mod diff;
mod draft;
mod file;
mod labels;
mod load;
mod report;
mod resolve;
mod secret;
mod shape;
mod units;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::frame::CameraId;
use crate::mask::RegionMask;
use crate::track::filter::Filter;
use crate::track::line::Line;
use crate::track::tracker::TrackerSettings;
use crate::track::zone::Zone;

pub use analytics::{
    DeepstreamConfig, DeepstreamSchema, EventRules, FrigateConfig, HomeAssistantConfig, MotionConfig,
    SnapshotsConfig,
};
pub use diff::{Plan, plan};
pub use draft::{CameraEdit, Draft};
pub use file::camera_schema;
pub use labels::{LabelUse, unknown_labels};
pub use load::{Inspection, Problem, Problems, WHOLE_FILE, inspect, load, open, parse};
pub use resolve::source::of_address as parse_source;
pub use secret::Secret;
pub use units::parse_size;

/// Least keep-alive of MQTT: its client accepts no less.
pub const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);

/// The configuration of one process, checked and complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of this box: a topic level.
    pub node: String,
    /// Where the spool and caches live.
    pub state_dir: PathBuf,
    /// How long a stop may take before the process ends at once.
    pub stop_deadline: Duration,
    /// The model and what runs it.
    pub engine: EngineConfig,
    /// The broker and what is said to it.
    pub mqtt: MqttConfig,
    /// The HTTP server.
    pub http: HttpConfig,
    /// How detections become tracks; `None`: not at all, and so no camera has zones, lines or events.
    pub tracking: Option<TrackerSettings>,
    /// The best pictures of events; `None`: none are made.
    pub snapshots: Option<SnapshotsConfig>,
    /// Discovery by Home Assistant; `None`: off.
    pub homeassistant: Option<HomeAssistantConfig>,
    /// Events and counts as Frigate publishes them; `None`: off.
    pub frigate: Option<FrigateConfig>,
    /// Messages as DeepStream publishes them; `None`: off.
    pub deepstream: Option<DeepstreamConfig>,
    /// Messages as ONVIF cameras publish them.
    pub onvif: bool,
    /// Events as CloudEvents.
    pub cloudevents: bool,
    /// The cameras, in the order written; ids are unique.
    pub cameras: Vec<CameraConfig>,
    /// Where labels are named: only the model's manifest says which there are.
    pub labels: Vec<LabelUse>,
    /// SHA-256 of the file as written, first 12 hex digits.
    pub hash: String,
}

/// The model and the backend that runs it.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// The engine manifest (`engines/*.toml`).
    pub manifest: PathBuf,
    /// Takes the place of the manifest's model file.
    pub model: Option<PathBuf>,
    /// Frames an engine call takes; the model is reshaped to it.
    pub batch: usize,
    /// How long a frame may wait for its batch to fill.
    pub batch_deadline: Duration,
    /// Overrides the manifest's confidence threshold, 0..1.
    pub confidence: Option<f32>,
    /// Overrides the manifest's NMS overlap (IoU) limit, 0..1.
    pub nms: Option<f32>,
    /// What runs the model.
    pub backend: BackendChoice,
    /// Settings of the OpenVINO backend.
    pub openvino: OpenvinoConfig,
    /// Settings of the TensorRT backend.
    pub tensorrt: TensorrtConfig,
}

/// What runs the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// TensorRT where there is an NVIDIA GPU and the library, else OpenVINO.
    Auto,
    /// OpenVINO.
    Openvino,
    /// TensorRT.
    Tensorrt,
}

/// Settings of the TensorRT backend.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorrtConfig {
    /// Folder of TensorRT's libraries; the loader's path where it is not given.
    pub library: Option<PathBuf>,
    /// A built engine in place of the one that is kept below `state_dir`.
    pub engine: Option<PathBuf>,
    /// Number of the CUDA device.
    pub device: usize,
    /// Batches in flight, 1..=8: a context, a stream and a set of buffers each.
    pub contexts: usize,
    /// Builds an engine that is missing or was built for something else.
    pub build: bool,
}

/// Settings of the OpenVINO backend.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenvinoConfig {
    /// Path of `libopenvino_c.so`; searched in the usual places where it is not given.
    pub library: Option<PathBuf>,
    /// `CPU`, `GPU`, `NPU` or `AUTO`, as OpenVINO names devices (`GPU.1` too).
    pub device: String,
    /// Inference precision.
    pub precision: Precision,
    /// Batches in flight, 1..=16.
    pub requests: usize,
    /// Execution streams; 0 = as many as requests.
    pub streams: usize,
    /// CPU threads for inference; 0 = OpenVINO's own choice.
    pub threads: usize,
}

/// Precision hint of the OpenVINO backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// What the device does best (bfloat16 on CPUs that have it).
    Auto,
    /// float32.
    F32,
    /// float16.
    F16,
    /// bfloat16.
    Bf16,
}

/// The broker and what is said to it.
#[derive(Clone, Debug, PartialEq)]
pub struct MqttConfig {
    /// Where the broker is.
    pub broker: Broker,
    /// First topic level(s), without a slash at either end.
    pub base: String,
    /// Protocol: MQTT 5 with a fall-back to 3.1.1, or one of the two.
    pub protocol: MqttProtocol,
    /// Client id; `watchpost-{node}` by default.
    pub client_id: String,
    /// Whole seconds, at least 5; from 9 on a box that falls silent is `offline` within 1.5 times this.
    pub keep_alive: Duration,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// TLS settings; used where the broker's scheme is `mqtts`.
    pub tls: TlsConfig,
    /// Most bytes of spooled messages on disk.
    pub spool_bytes: u64,
}

/// Where the broker is.
#[derive(Clone, Debug, PartialEq)]
pub enum Broker {
    /// In this process, MQTT 3.1.1 whatever the protocol setting says. Other than loopback only with a user.
    Embedded {
        /// Where it listens.
        listen: SocketAddr,
    },
    /// On the network.
    Remote {
        /// Host name or address.
        host: String,
        /// Port, 1883 (TLS: 8883) by default.
        port: u16,
        /// `mqtts`.
        tls: bool,
    },
}

/// Protocol version of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MqttProtocol {
    /// 5 first, 3.1.1 where the broker refuses 5.
    Auto,
    /// MQTT 5 only.
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1 only.
    #[serde(rename = "3.1.1")]
    V4,
}

/// TLS settings of the broker connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsConfig {
    /// Certificate authority (PEM); the system's own where absent.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain (PEM).
    pub cert_file: Option<PathBuf>,
    /// Client key (PEM).
    pub key_file: Option<PathBuf>,
}

/// The HTTP server.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    /// Serve at all.
    pub enabled: bool,
    /// Address; other than loopback only with a token.
    pub listen: SocketAddr,
    /// Bearer token asked for on every path but `/healthz` where set.
    pub token: Option<Secret>,
}

/// One camera.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraConfig {
    /// Unique name, a topic level.
    pub id: CameraId,
    /// On at start (MQTT `enabled/set` switches it until the next start).
    pub enabled: bool,
    /// Where the video comes from.
    pub source: Source,
    /// What decodes it. Without meaning where `pipeline` is a file.
    pub decode: Decode,
    /// Pipeline description: a built-in name (`rtsp`, `file`, `v4l2`, `csi`, `test`) or a file's path.
    pub pipeline: String,
    /// Most frames a second given to the model; `None` = all.
    pub fps_max: Option<f64>,
    /// Share of inference under overload relative to the others, 1..=10.
    pub priority: u8,
    /// Polygons whose pixels are never looked at.
    pub mask: Option<Arc<RegionMask>>,
    /// No frame for this long rebuilds the camera's pipeline.
    pub stall_timeout: Duration,
    /// Which frames are published on `detections`.
    pub detections: DetectionsMode,
    /// Most `detections` messages a second; `None` = no limit.
    pub detections_hz_max: Option<f64>,
    /// Areas that tracks enter and leave, in the order written; names are unique in a camera.
    pub zones: Vec<Zone>,
    /// Lines that tracks cross, in the order written; names are unique in a camera.
    pub lines: Vec<Line>,
    /// Which detections are dropped before tracking.
    pub filter: Filter,
    /// Which tracks become events; `None`: none.
    pub events: Option<EventRules>,
    /// Frames go to the model only while something moves; `None`: all do.
    pub motion: Option<MotionConfig>,
}

/// Where a camera's video comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// RTSP or RTSPS.
    Rtsp(RtspSource),
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// At its own frame rate, or as fast as it can be analysed.
        pace: Pace,
        /// Start again at the end.
        repeat: bool,
    },
    /// A V4L2 device.
    V4l2 {
        /// Device node, such as `/dev/video0`.
        device: PathBuf,
    },
    /// A camera on a Jetson's CSI connector.
    Csi {
        /// Number of the sensor, from 0.
        sensor: u32,
        /// Width and height in pixels.
        size: (u32, u32),
        /// Frames a second.
        fps: u32,
    },
    /// A moving test picture.
    Test {
        /// Width and height in pixels.
        size: (u32, u32),
        /// Frames a second.
        fps: u32,
        /// `videotestsrc` pattern name.
        pattern: String,
    },
}

/// What decodes a camera's video, and so in which memory its frames lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decode {
    /// The GPU where the engine takes frames from its memory and a decoder for it is installed, else the CPU.
    Auto,
    /// The CPU, into host memory.
    Software,
    /// NVIDIA's decoder through GStreamer's own plug-in, into CUDA memory.
    Cuda,
    /// NVIDIA's decoder through the elements of JetPack or DeepStream, into NVMM surfaces.
    Jetson,
}

/// An RTSP or RTSPS address and how to speak to it.
#[derive(Clone, Debug, PartialEq)]
pub struct RtspSource {
    /// `rtsp://` or `rtsps://` URL without user and password.
    pub url: String,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// How RTP travels.
    pub transport: Transport,
    /// Jitter buffer.
    pub latency: Duration,
    /// Certificate authority (PEM) for this camera.
    pub ca_file: Option<PathBuf>,
    /// `false` accepts any certificate (RTSPS only).
    pub verify: bool,
}

/// How RTP travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Interleaved in the RTSP connection.
    Tcp,
    /// UDP.
    Udp,
}

/// How fast a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// At its own frame rate.
    Realtime,
    /// As fast as it can be analysed, without losing a frame.
    Fast,
}

/// Which frames are published on `detections`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DetectionsMode {
    /// Every inferred frame.
    All,
    /// Frames with at least one object.
    Nonempty,
    /// Frames whose counts by label differ from the one before.
    Change,
    /// None.
    Off,
}
