//! Engines on a GPU, built and opened as the daemon does it; elsewhere each test says in a line that it is skipped.
//!
//! * `WATCHPOST_GPU_ENGINE`: the engine, with its stamp beside it; `WATCHPOST_GPU_MANIFEST`: its manifest. Required.
//! * `WATCHPOST_TENSORRT`: the folder of TensorRT's libraries, if the loader does not know it.
//! * `WATCHPOST_GPU_OPENINGS`: how often it is opened, 100 unless given.
//! * `WATCHPOST_GPU_CLIP`: an H.264 clip, decoded by the GPU while its driver fails. Required for that test, and so is `cc`.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::bounded;
use support::daemon::Daemon;
use support::library::library;
use support::onnx;
use tempfile::TempDir;
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
    assert_ne!((&old.model.sha256, &old.sha256), (&new.model.sha256, &new.sha256));
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
    assert_eq!(info["engine"]["gpu"], new.gpu.as_ref().unwrap().name);

    // One that cannot be built leaves the old one where it is.
    fs::write(daemon.dir().join("tiny.onnx"), onnx::picture("Nonsense")).unwrap();
    daemon.kill_and_restart();
    daemon.until("the build that fails", BUILD, |heard| {
        let told = heard.notices_of(NoticeKind::EngineBuild, None);
        told.iter().any(|(_, n)| n.text.contains("Nonsense") && n.text.ends_with("the old engine goes on"))
    });
    let before = daemon.heard.count("yard");
    daemon.until("frames through the old engine", PATIENCE, |heard| heard.count("yard") > before + 20);
    assert_eq!(engines(&daemon).last(), served.last());
    assert_eq!(stamp(&daemon), new);
    // Frames of both starts were heard: the account of the second does not cover them.
    assert!(daemon.stop().0.success());
}

/// The driver's library, as this process has it.
fn driver() -> PathBuf {
    Device::open(0).unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path =
        maps.lines().find_map(|line| line.split_ascii_whitespace().nth(5).filter(|p| p.contains("/libcuda.so")));
    PathBuf::from(path.expect("libcuda.so.1 is open"))
}

/// A library in `folder` that goes before the driver's and hands everything on to it; but a graph's launch fails, once for
/// each time that the file `fail` is put there, and while the file `crash` is there, making one ends the process.
fn failing_driver(folder: &Path) {
    let real = driver();
    let source = format!(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <unistd.h>\n\
         #include <stdlib.h>\n\
         static void *real(const char *name) {{ return dlsym(dlopen({real:?}, RTLD_NOW), name); }}\n\
         int cuGraphLaunch(void *graph, void *stream) {{\n\
         int (*launch)(void *, void *) = (int (*)(void *, void *))real(\"cuGraphLaunch\");\n\
         return unlink({:?}) == 0 ? 719 : launch(graph, stream);\n}}\n\
         int cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) {{\n\
         int (*make)(void **, void *, unsigned long long);\n\
         make = (int (*)(void **, void *, unsigned long long))real(\"cuGraphInstantiateWithFlags\");\n\
         if (access({:?}, F_OK) == 0) abort();\n\
         return make(made, graph, flags);\n}}\n",
        folder.join("fail"),
        folder.join("crash")
    );
    // Named by its path, the driver's own is what the other needs, and not itself.
    library(folder, "real.so", "", &[&format!("-Wl,-soname,{}", real.display())]);
    let linked = ["-Wl,--no-as-needed", "real.so", "-ldl", "-Wl,-soname,before.so"];
    library(folder, "libcuda.so.1", &source, &linked);
    std::os::unix::fs::symlink("libcuda.so.1", folder.join("libcuda.so")).unwrap();
}

/// A camera of each kind, on a driver that fails as it is told to. `None`, with a word about it, where something is missing.
fn start_on_a_failing_driver() -> Option<(MutexGuard<'static, ()>, Daemon)> {
    let (tensorrt, clip) = (from_environment("WATCHPOST_TENSORRT")?, from_environment("WATCHPOST_GPU_CLIP")?);
    if let Err(why) = Device::open(0) {
        eprintln!("skipped: {why}");
        return None;
    }
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = TempDir::new().unwrap();
    failing_driver(dir.path());
    let others = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let env = vec![("LD_LIBRARY_PATH".to_owned(), format!("{}:{others}", dir.path().display()))];
    let engine = format!(
        "confidence = 1.0\nbackend = \"tensorrt\"\nbatch = 1\n[engine.tensorrt]\nlibrary = {tensorrt:?}\nbuild = true"
    );
    let cameras = format!(
        "[[camera]]\nid = \"yard\"\nurl = \"test://?size=320x240&fps=10\"\n\
         [[camera]]\nid = \"gate\"\nurl = {clip:?}\ndecode = \"cuda\"\npace = \"realtime\"\nrepeat = true\n"
    );
    let mut daemon = Daemon::start_tiny_in(dir, env, &engine, &cameras, |port| port);
    more_of_both(&mut daemon, BUILD);
    Some((turn, daemon))
}

fn more_of_both(daemon: &mut Daemon, limit: Duration) {
    let before = ["yard", "gate"].map(|camera| (camera, daemon.heard.count(camera)));
    daemon.until("frames of both", limit, |heard| before.iter().all(|(id, before)| heard.count(id) > before + 20));
}

#[test]
fn a_failure_of_the_gpu_is_got_over_once_and_the_next_ends_the_daemon() {
    let Some((_turn, mut daemon)) = start_on_a_failing_driver() else { return };
    let fail = daemon.dir().join("fail");
    fs::write(&fail, "").unwrap();
    daemon.until("it is opened anew", PATIENCE, |heard| {
        !heard.notices_of(NoticeKind::BackendReopened, None).is_empty()
    });
    assert!(!fail.exists() && daemon.log().contains("launching a graph"), "{}", daemon.log());
    more_of_both(&mut daemon, PATIENCE);

    fs::write(&fail, "").unwrap();
    let (status, _) = daemon.ended(PATIENCE);
    assert_eq!(status.code(), Some(69), "{}", daemon.log());
    println!("{}", daemon.log().lines().rev().take(3).collect::<Vec<_>>().join("\n"));
}

#[test]
fn an_engine_that_ends_the_process_is_built_anew_after_three() {
    let Some((_turn, mut daemon)) = start_on_a_failing_driver() else { return };
    let built = daemon.heard.notices_of(NoticeKind::EngineBuild, None).len();
    let crash = daemon.dir().join("crash");
    fs::write(&crash, "").unwrap();
    daemon.kill();
    // It is built anew before the fourth, which TensorRT may make the same file.
    for _ in 0..6 {
        daemon.start_again();
        let (status, _) = daemon.ended(BUILD);
        assert_eq!(status.code(), None, "{status}: {}", daemon.log());
    }
    assert!(daemon.log().contains("3 processes in a row ended while it was being opened"), "{}", daemon.log());
    daemon.start_again();
    let (status, _) = daemon.ended(PATIENCE);
    assert_eq!(status.code(), Some(69), "{status}: {}", daemon.log());
    assert!(daemon.log().contains("6 processes in a row ended while it was being opened"), "{}", daemon.log());

    fs::remove_file(&crash).unwrap();
    fs::remove_file(daemon.dir().join("state/engines/opening")).unwrap();
    daemon.start_again();
    more_of_both(&mut daemon, PATIENCE);
    assert!(daemon.heard.notices_of(NoticeKind::EngineBuild, None).len() > built);
    assert!(!daemon.dir().join("state/engines/opening").exists());
    assert!(daemon.stop().0.success());
}
