//! Files: every frame once, at its own pace, with a limit, with a mask.

use std::time::Duration;

use watchpost::event::{CameraStatus, Detections};
use watchpost::frame::ClockSource;

use crate::support::clips::{CLIP_FRAMES, Clip, clip};
use crate::support::cores::{all_cores, some_cores};
use crate::support::daemon::Daemon;

const LIMIT: Duration = Duration::from_secs(30);

fn people(message: &Detections) -> usize {
    message.objects.iter().filter(|object| object.label == "person").count()
}

#[test]
fn a_file_read_fast_is_published_whole_and_in_order() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let Some(mut daemon) =
        Daemon::start("", &format!("[[camera]]\nid = \"walk\"\nurl = {walk:?}\npace = \"fast\"\n"))
    else {
        return;
    };
    daemon.until("the end of the file", LIMIT, |heard| heard.is("walk", CameraStatus::Finished));
    daemon.until("all messages", LIMIT, |heard| heard.count("walk") as u64 >= CLIP_FRAMES);
    assert_eq!(daemon.heard.state("walk").unwrap().reason, "read to its end");
    let counts = daemon.finish()["walk"];
    assert_eq!((counts.decoded, counts.inferred, counts.overwritten), (CLIP_FRAMES, CLIP_FRAMES, 0), "{counts:?}");
    let messages: Vec<&Detections> = daemon.heard.of("walk").iter().map(|(_, m)| m).collect();
    let numbers: Vec<(u64, u64)> = messages.iter().map(|m| (m.frame, m.seq)).collect();
    assert_eq!(numbers, (0..CLIP_FRAMES).map(|n| (n, n)).collect::<Vec<_>>());
    assert!(messages.iter().all(|m| m.ts.clock == ClockSource::File && m.size == [768, 576]));
    let pts: Vec<u64> = messages.iter().map(|m| m.ts.pts_ns.unwrap()).collect();
    assert!(pts.is_sorted_by(|a, b| b - a == 100_000_000), "10 frames a second: {pts:?}");
    let with_people = messages.iter().filter(|m| people(m) > 0).count();
    assert!(with_people > 90, "people in {with_people} of {CLIP_FRAMES} frames");
}

#[test]
fn a_paced_file_with_a_limit_publishes_so_many_a_second() {
    let _cores = some_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let camera = format!("[[camera]]\nid = \"walk\"\nurl = {walk:?}\nfps_max = 2\n");
    let Some(mut daemon) = Daemon::start("", &camera) else { return };
    daemon.until("ten messages", LIMIT, |heard| heard.count("walk") >= 10);
    let messages = daemon.heard.of("walk");
    let span = messages[9].0.duration_since(messages[1].0).as_secs_f64();
    assert!((3.5..4.5).contains(&span), "8 messages more took {span} s at 2 a second");
    // The first may wait for the model.
    for (_, message) in &messages[1..] {
        assert!(message.lat_ms.total < 400.0, "{message:?}");
        assert_eq!(message.ts.clock, ClockSource::File);
    }
    let steps: Vec<u64> = messages[1..].windows(2).map(|pair| pair[1].1.frame - pair[0].1.frame).collect();
    assert!(steps.iter().all(|step| *step == 5), "every fifth of 10 a second: {steps:?}");
    let counts = daemon.finish()["walk"];
    assert!(counts.skipped_fps >= 4 * (counts.inferred - 1), "{counts:?}");
}

#[test]
fn what_a_mask_covers_is_not_seen() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let camera =
        |id: &str, mask: &str| format!("[[camera]]\nid = \"{id}\"\nurl = {walk:?}\npace = \"fast\"\n{mask}\n");
    let cameras = [
        camera("all", "mask = [[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]"),
        camera("left", "mask = [[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]]"),
        camera("none", ""),
    ];
    let Some(mut daemon) = Daemon::start("", &cameras.concat()) else { return };
    let ids = ["all", "left", "none"];
    daemon.until("all messages", LIMIT, |heard| ids.iter().all(|id| heard.count(id) as u64 == CLIP_FRAMES));
    let centres = |id: &str| -> Vec<f32> {
        let objects = daemon.heard.of(id).iter().flat_map(|(_, m)| &m.objects);
        objects.map(|object| f32::midpoint(object.rect[0], object.rect[2])).collect()
    };
    assert!(centres("all").is_empty(), "nothing is looked at");
    assert!(centres("none").iter().any(|x| *x < 0.45), "people walk in the left half");
    let right = centres("left");
    assert!(right.len() > 20 && right.iter().all(|x| *x > 0.49), "{right:?}");
    daemon.finish();
}
