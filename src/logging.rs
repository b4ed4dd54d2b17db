//! The log on standard error: in colours for people, with priorities for the journal, plain for a pipe.
//!
//! [`Console`] is the one way to standard error while a live line may stand there: log lines go above it.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant, SystemTime};

use indicatif::{MultiProgress, ProgressDrawTarget};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::event::rfc3339;

/// The filter where none is given.
const DEFAULT_FILTER: &str = "info";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error(
        "log filter {filter:?} is not understood ({reason}): give --log or WATCHPOST_LOG a level such as \"debug\", \
         or \"info,watchpost::camera=debug\""
    )]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Called twice in one process.
    #[error("the log was started already: {0}")]
    Started(String),
}

/// Starts the log. `filter` is `--log`; else the environment's `WATCHPOST_LOG`, else `info`.
///
/// # Errors
///
/// A filter that is not understood, or a second call.
pub fn start(filter: Option<&str>) -> Result<Console, LogError> {
    let given = filter.map(str::to_owned).or_else(|| std::env::var("WATCHPOST_LOG").ok());
    let filter = parse_filter(given.as_deref().filter(|filter| !filter.trim().is_empty()))?;
    let console = Console::stderr();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(console.clone());
    let started = if under_journald() {
        let format = Format::default().with_level(false).without_time().with_ansi(false);
        builder.with_ansi(false).event_format(Priorities(format)).finish().try_init()
    } else {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        builder.with_timer(Utc).with_ansi(console.is_terminal && !no_colour).finish().try_init()
    };
    started.map_err(|error| LogError::Started(error.to_string()))?;
    Ok(console)
}

fn parse_filter(given: Option<&str>) -> Result<EnvFilter, LogError> {
    let filter = given.unwrap_or(DEFAULT_FILTER);
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| LogError::Filter { filter: filter.to_owned(), reason: error.to_string() })
}

/// Whether standard error is the journal: `JOURNAL_STREAM` holds its device and inode, and is inherited by processes
/// whose standard error is something else.
fn under_journald() -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|file| journal == format!("{}:{}", file.dev(), file.ino()))
}

/// Time of a log line: UTC with milliseconds.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&rfc3339(SystemTime::now()))
    }
}

/// Puts each line's priority before it, as sd-daemon(3) says.
struct Priorities<F>(F);

impl<S, N, F> FormatEvent<S, N> for Priorities<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        // Each line is an entry of its own to the journal; one without a priority could bring its own.
        text.lines().try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
    }
}

/// Standard error, where a live line may stand. Clones share.
#[derive(Clone)]
pub struct Console {
    lines: MultiProgress,
    is_terminal: bool,
}

impl Console {
    /// Standard error.
    pub fn stderr() -> Self {
        let target = ProgressDrawTarget::stderr();
        let is_terminal = io::stderr().is_terminal() && !target.is_hidden();
        Self { lines: MultiProgress::with_draw_target(target), is_terminal }
    }

    /// Where live lines are drawn; `None` where standard error is no terminal.
    pub fn live(&self) -> Option<&MultiProgress> {
        self.is_terminal.then_some(&self.lines)
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().lock().write_all(bytes);
        if self.is_terminal {
            self.lines.suspend(write)?
        } else {
            write()?
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for Console {
    type Writer = Console;

    fn make_writer(&self) -> Console {
        self.clone()
    }
}

/// Says a repeating fault once an interval, with the number of those that were not said. Pure.
#[derive(Clone, Debug)]
pub struct Repeated {
    interval: Duration,
    said: Option<Instant>,
    unsaid: u64,
}

impl Repeated {
    /// Says at most one fault each `interval`.
    pub fn new(interval: Duration) -> Self {
        Self { interval, said: None, unsaid: 0 }
    }

    /// A fault at `now`: what to log, if now is the time to. The text is this fault's; those in between are counted,
    /// whatever they said.
    pub fn fault(&mut self, now: Instant, text: &str) -> Option<String> {
        if let Some(said) = self.said {
            let passed = now.saturating_duration_since(said);
            if passed < self.interval {
                self.unsaid += 1;
                return None;
            }
            let unsaid = std::mem::take(&mut self.unsaid);
            self.said = Some(now);
            if unsaid > 0 {
                return Some(format!("{text} ({unsaid} more in the last {} s)", passed.as_secs()));
            }
        }
        self.said = Some(now);
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeating_fault_is_said_once_an_interval_with_its_count() {
        let start = Instant::now();
        let mut repeated = Repeated::new(Duration::from_secs(30));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(repeated.fault(at(0), "batch dropped").as_deref(), Some("batch dropped"));
        for second in 1..30 {
            assert_eq!(repeated.fault(at(second), "batch dropped"), None);
        }
        let said = repeated.fault(at(31), "engine gone");
        assert_eq!(said.as_deref(), Some("engine gone (29 more in the last 31 s)"));
        assert_eq!(repeated.fault(at(32), "engine gone"), None);
        assert_eq!(repeated.fault(at(90), "x").as_deref(), Some("x (1 more in the last 59 s)"));
        assert_eq!(repeated.fault(at(150), "x").as_deref(), Some("x"));
    }

    #[test]
    fn a_bad_filter_is_named_with_the_next_step() {
        let error = parse_filter(Some("watchpost=loud")).unwrap_err().to_string();
        assert!(error.contains("\"watchpost=loud\"") && error.contains("WATCHPOST_LOG"), "{error}");
        assert_eq!(parse_filter(None).unwrap().to_string(), "info");
    }

    #[test]
    fn the_journal_gets_a_priority_on_every_line_and_no_time() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let format = Format::default().with_level(false).without_time().with_ansi(false).with_target(false);
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(log.reopen().unwrap())
            .event_format(Priorities(format))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("ready");
            tracing::error!(camera = "gate", "gone\n<0>away");
            tracing::warn!("slow");
        });
        let text = std::fs::read_to_string(log.path()).unwrap();
        assert_eq!(text, "<6>ready\n<3>gone\n<3><0>away camera=\"gate\"\n<4>slow\n");
    }
}
