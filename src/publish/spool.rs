//! The spool: messages that must not be lost, in order, on disk, from the moment they are taken until the broker
//! has acknowledged them.
//!
//! An offset numbers the messages for ever. `cursor..claimed` is in flight on the connection there is,
//! `claimed..next` waits:
//!
//! ```text
//!   acknowledged │ in flight │ waiting
//!                cursor      claimed     next
//! ```
//!
//! Over its limit the spool drops its oldest *waiting* messages, counts each, and says so with one notice an
//! episode; a message in flight may still be acknowledged, so it is never counted as dropped. An episode ends when
//! half of the limit is free again. Acknowledged messages are deleted with the next commit, together with the
//! cursor: after a crash the last ones may be sent twice, as QoS 1 allows, and none is lost.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::draft::Draft;
use super::notice::Notices;
use super::open::OpenTracks;
use super::record::{self, Record, logical_bytes_of};
use super::retained::{Retained, RetainedMap};
use super::store::{Aside, CURSOR, DEAD, EVENTS, META, RETAINED, SpoolError, Store, store_error};
use crate::event::{Event, NoticeKind};
use crate::formats::Message;
use crate::metrics::PublishMetrics;

/// Most messages kept that the broker refused for good.
pub const DEAD_MAX: u64 = 1000;
/// Room kept free for the notice of an overflow, in bytes.
const OVERFLOW_NOTICE_BYTES: u64 = 512;

/// What one commit writes.
#[derive(Debug, Default)]
pub struct Batch {
    /// Messages that must not be lost, in order.
    pub messages: Vec<Draft>,
    /// Topics and their new retained bodies; `None` clears the topic on the broker.
    pub retained: Vec<(String, Option<Vec<u8>>)>,
}

impl Batch {
    /// Entries in it.
    pub fn len(&self) -> usize {
        self.messages.len() + self.retained.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Positions and sums; see the picture above.
#[derive(Debug, Default)]
struct State {
    cursor: u64,
    claimed: u64,
    next: u64,
    pending: u64,
    bytes: u64,
    /// Offsets chosen to be dropped whose deletion is not on disk yet: no longer to be sent.
    dropping: Vec<Range<u64>>,
    /// The cursor on disk.
    cursor_stored: u64,
    /// Topics whose tombstone was acknowledged.
    buried: Vec<String>,
}

/// What only commits touch.
#[derive(Default)]
struct Writer {
    seqs: HashMap<String, u64>,
    /// Offset of the notice of the overflow that goes on.
    overflow: Option<u64>,
    open: OpenTracks,
}

/// What a commit did to the [`Writer`]: undone where it fails, instead of a copy of all that is open for each.
#[derive(Default)]
struct Journal {
    /// Topics that used a number.
    numbered: Vec<String>,
    /// Tracks that changed, with their last event before.
    tracks: Vec<(String, Option<Event>)>,
}

/// A message as JSON, and the event that it is.
type Numbered = (Vec<u8>, Option<Event>);

impl Writer {
    /// The message with the next number of its topic.
    fn number(&mut self, draft: &Draft, journal: &mut Journal) -> Result<Numbered, SpoolError> {
        let topic = draft.topic.as_str().to_owned();
        let seq = self.seqs.entry(topic.clone()).or_insert(0);
        let numbered = draft.body(*seq)?;
        *seq += 1;
        journal.numbered.push(topic);
        Ok(numbered)
    }

    fn undo(&mut self, journal: Journal) {
        for topic in journal.numbered {
            self.seqs.entry(topic).and_modify(|seq| *seq -= 1);
        }
        for (id, before) in journal.tracks.into_iter().rev() {
            self.open.put_back(id, before);
        }
    }
}

/// Other consumers' messages of an event, given the tracks that are open with it and the event of its track before. Made again
/// where the commit fails, so it remembers nothing.
pub type Derive = Box<dyn Fn(&OpenTracks, Option<&Event>, &Event) -> Vec<Message> + Send + Sync>;

/// Topics and their new retained bodies; `None` is a tombstone.
type Changes = BTreeMap<String, Option<Vec<u8>>>;

/// The spool. Commits from any thread are taken one after the other; claims and acknowledgements come from the
/// publisher.
pub struct Spool {
    store: Store,
    limit: u64,
    notices: Notices,
    derive: Derive,
    metrics: PublishMetrics,
    state: Mutex<State>,
    writer: Mutex<Writer>,
    retained: Mutex<RetainedMap>,
}

struct Outcome {
    /// The first message that is not acknowledged.
    cursor: u64,
    next: u64,
    added: u64,
    added_bytes: u64,
    removed: u64,
    removed_bytes: u64,
    lost: u64,
}

impl Spool {
    /// Opens `path` or begins it, with at most `limit` logical bytes of messages. Also returns what
    /// became of a damaged file.
    ///
    /// # Errors
    ///
    /// Another process holds the file, or the system refuses to read or write it.
    pub fn open(
        path: &Path,
        limit: u64,
        notices: Notices,
        derive: Derive,
        metrics: PublishMetrics,
    ) -> Result<(Self, Option<Aside>), SpoolError> {
        let (store, loaded, aside) = Store::open(path)?;
        let mut retained = RetainedMap::default();
        for (topic, body) in &loaded.retained {
            retained.set(topic, body.as_deref());
        }
        let state = State {
            cursor: loaded.cursor,
            claimed: loaded.cursor,
            next: loaded.next,
            pending: loaded.pending,
            bytes: loaded.bytes,
            cursor_stored: loaded.cursor,
            ..State::default()
        };
        let spool = Self {
            store,
            limit,
            notices,
            derive,
            metrics,
            state: Mutex::new(state),
            writer: Mutex::new(Writer { open: loaded.open, ..Writer::default() }),
            retained: Mutex::new(retained),
        };
        spool.show(&spool.lock());
        Ok((spool, aside))
    }

    /// Writes a batch, drops what no longer fits, deletes what was acknowledged: one transaction, one fsync.
    ///
    /// # Errors
    ///
    /// Nothing of the batch is on disk; the same batch may be given again.
    pub fn commit(&self, batch: &Batch) -> Result<(), SpoolError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut journal = Journal::default();
        let (cursor, buried, still_full) = {
            let state = self.lock();
            (state.cursor, state.buried.clone(), state.bytes > self.limit / 2)
        };
        let mut overflow = writer.overflow.filter(|_| still_full);
        let mut retained: Changes = batch.retained.iter().cloned().collect();
        let written = self.store.write(|transaction| {
            let next = self.lock().next;
            let mut outcome =
                Outcome { cursor, next, added: 0, added_bytes: 0, removed: 0, removed_bytes: 0, lost: 0 };
            self.store_messages(transaction, batch, &mut writer, &mut journal, &mut retained, &mut outcome)?;
            self.store_retained(transaction, &mut retained, &buried)?;
            let mut number = |draft: &Draft| writer.number(draft, &mut journal);
            self.make_room(transaction, &mut number, &mut overflow, &mut outcome)?;
            Ok(outcome)
        });
        if written.is_err() {
            writer.undo(journal);
        }
        let outcome = written?;
        let mut state = self.lock();
        state.dropping.clear();
        state.buried.drain(..buried.len());
        state.cursor_stored = cursor;
        state.next = outcome.next;
        state.pending = (state.pending + outcome.added).saturating_sub(outcome.removed);
        state.bytes = (state.bytes + outcome.added_bytes).saturating_sub(outcome.removed_bytes);
        writer.overflow = overflow;
        self.metrics.spool_dropped.inc_by(outcome.lost);
        self.show(&state);
        drop(state);
        let mut map = self.map();
        for (topic, body) in &retained {
            map.set(topic, body.as_deref());
        }
        Ok(())
    }

    /// The next waiting message, now in flight.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn claim(&self) -> Result<Option<Record>, SpoolError> {
        let mut state = self.lock();
        let mut from = state.claimed;
        if from >= state.next {
            return Ok(None);
        }
        while let Some(record) = self.store.first_in(from, state.next)? {
            match state.dropping.iter().find(|range| range.contains(&record.offset)) {
                Some(range) => from = range.end,
                None => {
                    state.claimed = record.offset + 1;
                    return Ok(Some(record));
                }
            }
        }
        Ok(None)
    }

    /// The connection is gone: what was in flight waits again.
    pub fn rewind(&self) {
        let mut state = self.lock();
        state.claimed = state.cursor;
    }

    /// The message at `offset`, of that many logical bytes, and with it all before it, is done.
    pub fn acknowledge(&self, offset: u64, bytes: u64) {
        let mut state = self.lock();
        state.cursor = offset + 1;
        state.pending = state.pending.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(bytes);
        self.show(&state);
    }

    /// Keeps a message in flight that the broker refused for good, with the reason; it is still to be
    /// acknowledged. Of these at most [`DEAD_MAX`] are kept, the latest.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn bury(&self, record: &Record, reason: &str) -> Result<(), SpoolError> {
        self.store.write(|transaction| {
            let mut dead = transaction.open_table(DEAD).map_err(store_error)?;
            dead.insert(record.offset, (record.topic.as_str(), reason, &record.body[..])).map_err(store_error)?;
            while dead.len().map_err(store_error)? > DEAD_MAX {
                dead.pop_first().map_err(store_error)?;
            }
            Ok(())
        })
    }

    /// The message at `offset`, which is in flight.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn in_flight(&self, offset: u64) -> Result<Option<Record>, SpoolError> {
        self.store.first_in(offset, offset + 1)
    }

    /// The tracks that are open: right after opening, those that the last start left.
    pub fn open_tracks(&self) -> OpenTracks {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).open.clone()
    }

    /// Messages not acknowledged.
    pub fn pending(&self) -> u64 {
        self.lock().pending
    }

    /// The offset that the next message will get.
    pub fn next(&self) -> u64 {
        self.lock().next
    }

    /// Whether acknowledgements are not on disk yet.
    pub fn is_behind(&self) -> bool {
        let state = self.lock();
        state.cursor != state.cursor_stored || !state.buried.is_empty()
    }

    /// The retained message that changed first after `version`.
    pub fn retained_after(&self, version: u64) -> Option<Retained> {
        let map = self.map();
        if map.version() > version { map.next_after(version) } else { None }
    }

    /// The broker acknowledged a retained message; a tombstone is now done with.
    pub fn retained_acknowledged(&self, topic: &str, version: u64) {
        if self.map().acknowledged(topic, version) {
            self.lock().buried.push(topic.to_owned());
        }
    }

    /// The retained messages of the topics that `which` picks are to be sent again.
    pub fn renew_retained(&self, which: impl Fn(&str) -> bool) {
        self.map().renew(which);
    }

    /// What a retained topic holds.
    pub fn retained_body(&self, topic: &str) -> Option<Vec<u8>> {
        self.map().body(topic).map(<[u8]>::to_vec)
    }

    /// Topics that hold a retained message and that `which` picks.
    pub fn retained_topics(&self, which: impl Fn(&str) -> bool) -> Vec<String> {
        self.map().topics().filter(|topic| which(topic)).map(str::to_owned).collect()
    }

    /// What changes nothing is left out of `changes`.
    fn store_retained(
        &self,
        transaction: &WriteTransaction,
        changes: &mut Changes,
        buried: &[String],
    ) -> Result<(), SpoolError> {
        let mut table = transaction.open_table(RETAINED).map_err(store_error)?;
        let map = self.map();
        changes.retain(|topic, body| map.would_change(topic, body.as_deref()));
        for topic in buried.iter().filter(|topic| !map.contains(topic)) {
            table.remove(topic.as_str()).map_err(store_error)?;
        }
        for (topic, body) in changes.iter() {
            table.insert(topic.as_str(), body.as_deref()).map_err(store_error)?;
        }
        Ok(())
    }

    /// The messages, those that are made of them for others, and which tracks are open then. What is made to be retained is put
    /// into `retained`: of a topic the latest alone.
    fn store_messages(
        &self,
        transaction: &WriteTransaction,
        batch: &Batch,
        writer: &mut Writer,
        journal: &mut Journal,
        retained: &mut Changes,
        outcome: &mut Outcome,
    ) -> Result<(), SpoolError> {
        let mut events = transaction.open_table(EVENTS).map_err(store_error)?;
        for draft in &batch.messages {
            let (body, event) = writer.number(draft, journal)?;
            insert(&mut events, draft.topic.as_str(), &body, outcome)?;
            let Some(event) = event else { continue };
            let before = writer.open.take(transaction, &event, &body)?;
            let derived = (self.derive)(&writer.open, before.as_ref(), &event);
            journal.tracks.push((event.id, before));
            for message in derived {
                match message.retain {
                    true => drop(retained.insert(message.topic, Some(message.body))),
                    false => insert(&mut events, &message.topic, &message.body, outcome)?,
                }
            }
        }
        Ok(())
    }

    /// Drops what no longer fits and deletes what was acknowledged.
    fn make_room(
        &self,
        transaction: &WriteTransaction,
        number: &mut impl FnMut(&Draft) -> Result<Numbered, SpoolError>,
        overflow: &mut Option<u64>,
        outcome: &mut Outcome,
    ) -> Result<(), SpoolError> {
        let mut meta = transaction.open_table(META).map_err(store_error)?;
        meta.insert(CURSOR, outcome.cursor).map_err(store_error)?;
        let mut events = transaction.open_table(EVENTS).map_err(store_error)?;
        let victims = self.choose_victims(&events, outcome)?;
        let mut notice_lost = false;
        for offset in victims.into_iter().flatten() {
            // A gap of an earlier overflow may lie in the range.
            let Some(removed) = events.remove(offset).map_err(store_error)? else { continue };
            outcome.removed += 1;
            outcome.removed_bytes += logical_bytes_of(removed.value());
            // The notice of the overflow itself is not lost: it is written again below.
            notice_lost |= *overflow == Some(offset);
            outcome.lost += u64::from(*overflow != Some(offset));
        }
        if notice_lost || (outcome.lost > 0 && overflow.is_none()) {
            *overflow = Some(outcome.next);
            let text = format!(
                "The spool was full ({} bytes): its oldest messages were dropped, because the broker was away or \
                 slow. Give a larger mqtt.spool to keep more.",
                self.limit
            );
            let draft = self.notices.draft(NoticeKind::SpoolOverflow, None, text);
            let (body, _) = number(&draft)?;
            insert(&mut events, draft.topic.as_str(), &body, outcome)?;
        }
        events.retain_in(..outcome.cursor, |_, _| false).map_err(store_error)
    }

    /// The oldest waiting messages that must go to come under the limit. From here on they are not claimed, even
    /// if the commit fails; the next commit drops them then.
    fn choose_victims(
        &self,
        events: &impl ReadableTable<u64, &'static [u8]>,
        outcome: &Outcome,
    ) -> Result<Vec<Range<u64>>, SpoolError> {
        let mut state = self.lock();
        let mut bytes = state.bytes + outcome.added_bytes;
        for range in &state.dropping {
            for entry in events.range(range.clone()).map_err(store_error)? {
                let (_, written) = entry.map_err(store_error)?;
                bytes = bytes.saturating_sub(logical_bytes_of(written.value()));
            }
        }
        if bytes <= self.limit {
            return Ok(state.dropping.clone());
        }
        let target = self.limit.saturating_sub(OVERFLOW_NOTICE_BYTES);
        let mut chosen: Option<Range<u64>> = None;
        for entry in events.range(state.claimed..).map_err(store_error)? {
            if bytes <= target {
                break;
            }
            let (offset, written) = entry.map_err(store_error)?;
            let offset = offset.value();
            if state.dropping.iter().any(|range| range.contains(&offset)) {
                continue;
            }
            bytes = bytes.saturating_sub(logical_bytes_of(written.value()));
            chosen = Some(chosen.map_or(offset, |range| range.start)..offset + 1);
        }
        let mut victims = state.dropping.clone();
        if let Some(range) = chosen {
            // A message of this batch that goes at once must not be marked: a commit that fails gives its offset
            // to another one.
            let stored = range.start.min(state.next)..range.end.min(state.next);
            if !stored.is_empty() {
                state.dropping.push(stored);
            }
            victims.push(range);
        }
        Ok(victims)
    }

    fn show(&self, state: &State) {
        self.metrics.spool_pending.set(state.pending as i64);
        self.metrics.spool_bytes.set(state.bytes as i64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn map(&self) -> MutexGuard<'_, RetainedMap> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert(
    events: &mut redb::Table<'_, u64, &'static [u8]>,
    topic: &str,
    body: &[u8],
    outcome: &mut Outcome,
) -> Result<(), SpoolError> {
    let written = record::write(outcome.next, outcome.cursor, topic, body);
    events.insert(outcome.next, &written[..]).map_err(store_error)?;
    outcome.next += 1;
    outcome.added += 1;
    outcome.added_bytes += logical_bytes_of(&written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::samples;
    use crate::publish::notice::Identity;
    use crate::publish::topic::Topics;

    #[test]
    fn what_a_failed_commit_did_is_undone() {
        let identity = Identity { node: "n".to_owned(), boot: "0123ab".to_owned() };
        let notices = Notices::new(identity, Topics::new("w", "n").unwrap().notice());
        let draft = notices.draft(NoticeKind::Started, None, "hello".to_owned());
        let (mut writer, mut journal) = (Writer::default(), Journal::default());
        let number = |writer: &mut Writer, journal: &mut Journal| {
            let (body, _) = writer.number(&draft, journal).unwrap();
            serde_json::from_slice::<crate::event::Notice>(&body).unwrap().seq
        };
        assert_eq!(number(&mut writer, &mut Journal::default()), 0);
        let (new, update) = (samples::new(), samples::update());
        writer.open.put_back(new.id.clone(), Some(new.clone()));
        assert_eq!([number(&mut writer, &mut journal), number(&mut writer, &mut journal)], [1, 2]);
        // An update, and the end after it.
        writer.open.put_back(new.id.clone(), Some(update.clone()));
        journal.tracks.push((new.id.clone(), Some(new.clone())));
        writer.open.put_back(new.id.clone(), None);
        journal.tracks.push((new.id.clone(), Some(update)));
        writer.undo(journal);
        assert_eq!(writer.open, [(new.id.clone(), new)].into_iter().collect());
        assert_eq!(number(&mut writer, &mut Journal::default()), 1);
    }
}
