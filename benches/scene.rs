//! Time of what follows tracking, a frame, and of a scene as a whole, tracker and events too: `cargo bench --bench scene`.
//! 20 tracks that walk about among 5 zones of 8 corners (one by overlap, one with hours), 2 lines, 3 filter rules and an
//! ignored area; 25 frames a second, five of them with a thumbnail.

use std::f32::consts::TAU;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::tz::TimeZone;
use watchpost::config::EventRules;
use watchpost::event::{EndReason, Model};
use watchpost::frame::{CameraId, Captured, ClockSource, FrameInfo, SystemImage};
use watchpost::letterbox::Rect;
use watchpost::metrics::ThumbnailMetrics;
use watchpost::scene::{Outcome, Rules, Scene, Sight, Speaker};
use watchpost::thumbnail::{Pool, Shrink};
use watchpost::track::filter::{Filter, Ignored, Rule, Sieve};
use watchpost::track::line::{Line, LineWatch};
use watchpost::track::schedule::{Schedule, Window};
use watchpost::track::zone::{Inside, Zone, ZoneWatch};
use watchpost::track::{Anchor, Polygon, TrackerSettings};
use watchpost::yolo::Detection;

const TRACKS: u64 = 20;
const FRAMES: u64 = 20_000;
const CALLS: u64 = 100;
/// A track lives for so many rounds, a minute: its events tell all that it has crossed, which is more with every round.
const LIFE: u64 = 15;

fn main() {
    let labels: Vec<String> = (0..80).map(|n| format!("class{n}")).collect();
    after_tracking(&labels);
    whole(labels);
}

/// Where a track is in a frame: it goes round in 12 s. Its box, 0..1 of the source, and its class.
fn place(track: u64, frame: u64) -> (Rect, u32) {
    let turn = TAU * (frame as f32 / 300.0 + track as f32 / TRACKS as f32);
    let (x, y) = (0.5 + 0.4 * turn.cos(), 0.6 + 0.35 * turn.sin());
    ([x - 0.05, y - 0.2, x + 0.05, y], (track % 3) as u32)
}

fn after_tracking(labels: &[String]) {
    let mut zones = ZoneWatch::new(&zones(), labels);
    let mut lines = LineWatch::new(&[line(0.3), line(0.7)], labels);
    let sieve = Sieve::new(&filter(), labels);
    let (mut best, mut changes) = (Duration::MAX, 0);
    for round in 0..FRAMES / CALLS {
        let start = Instant::now();
        for frame in round * CALLS..(round + 1) * CALLS {
            let at = Duration::from_millis(frame * 40);
            for track in 0..TRACKS {
                let (rect, class) = place(track, frame);
                if sieve.keeps(rect, class, 0.8, (1920, 1080)) {
                    let wall = SystemTime::UNIX_EPOCH + at;
                    let changed = zones.update(track, at, wall, rect, class, 0.8);
                    changes += changed.entered.len() + changed.left.len();
                    changes += lines.update(track, wall, rect, class, 0.8).len();
                }
            }
        }
        best = best.min(start.elapsed() / CALLS as u32);
    }
    println!("{TRACKS} tracks, 5 zones, 2 lines, 4 filters: {best:?} a frame, {} changes", black_box(changes));
}

fn whole(labels: Vec<String>) {
    let (node, boot, camera) = ("box".to_owned(), "abc123".to_owned(), CameraId::new("gate"));
    let speaker = Speaker { node, boot, camera: camera.clone(), labels: Arc::new(labels) };
    let (model, now) = (Arc::new(Model::default()), Instant::now());
    let image = SystemImage::solid(640, 360, [0; 3]);
    let blank = Pool::new(1, ThumbnailMetrics::default()).take().expect("a thumbnail");
    let thumbnail = Arc::new(blank.write(&image, None, &mut Shrink::default()));
    let mut scene = Scene::new(speaker, rules());
    let mut out = Outcome::default();
    let (mut rounds, mut events, mut found) = (Vec::new(), 0, Vec::new());
    for round in 0..FRAMES / CALLS {
        if round.is_multiple_of(LIFE) {
            scene.clear(EndReason::CameraLost, SystemTime::UNIX_EPOCH, &mut out);
        }
        let mut spent = Duration::ZERO;
        for seq in round * CALLS..(round + 1) * CALLS {
            let at = Duration::from_millis(seq * 40);
            let wall = SystemTime::UNIX_EPOCH + at;
            let captured = Captured { wall, clock: ClockSource::HostArrival, err_ms: 0 };
            let (camera, size) = (camera.clone(), (1920, 1080));
            let (connection, pts_ns, gate) = (0, None, None);
            let frame =
                FrameInfo { camera, seq, connection, arrived: now, decoded: now, captured, pts_ns, size, gate };
            found.clear();
            found.extend((0..TRACKS).map(|track| {
                let (rect, class) = place(track, seq);
                Detection { rect, score: 0.8, class }
            }));
            let thumbnail = Some(&thumbnail).filter(|_| seq.is_multiple_of(5));
            let sight = Sight { at, frame: &frame, model: &model, now: wall, thumbnail };
            let start = Instant::now();
            scene.sift(size, &mut found);
            scene.frame(&sight, &found, &mut out);
            spent += start.elapsed();
            events += out.events.len();
            out.events.clear();
            out.counts.clear();
            out.snapshots.clear();
        }
        rounds.push(spent / CALLS as u32);
    }
    rounds.sort_unstable();
    let (best, median) = (rounds[0], rounds[rounds.len() / 2]);
    println!("the whole scene: {median:?} a frame in the median of 4 s, {best:?} in the best, {events} events");
}

fn rules() -> Rules {
    let (labels, update_every) = (Vec::new(), Duration::from_secs(5));
    Rules {
        tracking: TrackerSettings::default(),
        filter: filter(),
        zones: zones(),
        lines: vec![line(0.3), line(0.7)],
        events: Some(EventRules { labels, min_score: 0.0, zones: Vec::new(), update_every, new_hz_max: 5.0 }),
        snapshots: true,
        snapshot_urls: true,
    }
}

fn octagon(centre: [f32; 2], radius: f32) -> Polygon {
    let corner = |n: u8| {
        let turn = TAU * f32::from(n) / 8.0;
        [(centre[0] + radius * turn.cos()).clamp(0.0, 1.0), (centre[1] + radius * turn.sin()).clamp(0.0, 1.0)]
    };
    Polygon::new((0..8).map(corner).collect())
}

fn zones() -> Vec<Zone> {
    let night = Schedule::new(TimeZone::get("Europe/Berlin").unwrap(), vec![Window::parse("20:00-08:00").unwrap()]);
    let zone = |n: u8| Zone {
        name: format!("zone{n}"),
        polygon: octagon([0.1 + 0.2 * f32::from(n), 0.6], 0.3),
        inside: if n == 2 { Inside::Overlap(0.5) } else { Inside::At(Anchor::Foot) },
        labels: if n == 1 { vec!["class0".to_owned()] } else { Vec::new() },
        min_score: 0.5,
        enter_after: Duration::from_millis(300),
        leave_after: Duration::from_secs(1),
        schedule: (n == 3).then(|| Arc::new(night.clone())),
    };
    (0..5).map(zone).collect()
}

fn line(y: f32) -> Line {
    Line {
        name: "line".to_owned(),
        points: vec![[0.1, y], [0.5, y + 0.1], [0.9, y]],
        anchor: Anchor::Foot,
        margin: 0.01,
        labels: Vec::new(),
        min_score: 0.5,
        schedule: None,
    }
}

fn filter() -> Filter {
    let rule = |label: &str| Rule {
        labels: vec![label.to_owned()],
        min_score: 0.5,
        area: [0.001, 0.5],
        height: [0.05, 0.9],
        ratio: [0.0, 10.0],
    };
    let ignored = Ignored { polygon: octagon([0.5, 0.1], 0.1), anchor: Anchor::Foot, labels: Vec::new() };
    Filter { rules: ["class0", "class1", "class2"].map(rule).to_vec(), ignored: vec![ignored] }
}
