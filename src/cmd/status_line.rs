//! What a person at a terminal sees of long work: one live line of health, or a bar. A pipe and the journal get
//! nothing of the line, and a plain line every few seconds in place of the bar.

use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::event::CameraStatus;
use crate::health::HealthReport;
use crate::logging::Console;

/// A plain progress line at most this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// One line of health below the log, refreshed by [`StatusLine::update`]; gone when dropped. Does nothing where
/// standard error is no terminal.
pub struct StatusLine(Option<ProgressBar>);

impl StatusLine {
    /// An empty line at the foot of the console.
    pub fn new(console: &Console) -> Self {
        Self(console.live().map(|lines| {
            let bar = lines.add(ProgressBar::no_length());
            // A template of our own without a mistake: the fall-back is only for the type's sake.
            let style = ProgressStyle::with_template("{wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        }))
    }

    /// Shows this report; to be called once a second.
    pub fn update(&self, report: &HealthReport) {
        if let Some(bar) = &self.0 {
            bar.set_message(line(report));
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn line(report: &HealthReport) -> String {
    let health = &report.health;
    let online = health.cameras.values().filter(|camera| camera.status == CameraStatus::Online).count();
    let cameras = health.cameras.len();
    let mut parts = vec![
        format!("{cameras} camera{}", if cameras == 1 { "" } else { "s" }),
        format!("{online} online"),
        format!("{:.0} fps", health.fps),
        format!("age p95 {:.0} ms", health.frame_age_p95_ms),
        format!("batch {:.0} %", health.batch_fill * 100.0),
        (if report.mqtt_connected { "mqtt connected" } else { "mqtt away" }).to_owned(),
    ];
    // In front, where a narrow terminal does not cut them off.
    if health.overload {
        parts.insert(0, "OVERLOAD".to_owned());
    }
    if !health.ready {
        parts.insert(0, "not ready".to_owned());
    }
    parts.join(" · ")
}

/// How far long work has come: a bar on a terminal, else a line every ten seconds. Gone when dropped.
pub struct Progress {
    console: Console,
    bar: Option<ProgressBar>,
    plain: Plain,
}

impl Progress {
    /// Work of `total` steps that began at `now`; `what` names it, such as "calibrating".
    pub fn new(console: &Console, what: &str, total: u64, now: Instant) -> Self {
        let bar = console.live().map(|lines| {
            let bar = lines.add(ProgressBar::new(total));
            let style = ProgressStyle::with_template("{msg} {wide_bar} {pos} of {len}, {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(what.to_owned());
            bar
        });
        Self { console: console.clone(), bar, plain: Plain { what: what.to_owned(), total, done: 0, said: now } }
    }

    /// So many steps more are done.
    pub fn advance(&mut self, now: Instant, steps: u64) {
        let said = self.plain.advance(now, steps);
        match (&self.bar, said) {
            (Some(bar), _) => bar.inc(steps),
            (None, Some(line)) => {
                // A closed standard error is no reason to give up the work, and there is no place to say it.
                let _ = writeln!(self.console, "{line}");
            }
            (None, None) => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

struct Plain {
    what: String,
    total: u64,
    done: u64,
    said: Instant,
}

impl Plain {
    /// The line to print, where it is time for one or the work is done.
    fn advance(&mut self, now: Instant, steps: u64) -> Option<String> {
        let before = self.done;
        self.done = self.done.saturating_add(steps).min(self.total);
        let ended = self.done == self.total && before < self.total;
        if !ended && now.saturating_duration_since(self.said) < PLAIN_INTERVAL {
            return None;
        }
        self.said = now;
        let percent = self.done as f64 * 100.0 / self.total.max(1) as f64;
        Some(format!("{}: {} of {} ({percent:.0} %)", self.what, self.done, self.total))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::*;
    use crate::frame::CameraId;
    use crate::health::{Board, CameraReport, Monitor, gather};
    use crate::metrics::Metrics;

    #[test]
    fn the_line_says_it_all() {
        let (metrics, board, start) = (Metrics::default(), Board::default(), Instant::now());
        let report = |status| CameraReport {
            status,
            reason: String::new(),
            since: SystemTime::UNIX_EPOCH,
            attempts: 0,
            next_retry: None,
            size: None,
            clock: None,
        };
        board.report(&CameraId::new("gate"), report(CameraStatus::Online));
        board.report(&CameraId::new("yard"), report(CameraStatus::Offline));
        let mut monitor = Monitor::new("edge07", "9f3c1a", start);
        let mut look = |second| {
            let input = gather(&metrics, &board, if second == 0 { Err(String::new()) } else { Ok(()) }, 0);
            monitor.observe(start + Duration::from_secs(second), SystemTime::UNIX_EPOCH, &input)
        };
        assert_eq!(
            line(&look(0)),
            "not ready · 2 cameras · 1 online · 0 fps · age p95 0 ms · batch 0 % · mqtt away"
        );
        // Rates count from when the model was open.
        let _ = look(1);
        metrics.camera(&CameraId::new("gate")).inferred.inc_by(148);
        metrics.publish.connected.set(1);
        metrics.lanes_filled.inc_by(92);
        metrics.lanes_total.inc_by(100);
        let mut report = look(2);
        report.health.frame_age_p95_ms = 84.0;
        let text = line(&report);
        assert_eq!(text, "2 cameras · 1 online · 148 fps · age p95 84 ms · batch 92 % · mqtt connected");
        report.health.overload = true;
        report.health.cameras = BTreeMap::new();
        assert!(line(&report).starts_with("OVERLOAD · 0 cameras · 0 online"));
    }

    #[test]
    fn a_pipe_gets_a_line_every_ten_seconds_and_one_at_the_end() {
        let start = Instant::now();
        let mut plain = Plain { what: "calibrating".to_owned(), total: 50, done: 0, said: start };
        let lines: Vec<String> =
            (1..=50).filter_map(|step| plain.advance(start + Duration::from_millis(step * 500), 1)).collect();
        assert_eq!(
            lines,
            ["calibrating: 20 of 50 (40 %)", "calibrating: 40 of 50 (80 %)", "calibrating: 50 of 50 (100 %)"]
        );
        assert_eq!(plain.advance(start + Duration::from_secs(26), 1), None);
    }
}
