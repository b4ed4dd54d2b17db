//! How far a build has come, in per cent. Pure: time is an argument.
//!
//! TensorRT 10 tells of its phases, which lie within each other; of TensorRT 8 it is the layers that its log names. Until the
//! first of them, the share of the time that such a build takes is given, and said to be an estimate; they share what is left.

use std::time::Duration;

/// Nothing but the end is this far.
const NEARLY: f64 = 99.0;
/// Phases within each other that are looked at: deeper ones are a thousandth of the whole.
const DEPTH_MAX: usize = 8;
/// What a build takes where nothing is known: a YOLOv8n in float16 on an H100, without a timing cache and with one.
const COLD: Duration = Duration::from_secs(420);
const WARM: Duration = Duration::from_secs(36);

/// A phase that TensorRT has begun and not ended.
struct Phase {
    name: String,
    done: u32,
    total: u32,
}

/// The estimate, which never runs backward.
pub struct Estimate {
    expected: Duration,
    phases: Vec<Phase>,
    pct: f64,
    /// What it was when the first phase began.
    before: f64,
}

impl Estimate {
    /// A build that begins. `before` is how long the same engine took last time, where that is known; `cached` says
    /// whether there is a timing cache.
    pub fn new(before: Option<Duration>, cached: bool) -> Self {
        let expected = before.unwrap_or(if cached { WARM } else { COLD }).max(Duration::from_secs(1));
        Self { expected, phases: Vec::new(), pct: 0.0, before: 0.0 }
    }

    /// A phase has come to `done` of `total` steps.
    pub fn phase(&mut self, name: &str, done: u32, total: u32) {
        if self.phases.is_empty() {
            self.before = self.pct;
        }
        let at = self.phases.iter().position(|phase| phase.name == name);
        match at {
            Some(at) => {
                self.phases[at].done = done;
                // What lies within a phase ends with each of its steps.
                let keep = if done >= total && at > 0 { at } else { at + 1 };
                self.phases.truncate(keep);
            }
            None if done < total && self.phases.len() < DEPTH_MAX => {
                self.phases.push(Phase { name: name.to_owned(), done, total });
            }
            None => {}
        }
        let (mut share, mut width) = (0.0, 1.0);
        for phase in &self.phases {
            width /= f64::from(phase.total.max(1));
            share += f64::from(phase.done) * width;
        }
        self.raise(self.before + share * (100.0 - self.before));
    }

    /// Per cent after `elapsed`, 0 to 99; the whole is 100 once it is there.
    pub fn at(&mut self, elapsed: Duration) -> u8 {
        if self.phases.is_empty() {
            // Half way at the expected time's half, nearly there at its double: it comes ever closer and is never over.
            let x = elapsed.as_secs_f64() / self.expected.as_secs_f64();
            self.raise(100.0 * (1.0 - (-1.4 * x).exp()));
        }
        self.pct as u8
    }

    /// Whether it is the time that the estimate is made from, and not TensorRT's own count.
    pub fn is_by_time(&self) -> bool {
        self.phases.is_empty()
    }

    fn raise(&mut self, pct: f64) {
        self.pct = self.pct.max(pct.min(NEARLY));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_within_each_other_add_up() {
        let mut estimate = Estimate::new(None, false);
        let now = Duration::ZERO;
        estimate.phase("Building Engine", 0, 4);
        assert_eq!((estimate.at(now), estimate.is_by_time()), (0, false));
        estimate.phase("Building Engine", 2, 4);
        assert_eq!(estimate.at(now), 50);
        estimate.phase("Tactics", 0, 10);
        estimate.phase("Tactics", 5, 10);
        assert_eq!(estimate.at(now), 62);
        // The inner one is over, and another takes its place: not backward.
        estimate.phase("Tactics", 10, 10);
        estimate.phase("Formats", 0, 2);
        assert_eq!(estimate.at(now), 62);
        estimate.phase("Formats", 1, 2);
        assert_eq!(estimate.at(now), 62);
        estimate.phase("Building Engine", 4, 4);
        assert_eq!(estimate.at(now), 99);
    }

    #[test]
    fn without_phases_time_is_the_measure() {
        let mut estimate = Estimate::new(Some(Duration::from_secs(100)), true);
        let row: Vec<u8> = (0..10).map(|i| estimate.at(Duration::from_secs(i * 50))).collect();
        assert_eq!((row[0], row[1], row[2]), (0, 50, 75));
        assert!(row.windows(2).all(|pair| pair[0] <= pair[1]) && row[9] == 99, "{row:?}");
        assert!(estimate.is_by_time());
        // A clock that jumps back does not take it back.
        assert_eq!(estimate.at(Duration::ZERO), 99);
        assert!(Estimate::new(None, true).at(WARM) > Estimate::new(None, false).at(WARM));
    }

    #[test]
    fn layers_share_what_time_has_left() {
        let mut estimate = Estimate::new(Some(Duration::from_secs(100)), true);
        assert_eq!(estimate.at(Duration::from_secs(50)), 50);
        estimate.phase("layers", 0, 4);
        assert_eq!(estimate.at(Duration::from_secs(90)), 50);
        estimate.phase("layers", 1, 4);
        assert_eq!((estimate.at(Duration::from_secs(90)), estimate.is_by_time()), (62, false));
    }

    #[test]
    fn any_phases_are_answered() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut estimate = Estimate::new(None, false);
        let mut before = 0;
        for _ in 0..10_000 {
            estimate.phase(["a", "b", "c", "d"][random.usize(..4)], random.u32(..20), random.u32(..10));
            let pct = estimate.at(Duration::from_secs(random.u64(..100)));
            assert!(pct >= before && pct <= 99);
            before = pct;
        }
    }
}
