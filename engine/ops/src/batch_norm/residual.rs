//! A basic residual block as one function.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::conv_norm::{ConvNorm, LayerPass, LayerWeights};
use super::op::Moments;
use crate::Epilogue;
use crate::buffers::{Reading, unwritten};
use crate::conv2d::{InputGradient, Sizes};
use crate::function::record;
use crate::kernels::has_kernels;
use crate::lanes::Vectors;

const NAME: &str = "residual_block";

/// The layers of a basic block: `relu(second(relu(first(x))) + shortcut(x))`.
#[derive(Debug, Clone, Copy)]
pub struct ResidualBlock<'a> {
    /// First convolution and norm.
    pub first: ConvNorm<'a>,
    /// Second convolution and norm.
    pub second: ConvNorm<'a>,
    /// Present when the shape changes; otherwise x itself is added.
    pub shortcut: Option<ConvNorm<'a>>,
}

/// Applies the block to `x`, (n, in, h, w). Returns (n, out, oh, ow) and the moments of first, second and (when there
/// is one) shortcut, `None` where they were given. Differentiable in x and all weights; f32 or f64.
/// Source: He et al. 2015, arXiv 1512.03385, figure 2.
/// Errors: shapes that do not fit, an empty batch, another type.
pub fn residual_block(x: &Tensor, block: ResidualBlock<'_>) -> Result<(Tensor, Vec<Option<Moments>>)> {
    let first = block.first.sizes(x.dims())?;
    let second = block.second.sizes(&[first.batch, first.out_channels, first.out_height(), first.out_width()])?;
    let shortcut = block.shortcut.map(|shortcut| shortcut.sizes(x.dims())).transpose()?;
    let out = [second.batch, second.out_channels, second.out_height(), second.out_width()];
    let added = shortcut.map_or(x.dims().to_vec(), |s| vec![s.batch, s.out_channels, s.out_height(), s.out_width()]);
    if added != out {
        bail!("{NAME}: expected a shortcut of shape {out:?}, found {added:?}");
    }
    let is_supported = [Some(first), Some(second), shortcut].iter().flatten().all(Sizes::is_supported);
    if !has_kernels(x.device()) || !is_supported {
        return composed(x, block);
    }
    let sizes = (first, second, shortcut);
    match x.dtype() {
        DType::F32 => typed::<f32>(&x.contiguous()?, block, sizes),
        DType::F64 => typed::<f64>(&x.contiguous()?, block, sizes),
        other => bail!("{NAME}: expected f32 or f64, found {}", other.as_str()),
    }
}

/// The same by candle's own operations, for other devices and to compare with.
pub(super) fn composed(x: &Tensor, block: ResidualBlock<'_>) -> Result<(Tensor, Vec<Option<Moments>>)> {
    let (y, first) = block.first.composed(x, Epilogue::Relu)?;
    let (y, second) = block.second.composed(&y, Epilogue::Identity)?;
    let mut moments = vec![first, second];
    let added = match block.shortcut {
        None => x.clone(),
        Some(shortcut) => {
            let (added, shortcut) = shortcut.composed(x, Epilogue::Identity)?;
            moments.push(shortcut);
            added
        }
    };
    Ok(((y + added)?.relu()?, moments))
}

fn typed<T: Vectors>(
    x: &Tensor,
    block: ResidualBlock<'_>,
    (first, second, shortcut): (Sizes, Sizes, Option<Sizes>),
) -> Result<(Tensor, Vec<Option<Moments>>)> {
    let run = |sizes: Sizes, layer: &ConvNorm<'_>, x: &[T], residual: Option<&[T]>, epilogue: Epilogue| {
        let weights = LayerWeights::of(layer)?;
        let (pass, y) = LayerPass::<T>::run(sizes, x, &weights, layer.statistics, layer.eps, residual, epilogue)?;
        Ok::<_, candle_core::Error>(((weights, pass), y))
    };
    let (first, second, shortcut, middle, y) = {
        let input = Reading::of(x);
        let input = input.slice::<T>(NAME)?;
        let (first, middle) = run(first, &block.first, input, None, Epilogue::Relu)?;
        let shortcut = match block.shortcut.as_ref().zip(shortcut) {
            Some((layer, sizes)) => Some(run(sizes, layer, input, None, Epilogue::Identity)?),
            None => None,
        };
        let added = shortcut.as_ref().map_or(input, |(_, added)| added);
        let (second, y) = run(second, &block.second, &middle, Some(added), Epilogue::Relu)?;
        (first, second, shortcut.map(|(layer, _)| layer), middle, y)
    };
    let layers = || [Some(&first), Some(&second), shortcut.as_ref()].into_iter().flatten();
    let moments = layers().map(|(_, pass)| pass.channels.moments::<T>()).collect::<Result<_>>()?;
    let owned: Vec<LayerWeights> = layers().map(|(weights, _)| weights.clone()).collect();
    let inputs: Vec<&Tensor> = [x].into_iter().chain(owned.iter().flat_map(LayerWeights::inputs)).collect();
    let sizes = second.1.sizes;
    let shape = (sizes.batch, sizes.out_channels, sizes.out_height(), sizes.out_width());
    let (saved, wants_input) = (x.clone(), x.track_op());
    let y = record(&inputs, y, shape, move |y, gradient| {
        let (dims, x) = (saved.shape(), Reading::of(&saved));
        let x = x.slice::<T>(NAME)?;
        let (y, gradient) = (Reading::of(y), Reading::of(gradient));
        // `g` is the gradient of the sum: it flows back through the second layer and the shortcut alike.
        let mut g = unwritten::<T>(y.slice::<T>(NAME)?.len());
        let (weights, pass) = &second;
        let sums = pass.channels.gradient_sums(&mut g, Some(gradient.slice(NAME)?), Some(y.slice(NAME)?), &pass.pre);
        let mut g_middle = unwritten::<T>(middle.len());
        let of_second = pass.backward(&middle, weights, &g, &sums, InputGradient::Write(&mut g_middle))?;

        let mut dx = Vec::new();
        let mut of_shortcut = None;
        match &shortcut {
            None => dx = g,
            Some((weights, pass)) => {
                let sums = pass.channels.gradient_sums(&mut g, None, None, &pass.pre);
                let input = if wants_input {
                    dx = unwritten::<T>(dims.elem_count());
                    InputGradient::Write(&mut dx)
                } else {
                    InputGradient::Unwanted
                };
                of_shortcut = Some(pass.backward(x, weights, &g, &sums, input)?);
            }
        }

        let (weights, pass) = &first;
        let sums = pass.channels.gradient_sums(&mut g_middle, None, Some(&middle), &pass.pre);
        let input = if wants_input { InputGradient::Add(&mut dx) } else { InputGradient::Unwanted };
        let of_first = pass.backward(x, weights, &g_middle, &sums, input)?;
        let dx = wants_input.then(|| Tensor::from_vec(dx, dims, &Device::Cpu)).transpose()?;
        let of_weights = of_first.into_iter().chain(of_second).chain(of_shortcut.into_iter().flatten());
        Ok([dx].into_iter().chain(of_weights.map(Some)).collect())
    })?;
    Ok((y, moments))
}
