//! Tracks scenes whose truth is known and writes both in the form of MOTChallenge, for `benches/tracking/score`:
//! `cargo bench --bench tracking -- FOLDER`.
//!
//! A track counts once it has been confirmed, and then from its first box on: so do events, whose `first_seen` is told with
//! them.

mod scenes;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use scenes::{SIZE, Scene};
use watchpost::letterbox::Rect;
use watchpost::track::{Tracker, TrackerSettings};

const RATES: [f32; 5] = [2.0, 5.0, 10.0, 25.0, 30.0];

fn main() {
    // `cargo bench` gives `--bench` too.
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let folder = folder.expect("give the folder to write into");
    for scene in scenes::all() {
        for rate in RATES {
            let (truth, result) = run(&scene, rate);
            let name = format!("{}-{rate}", scene.name);
            for (kind, text) in [("truth", truth), ("result", result)] {
                std::fs::write(Path::new(&folder).join(format!("{name}.{kind}.txt")), text).unwrap();
            }
        }
    }
}

fn run(scene: &Scene, rate: f32) -> (String, String) {
    let mut tracker = Tracker::new(&TrackerSettings::default());
    let (mut truth, mut boxes, mut confirmed) = (String::new(), Vec::new(), BTreeSet::new());
    for (n, shot) in scene.shots(rate).iter().enumerate() {
        for (actor, rect) in &shot.truth {
            line(&mut truth, n, *actor as u64, *rect, 1.0);
        }
        let step = tracker.update(shot.at, SIZE, &shot.detections);
        confirmed.extend(step.tracks.iter().filter(|track| track.confirmed).map(|track| track.id));
        boxes.extend(step.tracks.iter().filter(|track| track.seen).map(|track| (n, track.clone())));
    }
    let mut result = String::new();
    for (n, track) in boxes.iter().filter(|(_, track)| confirmed.contains(&track.id)) {
        line(&mut result, *n, track.id, track.rect, track.score);
    }
    (truth, result)
}

/// Frame and id from 1, the box by its corner and sides in pixels, the score.
fn line(text: &mut String, frame: usize, id: u64, rect: Rect, score: f32) {
    let (width, height) = (SIZE.0 as f32, SIZE.1 as f32);
    let [x, y] = [rect[0] * width, rect[1] * height];
    let (w, h) = ((rect[2] - rect[0]) * width, (rect[3] - rect[1]) * height);
    writeln!(text, "{},{},{x:.2},{y:.2},{w:.2},{h:.2},{score:.3},-1,-1,-1", frame + 1, id + 1).unwrap();
}
