//! Batch normalization over (n, h, w) of (n, c, h, w).

use candle_core::{Result, Tensor};

use super::Epilogue;

/// Mean and biased variance per channel, and how many numbers each was taken over.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Shape (channels).
    pub mean: Tensor,
    /// Shape (channels); divided by the count.
    pub var: Tensor,
    /// Numbers per channel: n·h·w.
    pub count: usize,
}

/// Scale, shift and ending of a batch norm.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// Scale, shape (channels).
    pub weight: &'a Tensor,
    /// Shift, shape (channels).
    pub bias: &'a Tensor,
    /// Added to the variance.
    pub eps: f64,
    /// Applied to each output.
    pub epilogue: Epilogue,
}

/// Normalizes `x`, shape (n, c, h, w), by its own moments, through which the gradient flows too.
/// Returns the output and the moments, detached.
pub fn batch_norm(x: &Tensor, affine: Affine<'_>) -> Result<(Tensor, Moments)> {
    let count = x.elem_count() / x.dim(1)?.max(1);
    let mean = x.mean_keepdim((0, 2, 3))?;
    let var = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim((0, 2, 3))?;
    let y = normalize(x, &mean, &var, affine)?;
    let moments = Moments { mean: mean.detach().flatten_all()?, var: var.detach().flatten_all()?, count };
    Ok((y, moments))
}

/// Normalizes `x`, shape (n, c, h, w), by constant moments of shape (c).
pub fn batch_norm_by(x: &Tensor, mean: &Tensor, var: &Tensor, affine: Affine<'_>) -> Result<Tensor> {
    let per_channel = |t: &Tensor| t.detach().reshape((1, (), 1, 1));
    normalize(x, &per_channel(mean)?, &per_channel(var)?, affine)
}

fn normalize(x: &Tensor, mean: &Tensor, var: &Tensor, affine: Affine<'_>) -> Result<Tensor> {
    let per_channel = |t: &Tensor| t.reshape((1, (), 1, 1));
    let scale = per_channel(affine.weight)?.div(&(var + affine.eps)?.sqrt()?)?;
    let y = x.broadcast_sub(mean)?.broadcast_mul(&scale)?.broadcast_add(&per_channel(affine.bias)?)?;
    match affine.epilogue {
        Epilogue::Identity => Ok(y),
        Epilogue::Relu => y.relu(),
    }
}
