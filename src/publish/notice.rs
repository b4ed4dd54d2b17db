//! Notices as they are made, numbered and replayed.

use std::time::SystemTime;

use serde::Deserialize;

use super::draft::Draft;
use super::topic::Topic;
use crate::event::{NOTICE_SCHEMA, Notice, NoticeKind, rfc3339};
use crate::frame::CameraId;

/// Who speaks: the box and this start of its daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the box.
    pub node: String,
    /// This start of the daemon: 6 hex digits.
    pub boot: String,
}

/// Makes notices.
#[derive(Clone, Debug)]
pub struct Notices {
    identity: Identity,
    topic: Topic,
}

impl Notices {
    /// Who speaks.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// For one box and boot.
    pub fn new(identity: Identity, topic: Topic) -> Self {
        Self { identity, topic }
    }

    /// A notice of now.
    pub fn draft(&self, kind: NoticeKind, camera: Option<&CameraId>, text: String) -> Draft {
        Draft::notice(self.topic.clone(), self.notice(kind, camera, text))
    }

    /// One of an engine that is being built, of which `pct` per cent are done.
    pub fn build(&self, pct: Option<u8>, text: String) -> Draft {
        let notice = Notice { pct, ..self.notice(NoticeKind::EngineBuild, None, text) };
        Draft::notice(self.topic.clone(), notice)
    }

    fn notice(&self, kind: NoticeKind, camera: Option<&CameraId>, text: String) -> Notice {
        Notice {
            schema: NOTICE_SCHEMA.to_owned(),
            node: self.identity.node.clone(),
            boot: self.identity.boot.clone(),
            seq: 0,
            at: rfc3339(SystemTime::now()),
            kind,
            camera: camera.map(|camera| camera.as_str().to_owned()),
            text,
            pct: None,
            replayed: false,
        }
    }
}

/// The body of a spooled message with `replayed` set. Works on the text, so that every kind of message and those
/// of older versions keep their other fields byte for byte: inside a JSON string the quotes would be escaped, so
/// the member can be found nowhere else.
pub fn replayed(body: &[u8]) -> Vec<u8> {
    const LIVE: &[u8] = br#""replayed":false"#;
    let Some(at) = body.windows(LIVE.len()).position(|part| part == LIVE) else { return body.to_owned() };
    [&body[..at], br#""replayed":true"#, &body[at + LIVE.len()..]].concat()
}

/// Whether a spooled message is itself the notice of a dead letter.
pub fn is_dead_letter_notice(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        kind: NoticeKind,
    }
    matches!(serde_json::from_slice(body), Ok(Kind { kind: NoticeKind::DeadLetter }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::topic::Topics;

    #[test]
    fn a_build_says_how_far_it_is_and_nothing_else_does() {
        let identity = Identity { node: "n".to_owned(), boot: "0123ab".to_owned() };
        let notices = Notices::new(identity, Topics::new("w", "n").unwrap().notice());
        let pct = |draft: Draft| {
            let body: serde_json::Value = serde_json::from_slice(&draft.body(0).unwrap().0).unwrap();
            body.get("pct").cloned()
        };
        assert_eq!(pct(notices.build(Some(40), "40 %".to_owned())), Some(40.into()));
        assert_eq!(pct(notices.build(None, "it failed".to_owned())), None);
        assert_eq!(pct(notices.draft(NoticeKind::Started, None, "hello".to_owned())), None);
    }

    #[test]
    fn replaying_changes_one_field_and_nothing_else() {
        let identity = Identity { node: "n".to_owned(), boot: "0123ab".to_owned() };
        let notices = Notices::new(identity, Topics::new("w", "n").unwrap().notice());
        let text = r#"a "replayed":false and \"replayed\":false in a text"#.to_owned();
        let draft = notices.draft(NoticeKind::DeadLetter, Some(&CameraId::new("gate")), text);
        let (body, _) = draft.body(7).unwrap();
        let before: Notice = serde_json::from_slice(&body).unwrap();
        let after: Notice = serde_json::from_slice(&replayed(&body)).unwrap();
        assert_eq!((before.seq, before.replayed), (7, false));
        assert_eq!(after, Notice { replayed: true, ..before });
        assert_eq!(replayed(b"not json"), b"not json");
        assert!(is_dead_letter_notice(&body));
        assert!(!is_dead_letter_notice(b"{}"));
    }
}
