//! Batch norm alone.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::channels::{Channels, PlaneMoments};
use crate::Epilogue;
use crate::buffers::{Reading, rows_per_task, unwritten};
use crate::function::record;
use crate::kernels::has_kernels;
use crate::profile::{self, Kind};
use crate::real::Real;
use rayon::prelude::*;

const NAME: &str = "batch_norm";

/// Mean and biased variance per channel, and how many numbers each was taken over.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Shape (channels), detached.
    pub mean: Tensor,
    /// Shape (channels), detached; divided by the count.
    pub var: Tensor,
    /// Numbers per channel: n·h·w.
    pub count: usize,
}

/// What a batch norm normalizes by.
#[derive(Debug, Clone, Copy)]
pub enum Statistics<'a> {
    /// The moments of the batch, through which the gradient flows too.
    Batch,
    /// Constants of shape (channels).
    Given {
        /// Mean.
        mean: &'a Tensor,
        /// Biased variance.
        var: &'a Tensor,
    },
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

/// Normalizes `x`, shape (n, c, h, w), f32 or f64. Returns the output and, when they were taken from the batch, the
/// moments. Differentiable in x, weight and bias. Errors: shapes that do not fit, an empty batch, another type.
pub fn batch_norm(x: &Tensor, statistics: Statistics<'_>, affine: Affine<'_>) -> Result<(Tensor, Option<Moments>)> {
    let (n, c, h, w) = x.dims4()?;
    if x.elem_count() == 0 {
        bail!("{NAME}: expected a tensor that is not empty, found {:?}", x.dims());
    }
    if affine.weight.dims() != [c] || affine.bias.dims() != [c] {
        let (weight, bias) = (affine.weight.dims(), affine.bias.dims());
        bail!("{NAME}: expected weight and bias ({c}), found {weight:?} and {bias:?}");
    }
    if !has_kernels(x.device()) {
        return composed(x, statistics, affine);
    }
    let x = x.contiguous()?;
    match x.dtype() {
        DType::F32 => typed::<f32>(&x, (n, c, h, w), statistics, affine),
        DType::F64 => typed::<f64>(&x, (n, c, h, w), statistics, affine),
        other => bail!("{NAME}: expected f32 or f64, found {}", other.as_str()),
    }
}

/// The same by candle's own operations, for other devices and to compare with.
pub fn composed(x: &Tensor, statistics: Statistics<'_>, affine: Affine<'_>) -> Result<(Tensor, Option<Moments>)> {
    let per_channel = |t: &Tensor| t.reshape((1, (), 1, 1));
    let (mean, var, moments) = match statistics {
        Statistics::Batch => {
            let count = x.elem_count() / x.dim(1)?.max(1);
            let mean = x.mean_keepdim((0, 2, 3))?;
            let var = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim((0, 2, 3))?;
            let flat = |t: &Tensor| t.detach().flatten_all();
            let moments = Moments { mean: flat(&mean)?, var: flat(&var)?, count };
            (mean, var, Some(moments))
        }
        Statistics::Given { mean, var } => (per_channel(&mean.detach())?, per_channel(&var.detach())?, None),
    };
    let scale = per_channel(affine.weight)?.div(&(var + affine.eps)?.sqrt()?)?;
    let y = x.broadcast_sub(&mean)?.broadcast_mul(&scale)?.broadcast_add(&per_channel(affine.bias)?)?;
    let y = match affine.epilogue {
        Epilogue::Identity => y,
        Epilogue::Relu => y.relu()?,
    };
    Ok((y, moments))
}

fn typed<T: Real>(
    x: &Tensor,
    (n, c, h, w): (usize, usize, usize, usize),
    statistics: Statistics<'_>,
    affine: Affine<'_>,
) -> Result<(Tensor, Option<Moments>)> {
    let (weight, bias) = (affine.weight.contiguous()?, affine.bias.contiguous()?);
    let (channels, y) = {
        let (x, weight, bias) = (Reading::of(x), Reading::of(&weight), Reading::of(&bias));
        let x = x.slice::<T>(NAME)?;
        let moments = PlaneMoments::of_all(x, h * w, statistics);
        let channels = Channels::of(&moments, c, h * w, statistics, affine.eps)?;
        let y = channels.normalize(x, (weight.slice(NAME)?, bias.slice(NAME)?), None, affine.epilogue);
        (channels, y)
    };
    let moments = channels.moments::<T>()?;
    let (saved_x, saved_weight, epilogue) = (x.clone(), weight.clone(), affine.epilogue);
    let y = record(&[x, &weight, &bias], y, (n, c, h, w), move |y, gradient| {
        let dims = saved_x.shape();
        let (x, weight, y) = (Reading::of(&saved_x), Reading::of(&saved_weight), Reading::of(y));
        let (x, weight, y) = (x.slice::<T>(NAME)?, weight.slice::<T>(NAME)?, y.slice::<T>(NAME)?);
        let mut g = unwritten::<T>(x.len());
        let gradient = Reading::of(gradient);
        let mask = (epilogue == Epilogue::Relu).then_some(y);
        let sums = channels.gradient_sums(&mut g, Some(gradient.slice(NAME)?), mask, x);
        let (dw, db) = channels.affine_gradients::<T>(&sums);
        let mut dx = unwritten::<T>(x.len());
        let images = c * h * w * rows_per_task(c * h * w);
        let parts = dx.par_chunks_mut(images).zip(g.par_chunks(images).zip(x.par_chunks(images)));
        parts.for_each(|(dx, (g, x))| {
            let _timing = profile::time(Kind::Norm);
            channels.input_gradient(dx, g, x, weight, &sums);
        });
        let vector = |values: Vec<T>| Tensor::from_vec(values, c, &Device::Cpu).map(Some);
        Ok(vec![Some(Tensor::from_vec(dx, dims, &Device::Cpu)?), vector(dw)?, vector(db)?])
    })?;
    Ok((y, moments))
}
