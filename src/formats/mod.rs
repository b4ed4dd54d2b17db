//! The forms in which others read what is published: pure functions, a message of ours in, their messages out.
//!
//! * [`frigate`]: what is written for Frigate reads events and counts;
//! * [`deepstream`]: what is written for NVIDIA DeepStream reads detections;
//! * [`onvif`]: Profile M metadata and rule events, as JSON over MQTT;
//! * [`cloudevents`]: an event in the envelope of CloudEvents 1.0;
//! * [`homeassistant`]: device discovery, so that cameras show up by themselves.
//!
//! A label is a text of the model; as a topic level it goes through [`label_level`] everywhere.

pub mod cloudevents;
pub mod deepstream;
pub mod frigate;
pub mod homeassistant;
pub mod onvif;
#[cfg(test)]
pub(crate) mod samples;

use std::time::SystemTime;

use serde::Serialize;

use crate::event::label_level;

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// What.
    pub body: Vec<u8>,
    /// The broker is to keep it.
    pub retain: bool,
}

impl Message {
    /// A message whose body is JSON. Only types of these modules come here, and none of them can fail to be written.
    fn json(topic: String, body: &impl Serialize, retain: bool) -> Self {
        let body = serde_json::to_vec(body).unwrap_or_else(|e| unreachable!("{topic} cannot be JSON: {e}"));
        Self { topic, body, retain }
    }

    fn text(topic: String, body: impl ToString, retain: bool) -> Self {
        Self { topic, body: body.to_string().into_bytes(), retain }
    }

    /// What takes a retained message back.
    fn removal(topic: String) -> Self {
        Self { topic, body: Vec::new(), retain: true }
    }
}

/// A name or label as people write it at the start of a line: `front_door` is "Front door".
fn title(name: &str) -> String {
    let text = name.trim().replace(['_', '-'], " ");
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A prefix of topics, which may or may not end with a slash, and what follows it.
fn below(prefix: &str, rest: &str) -> String {
    format!("{}/{rest}", prefix.trim_end_matches('/'))
}

/// Seconds since 1970 of one of our own times, to the millisecond.
fn epoch_s(time: &str) -> f64 {
    let since = humantime::parse_rfc3339(time).ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    // A millisecond of 2026 needs 44 of the 53 bits that an f64 counts exactly.
    since.map_or(0.0, |since| since.as_millis() as f64 / 1e3)
}

/// The number at the end of a track's id, `{camera}-{boot}-{n}`.
fn track_number(id: &str) -> Option<u64> {
    id.rsplit('-').next()?.parse().ok()
}

/// An f32 of four digits as an f64 of the same four: a plain conversion would print 0.4120000004768372.
fn round4(value: f32) -> f64 {
    round(f64::from(value), 1e4)
}

/// `value` with `1 / parts` as its last digit, and never a negative zero.
fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_made_safe_as_a_topic_level() {
        for (label, level) in [
            ("person", "person"),
            ("Traffic Light", "traffic_light"),
            (" hair\tdryer ", "hair_dryer"),
            ("a/b+c#\u{0}", "abc"),
            ("ÄPFEL", "äpfel"),
            ("#", "_"),
            ("", "_"),
        ] {
            assert_eq!(label_level(label), level, "{label:?}");
        }
    }

    #[test]
    fn times_titles_and_numbers() {
        assert_eq!(epoch_s("2026-09-30T10:15:02.417Z"), 1_790_763_302.417);
        assert_eq!(epoch_s(""), 0.0);
        assert_eq!(title("front_door-2"), "Front door 2");
        assert_eq!(title(""), "");
        assert_eq!(track_number("front-door-9f3c1a-412"), Some(412));
        assert_eq!(track_number("x"), None);
        assert_eq!(round4(0.412), 0.412);
        assert!(round(-0.00001, 1e4).is_sign_positive());
        assert_eq!([below("a/b", "c"), below("a/b/", "c")], ["a/b/c", "a/b/c"]);
    }
}
