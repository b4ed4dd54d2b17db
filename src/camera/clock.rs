//! When the light of a frame was caught. Pure: every clock's reading is an argument.
//!
//! A probe before the decoder records, for each access unit, when it arrived and what the camera's sender
//! reports say of it; decoders drop such metadata and reorder, so it is looked up by PTS after decoding.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use crate::frame::{Captured, ClockSource};

/// Access units remembered: more than any decoder holds back.
const REMEMBERED: usize = 128;
/// Camera and host may differ by this much before the camera's clock is not believed.
const BELIEVED: Duration = Duration::from_secs(5);
/// A file's time that steps back by more, or by half of all there was, is that of another reading; by less, of frames out of
/// order.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Between the last frame of a reading and the first of the next, where there is but one.
const STEP: Duration = Duration::from_millis(40);
/// NTP counts from 1900, Unix from 1970.
const NTP_TO_UNIX: Duration = Duration::from_secs(2_208_988_800);

/// An access unit before decoding.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its time stamp in the stream, nanoseconds.
    pub pts_ns: u64,
    /// On the monotonic clock.
    pub at: Instant,
    /// On the wall clock.
    pub wall: SystemTime,
    /// On the camera's clock, nanoseconds since 1900, where a sender report has been seen.
    pub ntp_ns: Option<u64>,
}

/// What is known of the access units on their way through the decoder.
#[derive(Debug, Default)]
pub struct Arrivals(VecDeque<Arrival>);

impl Arrivals {
    /// Remembers an access unit; of several packets with one PTS the first counts.
    pub fn push(&mut self, arrival: Arrival) {
        if self.0.back().is_some_and(|last| last.pts_ns == arrival.pts_ns) {
            return;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(arrival);
    }

    /// The camera's clock minus ours at the latest arrival that has one, in milliseconds.
    pub fn camera_clock_ms(&self) -> Option<i64> {
        let (arrival, ns) = self.0.iter().rev().find_map(|a| a.ntp_ns.map(|ns| (a, ns)))?;
        let camera = Duration::from_nanos(ns).checked_sub(NTP_TO_UNIX)?.as_millis() as i64;
        let host = arrival.wall.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis() as i64;
        Some(camera - host)
    }

    /// The access unit of a decoded frame: the same PTS, else the nearest within 2 ms (parsers may round).
    pub fn find(&self, pts_ns: u64) -> Option<Arrival> {
        let nearest = self.0.iter().rev().min_by_key(|a| a.pts_ns.abs_diff(pts_ns))?;
        (nearest.pts_ns.abs_diff(pts_ns) <= 2_000_000).then_some(*nearest)
    }
}

/// The capture times of one camera in one boot: they never go backward.
#[derive(Debug, Default)]
pub struct CaptureClock {
    last: Option<SystemTime>,
}

impl CaptureClock {
    /// Capture time of a frame that came over a network: by the camera's own clock where it is known and within
    /// 5 s of ours, else when it arrived. `latency` is the jitter buffer: how late arrival may be seen.
    pub fn network(&mut self, arrival: Arrival, latency: Duration) -> Captured {
        let by_camera = arrival.ntp_ns.and_then(|ns| {
            let wall = SystemTime::UNIX_EPOCH + Duration::from_nanos(ns).checked_sub(NTP_TO_UNIX)?;
            let apart = distance(wall, arrival.wall);
            (apart <= BELIEVED).then_some((wall, apart))
        });
        let (wall, clock, err) = match by_camera {
            // The distance holds the journey and how far the two clocks are apart: the error is no larger.
            Some((wall, apart)) => (wall, ClockSource::RtcpSr, apart),
            None => (arrival.wall, ClockSource::HostArrival, latency),
        };
        self.forward(wall, clock, err)
    }

    /// Capture time of a frame from a local device, or from a file played at its own pace or faster.
    pub fn local(&mut self, wall: SystemTime, clock: ClockSource) -> Captured {
        self.forward(wall, clock, Duration::ZERO)
    }

    /// A time before the last one is lifted to it, and the step becomes part of the error.
    fn forward(&mut self, wall: SystemTime, clock: ClockSource, err: Duration) -> Captured {
        let step = self.last.and_then(|last| last.duration_since(wall).ok()).unwrap_or_default();
        let wall = wall + step;
        self.last = Some(wall);
        let err_ms = (err + step).as_millis();
        Captured { wall, clock, err_ms: u32::try_from(err_ms).unwrap_or(u32::MAX) }
    }
}

/// Time in a file that is read as fast as possible, from its first frame on and over all its readings.
#[derive(Debug, Default)]
pub struct FileTime {
    /// The host's clock when the first frame came.
    begun: Option<SystemTime>,
    /// Of readings before this one.
    before: Duration,
    latest: Option<Duration>,
    /// Between the latest two.
    step: Duration,
}

impl FileTime {
    /// A frame's time by both clocks, as if it were shown at its pace. `now` is the start of the one, and what the other says
    /// now.
    pub fn at(&mut self, pts: Duration, now: (Instant, SystemTime)) -> (Instant, SystemTime) {
        let latest = *self.latest.get_or_insert(pts);
        // A picture, read again and again, has the same time each time.
        let again = pts + READ_AGAIN.min(latest / 2) < latest
            || (pts == latest && self.step.is_zero() && self.begun.is_some());
        if again {
            self.before += latest + if self.step.is_zero() { STEP } else { self.step };
            self.latest = Some(pts);
        } else if pts > latest {
            (self.step, self.latest) = (pts - latest, Some(pts));
        }
        let passed = self.before + pts;
        (now.0 + passed, *self.begun.get_or_insert(now.1) + passed)
    }
}

fn distance(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|e| e.duration())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(wall: SystemTime, pts_ns: u64, camera: Option<SystemTime>) -> Arrival {
        let since_epoch = |t: SystemTime| t.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ntp_ns = camera.map(|t| (since_epoch(t) + NTP_TO_UNIX).as_nanos() as u64);
        Arrival { pts_ns, at: Instant::now(), wall, ntp_ns }
    }

    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn the_cameras_clock_is_believed_within_five_seconds() {
        let mut clock = CaptureClock::default();
        let captured = clock.network(at(noon(), 0, Some(noon() - 80 * MS)), 200 * MS);
        assert_eq!((captured.wall, captured.clock, captured.err_ms), (noon() - 80 * MS, ClockSource::RtcpSr, 80));
        let astray = clock.network(at(noon(), 1, Some(noon() - 3600 * 1000 * MS)), 200 * MS);
        assert_eq!((astray.wall, astray.clock, astray.err_ms), (noon(), ClockSource::HostArrival, 200));
        let unknown = clock.network(at(noon() + MS, 2, None), 200 * MS);
        assert_eq!((unknown.wall, unknown.clock), (noon() + MS, ClockSource::HostArrival));
    }

    #[test]
    fn captured_never_goes_backward_and_says_so() {
        let mut clock = CaptureClock::default();
        clock.local(noon(), ClockSource::HostArrival);
        let stepped = clock.local(noon() - 3_600_000 * MS, ClockSource::HostArrival);
        assert_eq!((stepped.wall, stepped.err_ms), (noon(), 3_600_000));
        let later = clock.local(noon() + 5 * MS, ClockSource::HostArrival);
        assert_eq!((later.wall, later.err_ms), (noon() + 5 * MS, 0));
    }

    #[test]
    fn a_file_read_fast_has_its_own_time_which_goes_on_over_its_readings() {
        let (start, mut file) = (Instant::now(), FileTime::default());
        // Of 10 frames/s, each a millisecond after the other; 20 frames, read twice.
        let times: Vec<Duration> = (0..40u32)
            .map(|n| {
                let (at, wall) = file.at(MS * 100 * (n % 20), (start, noon() + MS * n));
                assert_eq!(at - start, wall.duration_since(noon()).expect("not before the first"));
                at - start
            })
            .collect();
        assert_eq!(times, (0..40).map(|n| MS * 100 * n).collect::<Vec<_>>());
        let late = file.at(MS * 1860, (start, noon())).0 - start;
        assert_eq!(late, MS * 3860, "out of order, in the same reading");
        let (mut short, mut picture) = (FileTime::default(), FileTime::default());
        for n in 0..30u32 {
            let of = |file: &mut FileTime, pts| file.at(pts, (start, noon())).0 - start;
            assert_eq!(of(&mut short, MS * 300 * (n % 3)), MS * 300 * n, "0.9 s, read again");
            assert_eq!(of(&mut picture, Duration::ZERO), STEP * n);
        }
    }

    #[test]
    fn arrivals_are_found_by_pts_in_any_order() {
        let mut arrivals = Arrivals::default();
        for n in 0..500u64 {
            arrivals.push(at(noon() + MS * n as u32, n * 40_000_000, None));
            arrivals.push(at(noon() + MS * 1000, n * 40_000_000, None));
        }
        let found = arrivals.find(480 * 40_000_000 + 1);
        assert_eq!(found.map(|a| a.wall), Some(noon() + MS * 480), "the first packet of the unit counts");
        assert!(arrivals.find(100 * 40_000_000).is_none(), "long forgotten");
        assert!(arrivals.find(480 * 40_000_000 + 20_000_000).is_none(), "between two units");
    }
}
