//! The convolution as an operation of candle's graph.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::gradients::{Wanted, gradients};
use super::pass::Forward;
use super::plan::Sizes;
use crate::models::ops::Epilogue;
use crate::models::ops::buffers::{Reading, slice, unwritten};
use crate::models::ops::lanes::Vectors;
use crate::models::ops::simd::kernel;

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
    if !x.device().is_cpu() || !sizes.is_supported() {
        return composed(x, weight, bias, config);
    }
    let op = Conv2d { sizes, epilogue: config.epilogue };
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op),
        None => x.apply_op2(&weight, op),
    }
}

/// The same by candle's own operations, for other devices and to compare with.
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

#[derive(Clone, Copy)]
struct Conv2d {
    sizes: Sizes,
    epilogue: Epilogue,
}

const NAME: &str = "conv2d";

impl Conv2d {
    fn forward<T: Vectors>(&self, x: &[T], weight: &[T], bias: Option<&[T]>) -> CpuStorage {
        let sizes = self.sizes;
        let pass = Forward::new(sizes, weight);
        let plane = sizes.out_height() * sizes.out_width();
        let mut y = unwritten::<T>(sizes.batch * sizes.out_image());
        y.par_chunks_mut(pass.group * sizes.out_image()).zip(x.par_chunks(pass.group * sizes.image())).for_each_init(
            || pass.buffers(),
            |buffers, (y, x)| {
                pass.run(x, buffers);
                for (index, y) in y.chunks_exact_mut(plane).enumerate() {
                    let (image, channel) = (index / sizes.out_channels, index % sizes.out_channels);
                    let bias = bias.map_or(T::zero(), |bias| bias[channel]);
                    let flat = pass.plane(buffers, image, channel);
                    finish_plane(y, sizes.out_width(), flat, pass.pitch(), bias, self.epilogue);
                }
            },
        );
        T::to_cpu_storage_owned(y)
    }

    fn storage(
        &self,
        (x, x_layout): (&CpuStorage, &Layout),
        (w, w_layout): (&CpuStorage, &Layout),
        bias: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        fn run<T: Vectors>(
            op: &Conv2d,
            (x, x_layout): (&CpuStorage, &Layout),
            (w, w_layout): (&CpuStorage, &Layout),
            bias: Option<(&CpuStorage, &Layout)>,
        ) -> Result<CpuStorage> {
            let bias = bias.map(|(storage, layout)| slice::<T>(NAME, storage, layout)).transpose()?;
            Ok(op.forward(slice::<T>(NAME, x, x_layout)?, slice(NAME, w, w_layout)?, bias))
        }
        let y = match x.dtype() {
            DType::F32 => run::<f32>(self, (x, x_layout), (w, w_layout), bias)?,
            DType::F64 => run::<f64>(self, (x, x_layout), (w, w_layout), bias)?,
            other => bail!("conv2d: expected f32 or f64, found {}", other.as_str()),
        };
        let s = &self.sizes;
        Ok((y, (s.batch, s.out_channels, s.out_height(), s.out_width()).into()))
    }

    fn backward(
        &self,
        (x, weight, bias): (&Tensor, &Tensor, Option<&Tensor>),
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        match x.dtype() {
            DType::F64 => self.typed_backward::<f64>((x, weight, bias), y, grad),
            _ => self.typed_backward::<f32>((x, weight, bias), y, grad),
        }
    }

    fn typed_backward<T: Vectors>(
        &self,
        (x, weight, bias): (&Tensor, &Tensor, Option<&Tensor>),
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x_shape, weight_shape) = (x.shape(), weight.shape());
        let wanted = Wanted { input: x.track_op(), bias: bias.is_some_and(Tensor::track_op) };
        let grad = grad.contiguous()?;
        let (x, weight, y, grad) = (Reading::of(x), Reading::of(weight), Reading::of(y), Reading::of(&grad));
        let (y, grad) = (y.slice::<T>(NAME)?, grad.slice::<T>(NAME)?);
        let image = self.sizes.out_image();
        let output_gradient = |first: usize, dy: &mut [T]| {
            let start = first * image;
            let end = start + dy.len();
            match self.epilogue {
                Epilogue::Identity => dy.copy_from_slice(&grad[start..end]),
                Epilogue::Relu => relu_gradient(&y[start..end], &grad[start..end], dy),
            }
        };
        let found = gradients(self.sizes, x.slice(NAME)?, weight.slice(NAME)?, wanted, output_gradient);
        let tensor = |values: Vec<T>, shape: &Shape| Tensor::from_vec(values, shape, &Device::Cpu);
        let dx = found.input.map(|dx| tensor(dx, x_shape)).transpose()?;
        let db = found.bias.map(|db| tensor(db, &self.sizes.out_channels.into())).transpose()?;
        Ok((dx, Some(tensor(found.weight, weight_shape)?), db))
    }
}

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.storage((s1, l1), (s2, l2), None)
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw, _) = self.backward((x, weight, None), y, grad)?;
        Ok((dx, dw))
    }
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.storage((s1, l1), (s2, l2), Some((s3, l3)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        self.backward((x, weight, Some(bias)), y, grad)
    }
}

kernel! {
    /// Rows of `flat`, `pitch` apart, plus `bias`, through the epilogue, to the dense plane `y`.
    fn finish_plane<T>(y: &mut [T], width: usize, flat: &[T], pitch: usize, bias: T, epilogue: Epilogue) {
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
    pub(in crate::models::ops) fn relu_gradient<T>(y: &[T], gradient: &[T], dy: &mut [T]) {
        for ((dy, &y), &gradient) in dy.iter_mut().zip(y).zip(gradient) {
            *dy = if y > T::zero() { gradient } else { T::zero() };
        }
    }
}
