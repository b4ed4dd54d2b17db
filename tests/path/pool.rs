//! Frames are loans from the decoder's pool: as many as inference may hold must not stall it, and a pipeline ends
//! whatever is still on loan.

use std::time::{Duration, Instant};

use watchpost::config::{CameraConfig, Pace};
use watchpost::event::CameraStatus;
use watchpost::frame::Frame;

use crate::support::clips::{CLIP_FRAMES, Clip, clip};
use crate::support::cores::some_cores;
use crate::support::mosquitto::wait_until;
use crate::support::rig::{LANES, Rig, STOP, checksum, file};

/// Most frames out at once: two batches in flight and one being put together; the slot's own come on top.
const HELD: usize = 3 * LANES;
/// How long they are held.
const HOLD: Duration = Duration::from_secs(3);

#[test]
fn a_live_decoder_goes_on_while_every_frame_is_held() {
    let _cores = some_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let rig = Rig::start(file(walk, Pace::Realtime, true));
    let held: Vec<(Frame, u64)> =
        (0..HELD).map(|_| rig.next()).map(|f| (checksum(&f), f)).map(|(c, f)| (f, c)).collect();
    let (decoded, until) = (rig.metrics.decoded.get(), Instant::now() + HOLD);
    while Instant::now() < until {
        // What else comes is overwritten in the slot.
        let _ = rig.wake.recv_deadline(until);
    }
    let more = rig.metrics.decoded.get() - decoded;
    assert!(more >= 20, "{more} frames decoded in {HOLD:?} at 10 a second");
    assert_eq!(rig.status(), Some(CameraStatus::Online));
    assert!(held.iter().all(|(frame, sum)| checksum(frame) == *sum), "a frame on loan was written to");
    drop(held);
    let last = rig.next().info.seq;
    assert!((0..20).all(|_| rig.next().info.seq > last), "frames go on");
    let (took, ..) = rig.stop();
    assert!(took < STOP, "{took:?}");
}

#[test]
fn a_file_waits_while_every_frame_is_held_and_loses_none() {
    let _cores = some_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    // To wait for the engine is not to be silent.
    let stall_timeout = Duration::from_secs(2);
    let rig = Rig::start(CameraConfig { stall_timeout, ..file(walk, Pace::Fast, false) });
    let held: Vec<(Frame, u64)> =
        (0..HELD).map(|_| rig.next()).map(|f| (checksum(&f), f)).map(|(c, f)| (f, c)).collect();
    let until = Instant::now() + HOLD;
    while Instant::now() < until {
        let _ = rig.wake.recv_deadline(until);
    }
    let waiting = rig.metrics.decoded.get();
    assert!(waiting <= (HELD + LANES + 1) as u64, "{waiting} decoded, though nobody takes them");
    assert!(held.iter().all(|(frame, sum)| checksum(frame) == *sum), "a frame on loan was written to");
    assert_eq!(rig.metrics.reconnects.get(), 0);
    let mut numbers: Vec<u64> = held.iter().map(|(frame, _)| frame.info.seq).collect();
    drop(held);
    numbers.extend((HELD as u64..CLIP_FRAMES).map(|_| rig.next().info.seq));
    assert_eq!(numbers, (0..CLIP_FRAMES).collect::<Vec<_>>());
    wait_until("the end of the file", || rig.status() == Some(CameraStatus::Finished));
    let (_, metrics, reader) = rig.stop();
    assert!(reader.ended());
    assert_eq!((metrics.decoded.get(), metrics.overwritten.get(), metrics.dropped.get()), (CLIP_FRAMES, 0, 0));
}

#[test]
fn a_pipeline_ends_while_its_feeder_waits_and_frames_are_on_loan() {
    let _cores = some_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    for switched_off in [false, true] {
        let rig = Rig::start(file(walk.clone(), Pace::Fast, false));
        let held: Vec<Frame> = (0..3).map(|_| rig.next()).collect();
        // The slot is full, and one more is in the feeder's hands.
        wait_until("a waiting feeder", || rig.metrics.decoded.get() == (3 + LANES + 1) as u64);
        if switched_off {
            rig.camera.control.enable(false);
            wait_until("the camera is off", || rig.status() == Some(CameraStatus::Disabled));
        }
        let (took, metrics, reader) = rig.stop();
        assert!(took < STOP, "{took:?}");
        let left = std::iter::from_fn(|| reader.take()).count();
        assert_eq!(left, LANES, "what was in the slot is still analysed");
        assert_eq!((metrics.decoded.get(), metrics.dropped.get()), ((3 + LANES + 1) as u64, 1));
        assert!(reader.ended());
        drop(held);
    }
}

#[test]
fn a_feeder_does_not_end_before_its_pipeline_begins() {
    let _cores = some_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    // A sink that is not yet started calls itself at the end of its stream: one start of thirty stood still.
    for _ in 0..40 {
        let (rig, begun) = (Rig::start(file(walk.clone(), Pace::Fast, false)), Instant::now());
        assert_eq!(rig.next().info.seq, 0);
        assert!(begun.elapsed() < Duration::from_secs(10), "the first pipeline stood still and was built anew");
        rig.stop();
    }
}
