//! Rates, states and sentences out of a row of snapshots. Pure: the snapshots and the clocks are arguments.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use super::{CameraInput, HealthInput};
use crate::event::{
    CameraHealth, CameraState, CameraStatus, FrameCounts, HEALTH_SCHEMA, Health, NoticeKind, STATE_SCHEMA, rfc3339,
};
use crate::frame::CameraId;
use crate::metrics::LatencySnapshot;

/// Rates and quantiles are over this long, or since the start where that is shorter.
pub const WINDOW: Duration = Duration::from_secs(5);
/// Overload: more than this share of a camera's wanted frames (decoded, not skipped by `fps_max`) was overwritten
/// within [`WINDOW`].
pub const OVERWRITTEN_SHARE_LIMIT: f64 = 0.05;
/// Fewer overwritten or old frames than this within [`WINDOW`] are no overload: one hiccup of a 1 fps camera is a
/// fifth of its frames.
pub const OVERLOAD_FRAMES_MIN: u64 = 3;
/// Overload: the 95th percentile of a camera's frame age within [`WINDOW`] is above this.
pub const AGE_P95_LIMIT: Duration = Duration::from_secs(1);
/// Overload is over once nothing has pointed to it for this long, so that a box at its limit does not send a pair of
/// notices every few seconds.
pub const CALM: Duration = Duration::from_secs(10);

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
            overload_seen: None,
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
        self.keep(now, input);
        let rates: BTreeMap<&CameraId, Rates> =
            input.cameras.iter().map(|(id, camera)| (id, self.rates(now, id, camera))).collect();
        let pressed = overload_sentence(&rates);
        let overload = self.overload(now, pressed.as_deref(), &mut transitions);
        HealthReport {
            health: self.health(now, wall, input, &rates, overload, pressed),
            states: input.cameras.iter().map(|(id, c)| (id.clone(), state(now, id, c, rates[id].fps))).collect(),
            changed,
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
            if previous.is_some_and(|previous| previous.version == camera.version) {
                continue;
            }
            changed.insert(id.clone());
            let was_online = previous.is_some_and(|previous| previous.report.status == CameraStatus::Online);
            let say = |kind, text| Transition { kind, camera: Some(id.clone()), text };
            match camera.report.status {
                CameraStatus::Offline if was_online => {
                    self.lost.insert(id.clone());
                    let text = format!("camera {id} is lost: {}", camera.report.reason);
                    transitions.push(say(NoticeKind::CameraLost, text));
                }
                CameraStatus::Offline => {}
                CameraStatus::Online => {
                    if self.lost.remove(id) {
                        transitions.push(say(NoticeKind::CameraBack, format!("camera {id} is back")));
                    }
                }
                CameraStatus::Disabled | CameraStatus::Finished => {
                    self.lost.remove(id);
                }
            }
        }
        changed
    }

    fn keep(&mut self, now: Instant, input: &HealthInput) {
        self.snapshots.push_back((now, input.clone()));
        while self.snapshots.len() > SNAPSHOTS_MAX
            || self.snapshots.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW)
        {
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
        let age = camera.age.since(&first.age);
        let wanted = delta.decoded.saturating_sub(delta.skipped_fps);
        Rates {
            fps: delta.decoded as f64 / seconds,
            inferred_fps: delta.inferred as f64 / seconds,
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
                status: camera.report.status,
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
    let report = &camera.report;
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
        frames: camera.counts,
        frame_age_ms: tenth(camera.last_age.as_secs_f64() * 1e3),
    }
}

/// What is wrong but overload, in words; `first` is the oldest snapshot of the window.
fn problems(input: &HealthInput, first: &HealthInput) -> Vec<String> {
    let mut problems: Vec<String> = input.ready.as_ref().err().cloned().into_iter().collect();
    for (id, camera) in &input.cameras {
        if camera.report.status == CameraStatus::Offline {
            problems.push(format!("camera {id} is offline: {}", camera.report.reason));
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
        dropped: now.dropped.saturating_sub(then.dropped),
    }
}

/// More digits are noise in a message that people read.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{CameraReport, PublishInput};
    use crate::metrics::Latency;

    /// A box whose counters the test turns, seen once a second.
    struct World {
        start: Instant,
        second: u64,
        monitor: Monitor,
        total: Latency,
        cameras: BTreeMap<CameraId, (CameraInput, Latency)>,
        lanes: (u64, u64),
        publish: PublishInput,
        ready: Result<(), String>,
    }

    impl World {
        fn new(cameras: &[&str]) -> Self {
            let start = Instant::now();
            let mut world = Self {
                start,
                second: 0,
                monitor: Monitor::new("edge07", "9f3c1a", start),
                total: Latency::default(),
                cameras: BTreeMap::new(),
                lanes: (0, 0),
                publish: PublishInput { connected: true, ..PublishInput::default() },
                ready: Ok(()),
            };
            for id in cameras {
                world.add(id);
            }
            world
        }

        fn add(&mut self, id: &str) {
            let age = Latency::default();
            let report = CameraReport {
                status: CameraStatus::Online,
                reason: "frames arrive".to_owned(),
                since: SystemTime::UNIX_EPOCH,
                attempts: 0,
                next_retry: None,
                size: Some((1280, 720)),
                clock: None,
            };
            let counts = FrameCounts::default();
            let input = CameraInput { version: 1, report, counts, age: age.snapshot(), last_age: Duration::ZERO };
            self.cameras.insert(CameraId::new(id), (input, age));
        }

        fn report(&mut self, id: &str, status: CameraStatus, reason: &str) {
            let (input, _) = self.cameras.get_mut(&CameraId::new(id)).unwrap();
            input.version += 1;
            input.report.status = status;
            input.report.reason = reason.to_owned();
        }

        /// Frames of one camera in one second: decoded, of which overwritten, and the age of the others.
        fn frames(&mut self, id: &str, decoded: u64, overwritten: u64, age_ms: u64) {
            let (input, latency) = self.cameras.get_mut(&CameraId::new(id)).unwrap();
            input.counts.decoded += decoded;
            input.counts.overwritten += overwritten;
            input.counts.inferred += decoded - overwritten;
            input.last_age = Duration::from_millis(age_ms);
            for _ in 0..decoded - overwritten {
                latency.record(input.last_age);
                self.total.record(input.last_age);
            }
        }

        /// A second passes.
        fn tick(&mut self) -> HealthReport {
            self.second += 1;
            self.look()
        }

        fn look(&mut self) -> HealthReport {
            let snapshot = |(id, (input, age)): (&CameraId, &(CameraInput, Latency))| {
                (id.clone(), CameraInput { age: age.snapshot(), ..input.clone() })
            };
            let input = HealthInput {
                cameras: self.cameras.iter().map(snapshot).collect(),
                total: self.total.snapshot(),
                lanes_filled: self.lanes.0,
                lanes_total: self.lanes.1,
                publish: self.publish.clone(),
                ready: self.ready.clone(),
                rss_bytes: 123_456,
            };
            let now = self.start + Duration::from_secs(self.second);
            self.monitor.observe(now, SystemTime::UNIX_EPOCH + Duration::from_secs(self.second), &input)
        }
    }

    fn kinds(report: &HealthReport) -> Vec<NoticeKind> {
        report.transitions.iter().map(|transition| transition.kind).collect()
    }

    #[test]
    fn rates_are_over_the_last_five_seconds() {
        let mut world = World::new(&["gate", "yard"]);
        assert_eq!(world.look().health.fps, 0.0);
        for _ in 0..20 {
            world.frames("gate", 100, 0, 500);
            world.tick();
        }
        for _ in 0..5 {
            world.frames("gate", 25, 0, 40);
            world.frames("yard", 10, 0, 40);
            world.lanes = (world.lanes.0 + 35, world.lanes.1 + 40);
            world.tick();
        }
        let report = world.look();
        let health = &report.health;
        assert_eq!(
            (health.fps, health.cameras["gate"].fps, health.cameras["yard"].inferred_fps),
            (35.0, 25.0, 10.0)
        );
        assert_eq!((health.batch_fill, health.uptime_s, health.rss_bytes), (0.875, 25, 123_456));
        assert!((40.0..44.0).contains(&health.frame_age_p95_ms), "{}", health.frame_age_p95_ms);
        assert_eq!(health.cameras["gate"].frames.decoded, 2125);
        assert_eq!((health.at.as_str(), health.seq), ("1970-01-01T00:00:25.000Z", 0));
        assert!(health.ready && health.problems.is_empty() && !health.overload, "{:?}", health.problems);
        let gate = &report.states[&CameraId::new("gate")];
        assert_eq!((gate.fps, gate.frame_age_ms, gate.size), (25.0, 40.0, Some([1280, 720])));
        world.monitor.count_message();
        assert_eq!(world.tick().health.seq, 1);
    }

    #[test]
    fn a_camera_that_is_added_later_has_true_rates() {
        let mut world = World::new(&["gate"]);
        (0..10).for_each(|_| drop(world.tick()));
        world.add("yard");
        assert_eq!(world.tick().health.cameras["yard"].fps, 0.0);
        world.frames("yard", 30, 0, 40);
        assert_eq!(world.tick().health.cameras["yard"].fps, 30.0);
    }

    #[test]
    fn a_lost_camera_is_said_once_and_so_is_its_return() {
        let mut world = World::new(&["gate"]);
        assert_eq!(world.tick().changed.len(), 1);
        assert!(world.tick().changed.is_empty());
        world.report("gate", CameraStatus::Offline, "connection refused");
        let retry = world.start + Duration::from_secs(7);
        world.cameras.get_mut(&CameraId::new("gate")).unwrap().0.report.next_retry = Some(retry);
        let report = world.tick();
        let lost = &report.transitions[0];
        assert_eq!((lost.kind, lost.camera.clone()), (NoticeKind::CameraLost, Some(CameraId::new("gate"))));
        assert_eq!(lost.text, "camera gate is lost: connection refused");
        assert_eq!(report.health.problems, ["camera gate is offline: connection refused"]);
        assert_eq!(report.states[&CameraId::new("gate")].next_retry_ms, Some(4000));
        world.report("gate", CameraStatus::Offline, "no route");
        let report = world.tick();
        assert_eq!((kinds(&report), report.changed.len()), (vec![], 1));
        world.report("gate", CameraStatus::Online, "frames arrive");
        assert_eq!(kinds(&world.tick()), [NoticeKind::CameraBack]);
        assert_eq!(kinds(&world.tick()), []);
    }

    #[test]
    fn a_camera_that_starts_or_is_switched_off_is_neither_lost_nor_back() {
        let mut world = World::new(&["gate"]);
        world.report("gate", CameraStatus::Offline, "connecting");
        assert_eq!(kinds(&world.tick()), []);
        world.report("gate", CameraStatus::Online, "frames arrive");
        assert_eq!(kinds(&world.tick()), []);
        world.report("gate", CameraStatus::Disabled, "switched off");
        let report = world.tick();
        assert!(report.transitions.is_empty() && report.health.problems.is_empty());
        world.report("gate", CameraStatus::Online, "frames arrive");
        assert_eq!(kinds(&world.tick()), []);
        world.cameras.clear();
        assert!(kinds(&world.tick()).is_empty());
    }

    #[test]
    fn overload_by_overwritten_frames_shows_within_five_seconds_and_ends_after_calm() {
        let mut world = World::new(&["gate", "yard"]);
        for _ in 0..10 {
            world.frames("gate", 25, 0, 40);
            assert!(!world.tick().health.overload);
        }
        let mut seconds = 0;
        let report = loop {
            seconds += 1;
            // Just over the limit: the hardest to see.
            world.frames("gate", 100, 6, 40);
            world.frames("yard", 25, 0, 40);
            let report = world.tick();
            if report.health.overload {
                break report;
            }
        };
        assert!(seconds <= 5, "{seconds} s");
        assert_eq!(kinds(&report), [NoticeKind::Overload]);
        let text = &report.transitions[0].text;
        assert!(text.contains("gate (") && !text.contains("yard"), "{text}");
        assert_eq!(&report.health.problems[0], text);
        for _ in 0..9 {
            world.frames("gate", 25, 0, 40);
            assert_eq!(kinds(&world.tick()), []);
        }
        let over: Vec<NoticeKind> = (0..10).flat_map(|_| kinds(&world.tick())).collect();
        assert_eq!(over, [NoticeKind::OverloadOver]);
        assert!(!world.tick().health.overload);
    }

    #[test]
    fn overload_by_age_shows_and_a_hiccup_does_not() {
        let mut world = World::new(&["gate"]);
        for _ in 0..6 {
            world.frames("gate", 1, 0, 40);
            world.tick();
        }
        world.frames("gate", 2, 1, 3000);
        assert!(!world.tick().health.overload, "one old and one overwritten frame");
        (0..6).for_each(|_| drop(world.tick()));
        world.frames("gate", 25, 0, 1200);
        let report = world.tick();
        assert!(report.health.overload);
        assert!(report.health.problems[0].contains("gate (p95 age 1."), "{:?}", report.health.problems);
    }

    #[test]
    fn frames_skipped_by_fps_max_are_not_wanted() {
        let mut world = World::new(&["gate"]);
        world.tick();
        let (input, _) = world.cameras.get_mut(&CameraId::new("gate")).unwrap();
        input.counts = FrameCounts { decoded: 100, inferred: 20, overwritten: 4, skipped_fps: 76, dropped: 0 };
        assert!(world.tick().health.overload, "4 of 24 wanted frames");
    }

    #[test]
    fn problems_name_the_backend_the_broker_and_the_spool() {
        let mut world = World::new(&[]);
        world.ready = Err("the engine is being opened".to_owned());
        world.publish = PublishInput { connected: false, spool_pending: 12, ..PublishInput::default() };
        let early = world.tick().health.problems;
        assert_eq!(early[1], "no MQTT broker, 12 messages wait in the spool: not yet connected");
        world.publish.problem = Some("nothing listens at box:1883".to_owned());
        world.publish.spool_dropped = 7;
        let report = world.tick();
        assert!(!report.health.ready && !report.mqtt_connected);
        assert_eq!(
            report.health.problems,
            [
                "the engine is being opened",
                "no MQTT broker, 12 messages wait in the spool: nothing listens at box:1883",
                "the spool is full: its oldest messages are dropped, 7 just now"
            ]
        );
        (0..5).for_each(|_| drop(world.tick()));
        assert_eq!(world.tick().health.problems.len(), 2);
    }
}
