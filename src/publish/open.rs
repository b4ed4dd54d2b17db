//! The tracks that are open: whose `new` is in the spool and whose `end` is not.
//!
//! They are written in the transaction of their events, so that whatever ends this process, the next start finds each
//! track that still needs its `end`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::SystemTime;

use redb::{ReadableTable, WriteTransaction};

use super::draft::Draft;
use super::notice::Identity;
use super::store::{OPEN, SpoolError, store_error};
use super::topic::Topics;
use crate::event::{EndReason, Event, EventKind, rfc3339};
use crate::frame::CameraId;

/// The last event of each open track, by its id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenTracks(BTreeMap<String, Event>);

impl OpenTracks {
    /// What an earlier start left. What cannot be read is left out: it is of a version that no longer is.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn load(transaction: &WriteTransaction) -> Result<Self, SpoolError> {
        let table = transaction.open_table(OPEN).map_err(store_error)?;
        let mut tracks = BTreeMap::new();
        for entry in table.range::<&str>(..).map_err(store_error)? {
            let (id, body) = entry.map_err(store_error)?;
            match serde_json::from_slice(body.value()) {
                Ok(event) => drop(tracks.insert(id.value().to_owned(), event)),
                Err(error) => tracing::warn!("the open track {} cannot be read: {error}", id.value()),
            }
        }
        Ok(Self(tracks))
    }

    /// Takes a track's next event, in the transaction that writes it. Returns the one before.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn take(
        &mut self,
        transaction: &WriteTransaction,
        event: &Event,
        body: &[u8],
    ) -> Result<Option<Event>, SpoolError> {
        let mut table = transaction.open_table(OPEN).map_err(store_error)?;
        if event.kind == EventKind::End {
            table.remove(event.id.as_str()).map_err(store_error)?;
            return Ok(self.0.remove(&event.id));
        }
        table.insert(event.id.as_str(), body).map_err(store_error)?;
        Ok(self.0.insert(event.id.clone(), event.clone()))
    }

    /// Those of a camera: the last event of each.
    pub fn of<'a>(&'a self, camera: &'a str) -> impl Iterator<Item = &'a Event> + Clone {
        let prefix = format!("{camera}-");
        let from = self.0.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
        // Those of a camera `gate-2` lie among those of `gate`.
        let below = from.take_while(move |(id, _)| id.starts_with(&prefix));
        below.map(|(_, event)| event).filter(move |event| event.camera == camera)
    }

    /// Undoes [`OpenTracks::take`].
    pub fn put_back(&mut self, id: String, before: Option<Event>) {
        match before {
            Some(event) => drop(self.0.insert(id, event)),
            None => drop(self.0.remove(&id)),
        }
    }

    /// The `end` of each: nobody knows when it really ended, so it ends when it was last told of.
    pub fn ends(&self, identity: &Identity, topics: &Topics, now: SystemTime) -> Vec<Draft> {
        let end = |last: &Event| {
            let mut event = Event {
                node: identity.node.clone(),
                boot: identity.boot.clone(),
                kind: EventKind::End,
                end: Some(last.ts.captured.clone()),
                end_reason: Some(EndReason::Restart),
                replayed: false,
                ..last.clone()
            };
            event.ts.published = rfc3339(now);
            Draft::event(topics.events(&CameraId::new(&last.camera)), event)
        };
        self.0.values().map(end).collect()
    }
}

#[cfg(test)]
impl FromIterator<(String, Event)> for OpenTracks {
    fn from_iter<I: IntoIterator<Item = (String, Event)>>(events: I) -> Self {
        Self(events.into_iter().collect())
    }
}
