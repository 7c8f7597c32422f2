//! Residual network with basic blocks and a 3x3 stem without pooling. Names follow transformers' `ResNetModel`.
//! Source: He et al. 2015, arXiv 1512.03385.

use super::config::ImageConfig;
use super::conv::{Conv, ConvShape};
use super::image_model::FeatureMap;
use super::linear::Linear;
use super::norm::{add, relu};
use crate::EdgeError;
use crate::weights::Weights;

#[derive(Debug)]
pub(super) struct ResNet {
    stem: Conv,
    blocks: Vec<Block>,
    classifier: Linear,
}

#[derive(Debug)]
struct Block {
    first: Conv,
    second: Conv,
    shortcut: Option<Conv>,
}

impl ResNet {
    pub(super) fn load(
        config: &ImageConfig,
        embedding_size: usize,
        hidden_sizes: &[usize],
        depths: &[usize],
        weights: &Weights,
    ) -> Result<Self, EdgeError> {
        let shape = ConvShape { out_channels: embedding_size, in_channels: config.channels, size: 3, stride: 1 };
        let stem = Conv::load_with_batch_norm(weights, "resnet.embedder.embedder", shape)?;
        let mut blocks = Vec::new();
        let mut in_channels = embedding_size;
        for (stage, (&out_channels, &depth)) in hidden_sizes.iter().zip(depths).enumerate() {
            for number in 0..depth {
                let stride = if stage > 0 && number == 0 { 2 } else { 1 };
                let name = format!("resnet.encoder.stages.{stage}.layers.{number}");
                blocks.push(Block::load(weights, &name, in_channels, out_channels, stride)?);
                in_channels = out_channels;
            }
        }
        let classifier = Linear::load(weights, "classifier.1", config.classes.len(), in_channels)?;
        Ok(Self { stem, blocks, classifier })
    }

    pub(super) fn logits(&self, image: &FeatureMap) -> Vec<f32> {
        let mut x = self.stem.apply(image);
        relu(&mut x.values);
        for block in &self.blocks {
            x = block.apply(&x);
        }
        let num_pixels = (x.height * x.width).max(1);
        let means = x.values.chunks_exact(num_pixels).map(|channel| channel.iter().sum::<f32>() / num_pixels as f32);
        self.classifier.apply(&means.collect::<Vec<_>>()).into_vec()
    }
}

impl Block {
    fn load(
        weights: &Weights,
        name: &str,
        in_channels: usize,
        out_channels: usize,
        stride: usize,
    ) -> Result<Self, EdgeError> {
        let first = ConvShape { out_channels, in_channels, size: 3, stride };
        let second = ConvShape { out_channels, in_channels: out_channels, size: 3, stride: 1 };
        let has_shortcut = in_channels != out_channels || stride != 1;
        let shortcut = ConvShape { size: 1, ..first };
        Ok(Self {
            first: Conv::load_with_batch_norm(weights, &format!("{name}.layer.0"), first)?,
            second: Conv::load_with_batch_norm(weights, &format!("{name}.layer.1"), second)?,
            shortcut: if has_shortcut {
                Some(Conv::load_with_batch_norm(weights, &format!("{name}.shortcut"), shortcut)?)
            } else {
                None
            },
        })
    }

    fn apply(&self, x: &FeatureMap) -> FeatureMap {
        let mut y = self.first.apply(x);
        relu(&mut y.values);
        let mut y = self.second.apply(&y);
        match &self.shortcut {
            Some(shortcut) => add(&mut y.values, &shortcut.apply(x).values),
            None => add(&mut y.values, &x.values),
        }
        relu(&mut y.values);
        y
    }
}
