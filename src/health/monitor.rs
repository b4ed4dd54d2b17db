//! Rates, states and sentences out of a row of snapshots. Pure: the snapshots and the clocks are arguments.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant, SystemTime};

use super::{CameraInput, HealthInput};
use crate::event::{
    CameraHealth, CameraState, CameraStatus, FrameCounts, HEALTH_SCHEMA, Health, NoticeKind, STATE_SCHEMA, rfc3339,
};
use crate::frame::CameraId;
use crate::metrics::LatencySnapshot;

/// Rates and quantiles are over this long, or since the start where that is shorter.
pub const WINDOW: Duration = Duration::from_secs(5);
/// Overload: more than this share of a camera's wanted frames (decoded, neither skipped by `fps_max` nor by the motion
/// gate) was overwritten within [`WINDOW`].
pub const OVERWRITTEN_SHARE_LIMIT: f64 = 0.05;
/// Fewer overwritten or old frames than this within [`WINDOW`] are no overload: one hiccup of a 1 fps camera is a
/// fifth of its frames.
pub const OVERLOAD_FRAMES_MIN: u64 = 3;
/// Overload: the 95th percentile of a camera's frame age within [`WINDOW`] is above this.
pub const AGE_P95_LIMIT: Duration = Duration::from_secs(1);
/// Overload is over once nothing has pointed to it for this long, so that a box at its limit does not send a pair of
/// notices every few seconds.
pub const CALM: Duration = Duration::from_secs(10);

/// Cameras that were lost within this long of each other are taken to be behind one switch that failed.
const COMMON_OUTAGE: Duration = Duration::from_secs(10);
/// While several cameras are away, each is hurried once in this time, which is the longest back-off, one after the other: of
/// 16 one tries every 4 s.
const PROBE_ROUND: Duration = Duration::from_secs(60);
/// Cameras named in a sentence about overload; the others are counted.
const NAMED_MAX: usize = 3;
/// Snapshots kept, should `observe` be called far more often than once a second.
const SNAPSHOTS_MAX: usize = 64;

/// What [`Monitor::observe`] found.
#[derive(Clone, Debug)]
pub struct HealthReport {
    /// The health message; its `seq` is that of the next one to be sent (see [`Monitor::count_message`]).
    pub health: Health,
    /// The state message of every camera.
    pub states: BTreeMap<CameraId, CameraState>,
    /// Cameras whose thread reported since the last call, and new ones: their state is to be sent.
    pub changed: BTreeSet<CameraId>,
    /// Cameras that need not wait out their back-off: those that went with one that just came back, and while several
    /// are away, each in its turn, so that an end of what they have in common shows soon.
    pub hurried: BTreeSet<CameraId>,
    /// What began or ended since the last call, once each.
    pub transitions: Vec<Transition>,
    /// Connected to the broker.
    pub mqtt_connected: bool,
}

/// Something a notice is to be sent about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// `CameraLost`, `CameraBack`, `Overload` or `OverloadOver`.
    pub kind: NoticeKind,
    /// The camera it is about; `None` for overload, whose sentence names the cameras.
    pub camera: Option<CameraId>,
    /// One sentence for people.
    pub text: String,
}

/// Turns snapshots, taken about once a second, into health.
pub struct Monitor {
    node: String,
    boot: String,
    started: Instant,
    seq: u64,
    /// Oldest first; the last is the latest, the others lie within [`WINDOW`] of it.
    snapshots: VecDeque<(Instant, HealthInput)>,
    /// Cameras that went from online to offline and have not come back.
    lost: BTreeSet<CameraId>,
    /// Cameras that are offline, and since when.
    away: BTreeMap<CameraId, Instant>,
    /// Who of them was hurried last, and when.
    probed: Option<(CameraId, Instant)>,
    /// Cameras that run, and when what befell their frames before was last excused (see [`Monitor::settle`]).
    settling: BTreeMap<CameraId, Instant>,
    /// When overload was last seen, while it lasts.
    overload_seen: Option<Instant>,
}

/// What happened to a camera within the window.
#[derive(Default)]
struct Rates {
    fps: f64,
    inferred_fps: f64,
    overwritten: u64,
    overwritten_share: f64,
    age_p95_s: f64,
    /// At least [`OVERLOAD_FRAMES_MIN`] frames, and 5 % of all, are older than [`AGE_P95_LIMIT`].
    old: bool,
}

impl Monitor {
    /// A monitor of the daemon `node` in this `boot`, which started at `started`.
    pub fn new(node: &str, boot: &str, started: Instant) -> Self {
        Self {
            node: node.to_owned(),
            boot: boot.to_owned(),
            started,
            seq: 0,
            snapshots: VecDeque::new(),
            lost: BTreeSet::new(),
            away: BTreeMap::new(),
            probed: None,
            settling: BTreeMap::new(),
            overload_seen: None,
        }
    }

    /// The camera is no more, or is another from now on: what it was like before says nothing about it.
    pub fn forget(&mut self, camera: &CameraId) {
        self.lost.remove(camera);
        self.away.remove(camera);
        self.settling.remove(camera);
        for (_, input) in &mut self.snapshots {
            input.cameras.remove(camera);
        }
    }

    /// Says that a health message was sent: the next one has the next `seq`.
    pub fn count_message(&mut self) {
        self.seq += 1;
    }

    /// Looks at a snapshot taken at `now` (`wall` by the host's clock). To be called about once a second: overload
    /// that began [`WINDOW`] ago is in the report.
    pub fn observe(&mut self, now: Instant, wall: SystemTime, input: &HealthInput) -> HealthReport {
        let mut transitions = Vec::new();
        let changed = self.changes(input, &mut transitions);
        let mut hurried = self.companions(now, input);
        hurried.extend(self.probe(now));
        self.settle(now, input);
        self.keep(now, input);
        let rates: BTreeMap<&CameraId, Rates> =
            input.cameras.iter().map(|(id, camera)| (id, self.rates(now, id, camera))).collect();
        let pressed = input.ready.as_ref().ok().and_then(|()| overload_sentence(&rates));
        let overload = self.overload(now, pressed.as_deref(), &mut transitions);
        HealthReport {
            health: self.health(now, wall, input, &rates, overload, pressed),
            states: input.cameras.iter().map(|(id, c)| (id.clone(), state(now, id, c, rates[id].fps))).collect(),
            changed,
            hurried,
            transitions,
            mqtt_connected: input.publish.connected,
        }
    }

    /// Cameras with news since the last snapshot; lost and returned ones go to `transitions`.
    fn changes(&mut self, input: &HealthInput, transitions: &mut Vec<Transition>) -> BTreeSet<CameraId> {
        let before = self.snapshots.back().map(|(_, input)| &input.cameras);
        let mut changed = BTreeSet::new();
        self.lost.retain(|id| input.cameras.contains_key(id));
        for (id, camera) in &input.cameras {
            let previous = before.and_then(|cameras| cameras.get(id));
            if previous.is_some_and(|previous| previous.posted.version == camera.posted.version) {
                continue;
            }
            changed.insert(id.clone());
            let losses = previous.map_or(0, |previous| previous.posted.losses);
            let say = |kind, text| Transition { kind, camera: Some(id.clone()), text };
            let status = camera.posted.report.status;
            if matches!(status, CameraStatus::Disabled | CameraStatus::Finished) {
                self.lost.remove(id);
                continue;
            }
            if camera.posted.losses > losses && self.lost.insert(id.clone()) {
                let text = format!("camera {id} is lost: {}", camera.posted.loss);
                transitions.push(say(NoticeKind::CameraLost, text));
            }
            if status == CameraStatus::Online && self.lost.remove(id) {
                transitions.push(say(NoticeKind::CameraBack, format!("camera {id} is back")));
            }
        }
        changed
    }

    /// Keeps who is away, and says who went with those that have just come back.
    fn companions(&mut self, now: Instant, input: &HealthInput) -> BTreeSet<CameraId> {
        let status = |id: &CameraId| input.cameras.get(id).map(|camera| camera.posted.report.status);
        let back = |id: &CameraId, _: &mut Instant| status(id) == Some(CameraStatus::Online);
        let back: Vec<Instant> = self.away.extract_if(.., back).map(|(_, since)| since).collect();
        self.away.retain(|id, _| status(id) == Some(CameraStatus::Offline));
        let offline =
            input.cameras.iter().filter(|(_, camera)| camera.posted.report.status == CameraStatus::Offline);
        for (id, _) in offline {
            self.away.entry(id.clone()).or_insert(now);
        }
        let with = |since: &Instant| {
            back.iter().any(|other| since.max(other).duration_since(*since.min(other)) <= COMMON_OUTAGE)
        };
        self.away.iter().filter(|(_, since)| with(since)).map(|(id, _)| id.clone()).collect()
    }

    /// The next camera of several that are away, where it is time.
    fn probe(&mut self, now: Instant) -> Option<CameraId> {
        let away = u32::try_from(self.away.len()).ok().filter(|away| *away > 1)?;
        let next = match &self.probed {
            Some((_, at)) if now.saturating_duration_since(*at) < PROBE_ROUND / away => return None,
            Some((last, _)) => self.away.range((Bound::Excluded(last), Bound::Unbounded)).next(),
            None => None,
        };
        let (id, _) = next.or_else(|| self.away.first_key_value())?;
        self.probed = Some((id.clone(), now));
        Some(id.clone())
    }

    /// A stream begins with all that waited for it, and where several begin at once their decoders are opened one after
    /// the other, which holds up those that run: frames overwritten then, and in the second after, are no overload.
    fn settle(&mut self, now: Instant, input: &HealthInput) {
        let before = self.snapshots.back().map(|(_, input)| &input.cameras);
        let online = |camera: &CameraInput| camera.posted.report.status == CameraStatus::Online;
        self.settling.retain(|id, _| input.cameras.get(id).is_some_and(online));
        let goes_on = |id: &CameraId, camera: &CameraInput| {
            let then = before.and_then(|cameras| cameras.get(id));
            then.is_some_and(|then| online(then) && then.posted.losses == camera.posted.losses)
        };
        let began = input.cameras.iter().filter(|(id, camera)| online(camera) && !goes_on(id, camera));
        let began: Vec<CameraId> = began.map(|(id, _)| id.clone()).collect();
        if began.len() > 1 {
            self.settling.values_mut().for_each(|at| *at = now);
        }
        self.settling.extend(began.into_iter().map(|id| (id, now)));
    }

    fn keep(&mut self, now: Instant, input: &HealthInput) {
        self.snapshots.push_back((now, input.clone()));
        // What was overwritten while the model was being opened, or opened anew, is no overload.
        let unready = self.snapshots.iter().rposition(|(_, then)| then.ready.is_err());
        if input.ready.is_ok() {
            self.snapshots.drain(..unready.map_or(0, |last| last + 1));
        }
        let old = |at: Instant| now.saturating_duration_since(at) > WINDOW;
        while self.snapshots.len() > SNAPSHOTS_MAX || self.snapshots.front().is_some_and(|(at, _)| old(*at)) {
            self.snapshots.pop_front();
        }
    }

    fn rates(&self, now: Instant, id: &CameraId, camera: &CameraInput) -> Rates {
        let known = |(at, input): &(Instant, HealthInput)| Some((*at, input.cameras.get(id)?.clone()));
        let Some((at, first)) = self.snapshots.iter().find_map(known) else { return Rates::default() };
        let seconds = now.saturating_duration_since(at).as_secs_f64();
        if seconds == 0.0 {
            return Rates::default();
        }
        let delta = since(camera.counts, first.counts);
        let (fps, inferred_fps) = (delta.decoded as f64 / seconds, delta.inferred as f64 / seconds);
        let settled = |(at, _): &&(Instant, HealthInput)| self.settling.get(id).is_none_or(|began| at > began);
        let base = self.snapshots.iter().filter(settled).find_map(known);
        let Some((_, base)) = base else { return Rates { fps, inferred_fps, ..Rates::default() } };
        let delta = since(camera.counts, base.counts);
        let age = camera.age.since(&base.age);
        let wanted = delta.decoded.saturating_sub(delta.skipped_fps + delta.gated);
        Rates {
            fps,
            inferred_fps,
            overwritten: delta.overwritten,
            // A frame is counted as overwritten an instant before its successor is counted as decoded, or after.
            overwritten_share: delta.overwritten as f64 / wanted.max(delta.overwritten).max(1) as f64,
            age_p95_s: age.quantile_s(0.95),
            old: old(&age),
        }
    }

    /// Whether overload lasts, given what points to it now; its beginning and end go to `transitions`.
    fn overload(&mut self, now: Instant, pressed: Option<&str>, transitions: &mut Vec<Transition>) -> bool {
        let say = |kind, text: &str| Transition { kind, camera: None, text: text.to_owned() };
        match (pressed, self.overload_seen) {
            (Some(sentence), seen) => {
                if seen.is_none() {
                    transitions.push(say(NoticeKind::Overload, sentence));
                }
                self.overload_seen = Some(now);
            }
            (None, Some(seen)) if now.saturating_duration_since(seen) >= CALM => {
                transitions
                    .push(say(NoticeKind::OverloadOver, "the overload is over: frames are analysed in time"));
                self.overload_seen = None;
            }
            (None, _) => {}
        }
        self.overload_seen.is_some()
    }

    fn health(
        &self,
        now: Instant,
        wall: SystemTime,
        input: &HealthInput,
        rates: &BTreeMap<&CameraId, Rates>,
        overload: bool,
        pressed: Option<String>,
    ) -> Health {
        let first = self.snapshots.front().map_or(input, |(_, first)| first);
        let filled = input.lanes_filled.saturating_sub(first.lanes_filled);
        let lanes = input.lanes_total.saturating_sub(first.lanes_total);
        let mut problems = problems(input, first);
        problems.extend(pressed);
        let camera = |(id, camera): (&CameraId, &CameraInput)| {
            let health = CameraHealth {
                status: camera.posted.report.status,
                fps: tenth(rates[id].fps),
                inferred_fps: tenth(rates[id].inferred_fps),
                frame_age_ms: tenth(camera.last_age.as_secs_f64() * 1e3),
                frames: camera.counts,
            };
            (id.as_str().to_owned(), health)
        };
        Health {
            schema: HEALTH_SCHEMA.to_owned(),
            node: self.node.clone(),
            boot: self.boot.clone(),
            seq: self.seq,
            at: rfc3339(wall),
            ready: input.ready.is_ok(),
            problems,
            overload,
            uptime_s: now.saturating_duration_since(self.started).as_secs(),
            rss_bytes: input.rss_bytes,
            batch_fill: (filled as f64 / lanes.max(1) as f64 * 1e3).round() / 1e3,
            fps: tenth(rates.values().map(|rates| rates.inferred_fps).sum()),
            frame_age_p95_ms: tenth(input.total.since(&first.total).quantile_s(0.95) * 1e3),
            spool_pending: input.publish.spool_pending,
            spool_dropped: input.publish.spool_dropped,
            detections_dropped: input.publish.detections_dropped,
            cameras: input.cameras.iter().map(camera).collect(),
        }
    }
}

fn state(now: Instant, id: &CameraId, camera: &CameraInput, fps: f64) -> CameraState {
    let report = &camera.posted.report;
    let until = |retry: Instant| retry.saturating_duration_since(now).as_millis() as u64;
    CameraState {
        schema: STATE_SCHEMA.to_owned(),
        camera: id.as_str().to_owned(),
        status: report.status,
        reason: report.reason.clone(),
        since: rfc3339(report.since),
        attempts: report.attempts,
        next_retry_ms: report.next_retry.map(until),
        size: report.size.map(|(width, height)| [width, height]),
        clock: report.clock,
        fps: tenth(fps),
        drops: camera.counts.overwritten + camera.counts.dropped,
        frames: camera.counts,
        frame_age_ms: tenth(camera.last_age.as_secs_f64() * 1e3),
    }
}

/// What is wrong but overload, in words; `first` is the oldest snapshot of the window.
fn problems(input: &HealthInput, first: &HealthInput) -> Vec<String> {
    let mut problems: Vec<String> = input.ready.as_ref().err().cloned().into_iter().collect();
    for (id, camera) in &input.cameras {
        if camera.posted.report.status == CameraStatus::Offline {
            problems.push(format!("camera {id} is offline: {}", camera.posted.report.reason));
        }
        let before = first.cameras.get(id).map_or(camera.counts, |then| then.counts);
        let dropped = since(camera.counts, before).dropped;
        if dropped > 0 && camera.posted.report.status == CameraStatus::Online {
            problems.push(format!("camera {id}: {dropped} frames lost with failed batches just now: see the log"));
        }
    }
    let publish = &input.publish;
    if !publish.connected {
        let (why, waiting) = (publish.problem.as_deref().unwrap_or("not yet connected"), publish.spool_pending);
        problems.push(format!("no MQTT broker, {waiting} messages wait in the spool: {why}"));
    }
    let dropped = publish.spool_dropped.saturating_sub(first.publish.spool_dropped);
    if dropped > 0 {
        problems.push(format!("the spool is full: its oldest messages are dropped, {dropped} just now"));
    }
    problems
}

/// The sentence that says which cameras suffer, if any does.
fn overload_sentence(rates: &BTreeMap<&CameraId, Rates>) -> Option<String> {
    let suffers = |(id, rates): (&&CameraId, &Rates)| {
        let overwritten =
            rates.overwritten >= OVERLOAD_FRAMES_MIN && rates.overwritten_share > OVERWRITTEN_SHARE_LIMIT;
        if overwritten {
            Some(format!("{id} ({:.0} % overwritten)", rates.overwritten_share * 100.0))
        } else if rates.old {
            Some(format!("{id} (p95 age {:.1} s)", rates.age_p95_s))
        } else {
            None
        }
    };
    let suffering: Vec<String> = rates.iter().filter_map(suffers).collect();
    if suffering.is_empty() {
        return None;
    }
    let named = suffering.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    let others = suffering.len().saturating_sub(NAMED_MAX);
    let others = if others == 0 { String::new() } else { format!(" and {others} more") };
    Some(format!(
        "frames arrive faster than they can be analysed: {named}{others}: give fewer cameras, a lower fps_max or a \
         smaller model"
    ))
}

fn old(age: &LatencySnapshot) -> bool {
    let (count, min) = (age.count() as f64, OVERLOAD_FRAMES_MIN as f64);
    // The frame that has `min - 1` older ones, where that is further down than the 95th percentile.
    let quantile = ((count - min + 0.5) / count).min(0.95);
    count >= min && age.quantile_s(quantile) > AGE_P95_LIMIT.as_secs_f64()
}

fn since(now: FrameCounts, then: FrameCounts) -> FrameCounts {
    FrameCounts {
        decoded: now.decoded.saturating_sub(then.decoded),
        inferred: now.inferred.saturating_sub(then.inferred),
        overwritten: now.overwritten.saturating_sub(then.overwritten),
        skipped_fps: now.skipped_fps.saturating_sub(then.skipped_fps),
        gated: now.gated.saturating_sub(then.gated),
        dropped: now.dropped.saturating_sub(then.dropped),
    }
}

/// More digits are noise in a message that people read.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
