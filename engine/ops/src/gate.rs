//! Gated feed-forward parts: what a gate's numbers go through before they are multiplied with the other half's.

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::function::composed_function;
use super::real::Real;
use super::silu_mul::{silu_mul, silu_mul_all, silu_mul_gradient};
use super::simd::kernel;

/// The gate's nonlinearity, under transformers' name of it (`hidden_act`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum GateActivation {
    /// x · sigmoid(x), the gate of SwiGLU. Source: Shazeer 2020, arXiv 2002.05202.
    #[default]
    Silu,
    /// max(0, x)², which leaves most of a BitNet's gate at zero. Source: Ma et al. 2025, arXiv 2504.12285, section 2.
    Relu2,
}

impl GateActivation {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Silu, Self::Relu2];

    /// transformers' name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::Relu2 => "relu2",
        }
    }

    /// act(gate) · up: two tensors of one shape, f32 or f64, to that shape; differentiable in both.
    pub fn mul(self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        if gate.dims() != up.dims() {
            bail!("gate: expected two tensors of one shape, found {:?} and {:?}", gate.dims(), up.dims());
        }
        match self {
            Self::Silu => silu_mul(gate, up),
            Self::Relu2 => relu2_mul(gate, up),
        }
    }

    /// y = act(gate) · up
    pub(super) fn mul_all<T: Real>(self, gate: &[T], up: &[T], y: &mut [T]) {
        match self {
            Self::Silu => silu_mul_all(gate, up, y),
            Self::Relu2 => relu2_mul_all(gate, up, y),
        }
    }

    /// gate and up become their gradients, from the gradient dy of act(gate) · up.
    pub(super) fn gradient<T: Real>(self, gate: &mut [T], up: &mut [T], dy: &[T]) {
        match self {
            Self::Silu => silu_mul_gradient(gate, up, dy),
            Self::Relu2 => relu2_mul_gradient(gate, up, dy),
        }
    }
}

/// max(0, gate)² · up
fn relu2_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let forward = |inputs: &[Tensor]| {
        let [gate, up] = inputs else { bail!("relu2_mul: expected two inputs") };
        gate.relu()?.sqr()? * up
    };
    composed_function(&[gate, up], forward, |inputs, _, grad| {
        let [gate, up] = inputs else { bail!("relu2_mul: expected two inputs") };
        let positive = gate.relu()?;
        let d_gate = ((&positive * up)? * 2.0)?.mul(grad)?;
        Ok(vec![d_gate, positive.sqr()?.mul(grad)?])
    })
}

kernel! { for Activation:
    fn relu2_mul_all<T>(gate: &[T], up: &[T], y: &mut [T]) {
        for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
            let positive = gate.larger(T::zero());
            *y = positive * positive * up;
        }
    }
}

kernel! { for Activation:
    fn relu2_mul_gradient<T>(gate: &mut [T], up: &mut [T], dy: &[T]) {
        for ((gate, up), &dy) in gate.iter_mut().zip(up.iter_mut()).zip(dy) {
            let positive = gate.larger(T::zero());
            *gate = dy * *up * (positive + positive);
            *up = dy * positive * positive;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::check::wave;

    #[test]
    fn kernels_equal_the_tensor_form_and_its_gradients() {
        for act in GateActivation::ALL {
            let [gate, up, dy] = [4.0, 2.0, 1.0].map(|size| {
                candle_core::Var::from_tensor(&(wave(&[301], size).unwrap() - 0.1 * size).unwrap()).unwrap()
            });
            let y = act.mul(&gate, &up).unwrap();
            let grads = (y.clone() * dy.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
            let numbers = |x: &Tensor| x.to_vec1::<f64>().unwrap();
            let (mut d_gate, mut d_up) = (numbers(&gate), numbers(&up));
            let mut ours = vec![0.0; 301];
            act.mul_all(&d_gate, &d_up, &mut ours);
            act.gradient(&mut d_gate, &mut d_up, &numbers(&dy));
            let theirs = [numbers(&y), numbers(grads.get(&gate).unwrap()), numbers(grads.get(&up).unwrap())];
            for (ours, theirs) in [ours, d_gate, d_up].iter().zip(theirs) {
                let far = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(far < 1e-12, "{act:?}: {far}");
            }
        }
    }
}
