//! The motion gate's look at frames in device memory: their cells ([`crate::motion`]), read beside the batches.

use super::device::Device;
use super::error::GpuError;
use super::kernels::{Kernels, Launch};
use super::letterbox::LaneEntry;
use super::memory::{DeviceBuffer, Pinned};
use super::stream::{Event, Stream};
use crate::frame::Image;
use crate::motion::CELLS;

/// Cells that a block of threads reads, one a warp.
const CELLS_A_BLOCK: u32 = 8;

/// The argument of the kernel; `motion.cu` has the same.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct MotionArgs {
    pub(super) lanes: u64,
    pub(super) out: u64,
}

impl Kernels {
    /// Writes the mean luma, 0..255, of each cell of each lane into `out`: `lanes` × [`CELLS`] bytes, row by row.
    /// Unused lanes are left as they are. May be part of a graph.
    ///
    /// # Errors
    ///
    /// [`GpuError::Config`] where a buffer is too small, else as the driver says.
    pub fn luma_cells(
        &self,
        stream: &Stream,
        table: &DeviceBuffer,
        lanes: usize,
        out: &DeviceBuffer,
    ) -> Result<(), GpuError> {
        let table = table.range(0, lanes.saturating_mul(size_of::<LaneEntry>()))?;
        let out = out.range(0, lanes.saturating_mul(CELLS))?;
        let grid = [(CELLS as u32).div_ceil(CELLS_A_BLOCK), lanes as u32, 1];
        let launch = Launch { name: "luma_cells", grid, threads: 32 * CELLS_A_BLOCK };
        self.launch(stream, &launch, &MotionArgs { lanes: table, out })
    }
}

/// A stream of its own with what the kernel reads and writes: the cells of a few frames at a time.
#[derive(Debug)]
pub struct Looks {
    stream: Stream,
    /// Put behind each frame's decoder in turn.
    decoded: Event,
    finished: Event,
    table_host: Pinned,
    table: DeviceBuffer,
    cells_host: Pinned,
    cells: DeviceBuffer,
}

impl Looks {
    /// For `most` frames at a time.
    ///
    /// # Errors
    ///
    /// [`GpuError::Memory`] where the device is full, else as the driver says.
    pub fn new(device: &Device, most: usize) -> Result<Self, GpuError> {
        let (table_bytes, cells_bytes) = (most * size_of::<LaneEntry>(), most * CELLS);
        Ok(Self {
            stream: Stream::new(device)?,
            decoded: Event::timeless(device)?,
            finished: Event::new(device)?,
            table_host: Pinned::new(device, table_bytes)?,
            table: DeviceBuffer::new(device, table_bytes)?,
            cells_host: Pinned::new(device, cells_bytes)?,
            cells: DeviceBuffer::new(device, cells_bytes)?,
        })
    }

    /// What is launched next waits for the decoder of this frame, which must live until then.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`], as the driver says.
    pub fn follow(&self, image: &Image) -> Result<(), GpuError> {
        self.stream.follow(image, &self.decoded)
    }

    /// Starts to read the cells of these frames, not before those of the frames before are done ([`Looks::is_done`]). Of the
    /// entries only luma and the source's size matter. `done` is called on a thread of the driver when the cells are there;
    /// it makes no CUDA calls. The frames must live until then.
    ///
    /// # Errors
    ///
    /// [`GpuError::Config`] where there are more frames than at a time, or one is beyond what the kernel counts, else as the
    /// driver says.
    pub fn launch(
        &mut self,
        kernels: &Kernels,
        entries: &[LaneEntry],
        done: Box<dyn FnOnce() + Send>,
    ) -> Result<(), GpuError> {
        if entries.contains(&LaneEntry::unused()) {
            return Err(GpuError::Config(
                "a frame is too large for the kernels: 65,535 pixels a side at most".into(),
            ));
        }
        let (lanes, bytes) = (entries.len(), size_of_val(entries));
        // Within the buffer, before anything is written.
        self.table_host.range(0, bytes)?;
        self.table_host.slice_mut(0, lanes).copy_from_slice(entries);
        let queued = self.queue(kernels, lanes, bytes, done);
        if queued.is_err() {
            // What is under way reads frames that the caller gives back now.
            let _ = self.stream.synchronize();
        }
        queued
    }

    fn queue(
        &mut self,
        kernels: &Kernels,
        lanes: usize,
        bytes: usize,
        done: Box<dyn FnOnce() + Send>,
    ) -> Result<(), GpuError> {
        self.stream.upload(&self.table_host, 0, &self.table, 0, bytes)?;
        kernels.luma_cells(&self.stream, &self.table, lanes, &self.cells)?;
        self.stream.download(&self.cells, 0, &mut self.cells_host, 0, lanes * CELLS)?;
        self.finished.record(&self.stream)?;
        self.stream.notify(done)
    }

    /// Whether the cells are there.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`] where the work failed.
    pub fn is_done(&self) -> Result<bool, GpuError> {
        self.finished.done()
    }

    /// The [`CELLS`] cells of frame `at` of those looked at last, once they are there.
    ///
    /// # Panics
    ///
    /// Where it is beyond those that are looked at at a time.
    pub fn cells(&self, at: usize) -> &[u8] {
        self.cells_host.slice(at * CELLS, CELLS)
    }
}

impl Drop for Looks {
    /// The device may still be reading frames, and writing into the buffers that are about to go.
    fn drop(&mut self) {
        let _ = self.stream.synchronize();
    }
}
