//! One frame from one source: `detect`'s pictures and `probe`'s look at a camera.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video::VideoInfo;

use super::memory;
use super::pipeline::{self, CameraError, Pipeline};
use crate::config::{Decode, Pace, Source};
use crate::frame::{CameraId, Captured, ClockSource, Frame, FrameInfo};

/// The first frame comes in well under this, or not at all.
const FIRST_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks for errors.
const LOOK_EVERY: gst::ClockTime = gst::ClockTime::from_mseconds(100);

/// Stops its pipeline when dropped.
struct Started(Pipeline);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.pipeline.set_state(gst::State::Null);
    }
}

/// The frames of a picture or video file, one after the other, through the same description as a file camera.
pub struct Frames {
    name: String,
    started: Started,
    first: Option<gst::Sample>,
}

/// Opens a picture or video file and waits for its first frame.
///
/// # Errors
///
/// A sentence naming the file.
pub fn frames(path: &Path) -> Result<Frames, CameraError> {
    let name = path.display().to_string();
    let source = Source::File { path: path.to_path_buf(), pace: Pace::Fast, repeat: false };
    let started = Started(pipeline::build("file", &source, Decode::Software, false)?);
    let _ = started.0.pipeline.set_state(gst::State::Playing); // a failure is on the bus, in words
    let first = first_sample(&started.0).map_err(|e| e.of(&name))?;
    Ok(Frames { name, started, first: Some(first) })
}

impl Iterator for Frames {
    type Item = Result<Frame, CameraError>;

    fn next(&mut self) -> Option<Self::Item> {
        let sample = match self.first.take() {
            Some(sample) => Ok(sample),
            None => next_sample(&self.started.0).transpose()?,
        };
        Some(sample.and_then(|sample| frame(&sample)).map_err(|e| e.of(&self.name)))
    }
}

/// The first frame of a picture or video file, as [`frames`] has it.
///
/// # Errors
///
/// A sentence naming the file.
pub fn still(path: &Path) -> Result<Frame, CameraError> {
    let none = || CameraError::Stream(format!("{}: no frame came", path.display()));
    frames(path)?.next().ok_or_else(none)?
}

/// The next frame; none at the end of the file.
fn next_sample(parts: &Pipeline) -> Result<Option<gst::Sample>, CameraError> {
    let start = Instant::now();
    loop {
        if let Some(sample) = parts.frames.try_pull_sample(LOOK_EVERY) {
            return Ok(Some(sample));
        }
        if parts.frames.is_eos() {
            return Ok(None);
        }
        let message = parts.pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
        if let Some(gst::MessageView::Error(error)) = message.as_ref().map(|m| m.view()) {
            return Err(parts.error(error));
        }
        if start.elapsed() > FIRST_LIMIT {
            return Err(CameraError::Stream("no frame came: give a picture or a video stream".to_owned()));
        }
    }
}

/// The first frame, or why there is none.
fn first_sample(parts: &Pipeline) -> Result<gst::Sample, CameraError> {
    let none = || CameraError::Stream("no frame came: give a picture or a video stream".to_owned());
    next_sample(parts)?.ok_or_else(none)
}

fn frame(sample: &gst::Sample) -> Result<Frame, CameraError> {
    let broken = || CameraError::Stream("what comes out is not raw video".to_owned());
    let caps = sample.caps().ok_or_else(broken)?;
    let info = VideoInfo::from_caps(caps).map_err(|_| broken())?;
    let buffer = sample.buffer_owned().ok_or_else(broken)?;
    let (now, wall) = (Instant::now(), std::time::SystemTime::now());
    let info_of_frame = FrameInfo {
        camera: CameraId::new("still"),
        seq: 0,
        connection: 0,
        arrived: now,
        decoded: now,
        captured: Captured { wall, clock: ClockSource::File, err_ms: 0 },
        pts_ns: buffer.pts().map(gst::ClockTime::nseconds),
        size: (info.width(), info.height()),
        gate: None,
    };
    Ok(Frame { info: info_of_frame, image: memory::image(buffer, caps, &info)?, mask: None })
}

/// What a source turned out to deliver.
#[derive(Clone, Debug)]
pub struct Found {
    /// Caps of the frames, as GStreamer writes them.
    pub caps: String,
    /// From the start to the first frame.
    pub first_frame: Duration,
    /// Frames after the first.
    pub frames: u32,
    /// From the first frame to the last.
    pub watched: Duration,
    /// The camera's clock against ours, in milliseconds, where its sender reports tell it.
    pub camera_clock_ms: Option<i64>,
}

/// Watches a source for `duration` and saves its first frame as JPEG.
///
/// # Errors
///
/// Why it delivers nothing, or why the picture cannot be written.
pub fn watch(name: &str, source: &Source, duration: Duration, jpeg: &PathBuf) -> Result<Found, CameraError> {
    let start = Instant::now();
    let started = Started(pipeline::build(name, source, Decode::Software, false)?);
    let clocks = super::sink::watch_clock(&started.0.source);
    let _ = started.0.pipeline.set_state(gst::State::Playing); // a failure is on the bus, in words
    let sample = first_sample(&started.0)?;
    let (first, caps) = (Instant::now(), sample.caps().map(ToString::to_string).unwrap_or_default());
    save_jpeg(&sample, jpeg)?;
    let (mut frames, mut last) = (0, first);
    while first.elapsed() < duration && !started.0.frames.is_eos() {
        if started.0.frames.try_pull_sample(LOOK_EVERY).is_some() {
            (frames, last) = (frames + 1, Instant::now());
        }
    }
    let watched = last.duration_since(first);
    let camera_clock_ms = clocks.camera_clock_ms();
    Ok(Found { caps, first_frame: first.duration_since(start), frames, watched, camera_clock_ms })
}

fn save_jpeg(sample: &gst::Sample, path: &PathBuf) -> Result<(), CameraError> {
    let fail = |e: &dyn std::fmt::Display| {
        CameraError::Setup(format!("picture {}: {e}: give another with --jpeg", path.display()))
    };
    let caps = gst::Caps::new_empty_simple("image/jpeg");
    let limit = Some(gst::ClockTime::from_seconds(10));
    let picture = gstreamer_video::convert_sample(sample, &caps, limit).map_err(|e| fail(&e))?;
    let map = picture.buffer().and_then(|b| b.map_readable().ok());
    let map = map.ok_or_else(|| fail(&"no picture was made"))?;
    std::fs::write(path, map.as_slice()).map_err(|e| fail(&e))
}
