//! Rows of blocks whose groups have scales of their own (Q3_K, Q4_K): kept as they lie in the file, unpacked to floats
//! when they are multiplied, and multiplied with inputs as they are.

use std::cell::RefCell;

use super::tensor::Format;
use crate::bytes::Bytes;
use crate::gguf::{Q3_K_BLOCK_BYTES, Q3_K_BLOCK_LEN, Q4_K_BLOCK_BYTES, Q4_K_BLOCK_LEN};
use crate::kernels::{self, UnpackFloatsKernel};
use crate::runtime::{Panel, Runs};

/// Floats that are unpacked at once with one input: they stay in the nearest cache, on their way to one product each.
const TILE_FLOATS: usize = 1 << 12;
/// Rows that are unpacked at once with several inputs.
const TILE_ROWS: usize = 16;

/// Rows of whole blocks where they lie.
#[derive(Debug)]
pub(super) struct PackedFloats {
    blocks: Bytes,
    row_bytes: usize,
    cols: usize,
    unpack: UnpackFloatsKernel,
}

impl PackedFloats {
    /// Rows of `cols` numbers in `format`, whose total length the caller has checked; `None` for formats that are not
    /// unpacked so.
    pub(super) fn new(format: Format, blocks: Bytes, cols: usize) -> Option<Self> {
        let kernels = kernels::active();
        let (block_len, block_bytes, unpack) = match format {
            Format::Q3K => (Q3_K_BLOCK_LEN, Q3_K_BLOCK_BYTES, kernels.q3_k_floats),
            Format::Q4K => (Q4_K_BLOCK_LEN, Q4_K_BLOCK_BYTES, kernels.q4_k_floats),
            Format::F32
            | Format::F16
            | Format::Bf16
            | Format::Int8
            | Format::Q8_0
            | Format::Q4_0
            | Format::Tq1_0
            | Format::Tq2_0 => return None,
        };
        Some(Self { blocks, row_bytes: cols / block_len * block_bytes, cols, unpack })
    }

    /// Row `row`, unpacked.
    pub(super) fn row(&self, row: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.cols];
        (self.unpack)(self.rows(row, 1), &mut values);
        values
    }

    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// All rows.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.blocks
    }

    fn rows(&self, first: usize, count: usize) -> &[u8] {
        self.blocks.get(first * self.row_bytes..(first + count) * self.row_bytes).unwrap_or_default()
    }

    /// The products of the rows in `panel` with each of `inputs` (n, cols).
    pub(super) fn fill(&self, inputs: &[f32], panel: &mut Panel<'_>) {
        let products = kernels::active().f32_rows;
        let columns = panel.columns();
        let is_one = inputs.len() <= self.cols;
        let tile_rows = if is_one { (TILE_FLOATS / self.cols.max(1)).max(1) } else { TILE_ROWS };
        UNPACKED.with_borrow_mut(|unpacked| {
            for start in (0..columns.len()).step_by(tile_rows) {
                let count = tile_rows.min(columns.len() - start);
                unpacked.resize(count * self.cols, 0.0);
                (self.unpack)(self.rows(columns.start + start, count), unpacked);
                for (n, input) in inputs.chunks_exact(self.cols).enumerate() {
                    if let Some(outputs) = panel.row_mut(n).get_mut(start..start + count) {
                        products(bytemuck::cast_slice(unpacked), Runs::ONE, input, outputs);
                    }
                }
            }
        });
    }
}

thread_local! {
    /// Working memory of products: it stays in this thread's cache.
    static UNPACKED: RefCell<Vec<f32>> = RefCell::default();
}
