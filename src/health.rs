//! What is said about ourselves: the cameras' state as their threads report it, and health as it follows from
//! the counters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use crate::event::CameraStatus;
use crate::frame::{CameraId, ClockSource};

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
pub struct Board(Arc<Mutex<BTreeMap<CameraId, (u64, CameraReport)>>>);

impl Board {
    /// Replaces a camera's report.
    pub fn report(&self, camera: &CameraId, report: CameraReport) {
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let version = reports.get(camera).map_or(1, |(version, _)| version + 1);
        reports.insert(camera.clone(), (version, report));
    }

    /// Forgets a camera.
    pub fn remove(&self, camera: &CameraId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(camera);
    }

    /// Every camera's report, with a number that grows with each report of that camera.
    pub fn snapshot(&self) -> BTreeMap<CameraId, (u64, CameraReport)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
