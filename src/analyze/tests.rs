use super::*;
use crate::config::EventRules;
use crate::event::EventKind;
use crate::frame::{Captured, ClockSource, FrameInfo};
use crate::letterbox::{Fit, Letterbox};
use crate::track::Anchor;
use crate::track::filter::Filter;
use crate::track::line::Line;
use crate::track::tracker::TrackerSettings;
use crate::yolo::{Candidate, Candidates};

fn analysis(mode: DetectionsMode, hz_max: Option<f64>) -> Analysis {
    let labels = Arc::new(vec!["person".to_owned()]);
    let policies = BTreeMap::from([(CameraId::new("gate"), Policy { mode, hz_max })]);
    let (node, boot) = ("box".to_owned(), "abc123".to_owned());
    let setup = Setup { node, boot, labels, nms: 0.5, max_detections: 10, policies, rules: BTreeMap::new() };
    Analysis::new(setup, Arc::new(Metrics::default()))
}

fn model() -> Arc<Model> {
    Arc::new(Model { name: "m".to_owned(), input: [640, 640], engine: "sha256:0".to_owned() })
}

fn lane(now: Instant, boxes: &[(f32, f32)]) -> Lane {
    let captured = Captured { wall: SystemTime::UNIX_EPOCH, clock: ClockSource::RtcpSr, err_ms: 12 };
    let (camera, size, pts_ns) = (CameraId::new("gate"), (1920, 1080), Some(7));
    let (seq, connection) = (9, 0);
    let frame =
        FrameInfo { camera, seq, connection, arrived: now, decoded: now, captured, pts_ns, size, gate: None };
    let rect = |x: f32| [x, 140.0, x + 64.0, 320.0];
    let boxes = boxes.iter().map(|(x, score)| Candidate { rect: rect(*x), score: *score, class: 0 }).collect();
    let candidates = Candidates { boxes, final_boxes: false, dropped: 0 };
    Lane { frame, letterbox: Letterbox::new(size, (640, 640), Fit::Centre), candidates, thumbnail: None }
}

#[test]
fn a_message_holds_what_the_contract_says() {
    let now = Instant::now();
    let mut lane = lane(now, &[(64.0, 0.9), (66.0, 0.8), (320.0, 0.7)]);
    let mut analysis = analysis(DetectionsMode::All, None);
    let message =
        analysis.lane(&mut lane, &model(), (now, now), now + Duration::from_millis(31), SystemTime::UNIX_EPOCH);
    let message = message.expect("every frame is worth a message");
    assert_eq!((message.seq, message.frame, message.size), (0, 9, [1920, 1080]));
    assert_eq!(message.lat_ms.total, 31.0);
    assert_eq!(message.objects.len(), 2, "the weaker of two boxes on one person is gone");
    assert_eq!(message.objects[0].rect, [0.1, 0.0, 0.2, 0.5]);
    let text = serde_json::to_string(&message).expect("JSON");
    for part in [
        r#""schema":"watchpost.detections/1","node":"box","camera":"gate","boot":"abc123""#,
        r#""captured":"1970-01-01T00:00:00.000Z","clock":"rtcp_sr","err_ms":12"#,
        r#"{"label":"person","class":0,"score":0.9,"box":[0.1,0.0,0.2,0.5]}"#,
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn modes_and_the_most_a_second_choose_the_frames() {
    let start = Instant::now();
    let one: &[(f32, f32)] = &[(64.0, 0.9)];
    let two: &[(f32, f32)] = &[(64.0, 0.9), (320.0, 0.9)];
    let frames = [&[], one, one, two, two, &[], &[]];
    let count = |mode, hz_max| {
        let mut analysis = analysis(mode, hz_max);
        let at = |n: usize| start + Duration::from_millis(100) * n as u32;
        let mut published = Vec::new();
        for (n, boxes) in frames.iter().enumerate() {
            let now = at(n);
            let message = analysis.lane(&mut lane(now, boxes), &model(), (now, now), now, SystemTime::UNIX_EPOCH);
            published.extend(message.map(|m| (n, m.seq)));
        }
        published
    };
    let numbered = |frames: &[usize]| frames.iter().copied().zip(0..).collect::<Vec<_>>();
    assert_eq!(count(DetectionsMode::All, None), numbered(&[0, 1, 2, 3, 4, 5, 6]));
    assert_eq!(count(DetectionsMode::Nonempty, None), numbered(&[1, 2, 3, 4]));
    assert_eq!(count(DetectionsMode::Change, None), numbered(&[1, 3, 5]));
    assert_eq!(count(DetectionsMode::Off, None), numbered(&[]));
    assert_eq!(count(DetectionsMode::All, Some(5.0)), numbered(&[0, 2, 4, 6]));
}

#[test]
fn frames_of_a_camera_that_was_taken_down_are_not_looked_at_and_numbers_go_on() {
    let mut analysis = analysis(DetectionsMode::All, None);
    let (free, gate) = (crossbeam::channel::bounded(64).0, CameraId::new("gate"));
    let start = Instant::now();
    let mut seqs = Vec::new();
    let mut batch = |analysis: &mut Analysis, arrived: Instant| {
        let mut batch = Batch::new(start);
        batch.lanes = vec![lane(arrived, &[(64.0, 0.9)])];
        analysis.batch(batch, &free, &mut |_, output| {
            if let Output::Detections(message) = output {
                seqs.push(message.seq);
            }
        });
    };
    batch(&mut analysis, start);
    batch(&mut analysis, start);
    analysis.obey(Order::Remove(gate.clone()), start, &mut |_, _| {});
    batch(&mut analysis, start + Duration::from_secs(1));
    let view = View { policy: Policy { mode: DetectionsMode::All, hz_max: None }, rules: None };
    analysis.obey(Order::Begin(gate, start + Duration::from_secs(2), view), start, &mut |_, _| {});
    batch(&mut analysis, start + Duration::from_secs(1));
    batch(&mut analysis, start + Duration::from_secs(3));
    assert_eq!(seqs, [0, 1, 2]);
}

fn tracked() -> Rules {
    let tracking = TrackerSettings {
        low: 0.1,
        high: 0.4,
        new: 0.5,
        confirm_hits: 2,
        confirm_after: Duration::ZERO,
        lost_after: Duration::from_secs(5),
        stationary_after: Duration::from_secs(60),
    };
    let update_every = Duration::from_secs(60);
    let events =
        EventRules { labels: Vec::new(), min_score: 0.0, zones: Vec::new(), update_every, new_hz_max: 5.0 };
    Rules {
        tracking,
        filter: Filter::default(),
        zones: Vec::new(),
        lines: Vec::new(),
        events: Some(events),
        snapshots: false,
        snapshot_urls: false,
    }
}

#[test]
fn a_frame_of_another_connection_ends_the_tracks_of_the_one_before() {
    let mut analysis = analysis(DetectionsMode::Off, None);
    analysis.setup.rules.insert(CameraId::new("gate"), tracked());
    let (free, start) = (crossbeam::channel::bounded(64).0, Instant::now());
    let (mut events, mut counts) = (Vec::new(), Vec::new());
    for (step, connection) in [0, 0, 0, 2, 2, 2].into_iter().enumerate() {
        let mut batch = Batch::new(start);
        let mut lane = lane(start + Duration::from_millis(100) * step as u32, &[(64.0, 0.9)]);
        lane.frame.connection = connection;
        batch.lanes = vec![lane];
        analysis.batch(batch, &free, &mut |_, output| match output {
            Output::Event(event) => events.push((step, event.kind, event.id.clone(), event.end_reason)),
            Output::Count(_, value) => counts.push((step, value)),
            _ => {}
        });
    }
    let id = |n: u32| format!("gate-abc123-{n}");
    let lost = Some(EndReason::CameraLost);
    let (new, end) = (EventKind::New, EventKind::End);
    assert_eq!(events, [(1, new, id(0), None), (3, end, id(0), lost), (4, new, id(1), None)]);
    assert_eq!(counts, [(1, 1), (3, 0), (4, 1)]);
}

/// Somebody walks over the line, the camera is away, somebody does again, the camera is built anew, and once more; in the end
/// it was a file.
#[test]
fn lines_are_counted_from_0_where_the_camera_was_away_or_is_built_anew() {
    let mut analysis = analysis(DetectionsMode::Off, None);
    let gate = CameraId::new("gate");
    let line = Line {
        name: "path".to_owned(),
        points: vec![[0.5, 0.0], [0.5, 1.0]],
        anchor: Anchor::Foot,
        margin: 0.01,
        labels: Vec::new(),
        min_score: 0.0,
        schedule: None,
    };
    let rules = Rules { lines: vec![line], ..tracked() };
    analysis.setup.rules.insert(gate.clone(), rules.clone());
    let (free, start) = (crossbeam::channel::bounded(64).0, Instant::now());
    let mut counts = Vec::new();
    let mut step = 0;
    for round in 0..4 {
        let mut hear = |_: &CameraId, output: Output<'_>| {
            if let Output::Count(Counter::Line(..), value) = output {
                counts.push((round, value));
            }
        };
        for x in [240.0, 260.0, 280.0, 300.0, 320.0, 340.0] {
            let mut batch = Batch::new(start);
            step += 1;
            let mut lane = lane(start + Duration::from_millis(100) * step, &[(x, 0.9)]);
            lane.frame.connection = u32::from(round > 0);
            batch.lanes = vec![lane];
            analysis.batch(batch, &free, &mut hear);
        }
        let view =
            || View { policy: Policy { mode: DetectionsMode::Off, hz_max: None }, rules: Some(rules.clone()) };
        match round {
            0 => {}
            1 => analysis.obey(Order::End(gate.clone(), EndReason::Disabled), start, &mut hear),
            2 => analysis.obey(Order::Begin(gate.clone(), start, view()), start, &mut hear),
            _ => analysis.obey(Order::Finish(gate.clone()), start, &mut hear),
        }
    }
    assert_eq!(counts, [(0, 1), (1, 0), (1, 1), (1, 0), (2, 1), (2, 0), (3, 1)]);
}
