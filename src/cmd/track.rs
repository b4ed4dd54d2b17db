//! `detect --track`: videos through decoder, engine and tracker, as fast as they go. Time is the video's own.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, bounded};
use serde::Serialize;

use crate::backend::{self, Backend, Batch, Settings};
use crate::camera::probe;
use crate::cli::{Code, DetectArgs, Failure};
use crate::engine::Manifest;
use crate::event::Object;
use crate::letterbox::Rect;
use crate::track::{Exit, Track, Tracker, TrackerSettings};
use crate::yolo::{Detection, nms};

/// A frame, a line.
#[derive(Debug, Serialize)]
struct FrameLine {
    /// Since the video's first frame.
    at_ms: u128,
    objects: Vec<Object>,
}

/// A confirmed track that ended, a line.
#[derive(Debug, Serialize)]
struct TrackLine<'a> {
    track: String,
    label: &'a str,
    top_score: f32,
    hits: u32,
    /// Its first and last box, since the video's first frame.
    start_ms: u128,
    end_ms: u128,
    length_ms: u128,
    /// The boxes themselves, 0..1 of the source.
    entry: Rect,
    exit: Rect,
    /// `left`, `lost`, or `video` where the video ended.
    end: &'a str,
}

/// Prints a line of JSON for each frame, and one for each confirmed track when it ends.
pub fn run(args: &DetectArgs, manifest: &Manifest, settings: &Settings) -> Result<(), Failure> {
    let (wake, woken) = bounded(1);
    let mut backend = settings.open(wake, &backend::nothing_is_built())?;
    let step = match args.fps_max {
        None => Duration::ZERO,
        Some(rate) if rate > 0.0 && rate <= 1000.0 => Duration::from_secs_f32(1.0 / rate),
        Some(rate) => {
            return Err(Failure::new(
                Code::Config,
                format!("--fps-max {rate}: give a number above 0, at most 1000"),
            ));
        }
    };
    for path in &args.images {
        let mut following = Following::new(manifest);
        follow(path, step, &mut *backend, &mut following, &woken)?;
        following.finish()?;
    }
    Ok(())
}

/// Takes the frames that are due every `step` through the engine, in their order.
fn follow(
    path: &Path,
    step: Duration,
    backend: &mut dyn Backend,
    following: &mut Following<'_>,
    woken: &Receiver<()>,
) -> Result<(), Failure> {
    let mut waiting: VecDeque<Duration> = VecDeque::new();
    let mut batch = Batch::new(Instant::now());
    let (mut first, mut due) = (None, Duration::ZERO);
    for frame in probe::frames(path).map_err(|e| Failure::new(Code::Config, e))? {
        let frame = frame.map_err(|e| Failure::new(Code::Config, e))?;
        let stamp = Duration::from_nanos(frame.info.pts_ns.unwrap_or_default());
        let at = stamp.saturating_sub(*first.get_or_insert(stamp));
        if at < due {
            continue;
        }
        // Frames at 10 a second are due every third at 3: what is late does not bring the next forward.
        while due <= at && !step.is_zero() {
            due += step;
        }
        while waiting.len() == backend.spec().in_flight {
            take(backend, &mut batch, &mut waiting, following, woken)?;
        }
        waiting.push_back(at);
        backend.submit(vec![frame])?;
    }
    while !waiting.is_empty() {
        take(backend, &mut batch, &mut waiting, following, woken)?;
    }
    Ok(())
}

/// Waits for a batch and follows what is in it.
fn take(
    backend: &mut dyn Backend,
    batch: &mut Batch,
    waiting: &mut VecDeque<Duration>,
    following: &mut Following<'_>,
    woken: &Receiver<()>,
) -> Result<(), Failure> {
    if !backend.try_collect(batch)? {
        let _ = woken.recv();
        return Ok(());
    }
    if let Some((_, why)) = batch.lost.first() {
        return Err(Failure::new(Code::Config, format!("a frame cannot be read: {why}")));
    }
    for lane in &mut batch.lanes {
        let limits = following.manifest.thresholds;
        let found = &mut following.found;
        nms::detections(&mut lane.candidates, &lane.letterbox, limits.nms, limits.max_detections, found);
        if let Some(at) = waiting.pop_front() {
            following.frame(at, lane.frame.size)?;
        }
    }
    Ok(())
}

/// A video's tracks.
struct Following<'a> {
    manifest: &'a Manifest,
    tracker: Tracker,
    /// First boxes of the tracks that live.
    entries: BTreeMap<u64, Rect>,
    found: Vec<Detection>,
}

impl<'a> Following<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        let tracker = Tracker::new(&TrackerSettings::default());
        Self { manifest, tracker, entries: BTreeMap::new(), found: Vec::new() }
    }

    fn frame(&mut self, at: Duration, size: (u32, u32)) -> Result<(), Failure> {
        let step = self.tracker.update(at, size, &self.found);
        let object = |(detection, track): (&Detection, &Option<u64>)| Object {
            track: track.filter(|id| confirmed(&step.tracks, *id)).map(|id| id.to_string()),
            label: label(self.manifest, detection.class).into(),
            class: detection.class,
            score: detection.score,
            rect: detection.rect,
            zones: Vec::new(),
        };
        for track in &step.tracks {
            self.entries.entry(track.id).or_insert(track.rect);
        }
        let objects = self.found.iter().zip(&step.of_detection).map(object).collect();
        print(&FrameLine { at_ms: at.as_millis(), objects })?;
        for ended in &step.ended {
            let how = match ended.how {
                Exit::Left => "left",
                Exit::Lost => "lost",
            };
            end(self.manifest, &mut self.entries, &ended.track, how)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Failure> {
        let entries = &mut self.entries;
        self.tracker.clear().iter().try_for_each(|track| end(self.manifest, entries, track, "video"))
    }
}

/// Tracks are in the order of their ids.
fn confirmed(tracks: &[Track], id: u64) -> bool {
    tracks.binary_search_by_key(&id, |track| track.id).is_ok_and(|index| tracks[index].confirmed)
}

fn end(manifest: &Manifest, entries: &mut BTreeMap<u64, Rect>, track: &Track, how: &str) -> Result<(), Failure> {
    let entry = entries.remove(&track.id).unwrap_or(track.rect);
    if !track.confirmed {
        return Ok(());
    }
    print(&TrackLine {
        track: track.id.to_string(),
        label: label(manifest, track.class),
        top_score: track.top_score,
        hits: track.hits,
        start_ms: track.first_seen.as_millis(),
        end_ms: track.last_seen.as_millis(),
        length_ms: track.last_seen.saturating_sub(track.first_seen).as_millis(),
        entry,
        exit: track.rect,
        end: how,
    })
}

fn label(manifest: &Manifest, class: u32) -> &str {
    manifest.labels.get(class as usize).map_or("?", String::as_str)
}

fn print(line: &impl Serialize) -> Result<(), Failure> {
    println!("{}", serde_json::to_string(line).map_err(|e| Failure::new(Code::Internal, e))?);
    Ok(())
}
