//! Frames of the configured cameras while they run: one at each beat, from the camera that has given the fewest.

use std::time::{Duration, Instant};

use crossbeam::channel::bounded;

use super::Album;
use crate::camera::{self, Camera};
use crate::cli::{Code, Failure};
use crate::cmd::status_line::Progress;
use crate::config::{CameraConfig, Config, Pace, Source};
use crate::frame::{CameraId, Frame};
use crate::health::Board;
use crate::logging::Console;
use crate::metrics::Metrics;
use crate::slot::{self, SlotReader};

/// Cameras may take this long to give their first frame.
const FIRST_FRAME: Duration = Duration::from_secs(20);

/// Gathers `wanted` frames over `seconds`.
pub fn gather(
    config: &Config,
    wanted: usize,
    seconds: u64,
    album: &mut Album,
    console: &Console,
) -> Result<(), Failure> {
    let board = Board::default();
    let (readers, cameras) = start(config, &board);
    let gathered = sample(&readers, wanted, Duration::from_secs(seconds), album, console);
    let threads: Vec<_> = cameras.into_iter().map(|camera| camera.thread).collect();
    for thread in threads {
        let _ = thread.join();
    }
    let given = gathered?;
    for (reader, count) in readers.iter().zip(&given) {
        let (camera, reports) = (reader.camera(), board.snapshot());
        let reason = reports.get(camera).map(|(_, report)| report.reason.as_str()).unwrap_or_default();
        if *count == 0 {
            tracing::warn!(%camera, "no frame of it: {reason}");
        }
    }
    if album.frames() == 0 {
        return Err(nothing(&board));
    }
    Ok(())
}

fn start(config: &Config, board: &Board) -> (Vec<SlotReader>, Vec<Camera>) {
    let metrics = Metrics::default();
    // Nobody waits for it: frames are taken at their beat.
    let (wake, _) = bounded(1);
    let (mut readers, mut cameras) = (Vec::new(), Vec::new());
    for camera in config.cameras.iter().filter(|camera| camera.enabled) {
        let counters = metrics.camera(&camera.id);
        let (writer, reader) = slot::slot(camera.id.clone(), counters.clone(), 1, camera.priority, wake.clone());
        cameras.push(camera::start(at_its_own_pace(camera), writer, counters, board.clone()));
        readers.push(reader);
    }
    (readers, cameras)
}

/// A file read as fast as possible waits for whoever takes its frames, and would give its first second only.
fn at_its_own_pace(camera: &CameraConfig) -> CameraConfig {
    let mut camera = camera.clone();
    if let Source::File { pace, .. } = &mut camera.source {
        *pace = Pace::Realtime;
    }
    camera
}

/// Takes the frames; how many each camera gave.
fn sample(
    readers: &[SlotReader],
    wanted: usize,
    time: Duration,
    album: &mut Album,
    console: &Console,
) -> Result<Vec<usize>, Failure> {
    let mut given = vec![0; readers.len()];
    let mut progress = Progress::new(console, "calibration frames", wanted as u64, Instant::now());
    let Some(mut turn) = first(readers, &given) else { return Ok(given) };
    let start = Instant::now();
    for beat in 0..wanted {
        let due = start + time.mul_f64(beat as f64 / wanted as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // At a beat at which no camera has a frame the next one takes it, so nothing is asked twice.
        let taken = turn.take().or_else(|| next(readers, &given));
        let Some((camera, frame)) = taken else { continue };
        let id: &CameraId = readers[camera].camera();
        album.put(album.frames(), id.as_str(), &frame)?;
        given[camera] += 1;
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
