//! The configuration as it is written. Defaults stand in the `Default` implementations here and nowhere else.
//!
//! Required settings are `Option`s, so that [`super::resolve`] can report all that are missing at once. Addresses may
//! hold a password and are therefore [`Secret`]s. `config/example.toml` documents every setting.

mod analytics;
mod scene;

use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::{BackendChoice, Decode, DetectionsMode, MqttProtocol, Pace, Precision, Secret, Transport, units};

pub(super) use analytics::{
    FileCameraEvents, FileCameraMotion, FileDeepstream, FileEvents, FileFrigate, FileHomeAssistant, FileMotion,
    FileSnapshots, FileSwitch, FileTracking,
};
pub(super) use scene::{ALWAYS, FileIgnored, FileLine, FilePoint, FilePoints, FileRule, FileSchedule, FileZone};

/// The schema of a `[[camera]]` section.
pub fn camera_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<FileCamera>()
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct FileConfig {
    pub node: Option<String>,
    pub state_dir: PathBuf,
    #[serde(deserialize_with = "units::duration")]
    pub stop_deadline: Duration,
    pub engine: FileEngine,
    pub mqtt: FileMqtt,
    pub http: FileHttp,
    pub tracking: FileTracking,
    pub events: FileEvents,
    pub snapshots: FileSnapshots,
    pub motion: FileMotion,
    pub homeassistant: FileHomeAssistant,
    pub frigate: FileFrigate,
    pub deepstream: FileDeepstream,
    pub onvif: FileSwitch,
    pub cloudevents: FileSwitch,
    pub schedule: Vec<FileSchedule>,
    pub camera: Vec<FileCamera>,
}

impl Default for FileConfig {
    fn default() -> Self {
        Self {
            node: None,
            state_dir: PathBuf::from("/var/lib/watchpost"),
            stop_deadline: Duration::from_secs(10),
            engine: FileEngine::default(),
            mqtt: FileMqtt::default(),
            http: FileHttp::default(),
            tracking: FileTracking::default(),
            events: FileEvents::default(),
            snapshots: FileSnapshots::default(),
            motion: FileMotion::default(),
            homeassistant: FileHomeAssistant::default(),
            frigate: FileFrigate::default(),
            deepstream: FileDeepstream::default(),
            onvif: FileSwitch::default(),
            cloudevents: FileSwitch::default(),
            schedule: Vec::new(),
            camera: Vec::new(),
        }
    }
}

/// `[engine]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct FileEngine {
    pub manifest: Option<PathBuf>,
    pub model: Option<PathBuf>,
    pub batch: i64,
    #[serde(deserialize_with = "units::duration")]
    pub batch_deadline: Duration,
    pub confidence: Option<f64>,
    pub nms: Option<f64>,
    pub backend: BackendChoice,
    pub openvino: FileOpenvino,
    pub tensorrt: FileTensorrt,
}

impl Default for FileEngine {
    fn default() -> Self {
        Self {
            manifest: None,
            model: None,
            batch: 1,
            batch_deadline: Duration::from_millis(40),
            confidence: None,
            nms: None,
            backend: BackendChoice::Auto,
            openvino: FileOpenvino::default(),
            tensorrt: FileTensorrt::default(),
        }
    }
}

/// `[engine.openvino]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct FileOpenvino {
    pub library: Option<PathBuf>,
    pub device: String,
    pub precision: Precision,
    pub requests: i64,
    pub streams: i64,
    pub threads: i64,
}

impl Default for FileOpenvino {
    fn default() -> Self {
        let (requests, streams, threads) = (2, 0, 0);
        Self { library: None, device: "CPU".to_owned(), precision: Precision::Auto, requests, streams, threads }
    }
}

/// `[engine.tensorrt]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct FileTensorrt {
    pub library: Option<PathBuf>,
    pub engine: Option<PathBuf>,
    pub device: i64,
    pub contexts: i64,
    pub build: bool,
}

impl Default for FileTensorrt {
    fn default() -> Self {
        Self { library: None, engine: None, device: 0, contexts: 2, build: true }
    }
}

/// `[mqtt]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct FileMqtt {
    pub broker: Secret,
    pub base: String,
    pub protocol: MqttProtocol,
    pub client_id: Option<String>,
    #[serde(deserialize_with = "units::duration")]
    pub keep_alive: Duration,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub password_env: Option<String>,
    pub password_credential: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    #[serde(deserialize_with = "units::size")]
    pub spool: u64,
    pub embedded_listen: String,
}

impl Default for FileMqtt {
    fn default() -> Self {
        Self {
            broker: Secret::new("embedded".to_owned()),
            base: "watchpost".to_owned(),
            protocol: MqttProtocol::Auto,
            client_id: None,
            keep_alive: Duration::from_secs(15),
            user: None,
            password_file: None,
            password_env: None,
            password_credential: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            spool: 256 << 20,
            embedded_listen: "127.0.0.1:1883".to_owned(),
        }
    }
}

/// `[http]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct FileHttp {
    pub enabled: bool,
    pub listen: String,
    pub token_file: Option<PathBuf>,
    pub token_credential: Option<String>,
}

impl Default for FileHttp {
    fn default() -> Self {
        Self { enabled: true, listen: "127.0.0.1:9400".to_owned(), token_file: None, token_credential: None }
    }
}

/// `[[camera]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
#[schemars(rename = "Camera")]
pub(super) struct FileCamera {
    pub id: Option<String>,
    pub enabled: bool,
    #[schemars(with = "Option<String>")]
    pub url: Option<Secret>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub password_env: Option<String>,
    pub password_credential: Option<String>,
    pub transport: Transport,
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub latency: Duration,
    pub ca_file: Option<PathBuf>,
    pub tls_verify: bool,
    pub decode: Decode,
    pub pipeline: Option<String>,
    pub fps_max: Option<f64>,
    pub priority: i64,
    pub mask: Vec<FilePoints>,
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub stall_timeout: Duration,
    pub pace: Pace,
    pub repeat: bool,
    pub detections: DetectionsMode,
    pub detections_hz_max: Option<f64>,
    pub zone: Vec<FileZone>,
    pub line: Vec<FileLine>,
    pub filter: Vec<FileRule>,
    pub ignore: Vec<FileIgnored>,
    pub events: FileCameraEvents,
    pub motion: FileCameraMotion,
}

impl Default for FileCamera {
    fn default() -> Self {
        Self {
            id: None,
            enabled: true,
            url: None,
            user: None,
            password_file: None,
            password_env: None,
            password_credential: None,
            transport: Transport::Tcp,
            latency: Duration::from_millis(200),
            ca_file: None,
            tls_verify: true,
            decode: Decode::Auto,
            pipeline: None,
            fps_max: None,
            priority: 5,
            mask: Vec::new(),
            stall_timeout: Duration::from_millis(3500),
            pace: Pace::Realtime,
            repeat: false,
            detections: DetectionsMode::All,
            detections_hz_max: None,
            zone: Vec::new(),
            line: Vec::new(),
            filter: Vec::new(),
            ignore: Vec::new(),
            events: FileCameraEvents::default(),
            motion: FileCameraMotion::default(),
        }
    }
}

/// The picture of a `test://` camera, where its address does not say otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TestPicture {
    pub size: (u32, u32),
    pub fps: u32,
    pub pattern: String,
}

impl Default for TestPicture {
    fn default() -> Self {
        Self { size: (640, 480), fps: 10, pattern: "ball".to_owned() }
    }
}

/// What is asked of a `csi://` camera, where its address does not say otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CsiPicture {
    pub sensor: u32,
    pub size: (u32, u32),
    pub fps: u32,
}

impl Default for CsiPicture {
    fn default() -> Self {
        Self { sensor: 0, size: (1920, 1080), fps: 30 }
    }
}
