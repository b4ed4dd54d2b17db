//! Every topic of the MQTT contract, and nothing else that makes topics.

use std::fmt;

use crate::event::Counter;
use crate::formats::onvif;
use crate::frame::CameraId;

/// Most bytes of a topic that somebody else has chosen.
const TOPIC_BYTES_MAX: usize = 1 << 10;

/// A topic that a message can be published to: no wildcard, no empty level. Made by [`Topics`] alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(String);

impl Topic {
    /// A topic in another consumer's form, whose first levels the configuration has checked.
    pub(super) fn of_consumer(topic: String) -> Self {
        Self(topic)
    }

    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The topics of one box.
#[derive(Clone, Debug)]
pub struct Topics {
    prefix: String,
}

/// `base` or `node` cannot be part of a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} {value:?} cannot be part of a topic: give levels without +, #, $ in front, or empty parts")]
pub struct TopicError {
    name: &'static str,
    value: String,
}

impl Topics {
    /// Topics below `{base}/{node}`. `base` may have several levels, `node` has one.
    ///
    /// # Errors
    ///
    /// An empty level, a wildcard, a control character, a `$` at the very front.
    pub fn new(base: &str, node: &str) -> Result<Self, TopicError> {
        let error = |name, value: &str| Err(TopicError { name, value: value.to_owned() });
        if base.starts_with('$') || !base.split('/').all(is_level) {
            return error("mqtt.base", base);
        }
        if !is_level(node) {
            return error("node", node);
        }
        Ok(Self { prefix: format!("{base}/{node}/") })
    }

    /// What every topic of this box begins with, the slash included.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `online` or `offline`, retained, the last will.
    pub fn status(&self) -> Topic {
        self.node("status")
    }

    /// What runs here, retained.
    pub fn info(&self) -> Topic {
        self.node("info")
    }

    /// Health, every 10 s.
    pub fn health(&self) -> Topic {
        self.node("health")
    }

    /// Notices, spooled.
    pub fn notice(&self) -> Topic {
        self.node("notice")
    }

    /// `online`, `offline` or `disabled`, retained.
    pub fn camera_status(&self, camera: &CameraId) -> Topic {
        self.camera(camera, "status")
    }

    /// State of a camera, retained.
    pub fn camera_state(&self, camera: &CameraId) -> Topic {
        self.camera(camera, "state")
    }

    /// Detections, a message an inferred frame.
    pub fn detections(&self, camera: &CameraId) -> Topic {
        self.camera(camera, "detections")
    }

    /// The life of a camera's tracks, spooled.
    pub fn events(&self, camera: &CameraId) -> Topic {
        self.camera(camera, "events")
    }

    /// The latest picture of a camera's tracks, retained.
    pub fn snapshot(&self, camera: &CameraId) -> Topic {
        self.camera(camera, "snapshot")
    }

    /// The best picture of a track.
    pub fn snapshot_of(&self, camera: &CameraId, track: &str) -> Topic {
        debug_assert!(is_level(track) && !track.contains('/'), "{track} is not a topic level");
        self.camera(camera, &format!("snapshot/{track}"))
    }

    /// Events as CloudEvents, spooled.
    pub fn cloudevents(&self, camera: &CameraId) -> Topic {
        self.camera(camera, "cloudevents")
    }

    /// Detections in DeepStream's form.
    pub fn deepstream(&self, camera: &CameraId) -> Topic {
        self.camera(camera, "deepstream")
    }

    /// A count of a camera, retained.
    pub fn count(&self, camera: &CameraId, counter: &Counter) -> Topic {
        self.camera(camera, &counter.to_string())
    }

    /// Whether one of this box's topics is a camera's count.
    pub fn is_count(&self, topic: &str) -> bool {
        let rest = topic.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix("cam/"));
        let levels: Vec<&str> = rest.map(|rest| rest.split('/').skip(1).collect()).unwrap_or_default();
        matches!(levels[..], ["count", _] | ["zone", _, "count", _] | ["line", _, _, _])
    }

    /// `ON` or `OFF`, retained: whether a camera is switched on.
    pub fn enabled_state(&self, camera: &CameraId) -> Topic {
        self.camera(camera, "enabled/state")
    }

    /// The filters for all commands.
    pub fn command_filters(&self) -> [String; 2] {
        [self.enabled_set_filter(), self.command_filter()]
    }

    /// The filter for the commands that switch cameras.
    pub fn enabled_set_filter(&self) -> String {
        format!("{}cam/+/enabled/set", self.prefix)
    }

    /// The camera that a command topic is about; `None` for any other topic.
    pub fn camera_of_enabled_set(&self, topic: &str) -> Option<CameraId> {
        let camera = topic.strip_prefix(&self.prefix)?.strip_prefix("cam/")?.strip_suffix("/enabled/set")?;
        (is_level(camera) && !camera.contains('/')).then(|| CameraId::new(camera))
    }

    /// The filter for all other commands.
    pub fn command_filter(&self) -> String {
        format!("{}cmd/+", self.prefix)
    }

    /// The name of the command that a topic is for; `None` for any other topic.
    pub fn command_of<'t>(&self, topic: &'t str) -> Option<&'t str> {
        let name = topic.strip_prefix(&self.prefix)?.strip_prefix("cmd/")?;
        (is_level(name) && !name.contains('/')).then_some(name)
    }

    /// What came of a command, where it says nowhere else.
    pub fn command_result(&self, name: &str) -> Topic {
        self.node(&format!("cmd/{name}/result"))
    }

    /// Whether a topic is for what came of commands.
    pub fn is_command_result(&self, topic: &str) -> bool {
        let name = topic.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix("cmd/"));
        name.and_then(|rest| rest.strip_suffix("/result")).is_some_and(|name| is_level(name) && !name.contains('/'))
    }

    /// The zone or line that one of this box's own retained topics is about: the kind of it, `zone` or `line`, and its name.
    pub fn place_of<'t>(&self, camera: &CameraId, topic: &'t str) -> Option<(&'t str, &'t str)> {
        if let Some((of, zone)) = onvif::place(&self.prefix, topic) {
            return (of == camera.as_str()).then_some(("zone", zone));
        }
        let rest = topic.strip_prefix(&self.prefix)?.strip_prefix("cam/")?.strip_prefix(camera.as_str())?;
        let (kind, rest) = rest.strip_prefix('/')?.split_once('/')?;
        let (name, _) = rest.split_once('/')?;
        matches!(kind, "zone" | "line").then_some((kind, name))
    }

    /// The camera that one of this box's own topics is about.
    pub fn camera_of(&self, topic: &str) -> Option<CameraId> {
        let of_zone = onvif::place(&self.prefix, topic);
        let own = || topic.strip_prefix(&self.prefix)?.strip_prefix("cam/")?.split_once('/');
        let (camera, _) = of_zone.or_else(own)?;
        is_level(camera).then(|| CameraId::new(camera))
    }

    fn node(&self, last: &str) -> Topic {
        Topic(format!("{}{last}", self.prefix))
    }

    fn camera(&self, camera: &CameraId, last: &str) -> Topic {
        debug_assert!(is_level(camera.as_str()) && !camera.as_str().contains('/'), "{camera} is not a topic level");
        Topic(format!("{}cam/{camera}/{last}", self.prefix))
    }
}

/// A topic that anybody may publish to: no wildcard, no control character, not one of the broker's own.
pub fn is_plain(topic: &str) -> bool {
    let wrong = |c: char| matches!(c, '+' | '#') || c.is_control();
    !topic.is_empty() && topic.len() <= TOPIC_BYTES_MAX && !topic.starts_with('$') && !topic.contains(wrong)
}

fn is_level(level: &str) -> bool {
    !level.is_empty() && level.len() <= 256 && !level.contains(|c: char| matches!(c, '+' | '#') || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_those_of_the_contract() {
        let topics = Topics::new("site/watchpost", "edge07").unwrap();
        let gate = CameraId::new("gate");
        assert_eq!(topics.status().as_str(), "site/watchpost/edge07/status");
        assert_eq!(topics.camera_status(&gate).as_str(), "site/watchpost/edge07/cam/gate/status");
        assert_eq!(topics.enabled_state(&gate).as_str(), "site/watchpost/edge07/cam/gate/enabled/state");
        assert_eq!(topics.enabled_set_filter(), "site/watchpost/edge07/cam/+/enabled/set");
        let set = "site/watchpost/edge07/cam/gate/enabled/set";
        assert_eq!(topics.camera_of_enabled_set(set), Some(gate.clone()));
        assert_eq!(topics.camera_of(topics.detections(&gate).as_str()), Some(gate));
        for other in ["site/watchpost/edge07/cam//enabled/set", "site/watchpost/edge07/cam/a/b/enabled/set", "x"] {
            assert_eq!(topics.camera_of_enabled_set(other), None, "{other}");
        }
        assert_eq!(topics.camera_of(topics.info().as_str()), None);
        assert_eq!(topics.command_filter(), "site/watchpost/edge07/cmd/+");
        assert_eq!(topics.command_of("site/watchpost/edge07/cmd/reload"), Some("reload"));
        let result = topics.command_result("reload");
        assert_eq!((topics.command_of(result.as_str()), topics.is_command_result(result.as_str())), (None, true));
        let gate = CameraId::new("gate");
        let zone = "site/watchpost/edge07/cam/gate/zone/drive/count/person";
        assert_eq!(topics.place_of(&gate, zone), Some(("zone", "drive")));
        let count = topics.count(&gate, &Counter::Label("person".to_owned()));
        assert_eq!(topics.place_of(&gate, count.as_str()), None);
        let zone = onvif::vacant("site/watchpost/edge07", "gate", "drive", "").topic;
        assert_eq!(topics.place_of(&gate, &zone), Some(("zone", "drive")));
        assert_eq!(topics.place_of(&CameraId::new("yard"), &zone), None);
        assert_eq!(topics.camera_of(&zone), Some(gate));
    }

    #[test]
    fn levels_that_mqtt_cannot_have_are_refused() {
        for (base, node) in
            [("", "n"), ("a//b", "n"), ("a/", "n"), ("a+", "n"), ("$SYS", "n"), ("a", "#"), ("a", "")]
        {
            assert!(Topics::new(base, node).is_err(), "{base:?} {node:?}");
        }
        assert_eq!(
            Topics::new("w", "a+b").unwrap_err().to_string(),
            "node \"a+b\" cannot be part of a topic: give levels without +, #, $ in front, or empty parts"
        );
    }
}
