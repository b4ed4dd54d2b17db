//! Letting so many a second through, evenly. Pure: time is an argument.

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
    fn a_limit_near_zero_lets_one_through() {
        let (start, mut limit) = (Instant::now(), RateLimit::default());
        assert!(limit.passes(start, f64::MIN_POSITIVE));
        assert!(!limit.passes(start + Duration::from_secs(60), f64::MIN_POSITIVE));
    }
}
