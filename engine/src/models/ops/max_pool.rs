//! 2x2 max pooling.

use candle_core::{Result, Tensor};

/// The largest of each 2x2 window of `x`, shape (n, c, h, w). Returns (n, c, h/2, w/2); an odd last row or column is
/// left out. The gradient goes to the first largest of each window.
pub fn max_pool2d(x: &Tensor) -> Result<Tensor> {
    x.max_pool2d(2)
}
