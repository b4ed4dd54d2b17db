//! What is said about ourselves: the cameras' state as their threads report it, and health as it follows from
//! the counters.
//!
//! [`gather`] takes a snapshot of every counter, [`Monitor`] makes sentences and rates of a row of snapshots. Both
//! take what they look at, and the time, as arguments.

mod monitor;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::event::{CameraStatus, FrameCounts};
use crate::frame::{CameraId, ClockSource};
use crate::metrics::{LatencySnapshot, Metrics};

pub use monitor::{
    AGE_P95_LIMIT, CALM, HealthReport, Monitor, OVERLOAD_FRAMES_MIN, OVERWRITTEN_SHARE_LIMIT, Transition, WINDOW,
};

/// What a camera's thread says of itself.
#[derive(Clone, Debug)]
pub struct CameraReport {
    /// Its state.
    pub status: CameraStatus,
    /// Why, for people; never holds a password.
    pub reason: String,
    /// Since when it is in this state.
    pub since: SystemTime,
    /// Failed attempts since it was last online.
    pub attempts: u32,
    /// When it will try again.
    pub next_retry: Option<Instant>,
    /// Width and height of the source in pixels, once known.
    pub size: Option<(u32, u32)>,
    /// Clock of the capture times, once known.
    pub clock: Option<ClockSource>,
}

/// The cameras' reports: written on a change of state, never once a frame. Clones share.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<BTreeMap<CameraId, Posted>>>);

/// What stands on the board of one camera.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Grows with each report of the camera's thread.
    pub version: u64,
    /// How often it went from online to offline: who looks once a second would miss a connection, or an
    /// outage, that was shorter.
    pub losses: u64,
    /// Why it last did.
    pub loss: String,
    /// The newest report.
    pub report: CameraReport,
}

impl Board {
    /// Replaces a camera's report.
    pub fn report(&self, camera: &CameraId, report: CameraReport) {
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (version, losses, loss, was_online) = reports.remove(camera).map_or_else(Default::default, |posted| {
            (posted.version, posted.losses, posted.loss, posted.report.status == CameraStatus::Online)
        });
        let lost = was_online && report.status == CameraStatus::Offline;
        let loss = if lost { report.reason.clone() } else { loss };
        let posted = Posted { version: version + 1, losses: losses + u64::from(lost), loss, report };
        reports.insert(camera.clone(), posted);
    }

    /// Forgets a camera.
    pub fn remove(&self, camera: &CameraId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(camera);
    }

    /// What stands there of every camera.
    pub fn snapshot(&self) -> BTreeMap<CameraId, Posted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Every counter at one moment: what [`Monitor::observe`] looks at.
#[derive(Clone, Debug)]
pub struct HealthInput {
    /// The cameras.
    pub cameras: BTreeMap<CameraId, CameraInput>,
    /// Arrival to published, over all cameras.
    pub total: LatencySnapshot,
    /// Lanes filled in the batches so far.
    pub lanes_filled: u64,
    /// Lanes there were in the batches so far.
    pub lanes_total: u64,
    /// The publisher.
    pub publish: PublishInput,
    /// Backend warmed; else one sentence that says why not.
    pub ready: Result<(), String>,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
}

/// One camera at one moment.
#[derive(Clone, Debug)]
pub struct CameraInput {
    /// What the camera's thread says.
    pub posted: Posted,
    /// What became of its frames so far.
    pub counts: FrameCounts,
    /// Arrival to published.
    pub age: LatencySnapshot,
    /// Age of the frame published last.
    pub last_age: Duration,
}

/// The publisher at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishInput {
    /// Connected to the broker.
    pub connected: bool,
    /// Why not, in one sentence, once an attempt has failed.
    pub problem: Option<String>,
    /// Spooled messages not yet acknowledged.
    pub spool_pending: u64,
    /// Spooled messages dropped because the spool was full.
    pub spool_dropped: u64,
    /// `detections` messages dropped because the broker was slow or away.
    pub detections_dropped: u64,
}

/// Reads every counter and the board. `ready` is the daemon's own: `Err` says why the backend is not warmed. Why
/// there is no broker is not known here.
pub fn gather(metrics: &Metrics, board: &Board, ready: Result<(), String>, rss_bytes: u64) -> HealthInput {
    let camera = |(id, posted): (CameraId, Posted)| {
        let camera = metrics.camera(&id);
        let last_age = Duration::from_micros(u64::try_from(camera.last_age_us.get()).unwrap_or(0));
        let (counts, age) = (camera.counts(), camera.age.snapshot());
        (id, CameraInput { posted, counts, age, last_age })
    };
    let publish = &metrics.publish;
    HealthInput {
        cameras: board.snapshot().into_iter().map(camera).collect(),
        total: metrics.stages.total.snapshot(),
        lanes_filled: metrics.lanes_filled.get(),
        lanes_total: metrics.lanes_total.get(),
        publish: PublishInput {
            connected: publish.connected.get() == 1,
            problem: None,
            spool_pending: u64::try_from(publish.spool_pending.get()).unwrap_or(0),
            spool_dropped: publish.spool_dropped.get(),
            detections_dropped: publish.detections_dropped.get(),
        },
        ready,
        rss_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gather_reads_the_counters_of_every_camera_on_the_board() {
        let (metrics, board) = (Metrics::default(), Board::default());
        let gate = CameraId::new("gate");
        let report = CameraReport {
            status: CameraStatus::Online,
            reason: "frames arrive".to_owned(),
            since: SystemTime::UNIX_EPOCH,
            attempts: 0,
            next_retry: None,
            size: None,
            clock: None,
        };
        board.report(&gate, report.clone());
        board.report(&gate, CameraReport { status: CameraStatus::Offline, ..report.clone() });
        board.report(&gate, CameraReport { status: CameraStatus::Offline, ..report.clone() });
        board.report(&gate, report);
        metrics.camera(&gate).decoded.inc_by(5);
        metrics.camera(&gate).last_age_us.set(84_000);
        metrics.lanes_total.inc_by(8);
        metrics.publish.connected.set(1);
        metrics.publish.spool_pending.set(3);
        let input = gather(&metrics, &board, Err("warming".to_owned()), 42);
        let camera = &input.cameras[&gate];
        assert_eq!((camera.posted.version, camera.posted.losses), (4, 1));
        assert_eq!((camera.counts.decoded, camera.last_age.as_millis()), (5, 84));
        assert_eq!((input.lanes_total, input.publish.spool_pending, input.rss_bytes), (8, 3, 42));
        assert!(input.publish.connected && input.ready.is_err());
    }
}
