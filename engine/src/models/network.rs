//! A network: blocks applied in order, reading their weights from [`Params`].

use std::cell::RefCell;
use std::collections::BTreeSet;

use candle_core::{DType, Device, Tensor};
use rand::RngExt;

use super::{InputObserver, LayerInput, ModelConfig, ModelError, Params, cnn, gpt2, limits, llama, mlp, resnet};
use crate::device::seed::{Stream, stream};
use foretrain_ops::{HeadLoss, HeadTargets, Kept, Precision, head_loss, linear};

/// What a tensor is to the optimizer and the quantizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// Weight of a hidden linear layer or convolution, applied as a matrix: Muon moves it, quantization shrinks it.
    Matrix,
    /// Token or position embedding.
    Embedding,
    /// Weight of the last layer.
    Head,
    /// Bias or norm scale.
    Vector,
    /// Not trained by gradient: batch-norm running statistics.
    Buffer,
}

/// Initial distribution of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All the same.
    Constant(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform in ± this bound.
    Uniform(f64),
}

/// Name, shape and role of one tensor, known before it exists.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// Full name, as in a checkpoint.
    pub name: String,
    /// Shape, as in a checkpoint.
    pub shape: Vec<usize>,
    /// Role.
    pub kind: TensorKind,
    /// Initial distribution.
    pub init: Init,
}

impl TensorSpec {
    /// How many numbers it holds.
    #[must_use]
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Most logits that are there at once in training (128 MB in f32): the head of a language model goes through as many
/// tokens at a time.
pub const MAX_LOGITS: usize = 32 << 20;

/// Statistics of a batch, by batch-norm layer: `name.mean` and `name.var`, shape (channels).
pub type BatchStats = Params;

/// What a forward pass is for.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// Training: batch norm uses the batch and reports its statistics.
    Train,
    /// Evaluation: batch norm uses its running statistics.
    Eval,
    /// Training on a sample of a batch whose statistics were taken from all of it.
    Sampled(&'a BatchStats),
}

/// Weights and mode of one forward pass; collects what batch norm saw.
#[derive(Debug)]
pub struct Forward<'a> {
    /// Weights and buffers.
    pub params: &'a Params,
    /// Purpose.
    pub mode: Mode<'a>,
    /// Of matrix products.
    pub precision: Precision,
    stats: RefCell<BatchStats>,
    observer: Option<&'a dyn InputObserver>,
    goal: Option<HeadTargets<'a>>,
    head_loss: RefCell<Option<HeadLoss>>,
}

impl<'a> Forward<'a> {
    /// A pass over `params`, with products in f32.
    #[must_use]
    pub fn new(params: &'a Params, mode: Mode<'a>) -> Self {
        Self {
            params,
            mode,
            precision: Precision::F32,
            stats: RefCell::default(),
            observer: None,
            goal: None,
            head_loss: RefCell::default(),
        }
    }

    /// The same pass, with products of this precision, in the blocks that [`ModelConfig::has_bf16_products`] tells of.
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The same pass, with `observer` told what each layer reads.
    #[must_use]
    pub fn observed_by(self, observer: &'a dyn InputObserver) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// The same pass, whose network computes no logits, but what they would be measured to be. Networks of images compute
    /// logits all the same.
    #[must_use]
    pub fn measured_by(self, goal: HeadTargets<'a>) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// The last layer of a language model: x (..., c), weight (v, c), to logits (..., v); where the pass is
    /// [`Self::measured_by`] something, to the total of its losses instead, and [`Self::take_head_loss`] has the rest.
    pub(super) fn head(&self, x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
        let Some(goal) = &self.goal else {
            return linear(x, weight, self.precision);
        };
        let measured = head_loss(x, weight, goal, self.precision)?;
        let total = measured.total.clone();
        *self.head_loss.borrow_mut() = Some(measured);
        Ok(total)
    }

    /// What the last layer was measured to be; `None` where the network gave logits.
    #[must_use]
    pub fn take_head_loss(&self) -> Option<HeadLoss> {
        self.head_loss.borrow_mut().take()
    }

    /// True when somebody wants to know what each layer reads.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.observer.is_some()
    }

    /// The layer whose weight is called `weight` reads `input`.
    pub fn observe(&self, weight: &str, input: LayerInput<'_>) -> candle_core::Result<()> {
        self.observer.map_or(Ok(()), |observer| observer.observe(weight, input))
    }

    /// Batch norm reports a statistic of this batch.
    pub fn report_stat(&self, name: String, value: Tensor) {
        self.stats.borrow_mut().insert(name, value);
    }

    /// What batch norm saw in this pass.
    #[must_use]
    pub fn into_stats(self) -> BatchStats {
        self.stats.into_inner()
    }
}

/// One step of a network. Blocks are the unit of checkpointing, streaming and offload.
pub trait Block: std::fmt::Debug + Send + Sync {
    /// Prefix of its tensors' names, or a plain name for a block without any.
    fn name(&self) -> &str;
    /// Its tensors. A tensor used by two blocks (a tied head) is listed by the first.
    fn specs(&self) -> Vec<TensorSpec>;
    /// Names of tensors that it reads and an earlier block lists.
    fn borrows(&self) -> Vec<String> {
        Vec::new()
    }
    /// Input to output. Shapes are the network's business; each block documents its own.
    fn forward(&self, pass: &Forward<'_>, input: &Tensor) -> Result<Tensor, ModelError>;
}

/// Blocks in order, from input to logits.
#[derive(Debug)]
pub struct Network {
    config: ModelConfig,
    kept: Kept,
    blocks: Vec<Box<dyn Block>>,
}

impl Network {
    /// Builds the blocks; allocates no weights.
    /// Errors: [`ModelError::Config`] for numbers that do not go together, or that no machine could hold.
    pub fn new(config: &ModelConfig) -> Result<Self, ModelError> {
        Self::keeping(config, Kept::Activations)
    }

    /// [`Self::new`] whose transformer layers keep so much for the backward pass.
    /// Errors: as there, and [`ModelError::Config`] for networks of images, which keep activations only.
    pub fn keeping(config: &ModelConfig, kept: Kept) -> Result<Self, ModelError> {
        if kept != Kept::Activations && config.max_positions().is_none() {
            let what = "activation checkpointing: expected a language model, found one of images, whose layers keep what \
                        they computed";
            return Err(ModelError::Config { what: what.to_owned() });
        }
        limits::check_config(config)?;
        let blocks = match config {
            ModelConfig::Mlp(c) => mlp::blocks(c)?,
            ModelConfig::Cnn(c) => cnn::blocks(c)?,
            ModelConfig::ResNet(c) => resnet::blocks(c)?,
            ModelConfig::Gpt2(c) => gpt2::blocks(c, kept)?,
            ModelConfig::Llama(c) => llama::blocks(c, kept)?,
        };
        let network = Self { config: config.clone(), kept, blocks };
        limits::check_tensors(&network.specs())?;
        Ok(network)
    }

    /// The config it was built from.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What transformer layers keep for the backward pass.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// Blocks in order.
    #[must_use]
    pub fn blocks(&self) -> &[Box<dyn Block>] {
        &self.blocks
    }

    /// All tensors, block by block.
    #[must_use]
    pub fn specs(&self) -> Vec<TensorSpec> {
        self.blocks.iter().flat_map(|block| block.specs()).collect()
    }

    /// Trainable numbers (buffers are not counted).
    #[must_use]
    pub fn num_params(&self) -> usize {
        let trainable = |spec: &TensorSpec| spec.kind != TensorKind::Buffer;
        self.specs().iter().filter(|spec| trainable(spec)).map(TensorSpec::num_elements).sum()
    }

    /// Trainable weights, and buffers, out of all tensors of this network.
    #[must_use]
    pub fn split_params(&self, all: Params) -> (Params, Params) {
        let buffers: BTreeSet<String> =
            self.specs().into_iter().filter(|spec| spec.kind == TensorKind::Buffer).map(|spec| spec.name).collect();
        let (buffers, weights): (Vec<_>, Vec<_>) = all.into_iter().partition(|(name, _)| buffers.contains(name));
        (weights.into_iter().collect(), buffers.into_iter().collect())
    }

    /// Input to logits.
    ///
    /// Images: (n, channels, height, width) f32 to (n, classes). Tokens: (n, t) u32 to (n, t, vocab).
    pub fn forward(&self, pass: &Forward<'_>, input: &Tensor) -> Result<Tensor, ModelError> {
        self.blocks.iter().try_fold(input.clone(), |x, block| block.forward(pass, &x))
    }

    /// [`Self::forward`] of many inputs, to evaluate, with the weights of one block at a time: `params_of` makes what a
    /// block reads, all inputs go through it, and it is dropped. So a network is run whose weights are larger than memory
    /// in this form; what lies between two blocks is held for all inputs. `finish` is called with the logits of each
    /// input, in order, one after the other.
    ///
    /// Errors: those of the blocks, of `params_of` and of `finish`.
    pub fn forward_by_blocks<E: From<ModelError>>(
        &self,
        mut params_of: impl FnMut(&dyn Block) -> Result<Params, E>,
        inputs: Vec<Tensor>,
        finish: impl FnMut(usize, &Tensor) -> Result<(), E>,
    ) -> Result<(), E> {
        let states = self.forward_before_last(&mut params_of, inputs)?;
        self.forward_last(params_of, &states, finish)
    }

    /// [`Self::forward_by_blocks`] as far as what the last block reads of each input.
    ///
    /// Errors: those of the blocks and of `params_of`.
    pub fn forward_before_last<E: From<ModelError>>(
        &self,
        mut params_of: impl FnMut(&dyn Block) -> Result<Params, E>,
        inputs: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, E> {
        let mut states = inputs;
        for block in self.blocks.iter().take(self.blocks.len().saturating_sub(1)) {
            let params = params_of(block.as_ref())?;
            let pass = Forward::new(&params, Mode::Eval);
            for state in &mut states {
                *state = block.forward(&pass, state)?;
            }
        }
        Ok(states)
    }

    /// The rest of [`Self::forward_by_blocks`]: the last block alone, from what it reads of each input.
    ///
    /// Errors: those of the block, of `params_of` and of `finish`.
    pub fn forward_last<E: From<ModelError>>(
        &self,
        mut params_of: impl FnMut(&dyn Block) -> Result<Params, E>,
        states: &[Tensor],
        mut finish: impl FnMut(usize, &Tensor) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(block) = self.blocks.last() else { return Ok(()) };
        let params = params_of(block.as_ref())?;
        let pass = Forward::new(&params, Mode::Eval);
        for (number, state) in states.iter().enumerate() {
            finish(number, &block.forward(&pass, state)?)?;
        }
        Ok(())
    }
}

/// Initial weights and buffers of `network`: (trainable, buffers), f32, a function of `seed` alone.
pub fn initial_params(network: &Network, seed: u64, device: &Device) -> Result<(Params, Params), ModelError> {
    let mut weights = Params::default();
    let mut buffers = Params::default();
    for (index, spec) in network.specs().into_iter().enumerate() {
        let values = initial_values(&spec, index, seed);
        let tensor = Tensor::from_vec(values, spec.shape.as_slice(), device)?.to_dtype(DType::F32)?;
        let home = if spec.kind == TensorKind::Buffer { &mut buffers } else { &mut weights };
        home.insert(spec.name, tensor);
    }
    Ok((weights, buffers))
}

/// Initial numbers of the network's tensor number `index`, in its order: a function of these three alone, so that a
/// tensor can be drawn without the others.
pub(crate) fn initial_values(spec: &TensorSpec, index: usize, seed: u64) -> Vec<f32> {
    let mut rng = stream(seed, Stream::Init, index as u64);
    let count = spec.num_elements();
    match spec.init {
        Init::Constant(value) => vec![value as f32; count],
        Init::Uniform(bound) => (0..count).map(|_| ((rng.random::<f64>() * 2.0 - 1.0) * bound) as f32).collect(),
        Init::Normal(std) => (0..count).map(|_| (standard_normal(&mut rng) * std) as f32).collect(),
    }
}

/// One draw from the standard normal distribution (Box-Muller, cosine branch).
fn standard_normal(rng: &mut impl RngExt) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}
