//! Rows of floats.

use std::cell::RefCell;

use super::tensor::{Format, floats};
use crate::bytes::Bytes;
use crate::kernels::{self, FloatRowsKernel};
use crate::runtime::{Panel, Runs};

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

    /// All rows.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
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
        if panel.runs().num > 1 {
            let rows = self.bytes.get(first_row * self.row_bytes..).unwrap_or_default();
            PRODUCTS.with_borrow_mut(|products| {
                for (n, input) in inputs.chunks_exact(self.cols).enumerate() {
                    products.resize(panel.len(), 0.0);
                    (self.products)(rows, panel.runs(), input, products);
                    for (run, products) in products.chunks_exact(panel.columns().len().max(1)).enumerate() {
                        panel.run_mut(n, run).copy_from_slice(products);
                    }
                }
            });
            return;
        }
        for start in (0..panel.columns().len()).step_by(TILE_ROWS) {
            let rows = self.bytes.get((first_row + start) * self.row_bytes..).unwrap_or_default();
            for (n, input) in inputs.chunks_exact(self.cols).enumerate() {
                let outputs = panel.row_mut(n).get_mut(start..).unwrap_or_default();
                let count = outputs.len().min(TILE_ROWS);
                (self.products)(rows, Runs::ONE, input, &mut outputs[..count]);
            }
        }
    }
}

thread_local! {
    /// Products of rows in several runs, on their way to their columns.
    static PRODUCTS: RefCell<Vec<f32>> = RefCell::default();
}
