//! Zones: areas of the picture that tracks enter, stay in and leave.
//!
//! A track is counted in once it has been seen inside without a break for `enter_after`, and out once it has been seen
//! outside without a break for `leave_after`. So a box that trembles on the edge changes nothing. While a track is not
//! seen it stays where it was.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::classes::Classes;
use super::schedule::{Hours, Schedule};
use super::{Anchor, Polygon};
use crate::letterbox::Rect;

/// An area of the picture and who counts in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// Its name, a topic level.
    pub name: String,
    /// Where it is.
    pub polygon: Polygon,
    /// When a box is inside.
    pub inside: Inside,
    /// Classes that may enter, by name; all where there is none.
    pub labels: Vec<String>,
    /// Least score to enter, 0..1. What is inside stays whatever its score.
    pub min_score: f32,
    /// How long a track must be seen inside to be counted in.
    pub enter_after: Duration,
    /// How long a track must be seen outside to be counted out.
    pub leave_after: Duration,
    /// When it counts; at other times everything is outside. Always, where there is none.
    pub schedule: Option<Arc<Schedule>>,
}

/// When a box is inside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inside {
    /// That point of it is.
    At(Anchor),
    /// At least this share of its area is, above 0, at most 1.
    Overlap(f32),
}

/// A track's time in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Index of the zone.
    pub zone: usize,
    /// From when it was first seen inside to when it was last.
    pub dwell: Duration,
}

/// What an update changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Indices of the zones entered, ascending.
    pub entered: Vec<usize>,
    /// The zones left, ascending.
    pub left: Vec<Stay>,
}

/// Which tracks of a camera are in which of its zones.
///
/// It keeps what it knows of a track until it is told to [`forget`](ZoneWatch::forget) it, and allocates for new
/// tracks only.
#[derive(Clone, Debug)]
pub struct ZoneWatch {
    zones: Vec<Watched>,
    hours: Hours,
    tracks: HashMap<u64, Track>,
    changes: Changes,
}

#[derive(Clone, Debug)]
struct Watched {
    zone: Zone,
    classes: Classes,
}

#[derive(Clone, Debug)]
struct Track {
    class: u32,
    /// One a zone.
    presences: Vec<Presence>,
    /// Indices of the zones it is counted in, ascending.
    current: Vec<usize>,
}

/// A track and a zone.
#[derive(Clone, Copy, Debug, Default)]
struct Presence {
    counted: bool,
    /// Since when it has been seen on the other side of where it is counted, without a break.
    other_since: Option<Duration>,
    first_inside: Duration,
    last_inside: Duration,
}

impl ZoneWatch {
    /// Watches `zones`; `labels` are the model's class names by class number.
    pub fn new(zones: &[Zone], labels: &[String]) -> Self {
        let watch = |zone: &Zone| Watched { zone: zone.clone(), classes: Classes::named(&zone.labels, labels) };
        Self {
            zones: zones.iter().map(watch).collect(),
            hours: Hours::new(zones.iter().map(|zone| zone.schedule.clone()).collect()),
            tracks: HashMap::new(),
            changes: Changes::default(),
        }
    }

    /// Other zones from now on. A track stays in those that are as they were, and enters the others anew.
    pub fn exchange(&mut self, zones: &[Zone], labels: &[String]) {
        let before = |zone: &Zone| self.zones.iter().position(|watched| watched.zone == *zone);
        let before: Vec<Option<usize>> = zones.iter().map(before).collect();
        let tracks = std::mem::take(&mut self.tracks);
        *self = Self::new(zones, labels);
        self.tracks = tracks.into_iter().map(|(id, track)| (id, track.among(&before))).collect();
    }

    /// The track was seen at `at` (since any fixed moment, never going back) and, by the clock of the world, at `wall`.
    /// `rect` is 0..1 of the source. The answer holds until the next update.
    pub fn update(
        &mut self,
        track: u64,
        at: Duration,
        wall: SystemTime,
        rect: Rect,
        class: u32,
        score: f32,
    ) -> &Changes {
        self.changes.entered.clear();
        self.changes.left.clear();
        if self.zones.is_empty() {
            return &self.changes;
        }
        let open = self.hours.at(wall);
        let known = self.tracks.entry(track).or_insert_with(|| Track::new(class, self.zones.len()));
        known.class = class;
        for (index, (watched, presence)) in self.zones.iter().zip(&mut known.presences).enumerate() {
            let admitted = presence.counted || watched.admits(class, score);
            let inside = open[index] && admitted && watched.zone.holds(rect);
            match presence.update(inside, at, &watched.zone) {
                Some(true) => self.changes.entered.push(index),
                Some(false) => self.changes.left.push(Stay { zone: index, dwell: presence.dwell() }),
                None => {}
            }
        }
        if !self.changes.entered.is_empty() || !self.changes.left.is_empty() {
            known.count();
        }
        &self.changes
    }

    /// Indices of the zones that the track is counted in, ascending.
    pub fn current(&self, track: u64) -> &[usize] {
        self.tracks.get(&track).map_or(&[], |track| &track.current)
    }

    /// How long the track's stay in the zone has been, or its last one was; zero where there was none.
    pub fn dwell(&self, track: u64, zone: usize) -> Duration {
        let presence = self.tracks.get(&track).and_then(|track| track.presences.get(zone));
        presence.map_or(Duration::ZERO, Presence::dwell)
    }

    /// How many tracks of the class are counted in the zone.
    pub fn count(&self, zone: usize, class: u32) -> usize {
        self.tracks.values().filter(|track| track.class == class && track.current.contains(&zone)).count()
    }

    /// The track has ended. The zones that it was counted in, ascending: it has left them. The answer holds until the
    /// next update.
    pub fn forget(&mut self, track: u64) -> &[Stay] {
        self.changes.entered.clear();
        self.changes.left.clear();
        if let Some(ended) = self.tracks.remove(&track) {
            let stay = |zone: &usize| Stay { zone: *zone, dwell: ended.presences[*zone].dwell() };
            self.changes.left.extend(ended.current.iter().map(stay));
        }
        &self.changes.left
    }
}

impl Watched {
    fn admits(&self, class: u32, score: f32) -> bool {
        self.classes.contains(class) && score >= self.zone.min_score
    }
}

impl Zone {
    fn holds(&self, rect: Rect) -> bool {
        match self.inside {
            Inside::At(anchor) => self.polygon.contains(anchor.of(rect)),
            Inside::Overlap(least) => self.polygon.share(rect) >= least,
        }
    }
}

impl Track {
    fn new(class: u32, zones: usize) -> Self {
        Self { class, presences: vec![Presence::default(); zones], current: Vec::new() }
    }

    /// The track among other zones, each with its number `before` where there was one like it.
    fn among(self, before: &[Option<usize>]) -> Self {
        let presence = |before: &Option<usize>| before.map(|before| self.presences[before]).unwrap_or_default();
        let presences = before.iter().map(presence).collect();
        let mut track = Self { presences, ..self };
        track.count();
        track
    }

    fn count(&mut self) {
        self.current.clear();
        let counted = self.presences.iter().enumerate().filter(|(_, presence)| presence.counted);
        self.current.extend(counted.map(|(index, _)| index));
    }
}

impl Presence {
    /// Counted in (`true`) or out, where that changes.
    fn update(&mut self, inside: bool, at: Duration, zone: &Zone) -> Option<bool> {
        if inside == self.counted {
            self.other_since = None;
            if inside {
                self.last_inside = at;
            }
            return None;
        }
        let since = *self.other_since.get_or_insert(at);
        let after = if inside { zone.enter_after } else { zone.leave_after };
        if at.saturating_sub(since) < after {
            return None;
        }
        self.counted = inside;
        self.other_since = None;
        if inside {
            (self.first_inside, self.last_inside) = (since, at);
        }
        Some(inside)
    }

    fn dwell(&self) -> Duration {
        self.last_inside.saturating_sub(self.first_inside)
    }
}

#[cfg(test)]
mod tests;
