//! The account of events: none is missing, each track has one `new` and then one `end`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use watchpost::event::{Event, EventKind, Notice, NoticeKind};

/// What was said so far.
#[derive(Default)]
pub struct Ledger {
    /// `detections` heard.
    pub detections: u64,
    /// The number that comes next, by camera (events) or none (notices), and boot.
    next: BTreeMap<(String, String), u64>,
    open: BTreeSet<String>,
    closed: BTreeSet<String>,
    events: u64,
    twice: u64,
    notices: u64,
    /// Reloads asked for, and those that were heard of: all, and refused ones.
    asked: [usize; 2],
    results: [usize; 2],
    wrong: Vec<String>,
}

impl Ledger {
    /// Takes an event, in the order in which they come.
    pub fn event(&mut self, event: &Event) {
        if !self.is_next(&event.camera, &event.boot, event.seq) {
            return;
        }
        self.events += 1;
        let known = self.open.contains(&event.id) || self.closed.contains(&event.id);
        let right = match event.kind {
            EventKind::New => !known && self.open.insert(event.id.clone()),
            EventKind::Update => self.open.contains(&event.id),
            EventKind::End => self.open.remove(&event.id) && self.closed.insert(event.id.clone()),
        };
        if !right {
            self.wrong.push(format!("{:?} of {} out of turn", event.kind, event.id));
        }
    }

    /// Takes a notice.
    pub fn notice(&mut self, notice: &Notice) {
        if !self.is_next("", &notice.boot, notice.seq) {
            return;
        }
        self.notices += 1;
        if notice.kind == NoticeKind::ReloadResult {
            self.results[0] += 1;
            self.results[1] += usize::from(notice.text.starts_with("the configuration that holds stays"));
        }
        if matches!(notice.kind, NoticeKind::SpoolOverflow | NoticeKind::SpoolReset | NoticeKind::BackendReopened) {
            self.wrong.push(notice.text.clone());
        }
    }

    /// Whether it comes for the first time; that one before it is missing is written down.
    fn is_next(&mut self, camera: &str, boot: &str, seq: u64) -> bool {
        let next = self.next.entry((camera.to_owned(), boot.to_owned())).or_default();
        if seq < *next {
            self.twice += 1;
            return false;
        }
        if seq > *next {
            self.wrong.push(format!("{camera}: {next} is missing before {seq} of {boot}"));
        }
        *next = seq + 1;
        true
    }

    /// A reload was asked for.
    pub fn asked(&mut self, wrong: bool) {
        self.asked[0] += 1;
        self.asked[1] += usize::from(wrong);
    }

    /// Reloads that were not heard of yet.
    pub fn results_missing(&self) -> usize {
        self.asked[0].saturating_sub(self.results[0])
    }

    /// All has ended.
    pub fn close(&self) {
        assert!(
            self.wrong.is_empty(),
            "{} are wrong: {:#?}",
            self.wrong.len(),
            &self.wrong[..self.wrong.len().min(20)]
        );
        assert!(self.open.is_empty(), "without an end: {:?}", self.open);
        assert_eq!(self.asked, self.results, "reloads asked for and heard of, all and refused");
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} tracks, {} without an end; {} notices; {} wrong, {} twice; {} reloads, {} refused; {} detections",
            self.events,
            self.open.len() + self.closed.len(),
            self.open.len(),
            self.notices,
            self.wrong.len(),
            self.twice,
            self.results[0],
            self.results[1],
            self.detections
        )
    }
}
