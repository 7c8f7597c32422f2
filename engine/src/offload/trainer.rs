//! One step over blocks on disk.

use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::OffloadError;
use super::layout::{Layout, Precision, Slot};
use super::passes::{self, MAX_LOGITS, NamedVar};
use super::state::BlockState;
use super::store::{BlockStore, Commit, FirstWeights, OffloadSettings};
use super::streams::{Streams, Traffic, Wanted, stream};
use super::update::{Pace, is_trained, update};
use crate::data::Batch;
use crate::device::Watch;
use crate::models::{Block, ModelConfig, ModelError, Network, Params, ops};
use crate::optim::{OptimizerConfig, OptimizerKind};

/// What a step did and what it cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamedStep {
    /// From 1.
    pub step: u64,
    /// Mean loss of a token before the update, nats.
    pub loss: f64,
    /// Length of the gradient of all blocks together, before clipping.
    pub grad_norm: f64,
    /// Blocks whose own gradient was longer than the limit and was scaled down to it.
    pub num_clipped: usize,
    /// Blocks that a broken step had moved already.
    pub num_kept: usize,
    /// The whole step, until the disk has it.
    pub seconds: f64,
    /// Time of it that computing waited for a block to be read.
    pub read_wait_seconds: f64,
    /// Time of it that computing waited for a block to be written.
    pub write_wait_seconds: f64,
    /// Time that reading took beside computing, checksums included.
    pub reading_seconds: f64,
    /// Time that writing took beside computing, until the disk had it.
    pub writing_seconds: f64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// A tensor as it lies on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Name, as in a checkpoint.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Bytes of its numbers, moments aside.
    pub num_bytes: usize,
}

/// Trains a language model whose blocks lie on disk.
#[derive(Debug)]
pub struct OffloadTrainer {
    network: Arc<Network>,
    optimizer: OptimizerConfig,
    seed: u64,
    store: BlockStore,
    products: ops::Precision,
    max_logits: usize,
}

impl OffloadTrainer {
    /// Opens the store of this training, or makes one: with the weights that `first` hands over, or with drawn ones.
    /// Errors: [`OffloadError::Setting`] for a model that is no gpt2 or llama, or another optimizer than AdamW; everything
    /// that can be wrong with a folder or a disk.
    pub fn open(
        network: Arc<Network>,
        optimizer: &OptimizerConfig,
        settings: &OffloadSettings,
        first: Option<&mut FirstWeights<'_>>,
        watch: Watch<'_>,
    ) -> Result<Self, OffloadError> {
        check_streamable(&network, optimizer)?;
        let store = BlockStore::open_or_create(&network, settings, first, watch)?;
        let (optimizer, products) = (optimizer.clone(), ops::Precision::F32);
        Ok(Self { network, optimizer, seed: settings.seed, store, products, max_logits: MAX_LOGITS })
    }

    /// The same trainer, with matrix products of this precision from here on, where a new one's are in f32. How numbers lie
    /// on disk is another matter.
    #[must_use]
    pub fn with_products(self, products: ops::Precision) -> Self {
        Self { products, ..self }
    }

    /// Steps that all blocks have.
    #[must_use]
    pub fn num_steps(&self) -> u64 {
        self.store.step()
    }

    /// What of a broken step counts.
    #[must_use]
    pub fn commit(&self) -> Commit {
        self.store.commit
    }

    /// What is on disk, in words: "Step 3 is saved".
    #[must_use]
    pub fn describe(&self) -> String {
        self.store.describe()
    }

    /// How numbers lie on disk.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.store.precision
    }

    /// All tensors, block by block.
    #[must_use]
    pub fn tensors(&self) -> Vec<StoredTensor> {
        let bytes = self.store.precision.weight_bytes() as usize;
        let slots = self.store.files.layouts.iter().flat_map(|layout| &layout.slots);
        let stored = |slot: &Slot| StoredTensor {
            name: slot.name.clone(),
            shape: slot.shape.clone(),
            num_bytes: slot.count * bytes,
        };
        slots.map(stored).collect()
    }

    /// The numbers of one tensor as they lie on disk, bf16 or f32, little-endian. Reads its block's weights.
    /// Errors: there is no such tensor; whatever a disk can do.
    pub fn tensor_bytes(&self, name: &str) -> Result<Vec<u8>, OffloadError> {
        for (block, layout) in self.store.files.layouts.iter().enumerate() {
            let mut start = 0;
            for slot in &layout.slots {
                if slot.name == name {
                    let weights = self.store.files.read_weights(block)?;
                    return Ok(weights.bytes(start, slot.count).to_vec());
                }
                start += slot.count;
            }
        }
        Err(ModelError::MissingTensor { name: name.to_owned() }.into())
    }

    /// All weights in f32, in memory: for a model that fits it.
    pub fn params(&self) -> Result<Params, OffloadError> {
        let mut all = Params::default();
        for (block, layout) in self.store.files.layouts.iter().enumerate() {
            for (name, tensor) in passes::detached(layout, &self.store.files.read_weights(block)?)? {
                all.insert(name, tensor);
            }
        }
        Ok(all)
    }

    /// One update of every weight by the gradient of the batch's mean loss, at `lr_factor` times the peak learning rate.
    ///
    /// Gradients are clipped block by block: that of all blocks is known only after most have moved.
    /// Errors: [`OffloadError::NotFinite`] names the block; whatever a disk can do. What was saved stays whole either way.
    pub fn step(&mut self, batch: &Batch, lr_factor: f64, watch: Watch<'_>) -> Result<StreamedStep, OffloadError> {
        let started = Instant::now();
        let pass = Pass {
            blocks: self.network.blocks(),
            trainer: self,
            batch,
            lr_factor,
            step: self.store.step() + 1,
            watch,
            owner: owner(&self.network, &self.store.files.layouts),
            sum_of_squares: 0.0,
            num_clipped: 0,
        };
        let (num_kept, step) = ((0..pass.blocks.len()).filter(|&block| self.store.is_ahead(block)).count(), pass.step);
        let wanted = pass.wanted();
        let (done, traffic) = stream(&self.store.files, &wanted, self.store.version(), |streams| pass.run(streams));
        self.store.note_written(&traffic.written);
        let done = done.and_then(|done| self.store.advance().map(|()| done));
        let done = done.map_err(|error| self.explained(error))?;
        Ok(report(step, &done, num_kept, started, &traffic))
    }

    /// Says of an error what is on disk now.
    fn explained(&self, error: OffloadError) -> OffloadError {
        match error {
            OffloadError::Write { source, .. } => OffloadError::Write { source, state: self.store.describe() },
            OffloadError::NotFinite { step, what, block, .. } => {
                OffloadError::NotFinite { step, what, block, state: self.store.describe() }
            }
            error => error,
        }
    }

    #[cfg(test)]
    pub(super) fn set_max_logits(&mut self, max_logits: usize) {
        self.max_logits = max_logits;
    }

    #[cfg(test)]
    pub(super) fn store(&self) -> &BlockStore {
        &self.store
    }
}

fn check_streamable(network: &Network, optimizer: &OptimizerConfig) -> Result<(), OffloadError> {
    optimizer.check()?;
    match network.config() {
        ModelConfig::Gpt2(_) | ModelConfig::Llama(_) => {}
        ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => {
            return Err(OffloadError::Setting {
                expected: "a gpt2 or llama model",
                found: "a model of images".to_owned(),
                hint: "Models of images fit into memory: train without streaming",
            });
        }
    }
    if optimizer.kind != OptimizerKind::AdamW {
        return Err(OffloadError::Setting {
            expected: "adamw",
            found: "muon".to_owned(),
            hint: "Muon's matrices would have to be read whole; choose --optimizer adamw",
        });
    }
    let specs = network.specs();
    match specs.iter().find(|spec| !is_trained(spec.kind)) {
        Some(spec) => Err(OffloadError::Setting {
            expected: "tensors that a gradient moves",
            found: spec.name.clone(),
            hint: "Train without streaming",
        }),
        None => Ok(()),
    }
}

/// The block that lists what the head borrows; `None` where it borrows nothing.
fn owner(network: &Network, layouts: &[Layout]) -> Option<usize> {
    let borrowed = network.blocks().last()?.borrows();
    let name = borrowed.first()?;
    layouts.iter().position(|layout| layout.slots.iter().any(|slot| slot.name == *name))
}

fn report(step: u64, done: &Done, num_kept: usize, started: Instant, traffic: &Traffic) -> StreamedStep {
    StreamedStep {
        step,
        loss: done.loss,
        grad_norm: done.sum_of_squares.sqrt(),
        num_clipped: done.num_clipped,
        num_kept,
        seconds: started.elapsed().as_secs_f64(),
        read_wait_seconds: traffic.read_wait.as_secs_f64(),
        write_wait_seconds: traffic.write_wait.as_secs_f64(),
        reading_seconds: traffic.reading.as_secs_f64(),
        writing_seconds: traffic.writing.as_secs_f64(),
        read_bytes: traffic.read_bytes,
        written_bytes: traffic.written_bytes,
    }
}

/// What a finished pass knows.
struct Done {
    loss: f64,
    sum_of_squares: f64,
    num_clipped: usize,
}

/// A step in progress.
struct Pass<'a> {
    blocks: &'a [Box<dyn Block>],
    trainer: &'a OffloadTrainer,
    batch: &'a Batch,
    lr_factor: f64,
    /// From 1.
    step: u64,
    watch: Watch<'a>,
    /// Block of the tensors that the head borrows.
    owner: Option<usize>,
    sum_of_squares: f64,
    num_clipped: usize,
}

impl Pass<'_> {
    /// What is read, in this order: weights on the way forward, all of each block on the way back.
    fn wanted(&self) -> Vec<Wanted> {
        let head = self.blocks.len().saturating_sub(1);
        let forward = (0..head).map(Wanted::Weights);
        let at_head = std::iter::once(Wanted::State(head)).chain(self.owner.map(Wanted::Weights));
        forward.chain(at_head).chain((0..head).rev().map(Wanted::State)).collect()
    }

    fn run(mut self, streams: &mut Streams) -> Result<Done, OffloadError> {
        let Some((head, layers)) = self.blocks.split_last() else {
            return Err(OffloadError::Thread { what: "reads" });
        };
        // What goes into each block, the head's last.
        let mut inputs = vec![self.batch.inputs.clone()];
        for (number, block) in layers.iter().enumerate() {
            self.tell("forward", number)?;
            let weights = streams.weights()?;
            let params = passes::detached(self.layout(number)?, &weights)?;
            drop(weights);
            let Some(input) = inputs.last() else { break };
            let output = passes::forward(block.as_ref(), self.trainer.products, &params, input)?;
            if !passes::is_finite(&output)? {
                return Err(self.not_finite("the output", block.as_ref()));
            }
            inputs.push(output);
        }
        let (loss, mut grad, mut borrowed) = self.head(head.as_ref(), inputs.pop(), streams)?;
        for (number, block) in layers.iter().enumerate().rev() {
            self.tell("backward", 2 * layers.len() - number)?;
            let (Some(input), Some(grad_of_output)) = (inputs.pop(), grad.take()) else { break };
            if number == 0 {
                // What layers keep for each other is of no use to the embedding, which is as large.
                ops::release_scratch();
            }
            let state = streams.state()?;
            let vars = passes::vars(self.layout(number)?, &state.weights)?;
            let products = self.trainer.products;
            let gradients = passes::backward(block.as_ref(), products, &vars, &input, &grad_of_output)?;
            drop((input, grad_of_output));
            grad = gradients.input;
            let mut of_weights = gradients.vars;
            if self.owner == Some(number) {
                add_borrowed(&mut of_weights, &vars, std::mem::take(&mut borrowed))?;
            }
            drop(vars);
            self.finish(number, state, &of_weights, streams)?;
        }
        Ok(Done { loss, sum_of_squares: self.sum_of_squares, num_clipped: self.num_clipped })
    }

    /// The head forward and backward: the mean loss, the gradient of what goes in, and those of what it borrows.
    #[allow(clippy::type_complexity, reason = "three things that go three ways")]
    fn head(
        &mut self,
        block: &dyn Block,
        input: Option<Tensor>,
        streams: &mut Streams,
    ) -> Result<(f64, Option<Tensor>, Vec<(String, Tensor)>), OffloadError> {
        let number = self.blocks.len() - 1;
        self.tell("head", number)?;
        let state = streams.state()?;
        let mut vars = passes::vars(self.layout(number)?, &state.weights)?;
        let num_own = vars.len();
        if let Some(owner) = self.owner {
            let layout = self.layout(owner)?;
            let lent = passes::vars(layout, &streams.weights()?)?;
            let borrowed = block.borrows();
            vars.extend(lent.into_iter().filter(|(name, _)| borrowed.contains(name)));
        }
        let Some(input) = input else { return Err(OffloadError::Thread { what: "reads" }) };
        let OffloadTrainer { products, max_logits, .. } = *self.trainer;
        let pass = passes::head(block, products, &vars, (&input, &self.batch.targets), max_logits)?;
        let loss = pass.loss_sum / self.batch.targets.elem_count() as f64;
        if !loss.is_finite() {
            return Err(self.not_finite("the loss", block));
        }
        let mut of_weights = pass.gradients.vars;
        let of_borrowed = of_weights.split_off(num_own);
        let names = vars.drain(num_own..).map(|(name, _)| name);
        let borrowed = names.zip(of_borrowed).collect();
        drop(vars);
        self.finish(number, state, &of_weights, streams)?;
        Ok((loss, pass.gradients.input, borrowed))
    }

    /// Moves a block by its gradients and hands it over to be written, unless a broken step had done so.
    fn finish(
        &mut self,
        number: usize,
        mut state: Box<BlockState>,
        gradients: &[Tensor],
        streams: &mut Streams,
    ) -> Result<(), OffloadError> {
        let trainer = self.trainer;
        let sum_of_squares = passes::with_numbers(gradients, passes::sum_of_squares)?;
        if !sum_of_squares.is_finite() {
            return Err(match self.blocks.get(number) {
                Some(block) => self.not_finite("the gradient", block.as_ref()),
                None => OffloadError::Thread { what: "reads" },
            });
        }
        self.sum_of_squares += sum_of_squares;
        if trainer.store.is_ahead(number) {
            return Ok(());
        }
        let norm = sum_of_squares.sqrt();
        let scale = match trainer.optimizer.clip_norm {
            Some(limit) if norm > limit => limit / norm,
            Some(_) | None => 1.0,
        };
        self.num_clipped += usize::from(scale < 1.0);
        let pace = Pace {
            optimizer: &trainer.optimizer,
            step: self.step,
            lr_factor: self.lr_factor,
            scale: scale as f32,
            seed: trainer.seed,
            block: number,
        };
        let layout = self.layout(number)?;
        passes::with_numbers(gradients, |numbers| update(&mut state, layout, numbers, pace))?;
        streams.write(number, state)
    }

    fn layout(&self, number: usize) -> Result<&Layout, OffloadError> {
        self.trainer.store.files.layout(number)
    }

    fn tell(&self, what: &str, done: usize) -> Result<(), OffloadError> {
        let total = 2 * self.blocks.len() as u64 - 1;
        Ok(self.watch.step(&format!("step {}: {what}", self.step), done as u64, Some(total))?)
    }

    fn not_finite(&self, what: &'static str, block: &dyn Block) -> OffloadError {
        OffloadError::NotFinite { step: self.step, what, block: block.name().to_owned(), state: String::new() }
    }
}

/// Adds the gradients that the head left for tensors of this block.
fn add_borrowed(
    gradients: &mut [Tensor],
    vars: &[NamedVar],
    borrowed: Vec<(String, Tensor)>,
) -> Result<(), OffloadError> {
    for (name, of_head) in borrowed {
        for (gradient, (own, _)) in gradients.iter_mut().zip(vars) {
            if *own == name {
                *gradient = (&*gradient + &of_head)?;
            }
        }
    }
    Ok(())
}
