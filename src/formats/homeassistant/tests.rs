use serde_json::{Value, json};

use super::*;
use crate::formats::samples;

const SITE: Site<'_> =
    Site { discovery: "homeassistant", topics: "watchpost/edge07/", node: "edge07", version: "1.2.3" };

fn gate() -> (Vec<String>, Vec<(String, Vec<String>)>) {
    let person = "person".to_owned();
    (vec![person.clone(), "traffic light".to_owned()], vec![("drive".to_owned(), vec![person])])
}

fn said(labels: &[String], zones: &[(String, Vec<String>)], previous: Option<&[u8]>) -> Message {
    let lines = [("path".to_owned(), vec!["traffic light".to_owned()])];
    let gate = Camera { id: "front_gate", labels, zones, lines: &lines, events: true, snapshots: true };
    camera(&SITE, &gate, previous)
}

#[test]
fn a_camera_is_a_device() {
    let (labels, zones) = gate();
    let message = said(&labels, &zones, None);
    assert_eq!(message.topic, "homeassistant/device/edge07_front_gate/config");
    assert!(message.retain);
    let mut body = samples::body(&message);
    let cmps = body["cmps"].take();
    assert_eq!(
        body,
        json!({
            "dev": {
                "ids": ["watchpost_edge07_front_gate"], "name": "Front gate", "mf": "watchpost", "mdl": "Camera",
                "sw": "1.2.3", "via_device": "watchpost_edge07",
            },
            "o": {"name": "watchpost", "sw": "1.2.3"},
            "avty": [
                {"t": "watchpost/edge07/status"},
                {
                    "t": "watchpost/edge07/cam/front_gate/status",
                    "val_tpl": "{{ 'online' if value == 'online' else 'offline' }}",
                },
            ],
            "avty_mode": "all",
            "cmps": null,
        })
    );
    let keys: Vec<&String> = cmps.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "count/person",
            "count/traffic_light",
            "enabled",
            "events",
            "line/path/in/traffic_light",
            "line/path/out/traffic_light",
            "occupancy/person",
            "occupancy/traffic_light",
            "snapshot",
            "state/fps",
            "state/frame_age_ms",
            "status",
            "zone/drive/count/person"
        ]
    );
}

#[test]
fn a_cameras_entities_read_the_topics_of_the_contract() {
    let (labels, zones) = gate();
    let body = samples::body(&said(&labels, &zones, None));
    let cmps = &body["cmps"];
    let node = json!([{"t": "watchpost/edge07/status"}]);
    assert_eq!(
        cmps["occupancy/traffic_light"],
        json!({
            "p": "binary_sensor", "name": "Traffic light occupancy", "dev_cla": "occupancy",
            "uniq_id": "watchpost_edge07_front_gate/occupancy/traffic_light",
            "stat_t": "watchpost/edge07/cam/front_gate/count/traffic_light",
            "val_tpl": "{{ 'ON' if value | int(0) > 0 else 'OFF' }}",
        })
    );
    assert_eq!(
        cmps["zone/drive/count/person"],
        json!({
            "p": "sensor", "name": "Drive person count", "stat_cla": "measurement", "unit_of_meas": "objects",
            "uniq_id": "watchpost_edge07_front_gate/zone/drive/count/person",
            "stat_t": "watchpost/edge07/cam/front_gate/zone/drive/count/person",
        })
    );
    assert_eq!(
        cmps["line/path/in/traffic_light"],
        json!({
            "p": "sensor", "name": "Path traffic light in", "stat_cla": "total_increasing", "unit_of_meas": "objects",
            "uniq_id": "watchpost_edge07_front_gate/line/path/in/traffic_light",
            "stat_t": "watchpost/edge07/cam/front_gate/line/path/in/traffic_light",
        })
    );
    assert_eq!(
        cmps["enabled"],
        json!({
            "p": "switch", "name": "Enabled", "ic": "mdi:cctv", "avty": node, "ret": false,
            "uniq_id": "watchpost_edge07_front_gate/enabled",
            "stat_t": "watchpost/edge07/cam/front_gate/enabled/state",
            "cmd_t": "watchpost/edge07/cam/front_gate/enabled/set",
        })
    );
    assert_eq!(
        cmps["snapshot"],
        json!({
            "p": "image", "name": "Snapshot", "cont_type": "image/jpeg", "avty": node,
            "uniq_id": "watchpost_edge07_front_gate/snapshot", "img_t": "watchpost/edge07/cam/front_gate/snapshot",
        })
    );
    assert_eq!(
        cmps["state/frame_age_ms"],
        json!({
            "p": "sensor", "name": "Frame age", "stat_cla": "measurement", "ent_cat": "diagnostic",
            "uniq_id": "watchpost_edge07_front_gate/state/frame_age_ms", "dev_cla": "duration",
            "stat_t": "watchpost/edge07/cam/front_gate/state", "val_tpl": "{{ value_json.frame_age_ms }}",
            "unit_of_meas": "ms", "sug_dsp_prc": 0,
        })
    );
    assert_eq!(cmps["events"]["evt_typ"], json!(["new", "update", "end"]));
    assert_eq!(cmps["events"]["stat_t"], "watchpost/edge07/cam/front_gate/events");
}

#[test]
fn the_box_is_a_device_of_its_own() {
    let message = node(&Site { node: "edge 07.local", ..SITE }, None);
    assert_eq!(message.topic, "homeassistant/device/edge_07_local/config");
    let body = samples::body(&message);
    assert_eq!(body["dev"]["name"], "watchpost edge 07.local");
    assert_eq!(body["cmps"]["status"]["avty"], json!([]));
    assert_eq!(
        body["cmps"]["health/rss_bytes"],
        json!({
            "p": "sensor", "name": "Memory", "stat_cla": "measurement", "ent_cat": "diagnostic", "dev_cla": "data_size",
            "uniq_id": "watchpost_edge 07.local/health/rss_bytes", "stat_t": "watchpost/edge07/health",
            "val_tpl": "{{ value_json.rss_bytes }}", "unit_of_meas": "B", "sug_dsp_prc": 0, "exp_aft": 60,
        })
    );
    let kinds = body["cmps"]["notice"]["evt_typ"].as_array().unwrap();
    assert!(kinds.contains(&json!("camera_lost")) && kinds.contains(&json!("started")), "{kinds:?}");
}

#[test]
fn what_is_no_longer_there_is_taken_away_by_name() {
    let (labels, zones) = gate();
    let first = said(&labels, &zones, None);
    assert_eq!(said(&labels, &zones, Some(&first.body)), first, "nothing is gone");
    let second = said(&labels[..1], &[], Some(&first.body));
    let cmps = samples::body(&second)["cmps"].clone();
    assert_eq!(cmps["count/traffic_light"], json!({"p": "sensor"}));
    assert_eq!(cmps["occupancy/traffic_light"], json!({"p": "binary_sensor"}));
    assert_eq!(cmps["zone/drive/count/person"], json!({"p": "sensor"}));
    assert_ne!(cmps["count/person"], json!({"p": "sensor"}));
    // It stays so, and comes back when it is there again.
    assert_eq!(said(&labels[..1], &[], Some(&second.body)), second);
    assert_eq!(said(&labels, &zones, Some(&second.body)), first);
    assert_eq!(said(&labels, &zones, Some(b"not JSON")), first);
}

#[test]
fn removal_is_an_empty_retained_message() {
    let removal = |topic: &str| Message { topic: topic.to_owned(), body: Vec::new(), retain: true };
    assert_eq!(camera_removal("ha", "edge07", "gate"), removal("ha/device/edge07_gate/config"));
    assert_eq!(node_removal("ha", "edge07"), removal("ha/device/edge07/config"));
    assert_eq!(birth_topic("homeassistant"), "homeassistant/status");
    let kinds: Value = json!(names::<crate::event::CameraStatus>());
    assert_eq!(kinds, json!(["online", "offline", "disabled", "finished"]));
}
