//! Second-order error compensation: each column is rounded, and the columns after it make up for its error as far as
//! the layer's inputs let them.
//!
//! Source: Frantar et al. 2022, arXiv 2210.17323, algorithm 1: columns in blocks with lazy updates, columns with large
//! inputs first, scales fixed beforehand. Everything is f64.

use rayon::prelude::*;

use super::factor::inverse_factor;
use super::grid::{Grid, Scales};
use super::statistics::LayerStatistics;
use crate::device::{Cancelled, Watch};
use crate::models::ops::add_product;

/// Columns that are rounded before the rest is updated.
const BLOCK: usize = 128;
/// Share of the mean of the diagonal that is added to it: inputs that never vary leave it singular.
const DAMPING: f64 = 0.01;
/// Dampings tried, each ten times the one before, when even that is not positive.
const MAX_TRIES: i32 = 6;

/// What the layer's outputs say about rounding its weights: the factor of the inverse second moments, with the columns
/// in the order in which they are rounded.
#[derive(Debug)]
pub(super) struct Compensation {
    /// Column to round at each turn.
    order: Vec<usize>,
    /// Upper triangular, (n, n), in that order.
    factor: Vec<f64>,
}

impl Compensation {
    /// From the inputs of a layer. `None` when they are not finite.
    pub fn new(statistics: &LayerStatistics) -> Option<Self> {
        let n = statistics.num_inputs;
        let h = &statistics.second_moments;
        let diagonal: Vec<f64> = (0..n).map(|i| h[i * n + i]).collect();
        let mut order: Vec<usize> = (0..n).collect();
        // Stable, so that equal ones keep one order.
        order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
        let mean = diagonal.iter().sum::<f64>() / n.max(1) as f64;
        // Without any input every rounding is as good.
        let damping = DAMPING * if mean > 0.0 { mean } else { 1.0 };
        for attempt in 0..MAX_TRIES {
            let damping = damping * 10_f64.powi(attempt);
            let mut permuted = vec![0.0; n * n];
            permuted.par_chunks_exact_mut(n.max(1)).enumerate().for_each(|(row, values)| {
                let source = &h[order[row] * n..][..n];
                values.iter_mut().zip(&order).for_each(|(value, &column)| *value = source[column]);
                values[row] += damping;
            });
            if let Some(factor) = inverse_factor(permuted, n) {
                return Some(Self { order, factor });
            }
        }
        None
    }

    /// Codes for `weights`, (rows, n), on a grid at its scales; 0 where `mask` says so.
    pub fn codes(
        &self,
        weights: &[f64],
        (grid, scales): (&Grid, &Scales),
        mask: Option<&[bool]>,
        watch: Watch<'_>,
    ) -> Result<Vec<i8>, Cancelled> {
        let n = self.order.len();
        if n == 0 {
            return Ok(Vec::new());
        }
        let num_rows = weights.len() / n;
        let mut rest = vec![0.0; num_rows * n];
        rest.par_chunks_exact_mut(n).zip(weights.par_chunks_exact(n)).for_each(|(to, from)| {
            to.iter_mut().zip(&self.order).for_each(|(to, &column)| *to = from[column]);
        });
        let mut codes = vec![0_i8; num_rows * n];
        for start in (0..n).step_by(BLOCK) {
            watch.check()?;
            let end = (start + BLOCK).min(n);
            let mut errors = vec![0.0; num_rows * (end - start)];
            let rows = rest.par_chunks_exact_mut(n).zip(codes.par_chunks_exact_mut(n));
            rows.zip(errors.par_chunks_exact_mut(end - start)).enumerate().for_each(
                |(row, ((rest, codes), errors))| {
                    self.round_block(&mut rest[start..end], start, errors, |turn, weight| {
                        let column = self.order[turn];
                        let scale = scales.at(row, column);
                        let is_zero = mask.is_some_and(|mask| mask[row * n + column]);
                        codes[column] = if is_zero { 0 } else { grid.code(weight, scale) };
                        f64::from(codes[column]) * f64::from(scale)
                    });
                },
            );
            if end < n {
                let of_errors = (&errors[..], (end - start, 1));
                let of_factor = (&self.factor[start * n + end..], (n, 1));
                add_product((num_rows, n - end, end - start), (&mut rest[end..], n), -1.0, of_errors, of_factor);
            }
        }
        Ok(codes)
    }

    /// Rounds the columns of a block of one row, passing each error on within it; `errors` are left for the others.
    fn round_block(
        &self,
        weights: &mut [f64],
        start: usize,
        errors: &mut [f64],
        mut rounded: impl FnMut(usize, f64) -> f64,
    ) {
        let n = self.order.len();
        for turn in 0..weights.len() {
            let factor = &self.factor[(start + turn) * n + start..][..weights.len()];
            let weight = weights[turn];
            let error = (weight - rounded(start + turn, weight)) / factor[turn];
            errors[turn] = error;
            let after = turn + 1;
            weights[after..].iter_mut().zip(&factor[after..]).for_each(|(weight, factor)| *weight -= error * factor);
        }
    }
}

/// What each row's outputs lose: Σ over the calibration set of (x · (w - q))², per row of `weights` and `codes`
/// (rows, n).
pub(super) fn output_errors(statistics: &LayerStatistics, weights: &[f64], codes: &[i8], scales: &Scales) -> Vec<f64> {
    let n = statistics.num_inputs.max(1);
    let difference =
        |(at, (weight, code)): (usize, (&f64, &i8))| weight - f64::from(*code) * f64::from(scales.at(at / n, at % n));
    let differences: Vec<f64> = weights.par_iter().zip(codes).enumerate().map(difference).collect();
    output_squares(statistics, &differences)
}

/// Σ over the calibration set of (x · w)², per row of `weights`, (rows, n).
pub(super) fn output_squares(statistics: &LayerStatistics, weights: &[f64]) -> Vec<f64> {
    let n = statistics.num_inputs;
    if n == 0 {
        return Vec::new();
    }
    let mut products = vec![0.0; weights.len()];
    let of_moments = (&statistics.second_moments[..], (n, 1));
    add_product((weights.len() / n, n, n), (&mut products, n), 1.0, (weights, (n, 1)), of_moments);
    let dot = |(a, b): (&[f64], &[f64])| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>().max(0.0);
    weights.par_chunks_exact(n).zip(products.par_chunks_exact(n)).map(dot).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quant::{Storage, TernaryScales};
    use crate::unwatched;

    /// Statistics of `rows`, (any, n).
    fn statistics(rows: &[f64], n: usize) -> LayerStatistics {
        let mut found = LayerStatistics::new(n);
        for row in rows.chunks_exact(n) {
            found.num_rows += 1;
            for (i, a) in row.iter().enumerate() {
                for (j, b) in row.iter().enumerate() {
                    found.second_moments[i * n + j] += a * b;
                }
            }
        }
        found
    }

    /// Rows of inputs that go together, as those of a network do.
    fn correlated(num_rows: usize, n: usize) -> Vec<f64> {
        let x = |row: usize, k: usize| ((row * 31 + k * 17) as f64 * 0.731).sin();
        (0..num_rows * n).map(|at| x(at / n, 1000) + 0.7 * x(at / n, at % n) + 0.3 * x(at / n, at % n / 4)).collect()
    }

    fn wave(len: usize) -> Vec<f64> {
        (0..len).map(|i| ((i * i) as f64 * 0.917).sin()).collect()
    }

    #[test]
    fn outputs_lose_less_than_by_rounding_alone() {
        let n = 160;
        let seen = statistics(&correlated(400, n), n);
        let weights = wave(24 * n);
        for (storage, most) in
            [(Storage::Ternary, 0.7), (Storage::Q8Blocks, 0.7), (Storage::Int8Rows, 0.7), (Storage::Q4Blocks, 0.7)]
        {
            let grid = Grid::new(storage, n, TernaryScales::Row).unwrap();
            let scales = grid.fit(&weights, n, &vec![1.0; n]);
            let total = |codes: &[i8]| output_errors(&seen, &weights, codes, &scales).iter().sum::<f64>();
            let plain = total(&grid.nearest(&weights, n, &scales));
            let compensation = Compensation::new(&seen).unwrap();
            let ours = total(&compensation.codes(&weights, (&grid, &scales), None, unwatched!()).unwrap());
            assert!(ours < most * plain, "{storage:?}: {ours} against {plain}");
        }
    }

    #[test]
    fn output_errors_are_those_of_the_outputs() {
        let (n, num_rows) = (40, 90);
        let x = correlated(num_rows, n);
        let weights = wave(3 * n);
        let found = output_squares(&statistics(&x, n), &weights);
        for (row, found) in found.iter().enumerate() {
            let output = |x: &[f64]| x.iter().zip(&weights[row * n..]).map(|(x, w)| x * w).sum::<f64>();
            let expected: f64 = x.chunks_exact(n).map(|x| output(x).powi(2)).sum();
            assert!((found - expected).abs() < 1e-9 * expected, "{found} {expected}");
        }
    }

    #[test]
    fn weights_on_the_grid_stay() {
        let n = 256;
        let seen = statistics(&correlated(300, n), n);
        let grid = Grid::new(Storage::Int8Rows, n, TernaryScales::Tensor).unwrap();
        let weights: Vec<f64> = (0..2 * n).map(|at| ((at * 7 % 255) as f64 - 127.0) * 0.5).collect();
        let scales = grid.fit(&weights, n, &vec![1.0; n]);
        let codes = Compensation::new(&seen).unwrap().codes(&weights, (&grid, &scales), None, unwatched!()).unwrap();
        assert_eq!(output_errors(&seen, &weights, &codes, &scales), [0.0, 0.0]);
    }

    #[test]
    fn inputs_that_are_always_zero_or_never_vary_break_nothing() {
        let n = 64;
        for rows in [vec![0.0; n], vec![1.0; 8 * n], Vec::new()] {
            let grid = Grid::new(Storage::Q8Blocks, n, TernaryScales::Tensor).unwrap();
            let weights = wave(4 * n);
            let scales = grid.fit(&weights, n, &vec![1.0; n]);
            let compensation = Compensation::new(&statistics(&rows, n)).unwrap();
            let codes = compensation.codes(&weights, (&grid, &scales), None, unwatched!()).unwrap();
            assert!(codes.iter().any(|&code| code != 0));
        }
        let mut bad = LayerStatistics::new(n);
        bad.second_moments[3] = f64::NAN;
        bad.second_moments[n * 3] = f64::NAN;
        assert!(Compensation::new(&bad).is_none());
    }

    #[test]
    fn a_set_flag_ends_it() {
        let cancel = crate::device::CancelFlag::default();
        cancel.set();
        let grid = Grid::new(Storage::Int8Rows, 8, TernaryScales::Tensor).unwrap();
        let weights = wave(8);
        let scales = grid.fit(&weights, 8, &[1.0; 8]);
        let compensation = Compensation::new(&LayerStatistics::new(8)).unwrap();
        assert!(compensation.codes(&weights, (&grid, &scales), None, Watch::new(&cancel, &|_| {})).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// One column at a time from the textbook, without blocks: the same codes.
        #[test]
        fn equals_the_textbook(seed in 0_usize..1000) {
            let n = 150;
            let x: Vec<f64> = correlated(200, n).iter().enumerate().map(|(i, x)| x + ((i + seed) as f64).cos()).collect();
            let seen = statistics(&x, n);
            let weights: Vec<f64> = wave(2 * n + seed)[seed..].to_vec();
            let grid = Grid::new(Storage::Ternary, n, TernaryScales::Row).unwrap();
            let scales = grid.fit(&weights, n, &vec![1.0; n]);
            let compensation = Compensation::new(&seen).unwrap();
            let found = compensation.codes(&weights, (&grid, &scales), None, unwatched!()).unwrap();
            for row in 0..2 {
                let mut w: Vec<f64> = compensation.order.iter().map(|&column| weights[row * n + column]).collect();
                for turn in 0..n {
                    let column = compensation.order[turn];
                    let code = grid.code(w[turn], scales.at(row, column));
                    prop_assert_eq!(code, found[row * n + column]);
                    let factor = &compensation.factor[turn * n..][..n];
                    let error = (w[turn] - f64::from(code) * f64::from(scales.at(row, column))) / factor[turn];
                    for after in turn + 1..n {
                        w[after] -= error * factor[after];
                    }
                }
            }
        }
    }
}
