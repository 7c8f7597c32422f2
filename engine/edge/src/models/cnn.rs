//! Small convolutional classifier: `conv.N` (3x3, ReLU, 2x2 max pool), `fc` with ReLU, `classifier`.

use super::config::ImageConfig;
use super::conv::{Conv, ConvShape};
use super::image_model::FeatureMap;
use super::linear::Linear;
use super::norm::relu;
use crate::EdgeError;
use crate::weights::Weights;

#[derive(Debug)]
pub(super) struct Cnn {
    convs: Vec<Conv>,
    fc: Linear,
    classifier: Linear,
}

impl Cnn {
    pub(super) fn load(
        config: &ImageConfig,
        channels: &[usize],
        hidden_size: usize,
        weights: &Weights,
    ) -> Result<Self, EdgeError> {
        let mut convs = Vec::new();
        let (mut in_channels, mut height, mut width) = (config.channels, config.height, config.width);
        for (number, &out_channels) in channels.iter().enumerate() {
            let shape = ConvShape { out_channels, in_channels, size: 3, stride: 1 };
            convs.push(Conv::load_with_bias(weights, &format!("conv.{number}"), shape)?);
            (in_channels, height, width) = (out_channels, height / 2, width / 2);
        }
        let fc = Linear::load(weights, "fc", hidden_size, in_channels * height * width)?;
        let classifier = Linear::load(weights, "classifier", config.classes.len(), hidden_size)?;
        Ok(Self { convs, fc, classifier })
    }

    pub(super) fn logits(&self, image: FeatureMap) -> Vec<f32> {
        let mut x = image;
        for conv in &self.convs {
            let mut y = conv.apply(&x);
            relu(&mut y.values);
            x = max_pool(&y);
        }
        let mut hidden = self.fc.apply(&x.values);
        relu(&mut hidden);
        self.classifier.apply(&hidden).into_vec()
    }
}

/// The largest of each 2x2 square, or NaN when it holds one, so that trouble is seen; an odd last row or column is
/// dropped.
fn max_pool(input: &FeatureMap) -> FeatureMap {
    let (height, width) = (input.height / 2, input.width / 2);
    let mut values = Vec::with_capacity(input.channels * height * width);
    for channel in input.values.chunks_exact(input.height * input.width) {
        for rows in channel.chunks_exact(2 * input.width) {
            let (top, bottom) = rows.split_at(input.width);
            let squares = top.as_chunks::<2>().0.iter().zip(bottom.as_chunks::<2>().0);
            values.extend(squares.map(|([a, b], [c, d])| larger(larger(*a, *b), larger(*c, *d))));
        }
    }
    FeatureMap { channels: input.channels, height, width, values }
}

/// The larger number, or NaN when one of them is; `f32::max` would drop it.
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}
