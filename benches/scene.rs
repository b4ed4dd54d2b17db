//! Time of what follows tracking, a frame: `cargo bench --bench scene`. 20 tracks that walk about among 5 zones of 8 corners
//! (one by overlap, one with hours), 2 lines, 3 filter rules and an ignored area.

use std::f32::consts::TAU;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::tz::TimeZone;
use watchpost::track::filter::{Filter, Ignored, Rule, Sieve};
use watchpost::track::line::{Line, LineWatch};
use watchpost::track::schedule::{Schedule, Window};
use watchpost::track::zone::{Inside, Zone, ZoneWatch};
use watchpost::track::{Anchor, Polygon};

const TRACKS: u64 = 20;
const FRAMES: u64 = 20_000;
const CALLS: u64 = 100;

fn main() {
    let labels: Vec<String> = (0..80).map(|n| format!("class{n}")).collect();
    let mut zones = ZoneWatch::new(&zones(), &labels);
    let mut lines = LineWatch::new(&[line(0.3), line(0.7)], &labels);
    let sieve = Sieve::new(&filter(), &labels);
    let (mut best, mut changes) = (Duration::MAX, 0);
    for round in 0..FRAMES / CALLS {
        let start = Instant::now();
        for frame in round * CALLS..(round + 1) * CALLS {
            let at = Duration::from_millis(frame * 40);
            for track in 0..TRACKS {
                let turn = TAU * (frame as f32 / 300.0 + track as f32 / TRACKS as f32);
                let (x, y) = (0.5 + 0.4 * turn.cos(), 0.6 + 0.35 * turn.sin());
                let (rect, class) = ([x - 0.05, y - 0.2, x + 0.05, y], (track % 3) as u32);
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
