//! Has an engine built by a program of its own: TensorRT's builder takes minutes, much memory, and trusts what it reads.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};

use super::Settings;
use crate::backend::{BackendError, Building, Progress};
use crate::engine::built::ProgressLine;
use crate::worker;

/// Longest build: the largest models take an hour on a Jetson.
const LIMIT: Duration = Duration::from_secs(6 * 3600);
/// Between two signs of life.
const TICK: Duration = Duration::from_secs(1);
/// What is read of the program's complaints, in bytes: the last lines say why.
const COMPLAINT_BYTES: usize = 1 << 16;

/// Builds the engine at `path` and waits for it, perhaps `beside` one that serves. `progress` hears of it each second, and
/// stops it.
///
/// # Errors
///
/// [`BackendError::Unavailable`]: in the builder's words, why not. [`BackendError::Stopped`] where `progress` says so.
pub fn run(settings: &Settings, path: &Path, progress: &Progress, beside: bool) -> Result<(), BackendError> {
    wait(Builder::start(command(settings, path)?)?, progress, beside)
}

fn wait(builder: Builder, progress: &Progress, beside: bool) -> Result<(), BackendError> {
    let mut last = ProgressLine { pct: 0, text: "starting".to_owned() };
    let begun = Instant::now();
    let tell = |line: &ProgressLine| progress(Building::Step { pct: line.pct, text: line.text.clone(), beside });
    while begun.elapsed() < LIMIT {
        match builder.lines.recv_timeout(TICK) {
            Ok(line) => last = line,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return builder.end().map_err(|error| {
                    // A service manager ends both at once, and we hear of it a moment later.
                    std::thread::sleep(TICK);
                    if tell(&last) { error } else { BackendError::Stopped }
                });
            }
        }
        if !tell(&last) {
            return Err(BackendError::Stopped);
        }
    }
    let hours = LIMIT.as_secs() / 3600;
    Err(BackendError::Unavailable(format!(
        "the engine was not built within {hours} h: run `watchpost engine build` to see what it does"
    )))
}

fn no_program(error: std::io::Error) -> BackendError {
    BackendError::Unavailable(format!("the engine cannot be built, a program does not start: {error}: try again"))
}

/// This program once more, as a builder.
fn command(settings: &Settings, path: &Path) -> Result<Command, BackendError> {
    let mut command = Command::new(std::env::current_exe().map_err(no_program)?);
    command.args(["--log", "warn", "engine", "build", "--progress", "json", "--manifest"]);
    command.arg(&settings.manifest_file);
    // The configuration's own model has no digest to be held against.
    if settings.manifest.sha256.is_none() {
        command.arg("--onnx").arg(&settings.manifest.model);
    }
    command.arg("--out").arg(path).args(["--device", &settings.tensorrt.device.to_string()]);
    if let Some(lanes) = settings.lanes {
        command.args(["--batch", &lanes.to_string()]);
    }
    if let Some(folder) = &settings.tensorrt.library {
        command.arg("--tensorrt").arg(folder);
    }
    Ok(command)
}

/// The running program; dropping it ends it.
struct Builder {
    child: Child,
    lines: Receiver<ProgressLine>,
    complaints: Receiver<String>,
}

impl Builder {
    fn start(mut command: Command) -> Result<Self, BackendError> {
        // Ctrl-C on our terminal is for us to pass on.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(no_program)?;
        let (telling, lines) = bounded(16);
        let (complaining, complaints) = bounded(1);
        if let Some(stdout) = child.stdout.take() {
            worker::spawn("build-out", move || read_lines(stdout, |line| telling.send(line).is_ok()));
        }
        if let Some(stderr) = child.stderr.take() {
            worker::spawn("build-err", move || {
                let _ = complaining.send(last_words(stderr));
            });
        }
        Ok(Self { child, lines, complaints })
    }

    /// What became of it, once it says nothing more.
    fn end(mut self) -> Result<(), BackendError> {
        let status = self.child.wait();
        let complaint = self.complaints.recv_timeout(TICK).unwrap_or_default();
        if status.as_ref().is_ok_and(|status| status.success()) {
            warnings(&complaint).for_each(|warning| tracing::warn!("while the engine was built: {warning}"));
            return Ok(());
        }
        let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
        Err(BackendError::Unavailable(format!("the engine cannot be built: {}", reason(&complaint, &status))))
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gives each progress line on, until nobody takes them.
fn read_lines(stdout: ChildStdout, mut take: impl FnMut(ProgressLine) -> bool) {
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { return };
        if let Ok(step) = serde_json::from_str(&line)
            && !take(step)
        {
            return;
        }
    }
}

/// The end of what is said, read to the end: who is not listened to waits, or ends.
fn last_words(mut said: impl Read) -> String {
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match said.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => text.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // What was read until then will do.
            Err(_) => break,
        }
        if text.len() > 2 * COMPLAINT_BYTES {
            text.drain(..text.len() - COMPLAINT_BYTES);
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// What the program's log warns of, without time and place.
fn warnings(complaint: &str) -> impl Iterator<Item = &str> {
    complaint.lines().filter_map(|line| Some(line.split_once(" WARN ")?.1.split_once(": ")?.1))
}

/// The program's own last sentence, else how it ended.
fn reason(complaint: &str, status: &str) -> String {
    let own = complaint.lines().rev().find_map(|line| line.strip_prefix("watchpost: "));
    own.map_or_else(
        || format!("the builder ended with {status}: run `watchpost engine build` to see why"),
        str::to_owned,
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn the_builders_own_sentence_is_told() {
        let complaint = "WARN something\nwatchpost: model a.onnx: it is empty: get the file again\n";
        assert_eq!(reason(complaint, "exit status: 69"), "model a.onnx: it is empty: get the file again");
        assert!(reason("", "signal: 11 (SIGSEGV)").contains("SIGSEGV"));
    }

    #[test]
    fn what_the_builder_warns_of_is_repeated() {
        let log = "2026-11-30T22:56:21.113Z  WARN watchpost::cmd::engine::build: RTX takes fp32: not fp16\nother words\n \
            2026-11-30T22:56:22.113Z  INFO watchpost: built\n";
        assert_eq!(warnings(log).collect::<Vec<_>>(), ["RTX takes fp32: not fp16"]);
    }

    fn shell(script: &str) -> Builder {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Builder::start(command).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn steps_are_told_and_a_builder_that_fails_says_why() {
        let script = |end: &str| format!(r#"echo nonsense; echo '{{"pct": 7, "text": "tuning"}}'; {end}"#);
        let told = Arc::new(Mutex::new(Vec::new()));
        let hear = Arc::clone(&told);
        let progress: Progress = Arc::new(move |step| {
            hear.lock().unwrap().push(step);
            true
        });
        assert!(wait(shell(&script("exit 0")), &progress, true).is_ok());
        let heard = told.lock().unwrap().clone();
        // "starting" may have been told before, where the shell took its time.
        let last = heard.last();
        assert!(
            matches!(last, Some(Building::Step { pct: 7, text, beside: true }) if text == "tuning"),
            "{heard:?}"
        );
        let failed = wait(shell(&script("echo 'watchpost: the GPU is full' >&2; exit 69")), &progress, false);
        assert_eq!(failed.unwrap_err().to_string(), "the engine cannot be built: the GPU is full");
        let killed = wait(shell(&script("kill -SEGV $$")), &progress, false).unwrap_err().to_string();
        assert!(killed.contains("SIGSEGV") && killed.contains("run `watchpost engine build`"), "{killed}");
    }

    #[test]
    fn a_builder_is_ended_where_nobody_wants_its_engine() {
        let builder = shell("exec sleep 600");
        let process = PathBuf::from(format!("/proc/{}", builder.child.id()));
        assert!(process.exists());
        let begun = Instant::now();
        let stopped = wait(builder, &(Arc::new(|_| false) as Progress), false);
        assert!(matches!(stopped, Err(BackendError::Stopped)), "{stopped:?}");
        assert!(!process.exists() && begun.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn of_many_words_the_last_ones_are_kept() {
        let said = "WARN something that is said again and again\n".repeat(20_000) + "watchpost: the GPU is full\n";
        let kept = last_words(said.as_bytes());
        assert!(kept.len() <= 2 * COMPLAINT_BYTES, "{} of {} bytes", kept.len(), said.len());
        assert_eq!(reason(&kept, "exit status: 69"), "the GPU is full");
    }
}
