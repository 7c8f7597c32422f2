//! Fully connected classifier: `layers.N.{weight,bias}` with a nonlinearity between layers.

use super::config::ImageConfig;
use super::image_model::FeatureMap;
use super::linear::Linear;
use super::norm::{gelu, relu};
use crate::EdgeError;
use crate::weights::Weights;

#[derive(Debug)]
pub(super) struct Mlp {
    layers: Vec<Linear>,
    is_gelu: bool,
}

impl Mlp {
    pub(super) fn load(
        config: &ImageConfig,
        hidden_sizes: &[usize],
        is_gelu: bool,
        weights: &Weights,
    ) -> Result<Self, EdgeError> {
        let mut layers = Vec::new();
        let mut input = config.channels * config.height * config.width;
        for (number, &out) in hidden_sizes.iter().chain([&config.classes.len()]).enumerate() {
            layers.push(Linear::load(weights, &format!("layers.{number}"), out, input)?);
            input = out;
        }
        Ok(Self { layers, is_gelu })
    }

    pub(super) fn logits(&self, image: &FeatureMap) -> Vec<f32> {
        let mut x = image.values.clone();
        for (number, layer) in self.layers.iter().enumerate() {
            if number > 0 {
                if self.is_gelu { gelu(&mut x) } else { relu(&mut x) }
            }
            x = layer.apply(&x).into_vec();
        }
        x
    }
}
