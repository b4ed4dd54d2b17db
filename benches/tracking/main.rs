//! Tracks scenes whose truth is known and writes both in the form of MOTChallenge, for `benches/tracking/score`:
//! `cargo bench --bench tracking -- FOLDER`.
//!
//! A track counts once it has been confirmed, and then from its first box on: so do events, whose `first_seen` is told with
//! them.
//!
//! Beside the tracker's result stands an oracle's, who is told whose each box is: what nobody can do better with these boxes.
//! `boxes` has every box of an object; `rules` only those that the tracker's settings let count: of tracks begun by a box of
//! `new` at least, confirmed, and of another id where nothing was seen for `lost_after`.

mod scenes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use scenes::{SIZE, Shot};
use watchpost::letterbox::Rect;
use watchpost::track::{Tracker, TrackerSettings};

const RATES: [f32; 5] = [2.0, 5.0, 10.0, 25.0, 30.0];

fn main() {
    // `cargo bench` gives `--bench` too.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let folder = arguments.next().expect("give the folder to write into");
    let seed =
        arguments.next().map_or(0, |seed| seed.parse().expect("the second argument is the scenes' seed, a number"));
    let missing: Option<f32> = arguments
        .next()
        .map(|share| share.parse().expect("the third argument is the share of boxes that are missing"));
    for mut scene in scenes::all(seed) {
        if let Some(missing) = missing.filter(|_| scene.noise.missing > 0.0) {
            scene.noise.missing = missing;
        }
        for rate in RATES {
            let shots = scene.shots(rate);
            let (truth, result) = run(&shots);
            let (boxes, rules) = oracle(&shots, &TrackerSettings::default());
            let name = format!("{}-{rate}", scene.name);
            for (kind, text) in [("truth", truth), ("result", result), ("boxes", boxes), ("rules", rules)] {
                std::fs::write(Path::new(&folder).join(format!("{name}.{kind}.txt")), text).unwrap();
            }
        }
    }
}

fn run(shots: &[Shot]) -> (String, String) {
    let mut tracker = Tracker::new(&TrackerSettings::default());
    let (mut truth, mut boxes, mut confirmed) = (String::new(), Vec::new(), BTreeSet::new());
    for (n, shot) in shots.iter().enumerate() {
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

/// A track as the oracle knows it.
struct Known {
    first: Duration,
    last: Duration,
    sure_hits: u32,
    confirmed: bool,
    /// Frame, box, score.
    boxes: Vec<(usize, Rect, f32)>,
}

/// All boxes of objects, and those that count under the tracker's settings.
fn oracle(shots: &[Shot], settings: &TrackerSettings) -> (String, String) {
    let (mut boxes, mut rules) = (String::new(), String::new());
    let mut tracks: Vec<Known> = Vec::new();
    let mut latest: BTreeMap<usize, usize> = BTreeMap::new();
    for (n, shot) in shots.iter().enumerate() {
        for (detection, actor) in shot.detections.iter().zip(&shot.of) {
            let (Some(actor), score) = (*actor, detection.score) else { continue };
            line(&mut boxes, n, actor as u64, detection.rect, score);
            let alive = latest.get(&actor).copied();
            let alive = alive.filter(|track| shot.at - tracks[*track].last < settings.lost_after);
            let track = match alive {
                Some(track) => track,
                None if score < settings.new => continue,
                None => {
                    let (first, last) = (shot.at, shot.at);
                    tracks.push(Known { first, last, sure_hits: 0, confirmed: false, boxes: vec![] });
                    tracks.len() - 1
                }
            };
            latest.insert(actor, track);
            let track = &mut tracks[track];
            track.last = shot.at;
            track.boxes.push((n, detection.rect, score));
            if score >= settings.high {
                track.sure_hits += 1;
                let long = shot.at - track.first >= settings.confirm_after;
                track.confirmed |= long && track.sure_hits >= settings.confirm_hits;
            }
        }
    }
    for (id, track) in tracks.iter().enumerate().filter(|(_, track)| track.confirmed) {
        for (frame, rect, score) in &track.boxes {
            line(&mut rules, *frame, id as u64, *rect, *score);
        }
    }
    (boxes, rules)
}

/// Frame and id from 1, the box by its corner and sides in pixels, the score.
fn line(text: &mut String, frame: usize, id: u64, rect: Rect, score: f32) {
    let (width, height) = (SIZE.0 as f32, SIZE.1 as f32);
    let [x, y] = [rect[0] * width, rect[1] * height];
    let (w, h) = ((rect[2] - rect[0]) * width, (rect[3] - rect[1]) * height);
    writeln!(text, "{},{},{x:.2},{y:.2},{w:.2},{h:.2},{score:.3},-1,-1,-1", frame + 1, id + 1).unwrap();
}
