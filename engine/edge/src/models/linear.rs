//! A matrix with an optional bias.

use super::norm::add;
use crate::EdgeError;
use crate::runtime::Floats;
use crate::weights::{Layout, Matrix, Weights};

/// y = s·W·x + b.
#[derive(Debug)]
pub(super) struct Linear {
    matrix: Matrix,
    bias: Option<Vec<f32>>,
    /// Of the whole matrix, where a converter keeps it apart.
    scale: Option<f32>,
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
        Ok(Self { matrix, bias: Some(weights.vector(&format!("{name}.bias"), out)?), scale: None })
    }

    /// `NAME.weight` (out, in), and `NAME.scale` (1) where there is one: llama.cpp keeps a ternary matrix's scale there.
    pub(super) fn load_without_bias(
        weights: &Weights,
        name: &str,
        out: usize,
        input: usize,
    ) -> Result<Self, EdgeError> {
        let matrix = weights.matrix(&format!("{name}.weight"), out, &[input], Layout::OutputMajor)?;
        let scale_name = format!("{name}.scale");
        let scale = weights.contains(&scale_name).then(|| weights.vector(&scale_name, 1)).transpose()?;
        Ok(Self { matrix, bias: None, scale: scale.and_then(|scale| scale.first().copied()) })
    }

    /// The matrix without the bias.
    pub(super) fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// Tells idle threads that `layers` read the same `n` inputs next.
    pub(super) fn fetch_ahead<const N: usize>(layers: [&Self; N], n: usize) {
        Matrix::fetch_ahead(&layers.map(Self::matrix), n);
    }

    /// `x` (n, in) becomes (n, out).
    pub(super) fn apply(&self, x: &[f32]) -> Floats {
        let [y] = Self::apply_together([self], x);
        y
    }

    /// `x` (n, in) through each of `layers`, which read the same inputs.
    pub(super) fn apply_together<const N: usize>(layers: [&Self; N], x: &[f32]) -> [Floats; N] {
        let mut outputs = Matrix::apply_together(layers.map(Self::matrix), x);
        for (output, layer) in outputs.iter_mut().zip(layers) {
            if let Some(scale) = layer.scale {
                output.iter_mut().for_each(|y| *y *= scale);
            }
            if let Some(bias) = &layer.bias {
                for row in output.chunks_exact_mut(bias.len()) {
                    add(row, bias);
                }
            }
        }
        outputs
    }
}
