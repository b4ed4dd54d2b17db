//! `[tracking]`, `[events]`, `[snapshots]`, `[motion]`, and the forms in which others read events, as they are written.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{DeepstreamSchema, units};

/// `[tracking]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct FileTracking {
    pub enabled: bool,
    pub low: f64,
    pub high: f64,
    pub new: f64,
    pub confirm_hits: i64,
    #[serde(deserialize_with = "units::duration")]
    pub confirm_after: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub lost_after: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub stationary_after: Duration,
}

impl Default for FileTracking {
    fn default() -> Self {
        Self {
            enabled: true,
            low: 0.1,
            high: 0.4,
            new: 0.5,
            confirm_hits: 3,
            confirm_after: Duration::from_millis(300),
            lost_after: Duration::from_secs(2),
            stationary_after: Duration::from_secs(10),
        }
    }
}

/// `[events]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct FileEvents {
    pub enabled: bool,
    pub labels: Vec<String>,
    pub min_score: f64,
    #[serde(deserialize_with = "units::duration")]
    pub update_every: Duration,
    pub new_hz_max: f64,
}

impl Default for FileEvents {
    fn default() -> Self {
        let update_every = Duration::from_secs(5);
        Self { enabled: true, labels: Vec::new(), min_score: 0.0, update_every, new_hz_max: 5.0 }
    }
}

/// `[camera.events]`: what is not given is that of `[events]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
#[schemars(rename = "CameraEvents")]
pub struct FileCameraEvents {
    pub enabled: Option<bool>,
    pub labels: Option<Vec<String>>,
    pub min_score: Option<f64>,
    pub zones: Vec<String>,
}

/// `[snapshots]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct FileSnapshots {
    pub enabled: bool,
    pub folder: Option<PathBuf>,
    #[serde(deserialize_with = "units::size")]
    pub max_bytes: u64,
    #[serde(deserialize_with = "units::duration")]
    pub max_age: Duration,
    pub quality: i64,
    pub draw_box: bool,
    pub publish: bool,
}

impl Default for FileSnapshots {
    fn default() -> Self {
        Self {
            enabled: true,
            folder: None,
            max_bytes: 1 << 30,
            max_age: Duration::from_secs(7 * 24 * 3600),
            quality: 85,
            draw_box: false,
            publish: true,
        }
    }
}

/// `[motion]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct FileMotion {
    pub enabled: bool,
    pub threshold: i64,
    pub area: f64,
    #[serde(deserialize_with = "units::duration")]
    pub hold: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub refresh: Duration,
}

impl Default for FileMotion {
    fn default() -> Self {
        let (hold, refresh) = (Duration::from_secs(5), Duration::from_secs(30));
        Self { enabled: false, threshold: 10, area: 0.002, hold, refresh }
    }
}

/// `[camera.motion]`: what is not given is that of `[motion]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
#[schemars(rename = "CameraMotion")]
pub struct FileCameraMotion {
    pub enabled: Option<bool>,
    pub threshold: Option<i64>,
    pub area: Option<f64>,
}

/// `[homeassistant]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct FileHomeAssistant {
    pub enabled: bool,
    pub prefix: String,
}

impl Default for FileHomeAssistant {
    fn default() -> Self {
        Self { enabled: false, prefix: "homeassistant".to_owned() }
    }
}

/// `[frigate]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct FileFrigate {
    pub enabled: bool,
    pub prefix: String,
}

impl Default for FileFrigate {
    fn default() -> Self {
        Self { enabled: false, prefix: "frigate".to_owned() }
    }
}

/// `[deepstream]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct FileDeepstream {
    pub enabled: bool,
    pub schema: DeepstreamSchema,
    pub topic: Option<String>,
}

impl Default for FileDeepstream {
    fn default() -> Self {
        Self { enabled: false, schema: DeepstreamSchema::Minimal, topic: None }
    }
}

/// `[onvif]` or `[cloudevents]`: on or off.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct FileSwitch {
    pub enabled: bool,
}
