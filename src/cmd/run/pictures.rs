//! Pictures on demand: who waits for one, and what they are told.

use std::time::{Duration, Instant};

use super::Daemon;
use super::reload::Refused;
use crate::event::CameraStatus;
use crate::frame::CameraId;
use crate::publish::Reply;

/// Longest wait for a picture: a camera of few frames a second, an engine behind, and the encoding.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most who may wait at once.
pub(super) const WAITING_MAX: usize = 64;
/// The command's name.
const NAME: &str = "snapshot";

/// Those who wait. A camera's next picture is that of all who wait for one of it.
#[derive(Default)]
pub(super) struct Waiting(Vec<Waiter>);

struct Waiter {
    camera: CameraId,
    reply: Option<Reply>,
    until: Instant,
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.0.len() == WAITING_MAX
    }

    fn add(&mut self, camera: &CameraId, reply: Option<Reply>, now: Instant) {
        self.0.push(Waiter { camera: camera.clone(), reply, until: now + PATIENCE });
    }

    /// Those who need wait no longer.
    fn take(&mut self, mut whose: impl FnMut(&CameraId, Instant) -> bool) -> Vec<(CameraId, Option<Reply>)> {
        let served = self.0.extract_if(.., |waiter| whose(&waiter.camera, waiter.until));
        served.map(|waiter| (waiter.camera, waiter.reply)).collect()
    }

    fn has(&self, camera: &CameraId) -> bool {
        self.0.iter().any(|waiter| waiter.camera == *camera)
    }
}

impl Daemon<'_> {
    /// Asks for a picture of what a camera sees now. Acknowledged when it is there, or at once where there will be none.
    pub(super) fn ask_for_picture(&mut self, camera: &CameraId, reply: Option<Reply>) {
        if let Some(why) = self.why_no_picture(camera) {
            return self.deny(reply, why);
        }
        if self.waiting.is_full() {
            return self.deny(reply, format!("{WAITING_MAX} pictures are waited for: ask again in some seconds"));
        }
        self.waiting.add(camera, reply, Instant::now());
        self.graph.ask_for_picture(camera);
    }

    /// The picture of a camera is there, or cannot be had.
    pub(super) fn picture_made(&mut self, camera: &CameraId, made: Result<String, String>) {
        // It is the answer to all who wait: whoever asked while it was under way needs no other.
        self.graph.forget_picture(camera);
        for (_, reply) in self.waiting.take(|of, _| of == camera) {
            match &made {
                Ok(text) => self.acknowledge(reply, Ok(text.clone())),
                Err(why) => self.deny(reply, why.clone()),
            }
        }
    }

    /// Tells those who have waited for too long.
    pub(super) fn give_up_on_pictures(&mut self, now: Instant) {
        for (camera, reply) in self.waiting.take(|_, until| now >= until) {
            if !self.waiting.has(&camera) {
                self.graph.forget_picture(&camera);
            }
            let why = self.why_no_picture(&camera).unwrap_or_else(|| {
                let seconds = PATIENCE.as_secs();
                format!(
                    "no picture of camera {camera} in {seconds} s: it gave no frame, or this box has too much to do"
                )
            });
            self.deny(reply, why);
        }
    }

    /// Tells all who wait.
    pub(super) fn give_up_on_all_pictures(&mut self) {
        for (_, reply) in self.waiting.take(|_, _| true) {
            self.deny(reply, "the daemon is stopping".to_owned());
        }
    }

    fn deny(&self, reply: Option<Reply>, why: String) {
        let outcome = self.refuse(NAME, Refused::new(why, Vec::new()));
        self.acknowledge(reply, outcome);
    }

    /// Why a camera gives no picture, as far as can be told beforehand.
    fn why_no_picture(&self, camera: &CameraId) -> Option<String> {
        if self.config.cameras.iter().all(|known| known.id != *camera) {
            return Some(format!("there is no camera {camera}"));
        }
        if self.config.snapshots.is_none() {
            return Some(
                "no pictures are made here: set snapshots.enabled and tracking.enabled to true, and restart"
                    .to_owned(),
            );
        }
        if let Err(why) = &self.ready {
            return Some(format!("no frame is looked at yet: {why}"));
        }
        let report = self.around.board.snapshot().remove(camera)?.report;
        match report.status {
            CameraStatus::Online => None,
            // It connects for the first time: frames may come before it says so.
            CameraStatus::Offline if report.attempts == 0 => None,
            CameraStatus::Offline => Some(format!("camera {camera} is offline: {}", report.reason)),
            CameraStatus::Disabled => {
                Some(format!("camera {camera} is switched off: switch it on, then ask again"))
            }
            CameraStatus::Finished => Some(format!("camera {camera} is a file that was read to its end")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_picture_serves_all_who_wait_for_that_camera_and_the_rest_wait_for_a_bounded_time() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        let (gate, yard) = (CameraId::new("gate"), CameraId::new("yard"));
        let at = |seconds| start + Duration::from_secs(seconds);
        for (camera, second) in [(&gate, 0), (&yard, 1), (&gate, 4), (&yard, 5)] {
            waiting.add(camera, None, at(second));
        }
        assert_eq!(waiting.take(|camera, _| *camera == gate).len(), 2);
        assert!(!waiting.has(&gate) && waiting.has(&yard));
        assert!(waiting.take(|_, until| at(10) >= until).is_empty());
        assert_eq!(waiting.take(|_, until| at(11) >= until).len(), 1);
        assert!(waiting.has(&yard), "who asked later waits on");
        (1..WAITING_MAX).for_each(|_| waiting.add(&gate, None, start));
        assert!(waiting.is_full());
    }
}
