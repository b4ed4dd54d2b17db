//! Time of the motion gate's look at a frame in host memory, and of its decision: `cargo bench --bench motion`. Prints the
//! best of many runs on frames of noise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use watchpost::config::MotionConfig;
use watchpost::frame::{Colour, OwnedPlanes, PixelFormat, SystemImage};
use watchpost::motion::{Gate, Look, Pass};

/// More frames than caches hold, as with many cameras.
const FRAMES: usize = 32;

fn frames(width: u32, height: u32) -> Vec<SystemImage> {
    let mut random = fastrand::Rng::with_seed(1);
    let colour = Colour { bt709: true, full_range: false };
    let strides = [width as usize, width as usize, 0];
    let mut frame = || {
        let luma = (0..width as usize * height as usize).map(|_| random.u8(..)).collect();
        let planes = Box::new(OwnedPlanes([luma, Vec::new(), Vec::new()]));
        SystemImage { format: PixelFormat::Nv12, width, height, strides, colour, planes }
    };
    (0..FRAMES).map(|_| frame()).collect()
}

fn main() {
    let mut look = Look::default();
    for (width, height) in [(640, 480), (768, 576), (1280, 720), (1920, 1080), (3840, 2160)] {
        let frames = frames(width, height);
        let mut best = Duration::MAX;
        for _ in 0..20 {
            let start = Instant::now();
            frames.iter().for_each(|frame| {
                std::hint::black_box(look.cells(frame));
            });
            best = best.min(start.elapsed() / FRAMES as u32);
        }
        println!("the cells of {width}x{height}: {:.1} µs", best.as_secs_f64() * 1e6);
    }
    let (hold, refresh, start) = (Duration::from_secs(5), Duration::from_secs(30), Instant::now());
    let gate = Arc::new(Gate::new(&MotionConfig { threshold: 10, area: 0.002, hold, refresh }, None));
    let looks: Vec<Vec<u8>> = frames(640, 360).iter().map(|frame| look.cells(frame).to_vec()).collect();
    let mut best = Duration::MAX;
    for round in 0..100 {
        let begun = Instant::now();
        for (seq, cells) in (round * FRAMES as u64..).zip(&looks) {
            let at = start + Duration::from_millis(40 * seq);
            std::hint::black_box(Pass::new(Arc::clone(&gate), at).judge(seq, cells));
        }
        best = best.min(begun.elapsed() / FRAMES as u32);
    }
    println!("the decision: {:.1} µs", best.as_secs_f64() * 1e6);
}
