//! Tracks that enter, stay, tremble and leave.

use jiff::tz::TimeZone;

use super::*;
use crate::track::schedule::Window;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn left_half() -> Zone {
    Zone {
        name: "left".to_owned(),
        polygon: Polygon::new(vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]),
        inside: Inside::At(Anchor::Foot),
        labels: Vec::new(),
        min_score: 0.0,
        enter_after: ms(200),
        leave_after: ms(500),
        schedule: None,
    }
}

fn labels() -> Vec<String> {
    ["person", "car"].map(str::to_owned).to_vec()
}

fn at_x(x: f32) -> Rect {
    [x - 0.05, 0.3, x + 0.05, 0.6]
}

/// What track 1 (a person of score 0.8) enters and leaves while it is seen at these times and places.
fn walk(watch: &mut ZoneWatch, seen: &[(u64, f32)]) -> Vec<(u64, Vec<usize>, Vec<Stay>)> {
    let mut changes = Vec::new();
    for (at, x) in seen {
        let now = watch.update(1, ms(*at), SystemTime::UNIX_EPOCH, at_x(*x), 0, 0.8);
        if *now != Changes::default() {
            changes.push((*at, now.entered.clone(), now.left.clone()));
        }
    }
    changes
}

#[test]
fn a_track_enters_stays_and_leaves_each_after_its_time() {
    let mut watch = ZoneWatch::new(&[left_half()], &labels());
    let changes = walk(&mut watch, &[(0, 0.7), (100, 0.4), (250, 0.4)]);
    assert!(changes.is_empty() && watch.current(1).is_empty(), "{changes:?}");
    assert_eq!(walk(&mut watch, &[(300, 0.4)]), [(300, vec![0], vec![])]);
    assert_eq!((watch.current(1), watch.dwell(1, 0)), (&[0][..], ms(200)));
    assert_eq!((watch.count(0, 0), watch.count(0, 1)), (1, 0));
    assert!(walk(&mut watch, &[(2000, 0.3), (2100, 0.7), (2500, 0.7)]).is_empty());
    let dwell = ms(1900);
    assert_eq!(walk(&mut watch, &[(2600, 0.7)]), [(2600, vec![], vec![Stay { zone: 0, dwell }])]);
    assert_eq!((watch.current(1), watch.dwell(1, 0)), (&[][..], dwell), "the last stay");
    assert_eq!(watch.count(0, 0), 0);
}

#[test]
fn a_box_that_trembles_on_the_edge_changes_nothing() {
    let trembling = |from: u64| (0..50).map(move |n| (from + n * 100, if n % 2 == 0 { 0.49 } else { 0.51 }));
    let mut watch = ZoneWatch::new(&[left_half()], &labels());
    assert!(walk(&mut watch, &trembling(0).collect::<Vec<_>>()).is_empty(), "never counted in");
    assert_eq!(walk(&mut watch, &[(6000, 0.2), (6500, 0.2)]).len(), 1);
    assert!(walk(&mut watch, &trembling(7000).collect::<Vec<_>>()).is_empty(), "never counted out");
}

#[test]
fn without_hysteresis_every_sighting_counts() {
    let zone = Zone { enter_after: Duration::ZERO, leave_after: Duration::ZERO, ..left_half() };
    let mut watch = ZoneWatch::new(&[zone], &labels());
    assert_eq!(walk(&mut watch, &[(0, 0.4), (40, 0.6), (80, 0.4)]).len(), 3);
}

#[test]
fn labels_and_score_rule_who_enters_and_not_who_stays() {
    let zone = Zone { labels: vec!["car".to_owned()], min_score: 0.5, ..left_half() };
    let mut watch = ZoneWatch::new(&[zone], &labels());
    let mut see = |track, at, class, score| {
        let wall = SystemTime::UNIX_EPOCH;
        watch.update(track, ms(at), wall, at_x(0.2), class, score).entered.len()
    };
    for at in [0, 300, 600] {
        assert_eq!(see(1, at, 0, 0.9), 0, "a person");
        assert_eq!(see(2, at, 1, 0.49), 0, "a doubtful car");
        assert_eq!(see(3, at, 7, 0.9), 0, "no class of the model");
    }
    assert_eq!((see(4, 0, 1, 0.5), see(4, 300, 1, 0.5)), (0, 1));
    for at in [1000, 2000, 3000] {
        see(4, at, 1, 0.2);
    }
    assert_eq!(watch.current(4), [0]);
}

#[test]
fn foot_centre_and_overlap() {
    let lower = Polygon::new(vec![[0.0, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0]]);
    let zone = |inside| Zone { polygon: lower.clone(), inside, enter_after: Duration::ZERO, ..left_half() };
    let zones = [
        zone(Inside::At(Anchor::Foot)),
        zone(Inside::At(Anchor::Centre)),
        zone(Inside::Overlap(0.25)),
        zone(Inside::Overlap(0.75)),
    ];
    let mut watch = ZoneWatch::new(&zones, &labels());
    let wall = SystemTime::UNIX_EPOCH;
    // Its lower 30 % stand in the zone, then its lower 90 %.
    watch.update(1, ms(0), wall, [0.4, 0.15, 0.6, 0.65], 0, 0.9);
    assert_eq!(watch.current(1), [0, 2]);
    watch.update(1, ms(100), wall, [0.4, 0.45, 0.6, 0.95], 0, 0.9);
    assert_eq!(watch.current(1), [0, 1, 2, 3]);
}

#[test]
fn outside_its_hours_everything_is_outside() {
    let schedule = Schedule::new(TimeZone::UTC, vec![Window::parse("08:00-09:00").unwrap()]);
    let zone = Zone { schedule: Some(Arc::new(schedule)), enter_after: Duration::ZERO, ..left_half() };
    let mut watch = ZoneWatch::new(&[zone], &labels());
    let mut see = |minute: u64| {
        let at = Duration::from_secs(minute * 60);
        watch.update(1, at, SystemTime::UNIX_EPOCH + at, at_x(0.2), 0, 0.9).clone()
    };
    assert_eq!(see(7 * 60 + 59), Changes::default());
    assert_eq!(see(8 * 60).entered, [0]);
    assert_eq!(see(8 * 60 + 59), Changes::default());
    assert_eq!(see(9 * 60), Changes::default(), "it has just been seen outside");
    assert_eq!(see(9 * 60 + 1).left, [Stay { zone: 0, dwell: Duration::from_secs(59 * 60) }]);
}

#[test]
fn a_forgotten_track_has_left() {
    let mut watch = ZoneWatch::new(&[left_half(), left_half()], &labels());
    walk(&mut watch, &[(0, 0.4), (400, 0.4)]);
    let dwell = ms(400);
    assert_eq!(watch.forget(1), [Stay { zone: 0, dwell }, Stay { zone: 1, dwell }]);
    assert!(watch.forget(1).is_empty() && watch.current(1).is_empty());
    assert_eq!((watch.dwell(1, 0), watch.dwell(1, 9)), (Duration::ZERO, Duration::ZERO));
    assert!(watch.tracks.is_empty());
}

#[test]
fn a_track_that_is_not_seen_stays_where_it_was() {
    let mut watch = ZoneWatch::new(&[left_half()], &labels());
    walk(&mut watch, &[(0, 0.4), (400, 0.4)]);
    assert!(walk(&mut watch, &[(60_000, 0.6)]).is_empty(), "outside for no time yet");
    assert_eq!(watch.dwell(1, 0), ms(400));
}
