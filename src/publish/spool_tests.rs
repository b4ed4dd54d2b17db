//! The spool over real files.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata};
use tempfile::TempDir;

use super::consumers::{Card, Consumers, Wanted};
use super::draft::Draft;
use super::notice::{Identity, Notices};
use super::record::{Record, logical_bytes};
use super::spool::{Batch, DEAD_MAX, Derive, Spool};
use super::store::{Aside, DEAD, SpoolError};
use super::topic::Topics;
use crate::event::{Event, EventKind, Notice, NoticeKind};
use crate::formats::samples;
use crate::frame::CameraId;
use crate::metrics::PublishMetrics;

fn nothing() -> Derive {
    Box::new(|_, _, _| Vec::new())
}

fn notices() -> Notices {
    let identity = Identity { node: "n".to_owned(), boot: "0123ab".to_owned() };
    Notices::new(identity, Topics::new("w", "n").unwrap().notice())
}

fn open(dir: &Path, limit: u64) -> (Spool, PublishMetrics) {
    let metrics = PublishMetrics::default();
    let (spool, aside) =
        Spool::open(&dir.join("spool.redb"), limit, notices(), nothing(), metrics.clone()).unwrap();
    assert_eq!(aside, None);
    (spool, metrics)
}

fn add(spool: &Spool, texts: impl IntoIterator<Item = u32>) {
    let draft = |n: u32| notices().draft(NoticeKind::Started, None, format!("message {n:06}"));
    let messages = texts.into_iter().map(draft).collect();
    spool.commit(&Batch { messages, ..Batch::default() }).unwrap();
}

fn retain(spool: &Spool, topic: &str, body: Option<&[u8]>) {
    let retained = vec![(topic.to_owned(), body.map(<[u8]>::to_vec))];
    spool.commit(&Batch { retained, ..Batch::default() }).unwrap();
}

fn read(record: &Record) -> Notice {
    serde_json::from_slice(&record.body).unwrap()
}

fn acknowledge(spool: &Spool, record: &Record) {
    spool.acknowledge(record.offset, logical_bytes(&record.topic, &record.body));
}

fn drain(spool: &Spool) -> Vec<Notice> {
    let mut all = Vec::new();
    while let Some(record) = spool.claim().unwrap() {
        acknowledge(spool, &record);
        all.push(read(&record));
    }
    all
}

fn texts(all: &[Notice]) -> Vec<&str> {
    all.iter().map(|notice| notice.text.as_str()).collect()
}

#[test]
fn messages_come_in_order_and_again_after_a_rewind() {
    let dir = TempDir::new().unwrap();
    let (spool, metrics) = open(dir.path(), 1 << 20);
    assert_eq!(spool.claim().unwrap(), None);
    add(&spool, 0..5);
    assert_eq!(metrics.spool_pending.get(), 5);
    let first = spool.claim().unwrap().unwrap();
    let second = spool.claim().unwrap().unwrap();
    assert_eq!((first.topic.as_str(), read(&first).seq, read(&second).seq), ("w/n/notice", 0, 1));
    assert_eq!(spool.in_flight(second.offset).unwrap(), Some(second.clone()));
    acknowledge(&spool, &first);
    spool.rewind();
    assert_eq!(spool.claim().unwrap(), Some(second));
    spool.rewind();
    assert_eq!(texts(&drain(&spool)), ["message 000001", "message 000002", "message 000003", "message 000004"]);
    assert_eq!((metrics.spool_pending.get(), metrics.spool_bytes.get()), (0, 0));
}

#[test]
fn a_reopened_spool_goes_on_at_its_cursor() {
    let dir = TempDir::new().unwrap();
    let (spool, _) = open(dir.path(), 1 << 20);
    add(&spool, 0..4);
    for _ in 0..2 {
        let record = spool.claim().unwrap().unwrap();
        acknowledge(&spool, &record);
    }
    assert!(spool.is_behind());
    retain(&spool, "w/n/a", Some(b"1"));
    retain(&spool, "w/n/b", Some(b"1"));
    retain(&spool, "w/n/b", None);
    assert!(!spool.is_behind());
    let claimed = spool.claim().unwrap().unwrap();
    let path = dir.path().join("spool.redb");
    let second = Spool::open(&path, 1, notices(), nothing(), PublishMetrics::default());
    assert!(matches!(second, Err(SpoolError::Store(error)) if matches!(*error, redb::Error::DatabaseAlreadyOpen)));
    drop(spool);

    let (spool, metrics) = open(dir.path(), 1 << 20);
    assert_eq!(metrics.spool_pending.get(), 2);
    assert_eq!(spool.claim().unwrap(), Some(claimed));
    spool.rewind();
    assert_eq!(texts(&drain(&spool)), ["message 000002", "message 000003"]);
    let first = spool.retained_after(0).unwrap();
    let second = spool.retained_after(first.version).unwrap();
    assert_eq!((first.topic.as_str(), first.body.as_deref()), ("w/n/a", Some(&b"1"[..])));
    assert_eq!((second.topic.as_str(), second.body.as_deref()), ("w/n/b", None));
    spool.retained_acknowledged("w/n/b", second.version);
    add(&spool, [9]);
    drop(spool);

    let (spool, _) = open(dir.path(), 1 << 20);
    assert_eq!(spool.retained_topics(|_| true), ["w/n/a"]);
    assert_eq!(spool.retained_after(1), None, "the tombstone is gone from the disk");
    assert_eq!(texts(&drain(&spool)), ["message 000009"]);
}

#[test]
fn an_equal_retained_body_is_no_change() {
    let dir = TempDir::new().unwrap();
    let (spool, _) = open(dir.path(), 1 << 20);
    retain(&spool, "t", Some(b"1"));
    let version = spool.retained_after(0).unwrap().version;
    retain(&spool, "t", Some(b"1"));
    assert_eq!(spool.retained_after(version), None);
    retain(&spool, "t", Some(b"2"));
    assert!(spool.retained_after(version).is_some());
}

#[test]
fn an_overflow_drops_the_oldest_waiting_counts_exactly_and_says_so_once() {
    let dir = TempDir::new().unwrap();
    let (spool, metrics) = open(dir.path(), 20_000);
    add(&spool, 0..10);
    let in_flight: Vec<_> = (0..3).map(|_| spool.claim().unwrap().unwrap()).collect();
    for n in 0..50 {
        add(&spool, 10 + n * 10..20 + n * 10);
        assert!(metrics.spool_bytes.get() <= 20_000);
    }
    let dropped = metrics.spool_dropped.get();
    assert!(dropped > 300, "{dropped}");
    for record in &in_flight {
        acknowledge(&spool, record);
    }
    let rest = drain(&spool);
    let notices = rest.iter().filter(|notice| notice.kind == NoticeKind::SpoolOverflow).count();
    assert_eq!(notices, 1);
    let messages: Vec<_> = rest.iter().filter(|notice| notice.kind == NoticeKind::Started).collect();
    assert_eq!(3 + messages.len() as u64 + dropped, 510);
    assert!(rest.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    assert_eq!(messages.last().unwrap().text, "message 000509");
    assert_eq!((metrics.spool_pending.get(), metrics.spool_bytes.get()), (0, 0));
    // A second episode has its own notice.
    add(&spool, 0..300);
    let again = drain(&spool);
    assert_eq!(again.iter().filter(|notice| notice.kind == NoticeKind::SpoolOverflow).count(), 1);
    assert_eq!(again.len() as u64 - 1 + metrics.spool_dropped.get() - dropped, 300);
}

#[test]
fn a_damaged_file_is_moved_aside() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("spool.redb");
    let damages: [&dyn Fn(); 3] = [
        &|| std::fs::write(&path, vec![0x5a; 70_000]).unwrap(),
        &|| std::fs::write(&path, b"short").unwrap(),
        &|| {
            let mut bytes = std::fs::read(&path).unwrap();
            let half = bytes.len() / 2;
            bytes[4096..half].fill(0xee);
            std::fs::write(&path, bytes).unwrap();
        },
    ];
    for (n, damage) in damages.iter().enumerate() {
        damage();
        let (spool, aside) = Spool::open(&path, 1 << 20, notices(), nothing(), PublishMetrics::default()).unwrap();
        let aside = aside.unwrap();
        assert_eq!(aside.path, dir.path().join(format!("spool.redb.corrupt-{}", n + 1)), "damage {n}");
        assert_eq!(aside.saved, spool.pending(), "damage {n}");
        add(&spool, 0..100);
        assert_eq!(spool.pending(), aside.saved + 100);
    }
}

#[test]
fn what_waited_in_a_damaged_file_is_sent_and_its_open_tracks_end() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("spool.redb");
    let (spool, _) = open(dir.path(), 1 << 20);
    let topics = Topics::new("w", "n").unwrap();
    let gate = CameraId::new("gate");
    let draft = |event: Event| Draft::event(topics.events(&gate), event);
    let other = |event: Event| draft(Event { id: "gate-9f3c1a-413".to_owned(), ..event });
    // Acknowledged before the rest was written.
    add(&spool, 0..20);
    assert_eq!(drain(&spool).len(), 20);
    let messages = vec![draft(samples::new()), other(samples::new()), other(samples::end())];
    spool.commit(&Batch { messages, ..Batch::default() }).unwrap();
    add(&spool, 20..40);
    drop(spool);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..512].fill(0xee);
    std::fs::write(&path, bytes).unwrap();

    let (spool, aside) = Spool::open(&path, 1 << 20, notices(), nothing(), PublishMetrics::default()).unwrap();
    assert_eq!(aside, Some(Aside { path: dir.path().join("spool.redb.corrupt-1"), saved: 23 }));
    assert_eq!(spool.open_tracks(), [("gate-9f3c1a-412".to_owned(), samples_at(0))].into_iter().collect());
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let record = spool.claim().unwrap().unwrap();
        acknowledge(&spool, &record);
        kinds.push(serde_json::from_slice::<Event>(&record.body).unwrap().kind);
    }
    assert_eq!(kinds, [EventKind::New, EventKind::New, EventKind::End]);
    let rest: Vec<String> = drain(&spool).into_iter().map(|notice| notice.text).collect();
    assert_eq!(rest, (20..40).map(|n| format!("message {n:06}")).collect::<Vec<_>>());
    drop(spool);
    let (spool, _) = open(dir.path(), 1 << 20);
    assert_eq!(spool.next(), 43);
    assert!(!dir.path().join("spool.redb.new").exists());
}

/// The `new` of the samples, with the number that the spool gave it.
fn samples_at(seq: u64) -> Event {
    Event { seq, ..samples::new() }
}

#[test]
fn dead_letters_are_kept_up_to_a_limit() {
    let dir = TempDir::new().unwrap();
    let (spool, _) = open(dir.path(), 1 << 20);
    for offset in 0..DEAD_MAX + 10 {
        let record = Record { offset, topic: "w/n/notice".to_owned(), body: b"{}".to_vec() };
        spool.bury(&record, "NotAuthorized").unwrap();
    }
    drop(spool);
    let database = redb::Database::open(dir.path().join("spool.redb")).unwrap();
    let transaction = database.begin_read().unwrap();
    let dead = transaction.open_table(DEAD).unwrap();
    assert_eq!(dead.len().unwrap(), DEAD_MAX);
    let (oldest, value) = dead.first().unwrap().unwrap();
    assert_eq!((oldest.value(), value.value()), (10, ("w/n/notice", "NotAuthorized", &b"{}"[..])));
}

/// Runs again as a process of its own, which may write nothing for a moment: what a full disk does.
#[test]
fn a_commit_that_fails_and_is_tried_again_says_everything_once() {
    const NAME: &str = "publish::spool_tests::a_commit_that_fails_and_is_tried_again_says_everything_once";
    const CHILD: &str = "WATCHPOST_FULL_DISK";
    if std::env::var_os(CHILD).is_none() {
        // Beyond its limit the system also sends a signal, which would end it.
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\""]).arg(std::env::current_exe().unwrap());
        let output = shell.arg(NAME).env(CHILD, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let may_write = |most: &str| {
        let (id, limit) = (std::process::id().to_string(), format!("--fsize={most}:"));
        assert!(Command::new("prlimit").args(["--pid", &id, &limit]).status().unwrap().success());
    };
    let dir = TempDir::new().unwrap();
    let topics = Topics::new("w", "n").unwrap();
    let card = Card { zones: [("drive".to_owned(), BTreeSet::new())].into(), events: true, ..Card::default() };
    let cameras = [(CameraId::new("gate"), card)].into();
    let consumers = Arc::new(Consumers::new(Wanted { onvif: true, cameras, ..Wanted::default() }, "n", &topics));
    let derive: Derive = Box::new(move |open, before, event| consumers.event(open, before, event));
    let path = dir.path().join("spool.redb");
    let (spool, _) = Spool::open(&path, 1 << 20, notices(), derive, PublishMetrics::default()).unwrap();
    let batch = |events: &[Event]| {
        let draft = |event: &Event| Draft::event(topics.events(&CameraId::new("gate")), event.clone());
        Batch { messages: events.iter().map(draft).collect(), ..Batch::default() }
    };
    spool.commit(&batch(&[samples::new()])).unwrap();
    let rest = batch(&[samples::update(), samples::end()]);
    may_write("0");
    for _ in 0..2 {
        spool.commit(&rest).expect_err("the disk is full");
    }
    may_write("unlimited");
    // What fails once more opens the file again.
    (0..2).find_map(|_| spool.commit(&rest).ok()).expect("there is room again");

    let mut events = Vec::new();
    let mut others = Vec::new();
    while let Some(record) = spool.claim().unwrap() {
        acknowledge(&spool, &record);
        match serde_json::from_slice::<Event>(&record.body) {
            Ok(event) => events.push((event.seq, event.kind)),
            Err(_) => others.push(record.topic),
        }
    }
    assert_eq!(events, [(0, EventKind::New), (1, EventKind::Update), (2, EventKind::End)]);
    let rule = |rest: &str| format!("w/n/onvif-ej/RuleEngine/{rest}");
    assert_eq!(others, [rule("LineDetector/Crossed/&gate/gate")]);
    let zone = spool.retained_after(0).unwrap();
    assert_eq!((zone.topic.as_str(), zone.version), (rule("FieldDetector/ObjectsInside/&gate/drive").as_str(), 1));
    assert!(String::from_utf8_lossy(&zone.body.unwrap()).contains(r#""IsInside":false"#));
    assert_eq!(spool.open_tracks(), [].into_iter().collect());
}
