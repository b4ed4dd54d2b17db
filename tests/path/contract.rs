//! The MQTT contract as a subscriber meets it: every message with its QoS, retain and expiry, and what is there for one who
//! comes late.

use std::collections::BTreeMap;
use std::time::Duration;

use tempfile::TempDir;
use watchpost::event::CameraStatus;

use super::events::{CONSUMERS, SCENE, consumer};
use crate::support::clips::{Clip, clip};
use crate::support::cores::all_cores;
use crate::support::daemon::{Daemon, camera};
use crate::support::mosquitto::{Message, Witness};
use crate::support::schemas;

const LIMIT: Duration = Duration::from_secs(120);

/// What is retained of the box and cameras below, and nothing else.
const RETAINED: [&str; 23] = [
    "cam/walk/count/person",
    "cam/walk/enabled/state",
    "cam/walk/line/middle/in/person",
    "cam/walk/line/middle/out/person",
    "cam/walk/snapshot",
    "cam/walk/state",
    "cam/walk/status",
    "cam/walk/zone/right/count/person",
    "cam/yard/count/person",
    "cam/yard/enabled/state",
    "cam/yard/snapshot",
    "cam/yard/state",
    "cam/yard/status",
    "frigate/available",
    "frigate/right/person",
    "frigate/walk/person",
    "frigate/yard/person",
    "homeassistant/device/box/config",
    "homeassistant/device/box_walk/config",
    "homeassistant/device/box_yard/config",
    "info",
    "onvif-ej/RuleEngine/FieldDetector/ObjectsInside/&walk/right",
    "status",
];

/// It was published as the document says of its topic; whether that is retained.
fn is_retained(message: &Message) -> Option<bool> {
    let channel = schemas::check(&message.topic, &message.body)?;
    let (qos, retained, expiry) = channel.delivery();
    assert_eq!((u64::from(message.qos), message.retained), (qos, retained), "{}", message.topic);
    // The broker counts the time down that it held the message.
    let left = message.expiry.map(u64::from);
    assert!(left.is_some() == expiry.is_some() && left <= expiry, "{}: {left:?}, not {expiry:?}", message.topic);
    Some(retained)
}

#[test]
fn every_message_has_the_qos_the_retain_and_the_expiry_of_its_topic_and_what_is_retained_is_the_contracts() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let walk = format!("[[camera]]\nid = \"walk\"\nurl = {walk:?}\npace = \"fast\"\n{SCENE}");
    let sections = [walk, camera("yard", "test://?size=320x240&fps=5", ""), CONSUMERS.map(consumer).concat()]
        .concat()
        + "[events]\nlabels = [\"person\"]\n";
    let mut witness = None;
    let daemon = Daemon::start_by(TempDir::new().unwrap(), Vec::new(), "", &sections, |port| {
        witness = Some(Witness::start(port, "watchpost/box/#"));
        port
    });
    let (Some(mut daemon), Some(witness)) = (daemon, witness) else { return };
    daemon.until("the end of the file", LIMIT, |heard| heard.is("walk", CameraStatus::Finished));
    daemon.publish("cmd/snapshot", "{\"camera\":\"yard\"}");
    daemon.until("a picture", LIMIT, |heard| {
        heard.texts.contains_key("cmd/snapshot/result") && heard.pictures.contains_key("cam/yard/snapshot")
    });
    // Each 10 s, and what was made before the connection was there is not sent.
    daemon.until("health", LIMIT, |heard| !heard.health.is_empty());
    daemon.publish("cam/yard/enabled/set", "OFF");
    daemon.until("the camera to be off", LIMIT, |heard| heard.text("cam/yard/status") == "disabled");
    daemon.finish();

    let all = witness.until("watchpost/box/end-of-test");
    let mut kept = BTreeMap::new();
    for message in &all {
        if is_retained(message) == Some(true) {
            kept.insert(message.topic.clone(), message.body.clone());
        }
    }
    kept.retain(|_, body| !body.is_empty());
    // Over MQTT 3.1.1, and with `schema = "full"`.
    let others = ["cloudEvents", "deepstreamFull"];
    for channel in schemas::document().iter().filter(|c| c.is_ours && !others.contains(&c.name.as_str())) {
        assert!(all.iter().any(|message| channel.has(&message.topic)), "nothing of {}", channel.name);
    }

    let late = Witness::start(daemon.port(), "watchpost/box/#");
    daemon.publish("end-of-test", "");
    let late = late.until("watchpost/box/end-of-test");
    assert!(late.iter().all(|message| is_retained(message) == Some(true)));
    let late: BTreeMap<String, Vec<u8>> = late.into_iter().map(|message| (message.topic, message.body)).collect();
    let topics: Vec<&str> = late.keys().map(|topic| topic.strip_prefix("watchpost/box/").unwrap()).collect();
    assert_eq!(topics, RETAINED);
    assert!(late == kept, "what is retained is what was said last");
}
