//! Planes in small: each pixel is the mean of those it stands for, in whole pixels.
//!
//! Rows are summed first, over their full length and in vector registers; then neighbours of the sum.

use crate::frame::{PixelFormat, SystemImage};

/// Makes frames small. One a thread: it remembers its scratch rows and the latest geometry.
#[derive(Debug, Default)]
pub struct Shrink {
    sums: Vec<u16>,
    /// Width of a plane and of its small copy, and for each pixel of a row, and one more, the source pixel it begins at.
    columns: Vec<(usize, usize, Vec<u32>)>,
}

/// Geometries remembered: luma and chroma of a few sizes.
const COLUMNS: usize = 16;

impl Shrink {
    /// Writes `image` in `size`, which must not be larger than the image, as planar YUV into `out`.
    ///
    /// # Panics
    ///
    /// Where the planes are smaller than the image says.
    pub fn shrink(&mut self, image: &SystemImage, size: (u32, u32), out: &mut Vec<u8>) {
        let half = |(width, height): (u32, u32)| (width.div_ceil(2), height.div_ceil(2));
        let source = (image.width, image.height);
        let [luma, chroma, _] = super::plane_bytes(size);
        out.resize(luma + 2 * chroma, 0);
        let (y, rest) = out.split_at_mut(luma);
        let (u, v) = rest.split_at_mut(chroma);
        let plane = |index: usize, interleaved: usize| Plane {
            bytes: image.planes.plane(index),
            stride: image.strides[index],
            interleaved,
        };
        self.plane(&plane(0, 1), source, size, &mut [y]);
        match image.format {
            PixelFormat::I420 => {
                self.plane(&plane(1, 1), half(source), half(size), &mut [u]);
                self.plane(&plane(2, 1), half(source), half(size), &mut [v]);
            }
            PixelFormat::Nv12 => self.plane(&plane(1, 2), half(source), half(size), &mut [u, v]),
        }
    }

    fn plane(&mut self, plane: &Plane<'_>, source: (u32, u32), size: (u32, u32), out: &mut [&mut [u8]]) {
        let (from, to) = (source.0 as usize, size.0 as usize);
        let at = self.columns.iter().position(|(f, t, _)| (*f, *t) == (from, to)).unwrap_or_else(|| {
            if self.columns.len() == COLUMNS {
                self.columns.remove(0);
            }
            self.columns.push((from, to, bounds(source.0, size.0)));
            self.columns.len() - 1
        });
        let columns = &self.columns[at].2;
        let work = Work { plane, source, size, columns, sums: &mut self.sums, out };
        pulp::Arch::new().dispatch(work);
    }
}

/// Where each of `count` equal shares of `length` begins, in whole pixels, and where the last one ends.
fn bounds(length: u32, count: u32) -> Vec<u32> {
    // Sides are far below 2^32: the quotient fits.
    (0..=count).map(|at| (u64::from(at) * u64::from(length) / u64::from(count)) as u32).collect()
}

struct Plane<'a> {
    bytes: &'a [u8],
    stride: usize,
    /// Values a pixel: 2 where U and V lie side by side.
    interleaved: usize,
}

/// One plane, as `pulp` wants it: a closure would be compiled apart, for the oldest processor.
struct Work<'a, 'o> {
    plane: &'a Plane<'a>,
    source: (u32, u32),
    size: (u32, u32),
    columns: &'a [u32],
    sums: &'a mut Vec<u16>,
    out: &'a mut [&'o mut [u8]],
}

impl pulp::WithSimd for Work<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        let Plane { bytes, stride, interleaved } = *self.plane;
        let (length, width) = (self.source.0 as usize * interleaved, self.size.0 as usize);
        let (height, rows) = (u64::from(self.source.1), u64::from(self.size.1));
        self.sums.resize(length, 0);
        for y in 0..rows {
            let (top, bottom) = ((y * height / rows) as usize, ((y + 1) * height / rows) as usize);
            // At most 153 rows make one, of the longest sides: the sums fit 16 bits.
            sum_rows(bytes, stride, top..bottom, self.sums);
            let place = y as usize * width..(y as usize + 1) * width;
            for (offset, out) in self.out.iter_mut().enumerate() {
                let sums = &self.sums[offset..];
                average(sums, interleaved, bottom - top, self.columns, &mut out[place.clone()]);
            }
        }
    }
}

#[inline(always)]
fn sum_rows(bytes: &[u8], stride: usize, rows: std::ops::Range<usize>, sums: &mut [u16]) {
    let length = sums.len();
    let first = &bytes[rows.start * stride..][..length];
    for (sum, value) in sums.iter_mut().zip(first) {
        *sum = u16::from(*value);
    }
    for row in rows.skip(1) {
        for (sum, value) in sums.iter_mut().zip(&bytes[row * stride..][..length]) {
            *sum += u16::from(*value);
        }
    }
}

/// Means of neighbours in a row of sums over `rows` rows; every `step`th value counts.
#[inline(always)]
fn average(sums: &[u16], step: usize, rows: usize, columns: &[u32], out: &mut [u8]) {
    let whole = columns.last().map_or(0, |last| *last as usize);
    let share = whole / out.len();
    match (share * out.len() == whole, step, share) {
        // What cameras have, 4:3 or 16:9 of 640, 1280, 1920, 2560: the loops know their numbers.
        (true, 1, 1) => average_of::<1, 1>(sums, rows, out),
        (true, 1, 2) => average_of::<1, 2>(sums, rows, out),
        (true, 1, 3) => average_of::<1, 3>(sums, rows, out),
        (true, 1, 4) => average_of::<1, 4>(sums, rows, out),
        (true, 1, 6) => average_of::<1, 6>(sums, rows, out),
        (true, 2, 1) => average_of::<2, 1>(sums, rows, out),
        (true, 2, 2) => average_of::<2, 2>(sums, rows, out),
        (true, 2, 3) => average_of::<2, 3>(sums, rows, out),
        (true, 2, 4) => average_of::<2, 4>(sums, rows, out),
        (true, 2, 6) => average_of::<2, 6>(sums, rows, out),
        _ => average_any(sums, step, rows, columns, out),
    }
}

/// 1 / `count` as [`mean`] takes it.
fn inverse(count: usize) -> u32 {
    ((ONE + count as u64 / 2) / count as u64) as u32
}

const ONE: u64 = 1 << 24;

/// 255 times one, and a half: just within 32 bits. Of 600 values the mean is off by less than a hundredth.
#[inline(always)]
fn mean(sum: u32, inverse: u32) -> u8 {
    ((sum * inverse + (ONE / 2) as u32) >> 24) as u8
}

/// Each pixel stands for `SHARE` neighbours, `STEP` values apart.
#[inline(always)]
fn average_of<const STEP: usize, const SHARE: usize>(sums: &[u16], rows: usize, out: &mut [u8]) {
    let inverse = inverse(rows * SHARE);
    for (at, out) in out.iter_mut().enumerate() {
        let mut sum = 0;
        // The last value of an interleaved row is the other plane's.
        for each in 0..SHARE {
            sum += u32::from(sums[(at * SHARE + each) * STEP]);
        }
        *out = mean(sum, inverse);
    }
}

/// Shares that differ by one neighbour at most: the last of the longer ones is added or not, without a branch.
#[inline(always)]
fn average_any(sums: &[u16], step: usize, rows: usize, columns: &[u32], out: &mut [u8]) {
    let least = columns.last().map_or(1, |last| *last as usize / out.len());
    let inverses = [inverse(rows * least), inverse(rows * (least + 1))];
    let end = sums.len() - 1;
    for (out, pair) in out.iter_mut().zip(columns.windows(2)) {
        let from = pair[0] as usize;
        let longer = (pair[1] as usize - from - least).min(1);
        let mut sum = u32::from(sums[((from + least) * step).min(end)]) * longer as u32;
        for each in 0..least {
            sum += u32::from(sums[(from + each) * step]);
        }
        *out = mean(sum, inverses[longer]);
    }
}
