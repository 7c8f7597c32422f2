//! Mean over all pixels.

use candle_core::{Result, Tensor};

/// The mean of each channel of `x`, shape (n, c, h, w). Returns (n, c).
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    x.mean((2, 3))
}
