//! The machine's clock steps by an hour, forward and back, and its time zone changes, while the daemon runs: libfaketime
//! between it and the system, with the monotonic clock left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use watchpost::event::{EndReason, Event, EventKind, NoticeKind, rfc3339};
use watchpost::frame::ClockSource;

use crate::support::clips::{Clip, clip};
use crate::support::cores::all_cores;
use crate::support::daemon::{Daemon, Heard, camera, undisturbed, witness};
use crate::support::rtsp::RtspServer;

const LIMIT: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// How far a time may be from the one that it should be: a slow machine.
const NEAR: Duration = Duration::from_secs(20);
/// Messages of each camera between two steps.
const MESSAGES: usize = 15;
const CAMERAS: [&str; 2] = ["walk", "net"];

fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: no libfaketime: run scripts/setup");
    }
    found
}

/// Of a process whose clock is as far from the system's as `clock`, a file, says.
fn environment(library: &Path, clock: &Path) -> Vec<(String, String)> {
    let env = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ];
    env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// Puts a file in another's place at once, as the tools that set a time zone do.
fn replace(path: &Path, body: impl AsRef<[u8]>) {
    let new = path.with_extension("new");
    fs::write(&new, body).unwrap();
    fs::rename(new, path).unwrap();
}

fn more(daemon: &mut Daemon, what: &str) {
    let before = CAMERAS.map(|camera| daemon.heard.count(camera));
    daemon.until(what, LIMIT, |heard| {
        CAMERAS.iter().zip(before).all(|(camera, before)| heard.count(camera) >= before + MESSAGES)
    });
}

/// Tracks in the last message of a camera that has any, looking back over a second of frames.
fn tracks(heard: &Heard, camera: &str) -> BTreeSet<String> {
    let last = heard.of(camera).iter().rev().take(10);
    last.flat_map(|(_, message)| &message.objects).filter_map(|object| object.track.clone()).collect()
}

/// A camera's latest capture time is near `wanted`.
#[track_caller]
fn is_near(heard: &Heard, camera: &str, wanted: SystemTime) {
    let captured = &heard.of(camera).last().unwrap().1.ts.captured;
    let range = rfc3339(wanted - NEAR)..rfc3339(wanted + NEAR);
    assert!(range.contains(captured), "{camera}: {captured} is not within {range:?}");
}

#[test]
fn a_clock_that_steps_and_another_time_zone_disturb_nothing() {
    let _cores = all_cores();
    let (Some(library), Some(walk)) = (library(), clip(Clip::H264)) else { return };
    let stream = format!("walk={}", walk.display());
    let server = RtspServer::start(&["--stream", &stream]);
    let folder = TempDir::new().unwrap();
    let (clock, zone) = (folder.path().join("clock"), folder.path().join("zone"));
    let zones = Path::new("/usr/share/zoneinfo");
    fs::write(&clock, "+0").unwrap();
    fs::copy(zones.join("Europe/Berlin"), &zone).unwrap();
    let mut env = environment(&library, &clock);
    env.push(("TZ".to_owned(), format!(":{}", zone.display())));
    let cameras = format!(
        "[[camera]]\nid = \"walk\"\nurl = {walk:?}\nrepeat = true\nfps_max = 5\n\
         [[camera]]\nid = \"net\"\nurl = \"{}\"\nfps_max = 5\n[events]\nlabels = [\"person\"]\n",
        server.url("walk")
    );
    let Some(mut daemon) = Daemon::start_with(folder, env, "", &cameras) else { return };
    more(&mut daemon, "frames at the right time");
    let now = SystemTime::now;
    let steady = Instant::now();
    let before: BTreeMap<_, _> = CAMERAS.iter().map(|camera| (*camera, tracks(&daemon.heard, camera))).collect();

    replace(&clock, "+3600");
    more(&mut daemon, "frames an hour ahead");
    for camera in CAMERAS {
        is_near(&daemon.heard, camera, now() + HOUR);
        let kept = tracks(&daemon.heard, camera);
        assert!(before[camera].is_empty() || !kept.is_empty(), "{camera}: the step ended its tracks");
    }
    let clock_of = |heard: &Heard| serde_json::to_value(heard.of("net").last().unwrap().1.ts.clock).unwrap();
    assert_eq!(clock_of(&daemon.heard), "host_arrival", "the camera's clock is an hour from ours now");

    replace(&clock, "-3600");
    more(&mut daemon, "frames an hour behind");
    for camera in CAMERAS {
        // Lifted to the last one before the step back, and says by how much.
        is_near(&daemon.heard, camera, now() + HOUR);
        let err_ms = u128::from(daemon.heard.of(camera).last().unwrap().1.ts.err_ms);
        assert!(err_ms.abs_diff(2 * HOUR.as_millis()) < NEAR.as_millis(), "{camera}: {err_ms} ms");
    }
    replace(&zone, fs::read(zones.join("Asia/Tokyo")).unwrap());
    replace(&clock, "+0");
    more(&mut daemon, "frames at the right time, in another zone");
    assert!(daemon.page("/readyz").starts_with("HTTP/1.1 200"));
    daemon.finish();
    nothing_was_disturbed(&daemon, steady);
}

/// The camera's own clock, which its sender reports tell, steps; ours does not.
#[test]
fn a_cameras_clock_that_steps_disturbs_nothing() {
    let _cores = all_cores();
    let (Some(library), Some(walk)) = (library(), clip(Clip::H264)) else { return };
    let folder = TempDir::new().unwrap();
    let clock = folder.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    let stream = format!("net={}", walk.display());
    let server = RtspServer::start_with(&["--stream", &stream], &environment(&library, &clock));
    let cameras = camera("net", &server.url("net"), "fps_max = 5") + &witness();
    let mut daemon = Daemon::start_tiny("", &cameras);
    let begun = Instant::now();
    for (step, source) in [
        ("+0", ClockSource::RtcpSr),
        ("+3600", ClockSource::HostArrival),
        ("+0", ClockSource::RtcpSr),
        ("-3600", ClockSource::HostArrival),
        ("+0", ClockSource::RtcpSr),
    ] {
        replace(&clock, step);
        let stepped = Instant::now();
        // With the next sender report: GStreamer's server sends one every few seconds.
        daemon.until(&format!("frames and state by {source:?} at {step}"), LIMIT, |heard| {
            heard.of("net").last().is_some_and(|(at, m)| *at > stepped && m.ts.clock == source)
                && heard.state("net").is_some_and(|state| state.clock == Some(source))
        });
        println!("{step}: {source:?} after {:?}", stepped.elapsed());
        is_near(&daemon.heard, "net", SystemTime::now());
        let err_ms = daemon.heard.of("net").last().unwrap().1.ts.err_ms;
        assert!(err_ms < 5_000, "{step}: {err_ms} ms: the camera's time is not believed");
    }
    daemon.finish();
    undisturbed(&daemon);
    is_never_lost_nor_goes_back(&daemon, "net", begun);
}

fn nothing_was_disturbed(daemon: &Daemon, steady: Instant) {
    CAMERAS.iter().for_each(|camera| is_never_lost_nor_goes_back(daemon, camera, steady));
    let mut lives: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    daemon.heard.events.iter().for_each(|event| lives.entry(&event.id).or_default().push(event));
    assert!(!lives.is_empty(), "nobody was seen");
    for (id, life) in lives {
        let count = |kind| life.iter().filter(|event| event.kind == kind).count();
        assert_eq!((count(EventKind::New), count(EventKind::End)), (1, 1), "{id}: {life:?}");
        let end = life.last().unwrap();
        assert!(end.end.as_ref() >= Some(&end.start), "{id} ended before it began: {end:?}");
        assert_ne!(end.end_reason, Some(EndReason::CameraLost), "{end:?}");
    }
}

/// Its capture times, and it itself; it makes no pause either, once all runs.
fn is_never_lost_nor_goes_back(daemon: &Daemon, camera: &str, steady: Instant) {
    for pair in daemon.heard.of(camera).windows(2) {
        let (before, after) = (&pair[0].1, &pair[1].1);
        assert!(before.ts.captured <= after.ts.captured, "{camera}: {:?} {:?}", before.ts, after.ts);
        let pause = pair[1].0 - pair[0].0;
        assert!(pair[0].0 < steady || pause < Duration::from_secs(4), "{camera} paused for {pause:?}");
        let age = after.lat_ms.total;
        assert!((0.0..10_000.0).contains(&age), "{camera}: {age} ms old");
    }
    assert!(daemon.heard.notices_of(NoticeKind::CameraLost, Some(camera)).is_empty(), "{camera} was lost");
    assert!(daemon.heard.states[camera].iter().all(|state| state.attempts == 0), "{camera} was rebuilt");
}
