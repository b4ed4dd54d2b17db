//! Which detection goes to which track: the pairs whose gains have the greatest sum, nobody in two pairs.

use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;

/// Gains are summed as whole numbers: sums of `f32` would depend on their order.
const STEPS: f32 = 1e6;

/// A pair that may be.
#[derive(Clone, Copy, Debug)]
struct Pair {
    row: usize,
    column: usize,
    gain: i64,
}

/// Solves assignments; keeps its memory from one to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Assigner {
    pairs: Vec<Pair>,
    /// How many pairs a row, and a column, is in.
    of_row: Vec<u32>,
    of_column: Vec<u32>,
    /// Rows and columns over which pairs compete.
    rows: Vec<usize>,
    columns: Vec<usize>,
    chosen: Vec<(usize, usize)>,
}

impl Assigner {
    /// The best assignment of `rows` to `columns` as (row, column), in no order. `gain` is 0..=1; a pair with 0 is
    /// never chosen. A row may stay alone, and so may a column.
    ///
    /// Pairs that compete with no other are taken at once: most frames have no others. What is left is solved by
    /// Kuhn and Munkres' algorithm, O(n³).
    pub(super) fn solve(
        &mut self,
        rows: usize,
        columns: usize,
        gain: impl FnMut(usize, usize) -> f32,
    ) -> &[(usize, usize)] {
        self.collect(rows, columns, gain);
        self.chosen.clear();
        self.rows.clear();
        self.columns.clear();
        for pair in &self.pairs {
            if self.of_row[pair.row] == 1 && self.of_column[pair.column] == 1 {
                self.chosen.push((pair.row, pair.column));
            } else {
                self.rows.push(pair.row);
                self.columns.push(pair.column);
            }
        }
        if !self.rows.is_empty() {
            self.contest();
        }
        &self.chosen
    }

    fn collect(&mut self, rows: usize, columns: usize, mut gain: impl FnMut(usize, usize) -> f32) {
        self.pairs.clear();
        self.of_row.clear();
        self.of_row.resize(rows, 0);
        self.of_column.clear();
        self.of_column.resize(columns, 0);
        for row in 0..rows {
            for column in 0..columns {
                // A NaN becomes 0.
                let gain = (gain(row, column) * STEPS) as i64;
                if gain > 0 {
                    self.pairs.push(Pair { row, column, gain });
                    self.of_row[row] += 1;
                    self.of_column[column] += 1;
                }
            }
        }
    }

    fn contest(&mut self) {
        for side in [&mut self.rows, &mut self.columns] {
            side.sort_unstable();
            side.dedup();
        }
        // The algorithm gives every row a column: there must be as many, and gains of 0 stand for "none".
        let turned = self.rows.len() > self.columns.len();
        let (few, many) = if turned { (&self.columns, &self.rows) } else { (&self.rows, &self.columns) };
        let mut gains = Matrix::new(few.len(), many.len(), 0i64);
        for pair in &self.pairs {
            let (a, b) = if turned { (pair.column, pair.row) } else { (pair.row, pair.column) };
            if let (Ok(a), Ok(b)) = (few.binary_search(&a), many.binary_search(&b)) {
                gains[(a, b)] = pair.gain;
            }
        }
        let (_, best) = kuhn_munkres(&gains);
        let pairs = best.into_iter().enumerate().filter(|pair| gains[*pair] > 0);
        let named = pairs.map(|(a, b)| if turned { (many[b], few[a]) } else { (few[a], many[b]) });
        self.chosen.extend(named);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn solve(gains: &[&[f32]]) -> Vec<(usize, usize)> {
        let mut assigner = Assigner::default();
        let columns = gains.first().map_or(0, |row| row.len());
        let mut pairs = assigner.solve(gains.len(), columns, |row, column| gains[row][column]).to_vec();
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn the_greatest_sum_wins_and_not_the_greatest_pair() {
        assert_eq!(solve(&[&[0.9, 0.8], &[0.8, 0.1]]), [(0, 1), (1, 0)]);
    }

    #[test]
    fn a_pair_without_gain_is_never_chosen() {
        assert_eq!(solve(&[]), []);
        assert_eq!(solve(&[&[0.0, f32::NAN]]), []);
        assert_eq!(solve(&[&[0.5, 0.0], &[0.4, 0.0]]), [(0, 0)]);
    }

    #[test]
    fn more_rows_than_columns_and_more_columns_than_rows() {
        assert_eq!(solve(&[&[0.3], &[0.7], &[0.5]]), [(1, 0)]);
        assert_eq!(solve(&[&[0.3, 0.7, 0.5]]), [(0, 1)]);
        assert_eq!(solve(&[&[0.5, 0.4, 0.0], &[0.5, 0.0, 0.0], &[0.0, 0.0, 0.2]]), [(0, 1), (1, 0), (2, 2)]);
    }

    #[test]
    fn as_good_as_trying_every_order() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let gains: Vec<Vec<f32>> =
                (0..4).map(|_| (0..4).map(|_| if random.bool() { random.f32() } else { 0.0 }).collect()).collect();
            let rows: Vec<&[f32]> = gains.iter().map(Vec::as_slice).collect();
            let sum: f32 = solve(&rows).iter().map(|(row, column)| gains[*row][*column]).sum();
            assert!((sum - best(&rows, &mut [false; 4])).abs() < 1e-4, "{gains:?}");
        }
    }

    fn best(rows: &[&[f32]], taken: &mut [bool; 4]) -> f32 {
        let Some((row, rest)) = rows.split_first() else { return 0.0 };
        let mut found = best(rest, taken);
        for column in 0..4 {
            if !taken[column] {
                taken[column] = true;
                found = found.max(row[column] + best(rest, taken));
                taken[column] = false;
            }
        }
        found
    }
}
