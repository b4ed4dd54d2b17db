//! Files that are repeated, and files that pause: in one pipeline, every frame once a reading, in order.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use watchpost::config::{CameraConfig, Pace};
use watchpost::event::CameraStatus;
use watchpost::frame::Frame;

use crate::support::cores::some_cores;
use crate::support::mosquitto::wait_until;
use crate::support::rig::{Rig, STOP, checksum, file};

/// H.264 with reordered frames.
const H264: &str = "x264enc speed-preset=veryfast bframes=2 key-int-max=6 ! h264parse";

/// A moving ball: so many frames at a rate, encoded and put into a container.
fn ball(path: &Path, frames: u64, rate: &str, encode: &str) -> PathBuf {
    let line = format!(
        "-q videotestsrc num-buffers={frames} pattern=ball ! \
         video/x-raw,format=I420,width=320,height=240,framerate={rate} ! {encode} ! filesink location={}",
        path.display()
    );
    let done = Command::new("gst-launch-1.0").args(line.split_whitespace()).status().unwrap();
    assert!(done.success(), "{line}");
    path.to_owned()
}

/// Takes the next frame and then the file away: who opens it anew now, fails.
fn first_and_last_opening(rig: &Rig, path: &Path) -> Frame {
    let first = rig.next();
    fs::remove_file(path).unwrap();
    first
}

#[test]
fn a_file_read_fast_is_repeated_in_its_pipeline_without_loss() {
    let _cores = some_cores();
    let folder = tempfile::TempDir::new().unwrap();
    let stream = "video/x-h264,stream-format=byte-stream";
    let kinds = [
        ("ball.mp4", format!("{H264} ! mp4mux")),
        ("ball.mkv", format!("{H264} ! matroskamux")),
        ("ball.ts", format!("{H264} ! mpegtsmux")),
        ("ball.h264", format!("{H264} config-interval=-1 ! {stream}")),
    ];
    const FRAMES: usize = 12;
    for (name, encode) in kinds {
        let path = ball(&folder.path().join(name), FRAMES as u64, "10/1", &encode);
        let rig = Rig::start(file(path.clone(), Pace::Fast, true));
        let mut sums = vec![checksum(&first_and_last_opening(&rig, &path))];
        for seq in 1..4 * FRAMES {
            let frame = rig.next();
            assert_eq!(frame.info.seq, seq as u64, "{name}");
            sums.push(checksum(&frame));
        }
        for reading in sums.chunks(FRAMES) {
            assert_eq!(reading, &sums[..FRAMES], "{name}: each reading gives the same frames");
        }
        assert_eq!(rig.status(), Some(CameraStatus::Online), "{name}");
        let (_, metrics, reader) = rig.stop();
        let left = std::iter::from_fn(|| reader.take()).count();
        let taken = (sums.len() + left) as u64;
        assert_eq!(metrics.decoded.get(), taken + metrics.dropped.get(), "{name}");
        assert_eq!((metrics.overwritten.get(), metrics.reconnects.get()), (0, 0), "{name}");
    }
}

#[test]
fn a_paced_file_is_repeated_in_its_pipeline_at_its_pace() {
    let _cores = some_cores();
    let folder = tempfile::TempDir::new().unwrap();
    const FRAMES: u64 = 10;
    let path = ball(&folder.path().join("ball.mp4"), FRAMES, "10/1", &format!("{H264} ! mp4mux"));
    let rig = Rig::start(file(path.clone(), Pace::Realtime, true));
    let begun = Instant::now();
    let (mut pictures, mut ages) = ([None; FRAMES as usize], Vec::new());
    let (mut taken, mut before) = (0, None);
    let mut frame = first_and_last_opening(&rig, &path);
    loop {
        let (info, sum) = (frame.info.clone(), checksum(&frame));
        drop(frame);
        taken += 1;
        let known = pictures[(info.seq % FRAMES) as usize].get_or_insert(sum);
        assert_eq!(*known, sum, "frame {}: each reading gives the same frames", info.seq);
        assert!(before.is_none_or(|(seq, wall)| seq < info.seq && wall <= info.captured.wall), "{info:?}");
        before = Some((info.seq, info.captured.wall));
        ages.push(info.decoded.duration_since(info.arrived));
        if info.seq >= 4 * FRAMES {
            break;
        }
        frame = rig.next();
    }
    let took = begun.elapsed().as_secs_f64();
    assert!((3.8..20.0).contains(&took), "four readings of a second took {took} s");
    ages.sort_unstable();
    assert!(ages[ages.len() / 2] < Duration::from_millis(500), "{ages:?}");
    let (stopped, metrics, reader) = rig.stop();
    assert!(stopped < STOP, "{stopped:?}");
    taken += u64::from(reader.take().is_some());
    assert_eq!(metrics.decoded.get(), taken + metrics.overwritten.get());
    assert_eq!(metrics.reconnects.get(), 0);
}

#[test]
fn a_picture_is_opened_anew_at_leisure() {
    let _cores = some_cores();
    let folder = tempfile::TempDir::new().unwrap();
    let path = ball(&folder.path().join("ball.jpg"), 1, "10/1", "jpegenc");
    for pace in [Pace::Fast, Pace::Realtime] {
        let rig = Rig::start(file(path.clone(), pace, true));
        let begun = Instant::now();
        assert!((0..5).all(|seq| rig.next().info.seq == seq));
        assert!(begun.elapsed() > Duration::from_millis(800), "five in {:?}", begun.elapsed());
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        wait_until("the missing file", || rig.report().is_some_and(|r| r.reason.contains("No such file")));
        fs::rename(&aside, &path).unwrap();
        assert!(rig.next().info.seq >= 5);
        rig.stop();
    }
}

#[test]
fn a_repeated_file_is_switched_off_and_on_at_any_moment() {
    let _cores = some_cores();
    let folder = tempfile::TempDir::new().unwrap();
    let path = ball(&folder.path().join("ball.mp4"), 3, "30/1", &format!("{H264} ! mp4mux"));
    for pace in [Pace::Fast, Pace::Realtime] {
        let rig = Rig::start(file(path.clone(), pace, true));
        let mut taken = 0;
        for round in 0..8 {
            // Ends of a reading, seeks, and the rest after one, in turn.
            for _ in 0..=round {
                rig.next();
                taken += 1;
            }
            rig.camera.control.enable(false);
            wait_until("the camera is off", || rig.status() == Some(CameraStatus::Disabled));
            rig.camera.control.enable(true);
        }
        let (took, metrics, reader) = rig.stop();
        assert!(took < STOP, "{took:?}");
        taken += std::iter::from_fn(|| reader.take()).count() as u64;
        assert_eq!(metrics.decoded.get(), taken + metrics.dropped.get() + metrics.overwritten.get());
        assert_eq!(metrics.reconnects.get(), 0);
    }
}

#[test]
fn a_paced_file_that_falls_silent_is_stalled() {
    let _cores = some_cores();
    let folder = tempfile::TempDir::new().unwrap();
    let stream = format!("{H264} config-interval=-1 ! video/x-h264,stream-format=byte-stream");
    let whole = fs::read(ball(&folder.path().join("ball.h264"), 30, "30/1", &stream)).unwrap();
    // Bytes stop coming, and the end does not come either.
    let pipe = folder.path().join("pipe.h264");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut feed = File::options().read(true).write(true).open(&pipe).unwrap();
    feed.write_all(&whole).unwrap();
    let stall_timeout = Duration::from_secs(1);
    let rig = Rig::start(CameraConfig { stall_timeout, ..file(pipe, Pace::Realtime, true) });
    rig.next();
    wait_until("the state online", || rig.status() == Some(CameraStatus::Online));
    wait_until("the stall", || rig.report().is_some_and(|r| r.reason.contains("no frame for ")));
    assert_eq!((rig.status(), rig.metrics.reconnects.get()), (Some(CameraStatus::Offline), 1));
    rig.stop();
}

#[test]
fn a_pause_in_a_paced_file_is_no_silence() {
    let _cores = some_cores();
    let folder = tempfile::TempDir::new().unwrap();
    let path = ball(&folder.path().join("slow.mkv"), 2, "1/3", "x264enc bframes=0 ! h264parse ! matroskamux");
    let stall_timeout = Duration::from_secs(2);
    let rig = Rig::start(CameraConfig { stall_timeout, ..file(path, Pace::Realtime, true) });
    let begun = Instant::now();
    // Over a seek: the end waits for its time, too.
    assert!((0..3).all(|seq| rig.next().info.seq == seq));
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!((rig.status(), rig.metrics.reconnects.get()), (Some(CameraStatus::Online), 0));
    rig.stop();
}
