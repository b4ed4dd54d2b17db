//! Snapshots: the best picture of a track, and what a camera sees when somebody asks, as JPEGs in a bounded folder and
//! published.
//!
//! ```text
//!   analysis ──► channel (32, drops) ─► `snapshot` thread: JPEG ─► folder/{camera}/{track}.jpg, {camera}/{camera}-{time}.jpg
//!   ([`best`] chooses)                                        └──► whoever publishes
//! ```
//!
//! Nothing here holds the data path up: a picture that finds no room is dropped and counted, a disk that is full costs
//! pictures and nothing else.

pub mod best;
mod folder;
mod latest;
mod picture;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use jpeg_encoder::EncodingError;

use crate::config::SnapshotsConfig;
use crate::event::rfc3339;
use crate::frame::{CameraId, FrameInfo};
use crate::letterbox::Rect;
use crate::metrics::SnapshotMetrics;
use crate::rate::RateLimit;
use crate::thumbnail::Thumbnail;
use crate::worker;

use folder::Folder;
use latest::Latest;

/// Pictures that may wait to be encoded.
const WAITING: usize = 32;
/// How often the folder is looked at when nothing comes, and what waits to be retained is told.
const TICK: Duration = Duration::from_secs(1);
/// Failures of the disk are logged at most this often a second.
const LOG_HZ: f64 = 0.1;

/// The best view of a track so far.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The camera.
    pub camera: CameraId,
    /// The track's id as others know it.
    pub track: String,
    /// Its class by name.
    pub label: String,
    /// Score of its box, 0..1.
    pub score: f32,
    /// Its box, 0..1 of the picture.
    pub rect: Rect,
    /// The picture.
    pub thumbnail: Arc<Thumbnail>,
}

/// What a camera saw when somebody asked.
#[derive(Clone, Debug)]
pub struct OnDemand {
    /// The camera.
    pub camera: CameraId,
    /// When it saw that.
    pub captured: SystemTime,
    /// What was found in it, 0..1 of the picture.
    pub rects: Vec<Rect>,
    /// The picture.
    pub thumbnail: Arc<Thumbnail>,
}

impl OnDemand {
    /// Of a frame in small, with what was found in it.
    pub fn new(frame: &FrameInfo, thumbnail: Arc<Thumbnail>, rects: Vec<Rect>) -> Self {
        Self { camera: frame.camera.clone(), captured: frame.captured.wall, rects, thumbnail }
    }
}

/// A picture to make.
enum Job {
    OfTrack(Snapshot),
    OnDemand(OnDemand),
}

/// What there is to publish.
#[derive(Debug)]
pub enum Picture<'a> {
    /// A track's best picture so far.
    OfTrack(&'a Snapshot, &'a [u8]),
    /// The latest picture of a camera: of tracks at most one a second, besides those that somebody asked for.
    Latest(&'a CameraId, &'a [u8]),
    /// What came of a picture that somebody asked for, one sentence. One to publish came before, as the latest.
    Answer(&'a CameraId, Result<String, String>),
}

/// Takes what there is to publish, on the thread `snapshot`. May block.
pub type Publish = Box<dyn FnMut(Picture<'_>) + Send>;

/// Encodes red, green and blue of as many pixels a row and rows, in a quality of 1 to 100; else why not. May block.
pub type Encode = Box<dyn FnMut(&[u8], (u32, u32), u8) -> Result<Vec<u8>, String> + Send>;

/// Hands snapshots over. The thread ends when it is dropped.
pub struct Snapshots {
    queue: Sender<Job>,
    metrics: SnapshotMetrics,
}

impl Snapshots {
    /// Never blocks: where too many wait it is dropped and counted.
    pub fn give(&self, snapshot: Snapshot) {
        self.hand_over(Job::OfTrack(snapshot));
    }

    /// As [`Snapshots::give`]; of one that is dropped there is no [`Picture::Answer`].
    pub fn give_on_demand(&self, asked: OnDemand) {
        self.hand_over(Job::OnDemand(asked));
    }

    fn hand_over(&self, job: Job) {
        if self.queue.try_send(job).is_err() {
            self.metrics.dropped.inc();
        }
    }
}

/// The thread `snapshot`, to be waited for once its [`Snapshots`] are dropped.
pub struct Making {
    /// Disconnects when it has ended.
    ended: Receiver<()>,
    hurried: Arc<AtomicBool>,
}

impl Making {
    /// Waits for the pictures that wait to be made. After `limit` those left are dropped and counted, and after as long again
    /// the one at hand is not waited for any more.
    pub fn finish(self, limit: Duration) {
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(limit) {
            self.hurried.store(true, Ordering::Relaxed);
            if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(limit) {
                tracing::error!("a picture is not written in time: see the disk of snapshots.folder");
            }
        }
    }
}

/// Makes the folder and starts the thread `snapshot`. Pictures are encoded by `encode` while it can, else here.
///
/// # Errors
///
/// Where the folder cannot be made.
pub fn start(
    config: &SnapshotsConfig,
    metrics: SnapshotMetrics,
    encode: Option<Encode>,
    publish: Publish,
) -> io::Result<(Snapshots, Making)> {
    folder::make(&config.folder)?;
    let (queue, waiting) = bounded(WAITING);
    let (config, counters) = (config.clone(), metrics.clone());
    let (alive, ended) = bounded::<()>(0);
    let hurried = Arc::new(AtomicBool::new(false));
    let making = Making { ended, hurried: Arc::clone(&hurried) };
    worker::spawn("snapshot", move || {
        // Bound first, dropped last.
        let _alive = alive;
        Worker::new(config, counters, encode, publish).run(&waiting, &hurried);
    });
    Ok((Snapshots { queue, metrics }, making))
}

/// Where the picture of a track lies, as a path of the HTTP server.
pub fn url(camera: &CameraId, track: &str) -> String {
    format!("/snapshots/{camera}/{track}.jpg")
}

/// The file of a picture; `None` where the names are not those of a camera and `{track}.jpg`, such as `..`.
pub fn file(folder: &Path, camera: &str, name: &str) -> Option<PathBuf> {
    let track = name.strip_suffix(folder::SUFFIX)?;
    (folder::is_name(camera) && folder::is_name(track)).then(|| folder.join(camera).join(name))
}

/// The thread.
struct Worker {
    config: SnapshotsConfig,
    metrics: SnapshotMetrics,
    encode: Option<Encode>,
    publish: Publish,
    folder: Folder,
    latest: Latest,
    log: RateLimit,
}

impl Worker {
    fn new(config: SnapshotsConfig, metrics: SnapshotMetrics, encode: Option<Encode>, publish: Publish) -> Self {
        let folder = Folder::scan(&config.folder, config.max_bytes, config.max_age, SystemTime::now());
        Self { config, metrics, encode, publish, folder, latest: Latest::default(), log: RateLimit::default() }
    }

    fn run(mut self, waiting: &Receiver<Job>, hurried: &AtomicBool) {
        self.account();
        let mut due = Instant::now() + TICK;
        loop {
            match waiting.recv_deadline(due) {
                Ok(_) if hurried.load(Ordering::Relaxed) => drop(self.metrics.dropped.inc()),
                Ok(Job::OfTrack(snapshot)) => self.make(&snapshot),
                Ok(Job::OnDemand(asked)) => {
                    let made = self.make_on_demand(&asked);
                    (self.publish)(Picture::Answer(&asked.camera, made));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            if now >= due {
                due = now + TICK;
                self.folder.tidy(SystemTime::now());
                self.tell_latest(now);
            }
            self.account();
        }
        self.tell_latest(Instant::now() + TICK);
    }

    fn make(&mut self, snapshot: &Snapshot) {
        let (camera, track) = (&snapshot.camera, &snapshot.track);
        // What was lost is logged. Published all the same where it is only not kept: who listens needs no file.
        let Ok((jpeg, _)) = self.write(camera, track, &snapshot.thumbnail, &[snapshot.rect]) else { return };
        if self.config.publish {
            (self.publish)(Picture::OfTrack(snapshot, &jpeg));
            self.latest.set(camera, jpeg);
            self.tell_latest(Instant::now());
        }
    }

    /// What was done with it, or why there is none.
    fn make_on_demand(&mut self, asked: &OnDemand) -> Result<String, String> {
        let (camera, time) = (&asked.camera, rfc3339(asked.captured));
        let name = format!("{camera}-{}", time.replace([':', '.'], "-"));
        let (jpeg, kept) = self.write(camera, &name, &asked.thumbnail, &asked.rects)?;
        if self.config.publish {
            // At once: whoever hears the answer looks for it.
            self.latest.tell(camera, Instant::now());
            (self.publish)(Picture::Latest(camera, &jpeg));
        }
        let what = format!("what camera {camera} saw at {time} is");
        match (self.config.publish, kept) {
            (true, Ok(())) => Ok(format!("{what} published, and kept as {camera}/{name}{}", folder::SUFFIX)),
            (true, Err(error)) => Ok(format!("{what} published, and not kept: {error}")),
            (false, Ok(())) => {
                Ok(format!("{what} kept as {camera}/{name}{}: snapshots.publish is off", folder::SUFFIX))
            }
            (false, Err(error)) => Err(error),
        }
    }

    /// Encodes and keeps a picture: the JPEG, and whether it is kept. Failures are logged and counted.
    fn write(
        &mut self,
        camera: &CameraId,
        name: &str,
        thumbnail: &Thumbnail,
        rects: &[Rect],
    ) -> Result<(Vec<u8>, Result<(), String>), String> {
        let start = Instant::now();
        let drawn = if self.config.draw_box { rects } else { &[] };
        let jpeg = self
            .jpeg(thumbnail, drawn)
            .map_err(|error| self.lost(format!("the picture {name} cannot be encoded: {error}")))?;
        let kept = match self.folder.keep(camera.as_str(), name, &jpeg, SystemTime::now()) {
            Ok(()) => {
                self.metrics.written.inc();
                Ok(())
            }
            Err(error) => {
                let folder = self.config.folder.display();
                Err(self
                    .lost(format!("{folder} cannot take a picture ({error}): make room, or set snapshots.folder")))
            }
        };
        self.metrics.time.record(start.elapsed());
        Ok((jpeg, kept))
    }

    fn jpeg(&mut self, thumbnail: &Thumbnail, rects: &[Rect]) -> Result<Vec<u8>, EncodingError> {
        let (rgb, size) = (picture::drawn(thumbnail, rects), thumbnail.size());
        if let Some(encode) = &mut self.encode {
            match encode(&rgb, size, self.config.quality) {
                Ok(jpeg) => return Ok(jpeg),
                Err(why) => {
                    tracing::info!("pictures are encoded on the CPU: {why}");
                    self.encode = None;
                }
            }
        }
        picture::jpeg(&rgb, size, self.config.quality)
    }

    fn lost(&mut self, why: String) -> String {
        self.metrics.dropped.inc();
        if self.log.passes(Instant::now(), LOG_HZ) {
            tracing::error!(total = self.metrics.dropped.get(), "{why}");
        }
        why
    }

    fn tell_latest(&mut self, now: Instant) {
        for (camera, jpeg) in self.latest.due(now, TICK) {
            (self.publish)(Picture::Latest(&camera, &jpeg));
        }
    }

    fn account(&self) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.bytes.set(gauge(self.folder.bytes()));
        self.metrics.files.set(gauge(self.folder.files()));
    }
}

#[cfg(test)]
mod tests;
