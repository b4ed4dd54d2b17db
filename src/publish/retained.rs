//! The latest retained message of every topic, in memory. Pure; the spool keeps the same on disk.
//!
//! Each change gets the next version, so a connection needs one number to know what it has sent: whatever has a
//! higher version is still to send.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A retained message; `body` is `None` where the topic is to be cleared on the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// The topic.
    pub topic: String,
    /// Grows with each change.
    pub version: u64,
    /// The body, or a tombstone.
    pub body: Option<Arc<[u8]>>,
}

/// A version and its body.
type Latest = (u64, Option<Arc<[u8]>>);

/// Latest by topic.
#[derive(Debug, Default)]
pub struct RetainedMap {
    by_topic: BTreeMap<String, Latest>,
    version: u64,
}

impl RetainedMap {
    /// Whether setting `topic` to `body` would change anything. A tombstone for a topic never retained does not:
    /// the broker was never told of it.
    pub fn would_change(&self, topic: &str, body: Option<&[u8]>) -> bool {
        match (self.by_topic.get(topic), body) {
            (Some((_, now)), body) => now.as_deref() != body,
            (None, body) => body.is_some(),
        }
    }

    /// Sets a topic, or leaves a tombstone.
    pub fn set(&mut self, topic: &str, body: Option<&[u8]>) {
        self.version += 1;
        self.by_topic.insert(topic.to_owned(), (self.version, body.map(Arc::from)));
    }

    /// The topics that hold a message and that `which` picks are to be sent again, as if they had changed.
    pub fn renew(&mut self, which: impl Fn(&str) -> bool) {
        let picked = self.by_topic.iter_mut().filter(|(topic, (_, body))| body.is_some() && which(topic));
        for (_, (version, _)) in picked {
            self.version += 1;
            *version = self.version;
        }
    }

    /// The version of the last change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What changed first after `version`.
    pub fn next_after(&self, version: u64) -> Option<Retained> {
        let later = self.by_topic.iter().filter(|(_, (v, _))| *v > version);
        let (topic, (version, body)) = later.min_by_key(|(_, (v, _))| *v)?;
        Some(Retained { topic: topic.clone(), version: *version, body: body.clone() })
    }

    /// The broker acknowledged a version; `true` where that was the topic's tombstone, which is now gone.
    pub fn acknowledged(&mut self, topic: &str, version: u64) -> bool {
        let gone = matches!(self.by_topic.get(topic), Some((v, None)) if *v == version);
        if gone {
            self.by_topic.remove(topic);
        }
        gone
    }

    /// What a topic holds.
    pub fn body(&self, topic: &str) -> Option<&[u8]> {
        self.by_topic.get(topic)?.1.as_deref()
    }

    /// Whether a topic is here, tombstones included.
    pub fn contains(&self, topic: &str) -> bool {
        self.by_topic.contains_key(topic)
    }

    /// Topics that hold a message.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.by_topic.iter().filter(|(_, (_, body))| body.is_some()).map(|(topic, _)| topic.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_sends_each_topics_latest_once_and_tombstones_until_acknowledged() {
        let mut map = RetainedMap::default();
        for (topic, body) in [("a", Some(b"1")), ("b", Some(b"1")), ("a", Some(b"2"))] {
            assert!(map.would_change(topic, body.map(|b| &b[..])));
            map.set(topic, body.map(|b| &b[..]));
        }
        assert!(!map.would_change("a", Some(b"2")));
        assert!(!map.would_change("never", None));
        map.set("b", None);
        assert!(!map.would_change("b", None));
        let first = map.next_after(0).unwrap();
        assert_eq!((first.topic.as_str(), first.body.as_deref()), ("a", Some(&b"2"[..])));
        let second = map.next_after(first.version).unwrap();
        assert_eq!((second.topic.as_str(), second.body), ("b", None));
        assert_eq!(map.next_after(second.version), None);
        assert_eq!(map.topics().collect::<Vec<_>>(), ["a"]);
        map.set("c", Some(b"3"));
        map.renew(|topic| topic != "c");
        let again = map.next_after(second.version + 1).unwrap();
        assert_eq!((again.topic.as_str(), again.body), ("a", first.body.clone()), "the tombstone is left alone");
        assert!(!map.acknowledged("a", first.version));
        assert!(!map.acknowledged("b", second.version - 1));
        assert!(map.acknowledged("b", second.version));
        assert!(!map.contains("b"));
    }
}
