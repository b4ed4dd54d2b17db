//! Frames of pictures and clips. A folder of pictures gives them evenly; of a clip each frame has the same chance,
//! however long it is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam::channel::bounded;

use super::Album;
use crate::camera::{self, probe};
use crate::cli::{Code, Failure};
use crate::cmd::status_line::Progress;
use crate::config::{CameraConfig, Decode, DetectionsMode, Pace, Source};
use crate::event::CameraStatus;
use crate::frame::{CameraId, Frame};
use crate::health::Board;
use crate::logging::Console;
use crate::metrics::CameraMetrics;
use crate::slot::{self, SlotReader};
use crate::track::filter::Filter;

/// What folders are searched for.
const PICTURES: [&str; 4] = ["jpg", "jpeg", "png", "bmp"];
const CLIPS: [&str; 7] = ["mp4", "mkv", "avi", "mov", "ts", "m4v", "webm"];
/// The same frames are chosen each time.
const SEED: u64 = 8;
/// How often it is looked whether a clip has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Gathers up to `wanted` frames of `paths`.
pub fn gather(paths: &[PathBuf], wanted: usize, album: &mut Album, console: &Console) -> Result<(), Failure> {
    let (pictures, clips) = found(paths)?;
    // Clips share what pictures leave, and pictures leave clips their half.
    let for_clips = if clips.is_empty() { 0 } else { wanted.saturating_sub(pictures.len()).max(wanted / 2) };
    let chosen = evenly(&pictures, wanted - for_clips);
    let mut progress =
        Progress::new(console, "calibration files", (chosen.len() + clips.len()) as u64, Instant::now());
    for picture in chosen {
        let frame = probe::still(picture).map_err(|e| Failure::new(Code::Config, e))?;
        let folder = picture.parent().unwrap_or(Path::new("")).display().to_string();
        album.put(album.frames(), &folder, &frame)?;
        progress.advance(Instant::now(), 1);
    }
    for (number, path) in clips.iter().enumerate() {
        let left = wanted.saturating_sub(album.frames());
        clip(path, left.div_ceil(clips.len() - number), album)?;
        progress.advance(Instant::now(), 1);
    }
    Ok(())
}

/// The pictures and the clips named, and those in the folders named, in the order of their names.
fn found(paths: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Failure> {
    let (mut pictures, mut clips) = (Vec::new(), Vec::new());
    for path in paths {
        let fail = |e: std::io::Error| {
            let text = format!("--images {}: {e}: give a picture, a clip, or a folder of them", path.display());
            Failure::new(Code::Config, text)
        };
        let files = if std::fs::metadata(path).map_err(fail)?.is_dir() {
            let entries = std::fs::read_dir(path).map_err(fail)?;
            let mut files: Vec<PathBuf> = entries.map(|e| Ok(e?.path())).collect::<Result<_, _>>().map_err(fail)?;
            files.sort();
            files
        } else {
            vec![path.clone()]
        };
        for file in files {
            let ending = file.extension().map(|ending| ending.to_ascii_lowercase());
            let is = |known: &[&str]| ending.as_deref().and_then(OsStr::to_str).is_some_and(|e| known.contains(&e));
            if is(&PICTURES) {
                pictures.push(file);
            } else if is(&CLIPS) {
                clips.push(file);
            }
        }
    }
    if pictures.is_empty() && clips.is_empty() {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let endings = [&PICTURES[..], &CLIPS[..]].concat().join(", ");
        let text = format!("--images {}: no pictures or clips: give files that end in {endings}", paths.join(", "));
        return Err(Failure::new(Code::Config, text));
    }
    Ok((pictures, clips))
}

/// Up to `wanted` of `all`, equally far from each other.
fn evenly<T>(all: &[T], wanted: usize) -> Vec<&T> {
    let count = wanted.min(all.len());
    (0..count).map(|i| &all[i * all.len() / count]).collect()
}

/// Up to `wanted` frames of a clip, each with the same chance: the n-th frame takes an earlier one's place with a chance
/// of `wanted` in n (Vitter, Algorithm R), so that the clip's length need not be known.
fn clip(path: &Path, wanted: usize, album: &mut Album) -> Result<(), Failure> {
    let (board, source) = (Board::default(), path.display().to_string());
    let id = CameraId::new("clip");
    let (wake, woken) = bounded(1);
    let counters = CameraMetrics::default();
    let (writer, reader) = slot::slot(id.clone(), counters.clone(), 1, 1, wake);
    let running = camera::start(camera_of(&id, path), writer, counters, board.clone());
    let mut random = fastrand::Rng::with_seed(SEED);
    let (first, mut seen) = (album.frames(), 0);
    let outcome = loop {
        if let Some(frame) = reader.take() {
            seen += 1;
            let place = if seen <= wanted { album.frames() } else { first + random.usize(..seen) };
            if let Err(error) = keep(place, first + wanted, &source, &frame, album) {
                break Err(error);
            }
            continue;
        }
        if let Some(end) = ended(&board, &id, &reader) {
            break end.map_err(|reason| Failure::new(Code::Config, reason));
        }
        let _ = woken.recv_timeout(LOOK);
    };
    drop(running.control);
    // A feeder may wait for the slot.
    while !reader.ended() {
        drop(reader.take());
        let _ = woken.recv_timeout(LOOK);
    }
    let _ = running.thread.join();
    outcome
}

fn keep(place: usize, end: usize, source: &str, frame: &Frame, album: &mut Album) -> Result<(), Failure> {
    if place < end { album.put(place, source, frame) } else { Ok(()) }
}

/// The clip has ended: well, or with a reason.
fn ended(board: &Board, id: &CameraId, reader: &SlotReader) -> Option<Result<(), String>> {
    let report = board.snapshot().remove(id)?.report;
    match report.status {
        // The last frame is in the slot before this is said.
        CameraStatus::Finished if reader.view().is_none_or(|slot| slot.ready == 0) => Some(Ok(())),
        CameraStatus::Offline if report.attempts > 0 => Some(Err(report.reason)),
        _ => None,
    }
}

fn camera_of(id: &CameraId, path: &Path) -> CameraConfig {
    CameraConfig {
        id: id.clone(),
        enabled: true,
        source: Source::File { path: path.to_owned(), pace: Pace::Fast, repeat: false },
        pipeline: "file".to_owned(),
        decode: Decode::Software,
        fps_max: None,
        priority: 1,
        mask: None,
        stall_timeout: Duration::from_secs(5),
        detections: DetectionsMode::Off,
        detections_hz_max: None,
        zones: Vec::new(),
        lines: Vec::new(),
        filter: Filter::default(),
        events: None,
        motion: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_are_equally_far_from_each_other() {
        let all: Vec<usize> = (0..100).collect();
        assert_eq!(evenly(&all, 4), [&0, &25, &50, &75]);
        assert_eq!(evenly(&all[..3], 10), [&0, &1, &2]);
        assert!(evenly(&all[..0], 10).is_empty() && evenly(&all, 0).is_empty());
    }
}
