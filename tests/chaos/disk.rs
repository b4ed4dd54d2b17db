//! A disk that is full, takes nothing or hangs: nobody waits for it, and what is lost is counted. A limit of the process on the
//! size of files does what a full disk does, and needs no rights; a file system of the test's own that is filled up, frozen or
//! read-only is one, and needs root.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crossbeam::channel::bounded;
use tempfile::TempDir;
use watchpost::event::{EventKind, NoticeKind};
use watchpost::metrics::PublishMetrics;
use watchpost::publish::{self, Identity, Wanted};

use crate::alone;
use crate::support::clips::{Clip, clip};
use crate::support::cores::all_cores;
use crate::support::daemon::{Daemon, camera};
use crate::support::link::{Condition, Link};
use crate::support::mosquitto::{Mosquitto, Subscriber, free_port, wait_until, within};
use crate::support::publisher::{Box, config, notice};

/// More than the channel to the disk and what waits behind it hold.
const MESSAGES: u32 = 20_000;

const LIMIT: Duration = Duration::from_secs(120);
/// Longer than the disk is waited for without a word.
const HANGS: Duration = Duration::from_secs(8);

/// This process may make no file longer.
fn may_write(most: &str) {
    let (id, limit) = (std::process::id().to_string(), format!("--fsize={most}:"));
    assert!(Command::new("prlimit").args(["--pid", &id, &limit]).status().unwrap().success());
}

/// Files may have `most` bytes, of the spool's own size.
fn full(most: impl Fn(u64) -> u64) {
    let state = TempDir::new().unwrap();
    let spool = state.path().join("spool.redb");
    let full = || may_write(&most(fs::metadata(&spool).unwrap().len()).to_string());
    nobody_waits(state.path(), full, || may_write("unlimited"));
}

/// Gives more than can wait from `fail` to `mend`: nobody waits, and all is accounted for.
fn nobody_waits(state: &Path, fail: impl FnOnce(), mend: impl FnOnce()) {
    let mut broker = Mosquitto::prepare(free_port());
    let link = Link::away(broker.port());
    let tested = Box::start(&config(link.port()), state);
    tested.notices(0..10);
    let (pending, dropped) = (tested.metrics.spool_pending.clone(), tested.metrics.spool_dropped.clone());
    wait_until("the first are on disk", || pending.get() == 10);
    fail();
    let begun = Instant::now();
    tested.notices(10..MESSAGES);
    let took = begun.elapsed();
    wait_until("some are dropped", || dropped.get() > 0);
    // The disk's last word came a second ago at most; a blocked channel would wait for it for ever.
    assert!(took < Duration::from_secs(60), "{took:?} for messages of which none may wait for the disk");
    mend();
    broker.restart();
    let subscriber = Subscriber::start(broker.port(), "watchpost/box/notice", None);
    link.set(Condition::Good);
    let (mut seen, mut told) = (Vec::new(), 0);
    within(Duration::from_secs(120), "all have come or are counted", || {
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

/// A file system of its own that can be frozen: who writes to it then waits until it is thawed. Thawed and unmounted when dropped.
pub struct Disk {
    dir: TempDir,
    device: String,
}

impl Disk {
    /// `None`, with a word about it, where none can be mounted.
    pub fn new() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let (image, place) = (dir.path().join("image"), dir.path().join("place"));
        fs::create_dir(&place).unwrap();
        File::create(&image).unwrap().set_len(128 << 20).unwrap();
        let device = said("losetup", &["--find", "--show", image.to_str().unwrap()]);
        let device = device.map(|line| line.trim().to_owned()).filter(|device| !device.is_empty());
        let Some(device) = device else {
            eprintln!("skipped: no loop device: this test needs root and one");
            return None;
        };
        let disk = Self { dir, device };
        said("mkfs.ext4", &["-q", &disk.device]).expect("mkfs.ext4 of e2fsprogs");
        if said("mount", &[&disk.device, place.to_str().unwrap()]).is_none() {
            eprintln!("skipped: {} cannot be mounted: this test needs root", disk.device);
            return None;
        }
        Some(disk)
    }

    /// Where it is mounted.
    pub fn place(&self) -> PathBuf {
        self.dir.path().join("place")
    }

    /// Leaves no byte of room, until what it makes is removed.
    fn fill(&self) -> PathBuf {
        let path = self.place().join("filler");
        let mut file = File::create(&path).unwrap();
        for piece in [1 << 20, 1 << 10, 1] {
            while file.write(&vec![1; piece]).is_ok() {}
        }
        // The last piece may not get there.
        let _ = file.sync_all();
        path
    }

    fn mounted(&self, how: &str) {
        let remount = format!("remount,{how}");
        said("mount", &["-o", &remount, self.place().to_str().unwrap()]).expect("it is mounted anew");
    }

    fn thaw(&self) {
        let _ = said("fsfreeze", &["--unfreeze", self.place().to_str().unwrap()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = said("umount", &["--lazy", self.place().to_str().unwrap()]);
        let _ = said("losetup", &["--detach", &self.device]);
    }
}

/// What a program says, where it is there and does what it is told.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A disk that hangs until this is dropped: a test that fails must not wait for what it holds.
pub struct Frozen<'a>(&'a Disk);

impl<'a> Frozen<'a> {
    /// From now on.
    pub fn new(disk: &'a Disk) -> Self {
        said("fsfreeze", &["--freeze", disk.place().to_str().unwrap()]).expect("fsfreeze of util-linux");
        Self(disk)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.thaw();
    }
}

#[test]
fn a_file_system_without_room_stalls_nobody_and_what_is_lost_is_counted() {
    let Some(disk) = Disk::new() else { return };
    let filler = std::cell::Cell::new(None);
    nobody_waits(
        &disk.place(),
        || filler.set(Some(disk.fill())),
        || fs::remove_file(filler.take().unwrap()).unwrap(),
    );
}

#[test]
fn a_start_on_a_file_system_without_room_or_that_is_read_only_is_refused_in_words() {
    let Some(disk) = Disk::new() else { return };
    let filler = disk.fill();
    let text = refusal(&disk.place()).unwrap();
    assert!(text.contains("spool.redb cannot be opened (No space left on device"), "{text}");
    assert!(text.contains("a state_dir that this user may write to and whose disk has room"), "{text}");
    fs::remove_file(filler).unwrap();
    disk.mounted("ro");
    let text = refusal(&disk.place()).unwrap();
    assert!(text.contains("spool.redb cannot be opened (Read-only file system"), "{text}");
    disk.mounted("rw");
    assert_eq!(refusal(&disk.place()), None, "what failed starts left is no hindrance");
}

#[test]
fn a_disk_that_hangs_stalls_nobody_and_what_is_lost_is_counted() {
    let Some(disk) = Disk::new() else { return };
    let frozen = std::cell::Cell::new(None);
    nobody_waits(&disk.place(), || frozen.set(Some(Frozen::new(&disk))), || drop(frozen.take()));
}

/// The daemon with spool and pictures on such a disk: frames go on being told of, and events come once it answers.
#[test]
fn a_disk_that_hangs_holds_up_no_frame() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let Some(disk) = Disk::new() else { return };
    let dir = TempDir::new().unwrap();
    std::os::unix::fs::symlink(disk.place(), dir.path().join("state")).unwrap();
    let camera = camera("walk", walk.to_str().unwrap(), "repeat = true\n[events]\nlabels = [\"person\"]");
    let Some(mut daemon) = Daemon::start_with(dir, Vec::new(), "", &camera) else { return };
    daemon.until("events", LIMIT, |heard| !heard.events.is_empty());
    let frozen = Frozen::new(&disk);
    let (begun, log) = (Instant::now(), daemon.log_path());
    let is_told = || fs::read_to_string(&log).unwrap().contains("the disk does not answer");
    daemon.until("frames for a while, and the word", LIMIT, |_| begun.elapsed() >= HANGS && is_told());
    let told = daemon.heard.events.len();
    drop(frozen);
    daemon.until("events after that", LIMIT, |heard| heard.events.len() > told);
    let times: Vec<Instant> = daemon.heard.of("walk").iter().map(|(at, _)| *at).filter(|at| *at >= begun).collect();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    let during = times.iter().filter(|at| **at < begun + HANGS).count();
    println!("{during} frames told of while the disk hung for {HANGS:?}, the longest pause {longest:?}");
    assert!(longest < Duration::from_secs(4), "a pause of {longest:?}");
    daemon.finish();
    let events = daemon.heard.events.iter();
    let (mut tracks, mut open) = (0, BTreeSet::new());
    for event in events {
        match event.kind {
            EventKind::New => {
                tracks += 1;
                assert!(open.insert(event.id.clone()), "{} begins twice", event.id);
            }
            EventKind::Update => assert!(open.contains(&event.id), "{}", event.id),
            EventKind::End => assert!(open.remove(&event.id), "{} ends twice", event.id),
        }
    }
    assert!(open.is_empty() && tracks > 1, "of {tracks} without an end: {open:?}");
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
    fs::write(state.path().join("file"), "").unwrap();
    fs::create_dir(state.path().join("spool.redb")).unwrap();
    for place in [state.path().join("file"), state.path().to_owned(), Path::new("/proc/watchpost").to_owned()] {
        let text = refusal(&place).unwrap();
        assert!(text.contains("spool.redb cannot be opened (") && text.contains("state_dir"), "{text}");
    }
}
