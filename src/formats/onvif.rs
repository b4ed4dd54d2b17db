//! ONVIF Profile M: analytics metadata and rule events as JSON over MQTT (Analytics Service Specification, "JSON over
//! MQTT"; Core Specification, "Event Broker" and "JSON payload format").
//!
//! A box is one device: its topic prefix is `{base}/{node}`, a camera is a media profile and a video source. Boxes are in
//! ONVIF's own coordinates, -1..1 with the y axis upward; the `Transformation`, which says so, changes nothing, and who
//! overlooks it is right as well.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Message, below, label_level, round, round4, track_number};
use crate::event::{Crossing, Detections, Direction, Event, EventKind, Object};

/// Topic of who is in a zone, below the prefix and before the camera.
const INSIDE: &str = "FieldDetector/ObjectsInside";
/// Name of the analytics module.
const MODULE: &str = "watchpost";

/// `{prefix}/onvif-mj/VideoAnalytics/{camera}/watchpost`: what an analytics module saw.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    /// Always one.
    pub frame: Vec<Frame>,
}

/// A frame.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Frame {
    /// When it was caught.
    #[serde(rename = "@UtcTime")]
    pub utc_time: String,
    /// Name of the analytics module.
    #[serde(rename = "@Source")]
    pub source: String,
    /// From coordinates below to ONVIF's own: they are the same.
    pub transformation: Value,
    /// What was seen.
    pub object: Vec<SceneObject>,
}

/// An object.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct SceneObject {
    /// Number of its track, once it is confirmed.
    #[serde(rename = "@ObjectId", skip_serializing_if = "Option::is_none")]
    pub object_id: Option<u64>,
    /// Id of its track, once it is confirmed.
    #[serde(rename = "@UUID", skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// `Shape` and `Class`: its box, the box's centre, and its class by ONVIF's names and the model's.
    pub appearance: Value,
}

/// `{prefix}/onvif-ej/RuleEngine/…`: a line was crossed, or what is in a zone has changed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RuleEvent {
    /// When the frame was caught.
    pub utc_time: String,
    /// The camera and the line or zone.
    pub source: Source,
    /// `ObjectId` and `ClassTypes`, lists with blanks between; `IsInside` of a zone.
    pub data: Value,
}

/// What a rule event is from.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Source {
    /// Name of the camera.
    pub video_source: String,
    /// Name of the line or zone.
    pub rule: String,
}

/// A frame's metadata.
pub fn metadata(prefix: &str, detections: &Detections) -> Message {
    let frame = Frame {
        utc_time: detections.ts.captured.clone(),
        source: MODULE.to_owned(),
        transformation: json!({"Translate": {"@x": 0.0, "@y": 0.0}, "Scale": {"@x": 1.0, "@y": 1.0}}),
        object: detections.objects.iter().map(scene_object).collect(),
    };
    let topic = below(prefix, &format!("onvif-mj/VideoAnalytics/{}/{MODULE}", detections.camera));
    Message::json(topic, &Metadata { frame: vec![frame] }, false)
}

fn scene_object(object: &Object) -> SceneObject {
    let [left, top, right, bottom] = object.rect.map(round4);
    let (x, y) = (|x: f64| round(2.0 * x - 1.0, 1e4), |y: f64| round(1.0 - 2.0 * y, 1e4));
    let likelihood = round4(object.score);
    let candidate = |class: &str| json!({"@Likelihood": likelihood, "#text": class});
    let classes: Vec<Value> = classes(&object.label).into_iter().map(candidate).collect();
    SceneObject {
        object_id: object.track.as_deref().and_then(track_number),
        uuid: object.track.clone(),
        appearance: json!({
            "Shape": {
                "BoundingBox": {"@left": x(left), "@top": y(top), "@right": x(right), "@bottom": y(bottom)},
                "CenterOfGravity": {"@x": x(f64::midpoint(left, right)), "@y": y(f64::midpoint(top, bottom))},
            },
            "Class": {"Type": classes},
        }),
    }
}

/// ONVIF's object type and vehicle type of a label, where it has them, and last the label itself.
fn classes(label: &str) -> Vec<&str> {
    let known: &[&str] = match label.to_lowercase().as_str() {
        "person" => &["Human"],
        "face" => &["HumanFace"],
        "bicycle" => &["Vehicle", "Bicycle"],
        "motorcycle" | "motorbike" => &["Vehicle", "Motorcycle"],
        "car" => &["Vehicle", "Car"],
        "bus" => &["Vehicle", "Bus"],
        "truck" => &["Vehicle", "Truck"],
        "train" | "boat" | "airplane" | "aeroplane" => &["Vehicle"],
        "bird" | "cat" | "dog" | "horse" | "sheep" | "cow" | "elephant" | "bear" | "zebra" | "giraffe" => {
            &["Animal"]
        }
        "license plate" | "license_plate" => &["LicensePlate"],
        "barcode" => &["Barcode"],
        "fire" => &["Fire"],
        "smoke" => &["Smoke"],
        _ => &[],
    };
    let own = (!known.iter().any(|class| class.eq_ignore_ascii_case(label))).then_some(label);
    known.iter().copied().chain(own).collect()
}

/// The rule events that follow from a track's `event`, after its one `before`: lines it has crossed since, and the zones whose
/// occupants have changed. Those are properties, which are retained (Core Specification, "Property events", "Retained flag"). `open` are the tracks of its camera without an `end`, this
/// one as `event` has it. Nothing is remembered here: what is lost and made again is the same.
pub fn rules<'a>(
    prefix: &str,
    before: Option<&Event>,
    event: &Event,
    open: impl Iterator<Item = &'a Event> + Clone,
) -> Vec<Message> {
    let mut messages = crossings(prefix, before, event);
    messages.extend(zones(prefix, before, event, open));
    messages
}

fn crossings(prefix: &str, before: Option<&Event>, event: &Event) -> Vec<Message> {
    // Of a track that is not known from its start, what it did before is not news.
    if before.is_none() && event.kind != EventKind::New {
        return Vec::new();
    }
    let told = before.map_or(&[][..], |before| &before.crossings);
    let message = |crossing: &Crossing| {
        let direction = match crossing.direction {
            Direction::In => "in",
            Direction::Out => "out",
        };
        let mut data = occupants([event]);
        data.insert("watchpost:Direction".to_owned(), json!(direction));
        rule(prefix, "LineDetector/Crossed", &event.camera, &crossing.at, &crossing.line, data, false)
    };
    event.crossings.iter().filter(|crossing| !told.contains(crossing)).map(message).collect()
}

fn zones<'a>(
    prefix: &str,
    before: Option<&Event>,
    event: &Event,
    open: impl Iterator<Item = &'a Event> + Clone,
) -> Vec<Message> {
    let was = before.map_or(&[][..], |before| &before.zones);
    // At its end it is in none.
    let is = if event.kind == EventKind::End { &[][..] } else { &event.zones };
    let renamed = before.is_some_and(|before| before.label != event.label);
    let all: BTreeSet<&String> = was.iter().chain(is).collect();
    let changed = all.into_iter().filter(|zone| renamed || was.contains(zone) != is.contains(zone));
    let message = |zone: &String| {
        let mut inside = open.clone().filter(|track| track.zones.contains(zone)).peekable();
        let is_inside = inside.peek().is_some();
        let mut data = occupants(inside);
        data.insert("IsInside".to_owned(), json!(is_inside));
        rule(prefix, INSIDE, &event.camera, &event.ts.captured, zone, data, true)
    };
    changed.map(message).collect()
}

/// Nobody is in a zone, as of `at`.
pub fn vacant(prefix: &str, camera: &str, zone: &str, at: &str) -> Message {
    let data = Map::from_iter([("IsInside".to_owned(), json!(false))]);
    rule(prefix, INSIDE, camera, at, zone, data, true)
}

/// The camera and the zone that a retained topic is about; `None` for any other topic.
pub fn place<'t>(prefix: &str, topic: &'t str) -> Option<(&'t str, &'t str)> {
    let rest = topic.strip_prefix(prefix)?.trim_start_matches('/').strip_prefix("onvif-ej/RuleEngine/")?;
    rest.strip_prefix(INSIDE)?.strip_prefix("/&")?.split_once('/')
}

/// `ObjectId` and `ClassTypes`: lists with blanks between, so that a class of two words is one.
fn occupants<'a>(tracks: impl IntoIterator<Item = &'a Event>) -> Map<String, Value> {
    let (mut ids, mut types) = (Vec::new(), Vec::new());
    for Event { id, label, .. } in tracks {
        let (Some(number), Some(class)) = (track_number(id), classes(label).first().copied()) else { continue };
        ids.push(number.to_string());
        types.push(if class == label { label_level(label) } else { class.to_owned() });
    }
    if ids.is_empty() {
        return Map::new();
    }
    Map::from_iter([
        ("ObjectId".to_owned(), json!(ids.join(" "))),
        ("ClassTypes".to_owned(), json!(types.join(" "))),
    ])
}

fn rule(
    prefix: &str,
    what: &str,
    camera: &str,
    at: &str,
    rule: &str,
    data: Map<String, Value>,
    retain: bool,
) -> Message {
    let topic = below(prefix, &format!("onvif-ej/RuleEngine/{what}/&{camera}/{rule}"));
    let source = Source { video_source: camera.to_owned(), rule: rule.to_owned() };
    Message::json(topic, &RuleEvent { utc_time: at.to_owned(), source, data: Value::Object(data) }, retain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EndReason;
    use crate::formats::samples;

    #[test]
    fn metadata_is_a_frame_in_onvifs_coordinates() {
        let message = metadata("w/edge07/", &samples::detections());
        assert_eq!(message.topic, "w/edge07/onvif-mj/VideoAnalytics/gate/watchpost");
        assert!(!message.retain);
        assert_eq!(
            samples::body(&message),
            json!({"Frame": [{
                "@UtcTime": "2026-09-30T10:15:02.417Z", "@Source": "watchpost",
                "Transformation": {"Translate": {"@x": 0.0, "@y": 0.0}, "Scale": {"@x": 1.0, "@y": 1.0}},
                "Object": [{
                    "@ObjectId": 412, "@UUID": "gate-9f3c1a-412",
                    "Appearance": {
                        "Shape": {
                            "BoundingBox": {"@left": -0.176, "@top": 0.56, "@right": -0.064, "@bottom": -0.102},
                            "CenterOfGravity": {"@x": -0.12, "@y": 0.229},
                        },
                        "Class": {"Type": [
                            {"@Likelihood": 0.831, "#text": "Human"}, {"@Likelihood": 0.831, "#text": "person"},
                        ]},
                    },
                }, {
                    "Appearance": {
                        "Shape": {
                            "BoundingBox": {"@left": -1.0, "@top": 1.0, "@right": 1.0, "@bottom": -1.0},
                            "CenterOfGravity": {"@x": 0.0, "@y": 0.0},
                        },
                        "Class": {"Type": [{"@Likelihood": 0.5, "#text": "traffic light"}]},
                    },
                }],
            }]})
        );
    }

    #[test]
    fn classes_are_onvifs_and_then_the_models() {
        assert_eq!(classes("car"), ["Vehicle", "Car"]);
        assert_eq!(classes("dog"), ["Animal", "dog"]);
        assert_eq!(classes("teddy bear"), ["teddy bear"]);
    }

    fn zone(event: &Event, data: Value) -> (String, Value, bool) {
        (
            "w/edge07/onvif-ej/RuleEngine/FieldDetector/ObjectsInside/&gate/drive".to_owned(),
            json!({"UtcTime": event.ts.captured, "Source": {"VideoSource": "gate", "Rule": "drive"}, "Data": data}),
            true,
        )
    }

    fn told(before: Option<&Event>, event: &Event, others: &[&Event]) -> Vec<(String, Value, bool)> {
        let own = (event.kind != EventKind::End).then_some(event);
        let told = rules("w/edge07", before, event, own.into_iter().chain(others.iter().copied()));
        told.into_iter().map(|message| (message.topic.clone(), samples::body(&message), message.retain)).collect()
    }

    #[test]
    fn new_update_and_end_tell_crossings_and_zones_once() {
        let (new, update, end) = (samples::new(), samples::update(), samples::end());
        assert_eq!(told(None, &new, &[]), []);
        let crossed = json!({
            "UtcTime": "2026-09-30T10:15:04.000Z", "Source": {"VideoSource": "gate", "Rule": "gate"},
            "Data": {"ObjectId": "412", "ClassTypes": "Human", "watchpost:Direction": "in"},
        });
        let inside = json!({"ObjectId": "412", "ClassTypes": "Human", "IsInside": true});
        let line = "w/edge07/onvif-ej/RuleEngine/LineDetector/Crossed/&gate/gate".to_owned();
        assert_eq!(told(Some(&new), &update, &[]), [(line, crossed, false), zone(&update, inside)]);
        assert_eq!(told(Some(&update), &Event { seq: 9, ..update.clone() }, &[]), [], "nothing has changed");
        assert_eq!(told(Some(&update), &end, &[]), [zone(&end, json!({"IsInside": false}))]);
    }

    #[test]
    fn a_zone_is_occupied_until_the_last_has_left() {
        let first = samples::update();
        let second = Event { id: "gate-9f3c1a-413".to_owned(), label: "Traffic Light".to_owned(), ..first.clone() };
        let outside = Event { zones: Vec::new(), ..second.clone() };
        let both = json!({"ObjectId": "413 412", "ClassTypes": "traffic_light Human", "IsInside": true});
        assert_eq!(told(Some(&outside), &second, &[&first]), [zone(&second, both)]);
        let left = Event { zones: Vec::new(), ..first.clone() };
        let one = json!({"ObjectId": "413", "ClassTypes": "traffic_light", "IsInside": true});
        assert_eq!(told(Some(&first), &left, &[&second]), [zone(&left, one)]);
        let renamed = Event { label: "car".to_owned(), ..first.clone() };
        let car = json!({"ObjectId": "412", "ClassTypes": "Vehicle", "IsInside": true});
        assert_eq!(told(Some(&first), &renamed, &[]), [zone(&renamed, car)]);
    }

    #[test]
    fn an_end_from_the_last_start_clears_its_zones_and_repeats_no_crossing() {
        let orphan = Event { end_reason: Some(EndReason::Restart), ..samples::end() };
        assert_eq!(told(Some(&samples::update()), &orphan, &[]), [zone(&orphan, json!({"IsInside": false}))]);
        assert_eq!(told(None, &orphan, &[]), [], "nobody was told that it was open");
    }
}
