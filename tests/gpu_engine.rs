//! Engines on a GPU, built and opened as the daemon does it; elsewhere each test says in a line that it is skipped.
//!
//! * `WATCHPOST_GPU_ENGINE`: the engine, with its stamp beside it; `WATCHPOST_GPU_MANIFEST`: its manifest. Required.
//! * `WATCHPOST_TENSORRT`: the folder of TensorRT's libraries, if the loader does not know it.
//! * `WATCHPOST_GPU_OPENINGS`: how often it is opened, 100 unless given.

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::bounded;
use support::daemon::Daemon;
use support::onnx;
use watchpost::backend::tensorrt::Settings;
use watchpost::backend::{self, Batch, nothing_is_built};
use watchpost::config::TensorrtConfig;
use watchpost::engine::{Manifest, built};
use watchpost::event::NoticeKind;
use watchpost::frame::{CameraId, Captured, ClockSource, Frame, FrameInfo, Image, SystemImage};
use watchpost::gpu::device::Device;

/// Openings after which the driver has what it keeps for later.
const SETTLED: usize = 10;
/// For a batch that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// For a build of a tiny model, which takes TensorRT half a minute at most.
const BUILD: Duration = Duration::from_secs(120);
/// What may be missing in the end: far less than one opening takes (hundreds of MiB on the GPU, some of RSS).
const GPU_MAX: u64 = 8 << 20;
const RSS_MAX: u64 = 24 << 20;

/// One test at a time: one measures the GPU's free memory.
static TURN: Mutex<()> = Mutex::new(());

fn from_environment(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os(name).map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: {name} is not set");
    }
    found
}

fn frame(seq: u64) -> Frame {
    let now = Instant::now();
    let info = FrameInfo {
        camera: CameraId::new("test"),
        seq,
        arrived: now,
        decoded: now,
        captured: Captured { wall: SystemTime::now(), clock: ClockSource::HostArrival, err_ms: 0 },
        pts_ns: None,
        size: (1920, 1080),
        connection: 0,
        gate: None,
    };
    Frame { info, image: Image::System(SystemImage::solid(1920, 1080, [90, 128, 128])), mask: None }
}

/// Opens, runs one full batch to its end, closes.
fn once(settings: &backend::Settings) {
    let (wake, woken) = bounded(1);
    let mut backend = settings.open(wake, &nothing_is_built()).unwrap();
    let lanes = backend.spec().lanes;
    backend.submit((0..lanes as u64).map(frame).collect()).unwrap();
    let mut batch = Batch::new(Instant::now());
    while !backend.try_collect(&mut batch).unwrap() {
        woken.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(batch.lanes.len(), lanes);
}

#[test]
fn an_engine_opened_a_hundred_times_leaves_nothing_behind() {
    let Some(engine) = from_environment("WATCHPOST_GPU_ENGINE") else { return };
    let Some(manifest) = from_environment("WATCHPOST_GPU_MANIFEST") else { return };
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let manifest = Manifest::load(&manifest).unwrap();
    let library = std::env::var_os("WATCHPOST_TENSORRT").map(PathBuf::from);
    let config = TensorrtConfig { library, engine: Some(engine), device: 0, contexts: 2, build: false };
    let settings = backend::Settings::TensorRt(Settings::of_engine(&config, &manifest).unwrap());
    let device = Device::open(0).unwrap();
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let openings = std::env::var("WATCHPOST_GPU_OPENINGS").map_or(100, |text| text.parse().unwrap());
    let begun = Instant::now();
    (0..SETTLED).for_each(|_| once(&settings));
    let (free, rss) = (device.memory().unwrap().0, resident());
    (SETTLED..openings).for_each(|_| once(&settings));
    let (lost, grown) = (free.saturating_sub(device.memory().unwrap().0), resident().saturating_sub(rss));
    println!(
        "openings: {openings} in {:.1} s: {lost} bytes less on the GPU, {grown} bytes more resident than after {SETTLED}",
        begun.elapsed().as_secs_f64()
    );
    assert!(lost <= GPU_MAX && grown <= RSS_MAX, "{lost} {grown}");
}

/// The digests of the engines that ran, in the order in which they came.
fn engines(daemon: &Daemon) -> Vec<String> {
    let mut digests: Vec<String> = daemon.heard.of("yard").iter().map(|(_, m)| m.model.engine.clone()).collect();
    digests.dedup();
    digests
}

#[test]
fn a_missing_engine_is_built_at_the_start_and_another_models_beside_the_old_one() {
    let Some(library) = from_environment("WATCHPOST_TENSORRT") else { return };
    if let Err(why) = Device::open(0) {
        eprintln!("skipped: {why}");
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let engine =
        format!("backend = \"tensorrt\"\nbatch = 1\n[engine.tensorrt]\nlibrary = {library:?}\nbuild = true");
    let camera = "[[camera]]\nid = \"yard\"\nurl = \"test://?size=320x240&fps=10\"\n";
    let mut daemon = Daemon::start_tiny(&engine, camera);
    daemon.until("frames through an engine built at the start", BUILD, |heard| heard.count("yard") > 20);
    assert!(!daemon.heard.notices_of(NoticeKind::EngineBuild, None).is_empty());
    let first = engines(&daemon);
    assert_eq!(first.len(), 1, "{first:?}");
    let stamp = |daemon: &Daemon| {
        let mut found = fs::read_dir(daemon.dir().join("state/engines")).unwrap().map(|e| e.unwrap().path());
        let engine = found.find(|path| path.extension().is_some_and(|e| e == "engine")).unwrap();
        built::stamp(&engine).unwrap()
    };
    let old = stamp(&daemon);
    assert!(old.gpu.is_some(), "{old:?}");

    fs::write(daemon.dir().join("tiny.onnx"), onnx::yolov8_convolution()).unwrap();
    daemon.kill_and_restart();
    daemon.until("frames through the new engine", BUILD, |heard| {
        heard.of("yard").last().is_some_and(|(_, m)| m.model.engine != first[0])
    });
    let new = stamp(&daemon);
    assert_ne!((old.model.sha256, old.sha256), (new.model.sha256, new.sha256));
    let served = engines(&daemon);
    assert_eq!(served.len(), 2, "the old engine served until the new one was there: {served:?}");
    let texts: Vec<&str> =
        daemon.heard.notices_of(NoticeKind::EngineBuild, None).iter().map(|(_, n)| n.text.as_str()).collect();
    println!("notices: {texts:#?}");
    let steps = daemon.heard.notices_of(NoticeKind::EngineBuild, None);
    assert!(steps.iter().all(|(_, n)| n.pct.is_some_and(|pct| pct == 100 || n.text.contains(&format!("{pct} %")))));
    assert!(texts.contains(&"the engine is built"), "{texts:?}");
    let info: serde_json::Value = serde_json::from_str(daemon.heard.text("info")).unwrap();
    assert_eq!(info["engine"]["tensorrt"], new.tensorrt.to_string());
    assert_eq!(info["engine"]["gpu"], new.gpu.unwrap().name);
    // Frames of both starts were heard: the account of the second does not cover them.
    assert!(daemon.stop().0.success());
}
