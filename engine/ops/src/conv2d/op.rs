//! The convolution as an operation of candle's graph.

use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;

use super::gradients::{InputGradient, Wanted, gradients};
use super::pass::Forward;
use super::plan::Sizes;
use crate::Epilogue;
use crate::buffers::{Reading, unwritten};
use crate::function::record;
use crate::kernels::has_kernels;
use crate::lanes::Vectors;
use crate::profile::{self, Kind};
use crate::simd::kernel;

const NAME: &str = "conv2d";

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
/// Returns (n, out, (h + 2·padding − kh)/stride + 1, (w + 2·padding − kw)/stride + 1); f32 or f64.
/// Differentiable in all inputs. Errors: shapes that do not fit, an empty batch, another type.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, config: Conv2dConfig) -> Result<Tensor> {
    let sizes = Sizes::new(x.dims(), weight.dims(), config.stride, config.padding)?;
    if let Some(bias) = bias.filter(|bias| bias.dims() != [sizes.out_channels]) {
        bail!("conv2d: expected bias ({}), found {:?}", sizes.out_channels, bias.dims());
    }
    if !has_kernels(x.device()) || !sizes.is_supported() {
        return composed(x, weight, bias, config);
    }
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.map(Tensor::contiguous).transpose()?);
    match x.dtype() {
        DType::F32 => typed::<f32>(sizes, config.epilogue, x, weight, bias),
        DType::F64 => typed::<f64>(sizes, config.epilogue, x, weight, bias),
        other => bail!("conv2d: expected f32 or f64, found {}", other.as_str()),
    }
}

/// The same by candle's own operations, for other devices and to compare with.
pub fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, config: Conv2dConfig) -> Result<Tensor> {
    let y = match without_leftover(x, weight, config)? {
        Some(x) => x.conv2d(weight, 0, config.stride, 1, 1)?,
        None => x.conv2d(weight, config.padding, config.stride, 1, 1)?,
    };
    let y = match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1))?)?,
        None => y,
    };
    match config.epilogue {
        Epilogue::Identity => Ok(y),
        Epilogue::Relu => y.relu(),
    }
}

/// x with its padding written out, cut to what the kernel reaches, where the stride leaves over another number of rows than
/// of columns: candle's backward pass takes that of the rows for both. `None` where it is the same.
fn without_leftover(x: &Tensor, weight: &Tensor, config: Conv2dConfig) -> Result<Option<Tensor>> {
    let (_, _, height, width) = x.dims4()?;
    let (_, _, kernel_height, kernel_width) = weight.dims4()?;
    let padding = config.padding;
    let leftover = |side: usize, kernel: usize| (side + 2 * padding).saturating_sub(kernel) % config.stride.max(1);
    let (rows, columns) = (leftover(height, kernel_height), leftover(width, kernel_width));
    if rows == columns {
        return Ok(None);
    }
    let padded = x.pad_with_zeros(2, padding, padding)?.pad_with_zeros(3, padding, padding)?;
    let cut = padded.narrow(2, 0, height + 2 * padding - rows)?.narrow(3, 0, width + 2 * padding - columns)?;
    cut.contiguous().map(Some)
}

fn typed<T: Vectors>(
    sizes: Sizes,
    epilogue: Epilogue,
    x: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
) -> Result<Tensor> {
    let y = {
        let bias = bias.as_ref().map(Reading::of);
        let bias = bias.as_ref().map(|bias| bias.slice::<T>(NAME)).transpose()?;
        let (x, weight) = (Reading::of(&x), Reading::of(&weight));
        let (y, _) = forward(sizes, x.slice(NAME)?, weight.slice(NAME)?, |y, flat, pitch, channel| {
            let bias = bias.map_or(T::zero(), |bias| bias[channel]);
            finish_plane(y, sizes.out_width(), flat, pitch, bias, epilogue);
        });
        y
    };
    let shape = (sizes.batch, sizes.out_channels, sizes.out_height(), sizes.out_width());
    let saved = (x.clone(), weight.clone());
    let (input_wanted, bias_wanted) = (x.track_op(), bias.as_ref().is_some_and(Tensor::track_op));
    let backward = move |y: &Tensor, gradient: &Tensor| {
        let (x, weight) = &saved;
        let (dims, weight_dims) = (x.shape(), weight.shape());
        let (y, gradient) = (Reading::of(y), Reading::of(gradient));
        let (y, gradient) = (y.slice::<T>(NAME)?, gradient.slice::<T>(NAME)?);
        let output_gradient = |first: usize, dy: &mut [T]| {
            let start = first * sizes.out_image();
            let end = start + dy.len();
            match epilogue {
                Epilogue::Identity => dy.copy_from_slice(&gradient[start..end]),
                Epilogue::Relu => relu_gradient(&y[start..end], &gradient[start..end], dy),
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
    let inputs: Vec<&Tensor> = [&x, &weight].into_iter().chain(&bias).collect();
    record(&inputs, y, shape, backward)
}

/// Convolves all images. `finish(plane, flat, pitch, channel)` writes each dense output plane from the rows of `flat`,
/// `pitch` apart, and says something about it, which is returned for all planes, (n, out).
pub(crate) fn forward<T: Vectors, R: Clone + Default + Send>(
    sizes: Sizes,
    x: &[T],
    weight: &[T],
    finish: impl Fn(&mut [T], &[T], usize, usize) -> R + Sync,
) -> (Vec<T>, Vec<R>) {
    let pass = Forward::new(sizes, weight);
    let plane = sizes.out_height() * sizes.out_width();
    let mut y = unwritten::<T>(sizes.batch * sizes.out_image());
    let mut said = vec![R::default(); sizes.batch * sizes.out_channels];
    let groups =
        y.par_chunks_mut(pass.group * sizes.out_image()).zip(said.par_chunks_mut(pass.group * sizes.out_channels));
    groups.zip(x.par_chunks(pass.group * sizes.image())).for_each_init(
        || pass.buffers(),
        |buffers, ((y, said), x)| {
            let _timing = profile::time(Kind::Convolution);
            pass.run(x, buffers);
            for (index, (y, said)) in y.chunks_exact_mut(plane).zip(said).enumerate() {
                let (image, channel) = (index / sizes.out_channels, index % sizes.out_channels);
                *said = finish(y, pass.plane(buffers, image, channel), pass.pitch(), channel);
            }
        },
    );
    (y, said)
}

kernel! {
    /// Rows of `flat`, `pitch` apart, plus `bias`, through the epilogue, to the dense plane `y`.
    pub(crate) fn finish_plane<T>(
        y: &mut [T],
        width: usize,
        flat: &[T],
        pitch: usize,
        bias: T,
        epilogue: Epilogue,
    ) {
        for (y, flat) in y.chunks_exact_mut(width).zip(flat.chunks(pitch)) {
            match epilogue {
                Epilogue::Identity => {
                    for (y, &x) in y.iter_mut().zip(flat) {
                        *y = x + bias;
                    }
                }
                Epilogue::Relu => {
                    for (y, &x) in y.iter_mut().zip(flat) {
                        // NaN stays NaN.
                        *y = if x + bias < T::zero() { T::zero() } else { x + bias };
                    }
                }
            }
        }
    }
}

kernel! {
    /// dy = gradient where the output is positive, else 0.
    fn relu_gradient<T>(y: &[T], gradient: &[T], dy: &mut [T]) {
        for ((dy, &y), &gradient) in dy.iter_mut().zip(y).zip(gradient) {
            *dy = if y > T::zero() { gradient } else { T::zero() };
        }
    }
}
