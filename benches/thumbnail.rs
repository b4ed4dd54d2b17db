//! Time of one thumbnail on the CPU, and of one snapshot made of it: `cargo bench --bench thumbnail`. Prints the best of
//! many runs on a picture of noise over slopes, which is harder to encode than most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use watchpost::config::SnapshotsConfig;
use watchpost::frame::{CameraId, Colour, OwnedPlanes, PixelFormat, SystemImage};
use watchpost::metrics::{SnapshotMetrics, ThumbnailMetrics};
use watchpost::snapshot::{self, Snapshot};
use watchpost::thumbnail::{Pool, Shrink, Thumbnail};

fn picture(width: u32, height: u32, format: PixelFormat) -> SystemImage {
    let mut random = fastrand::Rng::with_seed(1);
    let (half, rows) = (width.div_ceil(2) as usize, height.div_ceil(2) as usize);
    let strides = match format {
        PixelFormat::I420 => [width as usize, half, half],
        PixelFormat::Nv12 => [width as usize, 2 * half, 0],
    };
    let mut plane = |stride: usize, rows: usize| -> Vec<u8> {
        (0..stride * rows).map(|at| ((at % stride.max(1)) * 200 / stride.max(1)) as u8 + random.u8(..32)).collect()
    };
    let planes = [plane(strides[0], height as usize), plane(strides[1], rows), plane(strides[2], rows)];
    let colour = Colour { bt709: true, full_range: false };
    SystemImage { format, width, height, strides, colour, planes: Box::new(OwnedPlanes(planes)) }
}

/// Encodes and writes `runs` pictures; milliseconds each.
fn snapshots(thumbnail: Thumbnail, runs: u32) -> f64 {
    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("no folder: {e}"));
    let config = SnapshotsConfig {
        folder: folder.path().to_path_buf(),
        max_bytes: 1 << 30,
        max_age: Duration::from_secs(3600),
        quality: 85,
        draw_box: false,
        publish: false,
    };
    let metrics = SnapshotMetrics::default();
    let (snapshots, making) =
        snapshot::start(&config, metrics.clone(), None, Box::new(|_| {})).unwrap_or_else(|e| panic!("{e}"));
    let thumbnail = Arc::new(thumbnail);
    for n in 0..runs {
        let (camera, track, label) = (CameraId::new("gate"), format!("gate-{n}"), "person".to_owned());
        let thumbnail = Arc::clone(&thumbnail);
        snapshots.give(Snapshot { camera, track, label, score: 0.9, rect: [0.4, 0.4, 0.6, 0.6], thumbnail });
    }
    drop(snapshots);
    making.finish(Duration::from_secs(60));
    metrics.time.snapshot().mean_s() * 1e3
}

fn main() {
    let (pool, mut shrink) = (Pool::new(4, ThumbnailMetrics::default()), Shrink::default());
    for format in [PixelFormat::I420, PixelFormat::Nv12] {
        for source in [(640, 480), (768, 576), (1280, 720), (1920, 1080), (3840, 2160)] {
            let image = picture(source.0, source.1, format);
            let mut best = Duration::MAX;
            for _ in 0..100 {
                let Some(blank) = pool.take() else { return };
                let start = Instant::now();
                drop(blank.write(&image, None, &mut shrink));
                best = best.min(start.elapsed());
            }
            println!("{}x{} {format:?}: {} µs", source.0, source.1, best.as_micros());
        }
    }
    if let Some(blank) = pool.take() {
        let thumbnail = blank.write(&picture(1920, 1080, PixelFormat::Nv12), None, &mut shrink);
        println!("a snapshot of 640x360, encoded and written: {:.1} ms", snapshots(thumbnail, 30));
    }
}
