//! The spool's file: an embedded store (redb) of five small tables. Knows transactions, repair and damaged files;
//! what is written, dropped and acknowledged is decided in [`super::spool`].
//!
//! A commit is one fsync. Limits: 8 MiB of page cache; the file grows to about the spool's limit plus half, and
//! its free pages are used again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, WriteTransaction,
};

use super::open::OpenTracks;
use super::record::{self, Record};
use crate::event::Event;
use crate::process::with_end;

/// Offset → [`record::write`].
pub const EVENTS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("events");
/// Topic → body; `None` is a tombstone.
pub const RETAINED: TableDefinition<'static, &str, Option<&[u8]>> = TableDefinition::new("retained");
/// Id of a track that is open → its last event as JSON.
pub const OPEN: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("open");
/// Offset → topic, the broker's reason, body.
pub const DEAD: TableDefinition<'static, u64, (&str, &str, &[u8])> = TableDefinition::new("dead");
/// [`CURSOR`].
pub const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
/// Key in [`META`]: the first offset that is not acknowledged.
pub const CURSOR: &str = "cursor";

/// Beyond what any box can count: a file that says more is damaged.
const OFFSET_MAX: u64 = 1 << 62;
/// redb's default is 1 GiB.
const CACHE_BYTES: usize = 8 << 20;

/// The spool's file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// What the store says.
    #[error("{0}")]
    Store(#[source] Box<redb::Error>),
    /// What the system says.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// An earlier failure closed the store, and it could not be opened again.
    #[error("the spool is closed after an earlier failure")]
    Closed,
    /// A message that cannot be written as JSON.
    #[error("a message cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Any of redb's errors.
pub fn store_error<E: Into<redb::Error>>(error: E) -> SpoolError {
    SpoolError::Store(Box::new(error.into()))
}

/// What a file holds when it is opened.
#[derive(Debug, Default)]
pub struct Loaded {
    /// First offset that is not acknowledged.
    pub cursor: u64,
    /// Offset of the next message.
    pub next: u64,
    /// Messages not acknowledged.
    pub pending: u64,
    /// Their logical bytes.
    pub bytes: u64,
    /// Tracks that the last start left open.
    pub open: OpenTracks,
    /// The retained map, tombstones included.
    pub retained: Vec<(String, Option<Vec<u8>>)>,
}

/// What became of a damaged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Where it is now.
    pub path: PathBuf,
    /// How many of the messages that waited in it were found whole, and wait now.
    pub saved: u64,
}

/// The open file. `None` only after a failure, until it has been opened again.
pub struct Store {
    path: PathBuf,
    database: RwLock<Option<Database>>,
}

impl Store {
    /// Opens or creates the file. A file that cannot be read, even by the store's own repair, is moved aside to
    /// `{path}.corrupt-N`, and one of the messages that can be found in it takes its place.
    ///
    /// # Errors
    ///
    /// The file is locked by another process, or the system refuses to read or write it.
    pub fn open(path: &Path) -> Result<(Self, Loaded, Option<Aside>), SpoolError> {
        match Self::attempt(path) {
            Ok((store, loaded)) => Ok((store, loaded, None)),
            Err(error) if is_damage(&error) => {
                tracing::error!("the spool {} is damaged ({error}); it is moved aside", path.display());
                let new = with_end(path, ".new");
                if new.exists() {
                    fs::remove_file(&new)?;
                }
                Self::attempt(&new)?.0.salvage(path)?;
                let aside = free_name(path);
                // Whatever ends the process between the two, the file is there. Not every file system has links.
                if fs::hard_link(path, &aside).is_err() {
                    fs::rename(path, &aside)?;
                }
                fs::rename(&new, path)?;
                let (store, loaded) = Self::attempt(path)?;
                let saved = loaded.pending;
                Ok((store, loaded, Some(Aside { path: aside, saved })))
            }
            Err(error) => Err(error),
        }
    }

    fn attempt(path: &Path) -> Result<(Self, Loaded), SpoolError> {
        let store = Self { path: path.to_owned(), database: RwLock::new(Some(database(path, true)?)) };
        let loaded = store.load()?;
        Ok((store, loaded))
    }

    /// Takes over what waited in a damaged file, as far as it is found there: every whole message but those that were
    /// acknowledged before any of them was written. What was acknowledged after that comes again, as QoS 1 allows. Of the
    /// open tracks it knows those whose messages wait.
    fn salvage(&self, damaged: &Path) -> Result<(), SpoolError> {
        let file = File::open(damaged)?;
        self.write(|transaction| {
            let mut events = transaction.open_table(EVENTS).map_err(store_error)?;
            let mut cursor = 0;
            record::find(file, |record, acknowledged, written| {
                if countable(record.offset).is_ok() {
                    cursor = acknowledged.max(cursor);
                    events.insert(record.offset, written).map_err(store_error)?;
                }
                Ok::<_, SpoolError>(())
            })?;
            events.retain_in(..cursor, |_, _| false).map_err(store_error)?;
            transaction.open_table(META).map_err(store_error)?.insert(CURSOR, cursor).map_err(store_error)?;
            let mut open = OpenTracks::default();
            for entry in events.range(cursor..).map_err(store_error)? {
                let (_, written) = entry.map_err(store_error)?;
                let Some((record, _)) = record::read(written.value()) else { continue };
                if let Ok(event) = serde_json::from_slice::<Event>(&record.body) {
                    open.take(transaction, &event, &record.body)?;
                }
            }
            Ok(())
        })
    }

    /// Runs `change` in one transaction: all of it is on disk, or none.
    ///
    /// # Errors
    ///
    /// Nothing was changed. The store has been opened anew, so the caller may try again.
    pub fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        let result = self.with(|database| {
            let transaction = database.begin_write().map_err(store_error)?;
            let value = change(&transaction)?;
            transaction.commit().map_err(store_error)?;
            Ok(value)
        });
        if result.is_err() {
            self.reopen();
        }
        result
    }

    /// The first message at an offset in `from..to`.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn first_in(&self, from: u64, to: u64) -> Result<Option<Record>, SpoolError> {
        self.with(|database| {
            let transaction = database.begin_read().map_err(store_error)?;
            let events = transaction.open_table(EVENTS).map_err(store_error)?;
            let Some(entry) = events.range(from..to).map_err(store_error)?.next() else { return Ok(None) };
            let (offset, written) = entry.map_err(store_error)?;
            whole(offset.value(), written.value()).map(Some)
        })
    }

    fn load(&self) -> Result<Loaded, SpoolError> {
        self.write(|transaction| {
            let meta = transaction.open_table(META).map_err(store_error)?;
            let cursor = meta.get(CURSOR).map_err(store_error)?.map_or(0, |cursor| cursor.value());
            countable(cursor)?;
            let mut loaded = Loaded { cursor, next: cursor, ..Loaded::default() };
            let events = transaction.open_table(EVENTS).map_err(store_error)?;
            for entry in events.range(cursor..).map_err(store_error)? {
                let (offset, written) = entry.map_err(store_error)?;
                whole(offset.value(), written.value())?;
                loaded.next = countable(offset.value())? + 1;
                loaded.pending += 1;
                loaded.bytes += record::logical_bytes_of(written.value());
            }
            let retained = transaction.open_table(RETAINED).map_err(store_error)?;
            for entry in retained.iter().map_err(store_error)? {
                let (topic, body) = entry.map_err(store_error)?;
                loaded.retained.push((topic.value().to_owned(), body.value().map(<[u8]>::to_vec)));
            }
            transaction.open_table(DEAD).map_err(store_error)?;
            loaded.open = OpenTracks::load(transaction)?;
            Ok(loaded)
        })
    }

    fn with<T>(&self, body: impl FnOnce(&Database) -> Result<T, SpoolError>) -> Result<T, SpoolError> {
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        body(guard.as_ref().ok_or(SpoolError::Closed)?)
    }

    /// After an I/O error (a full disk, say) redb answers nothing until the file has been opened anew.
    fn reopen(&self) {
        let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *guard = None;
        // It was whole when the process opened it, and is asked each second while the disk is full: no time to read it all.
        match database(&self.path, false) {
            Ok(database) => *guard = Some(database),
            Err(error) => tracing::error!("the spool {} cannot be opened again: {error}", self.path.display()),
        }
    }
}

/// `check`: the whole file is read, once a start: without that redb may panic on a damaged one.
fn database(path: &Path, check: bool) -> Result<Database, SpoolError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(check);
    match builder.create(path) {
        Ok(database) => Ok(database),
        Err(DatabaseError::Storage(StorageError::Io(error))) => Err(SpoolError::Io(error)),
        Err(error) => Err(store_error(error)),
    }
}

/// The message at `offset`, as it was written.
fn whole(offset: u64, written: &[u8]) -> Result<Record, SpoolError> {
    match record::read(written) {
        Some((record, _)) if record.offset == offset => Ok(record),
        _ => Err(store_error(redb::Error::Corrupted(format!("message {offset} is not what was written")))),
    }
}

fn countable(offset: u64) -> Result<u64, SpoolError> {
    if offset > OFFSET_MAX {
        let text = format!("message {offset} is beyond all that can be counted");
        return Err(store_error(redb::Error::Corrupted(text)));
    }
    Ok(offset)
}

fn is_damage(error: &SpoolError) -> bool {
    use redb::Error as E;
    match error {
        SpoolError::Io(error) => matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof),
        SpoolError::Store(error) => matches!(
            **error,
            E::Corrupted(_)
                | E::RepairAborted
                | E::UpgradeRequired(_)
                | E::TableTypeMismatch { .. }
                | E::TableIsMultimap(_)
                | E::TypeDefinitionChanged { .. }
        ),
        SpoolError::Closed | SpoolError::Json(_) => false,
    }
}

fn free_name(path: &Path) -> PathBuf {
    let name = |n: u32| with_end(path, &format!(".corrupt-{n}"));
    (1..u32::MAX).map(name).find(|candidate| !candidate.exists()).unwrap_or_else(|| name(u32::MAX))
}
