//! A disk that is full or takes nothing: nobody waits for it, and what is lost is counted. A limit of the process on the
//! size of files does what such a disk does, and needs no rights.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crossbeam::channel::bounded;
use tempfile::TempDir;
use watchpost::event::NoticeKind;
use watchpost::metrics::PublishMetrics;
use watchpost::publish::{self, Identity, Wanted};

use crate::alone;
use crate::support::mosquitto::{Mosquitto, Subscriber, free_port, wait_until};
use crate::support::publisher::{Box, config, notice};

/// More than the channel to the disk and what waits behind it hold.
const MESSAGES: u32 = 20_000;

/// This process may make no file longer.
fn may_write(most: &str) {
    let (id, limit) = (std::process::id().to_string(), format!("--fsize={most}:"));
    assert!(Command::new("prlimit").args(["--pid", &id, &limit]).status().unwrap().success());
}

/// Gives more than can wait while files may have `most` bytes, of the spool's own size: nobody waits, and all is
/// accounted for.
fn full(most: impl Fn(u64) -> u64) {
    let port = free_port();
    let state = TempDir::new().unwrap();
    let tested = Box::start(&config(port), state.path());
    tested.notices(0..10);
    let (pending, dropped) = (tested.metrics.spool_pending.clone(), tested.metrics.spool_dropped.clone());
    wait_until("the first are on disk", || pending.get() == 10);
    let size = std::fs::metadata(state.path().join("spool.redb")).unwrap().len();
    may_write(&most(size).to_string());
    let begun = Instant::now();
    tested.notices(10..MESSAGES);
    let took = begun.elapsed();
    wait_until("some are dropped", || dropped.get() > 0);
    // The disk's last word came a second ago at most; a blocked channel would wait for it for ever.
    assert!(took < Duration::from_secs(10), "{took:?} for messages of which none may wait for the disk");
    may_write("unlimited");
    let mut broker = Mosquitto::prepare(port);
    broker.restart();
    let subscriber = Subscriber::start(port, "watchpost/box/notice", None);
    let (mut seen, mut told) = (Vec::new(), 0);
    wait_until("all have come or are counted", || {
        seen.extend(subscriber.messages.try_iter().map(|message| notice(&message.body)));
        told = seen.iter().filter(|notice| notice.kind == NoticeKind::SpoolOverflow).count();
        told > 0 && seen.len() - told + dropped.get() as usize == MESSAGES as usize
    });
    assert!(seen.windows(2).all(|pair| pair[0].seq < pair[1].seq), "in order");
    let texts: Vec<&str> = seen.iter().map(|notice| notice.text.as_str()).collect();
    assert!(texts.contains(&"n0") && texts.contains(&format!("n{}", MESSAGES - 1).as_str()), "oldest and newest");
    let overflow = seen.iter().find(|notice| notice.kind == NoticeKind::SpoolOverflow).unwrap();
    assert!(overflow.text.contains("The disk of state_dir took nothing"), "{}", overflow.text);
    println!("{} came, {} were dropped and counted; given in {took:?}", seen.len() - told, dropped.get());
    assert_eq!(tested.finish().spool_pending.get(), 0);
}

#[test]
fn a_disk_that_takes_nothing_stalls_nobody_and_what_is_lost_is_counted() {
    if alone("disk::a_disk_that_takes_nothing_stalls_nobody_and_what_is_lost_is_counted", &[]) {
        full(|_| 0);
    }
}

#[test]
fn a_full_disk_stalls_nobody_and_what_is_lost_is_counted() {
    if alone("disk::a_full_disk_stalls_nobody_and_what_is_lost_is_counted", &[]) {
        full(|size| size);
    }
}

/// What starting there says; `None` where it starts.
fn refusal(state: &Path) -> Option<String> {
    let identity = Identity { node: "box".to_owned(), boot: "0123ab".to_owned() };
    let metrics = PublishMetrics::default();
    publish::start(Wanted::default(), &config(1), identity, state, metrics, bounded(1).0)
        .err()
        .map(|e| e.to_string())
}

#[test]
fn a_start_on_a_full_disk_is_refused_in_words() {
    if !alone("disk::a_start_on_a_full_disk_is_refused_in_words", &[]) {
        return;
    }
    let state = TempDir::new().unwrap();
    may_write("0");
    let text = refusal(state.path()).unwrap();
    assert!(text.contains("spool.redb cannot be opened (File too large"), "{text}");
    assert!(text.contains("a state_dir that this user may write to and whose disk has room"), "{text}");
    may_write("unlimited");
    assert_eq!(refusal(state.path()), None, "what the failed start left is no hindrance");
}

/// Root may write anywhere: a folder that is none, and a file that is a folder, are refused to it, too.
#[test]
fn a_place_that_cannot_be_written_is_refused_in_words() {
    let state = TempDir::new().unwrap();
    std::fs::write(state.path().join("file"), "").unwrap();
    std::fs::create_dir(state.path().join("spool.redb")).unwrap();
    for place in [state.path().join("file"), state.path().to_owned(), Path::new("/proc/watchpost").to_owned()] {
        let text = refusal(&place).unwrap();
        assert!(text.contains("spool.redb cannot be opened (") && text.contains("state_dir"), "{text}");
    }
}
