//! More frames than the engine can take: batches, shares, overload, and a stop in the middle of it.

use std::time::Duration;

use watchpost::event::{CameraStatus, NoticeKind};

use crate::support::clips::{CLIP_FRAMES, Clip, clip};
use crate::support::cores::all_cores;
use crate::support::daemon::{Daemon, Heard, camera};
use crate::support::mosquitto::wait_until;

const LIMIT: Duration = Duration::from_secs(240);
/// An engine that any machine can overload.
const SLOW: &str = "[engine.openvino]\nthreads = 1\nrequests = 1\nprecision = \"f32\"\n";

#[test]
fn files_fill_the_batches_and_a_live_camera_keeps_its_share() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let walk = walk.to_str().unwrap();
    let files = ["one", "two", "three"];
    let mut cameras: String = files.iter().map(|id| camera(id, walk, "pace = \"fast\"")).collect();
    cameras.push_str(&camera("live", "test://?size=320x240&fps=10", ""));
    // An engine faster than the decoders: the hardest case for full batches.
    // They get time to, on a slow machine.
    let mut daemon = Daemon::start_tiny("batch = 4\nbatch_deadline = \"200ms\"", &cameras);
    daemon.until("most of the files", LIMIT, |heard| files.iter().all(|id| heard.count(id) >= 80));
    let fill = daemon.total("lanes_filled") as f64 / daemon.total("lanes") as f64;
    daemon.until("the files' ends", LIMIT, |heard| {
        files.iter().all(|id| heard.is(id, CameraStatus::Finished) && heard.count(id) as u64 == CLIP_FRAMES)
    });
    daemon.until("the live camera", LIMIT, |heard| heard.count("live") >= 10);
    let counts = daemon.finish();
    assert!(fill > 0.9, "batches were {:.0} % full", fill * 100.0);
    for id in files {
        assert_eq!((counts[id].inferred, counts[id].overwritten), (CLIP_FRAMES, 0), "{id}");
        let frames: Vec<u64> = daemon.heard.of(id).iter().map(|(_, m)| m.frame).collect();
        assert_eq!(frames, (0..CLIP_FRAMES).collect::<Vec<_>>(), "{id}: each once, in order");
    }
    let age = daemon.heard.age_ms("live", 0.9);
    assert!(age < 700.0, "one in ten frames of the live camera is older than {age:.0} ms");
}

#[test]
fn under_overload_priority_decides_the_shares() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let walk = walk.to_str().unwrap();
    let cameras = [
        camera("much", walk, "pace = \"fast\"\npriority = 10\nrepeat = true"),
        camera("little", walk, "pace = \"fast\"\npriority = 2\nrepeat = true"),
    ];
    let Some(mut daemon) = Daemon::start(SLOW, &cameras.concat()) else { return };
    daemon.until("both", LIMIT, |heard| heard.count("much") > 0 && heard.count("little") > 0);
    let [much, little] = ["much", "little"].map(|id| daemon.heard.count(id));
    daemon.until("a hundred more", LIMIT, |heard| heard.count("much") >= much + 100);
    let little = daemon.heard.count("little") - little;
    assert!((8..=45).contains(&little), "{little} against 100, at a share of 2 to 10");
    daemon.finish();
}

/// The median of a camera's frames.
fn infer_ms(heard: &Heard, camera: &str) -> f64 {
    let mut times: Vec<f64> = heard.of(camera).iter().map(|(_, message)| message.lat_ms.infer).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[test]
fn overload_is_said_within_seconds_and_frames_stay_young() {
    let _cores = all_cores();
    let ids: Vec<String> = (0..8).map(|n| format!("cam{n}")).collect();
    let cameras: String = ids.iter().map(|id| camera(id, "test://?size=320x240&fps=30", "")).collect();
    let Some(mut daemon) = Daemon::start(SLOW, &cameras) else { return };
    daemon.until("every camera's first message", LIMIT, |heard| ids.iter().all(|id| heard.count(id) >= 1));
    let begun = ids.iter().map(|id| daemon.heard.of(id)[0].0).max().unwrap();
    daemon.until("the notice of overload", LIMIT, |heard| !heard.notices_of(NoticeKind::Overload, None).is_empty());
    let (at, notice) = daemon.heard.notices_of(NoticeKind::Overload, None)[0].clone();
    assert!(at.duration_since(begun) < Duration::from_secs(10), "said after {:?}", at.duration_since(begun));
    assert!(notice.text.contains("cam0 (") && notice.text.contains("fps_max"), "{}", notice.text);
    daemon.until("overload in health", LIMIT, |heard| heard.health.iter().any(|h| h.overload));
    wait_until("overload on the page", || daemon.page("/status").contains("\"overload\":true"));
    daemon.until("some more frames", LIMIT, |heard| ids.iter().all(|id| heard.count(id) >= 20));
    let counts = daemon.finish();
    for id in &ids {
        assert!(counts[id].overwritten > counts[id].inferred / 4, "{id}: {:?}", counts[id]);
        let age = daemon.heard.age_ms(id, 0.9);
        let limit = f64::max(700.0, 10.0 * infer_ms(&daemon.heard, id));
        assert!(age < limit, "{id}: one in ten frames is older than {age:.0} ms, though the newest wins");
    }
    let since = |id: &String| daemon.heard.of(id).iter().filter(|(at, _)| *at > begun).count();
    let shares: Vec<usize> = ids.iter().map(since).collect();
    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(most - least <= most / 4 + 3, "cameras of one priority share evenly: {shares:?}");
}

#[test]
fn a_stop_under_load_is_quick_and_accounts_for_every_frame() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let walk = walk.to_str().unwrap();
    let mut cameras = String::new();
    for n in 0..3 {
        cameras.push_str(&camera(&format!("fast{n}"), walk, "pace = \"fast\"\nrepeat = true"));
        cameras.push_str(&camera(&format!("paced{n}"), walk, "repeat = true\nfps_max = 7"));
        cameras.push_str(&camera(&format!("live{n}"), "test://?size=320x240&fps=30", ""));
    }
    let Some(mut daemon) = Daemon::start(SLOW, &cameras) else { return };
    daemon.until("load on all", LIMIT, |heard| heard.detections.len() == 9 && heard.count("fast0") >= 20);
    let begun = std::time::Instant::now();
    let counts = daemon.finish();
    assert!(begun.elapsed() < Duration::from_secs(10), "stopped after {:?}", begun.elapsed());
    assert_eq!(counts.len(), 9);
    assert_eq!(daemon.heard.text("status"), "offline");
    for n in 0..3 {
        assert_eq!(counts[&format!("fast{n}")].overwritten, 0);
        assert!(counts[&format!("paced{n}")].skipped_fps > 0);
        assert!(counts[&format!("live{n}")].overwritten > 0);
        assert_eq!(daemon.heard.state(&format!("live{n}")).unwrap().reason, "watchpost was stopped");
    }
}
