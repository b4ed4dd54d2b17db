//! Spool files damaged in every way a disk, a cable pulled or a copy cut short can: none ends the process, none is read as
//! what it never held, every message that is whole in it is sent, and where others are lost it is moved aside. `WATCHPOST_DAMAGES=5000 cargo test --lib
//! damaged_at_random` is the long form.

use std::collections::BTreeSet;
use std::path::Path;

use tempfile::TempDir;

use super::notice::{Identity, Notices};
use super::record::logical_bytes;
use super::spool::{Batch, Spool};
use super::store::SpoolError;
use super::topic::Topics;
use crate::event::{Notice, NoticeKind};
use crate::metrics::PublishMetrics;

/// Damages in the short form.
const DAMAGES: u64 = 60;
/// Messages in the file, of which the first are acknowledged.
const MESSAGES: usize = 300;
const ACKNOWLEDGED: usize = 20;
const PAGE: usize = 4096;

fn notices() -> Notices {
    let identity = Identity { node: "n".to_owned(), boot: "0123ab".to_owned() };
    Notices::new(identity, Topics::new("w", "n").unwrap().notice())
}

fn open(path: &Path) -> Result<(Spool, bool), SpoolError> {
    let derive = Box::new(|_: &_, _: Option<&_>, _: &_| Vec::new());
    let (spool, aside) = Spool::open(path, 16 << 20, notices(), derive, PublishMetrics::default())?;
    Ok((spool, aside.is_some()))
}

fn add(spool: &Spool, texts: std::ops::Range<usize>) {
    let draft = |n| notices().draft(NoticeKind::Started, None, format!("message {n:06}"));
    spool.commit(&Batch { messages: texts.map(draft).collect(), ..Batch::default() }).unwrap();
}

/// What is sent, up to `most`, and acknowledged.
fn send(spool: &Spool, most: usize) -> Vec<usize> {
    let mut sent = Vec::new();
    while sent.len() < most
        && let Some(record) = spool.claim().unwrap()
    {
        spool.acknowledge(record.offset, logical_bytes(&record.topic, &record.body));
        let notice: Notice = serde_json::from_slice(&record.body).unwrap();
        sent.push(notice.text.trim_start_matches("message ").parse().unwrap());
    }
    sent
}

/// Waiting messages of which `bytes` hold all that was written of them, at a place where `sound` has it.
fn intact(sound: &[u8], bytes: &[u8]) -> Vec<usize> {
    // The header, `{"schema"` and what is the same in all of them before the text, and what is behind it.
    const BEFORE: usize = 512;
    let mut found = BTreeSet::new();
    let starts = sound.windows(10).enumerate().filter(|(_, bytes)| bytes.starts_with(b"message 00"));
    for (at, _) in starts {
        let number = std::str::from_utf8(&sound[at + 8..at + 14]).unwrap().parse::<usize>().unwrap();
        let place = at.saturating_sub(BEFORE)..(at + BEFORE).min(sound.len());
        if number >= ACKNOWLEDGED && bytes.get(place.clone()) == Some(&sound[place]) {
            found.insert(number);
        }
    }
    found.into_iter().collect()
}

/// A file that was closed well, and one of a process that was killed.
fn whole_files() -> [Vec<u8>; 2] {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("spool.redb");
    let (spool, _) = open(&path).unwrap();
    for n in 0..MESSAGES / 10 {
        add(&spool, n * 10..n * 10 + 10);
        let retained = vec![(format!("w/n/topic{n}"), Some(b"online".to_vec()))];
        spool.commit(&Batch { retained, ..Batch::default() }).unwrap();
    }
    assert_eq!(send(&spool, ACKNOWLEDGED).len(), ACKNOWLEDGED);
    spool.commit(&Batch::default()).unwrap();
    let killed = std::fs::read(&path).unwrap();
    drop(spool);
    [std::fs::read(&path).unwrap(), killed]
}

fn damage(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) -> &'static str {
    let len = bytes.len();
    let page = random.usize(..len / PAGE) * PAGE;
    match random.u8(..6) {
        0 => {
            bytes.truncate(random.usize(..len));
            "cut off"
        }
        1 => {
            for _ in 0..random.usize(1..=64) {
                bytes[random.usize(..len)] ^= 1 << random.u8(..8);
            }
            "bits turned"
        }
        2 => {
            bytes[page..page + PAGE].fill(0);
            "a page of zeros"
        }
        3 => {
            random.fill(&mut bytes[page..page + 512]);
            "a sector of noise"
        }
        4 => {
            let other = random.usize(..len / PAGE) * PAGE;
            bytes.copy_within(other..other + PAGE, page);
            "a page at the wrong place"
        }
        _ => {
            let from = random.usize(..PAGE);
            random.fill(&mut bytes[from..from + 8]);
            "a broken header"
        }
    }
}

#[test]
fn a_spool_damaged_at_random_ends_nothing_and_loses_nothing_without_a_word() {
    let long = std::env::var("WATCHPOST_DAMAGES").ok();
    let damages = long.map_or(DAMAGES, |count| count.parse().unwrap());
    let whole = whole_files();
    let (mut kept, mut moved, mut saved) = (0, 0, 0);
    for seed in 0..damages {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("spool.redb");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = whole[seed as usize % 2].clone();
        let what = damage(&mut bytes, &mut random);
        std::fs::write(&path, &bytes).unwrap();
        let opened = std::panic::catch_unwind(|| open(&path));
        let Ok(Ok((spool, aside))) = opened else { panic!("damage {seed}, {what}: {:?}", opened.map(|r| r.err())) };
        let sent = send(&spool, usize::MAX);
        assert!(sent.is_sorted_by(|a, b| a < b), "damage {seed}, {what}: {sent:?}");
        let missing: Vec<usize> =
            intact(&whole[seed as usize % 2], &bytes).into_iter().filter(|n| !sent.contains(n)).collect();
        assert!(missing.is_empty(), "damage {seed}, {what}: whole and not sent: {missing:?}");
        // Where the last commit, an acknowledgement, is damaged, the one before it holds: some come twice.
        let first = sent.first().copied().unwrap_or(MESSAGES);
        let all = first <= ACKNOWLEDGED && sent == (first..MESSAGES).collect::<Vec<_>>();
        assert!(aside || all, "damage {seed}, {what}: lost without a word: {sent:?}");
        *(if all { &mut kept } else { &mut moved }) += 1;
        saved += if all { 0 } else { sent.iter().filter(|n| **n >= ACKNOWLEDGED).count() };
        // And it works again.
        add(&spool, 1000..1010);
        assert_eq!(send(&spool, usize::MAX), (1000..1010).collect::<Vec<_>>(), "damage {seed}, {what}");
    }
    println!("of {damages} damaged files {kept} kept every message");
    println!("of the {moved} others {saved} of {} waiting messages were sent", moved * (MESSAGES - ACKNOWLEDGED));
}
