//! Entrances for fuzzing of what only this module knows: commands, the embedded broker's packets, the spool's file.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use redb::Database;

use super::commands::{Command, Judgement, judge};
use super::connection::Incoming;
use super::embedded::packet;
use super::notice::{Identity, Notices, is_dead_letter_notice, replayed};
use super::record::{self, logical_bytes};
use super::spool::{Batch, Spool};
use super::store::{Aside, CURSOR, DEAD, EVENTS, META, OPEN, RETAINED};
use super::topic::Topics;
use crate::config::CameraEdit;
use crate::event::NoticeKind;
use crate::metrics::PublishMetrics;

const NAMES: [&str; 6] =
    ["cmd/camera", "cmd/reload", "cmd/snapshot", "cmd/reboot", "cam/gate/enabled/set", "status"];
/// Packets of the embedded broker may have this many bytes.
const PACKET_BYTES_MAX: usize = 4 << 20;

#[expect(clippy::unwrap_used, reason = "names of our own")]
fn topics() -> Topics {
    Topics::new("w", "n").unwrap()
}

/// A command: its topic, whether it is retained, how long its response topic is, then that and the body. What it asks
/// of a camera, if it does.
pub fn command(bytes: &[u8]) -> Option<CameraEdit> {
    let [name, retained, response, rest @ ..] = bytes else { return None };
    let (response, body) = rest.split_at(usize::from(*response).min(rest.len()));
    let message = Incoming {
        topic: format!("w/n/{}", NAMES[usize::from(*name) % NAMES.len()]),
        body: body.to_vec(),
        retained: retained % 2 == 1,
        response: (!response.is_empty()).then(|| String::from_utf8_lossy(response).into_owned()),
        correlation: (!response.is_empty()).then(|| response.to_vec()),
    };
    match judge(&topics(), &message) {
        Judgement::Obey(request) => match request.command {
            Command::Camera(edit) => Some(edit),
            _ => None,
        },
        Judgement::Refuse(refusal) => {
            assert!(!refusal.text.is_empty() && refusal.text.len() < 1000, "{}", refusal.text);
            None
        }
        Judgement::Ignore(_) => None,
    }
}

/// What a client sends to the embedded broker.
pub fn packets(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((_, length))) = packet::decode(rest, PACKET_BYTES_MAX) {
        assert!(length > 0 && length <= rest.len(), "{length} of {}", rest.len());
        rest = &rest[length..];
    }
}

/// A spool's file: damaged as the bytes say, or with records of their making.
#[expect(clippy::unwrap_used, clippy::expect_used, reason = "a folder of our own")]
pub fn spool(bytes: &[u8]) {
    static RUN: AtomicU32 = AtomicU32::new(0);
    let Some((kind, rest)) = bytes.split_first() else { return };
    let folder = std::env::temp_dir().join(format!(
        "watchpost-spool-{}-{}",
        std::process::id(),
        RUN.fetch_add(1, Ordering::Relaxed)
    ));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("spool.redb");
    match kind % 2 {
        0 => fs::write(&path, damaged(&folder, rest)).unwrap(),
        _ => write_records(&path, rest),
    }
    let (spool, _) = open(&path).expect("a damaged file is moved aside");
    for _ in 0..100 {
        let Ok(Some(record)) = spool.claim() else { break };
        let _ = (replayed(&record.body), is_dead_letter_notice(&record.body));
        let _ = spool.in_flight(record.offset);
        spool.acknowledge(record.offset, logical_bytes(&record.topic, &record.body));
    }
    let identity = Identity { node: "n".to_owned(), boot: "0123ab".to_owned() };
    let messages = spool.open_tracks().ends(&identity, &topics(), SystemTime::UNIX_EPOCH);
    let _ = spool.commit(&Batch { messages, ..Batch::default() });
    drop(spool);
    fs::remove_dir_all(&folder).unwrap();
}

fn notices() -> Notices {
    let identity = Identity { node: "n".to_owned(), boot: "0123ab".to_owned() };
    Notices::new(identity, topics().notice())
}

fn open(path: &Path) -> Result<(Spool, Option<Aside>), super::store::SpoolError> {
    Spool::open(path, 1 << 20, notices(), Box::new(|_, _, _| Vec::new()), PublishMetrics::default())
}

/// A sound file with other bytes in it: each four bytes are a place (three bytes, the least first) and what is there.
#[expect(clippy::unwrap_used, reason = "a folder of our own")]
fn damaged(folder: &Path, patches: &[u8]) -> Vec<u8> {
    static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
    let sound = SOUND.get_or_init(|| {
        let path = folder.join("sound.redb");
        let (spool, _) = open(&path).unwrap();
        for number in 0..20 {
            let draft = notices().draft(NoticeKind::Started, None, format!("message {number}"));
            let retained = vec![(format!("w/n/{number}"), Some(vec![7; 20]))];
            spool.commit(&Batch { messages: vec![draft], retained }).unwrap();
        }
        drop(spool);
        let file = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        file
    });
    let mut file = sound.clone();
    for patch in patches.chunks_exact(4) {
        let place = usize::from(patch[0]) | usize::from(patch[1]) << 8 | usize::from(patch[2]) << 16;
        let at = place % file.len();
        file[at] = patch[3];
    }
    file
}

/// Records: the table (from 128 on none that the spool writes), eight bytes of a number, the length of a key, that of a body, then both.
#[expect(clippy::unwrap_used, reason = "a folder of our own")]
fn write_records(path: &Path, bytes: &[u8]) {
    let database = Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut rest = bytes;
    while let [table, a, b, c, d, e, f, g, h, key, body, tail @ ..] = rest {
        let number = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
        let (key, tail) = tail.split_at(usize::from(*key).min(tail.len()));
        let (body, tail) = tail.split_at((usize::from(*body) * 8).min(tail.len()));
        let key = String::from_utf8_lossy(key);
        match table % 5 {
            0 => {
                let whole = record::write(number, u64::from(*table), &key, body);
                let written = if *table < 128 { &whole } else { body };
                drop(transaction.open_table(EVENTS).unwrap().insert(number, written).unwrap());
            }
            1 => drop(transaction.open_table(RETAINED).unwrap().insert(&*key, Some(body)).unwrap()),
            2 => drop(transaction.open_table(OPEN).unwrap().insert(&*key, body).unwrap()),
            3 => drop(transaction.open_table(DEAD).unwrap().insert(number, (&*key, "refused", body)).unwrap()),
            _ => drop(transaction.open_table(META).unwrap().insert(CURSOR, number).unwrap()),
        }
        rest = tail;
    }
    transaction.commit().unwrap();
}
