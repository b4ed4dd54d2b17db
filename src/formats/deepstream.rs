//! Detections as NVIDIA DeepStream's message converter writes them (`nvmsgconv`, `dsmeta_payload.cpp`), with what it
//! forgets: the confidence of every object, boxes in pixels of the **source**, the size of that source, and the time at
//! which the frame was caught, not that at which the text was made.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Message, round, round4, track_number};
use crate::event::{Detections, Object};

/// DeepStream's id of an object that is not tracked (`UNTRACKED_OBJECT_ID`).
const UNTRACKED: u64 = u64::MAX;

/// `PAYLOAD_DEEPSTREAM_MINIMAL`: a frame.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Minimal {
    /// Always `4.0`.
    pub version: String,
    /// Number of the frame.
    pub id: String,
    /// When the frame was caught.
    #[serde(rename = "@timestamp")]
    pub timestamp: String,
    /// Name of the camera.
    #[serde(rename = "sensorId")]
    pub sensor_id: String,
    /// `id|x1|y1|x2|y2|label|#|confidence`, in pixels of the source.
    pub objects: Vec<String>,
    /// Width of the source in pixels; DeepStream has no such field.
    #[serde(rename = "frameWidth")]
    pub frame_width: u32,
    /// Height of the source in pixels; DeepStream has no such field.
    #[serde(rename = "frameHeight")]
    pub frame_height: u32,
}

/// `PAYLOAD_DEEPSTREAM`: an object.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Full {
    /// `{camera}-{boot}-{seq}-{object}`: never used twice.
    pub messageid: String,
    /// Always `1.0`.
    pub mdsversion: String,
    /// When the frame was caught.
    #[serde(rename = "@timestamp")]
    pub timestamp: String,
    /// The box.
    pub place: Value,
    /// The camera.
    pub sensor: Value,
    /// The model.
    #[serde(rename = "analyticsModule")]
    pub analytics_module: Value,
    /// The object: `id`, `{label}.confidence`, `bbox` in pixels of the source.
    pub object: Value,
    /// Nothing is said here but an id.
    pub event: Value,
    /// Always empty.
    #[serde(rename = "videoPath")]
    pub video_path: String,
    /// Width of the source in pixels; DeepStream has no such field.
    #[serde(rename = "frameWidth")]
    pub frame_width: u32,
    /// Height of the source in pixels; DeepStream has no such field.
    #[serde(rename = "frameHeight")]
    pub frame_height: u32,
}

/// The minimal schema: one message a frame.
pub fn minimal(topic: &str, detections: &Detections) -> Message {
    let [frame_width, frame_height] = detections.size;
    let minimal = Minimal {
        version: "4.0".to_owned(),
        id: detections.frame.to_string(),
        timestamp: detections.ts.captured.clone(),
        sensor_id: detections.camera.to_string(),
        objects: detections.objects.iter().map(|object| line(object, detections.size)).collect(),
        frame_width,
        frame_height,
    };
    Message::json(topic.to_owned(), &minimal, false)
}

/// The full schema: one message an object, none for a frame without.
pub fn full(topic: &str, detections: &Detections) -> Vec<Message> {
    let message = |(index, object)| Message::json(topic.to_owned(), &whole(detections, index, object), false);
    detections.objects.iter().enumerate().map(message).collect()
}

/// What a classifier said stands between `#` and the confidence; there is none.
fn line(object: &Object, size: [u32; 2]) -> String {
    let [x1, y1, x2, y2] = pixels(object, size).map(|pixels| round(pixels, 1e2));
    // The bar is what the consumer splits at.
    let label = object.label.replace('|', " ");
    format!("{}|{x1}|{y1}|{x2}|{y2}|{label}|#|{}", number(object), round4(object.score))
}

fn whole(detections: &Detections, index: usize, object: &Object) -> Full {
    let Detections { camera, boot, seq, node, model, .. } = detections;
    let messageid = format!("{camera}-{boot}-{seq}-{index}");
    let nowhere = json!({"lat": 0.0, "lon": 0.0, "alt": 0.0});
    let origin = json!({"x": 0.0, "y": 0.0, "z": 0.0});
    Full {
        mdsversion: "1.0".to_owned(),
        timestamp: detections.ts.captured.clone(),
        place: json!({"id": node, "name": node, "type": "", "location": nowhere}),
        sensor: json!({
            "id": camera, "type": "Camera", "description": "", "location": nowhere, "coordinate": origin,
        }),
        analytics_module: json!({
            "id": "watchpost", "description": "object detection", "source": model.name, "version": model.engine,
        }),
        object: Value::Object(described(object, detections.size)),
        event: json!({"id": messageid, "type": ""}),
        messageid,
        video_path: String::new(),
        frame_width: detections.size[0],
        frame_height: detections.size[1],
    }
}

fn described(object: &Object, size: [u32; 2]) -> Map<String, Value> {
    // Whole pixels, cut off, as DeepStream does.
    let [x1, y1, x2, y2] = pixels(object, size).map(|pixels| pixels as u32);
    let mut described = Map::new();
    // First, so that a class named like a member of ours cannot hide it.
    described.insert(object.label.to_string(), json!({"confidence": round4(object.score)}));
    described.extend([
        ("id".to_owned(), json!(number(object).to_string())),
        ("speed".to_owned(), json!(0.0)),
        ("direction".to_owned(), json!(0.0)),
        ("orientation".to_owned(), json!(0.0)),
        ("bbox".to_owned(), json!({"topleftx": x1, "toplefty": y1, "bottomrightx": x2, "bottomrighty": y2})),
        ("location".to_owned(), json!({})),
        ("coordinate".to_owned(), json!({})),
    ]);
    described
}

fn number(object: &Object) -> u64 {
    object.track.as_deref().and_then(track_number).unwrap_or(UNTRACKED)
}

fn pixels(object: &Object, [width, height]: [u32; 2]) -> [f64; 4] {
    let [x1, y1, x2, y2] = object.rect.map(round4);
    let (width, height) = (f64::from(width), f64::from(height));
    [x1 * width, y1 * height, x2 * width, y2 * height]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::samples;

    #[test]
    fn the_minimal_form_has_confidence_and_frame_size() {
        let message = minimal("deepstream", &samples::detections());
        assert_eq!((message.topic.as_str(), message.retain), ("deepstream", false));
        let text = String::from_utf8(message.body).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"version":"4.0","id":"90211","@timestamp":"2026-09-30T10:15:02.417Z","sensorId":"gate","objects":["#,
                r#""412|791.04|237.6|898.56|595.08|person|#|0.831","#,
                r#""18446744073709551615|0|0|1920|1080|traffic light|#|0.5"],"frameWidth":1920,"frameHeight":1080}"#
            )
        );
    }

    #[test]
    fn an_empty_frame_is_a_minimal_message_and_no_full_one() {
        let empty = Detections { objects: Vec::new(), ..samples::detections() };
        assert_eq!(samples::body(&minimal("t", &empty))["objects"], json!([]));
        assert!(full("t", &empty).is_empty());
    }

    #[test]
    fn a_bar_in_a_label_does_not_split_it() {
        let mut detections = samples::detections();
        detections.objects[0].label = "a|b".into();
        assert!(samples::body(&minimal("t", &detections))["objects"][0].as_str().unwrap().contains("|a b|#|"));
    }

    #[test]
    fn the_full_form_is_a_message_an_object() {
        let messages = full("deepstream", &samples::detections());
        assert_eq!(messages.len(), 2);
        let nowhere = json!({"lat": 0.0, "lon": 0.0, "alt": 0.0});
        assert_eq!(
            samples::body(&messages[0]),
            json!({
                "messageid": "gate-9f3c1a-18446-0", "mdsversion": "1.0", "@timestamp": "2026-09-30T10:15:02.417Z",
                "place": {"id": "edge07", "name": "edge07", "type": "", "location": nowhere},
                "sensor": {
                    "id": "gate", "type": "Camera", "description": "", "location": nowhere,
                    "coordinate": {"x": 0.0, "y": 0.0, "z": 0.0},
                },
                "analyticsModule": {
                    "id": "watchpost", "description": "object detection", "source": "yolo11s", "version": "sha256:1b7e",
                },
                "object": {
                    "id": "412", "speed": 0.0, "direction": 0.0, "orientation": 0.0, "person": {"confidence": 0.831},
                    "bbox": {"topleftx": 791, "toplefty": 237, "bottomrightx": 898, "bottomrighty": 595},
                    "location": {}, "coordinate": {},
                },
                "event": {"id": "gate-9f3c1a-18446-0", "type": ""}, "videoPath": "",
                "frameWidth": 1920, "frameHeight": 1080,
            })
        );
        let second = samples::body(&messages[1]);
        assert_eq!(second["object"]["id"], "18446744073709551615");
        assert_eq!(second["object"]["traffic light"], json!({"confidence": 0.5}));
    }
}
