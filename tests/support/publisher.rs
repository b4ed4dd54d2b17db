//! A publisher under test.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, bounded};
use serde_json::json;
use watchpost::config::{Broker, MqttConfig, MqttProtocol, TlsConfig};
use watchpost::event::{Detections, Event, EventKind, LatMs, Model, Notice, NoticeKind, Ts};
use watchpost::frame::{CameraId, ClockSource};
use watchpost::metrics::PublishMetrics;
use watchpost::publish::{self, Card, Identity, Publisher, Request, Running, Wanted};

use super::mosquitto::{PATIENCE, wait_until};

const STOP: Duration = Duration::from_secs(10);

pub fn config(port: u16) -> MqttConfig {
    MqttConfig {
        broker: Broker::Remote { host: "127.0.0.1".to_owned(), port, tls: false },
        base: "watchpost".to_owned(),
        protocol: MqttProtocol::Auto,
        client_id: "watchpost-box".to_owned(),
        keep_alive: Duration::from_secs(5),
        user: None,
        password: None,
        tls: TlsConfig::default(),
        spool_bytes: 16 << 20,
    }
}

/// For TLS, with the certificates of two directories.
pub fn tls(port: u16, ca: &Path, client: Option<&Path>) -> MqttConfig {
    MqttConfig {
        broker: Broker::Remote { host: "127.0.0.1".to_owned(), port, tls: true },
        tls: TlsConfig {
            ca_file: Some(ca.join("ca.pem")),
            cert_file: client.map(|dir| dir.join("client.pem")),
            key_file: client.map(|dir| dir.join("client.key")),
        },
        ..config(port)
    }
}

/// A publisher under test.
pub struct Box {
    pub publisher: Publisher,
    pub running: Running,
    pub metrics: PublishMetrics,
    pub commands: Receiver<Request>,
}

impl Box {
    pub fn start(config: &MqttConfig, state: &Path) -> Self {
        Self::telling(Wanted::default(), config, state)
    }

    /// One that tells other consumers, too.
    pub fn telling(wanted: Wanted, config: &MqttConfig, state: &Path) -> Self {
        let metrics = PublishMetrics::default();
        let identity = Identity { node: "box".to_owned(), boot: "0123ab".to_owned() };
        let (commands_in, commands) = bounded(16);
        let (publisher, running) =
            publish::start(wanted, config, identity, state, metrics.clone(), commands_in).unwrap();
        Self { publisher, running, metrics, commands }
    }

    pub fn notices(&self, range: std::ops::Range<u32>) {
        for n in range {
            self.publisher.notice(NoticeKind::CameraLost, Some(&gate()), format!("n{n}"));
        }
    }

    pub fn wait_connected(&self) {
        wait_until("a connection", || self.metrics.connected.get() == 1);
    }

    pub fn wait_problem(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.publisher.problem().is_some_and(|problem| problem.contains(words)) {
            assert!(Instant::now() < deadline, "{:?} instead of {words:?}", self.publisher.problem());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn finish(self) -> PublishMetrics {
        drop(self.publisher);
        self.running.finish(STOP);
        self.metrics
    }
}

/// Where Home Assistant is told of the box and its camera, in the order of their topics.
pub const DEVICES: [&str; 2] = ["homeassistant/device/box/config", "homeassistant/device/box_gate/config"];

/// Home Assistant is told of the box and its camera.
pub fn homeassistant() -> Wanted {
    let cameras = [(gate(), Card::default())].into();
    Wanted { homeassistant: Some("homeassistant".to_owned()), cameras, ..Wanted::default() }
}

pub fn gate() -> CameraId {
    CameraId::new("gate")
}

/// A person of the camera `gate` in the zone `drive`.
pub fn event(kind: EventKind) -> Event {
    let inside = json!({
        "schema": "watchpost.event/1", "node": "box", "camera": "gate", "boot": "0123ab", "seq": 0, "type": kind,
        "id": "gate-0123ab-7", "frame": 9, "size": [1920, 1080], "label": "person", "class": 0, "score": 0.9,
        "ts": {"captured": "2026-09-30T10:15:02.417Z", "clock": "rtcp_sr", "err_ms": 1, "published": ""},
        "model": {"name": "m", "input": [640, 640], "engine": "sha256:00"}, "top_score": 0.9,
        "box": [0.4, 0.2, 0.5, 0.6], "zones": ["drive"], "entered_zones": ["drive"],
        "dwell_s": {"drive": 0.4}, "crossings": [],
        "start": "2026-09-30T10:15:02.017Z", "stationary": false, "replayed": false,
    });
    serde_json::from_value(inside).unwrap()
}

pub fn notice(body: &[u8]) -> Notice {
    serde_json::from_slice(body).unwrap()
}

pub fn detections(seq: u64) -> Detections {
    let ts = Ts {
        captured: String::new(),
        clock: ClockSource::HostArrival,
        err_ms: 0,
        published: String::new(),
        pts_ns: None,
    };
    Detections {
        schema: "watchpost.detections/1".into(),
        node: "box".into(),
        camera: CameraId::new("gate"),
        boot: "0123ab".into(),
        seq,
        frame: seq,
        ts,
        size: [1920, 1080],
        model: Arc::new(Model { name: "m".to_owned(), input: [640, 640], engine: "sha256:00".to_owned() }),
        lat_ms: LatMs { decode: 0.0, queue: 0.0, infer: 0.0, total: 0.0 },
        objects: Vec::new(),
    }
}
