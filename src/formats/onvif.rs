//! ONVIF Profile M: analytics metadata and rule events as JSON over MQTT (Analytics Service Specification, "JSON over
//! MQTT"; Core Specification, "Event Broker" and "JSON payload format").
//!
//! A box is one device: its topic prefix is `{base}/{node}`, a camera is a media profile and a video source. Boxes are in
//! ONVIF's own coordinates, -1..1 with the y axis upward; the `Transformation`, which says so, changes nothing, and who
//! overlooks it is right as well.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Message, below, label_level, round, round4, track_number};
use crate::event::{Detections, Direction, Event, EventKind, Object};

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

/// What the events said so far: which lines a track has crossed already, and who is in which zone. A track is forgotten
/// with its `end`, so this holds no more than there are tracks.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    crossed: BTreeMap<String, usize>,
    /// By camera and zone, tracks with their class.
    inside: BTreeMap<(String, String), BTreeMap<String, String>>,
}

impl Rules {
    /// The rule events that follow from an event, in the order in which events are made: crossings of lines, and the
    /// zones whose occupants have changed (retained: ONVIF calls them properties).
    pub fn events(&mut self, prefix: &str, event: &Event) -> Vec<Message> {
        let mut messages = self.crossings(prefix, event);
        messages.extend(self.zones(prefix, event));
        if event.kind == EventKind::End {
            self.crossed.remove(&event.id);
        }
        messages
    }

    fn crossings(&mut self, prefix: &str, event: &Event) -> Vec<Message> {
        // Of a track that is not known from its start, what it did before is not news.
        let unknown = if event.kind == EventKind::New { 0 } else { event.crossings.len() };
        let told = self.crossed.insert(event.id.clone(), event.crossings.len()).unwrap_or(unknown);
        let message = |crossing: &crate::event::Crossing| {
            let direction = match crossing.direction {
                Direction::In => "in",
                Direction::Out => "out",
            };
            let mut data = occupants([(event.id.as_str(), event.label.as_str())]);
            data.insert("watchpost:Direction".to_owned(), json!(direction));
            rule(prefix, "LineDetector/Crossed", event, &crossing.at, &crossing.line, data, false)
        };
        event.crossings.iter().skip(told).map(message).collect()
    }

    fn zones(&mut self, prefix: &str, event: &Event) -> Vec<Message> {
        let is_in = |zone: &String| event.kind != EventKind::End && event.zones.contains(zone);
        let held = self
            .inside
            .iter()
            .filter(|((camera, _), tracks)| *camera == event.camera && tracks.contains_key(&event.id));
        let mut zones: BTreeSet<String> = held.map(|((_, zone), _)| zone.clone()).collect();
        // At its end it is in none, and the broker may hold from before the last start that it is in one.
        zones.extend(event.zones.iter().cloned());
        let mut messages = Vec::new();
        for zone in zones {
            let key = (event.camera.clone(), zone);
            let tracks = self.inside.entry(key.clone()).or_default();
            let before = tracks.clone();
            if is_in(&key.1) {
                tracks.insert(event.id.clone(), event.label.clone());
            } else {
                tracks.remove(&event.id);
            }
            if *tracks != before || event.kind == EventKind::End {
                let mut data = occupants(tracks.iter().map(|(id, label)| (id.as_str(), label.as_str())));
                data.insert("IsInside".to_owned(), json!(!tracks.is_empty()));
                let at = &event.ts.captured;
                messages.push(rule(prefix, "FieldDetector/ObjectsInside", event, at, &key.1, data, true));
            }
            if tracks.is_empty() {
                self.inside.remove(&key);
            }
        }
        messages
    }
}

/// `ObjectId` and `ClassTypes`: lists with blanks between, so that a class of two words is one.
fn occupants<'a>(tracks: impl IntoIterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    let (mut ids, mut types) = (Vec::new(), Vec::new());
    for (id, label) in tracks {
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
    event: &Event,
    at: &str,
    rule: &str,
    data: Map<String, Value>,
    retain: bool,
) -> Message {
    let topic = below(prefix, &format!("onvif-ej/RuleEngine/{what}/&{}/{rule}", event.camera));
    let source = Source { video_source: event.camera.clone(), rule: rule.to_owned() };
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

    fn told(rules: &mut Rules, event: &Event) -> Vec<(String, Value, bool)> {
        let told = rules.events("w/edge07", event);
        told.into_iter().map(|message| (message.topic.clone(), samples::body(&message), message.retain)).collect()
    }

    #[test]
    fn new_update_and_end_tell_crossings_and_zones_once() {
        let mut rules = Rules::default();
        assert_eq!(told(&mut rules, &samples::new()), []);
        let crossed = json!({
            "UtcTime": "2026-09-30T10:15:04.000Z", "Source": {"VideoSource": "gate", "Rule": "gate"},
            "Data": {"ObjectId": "412", "ClassTypes": "Human", "watchpost:Direction": "in"},
        });
        let inside = json!({"ObjectId": "412", "ClassTypes": "Human", "IsInside": true});
        let update = samples::update();
        let line = "w/edge07/onvif-ej/RuleEngine/LineDetector/Crossed/&gate/gate".to_owned();
        assert_eq!(told(&mut rules, &update), [(line, crossed, false), zone(&update, inside)]);
        assert_eq!(told(&mut rules, &Event { seq: 9, ..update }), [], "nothing has changed");
        let end = samples::end();
        assert_eq!(told(&mut rules, &end), [zone(&end, json!({"IsInside": false}))]);
        assert!(rules.crossed.is_empty() && rules.inside.is_empty());
    }

    #[test]
    fn a_zone_is_occupied_until_the_last_has_left() {
        let mut rules = Rules::default();
        let first = samples::update();
        let second = Event { id: "gate-9f3c1a-413".to_owned(), label: "Traffic Light".to_owned(), ..first.clone() };
        told(&mut rules, &first);
        let both = json!({"ObjectId": "412 413", "ClassTypes": "Human traffic_light", "IsInside": true});
        assert_eq!(told(&mut rules, &second), [zone(&second, both)]);
        let left = Event { zones: Vec::new(), ..first };
        let one = json!({"ObjectId": "413", "ClassTypes": "traffic_light", "IsInside": true});
        assert_eq!(told(&mut rules, &left), [zone(&left, one)]);
    }

    #[test]
    fn an_end_from_the_last_start_clears_its_zones_and_repeats_no_crossing() {
        let orphan = Event { end_reason: Some(EndReason::Restart), ..samples::end() };
        assert_eq!(told(&mut Rules::default(), &orphan), [zone(&orphan, json!({"IsInside": false}))]);
    }
}
