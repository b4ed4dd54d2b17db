use super::Host;
use super::support::noise;
use crate::frame::{PixelFormat, SystemImage};
use crate::gpu::letterbox::LaneEntry;
use crate::gpu::thumbnail::{ThumbnailArgs, Wanted};
use crate::letterbox::{Fit, Letterbox};
use crate::thumbnail::{Shrink, plane_bytes, size_of};

/// What the kernel must leave alone.
const UNTOUCHED: u8 = 0xA5;

/// Makes the frame in the second of two lanes small.
fn check(host: &Host, image: &SystemImage, shrink: &mut Shrink) {
    let source = (image.width, image.height);
    let (size, mut expected) = (size_of(source), Vec::new());
    shrink.shrink(image, size, &mut expected);
    let planes = [0, 1, 2].map(|plane| match image.planes.plane(plane) {
        [] => 0,
        bytes => host.allow(bytes),
    });
    let letterbox = Letterbox::new(source, (64, 64), Fit::Centre);
    let entry = LaneEntry::new(planes, image.strides, image.format, image.colour, &letterbox, 0);
    let table = [LaneEntry::unused(), entry];
    let bytes = plane_bytes(size).iter().sum::<usize>();
    let mut out = vec![UNTOUCHED; bytes + 64];
    let wanted = Wanted::new(1, source);
    host.shrink(&ThumbnailArgs::new(wanted, table.as_ptr() as u64, out.as_mut_ptr() as u64));
    assert!(out[bytes..].iter().all(|byte| *byte == UNTOUCHED), "what lies behind is left alone");
    let differs = expected.iter().zip(&out).position(|(expected, got)| expected != got);
    assert_eq!(differs, None, "of {bytes} bytes, {source:?} {:?} in {size:?}", image.format);
}

#[test]
fn the_kernel_makes_frames_small_as_the_host_does_bit_for_bit() {
    let (mut rng, mut shrink) = (fastrand::Rng::with_seed(8), Shrink::default());
    let known = [(1920, 1080), (704, 576), (1283, 721), (641, 3), (320, 241), (1, 1), (3, 2000), (2560, 1440)];
    let any = (0..40).map(|_| (1 + rng.u32(..1700), 1 + rng.u32(..900)));
    let sizes: Vec<(u32, u32)> = known.into_iter().chain(any).collect();
    for (number, size) in sizes.into_iter().enumerate() {
        let format = if number % 2 == 0 { PixelFormat::Nv12 } else { PixelFormat::I420 };
        let image = noise(&mut rng, size, format);
        check(&Host::get(), &image, &mut shrink);
    }
}

#[test]
fn the_longest_sides_stay_within_thirty_two_bits() {
    let (mut rng, mut shrink) = (fastrand::Rng::with_seed(9), Shrink::default());
    for size in [(65_535, 2), (1, 65_535), (65_535, 130)] {
        check(&Host::get(), &noise(&mut rng, size, PixelFormat::Nv12), &mut shrink);
    }
}
