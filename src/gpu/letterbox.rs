//! Letterbox on the GPU: the planes of a batch's frames to the input tensor, one launch a batch.
//!
//! The arithmetic is that of [`crate::backend`]'s `planar`, which runs on the CPU; `letterbox.cu` has it.

use super::error::GpuError;
use super::kernels::{Kernels, Launch};
use super::memory::DeviceBuffer;
use super::stream::Stream;
use crate::engine::{Channels, InputSpec};
use crate::frame::{Colour, PixelFormat};
use crate::letterbox::Letterbox;
use crate::mask::Span;

/// Longest side of an input, so that the kernel's whole numbers fit 32 bits.
const INPUT_SIDE_MAX: u32 = 16_384;
/// Longest side of a source, likewise.
const SOURCE_SIDE_MAX: u32 = 65_535;
/// Columns and rows of the input that a block of threads writes; as in `letterbox.cu`.
const TILE: (u32, u32) = (128, 32);
/// Threads of a block; as in `letterbox.cu`.
const THREADS: u32 = 256;

/// What the kernels know of one lane. The table of a batch is an array of these.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaneEntry {
    planes: [u64; 3],
    mask: u64,
    strides: [u32; 3],
    source: [u32; 2],
    nv12: u32,
    used: u32,
    pad: [u32; 2],
    picture: [u32; 2],
    rgb: [[f32; 4]; 3],
    padded: u32,
}

impl LaneEntry {
    /// A lane that shows a frame.
    ///
    /// `planes` are device addresses of Y, U and V (NV12: Y, and U and V interleaved) that stay readable until the
    /// launch has run, `strides` their bytes from row to row. `mask` is 0, or the device address of a bitmap as
    /// [`mask_bits`] makes it. A frame whose sides or strides are beyond what the kernel counts is left out, as
    /// [`LaneEntry::unused`].
    pub fn new(
        planes: [u64; 3],
        strides: [usize; 3],
        format: PixelFormat,
        colour: Colour,
        letterbox: &Letterbox,
        mask: u64,
    ) -> Self {
        let (source, picture, pad) = (letterbox.source, letterbox.picture, letterbox.pad);
        let [Ok(y), Ok(u), Ok(v)] = strides.map(u32::try_from) else { return Self::unused() };
        if source.0.max(source.1) > SOURCE_SIDE_MAX {
            return Self::unused();
        }
        Self {
            planes,
            mask,
            strides: [y, u, v],
            source: [source.0, source.1],
            nv12: u32::from(format == PixelFormat::Nv12),
            used: 1,
            pad: [pad.0, pad.1],
            picture: [picture.0, picture.1],
            rgb: colour.matrix(),
            padded: 0,
        }
    }

    /// Whether it shows a frame.
    pub fn is_used(&self) -> bool {
        self.used != 0
    }

    /// The same frame where `before` was the last that was drawn there: the padding around a picture in the same place is there
    /// already.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        let is_there = before.is_used() && (self.pad, self.picture) == (before.pad, before.picture);
        self.padded = u32::from(is_there);
        self
    }

    /// A lane without a frame: its input is left as it is, its boxes are not read.
    pub fn unused() -> Self {
        Self {
            planes: [0; 3],
            mask: 0,
            strides: [0; 3],
            source: [0; 2],
            nv12: 0,
            used: 0,
            pad: [0; 2],
            picture: [0; 2],
            rgb: [[0.0; 4]; 3],
            padded: 0,
        }
    }
}

/// The input tensor that the letterbox writes: N × 3 × height × width, or N × height × width × 4 where it is packed.
#[derive(Clone, Debug, PartialEq)]
pub struct InputFormat {
    /// What the manifest says of it.
    pub spec: InputSpec,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// float16, else float32.
    pub half: bool,
    /// The three values of a pixel side by side and a zero behind them, as tensor cores read them (TensorRT's CHW4). Of
    /// float16 only.
    pub packed: bool,
}

impl InputFormat {
    /// Bytes of a tensor of `lanes`.
    pub fn bytes(&self, lanes: usize) -> usize {
        let element = if self.half { 2 } else { 4 };
        let channels = if self.packed { 4 } else { 3 };
        [channels, self.size.0 as usize, self.size.1 as usize, element]
            .iter()
            .fold(lanes, |n, d| n.saturating_mul(*d))
    }
}

/// The bitmap of a mask: for each row of the input `width / 32` words, rounded up, one bit a pixel, the lowest first.
pub fn mask_bits(spans: &[Span], size: (u32, u32)) -> Vec<u32> {
    let words = size.0.div_ceil(32) as usize;
    let mut bits = vec![0; words * size.1 as usize];
    for span in spans.iter().filter(|span| span.y < size.1) {
        for x in span.x0..span.x1.min(size.0) {
            bits[span.y as usize * words + x as usize / 32] |= 1 << (x % 32);
        }
    }
    bits
}

/// The argument of the kernel; `letterbox.cu` has the same.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct LetterboxArgs {
    lanes: u64,
    out: u64,
    width: u32,
    height: u32,
    half: u32,
    bgr: u32,
    values: [[f32; 2]; 3],
    pads: [f32; 3],
    packed: u32,
}

impl LetterboxArgs {
    /// `lanes` and `out` are the addresses of table and tensor.
    pub(super) fn new(format: &InputFormat, lanes: u64, out: u64) -> Self {
        Self {
            lanes,
            out,
            width: format.size.0,
            height: format.size.1,
            half: u32::from(format.half),
            bgr: u32::from(format.spec.channels == Channels::Bgr),
            values: format.spec.values(),
            pads: format.spec.pad_values(),
            packed: u32::from(format.packed),
        }
    }

    /// Blocks of threads over the input's columns and rows, and lanes.
    pub(super) fn grid(&self, lanes: u32) -> [u32; 3] {
        [self.width.div_ceil(TILE.0), self.height.div_ceil(TILE.1), lanes]
    }
}

impl Kernels {
    /// Writes the frames of `table` (`lanes` × [`LaneEntry`]) into `out`, padding and masks included. The letterboxes
    /// in the table must be for `format.size`. May be part of a graph.
    ///
    /// # Errors
    ///
    /// [`GpuError::Config`] where a buffer is too small or the input too large, else as the driver says.
    pub fn letterbox(
        &self,
        stream: &Stream,
        table: &DeviceBuffer,
        lanes: usize,
        format: &InputFormat,
        out: &DeviceBuffer,
    ) -> Result<(), GpuError> {
        let (width, height) = format.size;
        if width.max(height) > INPUT_SIDE_MAX {
            return Err(GpuError::Config(format!(
                "an input of {width}x{height} is too large: export the model with sides of {INPUT_SIDE_MAX} at most"
            )));
        }
        if format.packed && !format.half {
            return Err(GpuError::Config(
                "a packed input of float32 is not written: build the engine with float16 inputs".to_owned(),
            ));
        }
        let table = table.range(0, lanes.saturating_mul(size_of::<LaneEntry>()))?;
        let out = out.range(0, format.bytes(lanes))?;
        let args = LetterboxArgs::new(format, table, out);
        let launch = Launch { name: "letterbox", grid: args.grid(lanes as u32), threads: THREADS };
        self.launch(stream, &launch, &args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_one_bit_a_pixel() {
        let spans = [Span { y: 1, x0: 31, x1: 34 }, Span { y: 0, x0: 0, x1: 1 }, Span { y: 9, x0: 0, x1: 9 }];
        assert_eq!(mask_bits(&spans, (40, 2)), [1, 0, 1 << 31, 0b11]);
    }

    #[test]
    fn frames_beyond_the_kernel_are_left_out() {
        let colour = Colour { bt709: true, full_range: false };
        let letterbox = Letterbox { source: (70_000, 8), input: (8, 8), pad: (0, 0), picture: (8, 1) };
        let entry = LaneEntry::new([1; 3], [70_000; 3], PixelFormat::Nv12, colour, &letterbox, 0);
        assert_eq!(entry, LaneEntry::unused());
    }
}
