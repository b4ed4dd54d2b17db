//! How many tracks become events. A detector that takes noise for objects begins and ends tracks with nearly every frame; each
//! would be two messages on the disk and at the broker. So a camera has a token bucket: a track that is due takes a token or
//! waits for one while it lives, the oldest first. What ends before its turn is no event at all: every `new` has its `end`, and
//! what has neither is counted.

use std::time::Duration;

use crate::config::EventRules;
use crate::frame::CameraId;
use crate::rate::Bucket;

/// The bucket holds what comes in so many seconds: a bus that empties is no noise.
const BURST_S: f64 = 10.0;

/// What a camera may still say.
#[derive(Debug, Default)]
pub struct Admission {
    bucket: Bucket,
    /// Since the bucket was left full last, a track has ended that never had its turn.
    noisy: bool,
}

impl Admission {
    /// It is `at` now.
    pub fn pass_time(&mut self, at: Duration, rules: &EventRules) {
        // As the frame before left it: nobody waited for what it holds.
        self.noisy &= !self.bucket.is_full();
        self.bucket.fill(at, rules.new_hz_max);
    }

    /// Whether one more track may become an event.
    pub fn admit(&mut self, rules: &EventRules) -> bool {
        self.bucket.take((rules.new_hz_max * BURST_S).max(1.0))
    }

    /// A track has ended that was due and never had its turn; true for the first of an episode.
    pub fn suppress(&mut self) -> bool {
        !std::mem::replace(&mut self.noisy, true)
    }
}

/// What people should know of an episode.
pub fn notice(camera: &CameraId, rules: &EventRules) -> String {
    let most = rules.new_hz_max;
    format!(
        "Camera {camera} begins more tracks than may become events (events.new_hz_max, {most} a second): those that end before \
         their turn are counted and become none. If they are noise, raise tracking.new or the model's threshold."
    )
}
