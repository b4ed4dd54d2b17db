//! What is worth something only now: `detections` and `health`. Bounded, drops its oldest message, never blocks
//! whoever fills it, and takes nothing while there is no connection.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use super::topic::Topic;

/// Most `detections` messages that wait for the broker.
pub const CAPACITY: usize = 256;
/// Most pictures that wait for the broker: half a megabyte.
const PICTURES: usize = 8;
/// A message that waited this long says nothing about now.
pub const EXPIRY: Duration = Duration::from_secs(5);

/// A message for now.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// Where to.
    pub topic: Topic,
    /// What.
    pub body: Vec<u8>,
    /// When it was made.
    pub made: Instant,
    /// What it is.
    pub kind: Kind,
}

impl Live {
    /// A message made now.
    pub fn new(topic: Topic, body: Vec<u8>) -> Self {
        Self { topic, body, made: Instant::now(), kind: Kind::Message }
    }
}

/// Messages for now are text or pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `detections`, and the like.
    Message,
    /// A JPEG.
    Picture,
}

#[derive(Default)]
struct Waiting {
    open: bool,
    detections: VecDeque<Live>,
    pictures: VecDeque<Live>,
    health: Option<Live>,
}

/// The queue. Every message but `health` that does not leave by [`LiveQueue::pop`] is counted.
pub struct LiveQueue {
    waiting: Mutex<Waiting>,
    dropped: Counter,
    pictures_dropped: Counter,
}

impl LiveQueue {
    /// An empty, closed queue that counts into `dropped` and `pictures_dropped`.
    pub fn new(dropped: Counter, pictures_dropped: Counter) -> Self {
        Self { waiting: Mutex::default(), dropped, pictures_dropped }
    }

    /// Whether messages are taken: while there is a connection.
    pub fn is_open(&self) -> bool {
        self.lock().open
    }

    /// Takes messages from now on.
    pub fn open(&self) {
        self.lock().open = true;
    }

    /// Takes none any more; what waits is dropped and counted.
    pub fn close(&self) {
        let waiting = std::mem::take(&mut *self.lock());
        self.dropped.inc_by(waiting.detections.len() as u64);
        self.pictures_dropped.inc_by(waiting.pictures.len() as u64);
    }

    /// Adds a `detections` message, at the cost of the oldest where it is full. How many wait now.
    pub fn push(&self, message: Live) -> usize {
        let mut waiting = self.lock();
        let displaced = if !waiting.open {
            Some(message)
        } else {
            let oldest = if waiting.detections.len() == CAPACITY { waiting.detections.pop_front() } else { None };
            waiting.detections.push_back(message);
            oldest
        };
        let count = waiting.detections.len();
        drop(waiting);
        if displaced.is_some() {
            self.dropped.inc();
        }
        count
    }

    /// Adds a picture, at the cost of the oldest where too many wait.
    pub fn push_picture(&self, picture: Live) {
        let mut waiting = self.lock();
        let is_taken = waiting.open;
        let mut dropped = u64::from(!is_taken);
        if is_taken {
            waiting.pictures.push_back(picture);
        }
        while waiting.pictures.len() > PICTURES {
            waiting.pictures.pop_front();
            dropped += 1;
        }
        drop(waiting);
        self.pictures_dropped.inc_by(dropped);
    }

    /// Puts a `health` message in the place of one that still waits.
    pub fn push_health(&self, message: Live) {
        let mut waiting = self.lock();
        if waiting.open {
            waiting.health = Some(message);
        }
    }

    /// The next message that is not too old at `now`. Pictures wait until there is nothing else: they are large.
    pub fn pop(&self, now: Instant) -> Option<Live> {
        let mut waiting = self.lock();
        if let Some(health) = waiting.health.take() {
            return Some(health);
        }
        let Waiting { detections, pictures, .. } = &mut *waiting;
        while let Some(message) = detections.pop_front().or_else(|| pictures.pop_front()) {
            if now.saturating_duration_since(message.made) <= EXPIRY {
                return Some(message);
            }
            self.count_dropped(message.kind);
        }
        None
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.detections.is_empty() && waiting.pictures.is_empty() && waiting.health.is_none()
    }

    /// A message that was popped, or never came here, could not be sent.
    pub fn count_dropped(&self, kind: Kind) {
        match kind {
            Kind::Message => self.dropped.inc(),
            Kind::Picture => self.pictures_dropped.inc(),
        };
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::CameraId;
    use crate::publish::topic::Topics;

    fn message(n: u32, made: Instant) -> Live {
        let topic = Topics::new("w", "n").unwrap().detections(&CameraId::new("gate"));
        Live { topic, body: n.to_be_bytes().to_vec(), made, kind: Kind::Message }
    }

    #[test]
    fn pictures_are_few_and_let_everything_else_go_first() {
        let (dropped, pictures_dropped) = (Counter::default(), Counter::default());
        let queue = LiveQueue::new(dropped.clone(), pictures_dropped.clone());
        let now = Instant::now();
        let picture = |n: u32| Live { kind: Kind::Picture, ..message(n, now) };
        queue.push_picture(picture(0));
        assert_eq!(pictures_dropped.get(), 1, "offline");
        queue.open();
        for n in 0..10 {
            queue.push_picture(picture(n));
        }
        queue.push(message(100, now));
        assert_eq!(queue.pop(now), Some(message(100, now)));
        assert_eq!(queue.pop(now), Some(picture(2)));
        assert!(!queue.is_empty());
        queue.close();
        assert_eq!((dropped.get(), pictures_dropped.get()), (0, 1 + 2 + 7));
    }

    #[test]
    fn a_full_queue_drops_and_counts_its_oldest() {
        let dropped = Counter::default();
        let queue = LiveQueue::new(dropped.clone(), Counter::default());
        let now = Instant::now();
        queue.push(message(0, now));
        assert_eq!(dropped.get(), 1, "offline");
        queue.open();
        for n in 0..300 {
            queue.push(message(n, now));
        }
        assert_eq!(dropped.get(), 1 + 44);
        assert_eq!(queue.pop(now), Some(message(44, now)));
        queue.close();
        assert_eq!(dropped.get(), 1 + 44 + 255);
        assert_eq!(queue.pop(now), None);
        assert!(!queue.is_open());
    }

    #[test]
    fn old_messages_expire_and_health_overtakes() {
        let dropped = Counter::default();
        let queue = LiveQueue::new(dropped.clone(), Counter::default());
        let then = Instant::now();
        let now = then + EXPIRY + Duration::from_millis(1);
        queue.open();
        queue.push(message(1, then));
        queue.push(message(2, now));
        queue.push_health(message(8, now));
        queue.push_health(message(9, now));
        assert_eq!(queue.pop(now), Some(message(9, now)));
        assert_eq!(queue.pop(now), Some(message(2, now)));
        assert!(queue.is_empty());
        assert_eq!(dropped.get(), 1);
    }
}
