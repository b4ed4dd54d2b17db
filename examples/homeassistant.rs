//! Prints what `scripts/homeassistant` gives a real Home Assistant: a line of JSON a message, with the `stage` at which it
//! is sent, `topic`, `body` and `retain`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;
use watchpost::event::{
    CameraState, CameraStatus, Crossing, Direction, EVENT_SCHEMA, EndReason, Event, EventKind, FrameCounts,
    HEALTH_SCHEMA, Health, INFO_SCHEMA, Info, Model, NOTICE_SCHEMA, Notice, NoticeKind, STATE_SCHEMA, Ts,
};
use watchpost::formats::homeassistant::{Camera, Site, camera, camera_removal, node, node_removal};
use watchpost::formats::{Message, cloudevents};
use watchpost::frame::ClockSource;

const TOPICS: &str = "watchpost/edge07";
const AT: &str = "2026-09-30T10:15:05.000Z";

fn main() {
    let site = Site { discovery: "homeassistant", topics: TOPICS, node: "edge07", version: "1.2.3" };
    let labels = ["person", "traffic light"].map(str::to_owned);
    let zones = [("drive".to_owned(), vec!["person".to_owned()])];
    let lines = [("path".to_owned(), vec!["person".to_owned()])];
    let gate =
        Camera { id: "front_gate", labels: &labels, zones: &zones, lines: &lines, events: true, snapshots: true };
    let first = camera(&site, &gate, None);
    let fewer = camera(&site, &Camera { labels: &labels[..1], zones: &[], lines: &[], ..gate }, Some(&first.body));
    print("discovery", &node(&site, None));
    print("discovery", &first);
    for (topic, text) in [
        ("status", "online"),
        ("cam/front_gate/status", "online"),
        ("cam/front_gate/enabled/state", "ON"),
        ("cam/front_gate/count/person", "2"),
        ("cam/front_gate/count/traffic_light", "0"),
        ("cam/front_gate/zone/drive/count/person", "1"),
        ("cam/front_gate/line/path/in/person", "12"),
        ("cam/front_gate/line/path/out/person", "0"),
    ] {
        print("states", &message(topic, text.as_bytes().to_vec(), true));
    }
    print("states", &message("cam/front_gate/state", bytes(&state()), true));
    print("states", &message("info", bytes(&info()), true));
    print("health", &message("health", bytes(&health()), false));
    print("notice", &message("notice", bytes(&notice()), false));
    let events = "cam/front_gate/events";
    for (stage, kind) in [("new", EventKind::New), ("update", EventKind::Update), ("end", EventKind::End)] {
        print(stage, &message(events, bytes(&event(kind)), false));
    }
    print("envelope", &cloudevents::structured(&format!("{TOPICS}/{events}"), &event(EventKind::Update)));
    print("fewer", &fewer);
    print("removal", &camera_removal("homeassistant", "edge07", "front_gate"));
    print("removal", &node_removal("homeassistant", "edge07"));
}

fn print(stage: &str, message: &Message) {
    let Message { topic, body, retain } = message;
    let body = String::from_utf8_lossy(body);
    println!("{}", json!({"stage": stage, "topic": topic, "body": body, "retain": retain}));
}

fn message(topic: &str, body: Vec<u8>, retain: bool) -> Message {
    Message { topic: format!("{TOPICS}/{topic}"), body, retain }
}

fn bytes(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_else(|e| unreachable!("a message is JSON: {e}"))
}

fn model() -> Model {
    Model { name: "yolo11s".to_owned(), input: [640, 640], engine: "sha256:1b7e".to_owned() }
}

fn state() -> CameraState {
    CameraState {
        schema: STATE_SCHEMA.to_owned(),
        camera: "front_gate".to_owned(),
        status: CameraStatus::Online,
        reason: "frames arrive".to_owned(),
        since: "2026-09-30T10:00:00.000Z".to_owned(),
        attempts: 0,
        next_retry_ms: None,
        size: Some([1920, 1080]),
        clock: Some(ClockSource::RtcpSr),
        fps: 24.96,
        drops: 0,
        frames: FrameCounts::default(),
        frame_age_ms: 31.2,
    }
}

fn info() -> Info {
    Info {
        schema: INFO_SCHEMA.to_owned(),
        node: "edge07".to_owned(),
        boot: "9f3c1a".to_owned(),
        version: "1.2.3".to_owned(),
        started: "2026-09-30T10:00:00.000Z".to_owned(),
        config: "sha256:00".to_owned(),
        model: model(),
        runtime: "OpenVINO".to_owned(),
        engine: None,
        schemas: BTreeMap::new(),
        cameras: vec!["front_gate".to_owned()],
    }
}

fn health() -> Health {
    Health {
        schema: HEALTH_SCHEMA.to_owned(),
        node: "edge07".to_owned(),
        boot: "9f3c1a".to_owned(),
        seq: 90,
        at: AT.to_owned(),
        ready: true,
        problems: vec!["camera front_gate is slow".to_owned()],
        overload: false,
        uptime_s: 900,
        rss_bytes: 314_572_800,
        batch_fill: 0.875,
        fps: 100.5,
        frame_age_p95_ms: 60.0,
        spool_pending: 3,
        spool_dropped: 0,
        detections_dropped: 7,
        cameras: BTreeMap::new(),
    }
}

fn notice() -> Notice {
    Notice {
        schema: NOTICE_SCHEMA.to_owned(),
        node: "edge07".to_owned(),
        boot: "9f3c1a".to_owned(),
        seq: 3,
        at: AT.to_owned(),
        kind: NoticeKind::CameraLost,
        camera: Some("front_gate".to_owned()),
        text: "Camera front_gate was lost.".to_owned(),
        pct: None,
        replayed: false,
    }
}

fn event(kind: EventKind) -> Event {
    let ended = kind == EventKind::End;
    Event {
        schema: EVENT_SCHEMA.to_owned(),
        node: "edge07".to_owned(),
        camera: "front_gate".to_owned(),
        boot: "9f3c1a".to_owned(),
        seq: 7,
        kind,
        id: "front_gate-9f3c1a-412".to_owned(),
        frame: 90211,
        ts: Ts {
            captured: AT.to_owned(),
            clock: ClockSource::RtcpSr,
            err_ms: 12,
            published: AT.to_owned(),
            pts_ns: None,
        },
        size: [1920, 1080],
        model: model(),
        label: "person".to_owned(),
        class: 0,
        score: 0.831,
        top_score: 0.9,
        rect: [0.412, 0.22, 0.468, 0.551],
        zones: vec!["drive".to_owned()],
        entered_zones: vec!["drive".to_owned()],
        dwell_s: BTreeMap::from([("drive".to_owned(), 0.4)]),
        crossings: vec![Crossing { line: "gate".to_owned(), direction: Direction::In, at: AT.to_owned() }],
        start: "2026-09-30T10:15:02.000Z".to_owned(),
        end: ended.then(|| AT.to_owned()),
        stationary: false,
        end_reason: ended.then_some(EndReason::Left),
        snapshot_url: None,
        replayed: false,
    }
}
