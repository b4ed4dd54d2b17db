//! The AsyncAPI 3.0 document: every topic, who writes it, its QoS, whether it is retained, and what is in it.

use serde_json::{Map, Value, json};

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
    /// We do, at QoS 0; it expires after so many seconds where that is not 0.
    Live(u32),
    /// Others do, and we read it.
    Others,
}

use Content::{Count, Jpeg, Json, Words};
use Writer::{Live, Others, Retained, Spooled};

const ONLINE: Content = Words(&["online", "offline"]);
const ON: Content = Words(&["ON", "OFF"]);
const CAMERA: &str = "{base}/{node}/cam/{camera}/";

/// Names, topics, writers and contents. A topic without a prefix of another product is below `{base}/{node}`.
const CHANNELS: &[(&str, &str, Writer, Content, &str)] = &[
    ("status", "{base}/{node}/status", Retained, ONLINE, "Whether the box is there. The last will says `offline`."),
    ("info", "{base}/{node}/info", Retained, Json("info"), "What runs here."),
    ("health", "{base}/{node}/health", Live(0), Json("health"), "How it goes, every 10 s."),
    ("notice", "{base}/{node}/notice", Spooled, Json("notice"), "What a person or program should know."),
    ("cameraStatus", "status", Retained, ONLINE, "Whether the camera is there."),
    ("cameraState", "state", Retained, Json("state"), "What is known of the camera."),
    ("detections", "detections", Live(5), Json("detections"), "What is seen in a frame."),
    ("events", "events", Spooled, Json("events"), "The life of a track: new, update, end."),
    ("count", "count/{label}", Retained, Count, "How many objects of a class are seen."),
    ("zoneCount", "zone/{zone}/count/{label}", Retained, Count, "How many of them are in a zone."),
    (
        "lineCount",
        "line/{line}/{direction}/{label}",
        Retained,
        Count,
        "How many have crossed a line since the start.",
    ),
    ("snapshot", "snapshot", Retained, Jpeg, "The latest picture of an event, or what was asked for."),
    ("trackSnapshot", "snapshot/{track}", Live(5), Jpeg, "The best picture of a track so far."),
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
        "With `[cloudevents]`: an event. So over MQTT 3.1.1; over MQTT 5 as in `events`, its envelope in user properties.",
    ),
    (
        "deepstreamMinimal",
        "deepstream",
        Live(5),
        Json("deepstream-minimal"),
        "With `[deepstream]`: a message a frame.",
    ),
    (
        "deepstreamFull",
        "deepstream",
        Live(5),
        Json("deepstream-full"),
        "With `[deepstream]`, `schema = \"full\"`: a message an object.",
    ),
    (
        "onvifMetadata",
        "{base}/{node}/onvif-mj/VideoAnalytics/{camera}/watchpost",
        Live(5),
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
    ("command", "Name of a command, such as `reload`.", None),
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
        Live(expiry) => {
            mqtt["qos"] = json!(0);
            mqtt["retain"] = json!(false);
            if expiry > 0 {
                mqtt["messageExpiryInterval"] = json!(expiry);
            }
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
    use super::*;
    use crate::event::{Counter, Direction};
    use crate::frame::CameraId;
    use crate::publish::Topics;

    #[test]
    fn topics_are_those_that_are_published() {
        let topics = Topics::new("{base}", "{node}").unwrap();
        let camera = CameraId::new("{camera}");
        let zone = Counter::Zone("{zone}".to_owned(), "a".to_owned());
        let line = Counter::Line("{line}".to_owned(), Direction::In, "a".to_owned());
        let counted = |counter| topics.count(&camera, &counter).as_str().replace("/a", "/{label}");
        let document = document();
        let address = |name: &str| document["channels"][name]["address"].as_str().unwrap().to_owned();
        for (name, topic) in [
            ("status", topics.status().to_string()),
            ("info", topics.info().to_string()),
            ("health", topics.health().to_string()),
            ("notice", topics.notice().to_string()),
            ("cameraStatus", topics.camera_status(&camera).to_string()),
            ("cameraState", topics.camera_state(&camera).to_string()),
            ("detections", topics.detections(&camera).to_string()),
            ("events", topics.events(&camera).to_string()),
            ("enabled", topics.enabled_state(&camera).to_string()),
            ("enable", topics.enabled_set_filter().replace('+', "{camera}")),
            ("reload", topics.command_filter().replace('+', "reload")),
            ("camera", topics.command_filter().replace('+', "camera")),
            ("picture", topics.command_filter().replace('+', "snapshot")),
            ("result", topics.command_result("{command}").to_string()),
            ("count", counted(Counter::Label("a".to_owned()))),
            ("zoneCount", counted(zone)),
            ("lineCount", counted(line).replace("/in/", "/{direction}/")),
        ] {
            assert_eq!(address(name), topic, "{name}");
        }
    }
}
