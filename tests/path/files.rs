//! Files: every frame once, at its own pace, with a limit, with a mask.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use watchpost::config::Pace;
use watchpost::event::{CameraStatus, Detections};
use watchpost::frame::ClockSource;

use crate::support::clips::{CLIP_FRAMES, Clip, clip};
use crate::support::cores::{all_cores, some_cores};
use crate::support::daemon::{Daemon, camera};
use crate::support::rig::{Rig, file};

const LIMIT: Duration = Duration::from_secs(120);

fn people(message: &Detections) -> usize {
    message.objects.iter().filter(|object| &*object.label == "person").count()
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
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let Some(mut daemon) = Daemon::start("", &camera("walk", walk.to_str().unwrap(), "fps_max = 2")) else {
        return;
    };
    daemon.until("ten messages", LIMIT, |heard| heard.count("walk") >= 10);
    let messages = daemon.heard.of("walk");
    let span = messages[9].0.duration_since(messages[1].0).as_secs_f64();
    assert!(span > 3.0, "8 messages more took {span} s at 2 a second");
    assert!(messages.iter().all(|(_, m)| m.ts.clock == ClockSource::File));
    let frames = messages[9].1.frame - messages[1].1.frame;
    let pts = |n: usize| messages[n].1.ts.pts_ns.unwrap();
    assert_eq!(pts(9) - pts(1), frames * 100_000_000, "10 frames a second");
    let age = daemon.heard.age_ms("walk", 0.5);
    assert!(age < 1000.0, "half of the frames are older than {age} ms");
    let counts = daemon.finish()["walk"];
    // Each that a newer one took the place of, where the machine stood still, is half a second.
    let most = 44 + 5 * counts.overwritten;
    assert!((36..=most).contains(&frames), "8 messages more were {frames} frames on, at 10 a second: {counts:?}");
    let wanted = counts.inferred + counts.overwritten;
    assert!(counts.skipped_fps >= 3 * wanted, "{counts:?}");
}

#[test]
fn a_file_read_fast_is_thinned_out_by_its_own_time() {
    let _cores = some_cores();
    let Some(walk) = clip(Clip::Small) else { return };
    let camera = camera("walk", walk.to_str().unwrap(), "pace = \"fast\"\nfps_max = 2\nrepeat = true");
    let mut daemon = Daemon::start_tiny("", &camera);
    daemon.until("three rounds", LIMIT, |heard| heard.count("walk") >= 60);
    daemon.finish();
    let messages = daemon.heard.of("walk");
    let frames = messages[59].1.frame - messages[0].1.frame;
    // 2 of 10 frames a second, and one more where the file begins again.
    assert!((270..=300).contains(&frames), "60 messages of {frames} frames");
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

/// An elementary stream of two clips of different size, as from a camera whose settings are changed while it runs.
fn changing_stream(to: &Path) -> Option<()> {
    let mut whole = Vec::new();
    for part in [clip(Clip::H264)?, clip(Clip::Small)?] {
        let out = to.with_extension("part");
        let line = format!(
            "-q filesrc location={} ! qtdemux ! h264parse ! video/x-h264,stream-format=byte-stream ! filesink location={}",
            part.display(),
            out.display()
        );
        assert!(Command::new("gst-launch-1.0").args(line.split(' ')).status().unwrap().success());
        whole.extend(fs::read(out).unwrap());
    }
    fs::write(to, whole).unwrap();
    Some(())
}

#[test]
fn a_change_of_resolution_in_the_stream_is_followed() {
    let _cores = some_cores();
    let folder = tempfile::TempDir::new().unwrap();
    let (stream, cut) = (folder.path().join("change.h264"), folder.path().join("cut.mp4"));
    if changing_stream(&stream).is_none() {
        return;
    }
    // A file whose end is missing, too: what is there is analysed.
    let whole = fs::read(clip(Clip::Small).unwrap()).unwrap();
    fs::write(&cut, &whole[..whole.len() * 7 / 10]).unwrap();
    let cameras = [&stream, &cut].map(|path| {
        let id = path.file_stem().unwrap().to_str().unwrap();
        camera(id, path.to_str().unwrap(), "pace = \"fast\"")
    });
    let mut daemon = Daemon::start_tiny("", &cameras.concat());
    daemon.until("both sizes", LIMIT, |heard| {
        heard.is("change", CameraStatus::Finished) && heard.count("change") > 150
    });
    daemon.until("what there is", LIMIT, |heard| heard.count("cut") > 20 && !heard.is("cut", CameraStatus::Online));
    let counts = daemon.finish();
    let sizes =
        |id: &str, size: [u32; 2]| daemon.heard.of(id).iter().filter(|(_, m)| m.size == size).count() as u64;
    let (large, small) = (sizes("change", [768, 576]), sizes("change", [384, 288]));
    assert!(large >= CLIP_FRAMES - 2 && small >= CLIP_FRAMES - 2, "{large} and {small} of {CLIP_FRAMES} each");
    assert_eq!(large + small, counts["change"].decoded);
    assert!((60..80).contains(&counts["cut"].decoded), "{:?}", counts["cut"]);
}

#[test]
fn the_video_is_found_in_any_container_whatever_comes_first() {
    let _cores = some_cores();
    let folder = tempfile::TempDir::new().unwrap();
    let sound = "audiotestsrc num-buffers=80 ! audio/x-raw,rate=44100 !";
    let video = "videotestsrc num-buffers=30 ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 !";
    let h264 = format!("{video} x264enc bframes=0 ! h264parse");
    let kinds = [
        ("sound-first.mp4", format!("{sound} avenc_aac ! mux. {h264} ! mux. mp4mux name=mux")),
        ("sound-first.ts", format!("{sound} avenc_aac ! mux. {h264} ! mux. mpegtsmux name=mux")),
        ("sound-first.flv", format!("{sound} avenc_aac ! mux. {h264} ! queue ! mux. flvmux name=mux")),
        ("raw-sound.mkv", format!("{sound} mux. {h264} ! mux. matroskamux name=mux")),
        ("vp8.webm", format!("{sound} vorbisenc ! mux. {video} vp8enc deadline=1 ! mux. webmmux name=mux")),
        ("mjpeg.avi", format!("{sound} mux. {video} jpegenc ! mux. avimux name=mux")),
        ("theora.ogg", format!("{sound} vorbisenc ! mux. {video} theoraenc ! mux. oggmux name=mux")),
    ];
    for (name, make) in kinds {
        let path = folder.path().join(name);
        let line = format!("-q {make} ! filesink location={}", path.display());
        let done = Command::new("gst-launch-1.0").args(line.split_whitespace()).status().unwrap();
        assert!(done.success(), "{line}");
        let rig = Rig::start(file(path, Pace::Fast, false));
        for seq in 0..25 {
            assert_eq!(rig.next().info.seq, seq, "{name}");
        }
        rig.stop();
    }
}
