//! Ways over, along and around lines.

use jiff::tz::TimeZone;

use super::*;
use crate::track::schedule::Window;

/// From the picture's left to its right at half height, but for a tenth at both ends.
fn gate() -> Line {
    Line {
        name: "gate".to_owned(),
        points: vec![[0.1, 0.5], [0.9, 0.5]],
        anchor: Anchor::Foot,
        margin: 0.02,
        labels: Vec::new(),
        min_score: 0.0,
        schedule: None,
    }
}

fn labels() -> Vec<String> {
    ["person", "car"].map(str::to_owned).to_vec()
}

fn foot_at(point: [f32; 2]) -> Rect {
    [point[0] - 0.05, point[1] - 0.2, point[0] + 0.05, point[1]]
}

/// The directions in which a person crosses the line on this way.
fn walk(line: &Line, way: &[[f32; 2]]) -> Vec<Direction> {
    let mut watch = LineWatch::new(std::slice::from_ref(line), &labels());
    let mut crossings = Vec::new();
    for point in way {
        let now = watch.update(1, SystemTime::UNIX_EPOCH, foot_at(*point), 0, 0.9);
        crossings.extend(now.iter().map(|crossing| crossing.direction));
    }
    let count = |wanted| crossings.iter().filter(|direction| **direction == wanted).count() as u64;
    assert_eq!(watch.count(0, 0), Count { r#in: count(Direction::In), out: count(Direction::Out) });
    crossings
}

#[test]
fn from_left_to_right_of_the_direction_is_in() {
    use Direction::{In, Out};
    let (above, below) = ([0.5, 0.3], [0.5, 0.7]);
    assert_eq!(walk(&gate(), &[above, below]), [In]);
    assert_eq!(walk(&gate(), &[below, above]), [Out]);
    assert_eq!(walk(&gate(), &[above, below, above]), [In, Out]);
    let back = Line { points: vec![[0.9, 0.5], [0.1, 0.5]], ..gate() };
    assert_eq!(walk(&back, &[above, below]), [Out]);
    let up = Line { points: vec![[0.5, 0.9], [0.5, 0.1]], ..gate() };
    assert_eq!(walk(&up, &[[0.3, 0.5], [0.7, 0.5]]), [In], "looking up, its left is the picture's left");
}

#[test]
fn trembling_on_the_line_counts_once_and_turning_back_not_at_all() {
    let tremble = |n: usize| [0.5, if n.is_multiple_of(2) { 0.495 } else { 0.505 }];
    let mut way = vec![[0.5, 0.3]];
    way.extend((0..100).map(tremble));
    assert!(walk(&gate(), &way).is_empty());
    way.push([0.5, 0.3]);
    assert!(walk(&gate(), &way).is_empty(), "it turned back");
    way.pop();
    way.push([0.5, 0.6]);
    assert_eq!(walk(&gate(), &way), [Direction::In]);
}

#[test]
fn who_appears_on_the_line_has_not_crossed_it() {
    assert!(walk(&gate(), &[[0.5, 0.495], [0.5, 0.505], [0.5, 0.6]]).is_empty());
    assert_eq!(walk(&gate(), &[[0.5, 0.495], [0.5, 0.6], [0.5, 0.3]]), [Direction::Out]);
}

#[test]
fn exactly_on_the_line_is_one_side_of_it() {
    let bare = Line { margin: 0.0, ..gate() };
    assert_eq!(walk(&bare, &[[0.5, 0.3], [0.5, 0.5], [0.5, 0.7]]), [Direction::In]);
    assert_eq!(walk(&bare, &[[0.5, 0.7], [0.5, 0.5], [0.5, 0.3]]), [Direction::Out]);
    assert!(walk(&bare, &[[0.5, 0.7], [0.5, 0.5], [0.5, 0.7]]).is_empty());
}

#[test]
fn around_the_end_and_along_the_line_is_no_crossing() {
    assert!(walk(&gate(), &[[0.05, 0.3], [0.05, 0.7], [0.5, 0.7]]).is_empty());
    assert!(walk(&gate(), &[[0.2, 0.45], [0.5, 0.45], [0.8, 0.45]]).is_empty());
}

#[test]
fn a_way_over_a_corner_crosses_once_and_over_both_arms_not_at_all() {
    let bent = Line { points: vec![[0.1, 0.7], [0.5, 0.4], [0.9, 0.7]], ..gate() };
    assert_eq!(walk(&bent, &[[0.5, 0.2], [0.5, 0.8]]), [Direction::In], "over the corner");
    assert_eq!(walk(&bent, &[[0.3, 0.3], [0.3, 0.8]]), [Direction::In]);
    assert!(walk(&bent, &[[0.1, 0.5], [0.9, 0.5]]).is_empty(), "in by one arm, out by the other");
}

#[test]
fn labels_score_and_hours_rule_who_counts() {
    let schedule = Schedule::new(TimeZone::UTC, vec![Window::parse("08:00-09:00").unwrap()]);
    let line =
        Line { labels: vec!["car".to_owned()], min_score: 0.5, schedule: Some(Arc::new(schedule)), ..gate() };
    let mut watch = LineWatch::new(&[line], &labels());
    for (track, (hour, class, score, counted)) in
        [(8, 1, 0.5, 1), (8, 0, 0.9, 0), (8, 1, 0.4, 0), (9, 1, 0.9, 0), (8, 7, 0.9, 0)].into_iter().enumerate()
    {
        let wall = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(hour * 3600);
        let mut see = |point| watch.update(track as u64, wall, foot_at(point), class, score).len();
        assert_eq!((see([0.5, 0.3]), see([0.5, 0.7])), (0, counted), "{hour} {class} {score}");
    }
    assert_eq!(watch.count(0, 1), Count { r#in: 1, out: 0 });
    assert_eq!((watch.count(0, 7), watch.count(3, 0)), (Count::default(), Count::default()));
}

#[test]
fn tracks_do_not_share_ways_and_a_forgotten_one_begins_anew() {
    let mut watch = LineWatch::new(&[gate()], &labels());
    let mut see = |track, y| watch.update(track, SystemTime::UNIX_EPOCH, foot_at([0.5, y]), 0, 0.9).len();
    assert_eq!((see(1, 0.3), see(2, 0.7), see(1, 0.35), see(2, 0.65)), (0, 0, 0, 0));
    watch.forget(1);
    let mut see = |track, y| watch.update(track, SystemTime::UNIX_EPOCH, foot_at([0.5, y]), 0, 0.9).len();
    assert_eq!((see(1, 0.7), see(2, 0.3)), (0, 1));
    watch.forget(1);
    watch.forget(2);
    assert!(watch.tracks.is_empty());
}

#[test]
fn a_point_that_is_no_number_is_passed_over() {
    assert_eq!(walk(&gate(), &[[0.5, 0.3], [f32::NAN, 0.5], [0.5, 0.7]]), [Direction::In]);
}
