//! Whether an object stands still.

use std::time::Duration;

use super::kalman::Extent;

/// What has stayed within this many scales of its resting place has not moved: boxes of still objects tremble by some
/// hundredths.
const STILL: f32 = 0.15;
/// What is this far away has gone; in between nothing changes.
const GONE: f32 = 0.35;
/// Sightings away in a row before it has gone: one box may be wrong.
const AWAY: u32 = 2;

/// A resting place, and since when it has been one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    place: Extent,
    since: Duration,
    latest: Duration,
    away: u32,
    stationary: bool,
}

impl Rest {
    pub fn new(at: Duration, seen: &Extent) -> Self {
        Self { place: *seen, since: at, latest: at, away: 0, stationary: false }
    }

    /// The picture has other pixels now: so many times as wide and as high.
    pub fn rescale(&mut self, x: f32, y: f32) {
        let Extent { x: left, y: top, w, h } = self.place;
        self.place = Extent { x: left * x, y: top * y, w: w * x, h: h * y };
    }

    /// Seen at `at`, where `here` is the filtered box in pixels. Whether it is stationary.
    pub fn update(&mut self, at: Duration, here: &Extent, after: Duration) -> bool {
        let passed = at.saturating_sub(self.latest);
        self.latest = at;
        let distance = (here.x - self.place.x).hypot(here.y - self.place.y) / here.scale().max(self.place.scale());
        if distance > if self.stationary { GONE } else { STILL } {
            self.away += 1;
            if self.away >= AWAY {
                *self = Self { latest: at, ..Self::new(at, here) };
            }
            return self.stationary;
        }
        self.away = 0;
        // The place follows slowly: the first box may have been off. What creeps on faster than it follows has moved.
        let share = (passed.as_secs_f32() / after.as_secs_f32().max(1.0)).min(1.0);
        self.place.x += share * (here.x - self.place.x);
        self.place.y += share * (here.y - self.place.y);
        self.place.w += share * (here.w - self.place.w);
        self.place.h += share * (here.h - self.place.h);
        self.stationary |= at.saturating_sub(self.since) >= after;
        self.stationary
    }
}
