//! Rotary position embedding, halves rotated as in transformers (`rotate_half`).

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::buffers::{Reading, slice};
use super::function::composed_function;
use super::kernels::has_kernels;
use super::profile::{self, Kind};
use super::real::Real;
use super::simd::kernel;

/// Rotates each head of `head_size` numbers by its position's angles: x (n, t, heads · head_size), position 0 first,
/// to the same shape. Number i and number i + head_size/2 turn together by position · theta^(−2i/head_size).
/// f32 or f64; differentiable.
/// Errors: a last dimension that is not a multiple of an even `head_size`.
/// Source: Su et al. 2021, arXiv 2104.09864, in the layout of transformers' Llama.
pub fn rope(x: &Tensor, head_size: usize, theta: f64) -> Result<Tensor> {
    let (_, _, width) = x.dims3()?;
    if head_size == 0 || !head_size.is_multiple_of(2) || !width.is_multiple_of(head_size) {
        bail!("rope: expected heads of an even size that divides {width}, found {head_size}");
    }
    if has_kernels(x.device()) {
        return x.contiguous()?.apply_op1(Rope { head_size, theta, turn: Turn::Forward });
    }
    let tables = Tables::new(x, head_size, theta)?;
    let forward = |inputs: &[Tensor]| {
        let [x] = inputs else { bail!("rope: expected one input") };
        tables.turned(x, Turn::Forward)
    };
    let of_backward = tables.clone();
    composed_function(&[x], forward, move |_, _, grad| Ok(vec![of_backward.turned(grad, Turn::Back)?]))
}

/// [`Angles`] as tensors, (1, t, 1, head size / 2), for candle's operations.
#[derive(Clone)]
pub(super) struct Tables {
    cos: Tensor,
    sin: Tensor,
}

impl Tables {
    /// For x (n, t, ...), where it is.
    pub(super) fn new(x: &Tensor, head_size: usize, theta: f64) -> Result<Self> {
        let t = x.dim(1)?;
        let angles = Angles::<f64>::new(t, head_size, theta);
        let table = |values: Vec<f64>| -> Result<Tensor> {
            let table = Tensor::from_vec(values, (1, t, 1, head_size / 2), &Device::Cpu)?;
            table.to_dtype(x.dtype())?.to_device(x.device())
        };
        Ok(Self { cos: table(angles.cos)?, sin: table(angles.sin)? })
    }

    /// x (n, t, width) rotated, without a graph.
    pub(super) fn turned(&self, x: &Tensor, turn: Turn) -> Result<Tensor> {
        let (n, t, width) = x.dims3()?;
        let half = self.cos.dim(3)?;
        let (cos, sin) = match turn {
            Turn::Forward => (&self.cos, self.sin.clone()),
            Turn::Back => (&self.cos, self.sin.neg()?),
        };
        let heads = x.reshape((n, t, width / (2 * half), 2 * half))?;
        let (a, b) = (heads.narrow(3, 0, half)?, heads.narrow(3, half, half)?);
        let first = (a.broadcast_mul(cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(cos)? + a.broadcast_mul(&sin)?)?;
        Tensor::cat(&[first, second], 3)?.reshape((n, t, width))
    }
}

/// Cosines and sines of every position, each (t, head_size / 2).
pub(super) struct Angles<T> {
    cos: Vec<T>,
    sin: Vec<T>,
}

impl<T: Real> Angles<T> {
    /// Angles of positions 0..t, computed in f64.
    pub(super) fn new(t: usize, head_size: usize, theta: f64) -> Self {
        let _timing = profile::time(Kind::Embedding);
        let half = head_size / 2;
        let frequencies: Vec<f64> = (0..half).map(|i| theta.powf(-2.0 * i as f64 / head_size as f64)).collect();
        let angles = || (0..t).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
        Self {
            cos: angles().map(|angle| T::from_f64(angle.cos())).collect(),
            sin: angles().map(|angle| T::from_f64(angle.sin())).collect(),
        }
    }
}

/// Which way to rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// By the positions' angles.
    Forward,
    /// Back: the gradient of `Forward`.
    Back,
}

struct Rope {
    head_size: usize,
    theta: f64,
    turn: Turn,
}

impl Rope {
    fn rotated<T: Real>(&self, x: &[T], dims: &[usize]) -> Vec<T> {
        let (t, width) = (dims[1], dims[2]);
        let angles = Angles::new(t, self.head_size, self.theta);
        let mut y = x.to_vec();
        y.par_chunks_mut((t * width).max(1)).for_each(|sequence| rotate(sequence, width, width, &angles, self.turn));
        y
    }
}

impl CustomOp1 for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = match storage.dtype() {
            DType::F32 => CpuStorage::F32(self.rotated::<f32>(slice(self.name(), storage, layout)?, layout.dims())),
            DType::F64 => CpuStorage::F64(self.rotated::<f64>(slice(self.name(), storage, layout)?, layout.dims())),
            other => bail!("rope: expected f32 or f64, found {}", other.as_str()),
        };
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = Rope { head_size: self.head_size, theta: self.theta, turn: Turn::Back };
        let grad = grad.contiguous()?;
        let reading = Reading::of(&grad);
        match x.dtype() {
            DType::F64 => {
                let dx = back.rotated::<f64>(reading.slice("rope")?, x.dims());
                Tensor::from_vec(dx, x.shape(), &Device::Cpu).map(Some)
            }
            _ => {
                let dx = back.rotated::<f32>(reading.slice("rope")?, x.dims());
                Tensor::from_vec(dx, x.shape(), &Device::Cpu).map(Some)
            }
        }
    }
}

kernel! { for Embedding:
    /// Rotates, in place, the first `width` numbers of each row of one sequence (rows `row_stride` apart).
    pub(super) fn rotate<T>(rows: &mut [T], row_stride: usize, width: usize, angles: &Angles<T>, turn: Turn) {
        let positions = rows.len().div_ceil(row_stride.max(1)).max(1);
        let half = angles.cos.len() / positions;
        if half == 0 {
            return;
        }
        for ((row, cos), sin) in
            rows.chunks_mut(row_stride).zip(angles.cos.chunks_exact(half)).zip(angles.sin.chunks_exact(half))
        {
            for head in row[..width].chunks_exact_mut(2 * half) {
                let (a, b) = head.split_at_mut(half);
                for i in 0..half {
                    let (x, y) = (a[i], b[i]);
                    let s = if turn == Turn::Forward { sin[i] } else { T::zero() - sin[i] };
                    a[i] = x * cos[i] - y * s;
                    b[i] = y * cos[i] + x * s;
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::check::{gradient_error, max_difference, wave};

    #[test]
    fn equals_candle() {
        let (n, t, heads, d) = (2, 7, 3, 8);
        let x = wave(&[n, t, heads * d], 2.0).unwrap();
        let angles = Angles::<f64>::new(t, d, 10_000.0);
        let cos = Tensor::from_vec(angles.cos, (t, d / 2), &Device::Cpu).unwrap();
        let sin = Tensor::from_vec(angles.sin, (t, d / 2), &Device::Cpu).unwrap();
        let by_head = x.reshape((n, t, heads, d)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
        let theirs = candle_nn::rotary_emb::rope_slow(&by_head, &cos, &sin).unwrap();
        let theirs = theirs.transpose(1, 2).unwrap().reshape((n, t, heads * d)).unwrap();
        assert!(max_difference(&rope(&x, d, 10_000.0).unwrap(), &theirs).unwrap() < 1e-12);
    }

    #[test]
    fn second_position_turns_by_one_radian() {
        let x = Tensor::new(&[[[1.0_f64, 0.0], [1.0, 0.0]]], &Device::Cpu).unwrap();
        let y: Vec<f64> = rope(&x, 2, 10_000.0).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(y, [1.0, 0.0, 1.0_f64.cos(), 1.0_f64.sin()]);
    }

    #[test]
    fn gradient_agrees_with_central_differences() {
        let weights = wave(&[2, 7, 24], 1.0).unwrap();
        let loss = |x: &[Tensor]| (rope(&x[0], 8, 100.0)? * &weights)?.sum_all();
        assert!(gradient_error(&[wave(&[2, 7, 24], 2.0).unwrap()], loss).unwrap() < 1e-8);
    }

    #[test]
    fn odd_heads_are_errors() {
        assert!(rope(&wave(&[1, 2, 6], 1.0).unwrap(), 3, 100.0).is_err());
        assert!(rope(&wave(&[1, 2, 6], 1.0).unwrap(), 4, 100.0).is_err());
    }
}
