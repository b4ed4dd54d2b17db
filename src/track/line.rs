//! Lines: who crosses them, and in which direction.
//!
//! A line has a direction, from its first point to its last. Whoever crosses from its left to its right, as seen on the
//! screen, goes `in`; from right to left `out`. Of a line drawn from the picture's left to its right, its left is above it,
//! and so downward is `in`.
//!
//! What is counted is the way of a point of the box, from sighting to sighting. A crossing counts once the point is `margin`
//! away from the line, having been that far away before: a box that trembles on the line counts nothing, and one that turns
//! back counts nothing either. Passing beyond the line's ends is no crossing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classes::Classes;
use super::schedule::{Hours, Schedule};
use super::{Anchor, turn};
use crate::letterbox::Rect;

/// A line across the picture and who counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its name, a topic level.
    pub name: String,
    /// Its points in its direction, at least two, 0..1 of the source.
    pub points: Vec<[f32; 2]>,
    /// The point of a box whose way is followed.
    pub anchor: Anchor,
    /// How far from the line a point must be for a crossing to count, in shares of the picture, 0..0.5.
    pub margin: f32,
    /// Classes that count, by name; all where there is none.
    pub labels: Vec<String>,
    /// Least score when it crosses, 0..1.
    pub min_score: f32,
    /// When it counts; always, where there is none.
    pub schedule: Option<Arc<Schedule>>,
}

/// Which way a line is crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From its left to its right.
    In,
    /// From its right to its left.
    Out,
}

/// A line was crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// Index of the line.
    pub line: usize,
    /// Which way.
    pub direction: Direction,
}

/// Crossings since the watch began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Those [`Direction::In`].
    pub r#in: u64,
    /// Those [`Direction::Out`].
    pub out: u64,
}

/// Who crosses the lines of a camera.
///
/// It keeps what it knows of a track until it is told to [`forget`](LineWatch::forget) it, and allocates for new tracks
/// only.
#[derive(Clone, Debug)]
pub struct LineWatch {
    lines: Vec<Watched>,
    hours: Hours,
    /// Of each track a way a line.
    tracks: HashMap<u64, Vec<Way>>,
    crossings: Vec<Crossing>,
}

#[derive(Clone, Debug)]
struct Watched {
    line: Line,
    classes: Classes,
    /// By class number.
    counts: Vec<Count>,
}

/// A track's way as a line sees it.
#[derive(Clone, Copy, Debug)]
struct Way {
    last: [f32; 2],
    /// It has been away from the line.
    settled: bool,
    /// Crossings `in` less those `out` since then.
    net: i32,
}

impl LineWatch {
    /// Watches `lines`; `labels` are the model's class names by class number.
    pub fn new(lines: &[Line], labels: &[String]) -> Self {
        let watch = |line: &Line| Watched {
            line: line.clone(),
            classes: Classes::named(&line.labels, labels),
            counts: vec![Count::default(); labels.len()],
        };
        Self {
            lines: lines.iter().map(watch).collect(),
            hours: Hours::new(lines.iter().map(|line| line.schedule.clone()).collect()),
            tracks: HashMap::new(),
            crossings: Vec::new(),
        }
    }

    /// Other lines from now on. A track's way goes on at those that are as they were, and begins anew at the others:
    /// where `rect_of` says that the track is.
    pub fn exchange(&mut self, lines: &[Line], labels: &[String], rect_of: impl Fn(u64) -> Option<Rect>) {
        let before = |line: &Line| self.lines.iter().position(|watched| watched.line == *line);
        let before: Vec<Option<usize>> = lines.iter().map(before).collect();
        let old = std::mem::replace(self, Self::new(lines, labels));
        for (watched, before) in self.lines.iter_mut().zip(&before) {
            if let Some(before) = before {
                watched.counts.clone_from(&old.lines[*before].counts);
            }
        }
        for (id, ways) in old.tracks {
            let Some(rect) = rect_of(id) else { continue };
            let way = |(line, before): (&Line, &Option<usize>)| {
                before.map_or_else(|| Way::from(line.anchor.of(rect)), |before| ways[before])
            };
            self.tracks.insert(id, lines.iter().zip(&before).map(way).collect());
        }
    }

    /// The track was seen at `wall` by the clock of the world; `rect` is 0..1 of the source. The crossings in the order
    /// of the lines; they hold until the next update.
    pub fn update(&mut self, track: u64, wall: SystemTime, rect: Rect, class: u32, score: f32) -> &[Crossing] {
        self.crossings.clear();
        let open = self.hours.at(wall);
        let first = || self.lines.iter().map(|watched| Way::from(watched.line.anchor.of(rect))).collect();
        let ways = self.tracks.entry(track).or_insert_with(first);
        for (index, (watched, way)) in self.lines.iter_mut().zip(ways).enumerate() {
            let Some(direction) = way.step(watched.line.anchor.of(rect), &watched.line) else { continue };
            if open[index] && watched.classes.contains(class) && score >= watched.line.min_score {
                watched.count(class, direction);
                self.crossings.push(Crossing { line: index, direction });
            }
        }
        &self.crossings
    }

    /// Crossings of the line by objects of the class since the watch began; none for a line or class there is not.
    pub fn count(&self, line: usize, class: u32) -> Count {
        let counts = self.lines.get(line).map(|watched| watched.counts.as_slice());
        counts.and_then(|counts| counts.get(class as usize)).copied().unwrap_or_default()
    }

    /// The track has ended.
    pub fn forget(&mut self, track: u64) {
        self.tracks.remove(&track);
    }
}

impl Watched {
    fn count(&mut self, class: u32, direction: Direction) {
        let Some(count) = self.counts.get_mut(class as usize) else { return };
        match direction {
            Direction::In => count.r#in += 1,
            Direction::Out => count.out += 1,
        }
    }
}

impl Way {
    fn from(point: [f32; 2]) -> Self {
        Self { last: point, settled: false, net: 0 }
    }

    /// Goes on to `point`; the crossing that is sure now.
    fn step(&mut self, point: [f32; 2], line: &Line) -> Option<Direction> {
        // A point that is none would stay as the last one and make every later step none.
        if !point.iter().all(|value| value.is_finite()) {
            return None;
        }
        self.net += line.crossed(self.last, point);
        self.last = point;
        if line.near(point) {
            return None;
        }
        let net = std::mem::take(&mut self.net);
        if !std::mem::replace(&mut self.settled, true) {
            return None;
        }
        match net {
            0 => None,
            1.. => Some(Direction::In),
            _ => Some(Direction::Out),
        }
    }
}

impl Line {
    /// Crossings `in` less those `out` on the straight way from `from` to `to`.
    fn crossed(&self, from: [f32; 2], to: [f32; 2]) -> i32 {
        let right = |a, b, point| turn(a, b, point) >= 0.0;
        let mut net = 0;
        for (a, b) in self.segments() {
            let (before, after) = (right(a, b, from), right(a, b, to));
            // A point on the line counts as on its right, and a corner as on the way's right: so a way over a corner
            // crosses one of the two segments only.
            if before != after && right(from, to, a) != right(from, to, b) {
                net += if after { 1 } else { -1 };
            }
        }
        net
    }

    /// The point is nearer than the margin.
    fn near(&self, point: [f32; 2]) -> bool {
        let margin = self.margin * self.margin;
        self.segments().any(|(a, b)| squared_distance(point, a, b) < margin)
    }

    fn segments(&self) -> impl Iterator<Item = ([f32; 2], [f32; 2])> + '_ {
        self.points.windows(2).map(|pair| (pair[0], pair[1]))
    }
}

fn squared_distance(point: [f32; 2], a: [f32; 2], b: [f32; 2]) -> f32 {
    let along = [b[0] - a[0], b[1] - a[1]];
    let from_a = [point[0] - a[0], point[1] - a[1]];
    let length = along[0] * along[0] + along[1] * along[1];
    let share =
        if length > 0.0 { ((from_a[0] * along[0] + from_a[1] * along[1]) / length).clamp(0.0, 1.0) } else { 0.0 };
    let away = [from_a[0] - share * along[0], from_a[1] - share * along[1]];
    away[0] * away[0] + away[1] * away[1]
}

#[cfg(test)]
mod tests;
