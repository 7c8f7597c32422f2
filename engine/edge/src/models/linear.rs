//! A matrix with an optional bias.

use super::norm::add;
use crate::EdgeError;
use crate::weights::{Layout, Matrix, Weights};

/// y = W·x + b.
#[derive(Debug)]
pub(super) struct Linear {
    matrix: Matrix,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// `NAME.weight` (out, in) and `NAME.bias` (out).
    pub(super) fn load(weights: &Weights, name: &str, out: usize, input: usize) -> Result<Self, EdgeError> {
        Self::load_laid_out(weights, name, out, input, Layout::OutputMajor)
    }

    /// As [`Linear::load`], with the float layout of the checkpoint.
    pub(super) fn load_laid_out(
        weights: &Weights,
        name: &str,
        out: usize,
        input: usize,
        layout: Layout,
    ) -> Result<Self, EdgeError> {
        let matrix = weights.matrix(&format!("{name}.weight"), out, &[input], layout)?;
        Ok(Self { matrix, bias: Some(weights.vector(&format!("{name}.bias"), out)?) })
    }

    /// `NAME.weight` (out, in) alone.
    pub(super) fn load_without_bias(
        weights: &Weights,
        name: &str,
        out: usize,
        input: usize,
    ) -> Result<Self, EdgeError> {
        let matrix = weights.matrix(&format!("{name}.weight"), out, &[input], Layout::OutputMajor)?;
        Ok(Self { matrix, bias: None })
    }

    /// `x` (n, in) becomes (n, out).
    pub(super) fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut y = self.matrix.apply(x);
        if let Some(bias) = &self.bias {
            for row in y.chunks_exact_mut(bias.len()) {
                add(row, bias);
            }
        }
        y
    }
}
