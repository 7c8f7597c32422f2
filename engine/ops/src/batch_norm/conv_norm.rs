//! A convolution without bias, then batch norm, as one function.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::channels::{Channels, GradientSums, PlaneMoments};
use super::op::{Affine, Moments, Statistics, composed};
use crate::Epilogue;
use crate::buffers::{Reading, unwritten};
use crate::conv2d::{self, Conv2dConfig, InputGradient, Sizes, Wanted, finish_plane, forward, gradients};
use crate::function::record;
use crate::kernels::has_kernels;
use crate::lanes::Vectors;
use crate::profile::{self, Kind};

const NAME: &str = "conv_norm";

/// Weights and geometry of a convolution and its batch norm.
#[derive(Debug, Clone, Copy)]
pub struct ConvNorm<'a> {
    /// (out, in, kh, kw)
    pub weight: &'a Tensor,
    /// Scale of the norm, (out).
    pub scale: &'a Tensor,
    /// Shift of the norm, (out).
    pub shift: &'a Tensor,
    /// Step between windows.
    pub stride: usize,
    /// Zeros on each side.
    pub padding: usize,
    /// Added to the variance.
    pub eps: f64,
    /// What to normalize by.
    pub statistics: Statistics<'a>,
}

impl ConvNorm<'_> {
    pub(super) fn sizes(&self, x: &[usize]) -> Result<Sizes> {
        let sizes = Sizes::new(x, self.weight.dims(), self.stride, self.padding)?;
        if self.scale.dims() != [sizes.out_channels] || self.shift.dims() != [sizes.out_channels] {
            let (scale, shift) = (self.scale.dims(), self.shift.dims());
            bail!("{NAME}: expected scale and shift ({}), found {scale:?} and {shift:?}", sizes.out_channels);
        }
        Ok(sizes)
    }

    pub(super) fn composed(&self, x: &Tensor, epilogue: Epilogue) -> Result<(Tensor, Option<Moments>)> {
        let config = Conv2dConfig { stride: self.stride, padding: self.padding, epilogue: Epilogue::Identity };
        let affine = Affine { weight: self.scale, bias: self.shift, eps: self.eps, epilogue };
        composed(&conv2d::composed(x, self.weight, None, config)?, self.statistics, affine)
    }
}

/// Convolves `x`, (n, in, h, w), normalizes and applies the epilogue; returns (n, out, oh, ow) and, when they were
/// taken from the batch, the moments. Differentiable in x, weight, scale and shift; f32 or f64.
/// Errors: shapes that do not fit, an empty batch, another type.
pub fn conv_norm(x: &Tensor, layer: ConvNorm<'_>, epilogue: Epilogue) -> Result<(Tensor, Option<Moments>)> {
    let sizes = layer.sizes(x.dims())?;
    if !has_kernels(x.device()) || !sizes.is_supported() {
        return layer.composed(x, epilogue);
    }
    match x.dtype() {
        DType::F32 => typed::<f32>(&x.contiguous()?, sizes, layer, epilogue),
        DType::F64 => typed::<f64>(&x.contiguous()?, sizes, layer, epilogue),
        other => bail!("{NAME}: expected f32 or f64, found {}", other.as_str()),
    }
}

fn typed<T: Vectors>(
    x: &Tensor,
    sizes: Sizes,
    layer: ConvNorm<'_>,
    epilogue: Epilogue,
) -> Result<(Tensor, Option<Moments>)> {
    let weights = LayerWeights::of(&layer)?;
    let (pass, y) = {
        let x = Reading::of(x);
        LayerPass::<T>::run(sizes, x.slice(NAME)?, &weights, layer.statistics, layer.eps, None, epilogue)?
    };
    let moments = pass.channels.moments::<T>()?;
    let (saved, inputs) = (x.clone(), weights.clone());
    let wants_input = x.track_op();
    let shape = (sizes.batch, sizes.out_channels, sizes.out_height(), sizes.out_width());
    let y = record(&inputs.with(x), y, shape, move |y, gradient| {
        let (dims, x) = (saved.shape(), Reading::of(&saved));
        let (y, gradient) = (Reading::of(y), Reading::of(gradient));
        let mut g = unwritten::<T>(pass.pre.len());
        let mask = if epilogue == Epilogue::Relu { Some(y.slice(NAME)?) } else { None };
        let sums = pass.channels.gradient_sums(&mut g, Some(gradient.slice(NAME)?), mask, &pass.pre);
        let mut dx = unwritten::<T>(if wants_input { dims.elem_count() } else { 0 });
        let input = if wants_input { InputGradient::Write(&mut dx) } else { InputGradient::Unwanted };
        let of_weights = pass.backward(x.slice(NAME)?, &weights, &g, &sums, input)?;
        let dx = wants_input.then(|| Tensor::from_vec(dx, dims, &Device::Cpu)).transpose()?;
        Ok([dx].into_iter().chain(of_weights.into_iter().map(Some)).collect())
    })?;
    Ok((y, moments))
}

/// The tensors of a layer, contiguous.
#[derive(Debug, Clone)]
pub(super) struct LayerWeights {
    weight: Tensor,
    scale: Tensor,
    shift: Tensor,
}

impl LayerWeights {
    pub(super) fn of(layer: &ConvNorm<'_>) -> Result<Self> {
        let [weight, scale, shift] = [layer.weight, layer.scale, layer.shift].map(Tensor::contiguous);
        Ok(Self { weight: weight?, scale: scale?, shift: shift? })
    }

    /// As inputs of a function, in the order of [`LayerPass::backward`].
    pub(super) fn inputs(&self) -> [&Tensor; 3] {
        [&self.weight, &self.scale, &self.shift]
    }

    fn with<'a>(&'a self, x: &'a Tensor) -> [&'a Tensor; 4] {
        [x, &self.weight, &self.scale, &self.shift]
    }
}

/// What a forward pass of a layer leaves for the backward pass.
pub(super) struct LayerPass<T> {
    pub(super) sizes: Sizes,
    /// Output of the convolution.
    pub(super) pre: Vec<T>,
    pub(super) channels: Channels,
}

impl<T: Vectors> LayerPass<T> {
    /// Runs the layer: what it leaves, and its output.
    pub(super) fn run(
        sizes: Sizes,
        x: &[T],
        weights: &LayerWeights,
        statistics: Statistics<'_>,
        eps: f64,
        residual: Option<&[T]>,
        epilogue: Epilogue,
    ) -> Result<(Self, Vec<T>)> {
        let (weight, scale, shift) =
            (Reading::of(&weights.weight), Reading::of(&weights.scale), Reading::of(&weights.shift));
        let is_batch = matches!(statistics, Statistics::Batch);
        let (pre, moments) = forward(sizes, x, weight.slice(NAME)?, |y, flat, pitch, _| {
            finish_plane(y, sizes.out_width(), flat, pitch, T::zero(), Epilogue::Identity);
            // While the plane is in the nearest cache.
            let _timing = profile::time(Kind::Norm);
            if is_batch { PlaneMoments::of(y) } else { PlaneMoments::default() }
        });
        let plane = sizes.out_height() * sizes.out_width();
        let channels = Channels::of(&moments, sizes.out_channels, plane, statistics, eps)?;
        let y = channels.normalize(&pre, (scale.slice(NAME)?, shift.slice(NAME)?), residual, epilogue);
        Ok((Self { sizes, pre, channels }, y))
    }

    /// Gradients of weight, scale and shift from the gradient `g` before the epilogue and its sums.
    pub(super) fn backward(
        &self,
        x: &[T],
        weights: &LayerWeights,
        g: &[T],
        sums: &[GradientSums],
        input: InputGradient<'_, T>,
    ) -> Result<[Tensor; 3]> {
        let (weight, scale) = (Reading::of(&weights.weight), Reading::of(&weights.scale));
        let scale = scale.slice::<T>(NAME)?;
        let wanted = Wanted { input, bias: false };
        let (dw, _) = gradients(self.sizes, x, weight.slice(NAME)?, wanted, |first, dy| {
            let _timing = profile::time(Kind::Norm);
            let start = first * self.sizes.out_image();
            let part = start..start + dy.len();
            self.channels.input_gradient(dy, &g[part.clone()], &self.pre[part], scale, sums);
        });
        let (d_scale, d_shift) = self.channels.affine_gradients::<T>(sums);
        let vector = |values: Vec<T>| Tensor::from_vec(values, self.sizes.out_channels, &Device::Cpu);
        Ok([Tensor::from_vec(dw, weights.weight.shape(), &Device::Cpu)?, vector(d_scale)?, vector(d_shift)?])
    }
}
