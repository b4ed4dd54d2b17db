use std::fs;
use std::path::Path;

use jsonschema::Validator;

use super::*;
use crate::config::Problem;
use crate::formats::{Message, samples};

fn validator(name: &str) -> Validator {
    let (_, schema) = schemas().into_iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no schema {name}"));
    jsonschema::validator_for(&schema).unwrap()
}

/// Every kind of message with a schema, as it is published.
fn messages() -> Vec<(&'static str, Value)> {
    let body = |message: &Message| samples::body(message);
    let (new, update, end, detections) = (samples::new(), samples::update(), samples::end(), samples::detections());
    let problem = Problem { line: Some(3), path: "node".to_owned(), text: "give a name".to_owned() };
    let mut messages = vec![
        ("detections", value(&detections)),
        ("events", value(&new)),
        ("events", value(&update)),
        ("events", value(&end)),
        ("notice", value(&samples::notice())),
        ("info", value(&samples::info())),
        ("health", value(&samples::health())),
        ("state", value(&samples::state())),
        ("ack", value(&Acknowledgement::done("reload", "nothing changes".to_owned()))),
        ("ack", value(&Acknowledgement::refused("camera", "it is wrong".to_owned(), &[problem]))),
        ("frigate-events", body(&frigate::event("f", None, &new))),
        ("frigate-events", body(&frigate::event("f", Some(&new), &update))),
        ("frigate-events", body(&frigate::event("f", Some(&update), &end))),
        ("deepstream-minimal", body(&deepstream::minimal("d", &detections))),
        ("onvif-metadata", body(&onvif::metadata("o", &detections))),
        ("cloudevents", body(&cloudevents::structured("c", &end))),
    ];
    messages.extend(deepstream::full("d", &detections).iter().map(|m| ("deepstream-full", body(m))));
    let mut told = onvif::rules("o", Some(&new), &update, [&update].into_iter());
    told.extend(onvif::rules("o", Some(&update), &end, [].into_iter()));
    assert_eq!(told.len(), 3, "a crossing, in and out of a zone");
    messages.extend(told.iter().map(|m| ("onvif-event", body(m))));
    let site = homeassistant::Site { discovery: "h", topics: "w/n", node: "n", version: "1" };
    let labels = ["person".to_owned()];
    let (zones, lines) = (&[], &[]);
    let camera = homeassistant::Camera { id: "gate", labels: &labels, zones, lines, events: true, snapshots: true };
    messages.push(("homeassistant-device", body(&homeassistant::camera(&site, &camera, None))));
    messages.push(("homeassistant-device", body(&homeassistant::node(&site, None))));
    messages
}

fn value(message: &impl serde::Serialize) -> Value {
    serde_json::to_value(message).unwrap()
}

#[test]
fn every_kind_of_message_fits_its_schema() {
    let messages = messages();
    for (name, _) in schemas() {
        assert!(messages.iter().any(|(n, _)| *n == name), "no sample of {name}");
    }
    for (name, message) in &messages {
        let errors: Vec<String> =
            validator(name).iter_errors(message).map(|e| format!("{} at {}", e, e.instance_path())).collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}\n{message:#}");
    }
}

#[test]
fn what_is_missing_or_of_another_kind_does_not_fit() {
    for (name, message) in messages() {
        let schema = validator(name);
        let required = schemas().into_iter().find(|(n, _)| *n == name).unwrap().1["required"].clone();
        let required = required.as_array().unwrap();
        assert!(!required.is_empty(), "{name}");
        for field in required {
            let field = field.as_str().unwrap();
            let mut without = message.clone();
            without.as_object_mut().unwrap().remove(field);
            assert!(!schema.is_valid(&without), "{name} without {field}");
        }
        assert!(!schema.is_valid(&serde_json::json!([])), "{name}");
    }
}

#[test]
fn committed_schemas_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let mut wrong = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for (name, value) in files() {
        if fs::read_to_string(folder.join(&name)).ok() != Some(text(&value).unwrap()) {
            wrong.push(name.clone());
        }
        names.push(name);
    }
    for entry in fs::read_dir(&folder).into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !names.contains(&name) {
            wrong.push(format!("{name} (nothing is written there any more: delete it)"));
        }
    }
    assert!(
        wrong.is_empty(),
        "schemas/ is not what the types say: `cargo run -- schema --out schemas`: {wrong:#?}"
    );
}

#[test]
fn commands_fit_their_schemas_and_nothing_else_does() {
    let schema = |name: &str| {
        let (_, schema) = commands().into_iter().find(|(n, _)| *n == name).unwrap();
        jsonschema::validator_for(&schema).unwrap()
    };
    let zone =
        serde_json::json!({"name": "drive", "polygon": [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]], "enter_after": "1s"});
    let camera = serde_json::json!({"id": "gate", "url": "rtsp://h/1", "latency": "200ms", "zone": [zone]});
    let command = |action: &str, camera: &Value| serde_json::json!({"action": action, "camera": camera});
    assert!(schema("cmd-camera").is_valid(&command("add", &camera)));
    assert!(schema("cmd-camera").is_valid(&command("remove", &serde_json::json!({"id": "gate"}))));
    assert!(!schema("cmd-camera").is_valid(&command("paint", &camera)));
    assert!(!schema("cmd-camera").is_valid(&command("add", &serde_json::json!({"id": "gate", "colour": 1}))));
    assert!(!schema("cmd-camera").is_valid(&command("add", &serde_json::json!({"id": "gate", "latency": 200}))));
    assert!(schema("cmd-reload").is_valid(&serde_json::json!({})));
    assert!(!schema("cmd-reload").is_valid(&serde_json::json!({"force": true})));
    assert!(!schema("cmd-snapshot").is_valid(&serde_json::json!({})));
}
