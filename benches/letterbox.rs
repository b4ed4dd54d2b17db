//! Time of one letterbox on the CPU: `cargo bench --bench letterbox`. Prints the best of many runs.

use std::time::{Duration, Instant};

use watchpost::backend::planar::Writer;
use watchpost::engine::{Channels, InputSpec, Range};
use watchpost::frame::SystemImage;
use watchpost::letterbox::{Fit, Letterbox};

fn main() {
    for (source, input) in [((768, 576), 416), ((1280, 720), 416), ((1920, 1080), 640), ((3840, 2160), 640)] {
        let image = SystemImage::solid(source.0, source.1, [90, 100, 140]);
        let letterbox = Letterbox::new(source, (input, input), Fit::TopLeft);
        let spec = InputSpec {
            size: None,
            range: Range::Byte,
            channels: Channels::Bgr,
            fit: Fit::TopLeft,
            pad: 114,
            mean: [0.0; 3],
            std: [1.0; 3],
        };
        let mut writer = Writer::new(spec, (input, input), 1);
        let mut tensor = vec![0.0; 3 * (input * input) as usize];
        let mut best = Duration::MAX;
        for _ in 0..200 {
            let start = Instant::now();
            writer.write(&image, &letterbox, &[], 0, &mut tensor);
            best = best.min(start.elapsed());
        }
        println!("{}x{} -> {input}x{input}: {} µs", source.0, source.1, best.as_micros());
    }
}
