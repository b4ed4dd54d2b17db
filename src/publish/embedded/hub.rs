//! Who is connected, who wants what, and what is kept for those who come later. Pure but for the wake-up of a
//! client's connection; everything in it is bounded.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use tokio::sync::Notify;

use super::packet::{TOPIC_BYTES_MAX, encode_publish};

/// Most bytes that wait for one client; it is cut off beyond.
pub const OUTBOX_BYTES_MAX: usize = 16 << 20;
/// Most filters of one client.
pub const FILTERS_MAX: usize = 64;
/// Most retained messages.
pub const RETAINED_MAX: usize = 4096;
/// Most bytes of retained messages together.
pub const RETAINED_BYTES_MAX: usize = 64 << 20;

/// A message as it is sent: a whole PUBLISH packet, shared by all who get it.
pub type Message = Rc<[u8]>;

/// What waits for one client. Its connection takes, the hub gives.
#[derive(Default)]
pub struct Outbox {
    state: RefCell<State>,
    /// There is something new: a message, or the end.
    pub changed: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Message>,
    bytes: usize,
    end: Option<End>,
}

/// Why the hub ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Another client came with its id.
    Replaced,
    /// It does not take what it asked for.
    TooSlow,
    /// The broker stops.
    Stopping,
}

impl Outbox {
    /// The next message to send.
    pub fn take(&self) -> Option<Message> {
        let mut state = self.state.borrow_mut();
        let message = state.waiting.pop_front()?;
        state.bytes -= message.len();
        Some(message)
    }

    /// Why the connection is to be ended, once all that waits has been taken.
    pub fn end(&self) -> Option<End> {
        self.state.borrow().end
    }

    fn give(&self, message: &Message) {
        let mut state = self.state.borrow_mut();
        if state.end.is_some() {
            return;
        }
        if state.bytes + message.len() > OUTBOX_BYTES_MAX {
            (state.waiting, state.bytes, state.end) = (VecDeque::new(), 0, Some(End::TooSlow));
        } else {
            state.bytes += message.len();
            state.waiting.push_back(Rc::clone(message));
        }
        self.changed.notify_one();
    }

    fn finish(&self, end: End) {
        self.state.borrow_mut().end.get_or_insert(end);
        self.changed.notify_one();
    }
}

/// A connected client.
struct Client {
    id: String,
    filters: Vec<String>,
    outbox: Rc<Outbox>,
}

/// All of them.
#[derive(Default)]
pub struct Hub {
    clients: HashMap<u64, Client>,
    by_id: HashMap<String, u64>,
    next: u64,
    retained: HashMap<String, Message>,
    retained_bytes: usize,
}

impl Hub {
    /// A client is there: its key and its outbox. One that was there with the same id is sent away.
    pub fn join(&mut self, id: String) -> (u64, Rc<Outbox>) {
        let (key, outbox) = (self.next, Rc::new(Outbox::default()));
        self.next += 1;
        if let Some(old) = self.by_id.insert(id.clone(), key).and_then(|old| self.clients.get(&old)) {
            old.outbox.finish(End::Replaced);
        }
        self.clients.insert(key, Client { id, filters: Vec::new(), outbox: Rc::clone(&outbox) });
        (key, outbox)
    }

    /// A client is gone.
    pub fn leave(&mut self, key: u64) {
        if let Some(client) = self.clients.remove(&key)
            && self.by_id.get(&client.id) == Some(&key)
        {
            self.by_id.remove(&client.id);
        }
    }

    /// Sends everybody away once they have what waits for them.
    pub fn stop(&mut self) {
        for client in self.clients.values() {
            client.outbox.finish(End::Stopping);
        }
    }

    /// From now on the client gets what matches the filter: first the retained messages that are returned. `None`
    /// where it is no filter, or one too many.
    pub fn subscribe(&mut self, key: u64, filter: String) -> Option<Vec<Message>> {
        let client = self.clients.get_mut(&key)?;
        if !is_filter(&filter) {
            return None;
        }
        let retained = self.retained.iter().filter(|(topic, _)| matches(topic, &filter));
        let retained = retained.map(|(_, message)| Rc::clone(message)).collect();
        if !client.filters.contains(&filter) {
            if client.filters.len() == FILTERS_MAX {
                return None;
            }
            client.filters.push(filter);
        }
        Some(retained)
    }

    /// The client no longer wants what matches the filter.
    pub fn unsubscribe(&mut self, key: u64, filter: &str) {
        if let Some(client) = self.clients.get_mut(&key) {
            client.filters.retain(|held| held != filter);
        }
    }

    /// Gives a message to all who want it, once to each, and keeps it where it is to be retained and there is room.
    pub fn publish(&mut self, topic: &str, body: &[u8], retain: bool) {
        if retain {
            self.retain(topic, body);
        }
        let mut message = None;
        for client in self.clients.values() {
            if client.filters.iter().any(|filter| matches(topic, filter)) {
                client.outbox.give(message.get_or_insert_with(|| encode_publish(topic, body, false).into()));
            }
        }
    }

    fn retain(&mut self, topic: &str, body: &[u8]) {
        if let Some(old) = self.retained.remove(topic) {
            self.retained_bytes -= old.len();
        }
        if body.is_empty() {
            return;
        }
        let message: Message = encode_publish(topic, body, true).into();
        if self.retained.len() == RETAINED_MAX || self.retained_bytes + message.len() > RETAINED_BYTES_MAX {
            tracing::debug!("no room to retain {topic:?}");
            return;
        }
        self.retained_bytes += message.len();
        self.retained.insert(topic.to_owned(), message);
    }
}

/// Whether it is a topic filter. Shared subscriptions are not known in 3.1.1, and would else never match in silence.
fn is_filter(filter: &str) -> bool {
    let length = 1..=TOPIC_BYTES_MAX;
    let mut levels = filter.split('/').rev();
    let last = levels.next().unwrap_or_default();
    let is_level = |level: &str| level == "+" || !level.contains(['+', '#']);
    length.contains(&filter.len())
        && !filter.starts_with("$share/")
        && (last == "#" || is_level(last))
        && levels.all(is_level)
}

/// Whether a topic matches a filter. Both are valid. A wildcard in the first level matches no topic of the broker's
/// own (`$…`).
fn matches(topic: &str, filter: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(outbox: &Outbox) -> usize {
        std::iter::from_fn(|| outbox.take()).count()
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        let yes = [
            ("sport/tennis/player1", "sport/tennis/player1/#"),
            ("sport", "sport/#"),
            ("sport/tennis", "sport/+"),
            ("sport/", "sport/+"),
            ("/finance", "+/+"),
            ("/finance", "/+"),
            ("$SYS/a", "$SYS/#"),
            ("Öl/Stand", "#"),
            ("Öl/Stand", "+/Stand"),
        ];
        for (topic, filter) in yes {
            assert!(is_filter(filter) && matches(topic, filter), "{topic} {filter}");
        }
        let no = [
            ("sport/tennis/player1", "sport/+"),
            ("sport", "sport/+"),
            ("/finance", "+"),
            ("$SYS/a", "#"),
            ("$SYS/a", "+/a"),
            ("a", "b"),
            ("a/b", "a"),
        ];
        for (topic, filter) in no {
            assert!(is_filter(filter) && !matches(topic, filter), "{topic} {filter}");
        }
        for bad in ["", "a#", "a/#/b", "a+", "+a/b", "#/a", "$share/group/a", &"a".repeat(TOPIC_BYTES_MAX + 1)] {
            assert!(!is_filter(bad), "{bad}");
        }
    }

    #[test]
    fn each_gets_a_message_once_and_the_retained_ones_when_it_comes() {
        let mut hub = Hub::default();
        hub.publish("a/b", b"old", true);
        hub.publish("a/b", b"new", true);
        hub.publish("a/c", b"not kept", false);
        let (key, outbox) = hub.join("one".to_owned());
        assert_eq!(hub.subscribe(key, "a/#".to_owned()), Some(vec![encode_publish("a/b", b"new", true).into()]));
        assert_eq!(hub.subscribe(key, "+/b".to_owned()).map(|retained| retained.len()), Some(1));
        hub.publish("a/b", b"live", true);
        assert_eq!(outbox.take(), Some(encode_publish("a/b", b"live", false).into()));
        assert_eq!(outbox.take(), None, "once");
        hub.unsubscribe(key, "a/#");
        hub.unsubscribe(key, "+/b");
        hub.publish("a/b", b"", true);
        assert_eq!((outbox.take(), hub.retained.len(), hub.retained_bytes), (None, 0, 0));
    }

    #[test]
    fn a_client_of_the_same_id_takes_the_place_of_the_first() {
        let mut hub = Hub::default();
        let (first, old) = hub.join("same".to_owned());
        let (second, new) = hub.join("same".to_owned());
        assert_eq!((old.end(), new.end()), (Some(End::Replaced), None));
        hub.leave(first);
        assert_eq!(hub.by_id.get("same"), Some(&second));
        hub.stop();
        assert_eq!((old.end(), new.end()), (Some(End::Replaced), Some(End::Stopping)));
        hub.leave(second);
        assert!(hub.clients.is_empty() && hub.by_id.is_empty());
    }

    #[test]
    fn one_that_takes_nothing_is_cut_off_and_its_messages_freed() {
        let mut hub = Hub::default();
        let (slow, outbox) = hub.join("slow".to_owned());
        let (_, other) = hub.join("other".to_owned());
        hub.subscribe(slow, "#".to_owned()).unwrap();
        let body = vec![0; 1 << 20];
        for _ in 0..15 {
            hub.publish("a", &body, false);
        }
        assert_eq!((drained(&outbox), outbox.end()), (15, None));
        for _ in 0..20 {
            hub.publish("a", &body, false);
        }
        assert_eq!((drained(&outbox), outbox.end(), other.end()), (0, Some(End::TooSlow), None));
    }

    #[test]
    fn filters_and_retained_messages_have_their_most() {
        let mut hub = Hub::default();
        let (key, _) = hub.join("greedy".to_owned());
        for n in 0..FILTERS_MAX {
            assert!(hub.subscribe(key, format!("a/{n}")).is_some());
        }
        assert!(hub.subscribe(key, "one/more".to_owned()).is_none());
        assert!(hub.subscribe(key, "a/0".to_owned()).is_some(), "one that it has");
        for n in 0..RETAINED_MAX + 10 {
            hub.publish(&format!("r/{n}"), b"x", true);
        }
        assert_eq!(hub.retained.len(), RETAINED_MAX);
        for n in 0..100 {
            hub.publish(&format!("r/{n}"), &vec![0; 1 << 20], true);
        }
        assert!(hub.retained_bytes <= RETAINED_BYTES_MAX);
        let bytes: usize = hub.retained.values().map(|message| message.len()).sum();
        assert_eq!(bytes, hub.retained_bytes);
    }
}
