//! Multilayer perceptron on flattened images. Tensor names are those of a PyTorch `nn.Sequential`
//! called `layers`.

use candle_core::Tensor;

use super::limits::check_positive;
use super::network::{Block, Forward, Init, TensorKind, TensorSpec};
use super::{Activation, LayerInput, MlpConfig, ModelError};

/// One block per linear layer; (n, ...) is flattened to (n, features) on entry.
pub(super) fn blocks(config: &MlpConfig) -> Result<Vec<Box<dyn Block>>, ModelError> {
    let (height, width) = config.image_size;
    let ends =
        [("in_channels", config.in_channels), ("image_size", height.min(width)), ("num_classes", config.num_classes)];
    check_positive(&ends)?;
    check_positive(&config.hidden_sizes.iter().map(|&size| ("hidden_sizes", size)).collect::<Vec<_>>())?;
    let mut sizes = vec![config.in_channels * height * width];
    sizes.extend(&config.hidden_sizes);
    sizes.push(config.num_classes);
    let last = sizes.len() - 2;
    let layers = sizes.windows(2).enumerate().map(|(index, pair)| {
        let block: Box<dyn Block> = Box::new(LinearBlock {
            name: format!("layers.{index}"),
            in_features: pair[0],
            out_features: pair[1],
            activation: (index < last).then_some(config.activation),
        });
        block
    });
    Ok(layers.collect())
}

#[derive(Debug)]
struct LinearBlock {
    name: String,
    in_features: usize,
    out_features: usize,
    /// `None` in the last layer.
    activation: Option<Activation>,
}

impl Block for LinearBlock {
    fn name(&self) -> &str {
        &self.name
    }

    fn specs(&self) -> Vec<TensorSpec> {
        let gain = if self.activation.is_some() { 6.0 } else { 3.0 };
        let bound = (gain / self.in_features as f64).sqrt();
        let kind = if self.activation.is_some() { TensorKind::Matrix } else { TensorKind::Head };
        vec![
            TensorSpec {
                name: format!("{}.weight", self.name),
                shape: vec![self.out_features, self.in_features],
                kind,
                init: Init::Uniform(bound),
            },
            TensorSpec {
                name: format!("{}.bias", self.name),
                shape: vec![self.out_features],
                kind: TensorKind::Vector,
                init: Init::Constant(0.0),
            },
        ]
    }

    fn forward(&self, pass: &Forward<'_>, input: &Tensor) -> Result<Tensor, ModelError> {
        let name = format!("{}.weight", self.name);
        let x = pass.params.activations_of(&name).read(&input.flatten_from(1)?)?;
        let weight = pass.params.get(&name)?;
        let bias = pass.params.get(&format!("{}.bias", self.name))?;
        pass.observe(&name, LayerInput::Rows(&x))?;
        let y = x.matmul(&weight.t()?)?.broadcast_add(bias)?;
        Ok(match self.activation {
            Some(Activation::Relu) => y.relu()?,
            Some(Activation::Gelu) => y.gelu()?,
            None => y,
        })
    }
}
