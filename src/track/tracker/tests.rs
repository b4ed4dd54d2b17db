use super::*;

const SIZE: (u32, u32) = (1000, 500);

fn tracker() -> Tracker {
    Tracker::new(&TrackerSettings::default())
}

/// 50 pixels wide and 100 high, its left upper corner here; what `class` 0 says of it.
fn person(x: f32, y: f32) -> Detection {
    Detection { rect: [x, y, x + 0.05, y + 0.2], score: 0.8, class: 0 }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn a_track_is_confirmed_after_hits_and_time() {
    let mut tracker = tracker();
    for (at, confirmed) in [(0, false), (40, false), (80, false), (280, false), (320, true)] {
        let step = tracker.update(ms(at), SIZE, &[person(0.5, 0.5)]);
        assert_eq!(step.of_detection, [Some(0)]);
        assert_eq!(step.tracks[0].confirmed, confirmed, "at {at} ms");
    }
    let step = tracker.update(ms(360), SIZE, &[]);
    let track = &step.tracks[0];
    assert!(track.confirmed && !track.seen);
    assert_eq!((track.first_seen, track.last_seen, track.hits), (ms(0), ms(320), 5));
}

#[test]
fn what_flickers_up_once_ends_unconfirmed() {
    let mut tracker = tracker();
    tracker.update(ms(0), SIZE, &[person(0.5, 0.5)]);
    assert!(tracker.update(ms(100), SIZE, &[]).ended.is_empty());
    assert!(tracker.update(ms(200), SIZE, &[]).ended.is_empty());
    let ended = &tracker.update(ms(300), SIZE, &[]).ended;
    assert!(ended.len() == 1 && !ended[0].track.confirmed);
    assert!(tracker.update(ms(400), SIZE, &[]).tracks.is_empty());
}

#[test]
fn scores_decide_who_begins_and_who_only_goes_on() {
    let mut tracker = tracker();
    let scored = |score| Detection { score, ..person(0.5, 0.5) };
    assert_eq!(tracker.update(ms(0), SIZE, &[scored(0.49)]).of_detection, [None]);
    for at in [100, 200, 300, 400] {
        assert_eq!(tracker.update(ms(at), SIZE, &[scored(0.5)]).of_detection, [Some(0)]);
    }
    assert_eq!(tracker.update(ms(500), SIZE, &[scored(0.1)]).of_detection, [Some(0)]);
    assert_eq!(tracker.update(ms(600), SIZE, &[scored(0.09)]).of_detection, [None]);
    assert_eq!(tracker.update(ms(700), SIZE, &[scored(f32::NAN)]).of_detection, [None]);
    let track = &tracker.update(ms(800), SIZE, &[scored(0.45)]).tracks[0];
    assert_eq!((track.score, track.top_score), (0.45, 0.5));
}

#[test]
fn the_class_is_that_with_the_greatest_sum_of_scores() {
    let mut tracker = tracker();
    let said = |class, score| Detection { class, score, ..person(0.5, 0.5) };
    // A box of too little is none, and what is neither seen nor confirmed is not told of.
    let seen = [
        (0, 0.8, Some(0)),
        (1, 0.7, Some(0)),
        (1, 0.2, Some(1)),
        (0, 0.05, None),
        (2, 0.85, Some(1)),
        (0, 0.2, Some(0)),
        (1, 0.45, Some(1)),
    ];
    for (n, (class, score, voted)) in seen.into_iter().enumerate() {
        let step = tracker.update(ms(100 * n as u64), SIZE, &[said(class, score)]);
        let classes: Vec<u32> = step.tracks.iter().map(|track| track.class).collect();
        assert_eq!(classes, Vec::from_iter(voted), "after {n} more, a class {class} of {score}");
    }
}

/// A box trembles by a few hundredths of its size, is wrong once, and goes away in the end.
#[test]
fn what_has_not_moved_for_long_is_stationary_until_it_goes() {
    let after = Duration::from_secs(3);
    let mut tracker = Tracker::new(&TrackerSettings { stationary_after: after, ..TrackerSettings::default() });
    let mut see = |at: u64, x: f32| tracker.update(ms(at), SIZE, &[person(x, 0.5)]).tracks[0].stationary;
    let trembles = |at: u64| 0.5 + if at.is_multiple_of(200) { 0.002 } else { 0.0 };
    for at in (0..5_000).step_by(100) {
        assert_eq!(see(at, trembles(at)), at >= 3_000, "at {at} ms");
    }
    assert!(see(5_000, 0.52), "one box may be wrong");
    assert!((5_100..6_000).step_by(100).all(|at| see(at, trembles(at))));
    let gone: Vec<bool> = (60..80).map(|n| see(n * 100, 0.5 + 0.01 * (n - 59) as f32)).collect();
    assert!(gone[0] && !gone[19], "{gone:?}");
    assert_eq!(gone.windows(2).filter(|pair| pair[0] != pair[1]).count(), 1, "{gone:?}");
}

#[test]
fn a_confirmed_track_is_remembered_for_lost_after_and_no_longer() {
    for (unseen, same) in [(1_900, true), (2_000, false)] {
        let mut tracker = tracker();
        for at in (0..=500).step_by(100) {
            tracker.update(ms(at), SIZE, &[person(0.5, 0.5)]);
        }
        for at in (600..=500 + unseen).step_by(100) {
            let step = tracker.update(ms(at), SIZE, &[]);
            let ended: Vec<(u64, Exit)> = step.ended.iter().map(|ended| (ended.track.id, ended.how)).collect();
            assert_eq!(ended, if at == 2_500 { vec![(0, Exit::Lost)] } else { vec![] }, "at {at} ms");
        }
        let back = tracker.update(ms(600 + unseen), SIZE, &[person(0.5, 0.5)]);
        assert_eq!(back.of_detection, [Some(if same { 0 } else { 1 })], "after {unseen} ms without a box");
    }
}
