//! Any image classifier.

use std::path::PathBuf;

use super::cnn::Cnn;
use super::config::{ImageConfig, ImageNetwork};
use super::finite::finite;
use super::mlp::Mlp;
use super::resnet::ResNet;
use crate::EdgeError;
use crate::weights::Weights;

/// Channels of an image or of a layer's output, row-major (channels, height, width).
#[derive(Debug, Clone)]
pub(super) struct FeatureMap {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) values: Vec<f32>,
}

/// A loaded image classifier.
#[derive(Debug)]
pub(crate) struct ImageModel {
    config: ImageConfig,
    network: Network,
    /// The file, for errors.
    weights_path: PathBuf,
}

#[derive(Debug)]
enum Network {
    Mlp(Mlp),
    Cnn(Cnn),
    ResNet(ResNet),
}

impl ImageModel {
    /// Errors: [`EdgeError::MissingTensor`], [`EdgeError::Tensor`].
    pub(crate) fn load(config: ImageConfig, weights: &Weights) -> Result<Self, EdgeError> {
        let network = match &config.network {
            ImageNetwork::Mlp { hidden_sizes, is_gelu } => {
                Network::Mlp(Mlp::load(&config, hidden_sizes, *is_gelu, weights)?)
            }
            ImageNetwork::Cnn { channels, hidden_size } => {
                Network::Cnn(Cnn::load(&config, channels, *hidden_size, weights)?)
            }
            ImageNetwork::ResNet { embedding_size, hidden_sizes, depths } => {
                Network::ResNet(ResNet::load(&config, *embedding_size, hidden_sizes, depths, weights)?)
            }
        };
        Ok(Self { config, network, weights_path: weights.path().to_owned() })
    }

    pub(crate) fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// Logits in class order for `pixels` (channels, height, width), 0 to 255.
    ///
    /// Errors: [`EdgeError::Input`] for another number of pixels; [`EdgeError::Format`] for weights that give NaN or
    /// infinity.
    pub(crate) fn logits(&self, pixels: &[u8]) -> Result<Vec<f32>, EdgeError> {
        let ImageConfig { channels, height, width, .. } = self.config;
        let expected = channels * height * width;
        if pixels.len() != expected {
            let expected = format!("{expected} bytes ({channels}, {height}, {width})");
            return Err(EdgeError::input("classifying an image", expected, format!("{} bytes", pixels.len())));
        }
        let mut values = Vec::with_capacity(expected);
        let normalization = self.config.mean.iter().zip(&self.config.std);
        for (channel, (mean, std)) in pixels.chunks_exact(height * width).zip(normalization) {
            values.extend(channel.iter().map(|&pixel| (f32::from(pixel) / 255.0 - mean) / std));
        }
        let image = FeatureMap { channels, height, width, values };
        let logits = match &self.network {
            Network::Mlp(mlp) => mlp.logits(&image),
            Network::Cnn(cnn) => cnn.logits(image),
            Network::ResNet(resnet) => resnet.logits(&image),
        };
        finite(logits, &self.weights_path)
    }
}
