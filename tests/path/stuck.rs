//! Pipelines that hang where they start or stop: a `filesrc` that reads a named pipe, beside a test picture. With nobody at the
//! other end it hangs where it opens the pipe, in its start; with somebody who writes nothing in read(2), which no change to
//! NULL ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use watchpost::camera::ABANDONED_MAX;
use watchpost::config::{CameraConfig, Pace, Source};
use watchpost::event::{CameraStatus, NoticeKind};
use watchpost::health::CameraReport;

use crate::support::cores::some_cores;
use crate::support::daemon::{Daemon, camera, witness};
use crate::support::mosquitto::{PATIENCE, wait_until};
use crate::support::rig::{Rig, file};

/// A stop, and what a machine with other work takes beside it.
const LIMIT: Duration = Duration::from_secs(12);
const LEAST: Duration = Duration::from_millis(4_900);
/// A start.
const START: [Duration; 2] = [Duration::from_millis(14_900), Duration::from_secs(25)];

/// A named pipe, and the description of a pipeline that gives eight frames and reads it.
fn stuck_description(folder: &Path) -> (PathBuf, PathBuf) {
    let (fifo, text) = (folder.join("pipe"), folder.join("stuck.gst"));
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let frames = "videotestsrc name=src is-live=true num-buffers=8 ! capsfilter name=size ! videoconvert ! \
                  video/x-raw,format=I420 ! appsink name=frames";
    fs::write(&text, format!("{frames}\nfilesrc location={} ! fakesink async=false\n", fifo.display())).unwrap();
    (fifo, text)
}

/// Somebody who writes nothing, without waiting for somebody who reads.
fn writer(fifo: &Path) -> File {
    File::options().read(true).write(true).open(fifo).unwrap()
}

/// Lets go whoever is opening the pipe. A thread that is there may be about to: it takes as many calls as that lasts.
fn let_go(fifo: &Path) -> bool {
    drop(writer(fifo));
    true
}

fn stuck_camera(text: &Path) -> CameraConfig {
    CameraConfig {
        source: Source::Test { size: (64, 48), fps: 25, pattern: "ball".to_owned() },
        pipeline: text.display().to_string(),
        stall_timeout: Duration::from_secs(1),
        ..file(PathBuf::new(), Pace::Realtime, false)
    }
}

/// What it says once its first attempt is abandoned, which is counted.
fn first_failure(rig: &Rig) -> CameraReport {
    wait_until("what it says", || rig.report().is_some_and(|report| report.attempts == 1));
    assert_eq!(rig.metrics.abandoned.get(), 1);
    rig.report().unwrap()
}

#[test]
fn a_pipeline_that_does_not_stop_is_abandoned_counted_and_replaced() {
    let _cores = some_cores();
    let folder = TempDir::new().unwrap();
    let (fifo, text) = stuck_description(folder.path());
    let held = writer(&fifo);
    let rig = Rig::start(stuck_camera(&text));
    let first = rig.next().info.connection;
    wait_until("its end", || rig.metrics.online.get() == 1);
    let second = loop {
        let frame = rig.next();
        if frame.info.connection != first {
            break frame.info.connection;
        }
    };
    // It was silent for 1 s, did not stop for 5, and was tried again a second later.
    assert_eq!((second, rig.metrics.abandoned.get()), (first + 1, 1));
    let metrics = rig.metrics.clone();
    let (took, ..) = rig.stop();
    assert!(took > LEAST && took < LIMIT, "the second does not stop either: {took:?}");
    assert_eq!(metrics.abandoned.get(), 2);
    // With nobody at the other end any more, read(2) comes back: what hung does end, and hangs no more.
    drop(held);
    wait_until("the end of both", || metrics.abandoned.get() == 0);
}

#[test]
fn a_pipeline_that_does_not_start_is_abandoned_and_holds_up_no_stop() {
    let _cores = some_cores();
    let folder = TempDir::new().unwrap();
    let (fifo, text) = stuck_description(folder.path());
    let begun = Instant::now();
    let rig = Rig::start(stuck_camera(&text));
    let (report, took) = (first_failure(&rig), begun.elapsed());
    assert!(took > START[0] && took < START[1], "{took:?}");
    assert!(
        report.status == CameraStatus::Offline && report.reason.contains("its start takes more than 15 s"),
        "{report:?}"
    );
    // In the middle of the next start.
    wait_until("the next attempt", || threads_named("start-walk") == 2);
    let metrics = rig.metrics.clone();
    let (took, ..) = rig.stop();
    assert!(took > LEAST && took < LIMIT, "{took:?}");
    assert_eq!(metrics.abandoned.get(), 2);
    wait_until("the end of both", || let_go(&fifo) && metrics.abandoned.get() == 0);
}

/// The file itself is one that cannot be opened for now.
#[test]
fn a_pipeline_that_cannot_even_be_built_holds_up_nobody() {
    let _cores = some_cores();
    let folder = TempDir::new().unwrap();
    let (fifo, _) = stuck_description(folder.path());
    let rig = Rig::start(file(fifo.clone(), Pace::Realtime, false));
    let report = first_failure(&rig);
    assert!(report.reason.contains("its build takes more than 15 s"), "{report:?}");
    wait_until("the next attempt", || threads_named("build-walk") == 2);
    let metrics = rig.metrics.clone();
    let (took, ..) = rig.stop();
    assert!(took < LEAST, "nothing was started that would have to be stopped: {took:?}");
    wait_until("the end of both", || {
        let_go(&fifo) && metrics.abandoned.get() == 0 && threads_named("build-walk") == 0
    });
}

/// Threads of this process.
fn threads_named(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|comm| comm.trim() == name).count()
}

/// Half as many cameras, all of which hang twice.
#[test]
fn a_daemon_with_too_many_hanging_pipelines_ends_to_be_started_anew() {
    let _cores = some_cores();
    let folder = TempDir::new().unwrap();
    let (fifo, text) = stuck_description(folder.path());
    let _held = writer(&fifo);
    let more = format!("pipeline = {text:?}\nstall_timeout = \"1s\"");
    let stuck = |n: i64| camera(&format!("stuck{n}"), "test://?size=64x48&fps=25", &more);
    let cameras: String = (0..ABANDONED_MAX / 2).map(stuck).chain([witness()]).collect();
    let mut daemon = Daemon::start_tiny("batch = 4", &cameras);
    let half = format!("watchpost_pipelines_abandoned {}", ABANDONED_MAX / 2);
    daemon.until("frames", PATIENCE, |heard| heard.count("witness") > 0);
    wait_until("half of them", || daemon.page("/metrics").contains(&half));
    let (status, took) = daemon.ended(Duration::from_secs(60));
    println!("ended after another {took:?}");
    assert_eq!(status.code(), Some(69));
    let words =
        format!("watchpost: {ABANDONED_MAX} pipelines of cameras hang and cannot be stopped: watchpost ends");
    assert!(daemon.log().contains(&words));
    daemon.listen();
    assert!(daemon.heard.notices_of(NoticeKind::CameraLost, Some("witness")).is_empty());
}
