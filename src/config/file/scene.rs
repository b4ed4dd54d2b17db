//! `[[schedule]]`, and a camera's zones, lines, rules and ignored areas, as they are written.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::units;
use crate::track::Anchor;

/// Points are checked later: serde takes three numbers for an array of two.
pub type FilePoints = Vec<Vec<f64>>;

/// `[[schedule]]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct FileSchedule {
    pub name: Option<String>,
    pub time_zone: Option<String>,
    pub windows: Vec<String>,
}

/// Which part of a box decides whether it is in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Point")]
pub enum FilePoint {
    Foot,
    Centre,
    Overlap,
}

/// `[[camera.zone]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
#[schemars(rename = "Zone")]
pub struct FileZone {
    pub name: Option<String>,
    pub polygon: Option<FilePoints>,
    pub point: FilePoint,
    pub overlap: f64,
    pub labels: Vec<String>,
    pub min_score: f64,
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub enter_after: Duration,
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub leave_after: Duration,
    pub schedule: String,
}

impl Default for FileZone {
    fn default() -> Self {
        Self {
            name: None,
            polygon: None,
            point: FilePoint::Foot,
            overlap: 0.5,
            labels: Vec::new(),
            min_score: 0.0,
            enter_after: Duration::from_millis(300),
            leave_after: Duration::from_secs(1),
            schedule: ALWAYS.to_owned(),
        }
    }
}

/// The schedule that always holds; no `[[schedule]]` may have its name.
pub const ALWAYS: &str = "always";

/// `[[camera.line]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
#[schemars(rename = "Line")]
pub struct FileLine {
    pub name: Option<String>,
    pub points: Option<FilePoints>,
    pub point: Anchor,
    pub margin: f64,
    pub labels: Vec<String>,
    pub min_score: f64,
    pub schedule: String,
}

impl Default for FileLine {
    fn default() -> Self {
        Self {
            name: None,
            points: None,
            point: Anchor::Foot,
            margin: 0.01,
            labels: Vec::new(),
            min_score: 0.0,
            schedule: ALWAYS.to_owned(),
        }
    }
}

/// `[[camera.filter]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
#[schemars(rename = "Rule")]
pub struct FileRule {
    pub labels: Vec<String>,
    pub min_score: f64,
    pub min_area: f64,
    pub max_area: f64,
    pub min_height: f64,
    pub max_height: f64,
    pub min_ratio: f64,
    pub max_ratio: f64,
}

impl Default for FileRule {
    fn default() -> Self {
        Self {
            labels: Vec::new(),
            min_score: 0.0,
            min_area: 0.0,
            max_area: 1.0,
            min_height: 0.0,
            max_height: 1.0,
            min_ratio: 0.0,
            max_ratio: 1000.0,
        }
    }
}

/// `[[camera.ignore]]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
#[schemars(rename = "Ignored")]
pub struct FileIgnored {
    pub polygon: Option<FilePoints>,
    pub point: Anchor,
    pub labels: Vec<String>,
}
