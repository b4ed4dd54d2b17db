//! What leaves the machine: the messages of the MQTT contract, and nothing that is not sent.
//!
//! Times are RFC 3339 in UTC with milliseconds. Boxes are x1, y1, x2, y2, 0..1 of the **source** frame.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::frame::{CameraId, ClockSource};
pub use crate::track::line::Direction;

/// Version of the `detections` message.
pub const DETECTIONS_SCHEMA: &str = "watchpost.detections/1";
/// Version of the `events` message.
pub const EVENT_SCHEMA: &str = "watchpost.event/1";
/// Version of the `notice` message.
pub const NOTICE_SCHEMA: &str = "watchpost.notice/1";
/// Version of the `info` message.
pub const INFO_SCHEMA: &str = "watchpost.info/1";
/// Version of the `health` message.
pub const HEALTH_SCHEMA: &str = "watchpost.health/1";
/// Version of the camera `state` message.
pub const STATE_SCHEMA: &str = "watchpost.camera_state/1";

/// RFC 3339 in UTC with milliseconds.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// `{base}/{node}/cam/{cam}/detections`: one inferred frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Detections {
    /// [`DETECTIONS_SCHEMA`].
    pub schema: Cow<'static, str>,
    /// Name of the box.
    pub node: Arc<str>,
    /// Name of the camera.
    #[schemars(with = "String")]
    pub camera: CameraId,
    /// This start of the daemon: 6 hex digits.
    pub boot: Arc<str>,
    /// Number of the message on this topic in this boot, from 0.
    pub seq: u64,
    /// Number of the decoded frame in this boot, from 0.
    pub frame: u64,
    /// When.
    pub ts: Ts,
    /// Width and height of the source in pixels.
    pub size: [u32; 2],
    /// The model.
    pub model: Arc<Model>,
    /// Where the time went.
    pub lat_ms: LatMs,
    /// What was seen, the best score first.
    pub objects: Vec<Object>,
}

/// When a frame was caught and published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ts {
    /// Capture time, by `clock`.
    pub captured: String,
    /// The clock of `captured`.
    pub clock: ClockSource,
    /// Bound of the error of `captured` that is known, in milliseconds.
    pub err_ms: u32,
    /// When this message was made, by the host's clock.
    pub published: String,
    /// Presentation time stamp in the stream, nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pts_ns: Option<u64>,
}

/// The model behind a message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// Name from the manifest.
    pub name: String,
    /// Width and height of its input in pixels.
    pub input: [u32; 2],
    /// `sha256:` and the first hex digits of the engine's digest.
    pub engine: String,
}

/// Where the time of a frame went, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LatMs {
    /// Arrival to decoded.
    pub decode: f64,
    /// Decoded to handed to the engine.
    pub queue: f64,
    /// Engine, with pre- and post-processing.
    pub infer: f64,
    /// Arrival to published.
    pub total: f64,
}

/// One detected object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Object {
    /// Id of its track, `{camera}-{boot}-{n}`, once it is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<String>,
    /// Class name.
    pub label: Arc<str>,
    /// Class number.
    pub class: u32,
    /// Score, 0..1.
    pub score: f32,
    /// x1, y1, x2, y2, 0..1 of the source.
    #[serde(rename = "box")]
    pub rect: [f32; 4],
    /// Zones it is in; absent where the camera has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<String>,
}

/// `{base}/{node}/cam/{cam}/events`: the life of a track. Spooled, QoS 1: one `new`, any number of `update`, exactly
/// one `end`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// [`EVENT_SCHEMA`].
    pub schema: String,
    /// Name of the box.
    pub node: String,
    /// Name of the camera.
    pub camera: String,
    /// This start of the daemon: 6 hex digits. An `end` with the reason `restart` is from the start after the track's.
    pub boot: String,
    /// Number of the message on this topic in this boot, from 0.
    pub seq: u64,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Id of the track, `{camera}-{boot}-{n}`: the same in all its events, never used again.
    pub id: String,
    /// Number of the decoded frame it was seen in last.
    pub frame: u64,
    /// When that frame was caught.
    pub ts: Ts,
    /// Width and height of the source in pixels.
    pub size: [u32; 2],
    /// The model.
    pub model: Model,
    /// Class name, by the vote of all frames so far.
    pub label: String,
    /// Class number.
    pub class: u32,
    /// Score in that frame, 0..1.
    pub score: f32,
    /// Best score so far, 0..1.
    pub top_score: f32,
    /// x1, y1, x2, y2, 0..1 of the source.
    #[serde(rename = "box")]
    pub rect: [f32; 4],
    /// Zones it is in.
    pub zones: Vec<String>,
    /// Zones it has been in, in the order of the first time.
    pub entered_zones: Vec<String>,
    /// Seconds of its stay in each of them, from when it was first seen inside to when it was last; of several stays the
    /// latest.
    pub dwell_s: BTreeMap<String, f64>,
    /// Lines it has crossed, in order: the latest 100.
    pub crossings: Vec<Crossing>,
    /// When it was seen first.
    pub start: String,
    /// When it was seen last; in an `end` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// It has not moved for a while.
    pub stationary: bool,
    /// Why it ended; in an `end` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// Where its picture can be had: a path of this box's HTTP server, which may take a moment to have it. Absent where there is
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_url: Option<String>,
    /// Sent again, or later than it happened, because the broker was away.
    pub replayed: bool,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The track is confirmed.
    New,
    /// Something about it changed.
    Update,
    /// It is over.
    End,
}

/// Why a track ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// It went out of the picture.
    Left,
    /// It was no longer seen.
    Lost,
    /// The camera went away.
    CameraLost,
    /// The camera was switched off.
    Disabled,
    /// The camera was taken out of the configuration, built anew by it, or is not tracked any more.
    Removed,
    /// The daemon ended without a word; this is from its next start.
    Restart,
    /// The daemon was stopped.
    Shutdown,
}

/// A line that was crossed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Crossing {
    /// Name of the line.
    pub line: String,
    /// Which way.
    pub direction: Direction,
    /// When the frame was caught.
    pub at: String,
}

/// What is counted in a camera's picture. As text it is the topic's end: `count/person`, `zone/drive/count/person`,
/// `line/gate/in/person`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Objects of a class that are there now.
    Label(String),
    /// Those in a zone: its name and the class.
    Zone(String, String),
    /// Those that have crossed a line since the start, or since the camera was away or built anew: its name, which way, the class.
    Line(String, Direction, String),
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "count/{}", label_level(label)),
            Self::Zone(zone, label) => write!(f, "zone/{zone}/count/{}", label_level(label)),
            Self::Line(line, direction, label) => {
                let direction = if *direction == Direction::In { "in" } else { "out" };
                write!(f, "line/{line}/{direction}/{}", label_level(label))
            }
        }
    }
}

/// A class name as a topic level: lower case, blanks as underscores, nothing that MQTT forbids in a level. `_` where
/// nothing is left.
pub fn label_level(label: &str) -> String {
    let kept =
        label.trim().chars().filter(|c| !matches!(c, '+' | '#' | '/') && (c.is_whitespace() || !c.is_control()));
    let level: String =
        kept.flat_map(|c| if c.is_whitespace() { '_' } else { c }.to_lowercase().collect::<Vec<_>>()).collect();
    if level.is_empty() { "_".to_owned() } else { level }
}

/// `{base}/{node}/notice`: something a person or program should know. Spooled; never lost while the spool has room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Notice {
    /// [`NOTICE_SCHEMA`].
    pub schema: String,
    /// Name of the box.
    pub node: String,
    /// This start of the daemon.
    pub boot: String,
    /// Number of the message on this topic in this boot, from 0.
    pub seq: u64,
    /// When it happened.
    pub at: String,
    /// Machine-readable kind.
    pub kind: NoticeKind,
    /// Camera it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub camera: Option<String>,
    /// One sentence for people.
    pub text: String,
    /// Of `engine_build`: how much of it is done, 0..100; absent where it failed, and in every other kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pct: Option<u8>,
    /// Sent again, or later than it happened, because the broker was away.
    pub replayed: bool,
}

/// Kinds of notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// The daemon started.
    Started,
    /// The daemon is stopping.
    Stopping,
    /// A camera went away.
    CameraLost,
    /// A camera came back.
    CameraBack,
    /// The spool was full: the oldest messages were dropped.
    SpoolOverflow,
    /// A camera began more tracks than may become events.
    EventsSuppressed,
    /// The spool file was damaged: it was moved aside, and a new one begun with the messages found whole in it.
    SpoolReset,
    /// The broker refused a message for good.
    DeadLetter,
    /// A command was refused.
    CommandRefused,
    /// The configuration was read again, and what came of that.
    ReloadResult,
    /// A command added, changed or removed a camera.
    CamerasChanged,
    /// The backend failed and was opened anew.
    BackendReopened,
    /// An engine is being built for this machine.
    EngineBuild,
    /// Frames arrive faster than they can be analysed.
    Overload,
    /// The overload is over.
    OverloadOver,
}

/// `{base}/{node}/info`, retained: what runs here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Info {
    /// [`INFO_SCHEMA`].
    pub schema: String,
    /// Name of the box.
    pub node: String,
    /// This start of the daemon.
    pub boot: String,
    /// watchpost's version.
    pub version: String,
    /// When the daemon started.
    pub started: String,
    /// Hash of the configuration.
    pub config: String,
    /// The model.
    pub model: Model,
    /// What runs the model.
    pub runtime: String,
    /// What its engine was built for; absent where the model is run as it is (OpenVINO).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineStamp>,
    /// Message schemas spoken, by topic.
    pub schemas: BTreeMap<String, String>,
    /// Configured cameras.
    pub cameras: Vec<String>,
}

/// What a TensorRT engine was built for: the essentials of the stamp beside its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EngineStamp {
    /// The library and all its numbers, such as `TensorRT 8.5.3.1`.
    pub tensorrt: String,
    /// The GPU's name; absent where the engine is for any, as `sm` is then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Its compute capability, such as `9.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm: Option<String>,
    /// `fp32`, `fp16` or `int8`.
    pub precision: String,
    /// Frames a call, at which it was tuned.
    pub batch: usize,
}

/// State of a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CameraStatus {
    /// Frames arrive.
    Online,
    /// No frames; being retried.
    Offline,
    /// Switched off.
    Disabled,
    /// A file that was read to its end.
    Finished,
}

/// `{base}/{node}/cam/{cam}/state`, retained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CameraState {
    /// [`STATE_SCHEMA`].
    pub schema: String,
    /// Name of the camera.
    pub camera: String,
    /// Its state.
    pub status: CameraStatus,
    /// Why it is in this state, for people.
    pub reason: String,
    /// Since when.
    pub since: String,
    /// Failed attempts to connect since it was last online.
    pub attempts: u32,
    /// Milliseconds until the next attempt, from when this message was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_retry_ms: Option<u64>,
    /// Width and height of the source in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<[u32; 2]>,
    /// Clock of capture times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockSource>,
    /// Frames decoded a second, over the last interval.
    pub fps: f64,
    /// Frames that were to be analysed and were not: `overwritten` and `dropped` of `frames`.
    pub drops: u64,
    /// Frames since the start of the daemon.
    pub frames: FrameCounts,
    /// Age of the frame published last, arrival to published, in milliseconds.
    pub frame_age_ms: f64,
}

/// What became of a camera's frames. `decoded` = `inferred` + `overwritten` + `skipped_fps` + `gated` + `dropped` +
/// those on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FrameCounts {
    /// Left the decoder.
    pub decoded: u64,
    /// Went through the model.
    pub inferred: u64,
    /// Overwritten in the slot by a newer frame.
    pub overwritten: u64,
    /// Skipped by `fps_max`.
    pub skipped_fps: u64,
    /// Not given to the model: the motion gate saw nothing move.
    pub gated: u64,
    /// Lost with a failed batch, or left over when the camera or the daemon stopped.
    pub dropped: u64,
}

/// `{base}/{node}/health`, every 10 s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// [`HEALTH_SCHEMA`].
    pub schema: String,
    /// Name of the box.
    pub node: String,
    /// This start of the daemon.
    pub boot: String,
    /// Number of the message in this boot, from 0.
    pub seq: u64,
    /// When it was made.
    pub at: String,
    /// Ready: backend warmed.
    pub ready: bool,
    /// Why not ready, or what is wrong; empty when all is well.
    pub problems: Vec<String>,
    /// Frames are thrown away because they arrive faster than they can be analysed, or grow old.
    pub overload: bool,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// Mean share of lanes filled, 0..1, over the last interval.
    pub batch_fill: f64,
    /// Frames inferred a second, over the last interval.
    pub fps: f64,
    /// Frame age (arrival to published), 95th percentile over the last interval, milliseconds.
    pub frame_age_p95_ms: f64,
    /// Spooled messages not yet acknowledged.
    pub spool_pending: u64,
    /// Spooled messages dropped because the spool was full.
    pub spool_dropped: u64,
    /// `detections` messages dropped because the broker was slow or away.
    pub detections_dropped: u64,
    /// The cameras, by name.
    pub cameras: BTreeMap<String, CameraHealth>,
}

/// One camera in `health`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CameraHealth {
    /// Its state.
    pub status: CameraStatus,
    /// Frames decoded a second, over the last interval.
    pub fps: f64,
    /// Frames inferred a second, over the last interval.
    pub inferred_fps: f64,
    /// Age of the frame published last, arrival to published, in milliseconds.
    pub frame_age_ms: f64,
    /// Frames since the start of the daemon.
    pub frames: FrameCounts,
}
