//! A frame on a coarse grid: the mean luma of each cell. Of high cells not every row is read.

use crate::frame::SystemImage;

/// Columns and rows of the grid over the source; as in `gpu/motion.cu`.
pub const GRID: (usize, usize) = (64, 36);
/// Cells of the grid, row by row.
pub const CELLS: usize = GRID.0 * GRID.1;
/// Rows of a cell that are read at least, where it has so many: evenly spread, fewer than twice as many.
const ROWS: usize = 8;

/// Reads frames in host memory. One a camera: it remembers its scratch rows.
#[derive(Debug, Default)]
pub struct Look {
    sums: Vec<u16>,
    cells: Vec<u8>,
}

impl Look {
    /// The cells of a frame: [`CELLS`] means, 0..255. Cells of a source smaller than the grid overlap.
    ///
    /// # Panics
    ///
    /// Where the luma plane is smaller than the image says.
    pub fn cells(&mut self, image: &SystemImage) -> &[u8] {
        self.cells.resize(CELLS, 0);
        self.sums.resize(image.width as usize, 0);
        let (sums, cells) = (&mut self.sums, &mut self.cells);
        let work = Work {
            luma: image.planes.plane(0),
            stride: image.strides[0],
            height: image.height as usize,
            sums,
            cells,
        };
        pulp::Arch::new().dispatch(work);
        &self.cells
    }
}

/// Where cell `at` of `count` begins, and where it ends; as in `gpu/motion.cu`.
fn share(at: usize, count: usize, length: usize) -> (usize, usize) {
    let from = at * length / count;
    (from, ((at + 1) * length / count).max(from + 1))
}

/// One frame, as `pulp` wants it: a closure would be compiled apart, for the oldest processor.
struct Work<'a> {
    luma: &'a [u8],
    stride: usize,
    height: usize,
    /// One a column.
    sums: &'a mut [u16],
    cells: &'a mut [u8],
}

impl pulp::WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        let width = self.sums.len();
        for (row, cells) in self.cells.chunks_exact_mut(GRID.0).enumerate() {
            let (top, bottom) = share(row, GRID.1, self.height);
            let rows = (top..bottom).step_by(((bottom - top) / ROWS).max(1));
            let count = rows.len();
            self.sums.fill(0);
            for y in rows {
                // Fewer than 16 rows: the sums fit 16 bits.
                for (sum, luma) in self.sums.iter_mut().zip(&self.luma[y * self.stride..][..width]) {
                    *sum += u16::from(*luma);
                }
            }
            for (column, cell) in cells.iter_mut().enumerate() {
                let (left, right) = share(column, GRID.0, width);
                let (sum, pixels) = (total(&self.sums[left..right]), (count * (right - left)) as u32);
                *cell = ((sum + pixels / 2) / pixels) as u8;
            }
        }
    }
}

#[inline(always)]
fn total(sums: &[u16]) -> u32 {
    sums.iter().map(|sum| u32::from(*sum)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Colour, OwnedPlanes, PixelFormat};

    fn noise(width: u32, height: u32) -> SystemImage {
        let mut rng = fastrand::Rng::with_seed(u64::from(width));
        let stride = width as usize + 5;
        let luma = (0..stride * height as usize).map(|_| rng.u8(..)).collect();
        let colour = Colour { bt709: true, full_range: true };
        let planes = Box::new(OwnedPlanes([luma, Vec::new(), Vec::new()]));
        SystemImage { format: PixelFormat::I420, width, height, strides: [stride, 0, 0], colour, planes }
    }

    #[test]
    fn cells_are_means_of_the_source() {
        let mut look = Look::default();
        for (width, height) in [(1920, 1080), (768, 576), (352, 240), (100, 9), (63, 37), (1, 1)] {
            let image = noise(width, height);
            let cells = look.cells(&image).to_vec();
            for (at, cell) in cells.iter().enumerate() {
                let (left, right) = share(at % GRID.0, GRID.0, width as usize);
                let (top, bottom) = share(at / GRID.0, GRID.1, height as usize);
                let rows = (top..bottom).step_by(((bottom - top) / ROWS).max(1));
                let row = |y: usize| &image.planes.plane(0)[y * image.strides[0]..][left..right];
                let values: Vec<f64> = rows.flat_map(row).map(|luma| f64::from(*luma)).collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                assert!(
                    (f64::from(*cell) - mean).abs() <= 0.5,
                    "cell {at} of {width}x{height}: {cell}, not {mean}"
                );
            }
        }
    }

    #[test]
    fn of_a_high_cell_some_rows_are_read_and_of_a_low_one_all() {
        for height in 1..5000 {
            for row in 0..GRID.1 {
                let (top, bottom) = share(row, GRID.1, height);
                let read = (top..bottom).step_by(((bottom - top) / ROWS).max(1)).len();
                assert!(read >= (bottom - top).min(ROWS) && read < 2 * ROWS, "{read} of {top}..{bottom}");
            }
        }
    }
}
