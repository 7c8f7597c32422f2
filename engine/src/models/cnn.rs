//! Small convolutional classifier. Tensor names: `conv.N`, `fc`, `classifier`, each with `weight` and `bias`.

use candle_core::Tensor;

use super::limits::check_positive;
use super::network::{Block, Forward, Init, TensorKind, TensorSpec};
use super::{CnnConfig, LayerInput, ModelError};
use foretrain_ops::{Epilogue, conv2d_relu_pool};

/// One block per convolution (with ReLU and pooling), one for the hidden linear layer, one for the classifier.
pub(super) fn blocks(config: &CnnConfig) -> Result<Vec<Box<dyn Block>>, ModelError> {
    let (mut height, mut width) = config.image_size;
    let mut sizes = vec![
        ("in_channels", config.in_channels),
        ("hidden_size", config.hidden_size),
        ("num_classes", config.num_classes),
    ];
    sizes.extend(config.channels.iter().map(|&channels| ("channels", channels)));
    check_positive(&sizes)?;
    let mut blocks: Vec<Box<dyn Block>> = Vec::new();
    let mut in_channels = config.in_channels;
    for (index, &out_channels) in config.channels.iter().enumerate() {
        blocks.push(Box::new(ConvBlock { name: format!("conv.{index}"), in_channels, out_channels }));
        (in_channels, height, width) = (out_channels, height / 2, width / 2);
    }
    if height == 0 || width == 0 {
        let (h, w) = config.image_size;
        let halvings = config.channels.len();
        return Err(ModelError::Config {
            what: format!("{halvings} halvings leave nothing of {w}x{h} pixels; give `channels` fewer entries"),
        });
    }
    blocks.push(Box::new(LinearBlock {
        name: "fc".to_owned(),
        in_features: in_channels * height * width,
        out_features: config.hidden_size,
        epilogue: Epilogue::Relu,
    }));
    blocks.push(Box::new(LinearBlock {
        name: "classifier".to_owned(),
        in_features: config.hidden_size,
        out_features: config.num_classes,
        epilogue: Epilogue::Identity,
    }));
    Ok(blocks)
}

/// (n, in, h, w) to (n, out, h/2, w/2).
#[derive(Debug)]
struct ConvBlock {
    name: String,
    in_channels: usize,
    out_channels: usize,
}

impl Block for ConvBlock {
    fn name(&self) -> &str {
        &self.name
    }

    fn specs(&self) -> Vec<TensorSpec> {
        // Kaiming for ReLU, fan-in: He et al. 2015, arXiv 1502.01852.
        let std = (2.0 / (self.in_channels * 9) as f64).sqrt();
        vec![
            TensorSpec {
                name: format!("{}.weight", self.name),
                shape: vec![self.out_channels, self.in_channels, 3, 3],
                kind: TensorKind::Matrix,
                init: Init::Normal(std),
            },
            TensorSpec {
                name: format!("{}.bias", self.name),
                shape: vec![self.out_channels],
                kind: TensorKind::Vector,
                init: Init::Constant(0.0),
            },
        ]
    }

    fn forward(&self, pass: &Forward<'_>, input: &Tensor) -> Result<Tensor, ModelError> {
        let name = format!("{}.weight", self.name);
        let weight = pass.params.get(&name)?;
        let bias = pass.params.get(&format!("{}.bias", self.name))?;
        pass.observe(&name, LayerInput::Images { x: input, kernel: (3, 3), stride: 1, padding: 1 })?;
        Ok(conv2d_relu_pool(input, weight, bias, 1)?)
    }
}

/// (n, ...) flattened to (n, in), to (n, out).
#[derive(Debug)]
pub(super) struct LinearBlock {
    pub(super) name: String,
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    pub(super) epilogue: Epilogue,
}

impl Block for LinearBlock {
    fn name(&self) -> &str {
        &self.name
    }

    fn specs(&self) -> Vec<TensorSpec> {
        // Kaiming before a ReLU; the last layer starts smaller, as PyTorch's linear layer does, so that the first
        // logits are near zero and the first loss near ln(classes).
        let fan_in = self.in_features as f64;
        let (kind, init) = match self.epilogue {
            Epilogue::Relu => (TensorKind::Matrix, Init::Normal((2.0 / fan_in).sqrt())),
            Epilogue::Identity => (TensorKind::Head, Init::Uniform((1.0 / fan_in).sqrt())),
        };
        vec![
            TensorSpec {
                name: format!("{}.weight", self.name),
                shape: vec![self.out_features, self.in_features],
                kind,
                init,
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
        let weight = pass.params.get(&name)?;
        let bias = pass.params.get(&format!("{}.bias", self.name))?;
        let x = pass.params.activations_of(&name).read(&input.flatten_from(1)?)?;
        pass.observe(&name, LayerInput::Rows(&x))?;
        let y = x.matmul(&weight.t()?)?.broadcast_add(bias)?;
        Ok(match self.epilogue {
            Epilogue::Relu => y.relu()?,
            Epilogue::Identity => y,
        })
    }
}
