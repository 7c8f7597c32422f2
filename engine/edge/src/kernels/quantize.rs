//! Inputs of integer kernels.
#![forbid(unsafe_code)]

use super::{Kernels, TripleKernels};
use crate::runtime::Floats;

/// Input rows are this long at least, or a multiple of it, in [`Quantized`]: what the widest kernel reads at once.
pub(super) const ROW_STEP: usize = 64;
/// Inputs in a tile of [`Quantized::tiles`].
pub(super) const TILE_INPUTS: usize = 16;
/// Values of one input in a tile.
pub(super) const TILE_LEN: usize = 64;

/// Float vectors as signed bytes: row i ≈ `values · scales[i]`.
#[derive(Debug, Default)]
pub(crate) struct Quantized {
    /// In -127..=127; rows of `stride`, of which `len` count and the rest is 0.
    values: Vec<i8>,
    len: usize,
    stride: usize,
    /// Per row: max |x| / 127; NaN when the row held NaN or infinity, so that the trouble stays visible.
    pub(crate) scales: Vec<f32>,
    /// Per row: Σ values.
    pub(crate) sums: Vec<i32>,
    /// The same values for matrix units, in tiles of 16 rows and 64 columns: (rows / 16, stride / 64, 16, 16, 4) with
    /// the last three being column / 4, row, column % 4. Empty unless the kernels read them.
    pub(super) tiles: Vec<i8>,
    /// Each row's tables of sums, as bytes. Empty unless [`Quantized::fill_tables`] was called, with few rows.
    tables: Floats,
}

impl Quantized {
    /// Quantizes rows of `len` numbers, each with one scale, its largest magnitude over 127; rounds half to even.
    /// Source: the per-token activation quantization of Ma et al. 2024, arXiv 2402.17764, section 2.
    pub(crate) fn new(x: &[f32], len: usize, kernels: &Kernels) -> Self {
        let rows = x.chunks_exact(len.max(1));
        let num_rows = rows.len();
        let whole = len.next_multiple_of(ROW_STEP);
        // A step more, so that the same column of several rows does not compete for one place in the cache.
        let stride = if num_rows > 1 { whole + ROW_STEP } else { whole };
        let mut quantized = Self {
            values: vec![0; num_rows * stride],
            len,
            stride,
            scales: Vec::new(),
            sums: Vec::new(),
            tiles: Vec::new(),
            tables: Floats::default(),
        };
        for (x, values) in rows.zip(quantized.values.chunks_exact_mut(stride.max(1))) {
            let (scale, sum) = quantize_row(x, values, kernels);
            quantized.scales.push(scale);
            quantized.sums.push(sum);
        }
        if kernels.reads_tiles && num_rows > 1 {
            quantized.fill_tiles();
        }
        quantized
    }

    /// Makes the tables that rows in triples are multiplied with, when there are few inputs; more are multiplied otherwise.
    pub(crate) fn fill_tables(&mut self, kernels: &TripleKernels) {
        if self.num_rows() <= kernels.most_inputs {
            let bytes_each = (kernels.table_bytes)(self.len);
            let mut tables = Floats::zeros(self.num_rows() * bytes_each / size_of::<f32>());
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut tables);
            for (row, tables) in bytes.chunks_exact_mut(bytes_each.max(1)).enumerate() {
                (kernels.fill_tables)(self.row(row), tables);
            }
            self.tables = tables;
        }
    }

    /// The tables for row `row`; `None` where there are none.
    pub(crate) fn tables(&self, row: usize) -> Option<&[u8]> {
        if self.tables.is_empty() {
            return None;
        }
        let tables: &[u8] = bytemuck::cast_slice(&self.tables);
        let bytes_each = tables.len() / self.num_rows();
        tables.get(row * bytes_each..(row + 1) * bytes_each)
    }

    /// Rows.
    pub(crate) fn num_rows(&self) -> usize {
        self.scales.len()
    }

    /// The `len` values of row `row`; empty past the end.
    pub(crate) fn row(&self, row: usize) -> &[i8] {
        let start = row * self.stride;
        self.values.get(start..start + self.len).unwrap_or_default()
    }

    /// Row `row` with the zeros behind it, a multiple of 64 long.
    pub(super) fn padded_row(&self, row: usize) -> &[i8] {
        let start = row * self.stride;
        self.values.get(start..start + self.len.next_multiple_of(ROW_STEP)).unwrap_or_default()
    }

    /// Σ of each 256 values of row `row`.
    pub(crate) fn block_sums(&self, row: usize) -> Vec<i32> {
        self.row(row)
            .chunks(foretrain_ternary::BLOCK_LEN)
            .map(|block| block.iter().map(|&x| i32::from(x)).sum())
            .collect()
    }

    fn fill_tiles(&mut self) {
        let tiles_per_row = self.len.div_ceil(TILE_LEN);
        self.tiles = vec![0; self.num_rows().div_ceil(TILE_INPUTS) * tiles_per_row * TILE_INPUTS * TILE_LEN];
        for (row, values) in self.values.chunks_exact(self.stride.max(1)).enumerate() {
            let first_tile = row / TILE_INPUTS * tiles_per_row;
            let tiles = self.tiles.chunks_exact_mut(TILE_INPUTS * TILE_LEN).skip(first_tile);
            for (values, tile) in values.chunks_exact(TILE_LEN).zip(tiles.take(tiles_per_row)) {
                let quads = tile.as_chunks_mut::<4>().0.iter_mut().skip(row % TILE_INPUTS).step_by(TILE_INPUTS);
                for (quad, values) in quads.zip(values.as_chunks::<4>().0) {
                    *quad = *values;
                }
            }
        }
    }
}

/// Fills the first `x.len()` of `values`; returns scale and sum.
fn quantize_row(x: &[f32], values: &mut [i8], kernels: &Kernels) -> (f32, i32) {
    let largest = (kernels.largest_magnitude)(x);
    if !largest.is_finite() {
        return (f32::NAN, 0);
    }
    let inverse = 127.0 / largest;
    if !inverse.is_finite() {
        // Zero, or so small that it may as well be.
        return (0.0, 0);
    }
    (largest / 127.0, (kernels.round)(x, inverse, values))
}
