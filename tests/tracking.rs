//! The tracker on scenes whose truth is known, those of `benches/tracking`: who is who at every frame rate.

#[path = "../benches/tracking/scenes.rs"]
mod scenes;

use std::collections::{BTreeMap, BTreeSet};

use scenes::{SIZE, Scene};
use watchpost::track::{Tracker, TrackerSettings};

fn scene(name: &str) -> Scene {
    scenes::all(0).into_iter().find(|scene| scene.name == name).unwrap()
}

/// Of each actor its confirmed tracks, in the order of their first boxes.
fn tracks_of_actors(scene: &Scene, rate: f32) -> BTreeMap<usize, Vec<u64>> {
    let mut tracker = Tracker::new(&TrackerSettings::default());
    let (mut of, mut confirmed) = (BTreeMap::<usize, Vec<u64>>::new(), BTreeSet::new());
    for shot in scene.shots(rate) {
        let step = tracker.update(shot.at, SIZE, &shot.detections);
        confirmed.extend(step.tracks.iter().filter(|track| track.confirmed).map(|track| track.id));
        for (actor, track) in shot.of.iter().zip(&step.of_detection) {
            let (Some(actor), Some(track)) = (actor, track) else { continue };
            let tracks = of.entry(*actor).or_default();
            if tracks.last() != Some(track) {
                tracks.push(*track);
            }
        }
    }
    for tracks in of.values_mut() {
        tracks.retain(|track| confirmed.contains(track));
        tracks.dedup();
    }
    of
}

#[test]
fn on_the_clean_scene_everybody_has_one_track_and_nobody_anothers_at_every_rate() {
    let scene = scene("clean");
    for rate in [2.0, 5.0, 10.0, 25.0, 30.0] {
        let of = tracks_of_actors(&scene, rate);
        assert_eq!(of.len(), scene.actors.len(), "at {rate} frames a second");
        for (actor, tracks) in &of {
            assert_eq!(tracks.len(), 1, "actor {actor} at {rate} frames a second: {tracks:?}");
        }
        let different: BTreeSet<u64> = of.values().flatten().copied().collect();
        assert_eq!(different.len(), of.len(), "two actors share a track at {rate} frames a second: {of:?}");
    }
}

/// Boxes of noise and missing ones: crossings at 5 frames a second and more, where the oracle of `benches/tracking/score` has none.
#[test]
fn with_noise_those_who_cross_keep_their_tracks() {
    for rate in [5.0, 10.0, 25.0, 30.0] {
        let of = tracks_of_actors(&scene("crossings"), rate);
        let switches: usize = of.values().map(|tracks| tracks.len() - 1).sum();
        assert_eq!(switches, 0, "at {rate} frames a second: {of:?}");
    }
}
