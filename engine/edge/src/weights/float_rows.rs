//! Rows of floats.

use super::tensor::{Format, floats};
use crate::bytes::Bytes;
use crate::kernels;

/// A kernel: bytes of weights times inputs.
type Dot = fn(&[u8], &[f32]) -> f32;

/// Float rows where they lie.
#[derive(Debug)]
pub(super) struct FloatRows {
    bytes: Bytes,
    format: Format,
    row_bytes: usize,
    dot: Dot,
}

impl FloatRows {
    /// Rows of `cols` numbers in `format`, whose total length the caller has checked; `None` for formats that are not
    /// floats.
    pub(super) fn new(format: Format, bytes: Bytes, cols: usize) -> Option<Self> {
        let (size, dot): (_, Dot) = match format {
            Format::F32 => (4, kernels::dot_f32),
            Format::F16 => (2, kernels::dot_f16),
            Format::Bf16 => (2, kernels::dot_bf16),
            Format::Int8 | Format::Q8_0 | Format::Q4_0 | Format::Q4K | Format::Tq1_0 | Format::Tq2_0 => return None,
        };
        Some(Self { bytes, format, row_bytes: cols * size, dot })
    }

    fn row_slice(&self, row: usize) -> &[u8] {
        self.bytes.get(row * self.row_bytes..(row + 1) * self.row_bytes).unwrap_or_default()
    }

    /// Row `row`, decoded.
    pub(super) fn row(&self, row: usize) -> Vec<f32> {
        floats(self.format, self.row_slice(row))
    }

    /// Row `row` times `x`.
    pub(super) fn product(&self, row: usize, x: &[f32]) -> f32 {
        (self.dot)(self.row_slice(row), x)
    }
}
