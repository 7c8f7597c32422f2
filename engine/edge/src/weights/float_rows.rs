//! Rows of floats.

use super::tensor::{Format, floats};
use crate::bytes::Bytes;
use crate::kernels::{self, FloatRowsKernel};
use crate::runtime::Panel;

/// Float rows where they lie.
#[derive(Debug)]
pub(super) struct FloatRows {
    bytes: Bytes,
    format: Format,
    row_bytes: usize,
    cols: usize,
    products: FloatRowsKernel,
}

impl FloatRows {
    /// Rows of `cols` numbers in `format`, whose total length the caller has checked; `None` for formats that are not
    /// floats.
    pub(super) fn new(format: Format, bytes: Bytes, cols: usize) -> Option<Self> {
        let kernels = kernels::active();
        let (size, products): (_, FloatRowsKernel) = match format {
            Format::F32 => (4, kernels.f32_rows),
            Format::F16 => (2, kernels.f16_rows),
            Format::Bf16 => (2, kernels.bf16_rows),
            Format::Int8 | Format::Q8_0 | Format::Q4_0 | Format::Q3K | Format::Q4K | Format::Tq1_0 | Format::Tq2_0 => {
                return None;
            }
        };
        Some(Self { bytes, format, row_bytes: cols * size, cols, products })
    }

    fn row_slice(&self, row: usize) -> &[u8] {
        self.bytes.get(row * self.row_bytes..(row + 1) * self.row_bytes).unwrap_or_default()
    }

    /// Row `row`, decoded.
    pub(super) fn row(&self, row: usize) -> Vec<f32> {
        floats(self.format, self.row_slice(row))
    }

    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The products of the rows in `panel` with each of `inputs` (n, cols).
    pub(super) fn fill(&self, inputs: &[f32], panel: &mut Panel<'_>) {
        /// Rows that share an input while it is in the nearest cache.
        const TILE_ROWS: usize = 16;
        let first_row = panel.columns().start;
        for start in (0..panel.columns().len()).step_by(TILE_ROWS) {
            let rows = self.bytes.get((first_row + start) * self.row_bytes..).unwrap_or_default();
            for (n, input) in inputs.chunks_exact(self.cols).enumerate() {
                let outputs = panel.row_mut(n).get_mut(start..).unwrap_or_default();
                let count = outputs.len().min(TILE_ROWS);
                (self.products)(rows, input, &mut outputs[..count]);
            }
        }
    }
}
