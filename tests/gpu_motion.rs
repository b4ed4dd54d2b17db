//! The motion gate's look at frames on a real GPU. Without one, each test says so and is skipped.

#[allow(dead_code)]
#[path = "support/device.rs"]
mod device;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::bounded;
use watchpost::config::MotionConfig;
use watchpost::frame::{Colour, OwnedPlanes, PixelFormat, SystemImage};
use watchpost::gpu::device::Device;
use watchpost::gpu::error::GpuError;
use watchpost::gpu::kernels::Kernels;
use watchpost::gpu::letterbox::LaneEntry;
use watchpost::gpu::memory::DeviceBuffer;
use watchpost::gpu::motion::Looks;
use watchpost::gpu::stream::Stream;
use watchpost::letterbox::{Fit, Letterbox};
use watchpost::motion::{CELLS, Gate, Look, Pass};

/// Longest wait for something that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

struct Gpu {
    device: Device,
    kernels: Kernels,
}

/// `None`, said aloud, where there is no GPU; a GPU without NVRTC is a failure.
fn gpu() -> Option<Gpu> {
    match Device::open(0) {
        Ok(device) => Some(Gpu { kernels: Kernels::load(&device, None).unwrap(), device }),
        Err(GpuError::Unavailable(why)) => {
            println!("skipped: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A frame's luma on the device, as a lane of it.
struct OnDevice {
    _luma: DeviceBuffer,
    entry: LaneEntry,
}

impl Gpu {
    fn frame(&self, image: &SystemImage) -> OnDevice {
        let luma = device::upload(&Stream::new(&self.device).unwrap(), image.planes.plane(0));
        let letterbox = Letterbox::new((image.width, image.height), (64, 64), Fit::Centre);
        let planes = [luma.address(), 0, 0];
        let entry = LaneEntry::new(planes, image.strides, image.format, image.colour, &letterbox, 0);
        OnDevice { _luma: luma, entry }
    }

    /// The cells of some frames, once the driver has said that they are there.
    fn look(&self, looks: &mut Looks, frames: &[OnDevice]) -> Vec<Vec<u8>> {
        let (done, told) = bounded(1);
        let entries: Vec<LaneEntry> = frames.iter().map(|frame| frame.entry).collect();
        looks.launch(&self.kernels, &entries, Box::new(move || done.send(()).unwrap())).unwrap();
        told.recv_timeout(PATIENCE).expect("told once the cells are there");
        assert!(looks.is_done().unwrap());
        (0..frames.len()).map(|at| looks.cells(at).to_vec()).collect()
    }
}

fn noise(rng: &mut fastrand::Rng, (width, height): (u32, u32)) -> SystemImage {
    let stride = width as usize + 13;
    let luma = (0..stride * height as usize).map(|_| rng.u8(..)).collect();
    let colour = Colour { bt709: true, full_range: false };
    let planes = Box::new(OwnedPlanes([luma, Vec::new(), Vec::new()]));
    SystemImage { format: PixelFormat::Nv12, width, height, strides: [stride, stride, 0], colour, planes }
}

/// A grey picture, with a lighter square of so many pixels a side.
fn grey(side: usize) -> SystemImage {
    let mut luma = vec![90; 1920 * 1080];
    for row in 500..500 + side {
        luma[row * 1920 + 800..][..side].fill(140);
    }
    let image = SystemImage::solid(1920, 1080, [90, 128, 128]);
    SystemImage { planes: Box::new(OwnedPlanes([luma, Vec::new(), Vec::new()])), ..image }
}

#[test]
fn the_device_sees_what_the_host_sees() {
    let Some(gpu) = gpu() else { return };
    let mut rng = fastrand::Rng::with_seed(27);
    let (mut looks, mut on_host) = (Looks::new(&gpu.device, 3).unwrap(), Look::default());
    // Cells of fewer than 16 rows: the host reads all of them. One look after the other, of fewer frames each.
    for sizes in [&[(640, 360), (768, 432), (352, 240)][..], &[(63, 37), (1, 1)], &[(704, 480)]] {
        let images: Vec<SystemImage> = sizes.iter().map(|size| noise(&mut rng, *size)).collect();
        let frames: Vec<OnDevice> = images.iter().map(|image| gpu.frame(image)).collect();
        for (cells, image) in gpu.look(&mut looks, &frames).iter().zip(&images) {
            assert_eq!(cells, on_host.cells(image), "{}x{}", image.width, image.height);
        }
    }
}

#[test]
fn a_still_scene_is_gated_and_the_first_frame_that_moves_is_not() {
    let Some(gpu) = gpu() else { return };
    let mut looks = Looks::new(&gpu.device, 1).unwrap();
    let (hold, refresh, start) = (Duration::ZERO, Duration::from_secs(30), Instant::now());
    let gate = Arc::new(Gate::new(&MotionConfig { threshold: 10, area: 0.002, hold, refresh }, None));
    // Smaller than a cell of 30 pixels a side; and three by three of them.
    let judged = [0, 0, 20, 0, 90, 90].into_iter().zip(0..).map(|(side, seq)| {
        let pass = Pass::new(Arc::clone(&gate), start + Duration::from_millis(40 * seq));
        let passes = pass.judge(seq, &gpu.look(&mut looks, &[gpu.frame(&grey(side))])[0]);
        pass.tell(seq, false, false);
        passes
    });
    assert_eq!(judged.collect::<Vec<_>>(), [true, false, false, false, true, true]);
}

#[test]
fn what_cannot_be_looked_at_is_refused_and_costs_nothing() {
    let Some(gpu) = gpu() else { return };
    let frame = gpu.frame(&grey(0));
    let mut looks = Looks::new(&gpu.device, 1).unwrap();
    for entries in [vec![frame.entry, frame.entry], vec![LaneEntry::unused()]] {
        let refused = looks.launch(&gpu.kernels, &entries, Box::new(|| {}));
        assert!(matches!(refused, Err(GpuError::Config(_))), "{refused:?}");
    }
    assert_eq!(gpu.look(&mut looks, &[frame])[0], [90; CELLS]);
}

/// What 64 frames of 1080p cost the host, and how long they take.
#[test]
fn timing() {
    let Some(gpu) = gpu() else { return };
    let mut rng = fastrand::Rng::with_seed(28);
    let frames: Vec<OnDevice> = (0..64).map(|_| gpu.frame(&noise(&mut rng, (1920, 1080)))).collect();
    let entries: Vec<LaneEntry> = frames.iter().map(|frame| frame.entry).collect();
    let mut looks = Looks::new(&gpu.device, 64).unwrap();
    for count in [1, 16, 64] {
        let (mut launched, mut told_after) = (Duration::MAX, Duration::MAX);
        for _ in 0..100 {
            let (done, told) = bounded(1);
            let start = Instant::now();
            looks.launch(&gpu.kernels, &entries[..count], Box::new(move || done.send(()).unwrap())).unwrap();
            launched = launched.min(start.elapsed());
            told.recv_timeout(PATIENCE).unwrap();
            told_after = told_after.min(start.elapsed());
        }
        let (launched, told_after) = (launched.as_micros(), told_after.as_micros());
        println!("a look at {count} frames of 1080p: {launched} us of the host, told after {told_after} us");
    }
}
