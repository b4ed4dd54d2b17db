//! The latest picture of each camera, held to a rate: each one that is told goes through the spool to the disk.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::frame::CameraId;

/// By camera.
#[derive(Default)]
pub(super) struct Latest(BTreeMap<CameraId, Entry>);

#[derive(Default)]
struct Entry {
    told: Option<Instant>,
    waiting: Option<Vec<u8>>,
}

impl Latest {
    /// A picture, in the place of one that waits.
    pub(super) fn set(&mut self, camera: &CameraId, jpeg: Vec<u8>) {
        self.0.entry(camera.clone()).or_default().waiting = Some(jpeg);
    }

    /// Another picture of the camera is told at `now`: what waits is older.
    pub(super) fn tell(&mut self, camera: &CameraId, now: Instant) {
        self.0.insert(camera.clone(), Entry { told: Some(now), waiting: None });
    }

    /// What may be told at `now`: nothing of a camera that told something less than `every` ago.
    pub(super) fn due(&mut self, now: Instant, every: Duration) -> Vec<(CameraId, Vec<u8>)> {
        let mut due = Vec::new();
        for (camera, entry) in &mut self.0 {
            if entry.told.is_none_or(|told| now.saturating_duration_since(told) >= every)
                && let Some(jpeg) = entry.waiting.take()
            {
                entry.told = Some(now);
                due.push((camera.clone(), jpeg));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_many_is_told_within_the_time() {
        let (gate, start, every) = (CameraId::new("gate"), Instant::now(), Duration::from_secs(1));
        let mut latest = Latest::default();
        let mut told = Vec::new();
        for n in 0..25_u8 {
            let now = start + Duration::from_millis(100) * u32::from(n);
            latest.set(&gate, vec![n]);
            told.extend(latest.due(now, every).into_iter().map(|(_, jpeg)| jpeg[0]));
        }
        assert_eq!(told, [0, 10, 20]);
        assert_eq!(latest.due(start + Duration::from_secs(3), every), [(gate.clone(), vec![24])]);
        assert!(latest.due(start + Duration::from_secs(9), every).is_empty());
        latest.set(&gate, vec![25]);
        latest.tell(&gate, start + Duration::from_secs(10));
        assert!(latest.due(start + Duration::from_secs(20), every).is_empty(), "older than what was told");
    }
}
