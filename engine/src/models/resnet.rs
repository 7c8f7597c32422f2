//! Residual networks with basic blocks, in the tensor names of transformers' `ResNetForImageClassification`.
//!
//! Shortcuts that change the shape are a 1x1 convolution with batch norm, as in transformers and in ResNet-18;
//! the ResNet-20 of He et al. 2015 pads with zeros there (their option A) and so has 2,752 weights fewer.

use candle_core::Tensor;

use super::cnn::LinearBlock;
use super::limits::check_positive;
use super::network::{Block, Forward, Init, Mode, TensorKind, TensorSpec};
use super::ops::{self, Epilogue};
use super::{LayerInput, ModelError, ResNetConfig};
use foretrain_ops::batch_norm::{Moments, ResidualBlock, Statistics};

/// Added to the variance in batch norm, as in PyTorch.
pub const BATCH_NORM_EPS: f64 = 1e-5;

/// The stem, each residual block, the head.
pub(super) fn blocks(config: &ResNetConfig) -> Result<Vec<Box<dyn Block>>, ModelError> {
    check(config)?;
    let mut blocks: Vec<Box<dyn Block>> = vec![Box::new(Stem(ConvNorm {
        name: "resnet.embedder.embedder".to_owned(),
        in_channels: config.num_channels,
        out_channels: config.embedding_size,
        kernel: 3,
        stride: 1,
    }))];
    let mut channels = config.embedding_size;
    for (stage, (&out_channels, &depth)) in config.hidden_sizes.iter().zip(&config.depths).enumerate() {
        for layer in 0..depth {
            let stride = if stage > 0 && layer == 0 { 2 } else { 1 };
            let name = format!("resnet.encoder.stages.{stage}.layers.{layer}");
            blocks.push(Box::new(BasicBlock::new(name, channels, out_channels, stride)));
            channels = out_channels;
        }
    }
    blocks.push(Box::new(Head(LinearBlock {
        name: "classifier.1".to_owned(),
        in_features: channels,
        out_features: config.num_classes,
        epilogue: Epilogue::Identity,
    })));
    Ok(blocks)
}

fn check(config: &ResNetConfig) -> Result<(), ModelError> {
    let (height, width) = config.image_size;
    let mut sizes = vec![
        ("num_channels", config.num_channels),
        ("embedding_size", config.embedding_size),
        ("num_classes", config.num_classes),
        ("image_size", height.min(width)),
    ];
    sizes.extend(config.hidden_sizes.iter().map(|&size| ("hidden_sizes", size)));
    sizes.extend(config.depths.iter().map(|&depth| ("depths", depth)));
    check_positive(&sizes)?;
    if config.hidden_sizes.is_empty() || config.hidden_sizes.len() != config.depths.len() {
        let (sizes, depths) = (config.hidden_sizes.len(), config.depths.len());
        return Err(ModelError::Config {
            what: format!("`hidden_sizes` and `depths` need one entry per stage, found {sizes} and {depths}"),
        });
    }
    Ok(())
}

/// A convolution without bias, then batch norm.
#[derive(Debug)]
struct ConvNorm {
    name: String,
    in_channels: usize,
    out_channels: usize,
    kernel: usize,
    stride: usize,
}

impl ConvNorm {
    fn specs(&self) -> Vec<TensorSpec> {
        let name = &self.name;
        // Kaiming for ReLU, fan-out, as in torchvision and transformers: He et al. 2015, arXiv 1502.01852.
        let std = (2.0 / (self.out_channels * self.kernel * self.kernel) as f64).sqrt();
        let per_channel = |suffix: &str, kind, value| TensorSpec {
            name: format!("{name}.normalization.{suffix}"),
            shape: vec![self.out_channels],
            kind,
            init: Init::Constant(value),
        };
        vec![
            TensorSpec {
                name: format!("{name}.convolution.weight"),
                shape: vec![self.out_channels, self.in_channels, self.kernel, self.kernel],
                kind: TensorKind::Matrix,
                init: Init::Normal(std),
            },
            per_channel("weight", TensorKind::Vector, 1.0),
            per_channel("bias", TensorKind::Vector, 0.0),
            per_channel("running_mean", TensorKind::Buffer, 0.0),
            per_channel("running_var", TensorKind::Buffer, 1.0),
        ]
    }

    /// The layer's tensors in `pass`, for an operation from (n, in, h, w) to (n, out, h/stride, w/stride), rounded up.
    fn layer<'a>(&self, pass: &Forward<'a>) -> Result<ops::batch_norm::ConvNorm<'a>, ModelError> {
        let params = pass.params;
        let norm = format!("{}.normalization", self.name);
        let statistics = match pass.mode {
            Mode::Train => Statistics::Batch,
            Mode::Eval => Statistics::Given {
                mean: params.get(&format!("{norm}.running_mean"))?,
                var: params.get(&format!("{norm}.running_var"))?,
            },
            Mode::Sampled(stats) => {
                Statistics::Given { mean: stats.get(&format!("{norm}.mean"))?, var: stats.get(&format!("{norm}.var"))? }
            }
        };
        Ok(ops::batch_norm::ConvNorm {
            weight: params.get(&format!("{}.convolution.weight", self.name))?,
            scale: params.get(&format!("{norm}.weight"))?,
            shift: params.get(&format!("{norm}.bias"))?,
            stride: self.stride,
            padding: self.kernel / 2,
            eps: BATCH_NORM_EPS,
            statistics,
        })
    }

    /// Tells an observer that this layer reads `x`.
    fn observe(&self, pass: &Forward<'_>, x: &Tensor) -> Result<(), ModelError> {
        let input =
            LayerInput::Images { x, kernel: (self.kernel, self.kernel), stride: self.stride, padding: self.kernel / 2 };
        Ok(pass.observe(&format!("{}.convolution.weight", self.name), input)?)
    }

    /// Reports mean, biased variance and count (one f64), when the batch was the statistics.
    fn report(&self, pass: &Forward<'_>, moments: Option<Moments>) -> Result<(), ModelError> {
        let Some(Moments { mean, var, count }) = moments else { return Ok(()) };
        let norm = format!("{}.normalization", self.name);
        pass.report_stat(format!("{norm}.count"), Tensor::new(count as f64, mean.device())?);
        pass.report_stat(format!("{norm}.mean"), mean);
        pass.report_stat(format!("{norm}.var"), var);
        Ok(())
    }
}

/// (n, c, h, w) to (n, embedding, h, w).
#[derive(Debug)]
struct Stem(ConvNorm);

impl Block for Stem {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn specs(&self) -> Vec<TensorSpec> {
        self.0.specs()
    }

    fn forward(&self, pass: &Forward<'_>, input: &Tensor) -> Result<Tensor, ModelError> {
        self.0.observe(pass, input)?;
        let (y, moments) = ops::conv_norm(input, self.0.layer(pass)?, Epilogue::Relu)?;
        self.0.report(pass, moments)?;
        Ok(y)
    }
}

/// Two 3x3 convolutions around a shortcut: (n, in, h, w) to (n, out, h/stride, w/stride), rounded up.
#[derive(Debug)]
struct BasicBlock {
    name: String,
    layers: [ConvNorm; 2],
    /// Present when the shape changes.
    shortcut: Option<ConvNorm>,
}

impl BasicBlock {
    fn new(name: String, in_channels: usize, out_channels: usize, stride: usize) -> Self {
        let layer = |index, in_channels, stride| ConvNorm {
            name: format!("{name}.layer.{index}"),
            in_channels,
            out_channels,
            kernel: 3,
            stride,
        };
        let layers = [layer(0, in_channels, stride), layer(1, out_channels, 1)];
        let shortcut = (in_channels != out_channels || stride != 1).then(|| ConvNorm {
            name: format!("{name}.shortcut"),
            in_channels,
            out_channels,
            kernel: 1,
            stride,
        });
        Self { name, layers, shortcut }
    }
}

impl Block for BasicBlock {
    fn name(&self) -> &str {
        &self.name
    }

    fn specs(&self) -> Vec<TensorSpec> {
        self.layers.iter().chain(&self.shortcut).flat_map(ConvNorm::specs).collect()
    }

    fn forward(&self, pass: &Forward<'_>, input: &Tensor) -> Result<Tensor, ModelError> {
        let shortcut = self.shortcut.as_ref().map(|shortcut| shortcut.layer(pass)).transpose()?;
        let [first, second] = &self.layers;
        if pass.is_observed() {
            // What the second convolution reads never leaves the fused operation, so it is computed once more.
            let (middle, _) = ops::conv_norm(input, first.layer(pass)?, Epilogue::Relu)?;
            first.observe(pass, input)?;
            second.observe(pass, &middle)?;
            self.shortcut.as_ref().map_or(Ok(()), |shortcut| shortcut.observe(pass, input))?;
        }
        let block = ResidualBlock { first: first.layer(pass)?, second: second.layer(pass)?, shortcut };
        let (y, moments) = ops::residual_block(input, block)?;
        for (layer, moments) in self.layers.iter().chain(&self.shortcut).zip(moments) {
            layer.report(pass, moments)?;
        }
        Ok(y)
    }
}

/// (n, c, h, w), averaged over pixels, to (n, classes).
#[derive(Debug)]
struct Head(LinearBlock);

impl Block for Head {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn specs(&self) -> Vec<TensorSpec> {
        self.0.specs()
    }

    fn forward(&self, pass: &Forward<'_>, input: &Tensor) -> Result<Tensor, ModelError> {
        self.0.forward(pass, &ops::global_avg_pool(input)?)
    }
}
