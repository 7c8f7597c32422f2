//! Residual networks with basic blocks, in the tensor names of transformers' `ResNetForImageClassification`.
//!
//! Shortcuts that change the shape are a 1x1 convolution with batch norm, as in transformers and in ResNet-18;
//! the ResNet-20 of He et al. 2015 pads with zeros there (their option A) and so has 2,752 weights fewer.

use candle_core::Tensor;

use super::cnn::LinearBlock;
use super::network::{Block, Forward, Init, Mode, TensorKind, TensorSpec};
use super::ops::batch_norm::{Affine, Moments};
use super::ops::conv2d::Conv2dConfig;
use super::ops::{Epilogue, batch_norm, batch_norm_by, conv2d, global_avg_pool};
use super::{ModelError, ResNetConfig};

/// Added to the variance, as in PyTorch.
const EPS: f64 = 1e-5;

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
    let ends = [config.num_channels, config.embedding_size, config.num_classes, height, width];
    if ends.contains(&0) || config.hidden_sizes.contains(&0) || config.depths.contains(&0) {
        return Err(ModelError::Config { what: format!("every size must be positive, found {config:?}") });
    }
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

    /// (n, in, h, w) to (n, out, h/stride, w/stride), rounded up.
    fn forward(&self, pass: &Forward<'_>, x: &Tensor, epilogue: Epilogue) -> Result<Tensor, ModelError> {
        let params = pass.params;
        let norm = format!("{}.normalization", self.name);
        let config = Conv2dConfig { stride: self.stride, padding: self.kernel / 2, epilogue: Epilogue::Identity };
        let y = conv2d(x, params.get(&format!("{}.convolution.weight", self.name))?, None, config)?;
        let affine = Affine {
            weight: params.get(&format!("{norm}.weight"))?,
            bias: params.get(&format!("{norm}.bias"))?,
            eps: EPS,
            epilogue,
        };
        match pass.mode {
            Mode::Train => {
                let (y, moments) = batch_norm(&y, affine)?;
                report(pass, &norm, &moments)?;
                Ok(y)
            }
            Mode::Eval => {
                let mean = params.get(&format!("{norm}.running_mean"))?;
                let var = params.get(&format!("{norm}.running_var"))?;
                Ok(batch_norm_by(&y, mean, var, affine)?)
            }
            Mode::Sampled(stats) => {
                let (mean, var) = (stats.get(&format!("{norm}.mean"))?, stats.get(&format!("{norm}.var"))?);
                Ok(batch_norm_by(&y, mean, var, affine)?)
            }
        }
    }
}

/// Reports mean, biased variance and count (one f64) of a batch-norm layer.
fn report(pass: &Forward<'_>, norm: &str, moments: &Moments) -> Result<(), ModelError> {
    pass.report_stat(format!("{norm}.mean"), moments.mean.clone());
    pass.report_stat(format!("{norm}.var"), moments.var.clone());
    let count = Tensor::new(moments.count as f64, moments.mean.device())?;
    pass.report_stat(format!("{norm}.count"), count);
    Ok(())
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
        self.0.forward(pass, input, Epilogue::Relu)
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
        let y = self.layers[0].forward(pass, input, Epilogue::Relu)?;
        let y = self.layers[1].forward(pass, &y, Epilogue::Identity)?;
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.forward(pass, input, Epilogue::Identity)?,
            None => input.clone(),
        };
        Ok((y + shortcut)?.relu()?)
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
        self.0.forward(pass, &global_avg_pool(input)?)
    }
}
