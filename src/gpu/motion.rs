//! The motion gate's look at a frame: mean luma on a coarse grid, and how far two looks differ.

use super::error::GpuError;
use super::kernels::{Kernels, Launch};
use super::letterbox::LaneEntry;
use super::memory::DeviceBuffer;
use super::stream::Stream;

/// Columns and rows of the grid over the source; as in `motion.cu`.
pub const GRID: (usize, usize) = (64, 36);
/// Cells of the grid.
pub const CELLS: usize = GRID.0 * GRID.1;
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

/// Mean absolute difference of two looks at a camera, in grey levels.
pub fn difference(cells: &[u8], reference: &[u8]) -> f32 {
    let sum: u32 = cells.iter().zip(reference).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
    sum as f32 / cells.len().min(reference.len()).max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_is_the_mean_of_the_cells() {
        assert_eq!(difference(&[10, 20, 30, 40], &[12, 18, 30, 0]), 11.0);
        assert_eq!(difference(&[], &[]), 0.0);
    }
}
