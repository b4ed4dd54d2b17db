//! Events and counts as Frigate 0.14 and later publish them (`frigate/track/tracked_object.py`, `docs/integrations/mqtt.md`).
//!
//! Boxes are in pixels of the source and times in seconds since 1970, as Frigate has them. What watchpost does not know
//! (sub-labels, attributes, speeds, recordings, how often an object has stopped and gone on) has the value of Frigate's own
//! objects of which nothing is known.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Message, below, epoch_s, label_level, round, round4};
use crate::event::{Event, EventKind};

/// `{prefix}/events`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Change {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// The object as the message before this one had it.
    pub before: TrackedObject,
    /// The object now.
    pub after: TrackedObject,
}

/// An object, in Frigate's words.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TrackedObject {
    /// Id of the track.
    pub id: String,
    /// Name of the camera.
    pub camera: String,
    /// When the frame was caught.
    pub frame_time: f64,
    /// The best picture, where there is one.
    pub snapshot: Option<Snapshot>,
    /// Class name.
    pub label: String,
    /// Always null.
    pub sub_label: Option<String>,
    /// Best score so far.
    pub top_score: f64,
    /// Not yet believed: true only in the `before` of a `new`.
    pub false_positive: bool,
    /// When it was seen first.
    pub start_time: f64,
    /// When it was seen last, once it has ended.
    pub end_time: Option<f64>,
    /// Score in this frame.
    pub score: f64,
    /// x1, y1, x2, y2 in pixels of the source.
    #[serde(rename = "box")]
    pub rect: [u32; 4],
    /// Area of the box in square pixels.
    pub area: u64,
    /// Width by height of the box.
    pub ratio: f64,
    /// The part of the frame that was looked at: all of it.
    pub region: [u32; 4],
    /// It moves.
    pub active: bool,
    /// It has not moved for a while.
    pub stationary: bool,
    /// 0 while it moves, else 1: frames are not counted.
    pub motionless_count: u32,
    /// Always 0.
    pub position_changes: u32,
    /// Zones it is in.
    pub current_zones: Vec<String>,
    /// Zones it has been in.
    pub entered_zones: Vec<String>,
    /// Always false: nothing is recorded.
    pub has_clip: bool,
    /// There is a picture.
    pub has_snapshot: bool,
    /// Always empty.
    pub attributes: Empty,
    /// Always empty.
    pub current_attributes: Vec<Empty>,
    /// Always false.
    pub pending_loitering: bool,
    /// Always null: there are no reviews.
    pub max_severity: Option<String>,
    /// Always 0.
    pub current_estimated_speed: f64,
    /// Always 0.
    pub average_estimated_speed: f64,
    /// Always 0.
    pub velocity_angle: f64,
    /// Always empty.
    pub path_data: Vec<Empty>,
    /// Always null.
    pub thumbnail: Option<String>,
}

/// The best picture of an object.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Snapshot {
    /// Its score.
    pub score: f64,
    /// Where it can be had by HTTP; Frigate has no such field.
    pub url: String,
}

/// An object without members.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Empty {}

/// `{prefix}/events`: what became of a track since the message `before`, where there was one.
pub fn event(prefix: &str, before: Option<&Event>, after: &Event) -> Message {
    let now = object(after);
    let before = match before {
        Some(before) => object(before),
        // Frigate says so of what it does not believe yet: automations look for the zones that came in between.
        None if after.kind == EventKind::New => TrackedObject {
            false_positive: true,
            top_score: 0.0,
            snapshot: None,
            has_snapshot: false,
            current_zones: Vec::new(),
            entered_zones: Vec::new(),
            ..now.clone()
        },
        None => TrackedObject { end_time: None, ..now.clone() },
    };
    Message::json(below(prefix, "events"), &Change { kind: after.kind, before, after: now }, false)
}

/// `{prefix}/{camera}/{label}`: how many are seen. Frigate has the label `all` for the sum of them.
pub fn count(prefix: &str, camera: &str, label: &str, count: u64) -> Message {
    Message::text(below(prefix, &format!("{camera}/{}", label_level(label))), count, true)
}

/// `{prefix}/{zone}/{label}`: how many are in a zone. Zones of one name at several cameras are one zone to Frigate, and
/// `count` is their sum.
pub fn zone_count(prefix: &str, zone: &str, label: &str, count: u64) -> Message {
    self::count(prefix, zone, label, count)
}

/// `{prefix}/available`: `online` or `offline`.
pub fn available(prefix: &str, online: bool) -> Message {
    Message::text(below(prefix, "available"), if online { "online" } else { "offline" }, true)
}

fn object(event: &Event) -> TrackedObject {
    let [width, height] = event.size;
    let pixel = |share: f32, side: u32| (f64::from(share.clamp(0.0, 1.0)) * f64::from(side)).round() as u32;
    let [x1, y1, x2, y2] = event.rect;
    let rect = [pixel(x1, width), pixel(y1, height), pixel(x2, width), pixel(y2, height)];
    let sides = [rect[2].saturating_sub(rect[0]), rect[3].saturating_sub(rect[1])];
    let url = event.snapshot_url.clone();
    TrackedObject {
        id: event.id.clone(),
        camera: event.camera.clone(),
        frame_time: epoch_s(&event.ts.captured),
        has_snapshot: url.is_some(),
        snapshot: url.map(|url| Snapshot { score: round4(event.top_score), url }),
        label: event.label.clone(),
        sub_label: None,
        top_score: round4(event.top_score),
        false_positive: false,
        start_time: epoch_s(&event.start),
        end_time: event.end.as_deref().map(epoch_s),
        score: round4(event.score),
        rect,
        area: u64::from(sides[0]) * u64::from(sides[1]),
        ratio: round(f64::from(sides[0]) / f64::from(sides[1].max(1)), 1e2),
        region: [0, 0, width, height],
        active: !event.stationary,
        stationary: event.stationary,
        motionless_count: u32::from(event.stationary),
        position_changes: 0,
        current_zones: event.zones.clone(),
        entered_zones: event.entered_zones.clone(),
        has_clip: false,
        attributes: Empty {},
        current_attributes: Vec::new(),
        pending_loitering: false,
        max_severity: None,
        current_estimated_speed: 0.0,
        average_estimated_speed: 0.0,
        velocity_angle: 0.0,
        path_data: Vec::new(),
        thumbnail: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::event::EndReason;
    use crate::formats::samples;

    /// The sample as it was first seen, and what differs.
    fn object(differs: Value) -> Value {
        let mut object = json!({
            "id": "gate-9f3c1a-412", "camera": "gate", "frame_time": 1_790_763_302.417, "snapshot": null,
            "label": "person", "sub_label": null, "top_score": 0.831, "false_positive": false,
            "start_time": 1_790_763_302.017, "end_time": null, "score": 0.831,
            "box": [791, 238, 899, 595], "area": 38556, "ratio": 0.3, "region": [0, 0, 1920, 1080],
            "active": true, "stationary": false, "motionless_count": 0, "position_changes": 0,
            "current_zones": [], "entered_zones": [], "has_clip": false, "has_snapshot": false,
            "attributes": {}, "current_attributes": [], "pending_loitering": false, "max_severity": null,
            "current_estimated_speed": 0.0, "average_estimated_speed": 0.0, "velocity_angle": 0.0,
            "path_data": [], "thumbnail": null,
        });
        for (name, value) in differs.as_object().unwrap() {
            object[name] = value.clone();
        }
        object
    }

    fn later(differs: Value) -> Value {
        let mut later = json!({
            "frame_time": 1_790_763_305.0, "score": 0.7, "top_score": 0.9, "box": [960, 270, 1152, 810], "area": 103680,
            "ratio": 0.36, "current_zones": ["drive"], "entered_zones": ["drive"], "has_snapshot": true,
            "snapshot": {"score": 0.9, "url": "/snapshots/gate/gate-9f3c1a-412.jpg"},
        });
        for (name, value) in differs.as_object().unwrap() {
            later[name] = value.clone();
        }
        object(later)
    }

    #[test]
    fn a_new_event_was_not_believed_before() {
        let message = event("frigate", None, &samples::new());
        assert_eq!((message.topic.as_str(), message.retain), ("frigate/events", false));
        let before = object(json!({"false_positive": true, "top_score": 0.0}));
        assert_eq!(samples::body(&message), json!({"type": "new", "before": before, "after": object(json!({}))}));
        let text = String::from_utf8(message.body).unwrap();
        assert!(text.starts_with(
            r#"{"type":"new","before":{"id":"gate-9f3c1a-412","camera":"gate","frame_time":1790763302.417,"#
        ));
    }

    #[test]
    fn a_new_event_that_begins_in_a_zone_was_outside_before() {
        let zones = vec!["drive".to_owned()];
        let inside = Event { zones: zones.clone(), entered_zones: zones, ..samples::new() };
        let change = samples::body(&event("frigate", None, &inside));
        assert_eq!(
            (&change["before"]["entered_zones"], &change["after"]["entered_zones"]),
            (&json!([]), &json!(["drive"]))
        );
    }

    #[test]
    fn an_update_has_both_sides() {
        let message = event("site/frigate", Some(&samples::new()), &samples::update());
        assert_eq!(message.topic, "site/frigate/events");
        let wanted = json!({"type": "update", "before": object(json!({})), "after": later(json!({}))});
        assert_eq!(samples::body(&message), wanted);
    }

    #[test]
    fn an_end_has_its_time_even_when_nothing_was_before() {
        let ended =
            json!({"end_time": 1_790_763_305.0, "active": false, "stationary": true, "motionless_count": 1});
        let wanted = json!({"type": "end", "before": later(json!({})), "after": later(ended.clone())});
        assert_eq!(samples::body(&event("frigate", Some(&samples::update()), &samples::end())), wanted);
        let orphan = Event { end_reason: Some(EndReason::Restart), ..samples::end() };
        let mut before = ended.clone();
        before["end_time"] = Value::Null;
        let wanted = json!({"type": "end", "before": later(before), "after": later(ended)});
        assert_eq!(samples::body(&event("frigate", None, &orphan)), wanted);
    }

    #[test]
    fn counts_and_availability_are_retained_plain_text() {
        let text = |message: Message| (message.topic, String::from_utf8(message.body).unwrap(), message.retain);
        let all = |topic: &str, body: &str| (topic.to_owned(), body.to_owned(), true);
        assert_eq!(text(count("frigate", "gate", "Traffic Light", 2)), all("frigate/gate/traffic_light", "2"));
        assert_eq!(text(zone_count("frigate", "drive", "person", 0)), all("frigate/drive/person", "0"));
        assert_eq!(text(available("frigate", true)), all("frigate/available", "online"));
        assert_eq!(text(available("frigate", false)), all("frigate/available", "offline"));
    }
}
