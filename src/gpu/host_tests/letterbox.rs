use super::Host;
use super::support::{by_planes, drawn, input, noise, spans, widen};
use crate::frame::{PixelFormat, SystemImage};
use crate::gpu::letterbox::{InputFormat, LaneEntry, LetterboxArgs, mask_bits};
use crate::gpu::motion::MotionArgs;
use crate::letterbox::{Fit, Letterbox};
use crate::mask::Span;
use crate::motion::{CELLS, GRID};

/// What the kernel must leave alone.
const UNTOUCHED: u8 = 0xA5;

/// Draws one frame into the second of three lanes; the other two stay unused.
fn check(host: &Host, image: &SystemImage, format: &InputFormat, spans: &[Span]) {
    let letterbox = Letterbox::new((image.width, image.height), format.size, format.spec.fit);
    let expected = drawn(image, &letterbox, format, spans);
    let planes = [0, 1, 2].map(|plane| match image.planes.plane(plane) {
        [] => 0,
        bytes => host.allow(bytes),
    });
    let bits = mask_bits(spans, format.size);
    let mask = if spans.is_empty() { 0 } else { host.allow(&bits) };
    let entry = LaneEntry::new(planes, image.strides, image.format, image.colour, &letterbox, mask);
    let table = [LaneEntry::unused(), entry, LaneEntry::unused()];
    let bytes = format.bytes(1);
    // Aligned to 8, as the device's memory is to 256.
    let mut out = vec![u64::from_ne_bytes([UNTOUCHED; 8]); (3 * bytes).div_ceil(8) + 4];
    host.letterbox(&LetterboxArgs::new(format, table.as_ptr() as u64, out.as_mut_ptr() as u64), 3);

    let out: Vec<u8> = out.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let others = out[..bytes].iter().chain(&out[2 * bytes..]);
    assert!(others.copied().all(|byte| byte == UNTOUCHED), "other lanes and what lies behind are left alone");
    let written = &out[bytes..2 * bytes];
    let got: Vec<f32> = match format.half {
        true => written.as_chunks().0.iter().map(|bits| widen(u16::from_ne_bytes(*bits))).collect(),
        false => written.as_chunks().0.iter().map(|bits| f32::from_ne_bytes(*bits)).collect(),
    };
    let got = by_planes(&got, format);
    assert_eq!(got.len(), expected.len());
    for (at, (got, expected)) in got.into_iter().zip(expected).enumerate() {
        let expected = if format.half { widen(host.to_half(expected)) } else { expected };
        assert_eq!(got, expected, "value {at} of {format:?} from {letterbox:?} {:?}", image.format);
    }
}

#[test]
fn the_kernel_writes_what_the_host_writes_bit_for_bit() {
    let mut rng = fastrand::Rng::with_seed(5);
    for round in 0..150 {
        let host = Host::get();
        let mut side = |most: u32| if rng.u8(..8) == 0 { 1 + rng.u32(..3) } else { 1 + rng.u32(..most) };
        let (source, size) = ((side(300), side(300)), (side(300), side(100)));
        let image_format = if round % 2 == 0 { PixelFormat::Nv12 } else { PixelFormat::I420 };
        let image = noise(&mut rng, source, image_format);
        let (format, spans) = (input(&mut rng, size), spans(&mut rng, size));
        check(&host, &image, &format, &spans);
    }
}

/// Rows of padding are left as they are, and nothing else is.
#[test]
fn padding_that_is_there_is_not_written_again() {
    let mut rng = fastrand::Rng::with_seed(8);
    let (source, size) = ((1920, 1080), (64, 100));
    let host = Host::get();
    let image = noise(&mut rng, source, PixelFormat::Nv12);
    let planes = [0, 1].map(|plane| host.allow(image.planes.plane(plane)));
    let mut format = input(&mut rng, size);
    (format.half, format.packed, format.spec.fit) = (false, false, Fit::Centre);
    let letterbox = Letterbox::new(source, size, Fit::Centre);
    let entry = LaneEntry::new([planes[0], planes[1], 0], image.strides, image.format, image.colour, &letterbox, 0);
    let mut rounds = [(); 2].map(|()| vec![f32::NAN; format.bytes(1) / 4]);
    for (out, entry) in rounds.iter_mut().zip([entry, entry.after(&entry)]) {
        let table = [entry];
        host.letterbox(&LetterboxArgs::new(&format, table.as_ptr() as u64, out.as_mut_ptr() as u64), 1);
    }
    let [first, second] = rounds;
    let mut left = 0;
    for (at, (first, second)) in first.into_iter().zip(second).enumerate() {
        let row = at as u32 / size.0 % size.1;
        let is_picture = (letterbox.pad.1..letterbox.pad.1 + letterbox.picture.1).contains(&row);
        assert!(!first.is_nan() && if is_picture { first == second } else { second.is_nan() }, "{at}");
        left += u32::from(second.is_nan());
    }
    assert_eq!(left, 3 * size.0 * (size.1 - letterbox.picture.1));
    let other = Letterbox::new((1080, 1920), size, Fit::Centre);
    let other = LaneEntry::new([planes[0], planes[1], 0], image.strides, image.format, image.colour, &other, 0);
    assert_eq!((other.after(&entry), entry.after(&LaneEntry::unused())), (other, entry));
}

#[test]
fn the_sizes_of_real_cameras_and_models() {
    let mut rng = fastrand::Rng::with_seed(6);
    // 576 and 768 rows have weights that lie on ties between two steps.
    for (source, size) in [((1920, 1080), (640, 640)), ((704, 576), (768, 768)), ((1280, 720), (416, 416))] {
        let host = Host::get();
        let image = noise(&mut rng, source, PixelFormat::Nv12);
        let format = input(&mut rng, size);
        let spans = spans(&mut rng, size);
        check(&host, &image, &format, &spans);
    }
}

#[test]
fn luma_cells_are_means_of_the_source() {
    let mut rng = fastrand::Rng::with_seed(7);
    for size in [(640, 360), (1, 1), (63, 37), (200, 35), (1921, 1083)] {
        let host = Host::get();
        let image = noise(&mut rng, size, PixelFormat::I420);
        let letterbox = Letterbox::new(size, (64, 64), Fit::Centre);
        let planes = [0, 1, 2].map(|plane| host.allow(image.planes.plane(plane)));
        let entry = LaneEntry::new(planes, image.strides, image.format, image.colour, &letterbox, 0);
        let table = [entry, LaneEntry::unused()];
        let mut out = vec![UNTOUCHED; 2 * CELLS];
        let args = MotionArgs { lanes: table.as_ptr() as u64, out: out.as_mut_ptr() as u64 };
        host.luma_cells(&args, 2);
        assert!(out[CELLS..].iter().all(|byte| *byte == UNTOUCHED), "the unused lane is left alone");
        for (cell, mean) in out.into_iter().take(CELLS).enumerate() {
            let range = |at: usize, cells: usize, length: u32| {
                let from = at * length as usize / cells;
                from..((at + 1) * length as usize / cells).max(from + 1)
            };
            let (columns, rows) = (range(cell % GRID.0, GRID.0, size.0), range(cell / GRID.0, GRID.1, size.1));
            let pixels = columns.len() * rows.len();
            let row = |y: usize| &image.planes.plane(0)[y * image.strides[0]..][columns.clone()];
            let sum: usize = rows.flat_map(row).map(|luma| usize::from(*luma)).sum();
            assert_eq!(usize::from(mean), (sum + pixels / 2) / pixels, "cell {cell} of {size:?}");
        }
    }
}
