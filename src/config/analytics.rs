//! What is made of detections: tracks, events, snapshots, and the forms in which others read them.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// Which tracks of a camera become events.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRules {
    /// Classes, by name; all where there is none.
    pub labels: Vec<String>,
    /// A track becomes an event when its best score has reached this, 0..1.
    pub min_score: f32,
    /// Indices into the camera's zones: a track becomes an event once it has entered one of them; at once where there is
    /// none.
    pub zones: Vec<usize>,
    /// Least time between two updates of an event that are due to nothing but movement, a better score and a better picture,
    /// 100 ms..=1 h.
    pub update_every: Duration,
    /// Most tracks that become events, a second (of a file its own) and in the long run, above 0..=1000; ten seconds' worth at once.
    pub new_hz_max: f64,
}

/// The best pictures of events.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotsConfig {
    /// Where they are kept.
    pub folder: PathBuf,
    /// Most bytes kept, 1 MiB..=1 TiB; the oldest are deleted.
    pub max_bytes: u64,
    /// Older ones are deleted, 1 min..=10 years.
    pub max_age: Duration,
    /// Quality of the JPEG, 1..=100.
    pub quality: u8,
    /// Draw the object's box.
    pub draw_box: bool,
    /// Publish them too.
    pub publish: bool,
}

/// When a camera's frames are given to the model: only while something moves.
#[derive(Clone, Debug, PartialEq)]
pub struct MotionConfig {
    /// Change of a cell's mean brightness that counts, in grey levels, 1..=255.
    pub threshold: u8,
    /// Share of the cells that must change, above 0, at most 1.
    pub area: f32,
    /// The model goes on for this long after the last motion, 0..=1 h.
    pub hold: Duration,
    /// Without motion a frame is given to the model this often, 100 ms..=1 h.
    pub refresh: Duration,
}

/// Discovery by Home Assistant.
#[derive(Clone, Debug, PartialEq)]
pub struct HomeAssistantConfig {
    /// First topic level(s) of its discovery.
    pub prefix: String,
}

/// Events and counts as Frigate publishes them.
#[derive(Clone, Debug, PartialEq)]
pub struct FrigateConfig {
    /// First topic level(s).
    pub prefix: String,
}

/// Messages as NVIDIA DeepStream publishes them.
#[derive(Clone, Debug, PartialEq)]
pub struct DeepstreamConfig {
    /// Their form.
    pub schema: DeepstreamSchema,
    /// The one topic for all of them; `{base}/{node}/cam/{cam}/deepstream` where there is none.
    pub topic: Option<String>,
}

/// Forms of DeepStream's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeepstreamSchema {
    /// `PAYLOAD_DEEPSTREAM_MINIMAL`: a message a frame.
    Minimal,
    /// `PAYLOAD_DEEPSTREAM`: a message an object.
    Full,
}
