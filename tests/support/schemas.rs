//! The committed schemas, and which of them a message must fit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::Value;

/// Holds a message against the schema of its topic below `{base}/{node}/`; topics without a schema pass.
///
/// # Panics
///
/// It does not fit.
pub fn check(topic: &str, body: &[u8]) {
    // What clears a retained topic.
    if body.is_empty() {
        return;
    }
    let levels: Vec<&str> = topic.split('/').collect();
    let value = || -> Value {
        serde_json::from_slice(body).unwrap_or_else(|e| panic!("{topic}: {e}: {}", String::from_utf8_lossy(body)))
    };
    let has = |member: &str| value().get(member).is_some();
    let name = match levels[..] {
        ["info"] => "info",
        ["health"] => "health",
        ["notice"] => "notice",
        ["cam", _, "detections"] => "detections",
        ["cam", _, "events"] => "events",
        ["cam", _, "state"] => "state",
        // Over MQTT 5 the envelope is outside of the body.
        ["cam", _, "cloudevents"] => {
            if has("specversion") {
                "cloudevents"
            } else {
                "events"
            }
        }
        ["cam", _, "deepstream"] => {
            if has("objects") {
                "deepstream-minimal"
            } else {
                "deepstream-full"
            }
        }
        ["onvif-mj", ..] => "onvif-metadata",
        ["onvif-ej", ..] => "onvif-event",
        // The tests have other products' prefixes below the box's own.
        ["frigate", "events"] => "frigate-events",
        ["homeassistant", "device", _, "config"] => "homeassistant-device",
        _ => return,
    };
    let value = value();
    let errors: Vec<String> =
        schema(name).iter_errors(&value).map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{topic} is not of schemas/{name}.schema.json: {errors:#?}\n{value:#}");
}

fn schema(name: &str) -> &'static Validator {
    static SCHEMAS: OnceLock<BTreeMap<String, Validator>> = OnceLock::new();
    let schemas = SCHEMAS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let schema = |path: &Path| -> Value { serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap() };
        names
            .filter_map(|path| {
                let name = path.file_name()?.to_str()?.strip_suffix(".schema.json")?.to_owned();
                Some((name, jsonschema::validator_for(&schema(&path)).unwrap()))
            })
            .collect()
    });
    schemas.get(name).unwrap_or_else(|| panic!("no schemas/{name}.schema.json"))
}
