//! What the tests of the forms are made of: one track's life, and a frame of it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Message;
use crate::event::{
    CameraHealth, CameraState, CameraStatus, Crossing, DETECTIONS_SCHEMA, Detections, Direction, EVENT_SCHEMA,
    EndReason, EngineStamp, Event, EventKind, FrameCounts, HEALTH_SCHEMA, Health, INFO_SCHEMA, Info, LatMs, Model,
    NOTICE_SCHEMA, Notice, NoticeKind, Object, STATE_SCHEMA, Ts,
};
use crate::frame::{CameraId, ClockSource};

fn ts(captured: &str) -> Ts {
    Ts {
        captured: captured.to_owned(),
        clock: ClockSource::RtcpSr,
        err_ms: 12,
        published: "2026-09-30T10:15:09.455Z".to_owned(),
        pts_ns: None,
    }
}

fn model() -> Model {
    Model { name: "yolo11s".to_owned(), input: [640, 640], engine: "sha256:1b7e".to_owned() }
}

pub fn new() -> Event {
    Event {
        schema: EVENT_SCHEMA.to_owned(),
        node: "edge07".to_owned(),
        camera: "gate".to_owned(),
        boot: "9f3c1a".to_owned(),
        seq: 7,
        kind: EventKind::New,
        id: "gate-9f3c1a-412".to_owned(),
        frame: 90211,
        ts: ts("2026-09-30T10:15:02.417Z"),
        size: [1920, 1080],
        model: model(),
        label: "person".to_owned(),
        class: 0,
        score: 0.831,
        top_score: 0.831,
        rect: [0.412, 0.22, 0.468, 0.551],
        zones: Vec::new(),
        entered_zones: Vec::new(),
        dwell_s: BTreeMap::new(),
        crossings: Vec::new(),
        start: "2026-09-30T10:15:02.017Z".to_owned(),
        end: None,
        stationary: false,
        end_reason: None,
        snapshot_url: None,
        replayed: false,
    }
}

pub fn update() -> Event {
    Event {
        seq: 8,
        kind: EventKind::Update,
        frame: 90300,
        ts: ts("2026-09-30T10:15:05.000Z"),
        score: 0.7,
        top_score: 0.9,
        rect: [0.5, 0.25, 0.6, 0.75],
        zones: vec!["drive".to_owned()],
        entered_zones: vec!["drive".to_owned()],
        dwell_s: BTreeMap::from([("drive".to_owned(), 1.4)]),
        crossings: vec![Crossing {
            line: "gate".to_owned(),
            direction: Direction::In,
            at: "2026-09-30T10:15:04.000Z".to_owned(),
        }],
        snapshot_url: Some("/snapshots/gate/gate-9f3c1a-412.jpg".to_owned()),
        ..new()
    }
}

pub fn end() -> Event {
    Event {
        seq: 9,
        kind: EventKind::End,
        stationary: true,
        end: Some("2026-09-30T10:15:05.000Z".to_owned()),
        end_reason: Some(EndReason::Left),
        ..update()
    }
}

pub fn detections() -> Detections {
    let object = |track: Option<&str>, label: &str, class, score, rect| Object {
        track: track.map(str::to_owned),
        label: label.into(),
        class,
        score,
        rect,
        zones: Vec::new(),
    };
    Detections {
        schema: DETECTIONS_SCHEMA.into(),
        node: "edge07".into(),
        camera: CameraId::new("gate"),
        boot: "9f3c1a".into(),
        seq: 18446,
        frame: 90211,
        ts: ts("2026-09-30T10:15:02.417Z"),
        size: [1920, 1080],
        model: model().into(),
        lat_ms: LatMs { decode: 6.1, queue: 4.0, infer: 8.7, total: 31.2 },
        objects: vec![
            object(Some("gate-9f3c1a-412"), "person", 0, 0.831, [0.412, 0.22, 0.468, 0.551]),
            object(None, "traffic light", 9, 0.5, [0.0, 0.0, 1.0, 1.0]),
        ],
    }
}

pub fn notice() -> Notice {
    Notice {
        schema: NOTICE_SCHEMA.to_owned(),
        node: "edge07".to_owned(),
        boot: "9f3c1a".to_owned(),
        seq: 3,
        at: "2026-09-30T10:15:02.417Z".to_owned(),
        kind: NoticeKind::CameraLost,
        camera: Some("gate".to_owned()),
        text: "Camera gate was lost.".to_owned(),
        pct: None,
        replayed: false,
    }
}

pub fn info() -> Info {
    Info {
        schema: INFO_SCHEMA.to_owned(),
        node: "edge07".to_owned(),
        boot: "9f3c1a".to_owned(),
        version: "0.1.0".to_owned(),
        started: "2026-09-30T10:00:00.000Z".to_owned(),
        config: "sha256:00".to_owned(),
        model: model(),
        runtime: "TensorRT 8.5.3.1, NVIDIA H100, fp16, 3 contexts".to_owned(),
        engine: Some(EngineStamp {
            tensorrt: "TensorRT 8.5.3.1".to_owned(),
            gpu: Some("NVIDIA H100".to_owned()),
            sm: Some("9.0".to_owned()),
            precision: "fp16".to_owned(),
            batch: 16,
        }),
        schemas: BTreeMap::from([("cam/+/events".to_owned(), EVENT_SCHEMA.to_owned())]),
        cameras: vec!["gate".to_owned()],
    }
}

pub fn health() -> Health {
    let camera = CameraHealth {
        status: CameraStatus::Online,
        fps: 25.0,
        inferred_fps: 12.5,
        frame_age_ms: 31.2,
        frames: FrameCounts::default(),
    };
    Health {
        schema: HEALTH_SCHEMA.to_owned(),
        node: "edge07".to_owned(),
        boot: "9f3c1a".to_owned(),
        seq: 90,
        at: "2026-09-30T10:15:00.000Z".to_owned(),
        ready: true,
        problems: Vec::new(),
        overload: false,
        uptime_s: 900,
        rss_bytes: 300 << 20,
        batch_fill: 0.9,
        fps: 100.0,
        frame_age_p95_ms: 60.0,
        spool_pending: 0,
        spool_dropped: 0,
        detections_dropped: 0,
        cameras: BTreeMap::from([("gate".to_owned(), camera)]),
    }
}

pub fn state() -> CameraState {
    CameraState {
        schema: STATE_SCHEMA.to_owned(),
        camera: "gate".to_owned(),
        status: CameraStatus::Offline,
        reason: "no answer".to_owned(),
        since: "2026-09-30T10:14:00.000Z".to_owned(),
        attempts: 2,
        next_retry_ms: Some(2000),
        size: Some([1920, 1080]),
        clock: Some(ClockSource::RtcpSr),
        fps: 0.0,
        drops: 0,
        frames: FrameCounts::default(),
        frame_age_ms: 31.2,
    }
}

/// A message's body.
pub fn body(message: &Message) -> Value {
    serde_json::from_slice(&message.body).unwrap()
}
