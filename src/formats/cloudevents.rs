//! Events in the envelope of CloudEvents 1.0.
//!
//! MQTT 3.1.1 can only carry the structured mode: the envelope is the body, and the event a member of it. Over MQTT 5 the
//! binary mode leaves the body as it is and puts the envelope into user properties. Which of the two it is shows when the
//! message is sent: what is spooled is structured, and [`binary`] takes it apart.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Message;
use crate::event::{Event, EventKind};

/// The content type of a structured body, for MQTT 5.
pub const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";

/// Where the attributes end in a structured body. Inside a string the quotes would be escaped, so it cannot be found
/// before that.
const DATA: &[u8] = br#","data":"#;

/// An event in its envelope.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Structured {
    /// Always `1.0`.
    pub specversion: String,
    /// `{boot}-{seq}`; with `source` it names this message and no other.
    pub id: String,
    /// `/watchpost/{node}/cam/{camera}`.
    pub source: String,
    /// `watchpost.event.new`, `watchpost.event.update` or `watchpost.event.end`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Id of the track.
    pub subject: String,
    /// When the frame was caught.
    pub time: String,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// The event. The last member: [`binary`] relies on it.
    pub data: Event,
}

/// The parts of a message in binary mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// MQTT 5 user properties, names and values.
    pub properties: Vec<(String, String)>,
    /// MQTT 5 content type.
    pub content_type: String,
    /// The event as it is without an envelope.
    pub payload: Vec<u8>,
}

/// The structured form of an event, to be spooled.
pub fn structured(topic: &str, event: &Event) -> Message {
    let kind = match event.kind {
        EventKind::New => "new",
        EventKind::Update => "update",
        EventKind::End => "end",
    };
    let envelope = Structured {
        specversion: "1.0".to_owned(),
        id: format!("{}-{}", event.boot, event.seq),
        source: format!("/watchpost/{}/cam/{}", escaped(&event.node), escaped(&event.camera)),
        kind: format!("watchpost.event.{kind}"),
        subject: event.id.clone(),
        time: event.ts.captured.clone(),
        datacontenttype: "application/json".to_owned(),
        data: event.clone(),
    };
    Message::json(topic.to_owned(), &envelope, false)
}

/// A body of [`structured`] for MQTT 5: the event byte for byte, so that what was spooled by an older version stays as it
/// was written. `None` for any other body.
pub fn binary(structured: &[u8]) -> Option<Binary> {
    let at = structured.windows(DATA.len()).position(|part| part == DATA)?;
    let mut attributes: Map<String, Value> = serde_json::from_slice(&[&structured[..at], b"}"].concat()).ok()?;
    attributes.get("specversion")?;
    let content_type = attributes.remove("datacontenttype")?.as_str()?.to_owned();
    let text = |(name, value): (String, Value)| value.as_str().map(|value| (name, value.to_owned()));
    let properties = attributes.into_iter().map(text).collect::<Option<_>>()?;
    let payload = structured[at + DATA.len()..].strip_suffix(b"}")?.to_owned();
    Some(Binary { properties, content_type, payload })
}

/// A name as a segment of a URI.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::samples;

    fn head(id: &str, kind: &str, time: &str) -> String {
        format!(
            concat!(
                r#"{{"specversion":"1.0","id":"{}","source":"/watchpost/edge07/cam/gate","type":"watchpost.event.{}","#,
                r#""subject":"gate-9f3c1a-412","time":"{}","datacontenttype":"application/json","data":"#
            ),
            id, kind, time
        )
    }

    #[test]
    fn structured_is_the_envelope_around_the_event() {
        for (event, id, kind, time) in [
            (samples::new(), "9f3c1a-7", "new", "2026-09-30T10:15:02.417Z"),
            (samples::update(), "9f3c1a-8", "update", "2026-09-30T10:15:05.000Z"),
            (samples::end(), "9f3c1a-9", "end", "2026-09-30T10:15:05.000Z"),
        ] {
            let message = structured("w/edge07/cam/gate/events", &event);
            assert_eq!((message.topic.as_str(), message.retain), ("w/edge07/cam/gate/events", false));
            let data = serde_json::to_string(&event).unwrap();
            assert_eq!(String::from_utf8(message.body).unwrap(), head(id, kind, time) + &data + "}");
        }
    }

    #[test]
    fn binary_leaves_the_event_as_it_is() {
        let mut event = samples::end();
        event.label = r#"odd","data":{"#.to_owned();
        event.node = "edge 07".to_owned();
        let parts = binary(&structured("t", &event).body).unwrap();
        assert_eq!(parts.payload, serde_json::to_vec(&event).unwrap());
        assert_eq!(parts.content_type, "application/json");
        let wanted = [
            ("id", "9f3c1a-9"),
            ("source", "/watchpost/edge%2007/cam/gate"),
            ("specversion", "1.0"),
            ("subject", "gate-9f3c1a-412"),
            ("time", "2026-09-30T10:15:05.000Z"),
            ("type", "watchpost.event.end"),
        ];
        assert_eq!(parts.properties, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_no_envelope_is_left_alone() {
        let plain = serde_json::to_vec(&samples::new()).unwrap();
        for body in [&plain[..], b"", b"{}", br#"{"a":1,"data":{}}"#, br#"{"specversion":"1.0","data":1}"#] {
            assert_eq!(binary(body), None);
        }
    }
}
