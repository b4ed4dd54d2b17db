//! The committed AsyncAPI document and its schemas, and what of them a message must fit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Value, json};

/// What the tests' own parameters are; `*` is anything. Other products' prefixes lie below the box's own.
const PARAMETERS: [(&str, &str); 11] = [
    ("{base}", "watchpost"),
    ("{node}", "box"),
    ("{frigate}", "watchpost/box/frigate"),
    ("{homeassistant}", "watchpost/box/homeassistant"),
    ("{camera}", "*"),
    ("{command}", "*"),
    ("{label}", "*"),
    ("{zone}", "*"),
    ("{line}", "*"),
    ("{direction}", "*"),
    ("{track}", "*"),
];

/// A channel of the document.
pub struct Channel {
    /// Its name.
    pub name: String,
    /// The levels of its topic, each of which has one `*` at most.
    levels: Vec<String>,
    /// Of `mqtt` in the bindings of what is done with it: `qos`, `retain`, `messageExpiryInterval`.
    binding: Value,
    /// We write it.
    pub is_ours: bool,
    content: Content,
}

enum Content {
    Text(Validator),
    Json(Validator),
    Picture,
}

impl Channel {
    fn new(name: &str, channel: &Value, operation: &Value) -> Self {
        let address = channel["address"].as_str().unwrap().to_owned();
        let address = PARAMETERS.iter().fold(address, |text, (name, value)| text.replace(name, value));
        let message = &channel["messages"][name];
        let payload = &message["payload"];
        let content = match message["contentType"].as_str().unwrap() {
            "text/plain" => Content::Text(jsonschema::validator_for(payload).unwrap()),
            "image/jpeg" => Content::Picture,
            _ => Content::Json(schema(payload["schema"]["$ref"].as_str().unwrap())),
        };
        Self {
            name: name.to_owned(),
            levels: address.split('/').map(str::to_owned).collect(),
            binding: operation["bindings"]["mqtt"].clone(),
            is_ours: operation["action"] == "send",
            content,
        }
    }

    /// Whether a topic is this one's.
    pub fn has(&self, topic: &str) -> bool {
        let levels: Vec<&str> = topic.split('/').collect();
        levels.len() == self.levels.len() && self.levels.iter().zip(levels).all(|(level, given)| fits(level, given))
    }

    /// Whether it is retained.
    pub fn is_retained(&self) -> bool {
        self.binding["retain"] == true
    }

    /// How it is sent: QoS, retain, and the seconds until it expires.
    pub fn delivery(&self) -> (u64, bool, Option<u64>) {
        let [qos, expiry] = ["qos", "messageExpiryInterval"].map(|name| self.binding[name].as_u64());
        (qos.unwrap(), self.is_retained(), expiry)
    }

    /// What is wrong with a body; `None`: nothing.
    fn complaint(&self, body: &[u8]) -> Option<String> {
        let value = match &self.content {
            // What clears a retained topic.
            _ if body.is_empty() && self.is_retained() => return None,
            Content::Picture => return (!body.starts_with(b"\xff\xd8")).then(|| "no JPEG".to_owned()),
            Content::Text(_) => json!(String::from_utf8_lossy(body)),
            Content::Json(_) => match serde_json::from_slice(body) {
                Ok(value) => value,
                Err(e) => return Some(format!("{e}: {}", String::from_utf8_lossy(body))),
            },
        };
        let (Content::Text(schema) | Content::Json(schema)) = &self.content else { return None };
        let errors: Vec<String> =
            schema.iter_errors(&value).map(|e| format!("{e} at {}", e.instance_path())).collect();
        (!errors.is_empty()).then(|| format!("{errors:#?}\n{value:#}"))
    }
}

fn fits(level: &str, given: &str) -> bool {
    match level.split_once('*') {
        None => level == given,
        Some((before, after)) => {
            given.len() > before.len() + after.len() && given.starts_with(before) && given.ends_with(after)
        }
    }
}

/// The channel of a topic whose schema, words or form its body has; `None` where it is for the box to read.
///
/// # Panics
///
/// There is none.
pub fn check(topic: &str, body: &[u8]) -> Option<&'static Channel> {
    let channels: Vec<&Channel> = document().iter().filter(|channel| channel.has(topic)).collect();
    // What the test says itself, right or wrong.
    let is_asked = topic.strip_prefix("watchpost/box/cmd/").is_some_and(|name| !name.contains('/'));
    if is_asked || topic == "watchpost/box/end-of-test" || channels.iter().any(|channel| !channel.is_ours) {
        return None;
    }
    assert!(!channels.is_empty(), "{topic} is no topic of schemas/asyncapi.json");
    let complaints = || channels.iter().map(|c| format!("{}: {}", c.name, c.complaint(body).unwrap_or_default()));
    let fitting = channels.iter().find(|channel| channel.complaint(body).is_none());
    Some(fitting.unwrap_or_else(|| panic!("{topic} fits none: {}", complaints().collect::<Vec<_>>().join("\n"))))
}

/// Every channel.
pub fn document() -> &'static [Channel] {
    static DOCUMENT: OnceLock<Vec<Channel>> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let document: Value =
            serde_json::from_str(&fs::read_to_string(folder().join("asyncapi.json")).unwrap()).unwrap();
        let operations: BTreeMap<&str, &Value> = document["operations"]
            .as_object()
            .unwrap()
            .values()
            .map(|operation| (operation["channel"]["$ref"].as_str().unwrap(), operation))
            .collect();
        let channels = document["channels"].as_object().unwrap();
        let channel = |(name, channel): (&String, &Value)| {
            Channel::new(name, channel, operations[format!("#/channels/{name}").as_str()])
        };
        channels.iter().map(channel).collect()
    })
}

/// By the reference to it.
fn schema(reference: &str) -> Validator {
    let text = fs::read_to_string(folder().join(reference)).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}
