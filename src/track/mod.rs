//! What happens in a picture over time: tracks, zones, lines, filters and the hours at which they count.
//!
//! Pure: time is an argument. Points and boxes are 0..1 of the source, x to the right and y down.

mod assign;
mod classes;
pub mod filter;
mod kalman;
pub mod line;
mod polygon;
mod rest;
pub mod schedule;
pub mod tracker;
pub mod zone;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::letterbox::Rect;

pub use polygon::Polygon;
pub use tracker::{Ended, Exit, Step, Track, Tracker, TrackerSettings};

/// The point of a box that says where the object is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Anchor {
    /// The middle of the lower edge: where a person or a car stands.
    #[default]
    Foot,
    /// The middle of the box.
    Centre,
}

impl Anchor {
    /// The point of `rect`, 0..1 of the source.
    pub fn of(self, rect: Rect) -> [f32; 2] {
        let x = (rect[0] + rect[2]) / 2.0;
        match self {
            Anchor::Foot => [x, rect[3]],
            Anchor::Centre => [x, (rect[1] + rect[3]) / 2.0],
        }
    }
}

/// Above zero where `c` lies right of the way from `a` to `b` as seen on the screen, below where left, zero on it.
fn turn(a: [f32; 2], b: [f32; 2], c: [f32; 2]) -> f64 {
    // In f64, where products of differences of f32 values are exact enough not to flip a sign.
    let [ax, ay, bx, by, cx, cy] = [a[0], a[1], b[0], b[1], c[0], c[1]].map(f64::from);
    (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
}
