//! Thumbnails on the GPU: frames of a batch in small, and their way to the host.
//!
//! The arithmetic is that of [`crate::thumbnail::Shrink`], which runs on the CPU; `thumbnail.cu` has it. Few frames are to
//! have one, so they are launched one by one, behind the batch's graph and not in it.

use super::device::Device;
use super::error::GpuError;
use super::kernels::{Kernels, Launch};
use super::letterbox::LaneEntry;
use super::memory::{DeviceBuffer, Pinned};
use super::stream::Stream;
use crate::thumbnail::{self, SIDE_MAX, plane_bytes};

/// Columns and rows that a block of threads writes; as in `thumbnail.cu`.
const TILE: (u32, u32) = (32, 8);

/// A frame that is to have a thumbnail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    lane: usize,
    size: (u32, u32),
}

impl Wanted {
    /// The frame in lane `lane` of the table, of `source` pixels, in the size of [`crate::thumbnail::size_of`].
    pub fn new(lane: usize, source: (u32, u32)) -> Self {
        Self { lane, size: thumbnail::size_of(source) }
    }
}

/// The argument of the kernel; `thumbnail.cu` has the same.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct ThumbnailArgs {
    lanes: u64,
    out: u64,
    lane: u32,
    width: u32,
    height: u32,
    reserved: u32,
}

impl ThumbnailArgs {
    /// `lanes` and `out` are the addresses of table and thumbnail.
    pub(super) fn new(wanted: Wanted, lanes: u64, out: u64) -> Self {
        // A batch has 64 lanes at most.
        let (lane, (width, height)) = (wanted.lane as u32, wanted.size);
        Self { lanes, out, lane, width, height, reserved: 0 }
    }

    /// Blocks of threads over columns and rows, of Y and then of both U and V.
    pub(super) fn grid(&self) -> [u32; 3] {
        [self.width.div_ceil(TILE.0), self.height.div_ceil(TILE.1), 2]
    }
}

impl Kernels {
    /// Writes the thumbnail of a frame of `table` into `out` from byte `offset` on: Y, U and V, one after the other.
    ///
    /// # Errors
    ///
    /// [`GpuError::Config`] where a buffer is too small, else as the driver says.
    pub fn shrink(
        &self,
        stream: &Stream,
        table: &DeviceBuffer,
        wanted: Wanted,
        out: &DeviceBuffer,
        offset: usize,
    ) -> Result<(), GpuError> {
        let table = table.range(0, (wanted.lane + 1).saturating_mul(size_of::<LaneEntry>()))?;
        let out = out.range(offset, bytes(wanted.size))?;
        let args = ThumbnailArgs::new(wanted, table, out);
        let launch = Launch { name: "shrink", grid: args.grid(), threads: TILE.0 * TILE.1 };
        self.launch(stream, &launch, &args)
    }
}

/// Room for the thumbnails of one batch at a time, on the device and on the host.
#[derive(Debug)]
pub struct Room {
    device: DeviceBuffer,
    host: Pinned,
    /// Of the latest batch, with where they begin.
    taken: Vec<(Wanted, usize)>,
}

impl Room {
    /// For a batch of `lanes`: 614,400 bytes each, here and there.
    ///
    /// # Errors
    ///
    /// [`GpuError::Memory`] where there is not as much.
    pub fn new(device: &Device, lanes: usize) -> Result<Self, GpuError> {
        let all = lanes.saturating_mul(bytes((SIDE_MAX, SIDE_MAX)));
        Ok(Self { device: DeviceBuffer::new(device, all)?, host: Pinned::new(device, all)?, taken: Vec::new() })
    }

    /// Puts the thumbnails of a batch on `stream`, behind what writes `table`. They are there once that is done.
    ///
    /// # Errors
    ///
    /// [`GpuError::Config`] where there are more than there is room for, else as the driver says.
    pub fn start(
        &mut self,
        kernels: &Kernels,
        stream: &Stream,
        table: &DeviceBuffer,
        wanted: impl Iterator<Item = Wanted>,
    ) -> Result<(), GpuError> {
        self.taken.clear();
        let mut end = 0;
        for wanted in wanted {
            kernels.shrink(stream, table, wanted, &self.device, end)?;
            self.taken.push((wanted, end));
            end += bytes(wanted.size);
        }
        stream.download(&self.device, 0, &mut self.host, 0, end)
    }

    /// Size and pixels, Y, U and V one after the other, of a lane of the latest batch, once its work is done; `None` where
    /// none was wanted.
    pub fn get(&self, lane: usize) -> Option<((u32, u32), &[u8])> {
        let (wanted, at) = self.taken.iter().find(|(wanted, _)| wanted.lane == lane)?;
        self.host.bytes().get(*at..at + bytes(wanted.size)).map(|pixels| (wanted.size, pixels))
    }
}

fn bytes(size: (u32, u32)) -> usize {
    plane_bytes(size).iter().sum()
}
