use super::*;
use crate::frame::{ClockSource, Frame, OwnedPlanes, PixelFormat};

fn noise(width: u32, height: u32, format: PixelFormat) -> SystemImage {
    let mut random = fastrand::Rng::with_seed(u64::from(width));
    let (half, rows) = (width.div_ceil(2) as usize, height.div_ceil(2) as usize);
    let strides = match format {
        PixelFormat::I420 => [width as usize + 5, half + 3, half + 3],
        PixelFormat::Nv12 => [width as usize + 5, 2 * half + 6, 0],
    };
    let rows = [height as usize, rows, rows];
    let planes = [0, 1, 2].map(|plane| (0..strides[plane] * rows[plane]).map(|_| random.u8(..)).collect());
    let colour = Colour { bt709: true, full_range: false };
    SystemImage { format, width, height, strides, colour, planes: Box::new(OwnedPlanes(planes)) }
}

fn one() -> Blank {
    Pool::new(1, ThumbnailMetrics::default()).take().unwrap()
}

/// The mean of what an output pixel stands for, in double precision.
fn mean(image: &SystemImage, plane: usize, size: (u32, u32), x: u32, y: u32) -> f64 {
    let half = |(w, h): (u32, u32)| if plane == 0 { (w, h) } else { (w.div_ceil(2), h.div_ceil(2)) };
    let (source, size) = (half((image.width, image.height)), half(size));
    let range = |at: u32, length: u32, count: u32| at * length / count..(at + 1) * length / count;
    let (index, step, offset) = match image.format {
        PixelFormat::Nv12 if plane > 0 => (1, 2, plane - 1),
        _ => (plane, 1, 0),
    };
    let (mut sum, mut count) = (0.0, 0.0);
    for row in range(y, source.1, size.1) {
        for column in range(x, source.0, size.0) {
            let at = row as usize * image.strides[index] + column as usize * step + offset;
            sum += f64::from(image.planes.plane(index)[at]);
            count += 1.0;
        }
    }
    sum / count
}

#[test]
fn every_pixel_is_the_mean_of_what_it_stands_for() {
    let mut shrink = Shrink::default();
    for format in [PixelFormat::I420, PixelFormat::Nv12] {
        for source in [(1920, 1080), (704, 576), (1283, 721), (641, 3), (320, 241), (1, 1), (3, 2000)] {
            let image = noise(source.0, source.1, format);
            let thumbnail = one().write(&image, None, &mut shrink);
            let size = thumbnail.size();
            assert!(size.0 <= SIDE_MAX && size.1 <= SIDE_MAX, "{size:?}");
            for (plane, bytes) in thumbnail.planes().into_iter().enumerate() {
                let width = if plane == 0 { size.0 } else { size.0.div_ceil(2) };
                for (at, byte) in bytes.iter().enumerate() {
                    let expected = mean(&image, plane, size, at as u32 % width, at as u32 / width);
                    assert!(
                        (f64::from(*byte) - expected).abs() < 0.51,
                        "{source:?} {plane} {at}: {byte} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn sizes_keep_the_aspect() {
    let sizes = [(1920, 1080), (1280, 720), (3840, 2160), (1080, 1920), (640, 480), (704, 576), (4000, 1)];
    let expected = [(640, 360), (640, 360), (640, 360), (360, 640), (640, 480), (640, 524), (640, 1)];
    assert_eq!(sizes.map(size_of), expected);
}

#[test]
fn what_a_mask_covers_is_not_in_the_picture() {
    let mask = RegionMask::new(vec![vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]]);
    let image = SystemImage::solid(1280, 720, [255, 20, 240]);
    let thumbnail = one().write(&image, Some(&mask), &mut Shrink::default());
    let [y, u, v] = thumbnail.planes();
    for row in 0..360 {
        assert!(y[row * 640..][..320].iter().all(|luma| *luma == GREY[0]), "row {row}");
        assert!(y[row * 640 + 330..][..310].iter().all(|luma| *luma == 255), "row {row}");
    }
    for row in 0..180 {
        assert!(u[row * 320..][..160].iter().chain(&v[row * 320..][..160]).all(|chroma| *chroma == GREY[1]));
        assert!(u[row * 320 + 165..][..155].iter().all(|chroma| *chroma == 20));
    }
}

#[test]
fn memory_is_bounded_and_used_again() {
    let (pool, image) = (Pool::new(2, ThumbnailMetrics::default()), SystemImage::solid(64, 32, [1, 2, 3]));
    let mut shrink = Shrink::default();
    let first = pool.take().unwrap().write(&image, None, &mut shrink);
    let address = first.planes()[0].as_ptr();
    let second = pool.take();
    assert!(second.is_some() && pool.take().is_none(), "both are out");
    drop(first);
    let again = pool.take().unwrap().write(&image, None, &mut shrink);
    assert_eq!(again.planes()[0].as_ptr(), address);
    assert!(pool.take().is_none());
    drop((second, again));
    assert!(pool.take().is_some());
}

#[test]
fn what_was_asked_for_is_given_once_whatever_is_in_it() {
    let (gate, yard, start) = (CameraId::new("gate"), CameraId::new("yard"), Instant::now());
    let mut thumbnails = Thumbnails::new(1, ThumbnailMetrics::default());
    let asked = thumbnails.asked();
    let frame = |camera, ms: u64| {
        let mut info = Frame::solid(camera, (8, 8), start + Duration::from_millis(ms)).info;
        info.captured.clock = ClockSource::HostArrival;
        info
    };
    asked.ask(&gate);
    assert!(thumbnails.due(&frame(&yard, 0)).is_none(), "another camera");
    let mut again = thumbnails.clone();
    assert!(again.due(&frame(&gate, 0)).is_some_and(|blank| blank.is_asked()), "nothing was seen yet");
    assert!(thumbnails.due(&frame(&gate, 1)).is_none(), "of a backend opened anew, too, it was given");
    thumbnails.found(&gate, true);
    assert!(thumbnails.due(&frame(&gate, 40)).is_some_and(|blank| !blank.is_asked()));
    asked.ask(&gate);
    assert!(thumbnails.due(&frame(&gate, 80)).is_none(), "so soon after that one");
    assert!(thumbnails.due(&frame(&gate, 240)).is_some_and(|blank| blank.is_asked()));
    asked.ask(&gate);
    let held: Vec<_> = (0..64).filter_map(|n| thumbnails.due(&frame(&gate, 1000 * n + 1000))).collect();
    assert_eq!((held.len(), held.iter().filter(|blank| blank.is_asked()).count()), (32, 1));
    asked.ask(&gate);
    assert!(thumbnails.due(&frame(&gate, 90_000)).is_none(), "no memory is left");
    drop(held);
    assert!(thumbnails.due(&frame(&gate, 90_040)).is_some_and(|blank| blank.is_asked()), "the next one then");
    asked.ask(&gate);
    asked.forget(&gate);
    assert!(thumbnails.due(&frame(&gate, 90_000 + 240)).is_some_and(|blank| !blank.is_asked()));
}

#[test]
fn what_was_made_small_elsewhere_is_the_same_picture() {
    let mask = RegionMask::new(vec![vec![[0.0, 0.0], [0.5, 0.1], [0.5, 1.0], [0.1, 1.0]]]);
    let image = noise(1283, 721, PixelFormat::Nv12);
    let here = one().write(&image, Some(&mask), &mut Shrink::default());
    let bare = one().write(&image, None, &mut Shrink::default());
    let there = one().copy(&bare.planes().concat(), bare.size(), (1283, 721), image.colour, Some(&mask));
    assert_eq!((here.size(), here.colour(), here.planes()), (there.size(), there.colour(), there.planes()));
    assert!(here.planes() != bare.planes());
}

#[test]
fn a_camera_gives_five_a_second_while_something_is_seen() {
    let (gate, start) = (CameraId::new("gate"), Instant::now());
    let metrics = ThumbnailMetrics::default();
    let mut thumbnails = Thumbnails::new(1, metrics.clone());
    let frame = |ms: u64| {
        let mut info = Frame::solid(&gate, (8, 8), start + Duration::from_millis(ms)).info;
        info.captured.clock = ClockSource::HostArrival;
        info
    };
    assert!(thumbnails.due(&frame(0)).is_none(), "nothing was seen yet");
    thumbnails.found(&gate, true);
    let given = (1..=50).filter(|n| thumbnails.due(&frame(n * 40)).is_some()).count();
    assert_eq!(given, 10, "in two seconds");
    thumbnails.found(&gate, false);
    assert!(thumbnails.due(&frame(5000)).is_none(), "nothing is seen any more");
    thumbnails.found(&gate, true);
    let held: Vec<_> = (0..40).filter_map(|n| thumbnails.due(&frame(6000 + n * 1000))).collect();
    assert_eq!((held.len(), metrics.missed.get()), (32, 8), "four cameras' worth, and the rest is counted");
}
