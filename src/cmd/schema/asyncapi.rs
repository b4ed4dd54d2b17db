//! The AsyncAPI 3.0 document: every topic, who writes it, its QoS, whether it is retained, and what is in it.

use serde_json::{Map, Value, json};

use crate::publish::LIVE_EXPIRY_S;

/// What is in a message.
#[derive(Clone, Copy)]
enum Content {
    /// JSON of the schema of this name.
    Json(&'static str),
    /// One of these words.
    Words(&'static [&'static str]),
    /// A number in digits.
    Count,
    /// A picture.
    Jpeg,
}

/// Who writes a topic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// We do; kept by the broker.
    Retained,
    /// We do, at QoS 1.
    Spooled,
    /// We do, at QoS 0; it expires after [`LIVE_EXPIRY_S`].
    Live,
    /// Others do, and we read it.
    Others,
}

use Content::{Count, Jpeg, Json, Words};
use Writer::{Live, Others, Retained, Spooled};

const ONLINE: Content = Words(&["online", "offline"]);
const CAMERA_STATUS: Content = Words(&["online", "offline", "disabled"]);
const ON: Content = Words(&["ON", "OFF"]);
const CAMERA: &str = "{base}/{node}/cam/{camera}/";

/// Names, topics, writers and contents. A topic without a prefix of another product is below `{base}/{node}`.
const CHANNELS: &[(&str, &str, Writer, Content, &str)] = &[
    ("status", "{base}/{node}/status", Retained, ONLINE, "Whether the box is there. The last will says `offline`."),
    ("info", "{base}/{node}/info", Retained, Json("info"), "What runs here."),
    ("health", "{base}/{node}/health", Live, Json("health"), "How it goes, every 10 s."),
    ("notice", "{base}/{node}/notice", Spooled, Json("notice"), "What a person or program should know."),
    ("cameraStatus", "status", Retained, CAMERA_STATUS, "Whether the camera is there, or switched off."),
    ("cameraState", "state", Retained, Json("state"), "What is known of the camera."),
    ("detections", "detections", Live, Json("detections"), "What is seen in a frame."),
    ("events", "events", Spooled, Json("events"), "The life of a track: new, update, end."),
    ("count", "count/{label}", Retained, Count, "How many objects of a class are seen."),
    ("zoneCount", "zone/{zone}/count/{label}", Retained, Count, "How many of them are in a zone."),
    (
        "lineCount",
        "line/{line}/{direction}/{label}",
        Retained,
        Count,
        "How many have crossed a line since the start, or since the camera was away or built anew.",
    ),
    ("snapshot", "snapshot", Retained, Jpeg, "The latest picture of an event, or what was asked for."),
    ("trackSnapshot", "snapshot/{track}", Live, Jpeg, "The best picture of a track so far."),
    ("enabled", "enabled/state", Retained, ON, "Whether the camera is switched on."),
    ("enable", "enabled/set", Others, ON, "Switches the camera. Must not be retained: it is ignored then."),
    (
        "reload",
        "{base}/{node}/cmd/reload",
        Others,
        Json("cmd-reload"),
        "Reads the configuration again. An empty message does it, too. No command may be retained.",
    ),
    (
        "camera",
        "{base}/{node}/cmd/camera",
        Others,
        Json("cmd-camera"),
        "Adds, changes or removes a camera until the next start or reload.",
    ),
    (
        "picture",
        "{base}/{node}/cmd/snapshot",
        Others,
        Json("cmd-snapshot"),
        "Asks for a picture of what the camera sees now.",
    ),
    (
        "result",
        "{base}/{node}/cmd/{command}/result",
        Spooled,
        Json("ack"),
        "What came of a command that names no response topic (MQTT 5); else it is said there, with its correlation data.",
    ),
    (
        "cloudEvents",
        "cloudevents",
        Spooled,
        Json("cloudevents"),
        "With `[cloudevents]`, over MQTT 3.1.1: an event in its envelope.",
    ),
    (
        "cloudEventsBinary",
        "cloudevents",
        Spooled,
        Json("events"),
        "With `[cloudevents]`, over MQTT 5: an event as in `events`, its envelope in user properties.",
    ),
    (
        "deepstreamMinimal",
        "deepstream",
        Live,
        Json("deepstream-minimal"),
        "With `[deepstream]`: a message a frame.",
    ),
    (
        "deepstreamFull",
        "deepstream",
        Live,
        Json("deepstream-full"),
        "With `[deepstream]`, `schema = \"full\"`: a message an object.",
    ),
    (
        "onvifMetadata",
        "{base}/{node}/onvif-mj/VideoAnalytics/{camera}/watchpost",
        Live,
        Json("onvif-metadata"),
        "With `[onvif]`: a frame.",
    ),
    (
        "onvifLine",
        "{base}/{node}/onvif-ej/RuleEngine/LineDetector/Crossed/&{camera}/{line}",
        Spooled,
        Json("onvif-event"),
        "With `[onvif]`: a line was crossed.",
    ),
    (
        "onvifZone",
        "{base}/{node}/onvif-ej/RuleEngine/FieldDetector/ObjectsInside/&{camera}/{zone}",
        Retained,
        Json("onvif-event"),
        "With `[onvif]`: who is in a zone, as of the latest change.",
    ),
    ("frigateAvailable", "{frigate}/available", Retained, ONLINE, "With `[frigate]`: whether the box is there."),
    (
        "frigateEvents",
        "{frigate}/events",
        Spooled,
        Json("frigate-events"),
        "With `[frigate]`: the life of a track.",
    ),
    ("frigateCount", "{frigate}/{camera}/{label}", Retained, Count, "With `[frigate]`: how many are seen."),
    ("frigateZoneCount", "{frigate}/{zone}/{label}", Retained, Count, "With `[frigate]`: how many are in a zone."),
    (
        "homeassistantCamera",
        "{homeassistant}/device/{node}_{camera}/config",
        Retained,
        Json("homeassistant-device"),
        "With `[homeassistant]`: a camera's device.",
    ),
    (
        "homeassistantNode",
        "{homeassistant}/device/{node}/config",
        Retained,
        Json("homeassistant-device"),
        "With `[homeassistant]`: the box's device.",
    ),
    (
        "homeassistantBirth",
        "{homeassistant}/status",
        Others,
        ONLINE,
        "With `[homeassistant]`: Home Assistant has started, or ends.",
    ),
];

/// What stands for the braces in a topic.
const PARAMETERS: &[(&str, &str, Option<&str>)] = &[
    ("base", "`mqtt.base`: may have several levels.", Some("watchpost")),
    ("node", "`node`: the name of the box.", None),
    ("camera", "`id` of a camera.", None),
    ("command", "Name of a command, such as `reload`; `enabled` for `enabled/set`.", None),
    ("label", "Class name in lower case, blanks and what topics cannot have as underscores.", None),
    ("zone", "`name` of a zone.", None),
    ("line", "`name` of a line.", None),
    ("direction", "`in` or `out`.", None),
    ("track", "`id` of an event.", None),
    ("frigate", "`frigate.prefix`.", Some("frigate")),
    ("homeassistant", "`homeassistant.prefix`.", Some("homeassistant")),
];

/// The document.
pub fn document() -> Value {
    let (mut channels, mut operations) = (Map::new(), Map::new());
    for (name, topic, writer, content, text) in CHANNELS {
        let address = if topic.starts_with('{') { (*topic).to_owned() } else { format!("{CAMERA}{topic}") };
        channels.insert((*name).to_owned(), channel(name, &address, *content, text));
        operations.insert(operation_name(name, *writer), operation(name, *writer));
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "watchpost",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Edge video analytics: many cameras in, batched detections out on MQTT.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "{host}",
                "protocol": "mqtt",
                "description": "Any broker of MQTT 5 or 3.1.1, or the embedded one.",
                "variables": {"host": {"default": "localhost:1883"}},
            },
        },
        "channels": channels,
        "operations": operations,
    })
}

fn channel(name: &str, address: &str, content: Content, text: &str) -> Value {
    let (content_type, payload) = match content {
        Json(schema) => {
            let schema = json!({"$ref": format!("./{schema}.schema.json")});
            (
                "application/json",
                json!({"schemaFormat": "application/schema+json;version=draft-07", "schema": schema}),
            )
        }
        Words(words) => ("text/plain", json!({"type": "string", "enum": words})),
        Count => ("text/plain", json!({"type": "string", "pattern": "^[0-9]+$"})),
        Jpeg => ("image/jpeg", json!({"type": "string", "format": "binary"})),
    };
    let mut channel = json!({
        "address": address,
        "description": text,
        "messages": {name: {"name": name, "contentType": content_type, "payload": payload}},
    });
    let parameters = PARAMETERS.iter().filter(|(name, ..)| address.contains(&format!("{{{name}}}")));
    let parameter = |(name, text, default): &(&str, &str, Option<&str>)| {
        let mut parameter = json!({"description": text});
        if let Some(default) = default {
            parameter["default"] = json!(default);
        }
        ((*name).to_owned(), parameter)
    };
    channel["parameters"] = Value::Object(parameters.map(parameter).collect());
    channel
}

fn operation_name(name: &str, writer: Writer) -> String {
    let mut letters = name.chars();
    let capital: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    format!("{}{capital}", if writer == Others { "read" } else { "publish" })
}

fn operation(channel: &str, writer: Writer) -> Value {
    let mut mqtt = json!({"bindingVersion": "0.2.0"});
    match writer {
        // We ask for them at QoS 1; how they are sent is up to others.
        Others => mqtt["qos"] = json!(1),
        Retained | Spooled => {
            mqtt["qos"] = json!(1);
            mqtt["retain"] = json!(writer == Retained);
        }
        Live => {
            mqtt["qos"] = json!(0);
            mqtt["retain"] = json!(false);
            mqtt["messageExpiryInterval"] = json!(LIVE_EXPIRY_S);
        }
    }
    json!({
        "action": if writer == Others { "receive" } else { "send" },
        "channel": {"$ref": format!("#/channels/{channel}")},
        "bindings": {"mqtt": mqtt},
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::event::{Counter, Direction};
    use crate::formats::{Message, cloudevents, deepstream, frigate, homeassistant, onvif, samples};
    use crate::frame::CameraId;
    use crate::publish::{Topic, Topics};

    /// An address with what `formats::samples` is about in place of its parameters.
    fn filled(address: &str) -> String {
        let parameters = [
            ("base", "w"),
            ("node", "edge07"),
            ("camera", "gate"),
            ("command", "reload"),
            ("label", "person"),
            ("zone", "drive"),
            ("line", "gate"),
            ("direction", "in"),
            ("track", "t7"),
            ("frigate", "f"),
            ("homeassistant", "h"),
        ];
        parameters
            .iter()
            .fold(address.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }

    /// The box's own topics, by channel.
    fn own() -> Vec<(&'static str, String)> {
        let (topics, gate) = (Topics::new("w", "edge07").unwrap(), CameraId::new("gate"));
        let label = || "person".to_owned();
        let counted = |counter| topics.count(&gate, &counter);
        let text = |topic: Topic| topic.as_str().to_owned();
        vec![
            ("status", text(topics.status())),
            ("info", text(topics.info())),
            ("health", text(topics.health())),
            ("notice", text(topics.notice())),
            ("cameraStatus", text(topics.camera_status(&gate))),
            ("cameraState", text(topics.camera_state(&gate))),
            ("detections", text(topics.detections(&gate))),
            ("events", text(topics.events(&gate))),
            ("count", text(counted(Counter::Label(label())))),
            ("zoneCount", text(counted(Counter::Zone("drive".to_owned(), label())))),
            ("lineCount", text(counted(Counter::Line("gate".to_owned(), Direction::In, label())))),
            ("snapshot", text(topics.snapshot(&gate))),
            ("trackSnapshot", text(topics.snapshot_of(&gate, "t7"))),
            ("enabled", text(topics.enabled_state(&gate))),
            ("enable", topics.enabled_set_filter().replace('+', "gate")),
            ("reload", topics.command_filter().replace('+', "reload")),
            ("camera", topics.command_filter().replace('+', "camera")),
            ("picture", topics.command_filter().replace('+', "snapshot")),
            ("result", text(topics.command_result("reload"))),
            ("homeassistantBirth", homeassistant::birth_topic("h")),
        ]
    }

    /// Other consumers' messages, by channel.
    fn others() -> Vec<(&'static str, Message)> {
        let (topics, gate) = (Topics::new("w", "edge07").unwrap(), CameraId::new("gate"));
        let (new, update, detections) = (samples::new(), samples::update(), samples::detections());
        let (cloud, deep) = (topics.cloudevents(&gate), topics.deepstream(&gate));
        let [line, zone]: [Message; 2] =
            onvif::rules("w/edge07", Some(&new), &update, [&update].into_iter()).try_into().unwrap();
        let site = homeassistant::Site { discovery: "h", topics: "w/edge07", node: "edge07", version: "1" };
        let labels = ["person".to_owned()];
        let (zones, lines) = (&[], &[]);
        let camera =
            homeassistant::Camera { id: "gate", labels: &labels, zones, lines, events: true, snapshots: true };
        vec![
            ("cloudEvents", cloudevents::structured(cloud.as_str(), &new)),
            ("cloudEventsBinary", cloudevents::structured(cloud.as_str(), &new)),
            ("deepstreamMinimal", deepstream::minimal(deep.as_str(), &detections)),
            ("deepstreamFull", deepstream::full(deep.as_str(), &detections).remove(0)),
            ("onvifMetadata", onvif::metadata("w/edge07", &detections)),
            ("onvifLine", line),
            ("onvifZone", zone),
            ("frigateAvailable", frigate::available("f", true)),
            ("frigateEvents", frigate::event("f", None, &new)),
            ("frigateCount", frigate::count("f", "gate", "person", 1)),
            ("frigateZoneCount", frigate::zone_count("f", "drive", "person", 1)),
            ("homeassistantCamera", homeassistant::camera(&site, &camera, None)),
            ("homeassistantNode", homeassistant::node(&site, None)),
        ]
    }

    /// What is sent to a broker is held against QoS, retain and expiry by `tests/path/contract.rs`.
    #[test]
    fn topics_are_those_that_are_published() {
        let document = document();
        let channels = document["channels"].as_object().unwrap();
        let address = |name: &str| filled(channels[name]["address"].as_str().unwrap());
        let mut compared = BTreeSet::new();
        for (name, topic) in own() {
            assert_eq!(address(name), topic, "{name}");
            compared.insert(name);
        }
        for (name, message) in others() {
            let operation = &document["operations"][operation_name(name, Spooled)];
            assert_eq!(address(name), message.topic, "{name}");
            assert_eq!(operation["bindings"]["mqtt"]["retain"], json!(message.retain), "{name}");
            compared.insert(name);
        }
        assert!(channels.keys().eq(&compared), "{:?}", channels.keys());
    }
}
