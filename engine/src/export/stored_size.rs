//! How much is stored in how many bytes.

use crate::quant::QuantizedWeights;

/// Numbers, and the bytes they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredSize {
    /// Numbers in all tensors.
    pub num_weights: u64,
    /// Bytes of all tensors, scales included, file headers left out.
    pub bytes: u64,
}

impl StoredSize {
    /// Of quantized weights.
    #[must_use]
    pub fn of(weights: &QuantizedWeights) -> Self {
        Self { num_weights: weights.num_weights(), bytes: weights.bytes() }
    }

    /// Bits per number.
    #[must_use]
    pub fn bits_per_weight(self) -> f64 {
        self.bytes as f64 * 8.0 / self.num_weights.max(1) as f64
    }
}
