//! Convolutions as matrix products over patches (im2col), with batch norm folded into the output.

use super::image_model::FeatureMap;
use crate::EdgeError;
use crate::weights::{Layout, Matrix, Weights};

/// Added to a batch norm's variance.
const BATCH_NORM_EPSILON: f32 = 1e-5;
/// Numbers in a tile of patches, so that memory does not grow with the image.
const MAX_TILE_LEN: usize = 1 << 20;
/// Patches in a tile, so that the sums of a few rows with all of them stay in a cache.
const MAX_TILE_PATCHES: usize = 1 << 11;

/// A square convolution: y = scale · (W * x) + offset, per output channel.
#[derive(Debug)]
pub(super) struct Conv {
    matrix: Matrix,
    scale: Vec<f32>,
    offset: Vec<f32>,
    shape: ConvShape,
}

/// The numbers of a convolution; padding is `(size - 1) / 2`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvShape {
    pub(super) out_channels: usize,
    pub(super) in_channels: usize,
    /// Height and width of the kernel: 1 or 3.
    pub(super) size: usize,
    pub(super) stride: usize,
}

impl Conv {
    /// `NAME.weight` (out, in, size, size) and `NAME.bias` (out).
    pub(super) fn load_with_bias(weights: &Weights, name: &str, shape: ConvShape) -> Result<Self, EdgeError> {
        let offset = weights.vector(&format!("{name}.bias"), shape.out_channels)?;
        let scale = vec![1.0; shape.out_channels];
        Ok(Self { matrix: load_matrix(weights, &format!("{name}.weight"), shape)?, scale, offset, shape })
    }

    /// `NAME.convolution.weight`, followed by the batch norm `NAME.normalization` in evaluation mode:
    /// (y - mean) / √(var + 1e-5) · weight + bias. Folding it into scale and offset keeps integer weights as they are.
    pub(super) fn load_with_batch_norm(weights: &Weights, name: &str, shape: ConvShape) -> Result<Self, EdgeError> {
        let vector = |part: &str| weights.vector(&format!("{name}.normalization.{part}"), shape.out_channels);
        let (weight, bias, mean, variance) =
            (vector("weight")?, vector("bias")?, vector("running_mean")?, vector("running_var")?);
        let scale: Vec<f32> = weight.iter().zip(&variance).map(|(w, v)| w / (v + BATCH_NORM_EPSILON).sqrt()).collect();
        let offset = bias.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        Ok(Self { matrix: load_matrix(weights, &format!("{name}.convolution.weight"), shape)?, scale, offset, shape })
    }

    /// (in, h, w) becomes (out, ⌈h / stride⌉, ⌈w / stride⌉).
    pub(super) fn apply(&self, input: &FeatureMap) -> FeatureMap {
        let ConvShape { out_channels, stride, .. } = self.shape;
        let (height, width) = (input.height.div_ceil(stride), input.width.div_ceil(stride));
        let num_pixels = height * width;
        let mut output =
            FeatureMap { channels: out_channels, height, width, values: vec![0.0; out_channels * num_pixels] };
        let tile = (MAX_TILE_LEN / self.matrix.cols()).min(MAX_TILE_PATCHES).clamp(1, num_pixels.max(1));
        let mut patches = vec![0.0; tile * self.matrix.cols()];
        for start in (0..num_pixels).step_by(tile) {
            let count = tile.min(num_pixels - start);
            let patches = &mut patches[..count * self.matrix.cols()];
            for (number, patch) in patches.chunks_exact_mut(self.matrix.cols()).enumerate() {
                let pixel = start + number;
                self.copy_patch(input, pixel / width * stride, pixel % width * stride, patch);
            }
            let products = self.matrix.apply(patches);
            let channels = output.values.chunks_exact_mut(num_pixels).zip(self.scale.iter().zip(&self.offset));
            for (channel, (out, (scale, offset))) in channels.enumerate() {
                let products = products.iter().skip(channel).step_by(out_channels);
                for (out, product) in out.iter_mut().skip(start).zip(products) {
                    *out = product * scale + offset;
                }
            }
        }
        output
    }

    /// The input around row `y`, column `x`, as (in, size, size); zeros beyond the border.
    fn copy_patch(&self, input: &FeatureMap, y: usize, x: usize, patch: &mut [f32]) {
        let size = self.shape.size;
        let padding = (size - 1) / 2;
        let channels = input.values.chunks_exact(input.height * input.width);
        for (channel, patch) in channels.zip(patch.chunks_exact_mut(size * size)) {
            for (ky, line) in patch.chunks_exact_mut(size).enumerate() {
                let row = (y + ky).checked_sub(padding).filter(|&row| row < input.height);
                let row = row.and_then(|row| channel.get(row * input.width..(row + 1) * input.width));
                for (kx, value) in line.iter_mut().enumerate() {
                    let col = (x + kx).checked_sub(padding);
                    *value = row.zip(col).and_then(|(row, col)| row.get(col)).copied().unwrap_or(0.0);
                }
            }
        }
    }
}

fn load_matrix(weights: &Weights, name: &str, shape: ConvShape) -> Result<Matrix, EdgeError> {
    let ConvShape { out_channels, in_channels, size, .. } = shape;
    weights.matrix(name, out_channels, &[in_channels, size, size], Layout::OutputMajor)
}
