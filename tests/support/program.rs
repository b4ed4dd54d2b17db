//! The real program: run to its end, or as a daemon whose lines can be waited for.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, bounded};
use tempfile::TempDir;
use watchpost::worker::spawn;

use super::onnx;

/// Longest wait for a line, or for the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// More lines than a run has, or the test would hold the program up.
const LINES: usize = 100_000;

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Ended with `code` and these words, in lines of our own only.
    #[track_caller]
    pub fn says(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for words in words {
            assert!(self.err.contains(words), "{words:?} is not in {self:#?}");
        }
        for line in self.err.lines() {
            assert!(line.starts_with("watchpost: "), "{line:?} is not ours in {self:#?}");
        }
    }

    /// As [`Ended::says`], in one line.
    #[track_caller]
    pub fn says_in_one_line(&self, code: i32, words: &[&str]) {
        self.says(code, words);
        assert_eq!(self.err.lines().count(), 1, "{self:#?}");
    }
}

/// The program with a clean environment.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchpost"));
    command.env_remove("WATCHPOST_LOG").env_remove("JOURNAL_STREAM").stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// A running `watchpost run`, killed when dropped.
pub struct Daemon {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Daemon {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = bounded(LINES);
        let streams: [Box<dyn BufRead + Send>; 2] = [
            Box::new(BufReader::new(child.stdout.take().unwrap())),
            Box::new(BufReader::new(child.stderr.take().unwrap())),
        ];
        for stream in streams {
            let sender = sender.clone();
            spawn("output", move || stream.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        }
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line with `words` in it.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        if let Some(line) = self.seen.iter().find(|line| line.contains(words)) {
            return line.clone();
        }
        loop {
            let Ok(line) = self.lines.recv_deadline(deadline) else {
                panic!("{words:?} did not come after {:#?}", self.seen)
            };
            self.seen.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Waits for its end: exit code, all lines, and how long it took.
    #[track_caller]
    pub fn finish(mut self) -> (Option<i32>, String, Duration) {
        let start = Instant::now();
        // Both streams end with the process.
        while let Ok(line) = self.lines.recv_deadline(start + PATIENCE) {
            self.seen.push(line);
        }
        assert!(start.elapsed() < PATIENCE, "still running after {:#?}", self.seen);
        let code = self.child.wait().unwrap().code();
        (code, self.seen.join("\n"), start.elapsed())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with a tiny model, its manifest, and configurations.
pub struct Site(pub TempDir);

/// The parts of a configuration, each with a sound default.
pub struct Written<'a> {
    pub top: &'a str,
    pub engine: &'a str,
    pub mqtt: &'a str,
    pub http: &'a str,
    pub cameras: &'a str,
}

impl Default for Written<'_> {
    fn default() -> Self {
        Self {
            top: "",
            engine: "manifest = \"tiny.toml\"",
            mqtt: "broker = \"mqtt://127.0.0.1:1\"",
            http: "listen = \"127.0.0.1:0\"",
            cameras: "[[camera]]\nid = \"gate\"\nurl = \"test://?size=64x48&fps=5\"",
        }
    }
}

impl Site {
    pub fn new() -> Self {
        let site = Self(TempDir::new().unwrap());
        site.write("tiny.onnx", onnx::yolov8());
        site.write("tiny.toml", "name = \"tiny\"\nmodel = \"tiny.onnx\"\nlabels = [\"a\", \"b\"]\n");
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file; its path.
    pub fn write(&self, name: &str, body: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, body).unwrap();
        path
    }

    /// Writes `config.toml`; its path. Its first line is `node`, its state lies in `state`.
    pub fn config(&self, written: &Written<'_>) -> PathBuf {
        let Written { top, engine, mqtt, http, cameras } = written;
        let state = if top.contains("state_dir") { "" } else { "state_dir = \"state\"" };
        let text = format!(
            "node = \"box\"\n{state}\n{top}\n[engine]\n{engine}\n[mqtt]\n{mqtt}\n[http]\n{http}\n{cameras}\n"
        );
        self.write("config.toml", text)
    }

    /// `watchpost check` of a configuration.
    pub fn check(&self, written: &Written<'_>) -> Ended {
        ended(program().arg("check").arg(self.config(written)))
    }

    /// `watchpost run` of a configuration.
    pub fn run(&self, written: &Written<'_>) -> Command {
        run(&self.config(written))
    }
}

pub fn run(config: &Path) -> Command {
    let mut command = program();
    command.arg("run").arg(config);
    command
}
