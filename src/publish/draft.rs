//! What goes to the spool, before it has a number.

use super::store::SpoolError;
use super::topic::Topic;
use crate::event::{Event, EventKind, Notice};

/// A message that has no number yet: the spool gives it one when it takes it, so that numbers follow the order in which
/// messages are sent.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Where to.
    pub topic: Topic,
    message: Message,
}

#[derive(Clone, Debug)]
enum Message {
    Notice(Notice),
    Event(Box<Event>),
}

impl Draft {
    /// A notice.
    pub fn notice(topic: Topic, notice: Notice) -> Self {
        Self { topic, message: Message::Notice(notice) }
    }

    /// A track's event.
    pub fn event(topic: Topic, event: Event) -> Self {
        Self { topic, message: Message::Event(Box::new(event)) }
    }

    /// The track whose event it is, and which.
    pub fn track(&self) -> Option<(&str, EventKind)> {
        match &self.message {
            Message::Notice(_) => None,
            Message::Event(event) => Some((&event.id, event.kind)),
        }
    }

    /// The message as JSON, as number `seq` of its topic, and the event that it is.
    ///
    /// # Errors
    ///
    /// It cannot be written as JSON.
    pub fn body(&self, seq: u64) -> Result<(Vec<u8>, Option<Event>), SpoolError> {
        match &self.message {
            Message::Notice(notice) => Ok((serde_json::to_vec(&Notice { seq, ..notice.clone() })?, None)),
            Message::Event(event) => {
                let event = Event { seq, ..(**event).clone() };
                Ok((serde_json::to_vec(&event)?, Some(event)))
            }
        }
    }
}
