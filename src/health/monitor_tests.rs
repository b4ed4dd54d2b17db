//! Health over made-up seconds.

use super::*;
use crate::health::{CameraReport, Posted, PublishInput};
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
        let posted = Posted { version: 1, losses: 0, loss: String::new(), report };
        let input = CameraInput { posted, counts, age: age.snapshot(), last_age: Duration::ZERO };
        self.cameras.insert(CameraId::new(id), (input, age));
    }

    fn report(&mut self, id: &str, status: CameraStatus, reason: &str) {
        let (input, _) = self.cameras.get_mut(&CameraId::new(id)).unwrap();
        let posted = &mut input.posted;
        let lost = posted.report.status == CameraStatus::Online && status == CameraStatus::Offline;
        posted.version += 1;
        if lost {
            (posted.losses, posted.loss) = (posted.losses + 1, reason.to_owned());
        }
        posted.report.status = status;
        posted.report.reason = reason.to_owned();
    }

    /// It was never online.
    fn connecting(&mut self, id: &str) {
        let (input, _) = self.cameras.get_mut(&CameraId::new(id)).unwrap();
        input.posted.report.status = CameraStatus::Offline;
        input.posted.report.reason = "connecting".to_owned();
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
    assert_eq!((health.fps, health.cameras["gate"].fps, health.cameras["yard"].inferred_fps), (35.0, 25.0, 10.0));
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
    world.cameras.get_mut(&CameraId::new("gate")).unwrap().0.posted.report.next_retry = Some(retry);
    let report = world.tick();
    let lost = &report.transitions[0];
    assert_eq!((lost.kind, lost.camera.clone()), (NoticeKind::CameraLost, Some(CameraId::new("gate"))));
    assert_eq!(lost.text, "camera gate is lost: connection refused");
    assert_eq!(report.health.problems, ["camera gate is offline: connection refused"]);
    assert_eq!(report.states[&CameraId::new("gate")].next_retry_ms, Some(4000));
    world.report("gate", CameraStatus::Offline, "no route");
    let report = world.tick();
    assert_eq!((kinds(&report), report.changed.len()), (vec![], 1));
    // Back for less than a second: nobody is told twice.
    world.report("gate", CameraStatus::Online, "frames arrive");
    world.report("gate", CameraStatus::Offline, "no route");
    assert_eq!(kinds(&world.tick()), []);
    world.report("gate", CameraStatus::Online, "frames arrive");
    assert_eq!(kinds(&world.tick()), [NoticeKind::CameraBack]);
    assert_eq!(kinds(&world.tick()), []);
}

#[test]
fn a_camera_that_was_online_between_two_looks_is_lost_all_the_same() {
    let mut world = World::new(&["gate"]);
    world.connecting("gate");
    world.tick();
    world.report("gate", CameraStatus::Online, "frames arrive");
    world.report("gate", CameraStatus::Offline, "the camera ended the stream");
    assert_eq!(kinds(&world.tick()), [NoticeKind::CameraLost]);
    world.report("gate", CameraStatus::Online, "frames arrive");
    assert_eq!(kinds(&world.tick()), [NoticeKind::CameraBack]);
    // Away and back within a second.
    world.report("gate", CameraStatus::Offline, "no route");
    world.report("gate", CameraStatus::Online, "frames arrive");
    assert_eq!(kinds(&world.tick()), [NoticeKind::CameraLost, NoticeKind::CameraBack]);
    assert_eq!(kinds(&world.tick()), []);
    // A second camera, whose whole connection lies between two looks.
    world.add("yard");
    world.report("yard", CameraStatus::Offline, "the camera ended the stream");
    let report = world.tick();
    let lost = &report.transitions[0];
    assert_eq!((lost.kind, lost.camera.clone()), (NoticeKind::CameraLost, Some(CameraId::new("yard"))));
}

#[test]
fn a_camera_that_was_away_between_two_looks_is_lost_and_back() {
    let mut world = World::new(&["gate"]);
    world.tick();
    world.report("gate", CameraStatus::Offline, "no frame for 4 s");
    world.report("gate", CameraStatus::Online, "frames arrive");
    let report = world.tick();
    assert_eq!(kinds(&report), [NoticeKind::CameraLost, NoticeKind::CameraBack]);
    assert_eq!(report.transitions[0].text, "camera gate is lost: no frame for 4 s");
    assert_eq!(kinds(&world.tick()), []);
}

#[test]
fn the_first_camera_back_hurries_those_that_went_with_it_and_no_other() {
    let ids = ["dead", "gate", "yard", "hall", "off"];
    let mut world = World::new(&ids);
    let all = |world: &mut World, ids: &[&str], status| {
        ids.iter().for_each(|id| world.report(id, status, "word"));
        // Turns are another matter.
        world.monitor.probed = Some((CameraId::new("dead"), world.start + Duration::from_secs(world.second + 1)));
        world.tick().hurried
    };
    assert!(all(&mut world, &ids, CameraStatus::Online).is_empty());
    all(&mut world, &["dead"], CameraStatus::Offline);
    (0..60).for_each(|_| drop(world.tick()));
    all(&mut world, &["gate", "off"], CameraStatus::Offline);
    // Each notices in its own time.
    (0..8).for_each(|_| drop(world.tick()));
    all(&mut world, &["yard", "hall"], CameraStatus::Offline);
    assert!(all(&mut world, &["off"], CameraStatus::Disabled).is_empty());
    let together = BTreeSet::from([CameraId::new("hall"), CameraId::new("yard")]);
    assert_eq!(all(&mut world, &["gate"], CameraStatus::Online), together);
    assert!(all(&mut world, &[], CameraStatus::Online).is_empty(), "once");
    assert_eq!(all(&mut world, &["hall"], CameraStatus::Online), BTreeSet::from([CameraId::new("yard")]));
    assert!(all(&mut world, &["yard"], CameraStatus::Online).is_empty(), "the dead one went long before");
}

#[test]
fn while_several_are_away_one_after_the_other_tries_and_none_too_often() {
    let ids: Vec<String> = (0..16).map(|n| format!("cam{n:02}")).collect();
    let mut world = World::new(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    ids.iter().for_each(|id| world.report(id, CameraStatus::Offline, "connection refused"));
    let mut tries: BTreeMap<CameraId, Vec<u64>> = BTreeMap::new();
    let mut all = Vec::new();
    for second in 0..600 {
        for id in world.tick().hurried {
            tries.entry(id).or_default().push(second);
            all.push(second);
        }
    }
    assert!(all.windows(2).all(|pair| pair[1] - pair[0] <= 4), "{all:?}");
    assert_eq!(tries.len(), 16);
    assert!(tries.values().flat_map(|at| at.windows(2)).all(|pair| pair[1] - pair[0] >= 60), "{tries:?}");
    // Alone, its own back-off is all there is.
    ids[1..].iter().for_each(|id| world.report(id, CameraStatus::Disabled, "switched off"));
    assert!((0..120).all(|_| world.tick().hurried.is_empty()));
}

#[test]
fn a_camera_that_starts_or_is_switched_off_is_neither_lost_nor_back() {
    let mut world = World::new(&["gate"]);
    world.connecting("gate");
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
    world.tick();
    let (input, _) = world.cameras.get_mut(&CameraId::new("gate")).unwrap();
    input.counts =
        FrameCounts { decoded: 100, inferred: 20, overwritten: 4, skipped_fps: 70, gated: 6, dropped: 0 };
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

#[test]
fn frames_overwritten_before_the_model_is_open_are_no_overload() {
    let mut world = World::new(&["gate"]);
    world.ready = Err("the engine is being opened".to_owned());
    for _ in 0..4 {
        world.frames("gate", 10, 9, 20);
        assert!(!world.tick().health.overload);
    }
    world.ready = Ok(());
    for _ in 0..4 {
        world.frames("gate", 10, 0, 20);
        let report = world.tick();
        assert!(!report.health.overload && report.transitions.is_empty(), "{report:?}");
    }
    world.ready = Err("the backend is being opened anew".to_owned());
    world.frames("gate", 10, 10, 20);
    assert!(!world.tick().health.overload);
    world.ready = Ok(());
    world.frames("gate", 10, 5, 20);
    assert!(!world.tick().health.overload);
    world.frames("gate", 10, 0, 20);
    assert!(!world.tick().health.overload);
}

#[test]
fn a_stream_that_begins_with_a_burst_is_no_overload_and_one_that_goes_on_so_is() {
    let mut world = World::new(&["gate", "yard"]);
    (0..6).for_each(|_| drop(world.tick()));
    world.report("gate", CameraStatus::Offline, "no answer");
    world.tick();
    world.report("gate", CameraStatus::Online, "frames arrive");
    world.frames("gate", 12, 10, 40);
    assert!(!world.tick().health.overload, "the burst, as its stream begins");
    world.frames("gate", 25, 10, 40);
    assert!(!world.tick().health.overload, "what is left of it");
    world.frames("gate", 25, 0, 40);
    world.frames("yard", 25, 10, 40);
    let report = world.tick();
    assert!(report.transitions[0].text.contains("yard (40 %"), "of others it is told: {:?}", report.transitions);
    world.frames("gate", 25, 10, 40);
    let problems = world.tick().health.problems;
    assert!(problems[0].contains("gate (20 % overwritten), yard (40 % overwritten)"), "{problems:?}");
}

#[test]
fn while_several_cameras_begin_at_once_those_beside_them_are_not_overloaded() {
    let mut world = World::new(&["gate", "yard", "door"]);
    (0..6).for_each(|_| drop(world.tick()));
    for id in ["gate", "yard"] {
        world.report(id, CameraStatus::Offline, "no answer");
    }
    world.tick();
    for id in ["gate", "yard"] {
        world.report(id, CameraStatus::Online, "frames arrive");
    }
    world.frames("door", 25, 20, 40);
    assert!(!world.tick().health.overload);
    world.frames("door", 25, 5, 40);
    assert!(!world.tick().health.overload);
    world.frames("door", 25, 5, 40);
    assert!(world.tick().health.overload, "it lasts");
}

#[test]
fn frames_lost_with_failed_batches_are_a_problem_that_is_named() {
    let mut world = World::new(&["gate"]);
    assert!(world.tick().health.problems.is_empty());
    world.cameras.get_mut(&CameraId::new("gate")).unwrap().0.counts.dropped += 3;
    let problems = world.tick().health.problems;
    assert_eq!(problems, ["camera gate: 3 frames lost with failed batches just now: see the log"]);
    (0..6).for_each(|_| drop(world.tick()));
    assert!(world.tick().health.problems.is_empty());
}
