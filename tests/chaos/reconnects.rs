//! A host that is dead for months: thousands of attempts leave nothing behind.
//!
//! `WATCHPOST_RECONNECTS=10000 cargo test --test chaos reconnects -- --nocapture` is the long form.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use watchpost::config::{CameraConfig, Pace, RtspSource, Source, Transport};
use watchpost::event::CameraStatus;
use watchpost::process::SETTINGS;
use watchpost::worker::spawn;

use crate::support::mosquitto::{PATIENCE, free_port, wait_until};
use crate::support::rig::{Rig, file};
use crate::{Held, alone};

const CAMERAS: usize = 16;
/// Attempts in the short form.
const SHORT: usize = 200;

/// A host that takes connections and hangs up.
fn hangs_up() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn("hangs-up", move || listener.incoming().for_each(drop));
    port
}

fn camera(port: u16) -> CameraConfig {
    let source = RtspSource {
        url: format!("rtsp://127.0.0.1:{port}/walk"),
        user: None,
        password: None,
        transport: Transport::Tcp,
        latency: Duration::from_millis(200),
        ca_file: None,
        verify: true,
    };
    let pipeline = "rtsp".to_owned();
    CameraConfig { source: Source::Rtsp(source), pipeline, ..file(PathBuf::new(), Pace::Realtime, false) }
}

/// Each camera fails once. A switch off and on stands for the back-off, which would make this take days.
fn round(rigs: &[Rig]) {
    let all = |what: &str, is: &dyn Fn(&Rig) -> bool| wait_until(what, || rigs.iter().all(is));
    rigs.iter().for_each(|rig| rig.camera.control.enable(true));
    all("each camera has failed", &|rig| {
        rig.report().is_some_and(|report| report.status == CameraStatus::Offline && report.next_retry.is_some())
    });
    rigs.iter().for_each(|rig| rig.camera.control.enable(false));
    all("each camera is off", &|rig| rig.status() == Some(CameraStatus::Disabled));
}

#[test]
fn reconnects_to_a_dead_host_leave_nothing_behind() {
    // As `main` does.
    let settings: Vec<_> = SETTINGS.into_iter().chain([("MALLOC_ARENA_MAX", "2")]).collect();
    if !alone("reconnects::reconnects_to_a_dead_host_leave_nothing_behind", &settings) {
        return;
    }
    let wanted = std::env::var("WATCHPOST_RECONNECTS").map_or(SHORT, |count| count.parse().unwrap());
    let ports = [free_port(), hangs_up()];
    let rigs: Vec<Rig> = (0..CAMERAS).map(|n| Rig::start(camera(ports[n % 2]))).collect();
    let rounds = wanted.div_ceil(CAMERAS);
    let (begun, warm) = (Instant::now(), rounds / 5 + 1);
    let mut before = Held::of(std::process::id());
    for done in 0..rounds {
        if done == warm {
            before = Held::of(std::process::id());
        }
        round(&rigs);
        if done % 50 == 49 {
            println!("{} reconnects: {:?}", (done + 1) * CAMERAS, Held::of(std::process::id()));
        }
    }
    // Pipelines are stopped on threads of their own, which may end a little later.
    let (until, mut after) = (Instant::now() + PATIENCE, Held::of(std::process::id()));
    let [descriptors, threads] = [before.descriptors + 4, before.threads + 8];
    while (after.descriptors > descriptors || after.threads > threads) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
        after = Held::of(std::process::id());
    }
    let counted = rigs.iter().map(|rig| rig.metrics.reconnects.get()).sum::<u64>();
    println!(
        "{counted} reconnects in {:?}: after {} {before:?}, in the end {after:?}",
        begun.elapsed(),
        warm * CAMERAS
    );
    assert!(counted as usize >= wanted, "{counted}");
    assert!(after.descriptors <= descriptors, "descriptors grow: {before:?}, {after:?}");
    assert!(after.threads <= threads, "threads grow: {before:?}, {after:?}");
    // 16 kB an attempt, as others have lost, would be 2.6 MB of the short form's and 130 MB of the long one's.
    assert!(after.memory <= before.memory + (12 << 20), "memory grows: {before:?}, {after:?}");
    for rig in rigs {
        rig.stop();
    }
}
