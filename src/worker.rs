//! Named threads and what a panic does to them, heartbeats and back-off.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::io::Write;
use std::panic::PanicHookInfo;
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

thread_local! {
    static IS_EXPENDABLE: Cell<bool> = const { Cell::new(false) };
}

/// From now on a panic is said on standard error and aborts the process, so that the service manager starts it anew:
/// a half-dead daemon is worse than a restart. A panic inside [`expendable`] only unwinds. To be called first thing.
///
/// What is said is the thread and the place, and the message where it is a text of the program: one that was put
/// together may hold data, a password among it.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let is_expendable = IS_EXPENDABLE.get();
        // Not by the log: the panic may have come from there, with its locks held.
        let _ = writeln!(std::io::stderr(), "{}", obituary(info, is_expendable));
        if !is_expendable {
            std::process::abort();
        }
    }));
}

fn obituary(info: &PanicHookInfo<'_>, is_expendable: bool) -> String {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let end = if is_expendable { "one connection ends" } else { "the process ends" };
    let text = fixed_text(info.payload());
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    format!("watchpost: internal error in thread {name} at {place}: {text}; {end}{backtrace}")
}

/// A panic's message where it is a text of the program.
fn fixed_text(payload: &(dyn Any + Send)) -> &str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("the message is withheld, it may hold data")
}

/// Runs `body`, whose panic ends no more than what it does: the caller catches it. For what serves one client of many
/// and leaves nothing half-done behind.
pub fn expendable<T>(body: impl FnOnce() -> T) -> T {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            IS_EXPENDABLE.set(self.0);
        }
    }
    let _before = Before(IS_EXPENDABLE.replace(true));
    body()
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
    use std::os::unix::process::ExitStatusExt;

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

    /// What the child of the next test does; alone it does nothing.
    #[test]
    fn panics_as_told() {
        let Ok(how) = std::env::var("WATCHPOST_TEST_PANIC") else { return };
        abort_on_panic();
        let secret = "s3cret-word";
        let ended = spawn("panicking", move || match how.as_str() {
            "expendable" => expendable(|| panic!("a client's packet")),
            "formatted" => expendable(|| panic!("refused {secret}")),
            "unwrap" => expendable(|| how.parse::<f64>().map_err(|_| secret).map(drop).unwrap()),
            "after" => {
                let caught = std::panic::catch_unwind(|| expendable(|| panic!("caught")));
                assert!(caught.is_ok(), "not expendable any more");
            }
            _ => panic!("anywhere else"),
        });
        assert!(ended.join().is_err());
    }

    #[test]
    fn a_panic_aborts_the_process_but_where_it_may_not_and_says_no_secret() {
        let child = |how: &str| {
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "worker::tests::panics_as_told", "--nocapture", "--test-threads=1"])
                .env("WATCHPOST_TEST_PANIC", how)
                .env("RUST_BACKTRACE", "0")
                .output()
                .unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains("internal error in thread panicking at src/worker.rs:"), "{said}");
            assert!(!said.contains("s3cret"), "{said}");
            (output.status.signal(), said)
        };
        const SIGABRT: i32 = 6;
        let (signal, said) = child("expendable");
        assert!(signal.is_none() && said.contains(": a client's packet; one connection ends"), "{said}");
        for how in ["formatted", "unwrap"] {
            let (signal, said) = child(how);
            assert!(signal.is_none() && said.contains("the message is withheld"), "{said}");
        }
        for how in ["after", "anywhere"] {
            let (signal, said) = child(how);
            assert!(signal == Some(SIGABRT) && said.contains("; the process ends"), "{said}");
        }
    }

    #[test]
    fn heartbeat_age_counts_from_the_last_beat() {
        let start = Instant::now();
        let heart = Heartbeat::new(start);
        heart.beat(start + Duration::from_secs(3));
        assert_eq!(heart.age(start + Duration::from_secs(5)), Duration::from_secs(2));
    }
}
