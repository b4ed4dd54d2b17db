//! A camera whose slot is in the test's hands.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, bounded};
use watchpost::camera::{self, Camera};
use watchpost::config::{CameraConfig, Decode, DetectionsMode, Pace, Source};
use watchpost::event::CameraStatus;
use watchpost::frame::{CameraId, Frame, Image};
use watchpost::health::{Board, CameraReport};
use watchpost::metrics::CameraMetrics;
use watchpost::slot::{self, SlotReader};
use watchpost::track::filter::Filter;

use super::mosquitto::PATIENCE;

/// Lanes of a batch, and with it frames in the slot of a file that is read fast.
pub const LANES: usize = 4;

/// Longer than any stop takes, and shorter than the 5 s after which a pipeline that does not stop is abandoned.
pub const STOP: Duration = Duration::from_millis(4500);

/// A camera's thread with its pipeline, and no engine.
pub struct Rig {
    /// Its orders.
    pub camera: Camera,
    /// Where its frames come.
    pub reader: SlotReader,
    /// Told of each.
    pub wake: Receiver<()>,
    /// Its counters.
    pub metrics: CameraMetrics,
    board: Board,
}

/// A file as a camera.
pub fn file(path: PathBuf, pace: Pace, repeat: bool) -> CameraConfig {
    CameraConfig {
        id: CameraId::new("walk"),
        enabled: true,
        source: Source::File { path, pace, repeat },
        decode: Decode::Auto,
        pipeline: "file".to_owned(),
        fps_max: None,
        priority: 5,
        mask: None,
        stall_timeout: Duration::from_secs(5),
        detections: DetectionsMode::All,
        detections_hz_max: None,
        zones: Vec::new(),
        lines: Vec::new(),
        filter: Filter::default(),
        events: None,
        motion: None,
    }
}

impl Rig {
    /// Starts it.
    pub fn start(config: CameraConfig) -> Self {
        camera::init().unwrap();
        let (waker, wake) = bounded(1);
        let (metrics, board) = (CameraMetrics::default(), Board::default());
        let fast = matches!(config.source, Source::File { pace: Pace::Fast, .. });
        let depth = if fast { LANES } else { 1 };
        let (writer, reader) = slot::slot(config.id.clone(), metrics.clone(), depth, 5, waker);
        let camera = camera::start(config, writer, metrics.clone(), board.clone());
        Self { camera, reader, wake, metrics, board }
    }

    /// The next frame, waited for.
    pub fn next(&self) -> Frame {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(frame) = self.reader.take() {
                return frame;
            }
            let woken = self.wake.recv_deadline(deadline);
            assert!(woken.is_ok(), "no frame comes: {:?}", self.report());
        }
    }

    /// What it last said of itself.
    pub fn report(&self) -> Option<CameraReport> {
        self.board.snapshot().into_values().next().map(|posted| posted.report)
    }

    /// Its state.
    pub fn status(&self) -> Option<CameraStatus> {
        self.report().map(|report| report.status)
    }

    /// Takes the camera down; how long that took.
    pub fn stop(self) -> (Duration, CameraMetrics, SlotReader) {
        let begun = Instant::now();
        drop(self.camera.control);
        self.camera.thread.join().unwrap();
        (begun.elapsed(), self.metrics, self.reader)
    }
}

/// What a frame looks like; what pads its rows is anything.
pub fn checksum(frame: &Frame) -> u64 {
    let Image::System(image) = &frame.image else { panic!("not in host memory") };
    let rows = image.planes.plane(0).chunks(image.strides[0]).take(image.height as usize);
    let pixels = rows.flat_map(|row| &row[..image.width as usize]);
    pixels.fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}
