//! Norms and pointwise functions.

use crate::EdgeError;
use crate::kernels;
use crate::runtime::{Floats, Output, panels};
use crate::weights::Weights;

/// Numbers of a pointwise function that are worth another thread's attention.
const TASK_LEN: usize = 1 << 13;

/// Layer norm with weight and bias.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl LayerNorm {
    pub(super) fn load(weights: &Weights, name: &str, width: usize, epsilon: f32) -> Result<Self, EdgeError> {
        let weight = weights.vector(&format!("{name}.weight"), width)?;
        let bias = weights.vector(&format!("{name}.bias"), width)?;
        Ok(Self { weight, bias, epsilon })
    }

    /// Of each row of `x` (n, width).
    pub(super) fn apply(&self, x: &[f32]) -> Floats {
        let mut normed = Floats::zeros(x.len());
        let width = self.weight.len();
        for (normed, row) in normed.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let len = row.len() as f32;
            let mean = row.iter().sum::<f32>() / len;
            let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / len;
            let inverse = 1.0 / (variance + self.epsilon).sqrt();
            for (((normed, x), w), b) in normed.iter_mut().zip(row).zip(&self.weight).zip(&self.bias) {
                *normed = (x - mean) * inverse * w + b;
            }
        }
        normed
    }
}

/// Root-mean-square norm. Source: Zhang and Sennrich 2019, arXiv 1910.07467.
#[derive(Debug)]
pub(super) struct RmsNorm {
    weight: Vec<f32>,
    epsilon: f32,
}

impl RmsNorm {
    pub(super) fn load(weights: &Weights, name: &str, width: usize, epsilon: f32) -> Result<Self, EdgeError> {
        Ok(Self { weight: weights.vector(&format!("{name}.weight"), width)?, epsilon })
    }

    /// Of each row of `x` (n, width).
    pub(super) fn apply(&self, x: &[f32]) -> Floats {
        let mut normed = Floats::zeros(x.len());
        let (width, panel_width) = (x.len(), self.weight.len());
        panels(&mut [Output { values: &mut normed, width, panel_width, num_runs: 1 }], |_, mut panel| {
            let row = x.get(panel.columns()).unwrap_or_default();
            let mean_square = (kernels::active().sum_of_squares)(row) / row.len() as f32;
            let inverse = 1.0 / (mean_square + self.epsilon).sqrt();
            for ((normed, x), w) in panel.row_mut(0).iter_mut().zip(row).zip(&self.weight) {
                *normed = x * inverse * w;
            }
        });
        normed
    }
}

/// max(0, x) in place; NaN stays, so that trouble is seen.
pub(super) fn relu(x: &mut [f32]) {
    for x in x {
        if *x < 0.0 {
            *x = 0.0;
        }
    }
}

/// GELU in its tanh form, in place (`gelu_new` in transformers). Source: Hendrycks and Gimpel 2016, arXiv 1606.08415.
pub(super) fn gelu(x: &mut [f32]) {
    // √(2/π)
    const SCALE: f32 = 0.797_884_6;
    for x in x {
        let cube = *x * *x * *x;
        *x *= 0.5 * (1.0 + (SCALE * (*x + 0.044_715 * cube)).tanh());
    }
}

/// gate ← silu(gate) · up, both of one length. Source: Shazeer 2020, arXiv 2002.05202 (SwiGLU).
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    let width = gate.len();
    panels(&mut [Output { values: gate, width, panel_width: TASK_LEN, num_runs: 1 }], |_, mut panel| {
        let up = up.get(panel.columns()).unwrap_or_default();
        (kernels::active().silu_mul)(panel.row_mut(0), up);
    });
}

/// gate ← max(0, gate)² · up, both of one length; NaN stays. Source: So et al. 2021, arXiv 2109.08668 (squared ReLU).
pub(super) fn relu_squared_mul(gate: &mut [f32], up: &[f32]) {
    let width = gate.len();
    panels(&mut [Output { values: gate, width, panel_width: TASK_LEN, num_runs: 1 }], |_, mut panel| {
        let up = up.get(panel.columns()).unwrap_or_default();
        let gate = panel.row_mut(0);
        relu(gate);
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = *gate * *gate * up;
        }
    });
}

/// x ← x + y.
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
