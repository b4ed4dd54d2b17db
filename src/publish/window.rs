//! Which messages are in flight: pure bookkeeping between what was handed to the client and what the broker
//! acknowledged.
//!
//! The client gives a message its packet id when it writes it, in the order in which messages were handed over,
//! and says so only by an event. So the window is a FIFO: the next packet id belongs to the oldest entry that
//! has none. A broker may acknowledge out of order; entries leave at the front only, so what left is a
//! contiguous prefix and a cursor may advance over it.

use std::collections::VecDeque;

/// The client or the broker spoke of a packet id that means nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// A packet id was given out while no message waited for one.
    #[error("packet id {0} was sent, but no message waits for one")]
    NothingHanded(u16),
    /// An acknowledgement for a packet that is not in flight.
    #[error("packet id {0} was acknowledged, but is not in flight")]
    NotInFlight(u16),
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    pkid: Option<u16>,
    settled: bool,
}

/// Messages handed over and not yet settled at the front, at most `limit`.
#[derive(Debug)]
pub struct Window<T> {
    entries: VecDeque<Entry<T>>,
    limit: usize,
}

impl<T> Window<T> {
    /// An empty window of at most `limit` messages, at least one.
    pub fn new(limit: usize) -> Self {
        Self { entries: VecDeque::with_capacity(limit.max(1)), limit: limit.max(1) }
    }

    /// Whether another message may be handed over.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.limit
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A message was handed to the client.
    pub fn handed(&mut self, item: T) {
        self.entries.push_back(Entry { item, pkid: None, settled: false });
    }

    /// A message that is not sent at all takes its place in the order, settled.
    pub fn skipped(&mut self, item: T) {
        self.entries.push_back(Entry { item, pkid: Some(0), settled: true });
    }

    /// The client gave out a packet id.
    ///
    /// # Errors
    ///
    /// No message waits for one.
    pub fn sent(&mut self, pkid: u16) -> Result<(), WindowError> {
        let waiting = self.entries.iter_mut().find(|entry| entry.pkid.is_none());
        waiting.ok_or(WindowError::NothingHanded(pkid))?.pkid = Some(pkid);
        Ok(())
    }

    /// The broker answered for a packet id: that message, now settled.
    ///
    /// # Errors
    ///
    /// That packet id is not in flight.
    pub fn settled(&mut self, pkid: u16) -> Result<&T, WindowError> {
        let entry = self.entries.iter_mut().find(|entry| entry.pkid == Some(pkid) && !entry.settled);
        let entry = entry.ok_or(WindowError::NotInFlight(pkid))?;
        entry.settled = true;
        Ok(&entry.item)
    }

    /// The message at the front, if it is settled.
    pub fn pop_settled(&mut self) -> Option<T> {
        if !self.entries.front()?.settled {
            return None;
        }
        self.entries.pop_front().map(|entry| entry.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_contiguous_prefix_leaves() {
        let mut window = Window::new(3);
        for offset in 10..13 {
            assert!(window.has_room());
            window.handed(offset);
        }
        assert!(!window.has_room());
        for pkid in 1..=3 {
            window.sent(pkid).unwrap();
        }
        assert_eq!(window.sent(4), Err(WindowError::NothingHanded(4)));
        assert_eq!(window.settled(2), Ok(&11));
        assert_eq!(window.pop_settled(), None);
        assert_eq!(window.settled(1), Ok(&10));
        assert_eq!((window.pop_settled(), window.pop_settled(), window.pop_settled()), (Some(10), Some(11), None));
        assert_eq!(window.settled(2), Err(WindowError::NotInFlight(2)));
        window.skipped(13);
        assert_eq!(window.pop_settled(), None);
        window.settled(3).unwrap();
        assert_eq!((window.pop_settled(), window.pop_settled()), (Some(12), Some(13)));
        assert!(window.is_empty());
    }

    /// A model of the wire: messages get packet ids in order, acknowledgements come in any order.
    #[test]
    fn random_histories_release_every_message_once_and_in_order() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let limit = random.usize(1..20);
            let mut window = Window::new(limit);
            let (mut next, mut released, mut pkid) = (0_u64, 0_u64, 0_u16);
            let (mut unsent, mut unacked) = (0_usize, Vec::new());
            for _ in 0..500 {
                match random.u8(0..4) {
                    0 if window.has_room() => {
                        window.handed(next);
                        (next, unsent) = (next + 1, unsent + 1);
                    }
                    1 if unsent > 0 => {
                        pkid = pkid % 64 + 1;
                        window.sent(pkid).unwrap();
                        unacked.push((pkid, next - unsent as u64));
                        unsent -= 1;
                    }
                    2 if !unacked.is_empty() => {
                        let (id, offset) = unacked.swap_remove(random.usize(..unacked.len()));
                        assert_eq!(window.settled(id), Ok(&offset));
                    }
                    _ => {
                        while let Some(offset) = window.pop_settled() {
                            assert_eq!(offset, released);
                            assert!(unacked.iter().all(|(_, waiting)| *waiting > offset));
                            released += 1;
                        }
                    }
                }
                assert!(next - released <= limit as u64);
            }
        }
    }
}
