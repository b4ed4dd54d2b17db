//! Many pipelines that start or stop at once. Decoders of a GPU are opened and closed one after the other, whoever asks: about 80
//! and 30 ms each, 256 of them 20 and 8 s.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use gstreamer as gst;
use gstreamer::prelude::*;

use super::pipeline::Pipeline;
use crate::frame::CameraId;
use crate::metrics::CameraMetrics;
use crate::worker;

/// A pipeline that takes longer to stop is abandoned.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// So many are stopped at a time: if all were, each would be done when the last is, and all would seem to hang.
const TURNS: usize = 16;
/// From the start of a pipeline to its first frame, where it is the only one.
const FIRST_FRAME: Duration = Duration::from_secs(15);
/// More for each one that starts as well.
const EACH_OTHER: Duration = Duration::from_millis(100);

static TAKEN: LazyLock<(Sender<()>, Receiver<()>)> = LazyLock::new(|| bounded(TURNS));
static STARTING: AtomicU32 = AtomicU32::new(0);

/// The right to stop a pipeline.
struct Turn;

impl Turn {
    fn wait() -> Self {
        // Both ends live as long as the process.
        let _ = TAKEN.0.send(());
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = TAKEN.1.try_recv();
    }
}

/// Stops a pipeline, when it is its turn. One that does not stop in time is abandoned, and counted until it has.
pub(super) fn stop(parts: Pipeline, camera: &CameraId, metrics: &CameraMetrics) {
    let _turn = Turn::wait();
    let ended = metrics.abandoned.clone();
    // Without room: what is not waited for is known to have ended late.
    let (done, stopped) = bounded(0);
    worker::spawn(&format!("stop-{camera}"), move || {
        // While it is still being started, this waits for the start's end.
        let _ = parts.pipeline.set_state(gst::State::Null);
        drop(parts);
        if done.send(()).is_err() {
            ended.dec();
        }
    });
    if stopped.recv_timeout(STOP_LIMIT) == Err(RecvTimeoutError::Timeout) {
        let hanging = metrics.abandoned.inc() + 1;
        tracing::error!(%camera, hanging, "the pipeline does not stop within 5 s: abandoned");
    }
}

/// A pipeline that has no frame yet.
pub(super) struct Starting;

impl Starting {
    pub(super) fn begin() -> Self {
        STARTING.fetch_add(1, Ordering::Relaxed);
        Self
    }

    /// How long it may take, beside those that start now.
    pub(super) fn limit() -> Duration {
        FIRST_FRAME + EACH_OTHER * STARTING.load(Ordering::Relaxed).saturating_sub(1)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        STARTING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_may_be_stopped_at_once_waits_for_a_turn() {
        let mut turns: Vec<Turn> = (0..TURNS).map(|_| Turn::wait()).collect();
        let (got, next) = bounded(1);
        let waiting = worker::spawn("next", move || {
            let turn = Turn::wait();
            got.send(()).unwrap();
            drop(turn);
        });
        assert_eq!(next.recv_timeout(Duration::from_millis(200)), Err(RecvTimeoutError::Timeout));
        turns.pop();
        assert_eq!(next.recv_timeout(Duration::from_secs(10)), Ok(()));
        waiting.join().unwrap();
    }

    #[test]
    fn a_start_beside_others_may_take_longer() {
        let before = Starting::limit();
        let many: Vec<Starting> = (0..256).map(|_| Starting::begin()).collect();
        assert!(Starting::limit() >= FIRST_FRAME + EACH_OTHER * 255);
        drop(many);
        assert!(Starting::limit() < before + EACH_OTHER * 200);
    }
}
