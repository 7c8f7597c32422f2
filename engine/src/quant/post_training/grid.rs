//! Codes and scales: which numbers a storage can hold, and which scales suit weights best.

use foretrain_edge::gguf::{Q4_0_BLOCK_LEN, Q8_0_BLOCK_LEN};
use half::f16;
use rayon::prelude::*;

use crate::quant::{Storage, TernaryScales};

/// Scales that are tried per group, from the one that holds the largest weight down.
const NUM_SHRINKS: usize = 24;
/// Each is so much of the largest smaller than the one before.
const SHRINK_STEP: f64 = 0.02;

/// The numbers that a storage can hold: whole codes times the scale of their group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    /// Smallest and largest code.
    codes: (i8, i8),
    /// Weights that share a scale: so many of a row, or all of a tensor.
    group: Group,
    /// Scales are stored in half precision, otherwise in single.
    is_half: bool,
}

/// Weights that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Tensor,
    /// So many neighbors in a row.
    Columns(usize),
}

/// Scales of a matrix, by group.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scales {
    /// Row by row; one for a tensor that has one.
    pub values: Vec<f32>,
    group: Group,
    groups_per_row: usize,
}

impl Scales {
    /// The scale of a weight.
    pub fn at(&self, row: usize, column: usize) -> f32 {
        let index = match self.group {
            Group::Tensor => 0,
            Group::Columns(len) => row * self.groups_per_row + column / len,
        };
        self.values.get(index).copied().unwrap_or_default()
    }
}

impl Grid {
    /// The grid of an integer storage of rows of `row_len`; `None` for floats, for blocks that would straddle rows, and for
    /// Q3_K and Q4_K, whose scales depend on each other.
    pub fn new(storage: Storage, row_len: usize, ternary: TernaryScales) -> Option<Self> {
        let (codes, group, is_half) = match storage {
            Storage::F32 | Storage::F16 | Storage::Bf16 | Storage::Q3KBlocks | Storage::Q4KBlocks => return None,
            Storage::Int8Rows => ((-127, 127), Group::Columns(row_len), false),
            Storage::Q8Blocks => ((-127, 127), Group::Columns(Q8_0_BLOCK_LEN), true),
            // A row that fills no whole blocks is padded with zeros.
            Storage::Q4Blocks => {
                return Some(Self { codes: (-8, 7), group: Group::Columns(Q4_0_BLOCK_LEN), is_half: true });
            }
            // This layout has one scale for the tensor, and a sharper one than half precision, which is not needed.
            Storage::BitnetRows => ((-1, 1), Group::Tensor, true),
            Storage::Ternary | Storage::TernaryBase3 => {
                let group = match ternary {
                    TernaryScales::Tensor => Group::Tensor,
                    TernaryScales::Row => Group::Columns(row_len),
                    TernaryScales::Block => Group::Columns(foretrain_ternary::BLOCK_LEN),
                };
                ((-1, 1), group, true)
            }
        };
        let fits = match group {
            Group::Tensor => true,
            Group::Columns(len) => len > 0 && row_len.is_multiple_of(len),
        };
        fits.then_some(Self { codes, group, is_half })
    }

    /// The code of `weight` at `scale`.
    pub fn code(&self, weight: f64, scale: f32) -> i8 {
        let (low, high) = self.codes;
        // A scale of 0 is that of zeros, or of numbers too small for a scale.
        if scale == 0.0 { 0 } else { (weight / f64::from(scale)).round().clamp(f64::from(low), f64::from(high)) as i8 }
    }

    /// The nearest codes to `weights`, (rows, row_len).
    pub fn nearest(&self, weights: &[f64], row_len: usize, scales: &Scales) -> Vec<i8> {
        let coded = |(at, &weight): (usize, &f64)| self.code(weight, scales.at(at / row_len, at % row_len));
        weights.par_iter().enumerate().map(coded).collect()
    }

    /// Scales for `weights`, (rows, row_len), with the least error found, each column's error weighted by
    /// `importance`, (row_len): the second moment of what it multiplies.
    pub fn fit(&self, weights: &[f64], row_len: usize, importance: &[f64]) -> Scales {
        let row_len = row_len.max(1);
        let values = match self.group {
            Group::Tensor => {
                let importance: Vec<f64> = importance.iter().copied().cycle().take(weights.len()).collect();
                vec![self.best_scale(weights, &importance)]
            }
            Group::Columns(len) => weights
                .par_chunks(row_len)
                .flat_map_iter(|row| {
                    let groups = row.chunks(len).zip(importance.chunks(len));
                    groups.map(|(weights, importance)| self.best_scale(weights, importance))
                })
                .collect(),
        };
        let groups_per_row = match self.group {
            Group::Tensor => 0,
            Group::Columns(len) => row_len.div_ceil(len),
        };
        Scales { values, group: self.group, groups_per_row }
    }

    /// Tries scales, and for each the one that is best for the codes it gives.
    fn best_scale(&self, weights: &[f64], importance: &[f64]) -> f32 {
        let mut best = (f64::INFINITY, 0.0);
        for scale in self.candidates(weights) {
            let scale = self.stored(scale);
            for scale in [scale, self.stored(self.refit(weights, importance, scale))] {
                let error = self.error(weights, importance, scale);
                if error < best.0 {
                    best = (error, scale);
                }
            }
        }
        best.1
    }

    fn candidates(&self, weights: &[f64]) -> Vec<f64> {
        let (low, high) = (f64::from(self.codes.0), f64::from(self.codes.1));
        let largest = weights.iter().fold(0.0_f64, |most, w| if w.abs() > most.abs() { *w } else { most });
        if high <= 1.0 {
            // Of trits, the useful scales are around the mean magnitude, not the largest.
            let mean = weights.iter().map(|w| w.abs()).sum::<f64>() / weights.len().max(1) as f64;
            return (0..NUM_SHRINKS).map(|number| mean * (0.5 + 0.1 * number as f64)).collect();
        }
        let shrinks = (0..NUM_SHRINKS).map(|number| 1.0 - SHRINK_STEP * number as f64);
        let symmetric = shrinks.clone().map(|shrink| shrink * largest.abs() / high);
        // Codes reach farther down than up: a scale with the opposite sign of the largest uses that.
        let reaching = shrinks.filter(|_| -low > high).map(|shrink| shrink * largest / low);
        symmetric.chain(reaching).collect()
    }

    /// The scale with the least error for the codes that `scale` gives.
    fn refit(&self, weights: &[f64], importance: &[f64], scale: f32) -> f64 {
        let (mut product, mut square) = (0.0, 0.0);
        for (&weight, &importance) in weights.iter().zip(importance) {
            let code = f64::from(self.code(weight, scale));
            product += importance * weight * code;
            square += importance * code * code;
        }
        if square > 0.0 { product / square } else { f64::from(scale) }
    }

    fn error(&self, weights: &[f64], importance: &[f64], scale: f32) -> f64 {
        let square = |(&weight, &importance): (&f64, &f64)| {
            let error = weight - f64::from(self.code(weight, scale)) * f64::from(scale);
            importance * error * error
        };
        weights.iter().zip(importance).map(square).sum()
    }

    /// A scale as it is stored, within range.
    fn stored(&self, scale: f64) -> f32 {
        let scale = if self.codes.1 <= 1 { scale.abs() } else { scale } as f32;
        if self.is_half { f16::from_f32(scale.clamp(-65504.0, 65504.0)).to_f32() } else { scale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grids(row_len: usize) -> Vec<Grid> {
        let ternary = [TernaryScales::Tensor, TernaryScales::Row, TernaryScales::Block];
        let ternary = ternary.into_iter().filter_map(|scales| Grid::new(Storage::Ternary, row_len, scales));
        let others = [Storage::Int8Rows, Storage::Q8Blocks, Storage::Q4Blocks];
        let others = others.into_iter().filter_map(|storage| Grid::new(storage, row_len, TernaryScales::Tensor));
        ternary.chain(others).collect()
    }

    #[test]
    fn floats_have_no_grid_and_blocks_do_not_straddle_rows() {
        assert_eq!(Grid::new(Storage::F16, 256, TernaryScales::Tensor), None);
        assert_eq!(Grid::new(Storage::Q8Blocks, 33, TernaryScales::Tensor), None);
        assert_eq!(Grid::new(Storage::Ternary, 128, TernaryScales::Block), None);
        assert_eq!(grids(256).len(), 6);
        assert!(Grid::new(Storage::Q4Blocks, 33, TernaryScales::Tensor).is_some());
    }

    #[test]
    fn what_a_grid_holds_comes_back_exactly() {
        for grid in grids(256) {
            // Two rows whose blocks each reach the lowest code; where rows may differ, two scales.
            let scale_of = |row: usize| if grid.group == Group::Tensor || row == 0 { 0.25 } else { 0.5 };
            let span = i32::from(grid.codes.1) - i32::from(grid.codes.0) + 1;
            let code = |at: usize| f64::from((at as i32 % 32 * 5) % span + i32::from(grid.codes.0));
            let weights: Vec<f64> = (0..512).map(|at| code(at % 256) * scale_of(at / 256)).collect();
            let scales = grid.fit(&weights, 256, &[1.0; 256]);
            let codes = grid.nearest(&weights, 256, &scales);
            for (at, (&weight, &code)) in weights.iter().zip(&codes).enumerate() {
                assert_eq!(f64::from(code) * f64::from(scales.at(at / 256, at % 256)), weight, "{grid:?} {at}");
            }
        }
    }

    #[test]
    fn zeros_have_scale_zero() {
        for grid in grids(256) {
            let scales = grid.fit(&[0.0; 256], 256, &[1.0; 256]);
            assert!(grid.nearest(&[0.0; 256], 256, &scales).iter().all(|&code| code == 0));
        }
    }

    proptest! {
        #[test]
        fn a_fitted_scale_is_no_worse_than_the_largest_weights(values in prop::collection::vec(-2.0_f64..2.0, 256)) {
            for grid in grids(256) {
                let largest = values.iter().fold(0.0_f64, |most, w| most.max(w.abs()));
                let plain = grid.stored(largest / f64::from(grid.codes.1));
                let error = |scale| grid.error(&values, &[1.0; 256], scale);
                prop_assert!(error(grid.best_scale(&values, &[1.0; 256])) <= error(plain) + 1e-12);
            }
        }
    }
}
