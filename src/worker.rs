//! Named threads, heartbeats and back-off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Starts a named thread. Linux shows the first 15 bytes of the name.
///
/// # Panics
///
/// Where the system has no thread left: there is nothing sensible to go on with.
#[expect(clippy::expect_used, reason = "nothing sensible to go on with")]
pub fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).expect("the system has no thread left")
}

/// When a loop last made progress: what the watchdog looks at. Clones share.
#[derive(Clone)]
pub struct Heartbeat {
    origin: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Beats for the first time now.
    pub fn new(now: Instant) -> Self {
        Self { origin: now, last_ms: Arc::new(AtomicU64::new(0)) }
    }

    /// Progress was made.
    pub fn beat(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.origin).as_millis() as u64;
        self.last_ms.store(ms, Ordering::Relaxed);
    }

    /// Time since the last beat.
    pub fn age(&self, now: Instant) -> Duration {
        let ms = now.saturating_duration_since(self.origin).as_millis() as u64;
        Duration::from_millis(ms.saturating_sub(self.last_ms.load(Ordering::Relaxed)))
    }
}

/// Jittered exponential back-off. Pure: randomness is an argument.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from `min`, doubling up to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A success: the next wait is the shortest again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// A failure: how long to wait, `jitter` (0..1) choosing between half and all of the exponential step, so
    /// that cameras behind one switch do not come back in step.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let step = self.min.saturating_mul(1 << self.failures.min(16)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0)).max(self.min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_from_min_to_max_with_jitter() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let waits: Vec<f64> = (0..9).map(|_| backoff.next(1.0).as_secs_f64()).collect();
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]);
        assert_eq!(backoff.next(0.0), Duration::from_secs(30));
        for _ in 0..100 {
            backoff.next(0.5);
        }
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_secs(1));
    }

    #[test]
    fn heartbeat_age_counts_from_the_last_beat() {
        let start = Instant::now();
        let heart = Heartbeat::new(start);
        heart.beat(start + Duration::from_secs(3));
        assert_eq!(heart.age(start + Duration::from_secs(5)), Duration::from_secs(2));
    }
}
