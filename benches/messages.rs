//! Processor time of analysis and publishing a frame: `cargo bench --bench messages`. 128 cameras of 25 frames a second
//! with 11 boxes each, in batches of 32, to a Mosquitto of its own (Linux; it must be installed). First without tracks, then
//! with tracks of what lies elsewhere in each frame, as a net sees it that sees noise.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::bounded;
use watchpost::analyze::{Analysis, Output, Setup};
use watchpost::backend::{Batch, Lane};
use watchpost::config::{Broker, MqttConfig, MqttProtocol, TlsConfig};
use watchpost::frame::{CameraId, Captured, ClockSource, FrameInfo};
use watchpost::letterbox::{Fit, Letterbox};
use watchpost::metrics::Metrics;
use watchpost::publish::{self, Identity, Wanted};
use watchpost::scene::Rules;
use watchpost::track::TrackerSettings;
use watchpost::track::filter::Filter;
use watchpost::worker::{self, Heartbeat};
use watchpost::yolo::{Candidate, Candidates};

const CAMERAS: usize = 128;
const LANES: usize = 32;
const BOXES: usize = 11;
const SECONDS: u32 = 10;
/// A batch every 10 ms: 3,200 frames a second.
const PACE: Duration = Duration::from_millis(10);

fn main() {
    for noise in [false, true] {
        println!("{}", if noise { "tracks, of noise" } else { "no tracks" });
        run(noise);
    }
}

fn run(noise: bool) {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a port").port();
    let folder = tempfile::tempdir().expect("a folder");
    let mut mosquitto = Command::new("mosquitto");
    mosquitto.args(["-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let broker = Stopped(mosquitto.spawn().expect("mosquitto"));
    let mqtt = MqttConfig {
        broker: Broker::Remote { host: "127.0.0.1".to_owned(), port, tls: false },
        base: "watchpost".to_owned(),
        protocol: MqttProtocol::Auto,
        client_id: "bench".to_owned(),
        keep_alive: Duration::from_secs(30),
        user: None,
        password: None,
        tls: TlsConfig::default(),
        spool_bytes: 1 << 20,
    };
    let metrics = Arc::new(Metrics::default());
    let (node, boot) = ("box".to_owned(), "abc123".to_owned());
    let identity = Identity { node: node.clone(), boot: boot.clone() };
    let (publisher, running) =
        publish::start(Wanted::default(), &mqtt, identity, folder.path(), metrics.publish.clone(), bounded(1).0)
            .expect("a publisher");
    while metrics.publish.connected.get() == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let names: Vec<CameraId> = (0..CAMERAS).map(|n| CameraId::new(&format!("cam{n:03}"))).collect();
    let labels = Arc::new((0..80).map(|n| format!("class {n}")).collect());
    let setup = Setup {
        node,
        boot,
        labels,
        nms: 0.5,
        max_detections: 100,
        policies: BTreeMap::new(),
        rules: if noise { names.iter().map(|id| (id.clone(), rules())).collect() } else { BTreeMap::new() },
    };
    let (batches, free) = (bounded::<Batch>(4), bounded::<Batch>(4));
    let analysis = Analysis::new(setup, Arc::clone(&metrics));
    let (heart, back, sink) = (Heartbeat::new(Instant::now()), free.0.clone(), publisher.clone());
    let gone = bounded(1);
    let thread = worker::spawn("analyze", move || {
        analysis.run(&batches.1, &back, &gone.1, &heart, |camera, output| match output {
            Output::Detections(message) => sink.detections(camera, message),
            Output::BatchEnd => sink.wake(),
            _ => {}
        });
    });
    let (begun, before) = (Instant::now(), spent());
    let total = SECONDS * 1000 / PACE.as_millis() as u32;
    for number in 0..total {
        std::thread::sleep((begun + PACE * number).saturating_duration_since(Instant::now()));
        let mut batch = free.1.try_recv().unwrap_or_else(|_| Batch::new(Instant::now()));
        let first = number as usize * LANES % CAMERAS;
        batch.lanes = (first..first + LANES).map(|n| lane(&names[n], u64::from(number), noise)).collect();
        let _ = batches.0.send(batch);
    }
    let after = spent();
    let frames = f64::from(total) * LANES as f64;
    for name in ["analyze", "publish"] {
        println!("{name}: {:.1} µs a frame", (after[name] - before.get(name).unwrap_or(&0)) as f64 / 1e3 / frames);
    }
    let (sent, dropped) = (metrics.publish.published.get(), metrics.publish.detections_dropped.get());
    println!("{frames} frames, {sent} messages published, {dropped} dropped");
    drop(batches.0);
    let _ = thread.join();
    drop(publisher);
    running.finish(Duration::from_secs(1));
    drop(broker);
}

/// Tracks without events, as benches on a GPU have them.
fn rules() -> Rules {
    Rules {
        tracking: TrackerSettings::default(),
        filter: Filter { rules: Vec::new(), ignored: Vec::new() },
        zones: Vec::new(),
        lines: Vec::new(),
        events: None,
        snapshots: false,
        snapshot_urls: false,
    }
}

/// Killed with the bench, however that ends.
struct Stopped(std::process::Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

fn lane(camera: &CameraId, seq: u64, noise: bool) -> Lane {
    let now = Instant::now();
    let captured = Captured { wall: SystemTime::now(), clock: ClockSource::File, err_ms: 1 };
    let size = (1920, 1080);
    let frame = FrameInfo {
        camera: camera.clone(),
        seq,
        connection: 0,
        arrived: now,
        decoded: now,
        captured,
        pts_ns: Some(seq * 40_000_000),
        size,
        gate: None,
    };
    let mut rng = fastrand::Rng::with_seed(seq);
    let mut one = |n: usize| {
        if noise {
            let (x, y) = (rng.f32() * 540.0, 140.0 + rng.f32() * 260.0);
            let (width, height) = (20.0 + rng.f32() * 80.0, 20.0 + rng.f32() * 80.0);
            let (score, class) = (0.25 + rng.f32() * 0.6, rng.u32(..80));
            return Candidate { rect: [x, y, x + width, y + height], score, class };
        }
        let (x, y) = ((n % 4) as f32 * 150.0 + 3.3, (n / 4) as f32 * 120.0 + 140.7);
        Candidate { rect: [x, y, x + 77.7, y + 99.1], score: 0.3 + n as f32 * 0.0537, class: n as u32 % 3 }
    };
    let boxes = (0..BOXES).map(&mut one).collect();
    let candidates = Candidates { boxes, final_boxes: false, dropped: 0 };
    Lane { frame, letterbox: Letterbox::new(size, (640, 640), Fit::Centre), candidates, thumbnail: None }
}

/// Nanoseconds on a processor, by the name of the thread.
fn spent() -> BTreeMap<String, u64> {
    let mut spent = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").expect("/proc").flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let ns = read("schedstat").split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default();
        *spent.entry(read("comm").trim().to_owned()).or_default() += ns;
    }
    spent
}
