//! Device discovery by Home Assistant, 2024.12 and later: one retained message makes a device with all its entities.
//!
//! A component's key, and with it its unique id, is the end of the topic that it reads: nothing else of the device has it.
//! The long names behind the abbreviations are in Home Assistant's `components/mqtt/abbreviations.py`.

use std::collections::BTreeMap;

use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Message, below, label_level, title};
use crate::event::{EventKind, NoticeKind};

/// `health` comes every 10 s: what is older than six of them is unknown.
const HEALTH_EXPIRES_S: u32 = 60;

/// What all messages of a box have in common.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// First topic level(s) of discovery, `homeassistant`.
    pub discovery: &'a str,
    /// What the topics of the box begin with, `{base}/{node}`.
    pub topics: &'a str,
    /// Name of the box.
    pub node: &'a str,
    /// Our version.
    pub version: &'a str,
}

/// What there is of a camera.
#[derive(Clone, Copy, Debug)]
pub struct Camera<'a> {
    /// Its name.
    pub id: &'a str,
    /// Labels that are counted.
    pub labels: &'a [String],
    /// Zones, each with the labels that are counted in it.
    pub zones: &'a [(String, Vec<String>)],
    /// Lines, each with the labels whose crossings are counted.
    pub lines: &'a [(String, Vec<String>)],
    /// It has `events`.
    pub events: bool,
    /// It has `snapshot`.
    pub snapshots: bool,
}

/// `{discovery}/device/{node}_{camera}/config`, or `{node}` alone for the box.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Discovery {
    /// Device.
    pub dev: Device,
    /// Origin.
    pub o: Origin,
    /// Availability, all of it needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avty: Vec<Availability>,
    /// Always `all`.
    pub avty_mode: String,
    /// Components, by key. One that has `p` alone is taken away.
    pub cmps: BTreeMap<String, Map<String, Value>>,
}

/// The device.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// Identifiers.
    pub ids: Vec<String>,
    /// Name for people.
    pub name: String,
    /// Manufacturer.
    pub mf: String,
    /// Model.
    pub mdl: String,
    /// Version.
    pub sw: String,
    /// The device that this one belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via_device: Option<String>,
}

/// Who made the message.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// Name.
    pub name: String,
    /// Version.
    pub sw: String,
}

/// A topic that says whether the device is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Availability {
    /// Topic.
    pub t: String,
    /// What makes `online` or `offline` of its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_tpl: Option<String>,
}

/// The device of a camera. `previous` is the body that the topic had before, where there was one: components that it had
/// and the new one has not are taken away by name, for Home Assistant keeps what it is not told of.
pub fn camera(site: &Site<'_>, camera: &Camera<'_>, previous: Option<&[u8]>) -> Message {
    let id = format!("watchpost_{}_{}", site.node, camera.id);
    let topics = below(site.topics, &format!("cam/{}", camera.id));
    let node_up = Availability { t: below(site.topics, "status"), val_tpl: None };
    // `disabled` and `finished` are neither of the two that Home Assistant knows.
    let online = "{{ 'online' if value == 'online' else 'offline' }}";
    let camera_up = Availability { t: below(&topics, "status"), val_tpl: Some(online.to_owned()) };
    let device = Device {
        ids: vec![id.clone()],
        name: title(camera.id),
        mf: "watchpost".to_owned(),
        mdl: "Camera".to_owned(),
        sw: site.version.to_owned(),
        via_device: Some(format!("watchpost_{}", site.node)),
    };
    let mut components = Components { id, cmps: BTreeMap::new() };
    camera_itself(&mut components, &topics, &node_up);
    if camera.snapshots {
        let topic = below(&topics, "snapshot");
        // The last picture of a camera that is gone is worth seeing.
        let image = json!({"p": "image", "name": "Snapshot", "img_t": topic, "cont_type": "image/jpeg", "avty": [&node_up]});
        components.add("snapshot", image);
    }
    if camera.events {
        components.add("events", events(&below(&topics, "events"), &node_up));
    }
    for label in camera.labels {
        let (name, level) = (title(label), label_level(label));
        let topic = below(&topics, &format!("count/{level}"));
        components.add(&format!("occupancy/{level}"), occupancy(&format!("{name} occupancy"), &topic));
        components.add(&format!("count/{level}"), count(&format!("{name} count"), &topic));
    }
    for (zone, labels) in camera.zones {
        for label in labels {
            let key = format!("zone/{zone}/count/{}", label_level(label));
            let name = format!("{} {} count", title(zone), label.to_lowercase());
            components.add(&key, count(&name, &below(&topics, &key)));
        }
    }
    for (line, labels) in camera.lines {
        for (label, way) in labels.iter().flat_map(|label| [(label, "in"), (label, "out")]) {
            let key = format!("line/{line}/{way}/{}", label_level(label));
            let name = format!("{} {} {way}", title(line), label.to_lowercase());
            // Back at 0 with each start: what went before is not taken away from the total.
            let total = with(count(&name, &below(&topics, &key)), "stat_cla", "total_increasing");
            components.add(&key, total);
        }
    }
    message(site, &object_id(site.node, Some(camera.id)), device, vec![node_up, camera_up], components, previous)
}

/// The device of the box itself. `previous` as for [`camera`].
pub fn node(site: &Site<'_>, previous: Option<&[u8]>) -> Message {
    let id = format!("watchpost_{}", site.node);
    let device = Device {
        ids: vec![id.clone()],
        name: format!("watchpost {}", site.node),
        mf: "watchpost".to_owned(),
        mdl: "Video analytics".to_owned(),
        sw: site.version.to_owned(),
        via_device: None,
    };
    let status = below(site.topics, "status");
    let mut components = Components { id, cmps: BTreeMap::new() };
    components.add(
        "status",
        json!({
            "p": "binary_sensor", "name": "Connection", "dev_cla": "connectivity", "ent_cat": "diagnostic",
            "stat_t": status, "pl_on": "online", "pl_off": "offline",
            // It tells of it, and so may not depend on it.
            "avty": [],
        }),
    );
    components.add(
        "info/started",
        json!({
            "p": "sensor", "name": "Started", "dev_cla": "timestamp", "ent_cat": "diagnostic",
            "stat_t": below(site.topics, "info"), "val_tpl": "{{ value_json.started }}",
        }),
    );
    health(&mut components, &below(site.topics, "health"));
    components.add(
        "notice",
        json!({
            "p": "event", "name": "Notice", "stat_t": below(site.topics, "notice"), "evt_typ": names::<NoticeKind>(),
            "val_tpl": "{{ dict(value_json, event_type=value_json.kind) | tojson }}",
        }),
    );
    let up = Availability { t: status, val_tpl: None };
    message(site, &object_id(site.node, None), device, vec![up], components, previous)
}

/// Takes a camera's device away.
pub fn camera_removal(discovery: &str, node: &str, camera: &str) -> Message {
    Message::removal(config_topic(discovery, &object_id(node, Some(camera))))
}

/// Takes the box's device away.
pub fn node_removal(discovery: &str, node: &str) -> Message {
    Message::removal(config_topic(discovery, &object_id(node, None)))
}

/// Where Home Assistant says `online` after its start, and is told of every device again: a broker may have lost, or somebody
/// cleared, what was retained for it.
pub fn birth_topic(discovery: &str) -> String {
    below(discovery, "status")
}

/// What all devices are below.
pub fn devices(discovery: &str) -> String {
    below(discovery, "device")
}

/// The components of a device.
struct Components {
    id: String,
    cmps: BTreeMap<String, Map<String, Value>>,
}

impl Components {
    fn add(&mut self, key: &str, component: Value) {
        let Value::Object(mut component) = component else { unreachable!("{key} is an object") };
        component.insert("uniq_id".to_owned(), json!(format!("{}/{key}", self.id)));
        self.cmps.insert(key.to_owned(), component);
    }
}

fn camera_itself(components: &mut Components, topics: &str, node_up: &Availability) {
    let state = below(topics, "state");
    components.add(
        "status",
        json!({
            "p": "binary_sensor", "name": "Connection", "dev_cla": "connectivity", "ent_cat": "diagnostic",
            "stat_t": below(topics, "status"), "val_tpl": "{{ 'ON' if value == 'online' else 'OFF' }}",
            "json_attr_t": state,
            "json_attr_tpl": "{{ {'reason': value_json.reason, 'since': value_json.since, 'attempts': value_json.attempts} | tojson }}",
            "avty": [node_up],
        }),
    );
    components.add(
        "enabled",
        json!({
            "p": "switch", "name": "Enabled", "ic": "mdi:cctv", "avty": [node_up],
            "stat_t": below(topics, "enabled/state"), "cmd_t": below(topics, "enabled/set"), "ret": false,
        }),
    );
    let (fps, age) = ("{{ value_json.fps }}", "{{ value_json.frame_age_ms }}");
    components.add("state/fps", measured("Frame rate", &state, fps, "fps", 1));
    components.add("state/frame_age_ms", duration(measured("Frame age", &state, age, "ms", 0)));
}

fn events(topic: &str, node_up: &Availability) -> Value {
    // Over MQTT 3.1.1 the event may come in the envelope of CloudEvents.
    let template = "{% set e = value_json.data if 'specversion' in value_json else value_json %}\
                    {{ dict(e, event_type=e.type) | tojson }}";
    json!({
        "p": "event", "name": "Event", "stat_t": topic, "evt_typ": names::<EventKind>(), "val_tpl": template,
        "avty": [node_up],
    })
}

fn occupancy(name: &str, topic: &str) -> Value {
    let template = "{{ 'ON' if value | int(0) > 0 else 'OFF' }}";
    json!({"p": "binary_sensor", "name": name, "dev_cla": "occupancy", "stat_t": topic, "val_tpl": template})
}

fn count(name: &str, topic: &str) -> Value {
    json!({"p": "sensor", "name": name, "stat_cla": "measurement", "unit_of_meas": "objects", "stat_t": topic})
}

fn measured(name: &str, topic: &str, template: &str, unit: &str, digits: u32) -> Value {
    json!({
        "p": "sensor", "name": name, "stat_cla": "measurement", "ent_cat": "diagnostic", "stat_t": topic,
        "val_tpl": template, "unit_of_meas": unit, "sug_dsp_prc": digits,
    })
}

fn duration(sensor: Value) -> Value {
    with(sensor, "dev_cla", "duration")
}

fn with(mut component: Value, field: &str, value: &str) -> Value {
    component[field] = json!(value);
    component
}

fn health(components: &mut Components, topic: &str) {
    let field = |name: &str| format!("{{{{ value_json.{name} }}}}");
    let mut add = |key: &str, mut component: Value| {
        component["exp_aft"] = json!(HEALTH_EXPIRES_S);
        components.add(&format!("health/{key}"), component);
    };
    for (key, name, template) in [
        ("problems", "Problem", "{{ 'ON' if value_json.problems else 'OFF' }}"),
        ("overload", "Overload", "{{ 'ON' if value_json.overload else 'OFF' }}"),
    ] {
        add(
            key,
            json!({
                "p": "binary_sensor", "name": name, "dev_cla": "problem", "ent_cat": "diagnostic", "stat_t": topic,
                "val_tpl": template, "json_attr_t": topic,
                "json_attr_tpl": "{{ {'problems': value_json.problems} | tojson }}",
            }),
        );
    }
    let share = "{{ (value_json.batch_fill * 100) | round(1) }}";
    add("fps", measured("Inference rate", topic, &field("fps"), "fps", 1));
    add("batch_fill", measured("Batch fill", topic, share, "%", 0));
    let age = measured("Frame age, 95th percentile", topic, &field("frame_age_p95_ms"), "ms", 0);
    add("frame_age_p95_ms", duration(age));
    let memory = measured("Memory", topic, &field("rss_bytes"), "B", 0);
    add("rss_bytes", with(memory, "dev_cla", "data_size"));
    add("spool_pending", measured("Spooled messages", topic, &field("spool_pending"), "messages", 0));
    for (key, name) in
        [("spool_dropped", "Spooled messages dropped"), ("detections_dropped", "Detections messages dropped")]
    {
        add(key, with(measured(name, topic, &field(key), "messages", 0), "stat_cla", "total_increasing"));
    }
}

fn message(
    site: &Site<'_>,
    object_id: &str,
    dev: Device,
    avty: Vec<Availability>,
    components: Components,
    previous: Option<&[u8]>,
) -> Message {
    let mut cmps = components.cmps;
    // What was taken away before stays taken away: Home Assistant may not have seen that message.
    if let Some(previous) = previous.and_then(|body| serde_json::from_slice::<Discovery>(body).ok()) {
        for (key, mut component) in previous.cmps {
            component.retain(|name, _| name == "p");
            cmps.entry(key).or_insert(component);
        }
    }
    let o = Origin { name: "watchpost".to_owned(), sw: site.version.to_owned() };
    let discovery = Discovery { dev, o, avty, avty_mode: "all".to_owned(), cmps };
    Message::json(config_topic(site.discovery, object_id), &discovery, true)
}

fn config_topic(discovery: &str, object_id: &str) -> String {
    below(&devices(discovery), &format!("{object_id}/config"))
}

/// Home Assistant takes `[A-Za-z0-9_-]` here; a camera's name is that anyway.
fn object_id(node: &str, camera: Option<&str>) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let node: String = node.chars().map(plain).collect();
    camera.map_or_else(|| node.clone(), |camera| format!("{node}_{camera}"))
}

/// The values of an enum as they are written, from its schema: Home Assistant drops an event of a kind that it was not told
/// of.
fn names<T: JsonSchema>() -> Vec<String> {
    let schema = schema_for!(T);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let arms = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let documented = arms.flat_map(|arm| {
        arm.get("const").into_iter().chain(arm.get("enum").and_then(Value::as_array).into_iter().flatten())
    });
    documented.chain(schema.get("enum").and_then(Value::as_array).into_iter().flatten()).filter_map(text).collect()
}

#[cfg(test)]
mod tests;
