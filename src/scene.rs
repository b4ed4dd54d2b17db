//! What a camera's detections mean over time: tracks in zones and over lines, the events of their lives, and counts.
//!
//! Pure: a [`Scene`] is told what was seen and when, and answers with what is to be said. Everything is said once a
//! track is confirmed: one `new`, `update`s where something changed, exactly one `end`; or nothing, where more tracks begin
//! than may be events.

mod admission;
mod counts;
mod exchange;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::EventRules;
use crate::event::{Counter, Crossing, EVENT_SCHEMA, EndReason, Event, EventKind, Model, Ts, rfc3339};
use crate::frame::{CameraId, Captured, FrameInfo};
use crate::letterbox::Rect;
use crate::snapshot::best::{Best, View};
use crate::snapshot::{self, Snapshot};
use crate::thumbnail::Thumbnail;
use crate::track::filter::{Filter, Sieve};
use crate::track::line::{self, Direction, Line, LineWatch};
use crate::track::tracker::{Exit, Track, Tracker, TrackerSettings};
use crate::track::zone::{Zone, ZoneWatch};
use crate::yolo::Detection;
use crate::yolo::nms::overlap;

use admission::Admission;
use counts::{Counts, Key};

/// A better score than the one told last by this much is worth an update.
const BETTER_SCORE: f32 = 0.02;
/// So is a box that shares less than this of its area (IoU) with the one told last.
const MOVED_IOU: f32 = 0.8;
/// Least time from an event of a track to an update that tells of a change: each is a message on the disk, and a box that
/// trembles on the edge of a zone without delays changes with every frame.
const CHANGES_EVERY: Duration = Duration::from_millis(200);

/// Crossings of a track that are remembered, the latest: who trembles on a line for hours crosses it a million times, and each
/// event tells of all of them.
const CROSSINGS_MAX: usize = 100;

/// What is looked for in a camera's picture.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How detections become tracks.
    pub tracking: TrackerSettings,
    /// Which detections count.
    pub filter: Filter,
    /// Areas.
    pub zones: Vec<Zone>,
    /// Lines.
    pub lines: Vec<Line>,
    /// Which tracks become events; `None`: none, and nothing is counted.
    pub events: Option<EventRules>,
    /// Pictures are made of tracks that become events.
    pub snapshots: bool,
    /// These can be had by HTTP.
    pub snapshot_urls: bool,
}

/// Who speaks of which camera.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// Name of the box.
    pub node: String,
    /// This start of the daemon.
    pub boot: String,
    /// The camera.
    pub camera: CameraId,
    /// Class names.
    pub labels: Arc<Vec<String>>,
}

/// A frame as a scene sees it.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// Time since some moment, never backward: what tracks and zones live by.
    pub at: Duration,
    /// The frame.
    pub frame: &'a FrameInfo,
    /// The model that looked at it.
    pub model: &'a Arc<Model>,
    /// Now, by the clock of the world.
    pub now: SystemTime,
    /// The frame in small, where there is one.
    pub thumbnail: Option<&'a Arc<Thumbnail>>,
}

/// What is to be said after a frame.
#[derive(Debug, Default)]
pub struct Outcome {
    /// By detection: its track, once that is confirmed.
    pub tracks: Vec<Option<u64>>,
    /// Events, in order; numbers are given later.
    pub events: Vec<Event>,
    /// Counts that changed.
    pub counts: Vec<(Counter, u64)>,
    /// Views of tracks to make pictures of.
    pub snapshots: Vec<Snapshot>,
    /// Tracks that ended before their turn to become events came.
    pub suppressed: u64,
    /// What people should know of these, once an episode.
    pub notice: Option<String>,
}

/// A track that has not ended.
#[derive(Debug)]
struct Open {
    start: SystemTime,
    last: Seen,
    track: Track,
    /// Zones it is in.
    zones: Vec<usize>,
    /// Zones it has been in, in the order of the first time.
    entered: Vec<usize>,
    crossings: Vec<(line::Crossing, SystemTime)>,
    /// So many of its crossings are counted.
    counted: usize,
    told: Option<Told>,
    /// It is due and has not had its turn.
    waits: bool,
    best: Best,
}

/// The frame in which a track was seen last.
#[derive(Clone, Debug)]
struct Seen {
    frame: u64,
    captured: Captured,
    pts_ns: Option<u64>,
    size: (u32, u32),
    model: Arc<Model>,
}

/// What the last event of a track said.
#[derive(Debug)]
struct Told {
    at: Duration,
    class: u32,
    stationary: bool,
    zones: Vec<usize>,
    /// So many of the zones it has been in.
    entered: usize,
    crossings: usize,
    top_score: f32,
    rect: Rect,
    /// When the view was taken whose picture it named.
    picture: Option<Duration>,
}

impl Open {
    fn told(&self, rules: &Rules, at: Duration) -> Told {
        Told {
            at,
            class: self.track.class,
            stationary: self.track.stationary,
            zones: self.zones.clone(),
            entered: self.entered.len(),
            crossings: self.crossings.len(),
            top_score: self.track.top_score,
            rect: self.track.rect,
            picture: self.picture(rules),
        }
    }

    /// When the view was taken whose picture an event would name now.
    fn picture(&self, rules: &Rules) -> Option<Duration> {
        self.best.taken_at().filter(|_| rules.snapshot_urls)
    }

    /// Crossings before these were counted, and told of if the track is an event, frames ago.
    fn keep_latest_crossings(&mut self) {
        let surplus = self.crossings.len().saturating_sub(CROSSINGS_MAX);
        self.crossings.drain(..surplus);
        self.counted = self.counted.saturating_sub(surplus);
        if let Some(told) = &mut self.told {
            told.crossings = told.crossings.saturating_sub(surplus);
        }
    }

    /// Whether a track of a class that is wanted is an event.
    fn is_event(&self, rules: &EventRules) -> bool {
        let track = &self.track;
        let entered = rules.zones.is_empty() || self.entered.iter().any(|zone| rules.zones.contains(zone));
        track.confirmed && track.seen && track.top_score >= rules.min_score && entered
    }

    /// Whether an update is due. A change that comes too soon after the last event is told with what there is later, or
    /// in the `end`.
    fn has_news(&self, rules: &Rules, every: Duration, at: Duration) -> bool {
        let (track, Some(told)) = (&self.track, &self.told) else { return false };
        let (passed, picture) = (at.saturating_sub(told.at), self.picture(rules));
        let changed = told.class != track.class
            || told.stationary != track.stationary
            || told.zones != self.zones
            || told.entered != self.entered.len()
            || told.crossings != self.crossings.len()
            || (told.picture.is_none() && picture.is_some());
        let better = track.top_score >= told.top_score + BETTER_SCORE || overlap(track.rect, told.rect) < MOVED_IOU;
        let drifted = (track.seen && better) || told.picture != picture;
        (changed && passed >= CHANGES_EVERY.min(every)) || (drifted && passed >= every)
    }
}

/// Whether a class is among those that are wanted.
fn has(wanted: &[bool], class: u32) -> bool {
    wanted.get(class as usize) == Some(&true)
}

/// One camera's scene.
pub struct Scene {
    speaker: Speaker,
    rules: Rules,
    /// By class number: becomes an event.
    wanted: Vec<bool>,
    sieve: Sieve,
    tracker: Tracker,
    zones: ZoneWatch,
    lines: LineWatch,
    /// Boxed: tracks come and go, and a map moves what is beside them.
    open: BTreeMap<u64, Box<Open>>,
    /// The confirmed ones: only these are told of and counted.
    believed: Vec<u64>,
    counts: Counts,
    admission: Admission,
    at: Duration,
}

impl Scene {
    /// An empty scene.
    pub fn new(speaker: Speaker, rules: Rules) -> Self {
        let labels = &speaker.labels;
        Self {
            wanted: wanted(&rules, labels),
            sieve: Sieve::new(&rules.filter, labels),
            tracker: Tracker::new(&rules.tracking),
            zones: ZoneWatch::new(&rules.zones, labels),
            lines: LineWatch::new(&rules.lines, labels),
            open: BTreeMap::new(),
            believed: Vec::new(),
            counts: Counts::default(),
            admission: Admission::default(),
            at: Duration::ZERO,
            speaker,
            rules,
        }
    }

    /// Whether any track lives, one not yet confirmed or not seen for a moment too.
    pub fn is_busy(&self) -> bool {
        !self.open.is_empty()
    }

    /// Leaves out of `found` what the filter drops.
    pub fn sift(&self, size: (u32, u32), found: &mut Vec<Detection>) {
        found.retain(|d| self.sieve.keeps(d.rect, d.class, d.score, size));
    }

    /// A frame with what was `found` in it, the best score first.
    pub fn frame(&mut self, sight: &Sight<'_>, found: &[Detection], out: &mut Outcome) {
        self.at = self.at.max(sight.at);
        out.tracks.clear();
        let step = self.tracker.update(self.at, sight.frame.size, found);
        self.believed.clear();
        self.believed.extend(step.tracks.iter().filter(|track| track.confirmed).map(|track| track.id));
        let confirmed = |id: &u64| self.believed.binary_search(id).is_ok();
        out.tracks.extend(step.of_detection.iter().map(|id| id.filter(confirmed)));
        let ended: Vec<(u64, Exit)> = step.ended.iter().map(|ended| (ended.track.id, ended.how)).collect();
        let tracks = step.tracks.clone();
        for (id, how) in ended {
            let reason = if how == Exit::Left { EndReason::Left } else { EndReason::Lost };
            self.end(id, reason, sight.now, out);
        }
        let frame = sight.frame;
        let seen = Seen {
            frame: frame.seq,
            captured: frame.captured,
            pts_ns: frame.pts_ns,
            size: frame.size,
            model: Arc::clone(sight.model),
        };
        for track in tracks {
            self.follow(track, &seen, sight.thumbnail);
        }
        if let Some(rules) = &self.rules.events {
            self.admission.pass_time(self.at, rules);
        }
        self.tell(sight.now, out);
        self.count(out);
    }

    /// Everything that lives ends, for `reason`.
    pub fn clear(&mut self, reason: EndReason, now: SystemTime, out: &mut Outcome) {
        self.tracker.clear();
        self.believed.clear();
        let ids: Vec<u64> = self.open.keys().copied().collect();
        for id in ids {
            self.end(id, reason, now, out);
        }
        self.count(out);
    }

    /// Crossings of lines are counted from 0: nobody has seen who crossed while the camera was away.
    pub fn recount(&mut self, out: &mut Outcome) {
        self.counts.clear();
        self.count(out);
    }

    /// The zones that a track is in, by name.
    pub fn zones_of(&self, track: u64) -> Vec<String> {
        self.open.get(&track).map(|open| self.zone_names(&open.zones)).unwrap_or_default()
    }

    /// A track's id as others know it.
    pub fn id(&self, track: u64) -> String {
        format!("{}-{}-{track}", self.speaker.camera, self.speaker.boot)
    }

    fn follow(&mut self, track: Track, seen: &Seen, thumbnail: Option<&Arc<Thumbnail>>) {
        let (id, wall) = (track.id, seen.captured.wall);
        let open = self.open.entry(id).or_insert_with(|| {
            Box::new(Open {
                start: wall,
                last: seen.clone(),
                track: track.clone(),
                zones: Vec::new(),
                entered: Vec::new(),
                crossings: Vec::new(),
                counted: 0,
                told: None,
                waits: false,
                best: Best::default(),
            })
        });
        open.track = track;
        if !open.track.seen {
            return;
        }
        open.last = seen.clone();
        let (rect, class, score) = (open.track.rect, open.track.class, open.track.score);
        let is_wanted = has(&self.wanted, class);
        if let Some(thumbnail) = thumbnail.filter(|_| self.rules.snapshots && is_wanted) {
            open.best.offer(self.at, View { thumbnail: Arc::clone(thumbnail), rect, score });
        }
        for zone in &self.zones.update(id, self.at, wall, rect, class, score).entered {
            if !open.entered.contains(zone) {
                open.entered.push(*zone);
            }
        }
        open.zones.clear();
        open.zones.extend_from_slice(self.zones.current(id));
        let crossings = self.lines.update(id, wall, rect, class, score);
        open.crossings.extend(crossings.iter().map(|crossing| (*crossing, wall)));
        open.keep_latest_crossings();
    }

    /// `new` and `update`s of all that live.
    fn tell(&mut self, now: SystemTime, out: &mut Outcome) {
        let Some(rules) = &self.rules.events else { return };
        let every = rules.update_every;
        let mut begun = Vec::new();
        for id in &self.believed {
            let Some(open) = self.open.get_mut(id) else { continue };
            if open.told.is_none() && has(&self.wanted, open.track.class) && open.is_event(rules) {
                open.waits = !self.admission.admit(rules);
                begun.extend((!open.waits).then_some(*id));
            }
        }
        self.picture(&begun, every, out);
        let kind = |id: &u64, open: &Open| {
            let update = || open.has_news(&self.rules, every, self.at).then_some(EventKind::Update);
            if begun.contains(id) { Some(EventKind::New) } else { update() }
        };
        let due = |id: &u64| Some((*id, kind(id, self.open.get(id)?)?));
        let due: Vec<_> = self.believed.iter().filter_map(due).collect();
        for (id, kind) in due {
            let Some(open) = self.open.get(&id) else { continue };
            let (event, told) = (self.event(open, kind, None, now), open.told(&self.rules, self.at));
            out.events.push(event);
            if let Some(open) = self.open.get_mut(&id) {
                open.told = Some(told);
            }
        }
    }

    /// Views of tracks that are events or become one now: before that is said, so that it says where they are.
    fn picture(&mut self, begun: &[u64], every: Duration, out: &mut Outcome) {
        let at = self.at;
        let mut views = Vec::new();
        for id in &self.believed {
            let Some(open) = self.open.get_mut(id) else { continue };
            if open.told.is_some() || begun.contains(id) {
                views.extend(open.best.due(at, every).map(|view| (*id, open.track.class, view)));
            }
        }
        out.snapshots.extend(views.into_iter().map(|(id, class, view)| self.snapshot(id, class, view)));
    }

    fn snapshot(&self, id: u64, class: u32, view: View) -> Snapshot {
        Snapshot {
            camera: self.speaker.camera.clone(),
            track: self.id(id),
            label: self.label(class),
            score: view.score,
            rect: view.rect,
            thumbnail: view.thumbnail,
        }
    }

    fn end(&mut self, id: u64, reason: EndReason, now: SystemTime, out: &mut Outcome) {
        self.lines.forget(id);
        let Some(mut open) = self.open.remove(&id) else { return };
        if open.told.is_some() {
            let view = open.best.last(self.at);
            out.snapshots.extend(view.map(|view| self.snapshot(id, open.track.class, view)));
            out.events.push(self.event(&open, EventKind::End, Some(reason), now));
        } else if let Some(rules) = self.rules.events.as_ref().filter(|_| open.waits) {
            out.suppressed += 1;
            if self.admission.suppress() {
                out.notice = Some(admission::notice(&self.speaker.camera, rules));
            }
        }
        // Now that its end has said how long it stayed.
        self.zones.forget(id);
    }

    /// Counts are of tracks that are confirmed and of a class that is wanted.
    fn count(&mut self, out: &mut Outcome) {
        for id in &self.believed {
            let Some(open) = self.open.get_mut(id) else { continue };
            let class = open.track.class;
            if !has(&self.wanted, class) {
                continue;
            }
            self.counts.add(Key::Label(class));
            for zone in &open.zones {
                self.counts.add(Key::Zone(*zone, class));
            }
            for (crossing, _) in &open.crossings[open.counted..] {
                self.counts.add(Key::line(crossing.line, crossing.direction, class));
            }
            open.counted = open.crossings.len();
        }
        for (key, value) in self.counts.changes() {
            out.counts.push((self.counter(key), value));
        }
    }

    fn counter(&self, key: Key) -> Counter {
        match key {
            Key::Label(class) => Counter::Label(self.label(class)),
            Key::Zone(zone, class) => Counter::Zone(self.rules.zones[zone].name.clone(), self.label(class)),
            Key::Line(line, is_in, class) => {
                let direction = if is_in { Direction::In } else { Direction::Out };
                Counter::Line(self.rules.lines[line].name.clone(), direction, self.label(class))
            }
        }
    }

    fn snapshot_url(&self, open: &Open) -> Option<String> {
        open.picture(&self.rules).map(|_| snapshot::url(&self.speaker.camera, &self.id(open.track.id)))
    }

    fn label(&self, class: u32) -> String {
        self.speaker.labels.get(class as usize).cloned().unwrap_or_else(|| format!("class{class}"))
    }

    fn zone_names(&self, zones: &[usize]) -> Vec<String> {
        zones.iter().map(|zone| self.rules.zones[*zone].name.clone()).collect()
    }

    fn event(&self, open: &Open, kind: EventKind, reason: Option<EndReason>, now: SystemTime) -> Event {
        let (track, last) = (&open.track, &open.last);
        let ts = Ts {
            captured: rfc3339(last.captured.wall),
            clock: last.captured.clock,
            err_ms: last.captured.err_ms,
            published: rfc3339(now),
            pts_ns: last.pts_ns,
        };
        let crossing = |(crossing, at): &(line::Crossing, SystemTime)| Crossing {
            line: self.rules.lines[crossing.line].name.clone(),
            direction: crossing.direction,
            at: rfc3339(*at),
        };
        let dwell = |zone: &usize| {
            let seconds = self.zones.dwell(track.id, *zone).as_secs_f64();
            (self.rules.zones[*zone].name.clone(), (seconds * 10.0).round() / 10.0)
        };
        Event {
            schema: EVENT_SCHEMA.to_owned(),
            node: self.speaker.node.clone(),
            camera: self.speaker.camera.as_str().to_owned(),
            boot: self.speaker.boot.clone(),
            seq: 0,
            kind,
            id: self.id(track.id),
            frame: last.frame,
            size: [last.size.0, last.size.1],
            model: (*last.model).clone(),
            label: self.label(track.class),
            class: track.class,
            score: track.score,
            top_score: track.top_score,
            rect: track.rect,
            zones: if kind == EventKind::End { Vec::new() } else { self.zone_names(&open.zones) },
            entered_zones: self.zone_names(&open.entered),
            dwell_s: open.entered.iter().map(dwell).collect(),
            crossings: open.crossings.iter().map(crossing).collect(),
            start: rfc3339(open.start),
            end: (kind == EventKind::End).then(|| ts.captured.clone()),
            stationary: track.stationary,
            end_reason: reason,
            snapshot_url: self.snapshot_url(open),
            replayed: false,
            ts,
        }
    }
}

/// By class number: becomes an event.
fn wanted(rules: &Rules, labels: &[String]) -> Vec<bool> {
    let wanted = |label: &String| {
        rules.events.as_ref().is_some_and(|rules| rules.labels.is_empty() || rules.labels.contains(label))
    };
    labels.iter().map(wanted).collect()
}
