//! Convolution, bias, ReLU and 2x2 max pooling in one pass.

use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;

use super::gradients::{InputGradient, Wanted, gradients};
use super::op::{Conv2dConfig, composed};
use super::pass::Forward;
use super::plan::Sizes;
use crate::buffers::{Reading, unwritten};
use crate::function::record;
use crate::kernels::has_kernels;
use crate::lanes::Vectors;
use crate::profile::{self, Kind};
use crate::simd::kernel;
use crate::{Epilogue, max_pool2d};

const NAME: &str = "conv2d_relu_pool";
/// Code of a window whose largest output is cut off by the ReLU; 0 to 3 name the winner.
const DEAD: u8 = 4;

/// `max_pool2d(conv2d(x, weight, bias))` with stride 1 and a ReLU between: x (n, in, h, w), weight (out, in, kh, kw),
/// bias (out), to (n, out, oh/2, ow/2). The output of the convolution is never stored; one byte per window
/// remembers where the gradient goes. Differentiable in all inputs; f32 or f64.
/// Errors: shapes that do not fit, an empty batch, an image too small to pool, another type.
pub fn conv2d_relu_pool(x: &Tensor, weight: &Tensor, bias: &Tensor, padding: usize) -> Result<Tensor> {
    let sizes = Sizes::new(x.dims(), weight.dims(), 1, padding)?;
    if bias.dims() != [sizes.out_channels] {
        bail!("{NAME}: expected bias ({}), found {:?}", sizes.out_channels, bias.dims());
    }
    if sizes.out_height() < 2 || sizes.out_width() < 2 {
        bail!("{NAME}: expected at least 2x2 to pool, found {}x{}", sizes.out_height(), sizes.out_width());
    }
    if !has_kernels(x.device()) || !sizes.is_supported() {
        let config = Conv2dConfig { stride: 1, padding, epilogue: Epilogue::Relu };
        return max_pool2d(&composed(x, weight, Some(bias), config)?);
    }
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    match x.dtype() {
        DType::F32 => typed::<f32>(sizes, x, weight, bias),
        DType::F64 => typed::<f64>(sizes, x, weight, bias),
        other => bail!("{NAME}: expected f32 or f64, found {}", other.as_str()),
    }
}

fn typed<T: Vectors>(sizes: Sizes, x: Tensor, weight: Tensor, bias: Tensor) -> Result<Tensor> {
    let (height, width) = (sizes.out_height() / 2, sizes.out_width() / 2);
    let (y, codes) = {
        let (x, weight, bias) = (Reading::of(&x), Reading::of(&weight), Reading::of(&bias));
        forward::<T>(sizes, x.slice(NAME)?, weight.slice(NAME)?, bias.slice(NAME)?)
    };
    let saved = (x.clone(), weight.clone());
    let (input_wanted, bias_wanted) = (x.track_op(), bias.track_op());
    let backward = move |_: &Tensor, gradient: &Tensor| {
        let (x, weight) = &saved;
        let (dims, weight_dims) = (x.shape(), weight.shape());
        let gradient = Reading::of(gradient);
        let gradient = gradient.slice::<T>(NAME)?;
        let output_gradient = |first: usize, dy: &mut [T]| {
            let _timing = profile::time(Kind::Pooling);
            let planes = dy.chunks_exact_mut(sizes.out_height() * sizes.out_width());
            let start = first * sizes.out_channels * height * width;
            let windows =
                gradient[start..].chunks_exact(height * width).zip(codes[start..].chunks_exact(height * width));
            for (dy, (gradient, codes)) in planes.zip(windows) {
                unpool(dy, sizes.out_width(), gradient, codes);
            }
        };
        let mut dx = unwritten::<T>(if input_wanted { dims.elem_count() } else { 0 });
        let input = if input_wanted { InputGradient::Write(&mut dx) } else { InputGradient::Unwanted };
        let (x, weight) = (Reading::of(x), Reading::of(weight));
        let wanted = Wanted { input, bias: bias_wanted };
        let (dw, db) = gradients(sizes, x.slice(NAME)?, weight.slice(NAME)?, wanted, output_gradient);
        let dx = input_wanted.then(|| Tensor::from_vec(dx, dims, &Device::Cpu)).transpose()?;
        let dw = Tensor::from_vec(dw, weight_dims, &Device::Cpu)?;
        let db = bias_wanted.then(|| Tensor::from_vec(db, sizes.out_channels, &Device::Cpu)).transpose()?;
        Ok(vec![dx, Some(dw), db])
    };
    record(&[&x, &weight, &bias], y, (sizes.batch, sizes.out_channels, height, width), backward)
}

/// The pooled output and the code of each window.
fn forward<T: Vectors>(sizes: Sizes, x: &[T], weight: &[T], bias: &[T]) -> (Vec<T>, Vec<u8>) {
    let pass = Forward::new(sizes, weight);
    let width = sizes.out_width() / 2;
    let window = sizes.out_height() / 2 * width;
    let image = sizes.out_channels * window;
    let mut y = unwritten::<T>(sizes.batch * image);
    let mut codes = vec![0_u8; sizes.batch * image];
    let groups = y.par_chunks_mut(pass.group * image).zip(codes.par_chunks_mut(pass.group * image));
    groups.zip(x.par_chunks(pass.group * sizes.image())).for_each_init(
        || pass.buffers(),
        |buffers, ((y, codes), x)| {
            let _timing = profile::time(Kind::Convolution);
            pass.run(x, buffers);
            let _timing = profile::time(Kind::Pooling);
            let planes = y.chunks_exact_mut(window).zip(codes.chunks_exact_mut(window));
            for (index, (y, codes)) in planes.enumerate() {
                let (image, channel) = (index / sizes.out_channels, index % sizes.out_channels);
                let flat = pass.plane(buffers, image, channel);
                pool((y, codes), width, flat, pass.pitch(), bias[channel]);
            }
        },
    );
    (y, codes)
}

kernel! {
    /// The largest of each 2x2 window of `flat` (rows `pitch` apart), plus `bias`, through a ReLU, and its code.
    fn pool<T>(to: (&mut [T], &mut [u8]), width: usize, flat: &[T], pitch: usize, bias: T) {
        let rows = to.0.chunks_exact_mut(width).zip(to.1.chunks_exact_mut(width));
        for (row, (y, codes)) in rows.enumerate() {
            let upper = &flat[2 * row * pitch..][..2 * width];
            let lower = &flat[(2 * row + 1) * pitch..][..2 * width];
            for (((y, code), upper), lower) in
                y.iter_mut().zip(codes).zip(upper.chunks_exact(2)).zip(lower.chunks_exact(2))
            {
                let (mut best, mut winner) = (upper[0], 0_u8);
                // The first of equals wins; NaN wins over all before it, as the comparison with it fails.
                for (value, at) in [(upper[1], 1), (lower[0], 2), (lower[1], 3)] {
                    let stays = best >= value;
                    winner = if stays { winner } else { at };
                    best = if stays { best } else { value };
                }
                let value = best + bias;
                let is_dead = value <= T::zero();
                *y = if is_dead { T::zero() } else { value };
                *code = if is_dead { DEAD } else { winner };
            }
        }
    }
}

kernel! {
    /// Writes the dense plane `dy`: each window's gradient at its winner, zero elsewhere.
    fn unpool<T>(dy: &mut [T], out_width: usize, gradient: &[T], codes: &[u8]) {
        let width = out_width / 2;
        let mut pairs = dy.chunks_exact_mut(2 * out_width);
        for ((pair, gradient), codes) in (&mut pairs).zip(gradient.chunks_exact(width)).zip(codes.chunks_exact(width)) {
            let (upper, lower) = pair.split_at_mut(out_width);
            for (start, row) in [(0_u8, upper), (2, lower)] {
                for ((to, &gradient), &code) in row.chunks_exact_mut(2).zip(gradient).zip(codes) {
                    to[0] = if code == start { gradient } else { T::zero() };
                    to[1] = if code == start + 1 { gradient } else { T::zero() };
                }
                row[2 * width..].fill(T::zero());
            }
        }
        pairs.into_remainder().fill(T::zero());
    }
}
