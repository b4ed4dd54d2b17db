//! Letting so many a second through, evenly or with some at once. Pure: time is an argument.

use std::time::{Duration, Instant};

/// The longest interval, a year in seconds: a limit near zero must not overflow.
const INTERVAL_MAX_S: f64 = 365.0 * 86_400.0;

/// Lets at most `hz_max` a second through, evenly.
#[derive(Debug, Default)]
pub struct RateLimit {
    due: Option<Instant>,
}

impl RateLimit {
    /// Whether what comes at `now` passes. Up to a quarter interval early passes too: cameras jitter, and 10 of 30
    /// frames a second should be every third. Time that goes back, as in a file that is read again, begins anew.
    pub fn passes(&mut self, now: Instant, hz_max: f64) -> bool {
        let interval = Duration::from_secs_f64((1.0 / hz_max).min(INTERVAL_MAX_S));
        match self.due.filter(|due| *due <= now + interval * 2) {
            Some(due) if now + interval / 4 < due => false,
            Some(due) if now < due + interval => {
                self.due = Some(due + interval);
                true
            }
            _ => {
                self.due = Some(now + interval);
                true
            }
        }
    }
}

/// A token bucket (RFC 3290, 5.1.3): so many at once, and so many a second in the long run. Full at first.
#[derive(Debug, Default)]
pub struct Bucket {
    missing: f64,
    at: Duration,
}

impl Bucket {
    /// Fills it for the time up to `at`, `hz` tokens a second. Time that goes back, as in a file that is read again, brings nothing.
    pub fn fill(&mut self, at: Duration, hz: f64) {
        self.missing = (self.missing - at.saturating_sub(self.at).as_secs_f64() * hz).max(0.0);
        self.at = at;
    }

    /// Takes one token of the `most` that it holds, where there is one.
    pub fn take(&mut self, most: f64) -> bool {
        let there = self.missing + 1.0 <= most;
        self.missing += f64::from(u8::from(there));
        there
    }

    /// Nothing was taken that has not come back.
    pub fn is_full(&self) -> bool {
        self.missing == 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_share_passes() {
        let start = Instant::now();
        for (fps, hz_max, expected) in [(30.0, 10.0, 100), (30.0, 15.0, 150), (10.0, 30.0, 100), (10.0, 10.0, 100)]
        {
            let mut limit = RateLimit::default();
            let frames = (fps * 10.0) as u32;
            let at = |n: u32| start + Duration::from_secs_f64(f64::from(n) / fps + f64::from(n % 3) * 0.001);
            // Twice, as a file is read again.
            for _ in 0..2 {
                let passed = (0..frames).filter(|n| limit.passes(at(*n), hz_max)).count() as i64;
                assert!((passed - expected).abs() <= 1, "{fps} fps limited to {hz_max}: {passed}");
            }
        }
    }

    #[test]
    fn a_bucket_gives_what_it_holds_and_then_what_flows_in() {
        let (mut bucket, hz, most) = (Bucket::default(), 2.0, 5.0);
        let mut taken = |ms: u64| {
            bucket.fill(Duration::from_millis(ms), hz);
            let taken = std::iter::from_fn(|| bucket.take(most).then_some(())).count();
            (taken, bucket.is_full())
        };
        assert_eq!(
            [taken(0), taken(400), taken(500), taken(1500)],
            [(5, false), (0, false), (1, false), (2, false)]
        );
        assert_eq!(taken(60_000), (5, false), "no more than it holds");
        assert_eq!([taken(1000), taken(2000)], [(0, false), (2, false)], "time that goes back brings nothing");
        bucket.fill(Duration::from_secs(70), hz);
        assert!(bucket.is_full());
    }

    #[test]
    fn a_limit_near_zero_lets_one_through() {
        let (start, mut limit) = (Instant::now(), RateLimit::default());
        assert!(limit.passes(start, f64::MIN_POSITIVE));
        assert!(!limit.passes(start + Duration::from_secs(60), f64::MIN_POSITIVE));
    }
}
