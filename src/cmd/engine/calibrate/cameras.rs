//! Frames of the configured cameras while they run: one every so often, from the camera that has given the fewest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, bounded};

use super::Album;
use crate::camera::{self, Camera};
use crate::cli::{Code, Failure};
use crate::cmd::status_line::Progress;
use crate::config::{CameraConfig, Config, Decode, Pace, Source};
use crate::frame::{CameraId, Frame};
use crate::health::{Board, Posted};
use crate::logging::Console;
use crate::metrics::Metrics;
use crate::slot::{self, SlotReader};

/// Cameras may take this long to give their first frame.
const FIRST_FRAME: Duration = Duration::from_secs(20);
/// How often the clock is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Gathers `wanted` frames over `seconds`.
pub fn gather(
    config: &Config,
    wanted: usize,
    seconds: u64,
    album: &mut Album,
    console: &Console,
) -> Result<(), Failure> {
    let board = Board::default();
    let (readers, cameras, woken) = start(config, &board);
    let gathered = sample(&readers, &woken, wanted, Duration::from_secs(seconds), album, console);
    let reports = board.snapshot();
    let threads: Vec<_> = cameras.into_iter().map(|camera| camera.thread).collect();
    for thread in threads {
        let _ = thread.join();
    }
    let given = gathered?;
    for (reader, _) in readers.iter().zip(&given).filter(|(_, count)| **count == 0) {
        let camera = reader.camera();
        let reason = reports.get(camera).map(|posted| posted.report.reason.as_str()).unwrap_or_default();
        tracing::warn!(%camera, "no frame of it: {reason}");
    }
    if album.frames() == 0 {
        return Err(nothing(&reports));
    }
    Ok(())
}

/// The cameras with their slots; the receiver is told of every frame.
fn start(config: &Config, board: &Board) -> (Vec<SlotReader>, Vec<Camera>, Receiver<()>) {
    let metrics = Metrics::default();
    let (wake, woken) = bounded(1);
    let (mut readers, mut cameras) = (Vec::new(), Vec::new());
    for camera in config.cameras.iter().filter(|camera| camera.enabled) {
        let counters = metrics.camera(&camera.id);
        let (writer, reader) = slot::slot(camera.id.clone(), counters.clone(), 1, camera.priority, wake.clone());
        cameras.push(camera::start(as_wanted(camera), writer, counters, board.clone()));
        readers.push(reader);
    }
    (readers, cameras, woken)
}

/// The letterbox here reads host memory. A file read as fast as possible would give its first second only, as it waits
/// for whoever takes its frames.
fn as_wanted(camera: &CameraConfig) -> CameraConfig {
    let mut camera = CameraConfig { decode: Decode::Software, ..camera.clone() };
    if let Source::File { pace, .. } = &mut camera.source {
        *pace = Pace::Realtime;
    }
    camera
}

/// Takes the frames; how many each camera gave.
fn sample(
    readers: &[SlotReader],
    woken: &Receiver<()>,
    wanted: usize,
    time: Duration,
    album: &mut Album,
    console: &Console,
) -> Result<Vec<usize>, Failure> {
    let mut given = vec![0; readers.len()];
    if readers.is_empty() {
        return Ok(given);
    }
    let mut progress = Progress::new(console, "calibration frames", wanted as u64, Instant::now());
    // The clock begins with the first frame: until then cameras connect.
    let connecting = Instant::now();
    let mut start = None;
    let mut taken = 0;
    while taken < wanted {
        let now = Instant::now();
        let elapsed = start.map(|start: Instant| now.saturating_duration_since(start));
        match elapsed {
            None if now.saturating_duration_since(connecting) > FIRST_FRAME => break,
            Some(elapsed) if elapsed > time => break,
            _ => {}
        }
        let due = time.mul_f64(taken as f64 / wanted as f64);
        if let Some(early) = elapsed.and_then(|elapsed| due.checked_sub(elapsed)).filter(|early| !early.is_zero()) {
            std::thread::sleep(early.min(LOOK));
            continue;
        }
        let Some((camera, frame)) = next(readers, &given) else {
            let _ = woken.recv_timeout(LOOK);
            continue;
        };
        start.get_or_insert(now);
        album.put(album.frames(), readers[camera].camera().as_str(), &frame)?;
        (given[camera], taken) = (given[camera] + 1, taken + 1);
        progress.advance(Instant::now(), 1);
    }
    Ok(given)
}

/// A frame of the camera that has given the fewest, of those that have one.
fn next(readers: &[SlotReader], given: &[usize]) -> Option<(usize, Frame)> {
    let mut order: Vec<usize> = (0..readers.len()).collect();
    order.sort_by_key(|camera| given[*camera]);
    order.into_iter().find_map(|camera| Some((camera, readers[camera].take()?)))
}

/// The sentence about cameras of which none gave a frame.
fn nothing(reports: &BTreeMap<CameraId, Posted>) -> Failure {
    let reasons: Vec<String> =
        reports.iter().map(|(camera, posted)| format!("{camera}: {}", posted.report.reason)).collect();
    let reasons = if reasons.is_empty() { "none is enabled".to_owned() } else { reasons.join("; ") };
    Failure::new(
        Code::Unavailable,
        format!("no camera gave a frame ({reasons}): see to the cameras, then try again"),
    )
}
