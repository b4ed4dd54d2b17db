//! The real daemon as a child process, and what it says on MQTT.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tempfile::TempDir;
use watchpost::event::{CameraState, CameraStatus, Detections, Event, FrameCounts, Health, Notice, NoticeKind};

use super::assets::find_assets;
use super::link::{Condition, Link};
use super::mosquitto::{Message, Mosquitto, PATIENCE, Subscriber, free_port};
use super::{onnx, schemas};

/// Longest a stop may take: `stop_deadline` below, and a little.
const STOP: Duration = Duration::from_secs(12);

/// The daemon with a broker of its own and a subscriber to everything; killed when dropped.
pub struct Daemon {
    child: Child,
    dir: TempDir,
    http: u16,
    broker: Mosquitto,
    watch: Subscriber,
    stopping: bool,
    /// Its configuration without cameras.
    head: String,
    /// Variables of its environment.
    env: Vec<(String, String)>,
    /// What it has said.
    pub heard: Heard,
}

/// What a daemon has said on MQTT so far.
#[derive(Default)]
pub struct Heard {
    /// `detections` by camera, with the time at which they came.
    pub detections: BTreeMap<String, Vec<(Instant, Detections)>>,
    /// Every `events` message, of all cameras.
    pub events: Vec<Event>,
    /// `state` by camera.
    pub states: BTreeMap<String, Vec<CameraState>>,
    /// Every `health`.
    pub health: Vec<Health>,
    /// Every `notice`, with the time at which it came.
    pub notices: Vec<(Instant, Notice)>,
    /// The latest picture of each topic below `watchpost/box/` that has pictures.
    pub pictures: BTreeMap<String, Vec<u8>>,
    /// The latest text of every other topic, below `watchpost/box/`.
    pub texts: BTreeMap<String, String>,
}

impl Heard {
    /// The `detections` of a camera.
    pub fn of(&self, camera: &str) -> &[(Instant, Detections)] {
        self.detections.get(camera).map_or(&[], Vec::as_slice)
    }

    /// How many `detections` of a camera came.
    pub fn count(&self, camera: &str) -> usize {
        self.of(camera).len()
    }

    /// The `q` quantile (0..1) of a camera's frame age in milliseconds; its first frame may have waited for the model.
    pub fn age_ms(&self, camera: &str, q: f64) -> f64 {
        let mut ages: Vec<f64> = self.of(camera).iter().skip(1).map(|(_, m)| m.lat_ms.total).collect();
        ages.sort_by(f64::total_cmp);
        ages[(ages.len() as f64 * q) as usize]
    }

    /// The latest state of a camera.
    pub fn state(&self, camera: &str) -> Option<&CameraState> {
        self.states.get(camera)?.last()
    }

    /// A camera's latest state is this.
    pub fn is(&self, camera: &str, status: CameraStatus) -> bool {
        self.state(camera).is_some_and(|state| state.status == status)
    }

    /// The latest text of a topic below `watchpost/box/`.
    pub fn text(&self, topic: &str) -> &str {
        self.texts.get(topic).map_or("", String::as_str)
    }

    /// The notices of a kind about a camera.
    pub fn notices_of(&self, kind: NoticeKind, camera: Option<&str>) -> Vec<&(Instant, Notice)> {
        self.notices.iter().filter(|(_, n)| n.kind == kind && n.camera.as_deref() == camera).collect()
    }

    fn take(&mut self, message: &Message) {
        let (topic, body, at) =
            (message.topic.strip_prefix("watchpost/box/").expect(&message.topic), &message.body[..], message.at);
        let channel = schemas::check(&message.topic, body);
        assert!(!message.retained || channel.is_none_or(schemas::Channel::is_retained), "{topic} is retained");
        if body.is_empty() {
            // A retained topic is cleared.
            self.texts.insert(topic.to_owned(), String::new());
            return;
        }
        let levels: Vec<&str> = topic.split('/').collect();
        match levels[..] {
            ["cam", camera, "detections"] => {
                let message: Detections = json(topic, body);
                assert_eq!(message.camera.as_str(), camera);
                self.detections.entry(camera.to_owned()).or_default().push((at, message));
            }
            ["cam", _, "events"] => self.events.push(json(topic, body)),
            ["cam", camera, "state"] => {
                self.states.entry(camera.to_owned()).or_default().push(json(topic, body));
            }
            ["cam", _, "snapshot"] | ["cam", _, "snapshot", _] => {
                self.pictures.insert(topic.to_owned(), body.to_vec());
            }
            ["health"] => self.health.push(json(topic, body)),
            ["notice"] => self.notices.push((at, json(topic, body))),
            _ => {
                self.texts.insert(topic.to_owned(), String::from_utf8_lossy(body).into_owned());
            }
        }
    }
}

fn json<T: DeserializeOwned>(topic: &str, body: &[u8]) -> T {
    serde_json::from_slice(body).unwrap_or_else(|e| panic!("{topic}: {e}: {}", String::from_utf8_lossy(body)))
}

impl Daemon {
    /// Starts one with YOLOX-nano on OpenVINO, extra lines for `[engine]`, and `[[camera]]` sections. `None`, with a
    /// word about it, where the model is not at hand.
    pub fn start(engine: &str, cameras: &str) -> Option<Self> {
        Self::start_with(TempDir::new().unwrap(), Vec::new(), engine, cameras)
    }

    /// The same in a folder at hand, with variables in its environment.
    pub fn start_with(dir: TempDir, env: Vec<(String, String)>, engine: &str, cameras: &str) -> Option<Self> {
        Self::start_by(dir, env, engine, cameras, |port| port)
    }

    /// The same, and its broker, whose port is given, is reached at the port that comes back.
    pub fn start_by(
        dir: TempDir,
        env: Vec<(String, String)>,
        engine: &str,
        cameras: &str,
        by: impl FnOnce(u16) -> u16,
    ) -> Option<Self> {
        Some(Self::run(dir, env, &yolox(engine)?, "", cameras, by))
    }

    /// The same in a folder of its own, with extra lines for `[mqtt]`.
    pub fn start_over(mqtt: &str, cameras: &str, by: impl FnOnce(u16) -> u16) -> Option<Self> {
        Some(Self::run(TempDir::new().unwrap(), Vec::new(), &yolox("")?, mqtt, cameras, by))
    }

    /// The same with a model that costs nothing and takes batches of any size.
    pub fn start_tiny(engine: &str, cameras: &str) -> Self {
        Self::start_tiny_by(engine, cameras, |port| port)
    }

    /// The same, and its broker, whose port is given, is reached at the port that comes back.
    pub fn start_tiny_by(engine: &str, cameras: &str, by: impl FnOnce(u16) -> u16) -> Self {
        let engine = format!("confidence = 1.0\n{engine}");
        Self::start_tiny_in(TempDir::new().unwrap(), Vec::new(), &engine, cameras, by)
    }

    /// The same in a folder at hand, with variables in its environment; it sees what `confidence` says: boxes in what is white.
    pub fn start_tiny_in(
        dir: TempDir,
        env: Vec<(String, String)>,
        engine: &str,
        cameras: &str,
        by: impl FnOnce(u16) -> u16,
    ) -> Self {
        fs::write(dir.path().join("tiny.onnx"), onnx::yolov8_any_batch()).unwrap();
        let manifest = "name = \"tiny\"\nmodel = \"tiny.onnx\"\nlabels = [\"a\", \"b\"]\n";
        fs::write(dir.path().join("tiny.toml"), manifest).unwrap();
        Self::run(dir, env, &format!("manifest = \"tiny.toml\"\n{engine}"), "", cameras, by)
    }

    fn run(
        dir: TempDir,
        env: Vec<(String, String)>,
        engine: &str,
        mqtt: &str,
        cameras: &str,
        by: impl FnOnce(u16) -> u16,
    ) -> Self {
        let broker = Mosquitto::start(&[]);
        let watch = Subscriber::start(broker.port(), "watchpost/box/#", None);
        let http = free_port();
        let config = dir.path().join("box.toml");
        let text = format!(
            "node = \"box\"\nstate_dir = \"state\"\nstop_deadline = \"10s\"\n\
             [engine]\n{engine}\n[mqtt]\nbroker = \"mqtt://127.0.0.1:{}\"\n{mqtt}\
             [http]\nlisten = \"127.0.0.1:{http}\"\n",
            by(broker.port()),
        );
        fs::write(&config, format!("{text}{cameras}")).unwrap();
        let child = spawn(dir.path(), &env);
        Self { child, dir, http, broker, watch, stopping: false, head: text, env, heard: Heard::default() }
    }

    /// Writes other cameras, and what else stands behind them, into its configuration.
    pub fn write(&self, cameras: &str) {
        fs::write(self.dir.path().join("box.toml"), format!("{}{cameras}", self.head)).unwrap();
    }

    /// Lines of its configuration before the cameras.
    pub fn head_lines(&self) -> usize {
        self.head.lines().count()
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Its broker's port.
    pub fn port(&self) -> u16 {
        self.broker.port()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its HTTP server's port.
    pub fn http_port(&self) -> u16 {
        self.http
    }

    /// Sends its broker a signal by name.
    pub fn signal_broker(&self, name: &str) {
        self.broker.signal(name);
    }

    /// Kills its broker with signal 9; `link` leads to it.
    pub fn kill_broker(&mut self, link: &Link) {
        self.broker.kill();
        link.set(Condition::Away);
        link.cut();
    }

    /// Starts its broker, which has kept nothing; nobody gets in by `link` before the test listens.
    pub fn start_broker(&mut self, link: &Link) {
        self.watch.subscribed.try_iter().for_each(drop);
        self.broker.restart();
        self.watch.subscribed.recv_timeout(PATIENCE).unwrap();
        link.set(Condition::Good);
    }

    /// Publishes a command that the broker is to keep.
    pub fn publish_retained(&self, topic: &str, body: &str) {
        self.watch.publish(&format!("watchpost/box/{topic}"), body, true);
    }

    /// Publishes a command of any bytes.
    pub fn publish_bytes(&self, topic: &str, body: &[u8]) {
        self.watch.publish_bytes(&format!("watchpost/box/{topic}"), body);
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.stopping = true;
    }

    /// Ends it with SIGKILL, and starts it again as it was: same configuration, same state, same broker.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Starts it, after its end, as it was.
    pub fn start_again(&mut self) {
        self.child = spawn(self.dir.path(), &self.env);
        self.stopping = false;
    }

    /// Listens until `done`.
    ///
    /// # Panics
    ///
    /// Where that takes longer than `limit`, or the daemon has ended by itself.
    pub fn until(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&Heard) -> bool) {
        let deadline = Instant::now() + limit;
        while !done(&self.heard) {
            assert!(Instant::now() < deadline, "waited in vain for: {what}; {}", self.last_words());
            let slice = deadline.min(Instant::now() + Duration::from_secs(1));
            if let Ok(message) = self.watch.messages.recv_deadline(slice) {
                self.heard.take(&message);
                continue;
            }
            let ended = if self.stopping { None } else { self.child.try_wait().unwrap() };
            assert!(ended.is_none(), "it ended by itself ({ended:?}), waiting for: {what}");
        }
    }

    /// Takes what has come, without waiting.
    pub fn listen(&mut self) {
        while let Ok(message) = self.watch.messages.try_recv() {
            self.heard.take(&message);
        }
    }

    fn last_words(&self) -> String {
        let states = self.heard.states.values().filter_map(|states| states.last());
        let states: Vec<String> = states.map(|s| serde_json::to_string(s).unwrap()).collect();
        let counts: Vec<_> = self.heard.detections.iter().map(|(camera, all)| (camera, all.len())).collect();
        format!("messages {counts:?}\n{}", states.join("\n"))
    }

    /// Publishes a command.
    pub fn publish(&self, topic: &str, body: &str) {
        self.watch.publish(&format!("watchpost/box/{topic}"), body, false);
    }

    /// A page of its HTTP server.
    pub fn page(&self, path: &str) -> String {
        String::from_utf8(self.answer(path)).unwrap()
    }

    /// The same as it comes, with its head.
    pub fn answer(&self, path: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    /// A counter of `/metrics` for one camera.
    pub fn counter(&self, name: &str, camera: &str) -> u64 {
        self.metric(&format!("{name}_total{{camera=\"{camera}\"}}"))
    }

    /// A counter of `/metrics` without labels.
    pub fn total(&self, name: &str) -> u64 {
        self.metric(&format!("{name}_total"))
    }

    /// A value of `/metrics`, by all that stands before it.
    pub fn metric(&self, name: &str) -> u64 {
        let start = format!("watchpost_{name} ");
        let page = self.page("/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("no {start} in {page}")).parse().unwrap()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// A folder for the test's files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where its log lies.
    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Sends SIGTERM and waits for the end; how it ended and how long that took.
    pub fn end(&mut self) -> (ExitStatus, Duration) {
        self.signal("TERM");
        self.ended(STOP)
    }

    /// Waits for its end, for so long at most; how it ended and how long that took.
    pub fn ended(&mut self, limit: Duration) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        self.stopping = true;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < limit, "still running after {limit:?}");
            std::thread::sleep(Duration::from_millis(5));
        };
        (status, begun.elapsed())
    }

    /// The same, and all it had to say was heard then.
    pub fn stop(&mut self) -> (ExitStatus, Duration) {
        let (status, took) = self.end();
        self.heard.texts.remove("end-of-test");
        // What the broker relays in order comes before this.
        self.watch.publish("watchpost/box/end-of-test", "", false);
        self.until("the broker's last word", STOP, |heard| heard.texts.contains_key("end-of-test"));
        (status, took)
    }

    /// Stops it, which must go well, and looks at the last state of every camera: each frame is accounted for.
    pub fn finish(&mut self) -> BTreeMap<String, FrameCounts> {
        let (status, took) = self.stop();
        assert!(status.success(), "ended with {status} after {took:?}");
        let last = |states: &Vec<CameraState>| states.last().map(|state| state.frames).unwrap_or_default();
        let counts: BTreeMap<String, FrameCounts> =
            self.heard.states.iter().map(|(camera, states)| (camera.clone(), last(states))).collect();
        for (camera, c) in &counts {
            let accounted = c.inferred + c.overwritten + c.skipped_fps + c.gated + c.dropped;
            let drops = self.heard.state(camera).unwrap().drops;
            assert_eq!(drops, c.overwritten + c.dropped, "{camera}");
            assert_eq!(c.decoded, accounted, "{camera}: a frame without account: {c:?}");
            let heard = self.heard.count(camera) as u64;
            assert!(heard <= c.inferred, "{camera}: {heard} messages of {c:?}");
            assert_eq!(self.heard.text(&format!("cam/{camera}/status")), "offline");
        }
        counts
    }
}

/// The lines of `[engine]` for YOLOX-nano, and `more`.
fn yolox(more: &str) -> Option<String> {
    let Some(assets) = find_assets() else {
        eprintln!("skipped: no folder of models: set WATCHPOST_ASSETS");
        return None;
    };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/yolox-nano.toml");
    let model = assets.join("models/yolox_nano.onnx");
    Some(format!("manifest = {manifest:?}\nmodel = {model:?}\n{more}"))
}

/// The daemon on `box.toml` of a folder; its log is added to `log` there.
fn spawn(folder: &Path, env: &[(String, String)]) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_watchpost"))
        .arg("run")
        .arg(folder.join("box.toml"))
        .env_remove("WATCHPOST_LOG")
        .env_remove("JOURNAL_STREAM")
        .envs(env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.broker.kill();
    }
}

/// A `[[camera]]` section.
pub fn camera(id: &str, url: &str, more: &str) -> String {
    format!("[[camera]]\nid = \"{id}\"\nurl = \"{url}\"\n{more}\n")
}

/// A picture that never fails: what the other cameras must not disturb.
pub fn witness() -> String {
    camera("witness", "test://?size=320x240&fps=5", "")
}

/// The witness never waited with another camera for its time-out of 5 s, nor was it lost.
pub fn undisturbed(daemon: &Daemon) {
    let messages = daemon.heard.of("witness");
    let pauses = messages.windows(2).map(|pair| pair[1].0.duration_since(pair[0].0));
    let longest = pauses.max().unwrap();
    assert!(longest < Duration::from_secs(4), "the other camera paused for {longest:?}");
    never_lost(daemon);
}

/// Every frame of the witness was analysed and told of, none twice; only where the machine itself stands still for 200 ms
/// does a newer frame take the place of one in the slot. While the daemon runs.
pub fn lost_no_frame(daemon: &Daemon) {
    let frames: Vec<u64> = daemon.heard.of("witness").iter().map(|(_, message)| message.frame).collect();
    assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "{frames:?}");
    let missing = frames[frames.len() - 1] + 1 - frames[0] - frames.len() as u64;
    let overwritten = daemon.counter("frames_overwritten", "witness");
    assert!(
        missing <= overwritten && overwritten <= 5,
        "{overwritten} overwritten, {missing} missing of {frames:?}"
    );
    assert_eq!(daemon.counter("frames_dropped", "witness"), 0);
    never_lost(daemon);
}

fn never_lost(daemon: &Daemon) {
    let lost = daemon.heard.notices_of(NoticeKind::CameraLost, Some("witness"));
    assert!(lost.is_empty(), "{lost:?}");
    let states = &daemon.heard.states["witness"];
    assert!(states.iter().all(|state| state.attempts == 0), "{states:?}");
}
