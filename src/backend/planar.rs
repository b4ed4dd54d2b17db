//! Letterbox on the CPU: planar YUV to the planar input tensor in one pass, without an RGB picture between.
//!
//! Bilinear with two taps an axis at pixel centres (as OpenCV's `INTER_LINEAR`), separable: each output row blends
//! two source rows of each plane, then picks its columns, then converts to RGB. The inner loops are plain slices,
//! compiled for the processor's widest vector registers through `pulp`.

use crate::engine::{Channels, InputSpec};
use crate::frame::{Colour, PixelFormat, SystemImage};
use crate::letterbox::Letterbox;
use crate::mask::Span;

/// One, as a weight down a column: two 8-bit values so weighted fit 16 bits.
const ROW_ONE: u16 = 1 << 8;
/// One, as a weight along a row.
const COLUMN_ONE: u32 = 1 << 14;

/// One axis: for each output pixel the first of two neighbouring source pixels and the second one's weight.
#[derive(Debug, Default)]
struct Axis {
    index: Vec<u32>,
    weight: Vec<u32>,
}

impl Axis {
    /// `count` output pixels over a plane of `length` pixels, of which `source / (halvings * count)` make one output
    /// pixel; weights in `one`. Whole numbers throughout: a GPU computes the very same.
    fn new(count: u32, length: u32, source: u32, halvings: u32, one: u32) -> Self {
        let [source, count, one] = [source, count, one].map(u64::from);
        let unit = 2 * u64::from(halvings) * count;
        let last = length - 1;
        let mut axis = Self::default();
        for x in 0..count {
            // The pixel's centre, less half a source pixel, in 1 / unit.
            let centre = ((2 * x + 1) * source).saturating_sub(unit / 2);
            let weight = (2 * (centre % unit) * one + unit) / (2 * unit);
            let (index, weight) = match (centre / unit) as u32 {
                index if index < last => (index, weight as u32),
                // At the edge: all of the last pixel, which is the second of its pair unless it is the only one.
                _ if last > 0 => (last - 1, one as u32),
                _ => (0, 0),
            };
            axis.index.push(index);
            axis.weight.push(weight);
        }
        axis
    }
}

/// Everything about a geometry that does not depend on the pixels.
#[derive(Debug)]
struct Plan {
    letterbox: Letterbox,
    luma: [Axis; 2],
    chroma: [Axis; 2],
}

impl Plan {
    fn new(letterbox: Letterbox) -> Self {
        let (width, height) = letterbox.source;
        let (columns, rows) = letterbox.picture;
        let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
        let row_one = u32::from(ROW_ONE);
        let luma = [Axis::new(columns, width, width, 1, COLUMN_ONE), Axis::new(rows, height, height, 1, row_one)];
        let chroma = [
            Axis::new(columns, half_width, width, 2, COLUMN_ONE),
            Axis::new(rows, half_height, height, 2, row_one),
        ];
        Self { letterbox, luma, chroma }
    }
}

/// Writes frames into an input tensor. One a tensor: it remembers what padding it holds.
#[derive(Debug)]
pub struct Writer {
    input: InputSpec,
    size: (u32, u32),
    plans: Vec<Plan>,
    /// The letterbox that each lane's padding was written for.
    padded: Vec<Option<Letterbox>>,
    rows: Rows,
}

/// Scratch rows, reused.
#[derive(Debug, Default)]
struct Rows {
    /// Blended source rows of Y, U and V (NV12: Y, then U and V interleaved), weighted by [`ROW_ONE`].
    blend: [Vec<u16>; 3],
    /// Of each source pixel: Y, with its right neighbour's in the upper half.
    pairs: Vec<u32>,
    /// Of each source pixel: U, with V in the upper half.
    chroma: Vec<u32>,
    /// What the output row's pixels picked: `pairs`, left `chroma`, right `chroma`.
    picked: [Vec<u32>; 3],
    /// Y, U and V of the output row.
    yuv: [Vec<f32>; 3],
}

/// Geometries remembered: cameras of one installation have few different sizes.
const PLANS: usize = 16;

impl Writer {
    /// For a tensor of `lanes` × 3 × `size.1` × `size.0`.
    pub fn new(input: InputSpec, size: (u32, u32), lanes: usize) -> Self {
        Self { input, size, plans: Vec::new(), padded: vec![None; lanes], rows: Rows::default() }
    }

    /// Writes `image` into lane `lane` of `tensor` (N × 3 × height × width, float32). `spans` are input pixels
    /// to blank with the padding's grey.
    ///
    /// # Panics
    ///
    /// Where `tensor` is smaller than the lanes it was made for, or the planes than the image says.
    pub fn write(
        &mut self,
        image: &SystemImage,
        letterbox: &Letterbox,
        spans: &[Span],
        lane: usize,
        tensor: &mut [f32],
    ) {
        let plane = self.size.0 as usize * self.size.1 as usize;
        let tensor = &mut tensor[lane * 3 * plane..(lane + 1) * 3 * plane];
        let (red, rest) = tensor.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        let mut planes = match self.input.channels {
            Channels::Rgb => [red, green, blue],
            Channels::Bgr => [blue, green, red],
        };
        let transfer = Transfer::new(image.colour, &self.input);
        if self.padded[lane] != Some(*letterbox) {
            for (plane, pad) in planes.iter_mut().zip(transfer.pad) {
                plane.fill(pad);
            }
            self.padded[lane] = Some(*letterbox);
        }
        let at = self.plan(letterbox);
        let work = Picture { image, plan: &self.plans[at], transfer: &transfer, width: self.size.0 as usize };
        pulp::Arch::new().dispatch(Draw { work, rows: &mut self.rows, planes: &mut planes });
        for span in spans {
            let row = span.y as usize * self.size.0 as usize;
            for (plane, pad) in planes.iter_mut().zip(transfer.pad) {
                plane[row + span.x0 as usize..row + span.x1 as usize].fill(pad);
            }
        }
    }

    fn plan(&mut self, letterbox: &Letterbox) -> usize {
        if let Some(at) = self.plans.iter().position(|p| p.letterbox == *letterbox) {
            return at;
        }
        if self.plans.len() == PLANS {
            self.plans.remove(0);
        }
        self.plans.push(Plan::new(*letterbox));
        self.plans.len() - 1
    }
}

/// YUV to the tensor's values: range, coefficients, mean and deviation folded into one affine map a plane.
#[derive(Debug)]
struct Transfer {
    /// For red, green and blue: factors of Y, U and V, and the constant; the result is 0..255.
    rgb: [[f32; 4]; 3],
    /// For red, green and blue: factor and constant from 0..255 to the tensor's value.
    value: [[f32; 2]; 3],
    /// The padding's value.
    pad: [f32; 3],
}

impl Transfer {
    fn new(colour: Colour, input: &InputSpec) -> Self {
        let order = match input.channels {
            Channels::Rgb => [0, 1, 2],
            Channels::Bgr => [2, 1, 0],
        };
        let (values, pads) = (input.values(), input.pad_values());
        Self {
            rgb: colour.matrix(),
            value: order.map(|plane: usize| values[plane]),
            pad: order.map(|plane: usize| pads[plane]),
        }
    }
}

/// One frame on its way into one lane.
struct Picture<'a> {
    image: &'a SystemImage,
    plan: &'a Plan,
    transfer: &'a Transfer,
    /// Row length of the tensor.
    width: usize,
}

/// The drawing as `pulp` wants it: a closure would be compiled apart, for the oldest processor.
struct Draw<'a, 'p> {
    work: Picture<'a>,
    rows: &'a mut Rows,
    planes: &'a mut [&'p mut [f32]; 3],
}

impl pulp::WithSimd for Draw<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        self.work.draw(self.rows, self.planes);
    }
}

impl Picture<'_> {
    #[inline(always)]
    fn draw(&self, rows: &mut Rows, planes: &mut [&mut [f32]; 3]) {
        let letterbox = &self.plan.letterbox;
        let columns = letterbox.picture.0 as usize;
        for row in &mut rows.yuv {
            row.resize(columns, 0.0);
        }
        for y in 0..letterbox.picture.1 as usize {
            self.resample(y, rows);
            let start = (letterbox.pad.1 as usize + y) * self.width + letterbox.pad.0 as usize;
            for (channel, plane) in planes.iter_mut().enumerate() {
                let (rgb, value) = (self.transfer.rgb[channel], self.transfer.value[channel]);
                convert(&rows.yuv, rgb, value, &mut plane[start..start + columns]);
            }
        }
    }

    /// Y, U and V of output row `y`.
    #[inline(always)]
    fn resample(&self, y: usize, rows: &mut Rows) {
        let (luma, chroma) = (&self.plan.luma, &self.plan.chroma);
        let width = self.image.width as usize;
        let half = width.div_ceil(2);
        let Rows { blend: [blend, u, v], pairs, chroma: joined, picked: [pair, left, right], yuv } = rows;
        self.blend(0, &luma[1], y, width, blend);
        join(&blend[..width - 1], &blend[1..], pairs);
        // The last pixel has no right neighbour; it is picked only where it is the only one.
        pairs.push(u32::from(blend[width - 1]));
        match self.image.format {
            PixelFormat::I420 => {
                self.blend(1, &chroma[1], y, half, u);
                self.blend(2, &chroma[1], y, half, v);
                join(u, v, joined);
            }
            PixelFormat::Nv12 => {
                self.blend(1, &chroma[1], y, 2 * half, u);
                joined.clear();
                joined.extend(u.chunks_exact(2).map(|uv| u32::from(uv[0]) | u32::from(uv[1]) << 16));
            }
        }
        joined.push(joined[half - 1]);
        pick(pairs, &luma[0].index, pair);
        pick(joined, &chroma[0].index, left);
        pick(&joined[1..], &chroma[0].index, right);
        let [y, u, v] = yuv;
        for ((out, pair), weight) in y.iter_mut().zip(&*pair).zip(&luma[0].weight) {
            *out = mix(pair & 0xFFFF, pair >> 16, *weight);
        }
        let sides = left.iter().zip(&*right).zip(&chroma[0].weight);
        for ((u, v), ((left, right), weight)) in u.iter_mut().zip(v).zip(sides) {
            *u = mix(left & 0xFFFF, right & 0xFFFF, *weight);
            *v = mix(left >> 16, right >> 16, *weight);
        }
    }

    /// The two source rows around output row `y` of a plane, blended, as 8.8 fixed point.
    #[inline(always)]
    fn blend(&self, plane: usize, axis: &Axis, y: usize, length: usize, out: &mut Vec<u16>) {
        let (bytes, stride) = (self.image.planes.plane(plane), self.image.strides[plane]);
        let first = axis.index[y] as usize * stride;
        let weight = axis.weight[y] as u16; // at most ROW_ONE
        out.resize(length, 0);
        let above = &bytes[first..first + length];
        // The only row of a one-row picture has no neighbour, and its weight is 0.
        let below = if weight == 0 { above } else { &bytes[first + stride..first + stride + length] };
        for ((out, a), b) in out.iter_mut().zip(above).zip(below) {
            *out = u16::from(*a) * (ROW_ONE - weight) + u16::from(*b) * weight;
        }
    }
}

/// Two rows side by side: `low` in the lower halves, `high` in the upper.
#[inline(always)]
fn join(low: &[u16], high: &[u16], out: &mut Vec<u32>) {
    out.clear();
    out.extend(low.iter().zip(high).map(|(low, high)| u32::from(*low) | u32::from(*high) << 16));
}

/// The only loop that jumps about in memory: one load a pixel and nothing else.
#[inline(always)]
fn pick(from: &[u32], index: &[u32], out: &mut Vec<u32>) {
    out.clear();
    out.extend(index.iter().map(|index| from[*index as usize]));
}

/// Two neighbours of 8.8 bits, mixed to 0..255.
#[inline(always)]
fn mix(left: u32, right: u32, weight: u32) -> f32 {
    const SCALE: f32 = 1.0 / (ROW_ONE as u32 * COLUMN_ONE) as f32;
    (left * (COLUMN_ONE - weight) + right * weight).cast_signed() as f32 * SCALE
}

#[inline(always)]
fn convert(yuv: &[Vec<f32>; 3], rgb: [f32; 4], value: [f32; 2], out: &mut [f32]) {
    let [y, u, v] = yuv;
    for (((out, y), u), v) in out.iter_mut().zip(y).zip(u).zip(v) {
        let byte = (rgb[0] * y + rgb[1] * u + rgb[2] * v + rgb[3]).clamp(0.0, 255.0);
        *out = byte * value[0] + value[1];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Range;
    use crate::frame::OwnedPlanes;
    use crate::letterbox::Fit;

    fn input(range: Range, channels: Channels) -> InputSpec {
        InputSpec { size: None, range, channels, fit: Fit::Centre, pad: 114, mean: [0.0; 3], std: [1.0; 3] }
    }

    fn random_i420(width: u32, height: u32, colour: Colour, seed: u64) -> SystemImage {
        let mut rng = fastrand::Rng::with_seed(seed);
        let chroma = (width.div_ceil(2) as usize, height.div_ceil(2) as usize);
        // Rows are longer than the picture, as decoders pad them.
        let strides = [width as usize + 5, chroma.0 + 3, chroma.0 + 3];
        let mut plane = |stride: usize, rows: usize| (0..stride * rows).map(|_| rng.u8(..)).collect::<Vec<u8>>();
        let planes = [plane(strides[0], height as usize), plane(strides[1], chroma.1), plane(strides[2], chroma.1)];
        let format = PixelFormat::I420;
        SystemImage { format, width, height, strides, colour, planes: Box::new(OwnedPlanes(planes)) }
    }

    fn as_nv12(image: &SystemImage) -> SystemImage {
        let (width, rows) = (image.width.div_ceil(2) as usize, image.height.div_ceil(2) as usize);
        let mut both = Vec::new();
        for y in 0..rows {
            for x in 0..width {
                both.push(image.planes.plane(1)[y * image.strides[1] + x]);
                both.push(image.planes.plane(2)[y * image.strides[2] + x]);
            }
        }
        let planes = [image.planes.plane(0).to_vec(), both, Vec::new()];
        let strides = [image.strides[0], 2 * width, 0];
        let (width, height, colour) = (image.width, image.height, image.colour);
        SystemImage {
            format: PixelFormat::Nv12,
            width,
            height,
            strides,
            colour,
            planes: Box::new(OwnedPlanes(planes)),
        }
    }

    /// Bilinear at pixel centres in double precision.
    fn sample(image: &SystemImage, plane: usize, x: f64, y: f64) -> f64 {
        let half = |v: u32| if plane == 0 { v } else { v.div_ceil(2) };
        let (width, height) = (half(image.width), half(image.height));
        let (x, y) = (x.clamp(0.0, f64::from(width - 1)), y.clamp(0.0, f64::from(height - 1)));
        let (x0, y0) = (x.floor() as u32, y.floor() as u32);
        let at = |x: u32, y: u32| {
            let index = y.min(height - 1) as usize * image.strides[plane] + x.min(width - 1) as usize;
            f64::from(image.planes.plane(plane)[index])
        };
        let (fx, fy) = (x - f64::from(x0), y - f64::from(y0));
        let row = |y: u32| at(x0, y) * (1.0 - fx) + at(x0 + 1, y) * fx;
        row(y0) * (1.0 - fy) + row(y0 + 1) * fy
    }

    /// Red, green and blue of an output pixel, 0..255.
    fn reference(image: &SystemImage, letterbox: &Letterbox, x: u32, y: u32) -> [f64; 3] {
        let step_x = f64::from(image.width) / f64::from(letterbox.picture.0);
        let step_y = f64::from(image.height) / f64::from(letterbox.picture.1);
        let centre = |v: u32, step: f64| (f64::from(v) + 0.5) * step - 0.5;
        let luma = sample(image, 0, centre(x, step_x), centre(y, step_y));
        let (cx, cy) = (centre(x, step_x / 2.0), centre(y, step_y / 2.0));
        let (u, v) = (sample(image, 1, cx, cy) - 128.0, sample(image, 2, cx, cy) - 128.0);
        let (kr, kb) = if image.colour.bt709 { (0.2126, 0.0722) } else { (0.299, 0.114) };
        let (luma, u, v) = match image.colour.full_range {
            true => (luma, u, v),
            false => ((luma - 16.0) * 255.0 / 219.0, u * 255.0 / 224.0, v * 255.0 / 224.0),
        };
        let (red, blue) = (luma + 2.0 * (1.0 - kr) * v, luma + 2.0 * (1.0 - kb) * u);
        let green = (luma - kr * red - kb * blue) / (1.0 - kr - kb);
        [red, green, blue].map(|v| v.clamp(0.0, 255.0))
    }

    #[test]
    fn every_pixel_of_noise_is_within_two_grey_levels_of_the_reference() {
        let cases =
            [((97, 61), (64, 48)), ((64, 48), (64, 48)), ((31, 200), (96, 96)), ((1, 1), (8, 8)), ((2, 3), (9, 5))];
        for (number, ((width, height), size)) in cases.into_iter().enumerate() {
            for (bt709, full_range) in [(false, true), (true, false), (false, false)] {
                let image = random_i420(width, height, Colour { bt709, full_range }, number as u64);
                let letterbox = Letterbox::new((width, height), size, Fit::Centre);
                let pixels = size.0 as usize * size.1 as usize;
                let mut tensor = vec![0.0; 3 * pixels];
                let mut writer = Writer::new(input(Range::Byte, Channels::Rgb), size, 1);
                writer.write(&image, &letterbox, &[], 0, &mut tensor);
                for y in 0..letterbox.picture.1 {
                    for x in 0..letterbox.picture.0 {
                        let expected = reference(&image, &letterbox, x, y);
                        let at = ((y + letterbox.pad.1) * size.0 + x + letterbox.pad.0) as usize;
                        for channel in 0..3 {
                            let got = f64::from(tensor[channel * pixels + at]);
                            // Two weights of 7 bits on values that differ by up to 255, times the matrix.
                            assert!(
                                (got - expected[channel]).abs() < 4.0,
                                "{width}x{height} {x},{y}: {got} {expected:?}"
                            );
                        }
                    }
                }
                let nv12 = as_nv12(&image);
                let mut other = vec![0.0; 3 * pixels];
                Writer::new(input(Range::Byte, Channels::Rgb), size, 1).write(
                    &nv12,
                    &letterbox,
                    &[],
                    0,
                    &mut other,
                );
                assert_eq!(tensor, other, "NV12 and I420 of one picture are one tensor");
            }
        }
    }

    #[test]
    fn ranges_channels_mean_and_deviation() {
        let image = SystemImage::solid(8, 8, [76, 85, 255]); // red in full-range BT.601
        let letterbox = Letterbox::new((8, 8), (8, 8), Fit::Centre);
        let write = |input: InputSpec| {
            let mut tensor = vec![0.0; 3 * 64];
            Writer::new(input, (8, 8), 1).write(&image, &letterbox, &[], 0, &mut tensor);
            [tensor[0], tensor[64], tensor[128]]
        };
        let near = |got: [f32; 3], expected: [f32; 3], by: f32| {
            assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() <= by), "{got:?} {expected:?}");
        };
        near(write(input(Range::Byte, Channels::Rgb)), [254.0, 0.0, 0.0], 1.5);
        near(write(input(Range::Byte, Channels::Bgr)), [0.0, 0.0, 254.0], 1.5);
        near(write(input(Range::Unit, Channels::Rgb)), [0.996, 0.0, 0.0], 0.006);
        let mut shifted = input(Range::Unit, Channels::Rgb);
        (shifted.mean, shifted.std) = ([0.5, 0.25, 0.0], [0.5, 0.25, 2.0]);
        near(write(shifted), [0.992, -1.0, 0.0], 0.012);
    }

    #[test]
    fn padding_lanes_and_masks() {
        let image = SystemImage::solid(16, 8, [255, 128, 128]);
        let letterbox = Letterbox::new((16, 8), (8, 8), Fit::Centre);
        let mut tensor = vec![-1.0; 2 * 3 * 64];
        let mut writer = Writer::new(input(Range::Byte, Channels::Rgb), (8, 8), 2);
        let spans = [Span { y: 3, x0: 2, x1: 5 }];
        writer.write(&image, &letterbox, &spans, 1, &mut tensor);
        assert!(tensor[..192].iter().all(|v| *v == -1.0), "the other lane is left alone");
        let row = |y: usize| tensor[192 + y * 8..192 + y * 8 + 8].to_vec();
        assert_eq!(row(0), [114.0; 8]);
        assert_eq!(row(2), [255.0; 8]);
        assert_eq!(row(3), [255.0, 255.0, 114.0, 114.0, 114.0, 255.0, 255.0, 255.0]);
        let whole = SystemImage::solid(8, 8, [255, 128, 128]);
        writer.write(&whole, &Letterbox::new((8, 8), (8, 8), Fit::Centre), &[], 1, &mut tensor);
        writer.write(&image, &letterbox, &[], 1, &mut tensor);
        assert_eq!(tensor[192..200], [114.0; 8], "padding is written anew when the geometry changes");
    }
}
