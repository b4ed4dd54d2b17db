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
