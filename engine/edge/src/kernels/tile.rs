//! Weight rows unpacked to one byte each, for products with many inputs at once.
#![forbid(unsafe_code)]

use foretrain_ternary::{BLOCK_BYTES, BLOCK_LEN, GROUP_LEN};

use super::quantize::ROW_STEP;
use super::{Quantized, ScaledRowsKernel, TernaryRows};
use crate::runtime::Runs;

/// Rows unpacked at once: they stay in the second-level cache while all inputs pass by.
pub(crate) const PANEL_ROWS: usize = 32;

/// Rows of unsigned codes; a weight is `code - offset`, so that its sum is Σ code·x - offset · Σ x.
#[derive(Debug, Default)]
pub(crate) struct CodeRows {
    codes: Vec<u8>,
    num_rows: usize,
    stride: usize,
    /// A bound on the codes.
    pub(super) largest: u8,
}

impl CodeRows {
    /// Makes room for `num_rows` rows (at most [`PANEL_ROWS`]) of `len` codes up to `largest`; zeros behind each row.
    /// Rows from before keep their content: fill all of them.
    pub(crate) fn resize(&mut self, num_rows: usize, len: usize, largest: u8) {
        // A step more than needed, so that the same column of several rows does not compete for one place in the cache.
        let stride = len.next_multiple_of(ROW_STEP) + ROW_STEP;
        if stride != self.stride {
            self.codes.clear();
        }
        self.codes.resize(PANEL_ROWS * stride, 0);
        (self.num_rows, self.stride, self.largest) = (num_rows.min(PANEL_ROWS), stride, largest);
        for row in self.codes.chunks_exact_mut(stride) {
            if let Some(behind) = row.get_mut(len..) {
                behind.fill(0);
            }
        }
    }

    /// Rows in use.
    pub(crate) fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// From one row to the next, in bytes; room for [`PANEL_ROWS`] rows is there. Matrix units read all of them.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// All rows, those not in use included.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub(super) fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// The codes of row `row` and what is behind them; empty past the end.
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [u8] {
        self.codes.get_mut(row * self.stride..(row + 1) * self.stride).unwrap_or_default()
    }

    /// Puts `N` codes into row `row`, from column `start` on; none where they don't fit with what is behind the row.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn put<const N: usize>(&mut self, row: usize, start: usize, codes: [u8; N]) {
        if start + N <= self.stride
            && let Some(place) = self.codes.get_mut(row * self.stride + start..)
            && let Some(place) = place.first_chunk_mut()
        {
            *place = codes;
        }
    }

    /// The codes of row `row`.
    pub(super) fn row(&self, row: usize) -> &[u8] {
        self.codes.get(row * self.stride..(row + 1) * self.stride).unwrap_or_default()
    }
}

/// Products of all rows of `codes` with all of `x` into `out` (inputs, rows), by `tile` for `R` rows and `T` inputs at
/// once and `single` for what is left. Both are given the address of their first row, from which all their rows, `stride`
/// bytes apart, are readable to the length of the inputs, a multiple of 64.
pub(super) fn multiply_in_tiles<const R: usize, const T: usize>(
    codes: &CodeRows,
    x: &Quantized,
    out: &mut [i32],
    tile: impl Fn(*const u8, usize, [&[i8]; T]) -> [[i32; T]; R],
    single: impl Fn(*const u8, usize, &[i8]) -> i32,
) {
    let (num_rows, num_inputs) = (codes.num_rows(), x.num_rows());
    let is_fitting = x.padded_row(0).len() <= codes.stride && num_inputs > 0 && out.len() >= num_rows * num_inputs;
    if !is_fitting {
        return;
    }
    let address = |row: usize| codes.codes[row * codes.stride..].as_ptr();
    for first in (0..num_inputs).step_by(T) {
        let inputs = T.min(num_inputs - first);
        let xs: [&[i8]; T] = std::array::from_fn(|t| x.padded_row(first + t.min(inputs - 1)));
        let mut row = 0;
        while row < num_rows {
            // A tile that is not full repeats its last input: no slower than the loop for single ones from two on.
            if row + R <= num_rows && inputs > 1 {
                for (r, sums) in tile(address(row), codes.stride, xs).iter().enumerate() {
                    for (t, sum) in sums.iter().take(inputs).enumerate() {
                        out[(first + t) * num_rows + row + r] = *sum;
                    }
                }
                row += R;
            } else {
                for (t, x) in xs.iter().take(inputs).enumerate() {
                    out[(first + t) * num_rows + row] = single(address(row), codes.stride, x);
                }
                row += 1;
            }
        }
    }
}

/// The scales of each Q8_0 block in all `R` of `rows`.
#[cfg(any(target_arch = "aarch64", all(target_arch = "x86_64", target_os = "linux")))]
pub(super) fn scales_of_rows<const R: usize>(rows: &[u8], row_bytes: usize, scales: &mut [[f32; R]]) {
    for (r, row) in rows.chunks_exact(row_bytes.max(1)).take(R).enumerate() {
        for (scales, block) in scales.iter_mut().zip(row.as_chunks::<{ crate::gguf::Q8_0_BLOCK_BYTES }>().0) {
            scales[r] = half::f16::from_le_bytes([block[0], block[1]]).to_f32();
        }
    }
}

/// The products of the rows from `first` on, whose blocks are `blocks`, with each of `x` by itself into `out` (inputs, rows).
pub(super) fn rows_left_over(blocks: &[u8], x: &Quantized, out: &mut [f32], first: usize, one: ScaledRowsKernel) {
    let num_rows = out.len() / x.num_rows().max(1);
    if first < num_rows {
        for (input, out) in out.chunks_exact_mut(num_rows).enumerate() {
            one(blocks, Runs::ONE, x.row(input), &mut out[first..]);
        }
    }
}

/// The bytes of `num_rows` rows of `len` codes, and of what lies between their `runs`, when they are whole blocks; `None`
/// when they start within one or are not all there.
pub(super) fn whole_blocks(rows: TernaryRows<'_>, runs: Runs, len: usize, num_rows: usize) -> Option<&[u8]> {
    let is_whole = rows.first_group.is_multiple_of(BLOCK_LEN / GROUP_LEN) && len.is_multiple_of(BLOCK_LEN);
    let start = (rows.first_group / 2).checked_mul(BLOCK_BYTES)?;
    let end = start.checked_add(runs.span(num_rows)?.checked_mul(len / BLOCK_LEN * BLOCK_BYTES)?)?;
    rows.blocks.get(start..end).filter(|_| is_whole)
}
