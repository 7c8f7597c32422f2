//! Muon: momentum whose directions all get the same length.
//!
//! Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the scale
//! 0.2 sqrt(max(rows, cols)), which lets AdamW's learning rates and decay carry over, from
//! Liu et al. 2025, "Muon is scalable for LLM training", arXiv 2502.16982.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::buffer::Buffer;
use super::coded::Coded;
use super::kernels;
use super::moment::Moment;
use crate::models::ops::codes::{GROUP, SIGNED};
use crate::models::ops::has_kernels;

/// Coefficients of the quintic iteration, steep at 0 (Jordan et al. 2024).
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// Frobenius norms below this are taken for zero.
const TINY: f64 = 1e-30;

/// How a weight is seen as matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MatrixView {
    /// First dimension by all others: linear layers (out, in) or (in, out), convolutions (out, in·kh·kw).
    Whole,
    /// Query, key and value side by side, (in, 3·out), each a matrix of its own: GPT-2's `c_attn`.
    ThreeColumns,
}

impl MatrixView {
    /// The view of the weight called `name`; `None` for what is no matrix.
    pub(super) fn of(name: &str, shape: &[usize]) -> Option<Self> {
        match shape {
            [] | [_] => None,
            [_, columns] if name.ends_with("attn.c_attn.weight") && columns % 3 == 0 => Some(Self::ThreeColumns),
            [..] => Some(Self::Whole),
        }
    }

    /// Rows and columns of each matrix.
    fn matrix_shape(self, shape: &[usize]) -> (usize, usize) {
        let rows = shape.first().copied().unwrap_or(1);
        let columns = shape.iter().skip(1).product::<usize>();
        match self {
            Self::Whole => (rows, columns),
            Self::ThreeColumns => (rows, columns / 3),
        }
    }

    /// 0.2 sqrt(max(rows, columns)): the root mean square of an AdamW step.
    pub(super) fn step_scale(self, shape: &[usize]) -> f64 {
        let (rows, columns) = self.matrix_shape(shape);
        0.2 * (rows.max(columns) as f64).sqrt()
    }

    /// Each matrix of `direction` orthogonalized; the shape stays.
    pub(super) fn orthogonalized(self, direction: &Tensor, num_iterations: u32) -> Result<Tensor> {
        let shape = direction.dims();
        let (rows, columns) = self.matrix_shape(shape);
        match self {
            Self::Whole => orthogonalize(&direction.reshape((rows, columns))?, num_iterations)?.reshape(shape),
            Self::ThreeColumns => {
                let part = |index| orthogonalize(&direction.narrow(1, index * columns, columns)?, num_iterations);
                Tensor::cat(&[part(0)?, part(1)?, part(2)?], 1)
            }
        }
    }
}

/// The nearest matrix with singular values near 1 (0.68 to 1.13 for those that are not tiny at first).
///
/// `matrix`: (rows, columns) f32. Iterates on the smaller side. A zero matrix stays zero.
fn orthogonalize(matrix: &Tensor, num_iterations: u32) -> Result<Tensor> {
    let (rows, columns) = matrix.dims2()?;
    let mut x = unit_norm(matrix)?;
    if has_kernels(x.device()) {
        kernels::newton_schulz(&x, QUINTIC, num_iterations)?;
        return Ok(x);
    }
    let [a, b, c] = QUINTIC;
    for _ in 0..num_iterations {
        let gram = if rows <= columns { x.matmul(&x.t()?)? } else { x.t()?.matmul(&x)? };
        let polynomial = kernels::axpby(&gram.matmul(&gram)?, &gram, c, b)?;
        let product = if rows <= columns { polynomial.matmul(&x)? } else { x.matmul(&polynomial)? };
        x = kernels::axpby(&product, &x, 1.0, a)?;
    }
    Ok(x)
}

/// `matrix` over its Frobenius norm; a norm below [`TINY`] leaves zeros, so that no division overflows.
fn unit_norm(matrix: &Tensor) -> Result<Tensor> {
    let matrix = matrix.contiguous()?;
    if !has_kernels(matrix.device()) {
        // Reading the norm back would stall the device.
        return matrix.broadcast_div(&(matrix.sqr()?.sum_all()?.sqrt()? + TINY)?);
    }
    let norm = kernels::sum_of_squares(&[&matrix])?.sqrt();
    if norm < TINY { matrix.zeros_like() } else { matrix * (1.0 / norm) }
}

/// momentum = μ·momentum + (1−μ)·gradient; returns μ·momentum + (1−μ)·gradient of the new one (Nesterov).
pub(super) fn nesterov(momentum: &mut Moment, gradient: &Tensor, mu: f64) -> Result<Tensor> {
    match momentum {
        Moment::F32(Buffer::Cpu(momentum)) => {
            let (keep, take) = (mu as f32, (1.0 - mu) as f32);
            let direction = kernels::with_f32(gradient, |gradient| {
                kernels::for_each_chunk(momentum, gradient, |m, g| *m = keep * *m + take * g);
                let pairs = momentum.iter().zip(gradient);
                pairs.map(|(m, g)| keep * m + take * g).collect::<Vec<f32>>()
            })?;
            Tensor::from_vec(direction, gradient.dims(), gradient.device())
        }
        Moment::EightBit(momentum) => {
            let direction = kernels::with_f32(gradient, |gradient| nesterov_coded(momentum, gradient, mu))?;
            Tensor::from_vec(direction, gradient.dims(), gradient.device())
        }
        Moment::F32(Buffer::Device(momentum)) => {
            *momentum = kernels::axpby(momentum, gradient, mu, 1.0 - mu)?;
            (&*momentum * mu)? + (gradient * (1.0 - mu))?
        }
    }
}

/// The same with momentum of 8 bits; the direction is of momentum that is not rounded yet.
fn nesterov_coded(momentum: &mut Coded, gradient: &[f32], mu: f64) -> Vec<f32> {
    let (keep, take) = (mu as f32, (1.0 - mu) as f32);
    let mut direction = vec![0.0; gradient.len()];
    let groups = momentum.groups().zip(gradient.par_chunks(GROUP)).zip(direction.par_chunks_mut(GROUP));
    groups.for_each(|((group, gradient), direction)| {
        let mut room = [0.0_f32; GROUP];
        let momentum = &mut room[..gradient.len()];
        SIGNED.read(group.codes, *group.scale, momentum);
        for ((direction, m), g) in direction.iter_mut().zip(&mut *momentum).zip(gradient) {
            *m = keep * *m + take * g;
            *direction = keep * *m + take * g;
        }
        *group.scale = SIGNED.write(momentum, group.codes);
    });
    direction
}
