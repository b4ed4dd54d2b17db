//! How a build's progress is told: a bar, plain lines, or JSON for the daemon that waits for it.

use std::io::{self, Write};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::cli::engine::ProgressForm;
use crate::cmd::status_line::Progress;
use crate::engine::built::ProgressLine;
use crate::engine::progress::Estimate;
use crate::gpu::trt;
use crate::logging::Console;
use crate::worker;

/// A line of JSON this often, also where nothing is new: it says that the builder is alive.
const EVERY: Duration = Duration::from_secs(1);
/// Steps on their way; more than a second brings are dropped, as the next one says more.
const STEPS: usize = 1024;

struct Step {
    name: String,
    done: u32,
    total: u32,
}

/// Tells how far a build is, on a thread of its own: TensorRT may be silent for minutes.
pub struct Report {
    steps: Option<Sender<Step>>,
    thread: Option<JoinHandle<()>>,
}

impl Report {
    /// Begins. `what` is being built.
    pub fn start(form: ProgressForm, console: &Console, what: &str, estimate: Estimate) -> Self {
        let (steps, told) = bounded(STEPS);
        let start = Instant::now();
        let face = match form {
            ProgressForm::Auto => Face::Bar { bar: Progress::new(console, what, 100, start), shown: 0 },
            ProgressForm::Json => Face::Json,
        };
        let teller = Teller { what: what.to_owned(), start, estimate, face, phase: String::new() };
        let thread = worker::spawn("build-report", move || teller.run(&told));
        Self { steps: Some(steps), thread: Some(thread) }
    }

    /// What TensorRT says.
    pub fn tell(&self, progress: &trt::Progress) {
        match progress {
            trt::Progress::Phase { name, done, total } => {
                if let Some(steps) = &self.steps {
                    // Full: see `STEPS`.
                    let _ = steps.try_send(Step { name: (*name).to_owned(), done: *done, total: *total });
                }
            }
            // Its log goes to ours by itself.
            trt::Progress::Message(_) | trt::Progress::Cache(_) => {}
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.steps = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

enum Face {
    Bar { bar: Progress, shown: u8 },
    Json,
}

struct Teller {
    what: String,
    start: Instant,
    estimate: Estimate,
    face: Face,
    /// The newest.
    phase: String,
}

impl Teller {
    fn run(mut self, steps: &Receiver<Step>) {
        let mut due = self.start;
        loop {
            match steps.recv_deadline(due) {
                Ok(step) => {
                    self.estimate.phase(&step.name, step.done, step.total);
                    self.phase = step.name;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            if now >= due {
                due = now + EVERY;
                self.tell(now);
            }
        }
    }

    fn tell(&mut self, now: Instant) {
        let pct = self.estimate.at(now.saturating_duration_since(self.start));
        match &mut self.face {
            Face::Bar { bar, shown } => {
                bar.advance(now, u64::from(pct.saturating_sub(*shown)));
                *shown = pct.max(*shown);
            }
            Face::Json => {
                let text = match self.estimate.is_by_time() {
                    true => format!("{}: estimated from the time it takes", self.what),
                    false => format!("{}: {}", self.what, self.phase),
                };
                line(pct, text);
            }
        }
    }
}

/// Prints one line of JSON. Where nobody reads any more, nobody waits for the engine either: the process ends, and does
/// not disturb the next builder's measurements.
pub fn line(pct: u8, text: String) {
    // A struct of a number and a text always serialises.
    let json = serde_json::to_string(&ProgressLine { pct, text }).unwrap_or_default();
    let mut out = io::stdout().lock();
    if writeln!(out, "{json}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}
