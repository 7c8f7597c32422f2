//! 2-D convolution with optional bias and ReLU.

use candle_core::{Result, Tensor};

use super::Epilogue;

/// Geometry and ending of a convolution; dilation and groups are 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Step between windows, in pixels, along both axes.
    pub stride: usize,
    /// Zeros added on each side of both axes.
    pub padding: usize,
    /// Applied to each output.
    pub epilogue: Epilogue,
}

/// Cross-correlates `x`, shape (n, in, h, w), with `weight`, shape (out, in, kh, kw), and adds `bias`, shape (out).
/// Returns (n, out, (h + 2·padding − kh)/stride + 1, (w + 2·padding − kw)/stride + 1).
/// Errors: shapes that do not fit, an empty batch, a type other than f32 or f64.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, config: Conv2dConfig) -> Result<Tensor> {
    composed(x, weight, bias, config)
}

/// The same by candle's own operations.
pub fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, config: Conv2dConfig) -> Result<Tensor> {
    let y = x.conv2d(weight, config.padding, config.stride, 1, 1)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1))?)?,
        None => y,
    };
    match config.epilogue {
        Epilogue::Identity => Ok(y),
        Epilogue::Relu => y.relu(),
    }
}
