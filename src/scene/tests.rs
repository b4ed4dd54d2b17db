use super::*;
use crate::frame::ClockSource;
use crate::frame::SystemImage;
use crate::metrics::ThumbnailMetrics;
use crate::thumbnail::{Pool, Shrink};
use crate::track::Polygon;
use crate::track::line::Line;
use crate::track::zone::Inside;
use std::time::Instant;

const STEP: Duration = Duration::from_millis(100);

/// A scene with a zone over the right half, told of a frame every 100 ms.
struct Play {
    scene: Scene,
    frame: u64,
    events: Vec<Event>,
    counts: BTreeMap<String, u64>,
    /// What goes with each frame.
    thumbnail: Option<Arc<Thumbnail>>,
    snapshots: Vec<Snapshot>,
    suppressed: u64,
    notices: usize,
}

impl Play {
    fn new(events: EventRules) -> Self {
        Self::tracking(events, 3)
    }

    /// With tracks that are believed after so many sightings.
    fn tracking(events: EventRules, confirm_hits: u32) -> Self {
        let right = Zone {
            name: "right".to_owned(),
            polygon: Polygon::new(vec![[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]]),
            inside: Inside::At(crate::track::Anchor::Foot),
            labels: Vec::new(),
            min_score: 0.0,
            enter_after: Duration::ZERO,
            leave_after: Duration::ZERO,
            schedule: None,
        };
        let tracking = TrackerSettings {
            low: 0.1,
            high: 0.4,
            new: 0.5,
            confirm_hits,
            confirm_after: Duration::from_millis(100 * u64::from(confirm_hits - 1)),
            lost_after: Duration::from_secs(1),
            stationary_after: Duration::from_secs(3),
        };
        let rules = Rules {
            tracking,
            filter: Filter::default(),
            zones: vec![right],
            lines: Vec::new(),
            events: Some(events),
            snapshots: true,
            snapshot_urls: true,
        };
        let labels = Arc::new(vec!["person".to_owned(), "car".to_owned()]);
        let (node, boot, camera) = ("box".to_owned(), "abc123".to_owned(), CameraId::new("gate"));
        let scene = Scene::new(Speaker { node, boot, camera, labels }, rules);
        Self {
            scene,
            frame: 0,
            events: Vec::new(),
            counts: BTreeMap::new(),
            thumbnail: None,
            snapshots: Vec::new(),
            suppressed: 0,
            notices: 0,
        }
    }

    /// A frame with boxes of a class around `x`.
    fn frame(&mut self, class: u32, score: f32, x: &[f32]) {
        let at = STEP * self.frame as u32;
        let captured = Captured { wall: SystemTime::UNIX_EPOCH + at, clock: ClockSource::HostArrival, err_ms: 0 };
        let now = Instant::now();
        let (camera, size) = (CameraId::new("gate"), (1000, 1000));
        let (seq, connection, pts_ns, gate) = (self.frame, 0, None, None);
        let frame = FrameInfo { camera, seq, connection, arrived: now, decoded: now, captured, pts_ns, size, gate };
        let model = Arc::new(Model::default());
        let found: Vec<Detection> =
            x.iter().map(|x| Detection { rect: [x - 0.05, 0.4, x + 0.05, 0.7], score, class }).collect();
        let mut out = Outcome::default();
        let sight =
            Sight { at, frame: &frame, model: &model, now: captured.wall, thumbnail: self.thumbnail.as_ref() };
        self.scene.frame(&sight, &found, &mut out);
        self.take(out);
        self.frame += 1;
    }

    fn take(&mut self, out: Outcome) {
        self.events.extend(out.events);
        self.snapshots.extend(out.snapshots);
        self.suppressed += out.suppressed;
        self.notices += out.notice.iter().count();
        self.counts.extend(out.counts.into_iter().map(|(counter, value)| (counter.to_string(), value)));
    }

    fn said(&self) -> Vec<(EventKind, Vec<String>)> {
        self.events.iter().map(|event| (event.kind, event.zones.clone())).collect()
    }
}

fn all() -> EventRules {
    let update_every = Duration::from_secs(60);
    EventRules { labels: Vec::new(), min_score: 0.0, zones: Vec::new(), update_every, new_hz_max: 100.0 }
}

#[test]
fn a_life_is_a_new_an_update_a_zone_and_an_end() {
    let mut play = Play::new(all());
    for step in 0..40 {
        play.frame(0, 0.9, &[0.3 + 0.01 * step as f32]);
    }
    let right = || vec!["right".to_owned()];
    assert_eq!(play.said(), [(EventKind::New, vec![]), (EventKind::Update, right())]);
    assert_eq!((play.counts["count/person"], play.counts["zone/right/count/person"]), (1, 1));
    for _ in 0..15 {
        play.frame(0, 0.9, &[]);
    }
    let end = play.events.last().unwrap();
    assert_eq!((end.kind, end.end_reason), (EventKind::End, Some(EndReason::Lost)));
    assert_eq!((end.id.as_str(), end.frame, end.entered_zones.clone()), ("gate-abc123-0", 39, right()));
    assert_eq!(
        (end.start.as_str(), end.end.as_deref()),
        ("1970-01-01T00:00:00.000Z", Some("1970-01-01T00:00:03.900Z"))
    );
    assert_eq!((play.counts["count/person"], play.counts["zone/right/count/person"]), (0, 0));
    let dwell: Vec<Option<f64>> = play.events.iter().map(|event| event.dwell_s.get("right").copied()).collect();
    assert_eq!(dwell, [None, Some(0.0), Some(1.9)]);
    assert!(!play.scene.is_busy());
}

#[test]
fn what_the_rules_leave_out_is_no_event() {
    let mut cars = Play::new(EventRules { labels: vec!["car".to_owned()], ..all() });
    let mut sure = Play::new(EventRules { min_score: 0.8, ..all() });
    let mut zone = Play::new(EventRules { zones: vec![0], ..all() });
    for play in [&mut cars, &mut sure, &mut zone] {
        for _ in 0..10 {
            play.frame(0, 0.7, &[0.2]);
        }
        assert!(play.events.is_empty(), "{:?}", play.events);
    }
    assert!(cars.counts.is_empty(), "{:?}", cars.counts);
    assert_eq!(sure.counts["count/person"], 1);
    sure.frame(0, 0.9, &[0.2]);
    assert_eq!(sure.said(), [(EventKind::New, vec![])]);
    let mut out = Outcome::default();
    zone.scene.clear(EndReason::CameraLost, SystemTime::UNIX_EPOCH, &mut out);
    assert!(out.events.is_empty(), "it was never told of");
}

/// Of each event, whether it says where the picture is.
fn urls(play: &Play) -> Vec<(EventKind, Option<&str>)> {
    play.events.iter().map(|event| (event.kind, event.snapshot_url.as_deref())).collect()
}

fn thumbnail() -> Option<Arc<Thumbnail>> {
    let blank = Pool::new(1, ThumbnailMetrics::default()).take()?;
    Some(Arc::new(blank.write(&SystemImage::solid(640, 640, [0; 3]), None, &mut Shrink::default())))
}

#[test]
fn the_best_view_of_an_event_is_handed_on_and_the_event_says_where_it_is() {
    let mut play = Play::new(EventRules { labels: vec!["person".to_owned()], ..all() });
    play.thumbnail = thumbnail();
    for score in [0.6, 0.8, 0.7, 0.7, 0.75] {
        play.frame(0, score, &[0.3]);
    }
    play.frame(1, 0.9, &[0.8]);
    play.frame(0, 0.99, &[0.3]);
    let handed = |play: &Play| play.snapshots.iter().map(|s| (s.track.clone(), s.score)).collect::<Vec<_>>();
    assert_eq!(
        handed(&play),
        [("gate-abc123-0".to_owned(), 0.8)],
        "not the first view, not a car's, no better one yet"
    );
    assert!((play.snapshots[0].rect[0] - 0.25).abs() < 0.01 && play.snapshots[0].label == "person");
    for _ in 0..15 {
        play.frame(0, 0.9, &[]);
    }
    assert_eq!(handed(&play)[1..], [("gate-abc123-0".to_owned(), 0.99)], "the end does not wait");
    let url = Some("/snapshots/gate/gate-abc123-0.jpg");
    assert_eq!(urls(&play), [(EventKind::New, url), (EventKind::End, url)]);
}

#[test]
fn where_no_picture_was_there_none_is_named() {
    let mut play = Play::new(all());
    for _ in 0..5 {
        play.frame(0, 0.9, &[0.3]);
    }
    assert_eq!((urls(&play), play.snapshots.len()), (vec![(EventKind::New, None)], 0));
    let mut closed = Play::new(all());
    (closed.thumbnail, closed.scene.rules.snapshot_urls) = (thumbnail(), false);
    for _ in 0..5 {
        closed.frame(0, 0.9, &[0.3]);
    }
    assert_eq!((urls(&closed), closed.snapshots.len()), (vec![(EventKind::New, None)], 1), "no HTTP server");
}

#[test]
fn a_box_that_trembles_on_a_zones_edge_makes_few_updates_and_the_last_state_is_told() {
    let mut play = Play::new(all());
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..200 {
        play.frame(0, 0.9, &[if random.bool() { 0.49 } else { 0.51 }]);
    }
    for _ in 0..3 {
        play.frame(0, 0.9, &[0.49]);
    }
    let frames: Vec<u64> = play.events.iter().map(|event| event.frame).collect();
    assert!(frames.windows(2).all(|pair| pair[1] - pair[0] >= 2), "{frames:?}");
    assert!(frames.len() > 20, "{frames:?}");
    let last = play.events.last().unwrap();
    assert_eq!((last.zones.len(), last.entered_zones.clone()), (0, vec!["right".to_owned()]));
    let mut short = Play::new(all());
    for x in [0.49, 0.49, 0.49, 0.51, 0.49, 0.49] {
        short.frame(0, 0.9, &[x]);
    }
    assert_eq!(short.said(), [(EventKind::New, vec![]), (EventKind::Update, vec![])]);
    assert_eq!(short.events[1].entered_zones, ["right"], "a short stay is told once it is over");
}

#[test]
fn who_paces_over_a_line_for_ever_is_counted_and_each_event_tells_of_the_latest_times() {
    let mut play = Play::new(EventRules { update_every: Duration::from_millis(200), ..all() });
    let line = Line {
        name: "door".to_owned(),
        points: vec![[0.5, 0.0], [0.5, 1.0]],
        anchor: crate::track::Anchor::Centre,
        margin: 0.0,
        labels: Vec::new(),
        min_score: 0.0,
        schedule: None,
    };
    let rules = Rules { lines: vec![line], ..play.scene.rules.clone() };
    play.scene.exchange(rules);
    for step in 0..700 {
        play.frame(0, 0.9, &[if step % 4 < 2 { 0.48 } else { 0.52 }]);
    }
    let told: Vec<usize> = play.events.iter().map(|event| event.crossings.len()).collect();
    assert_eq!((told.iter().max(), told.last()), (Some(&CROSSINGS_MAX), Some(&CROSSINGS_MAX)));
    let counted = play.counts["line/door/in/person"] + play.counts["line/door/out/person"];
    assert!((340..=349).contains(&counted), "{counted}");
    let last = |event: &Event| event.crossings.last().map(|crossing| crossing.at.clone());
    assert!(play.events.windows(2).skip(1).all(|pair| last(&pair[0]) < last(&pair[1])), "each has news");
}

#[test]
fn another_label_is_told_once() {
    let mut play = Play::new(all());
    for step in 0..12 {
        play.frame(u32::from(step >= 4), 0.9, &[0.2]);
    }
    let labels: Vec<(EventKind, &str)> = play.events.iter().map(|e| (e.kind, e.label.as_str())).collect();
    assert_eq!(labels, [(EventKind::New, "person"), (EventKind::Update, "car")]);
}

#[test]
fn standing_still_and_going_on_are_each_told_once() {
    let mut play = Play::new(all());
    for step in 0..60 {
        play.frame(0, 0.9, &[0.2 + if step < 40 { 0.0 } else { 0.01 * (step - 40) as f32 }]);
    }
    let still: Vec<bool> = play.events.iter().map(|event| event.stationary).collect();
    assert_eq!(still, [false, true, false]);
}

#[test]
fn the_first_picture_is_told_soon_and_a_better_one_after_a_while() {
    let mut play = Play::new(EventRules { update_every: Duration::from_secs(1), ..all() });
    for _ in 0..4 {
        play.frame(0, 0.9, &[0.3]);
    }
    play.thumbnail = thumbnail();
    for score in [0.6, 0.6, 0.85] {
        play.frame(0, score, &[0.3]);
    }
    let url = Some("/snapshots/gate/gate-abc123-0.jpg");
    assert_eq!(urls(&play), [(EventKind::New, None), (EventKind::Update, url)]);
    for _ in 0..20 {
        play.frame(0, 0.6, &[0.3]);
    }
    assert_eq!(urls(&play)[2..], [(EventKind::Update, url)]);
    assert_eq!(play.events[2].frame - play.events[1].frame, 10);
    assert_eq!(play.snapshots.iter().map(|s| s.score).collect::<Vec<_>>(), [0.6, 0.85]);
}

#[test]
fn a_camera_that_goes_away_ends_everything_once() {
    let mut play = Play::new(all());
    for _ in 0..5 {
        play.frame(1, 0.9, &[0.2, 0.8]);
    }
    for _ in 0..2 {
        let mut out = Outcome::default();
        play.scene.clear(EndReason::CameraLost, SystemTime::UNIX_EPOCH, &mut out);
        play.take(out);
    }
    let ends = |event: &&Event| event.end_reason == Some(EndReason::CameraLost);
    assert_eq!(play.events.iter().filter(ends).count(), 2);
    assert_eq!((play.counts["count/car"], play.counts["zone/right/count/car"]), (0, 0));
    for _ in 0..5 {
        play.frame(1, 0.9, &[0.2]);
    }
    assert_eq!(play.events.last().unwrap().id, "gate-abc123-2", "ids are never used again");
}

#[test]
fn other_rules_keep_tracks_and_what_has_the_same_name() {
    let mut play = Play::new(all());
    for _ in 0..10 {
        play.frame(0, 0.9, &[0.8]);
    }
    let zone = play.scene.rules.zones[0].clone();
    let left = Polygon::new(vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]);
    let added = Zone { name: "left".to_owned(), polygon: left.clone(), ..zone.clone() };
    let rules = Rules { zones: vec![added, zone.clone()], ..play.scene.rules.clone() };
    play.scene.exchange(rules.clone());
    let before = play.events.len();
    for step in 0..40 {
        play.frame(0, 0.9, &[0.8 - 0.015 * step as f32]);
    }
    let ids: Vec<&str> = play.events.iter().map(|event| event.id.as_str()).collect();
    assert!(ids.iter().all(|id| *id == "gate-abc123-0"), "{ids:?}");
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let seen: Vec<_> = play.events[before..].iter().map(|event| event.zones.clone()).collect();
    assert_eq!(seen, [named(&["left"])], "it stayed in the zone that stayed, and went over");
    // The zone that it was in is no more.
    play.scene.exchange(Rules { zones: vec![zone], ..rules.clone() });
    play.frame(0, 0.9, &[0.2]);
    assert_eq!(play.events.last().unwrap().entered_zones, named(&["right"]));
    assert_eq!(play.events.last().unwrap().zones, named(&[]));
    // Nothing is an event any more: the one there is ends as such, and no other begins.
    play.scene.exchange(Rules { events: None, zones: Vec::new(), ..rules });
    for _ in 0..20 {
        play.frame(0, 0.9, &[0.6]);
    }
    assert_eq!(play.counts["count/person"], 0);
    let kinds: Vec<EventKind> = play.events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::New).count(), 1, "{kinds:?}");
    assert_eq!(kinds.last(), Some(&EventKind::End));
}

/// Frame by frame beside a scene without a limit, which says what was due.
#[test]
fn noise_makes_no_more_events_than_it_may_and_all_is_accounted_for() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let new_hz_max = [0.3, 1.0, 5.0, 20.0][seed as usize % 4];
        let mut limited = Play::tracking(EventRules { new_hz_max, ..all() }, 1);
        let mut free = Play::tracking(EventRules { new_hz_max: 1e9, ..all() }, 1);
        let mut news = Vec::new();
        for frame in 0..600 {
            // Half a minute of noise, and half a minute of less.
            let most = if frame < 300 { 10 } else { 2 };
            let boxes: Vec<f32> = (0..random.usize(..most)).map(|_| random.f32()).collect();
            let before = limited.events.len();
            for play in [&mut limited, &mut free] {
                play.frame(0, 0.9, &boxes);
            }
            assert_eq!(limited.counts, free.counts, "seed {seed}, frame {frame}");
            let begun = limited.events[before..].iter().filter(|event| event.kind == EventKind::New);
            news.extend(begun.map(|_| STEP * frame));
        }
        for play in [&mut limited, &mut free] {
            let mut out = Outcome::default();
            play.scene.clear(EndReason::Shutdown, SystemTime::UNIX_EPOCH, &mut out);
            play.take(out);
        }
        let ids = |play: &Play, kind: EventKind| {
            let ids = play.events.iter().filter(|event| event.kind == kind).map(|event| event.id.clone());
            let mut ids: Vec<String> = ids.collect();
            ids.sort_unstable();
            ids
        };
        let (due, told) = (ids(&free, EventKind::New), ids(&limited, EventKind::New));
        assert_eq!((free.suppressed, free.notices), (0, 0));
        assert_eq!(told, ids(&limited, EventKind::End), "each new has its end");
        assert_eq!(told.len() as u64 + limited.suppressed, due.len() as u64, "seed {seed}");
        assert_eq!(limited.notices > 0, limited.suppressed > 0);
        for (first, from) in news.iter().enumerate() {
            for (last, to) in news.iter().enumerate().skip(first) {
                let most = (new_hz_max * 10.0).max(1.0) + new_hz_max * (*to - *from).as_secs_f64();
                assert!(
                    (last - first + 1) as f64 <= most + 1e-6,
                    "seed {seed}: {} in {:?}",
                    last - first + 1,
                    *to - *from
                );
            }
        }
    }
}

#[test]
fn a_track_that_goes_on_has_its_turn_among_noise() {
    let mut play = Play::tracking(EventRules { new_hz_max: 0.1, ..all() }, 1);
    let mut random = fastrand::Rng::with_seed(7);
    // The bucket's only token goes to the first; then one comes each 10 s.
    for step in 0..150 {
        let mut seen = vec![if step < 1 { 0.9 } else { 0.2 }];
        seen.extend((step > 10).then(|| 0.4 + 0.6 * random.f32()));
        play.frame(0, 0.9, &seen);
    }
    let news: Vec<&Event> = play.events.iter().filter(|event| event.kind == EventKind::New).collect();
    let ids: Vec<&str> = news.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, ["gate-abc123-0", "gate-abc123-1"]);
    assert_eq!((news[1].frame, news[1].start.as_str()), (100, "1970-01-01T00:00:00.100Z"));
    assert!(play.suppressed > 0 && play.notices == 1, "{} {}", play.suppressed, play.notices);
}
