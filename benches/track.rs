//! Time of the tracker, a frame: `cargo bench --bench track`. 20 people who walk about in circles and cross each other, 25
//! frames a second; and 100 of them.

use std::f32::consts::TAU;
use std::hint::black_box;
use std::time::{Duration, Instant};

use watchpost::track::{Tracker, TrackerSettings};
use watchpost::yolo::Detection;

const CALLS: u64 = 100;

fn main() {
    for (people, frames) in [(20, 20_000), (100, 2_000)] {
        let mut tracker = Tracker::new(&TrackerSettings::default());
        let (mut best, mut all, mut seen) = (Duration::MAX, Duration::ZERO, 0);
        let mut detections = Vec::new();
        for round in 0..frames / CALLS {
            let mut spent = Duration::ZERO;
            for frame in round * CALLS..(round + 1) * CALLS {
                detections.clear();
                detections.extend((0..people).map(|n| person(n, people, frame)));
                let start = Instant::now();
                seen += tracker.update(Duration::from_millis(frame * 40), (1920, 1080), &detections).tracks.len();
                spent += start.elapsed();
            }
            best = best.min(spent / CALLS as u32);
            all += spent;
        }
        let mean = all / frames as u32;
        println!("{people} tracks: {mean:?} a frame, {best:?} in the best 4 s, {} seen", black_box(seen));
    }
}

/// On one of five circles, every other person the other way round.
fn person(n: u64, people: u64, frame: u64) -> Detection {
    let way = if n.is_multiple_of(2) { 1.0 } else { -1.0 };
    let turn = TAU * (way * frame as f32 / 600.0 + n as f32 / people as f32);
    let radius = 0.1 + 0.06 * (n % 5) as f32;
    let (x, y) = (0.5 + radius * turn.cos(), 0.5 + radius * turn.sin());
    let score = if (n + frame).is_multiple_of(7) { 0.3 } else { 0.8 };
    Detection { rect: [x - 0.02, y - 0.06, x + 0.02, y + 0.06], score, class: 0 }
}
