//! One step over blocks on disk.

use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::OffloadError;
use super::layout::{Layout, Precision, Slot};
use super::passes::{self, Gradients, HeadWork, NamedVar};
use super::state::BlockState;
use super::store::{BlockStore, Commit, FirstWeights, OffloadSettings};
use super::streams::{Streams, Wanted, stream};
use super::update::{Pace, is_trained, update};
use crate::data::Batch;
use crate::device::Watch;
use crate::hybrid::{Backward, Seen, StepReport, even_weights};
use crate::models::{Block, MAX_LOGITS, ModelConfig, ModelError, Network, Params, ops};
use crate::optim::{OptimizerConfig, OptimizerKind};

/// What a step did and what it cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamedStep {
    /// From 1.
    pub step: u64,
    /// Mean loss of a token before the update, nats.
    pub loss: f64,
    /// Length of the gradient of all blocks together, before clipping; `None` where nothing moved.
    pub grad_norm: Option<f64>,
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
    /// What led the step, as its pilot saw it; `None` for a plain step.
    #[serde(default)]
    pub hybrid: Option<StepReport>,
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

    /// Steps done.
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

    /// One update of every weight by the gradient of the batch's mean loss, at `lr_factor` times the peak learning rate: a
    /// plain step, which no pilot leads.
    ///
    /// Gradients are clipped block by block: that of all blocks is known only after most have moved.
    /// Errors: [`OffloadError::NotFinite`] names the block; whatever a disk can do. What was saved stays whole either way.
    pub fn step(&mut self, batch: &Batch, lr_factor: f64, watch: Watch<'_>) -> Result<StreamedStep, OffloadError> {
        let order = Order { lr_factor, measures_errors: false, looks_first: false };
        self.streamed(batch, order, &|_| Backward::All, watch, |_, _| Ok((None, None)))
    }

    /// Streams a step; `end` makes what is to be told and saved of it, before it counts.
    pub(super) fn streamed(
        &mut self,
        batch: &Batch,
        order: Order,
        choose: &dyn Fn(&Seen) -> Backward,
        watch: Watch<'_>,
        end: impl FnOnce(&Done, &Seen) -> Result<(Option<StepReport>, Option<String>), OffloadError>,
    ) -> Result<StreamedStep, OffloadError> {
        let started = Instant::now();
        let pass = Pass {
            blocks: self.network.blocks(),
            trainer: self,
            batch,
            order,
            choose,
            watch,
            owner: owner(&self.network, &self.store.files.layouts),
            done: Done::default(),
        };
        let num_kept = self.store.num_ahead();
        let wanted = pass.wanted();
        let (done, traffic) = stream(&self.store.files, &wanted, self.store.version(), |streams| pass.run(streams));
        self.store.note_written(&traffic.written);
        let ended = done.and_then(|(seen, done)| {
            let (hybrid, state) = end(&done, &seen)?;
            self.store.advance(done.moved, state)?;
            Ok((seen, done, hybrid))
        });
        let (seen, done, hybrid) = ended.map_err(|error| self.explained(error))?;
        Ok(StreamedStep {
            step: self.store.step(),
            loss: seen.mean_loss(),
            grad_norm: done.grad_norm(),
            num_clipped: done.num_clipped,
            num_kept,
            seconds: started.elapsed().as_secs_f64(),
            read_wait_seconds: traffic.read_wait.as_secs_f64(),
            write_wait_seconds: traffic.write_wait.as_secs_f64(),
            reading_seconds: traffic.reading.as_secs_f64(),
            writing_seconds: traffic.writing.as_secs_f64(),
            read_bytes: traffic.read_bytes,
            written_bytes: traffic.written_bytes,
            hybrid,
        })
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

    pub(super) fn peak_learning_rate(&self) -> f64 {
        self.optimizer.learning_rate
    }

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

/// What a step is to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    /// Learning rate over its peak.
    pub(super) lr_factor: f64,
    /// Are predicted gradient norms wanted?
    pub(super) measures_errors: bool,
    /// The head goes forward alone at first, because not all of the batch is likely to go back.
    pub(super) looks_first: bool,
}

/// What a finished pass did.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// False where nothing went back.
    moved: bool,
    /// Of the gradient that moved the weights.
    sum_of_squares: f64,
    /// Of the sampled gradient that it was compared with, and their product.
    compared: Option<Compared>,
    num_clipped: usize,
    /// Sequences that went backward; one that did twice counts twice.
    pub(super) units_backward: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Compared {
    sum_of_squares: f64,
    dot: f64,
}

impl Done {
    /// Of the gradient that moved the weights, before clipping; `None` where none did.
    pub(super) fn grad_norm(&self) -> Option<f64> {
        self.moved.then(|| self.sum_of_squares.sqrt())
    }

    /// Between the two gradients; 0 when one is zero.
    pub(super) fn cosine(&self) -> Option<f64> {
        let Compared { sum_of_squares, dot } = self.compared?;
        let scale = self.sum_of_squares.sqrt() * sum_of_squares.sqrt();
        Some(if scale == 0.0 { 0.0 } else { (dot / scale).clamp(-1.0, 1.0) })
    }
}

/// A gradient on its way back.
struct Flow {
    /// Positions in the batch of the sequences that it is of; `None` for all of them.
    sequences: Option<Tensor>,
    /// Of the output of the block that is next.
    grad: Option<Tensor>,
    /// Of the tensors that the head borrows.
    borrowed: Vec<(String, Tensor)>,
}

/// A step in progress.
struct Pass<'a> {
    blocks: &'a [Box<dyn Block>],
    trainer: &'a OffloadTrainer,
    batch: &'a Batch,
    order: Order,
    /// Called once, with what the forward pass measured, before anything moves.
    choose: &'a dyn Fn(&Seen) -> Backward,
    watch: Watch<'a>,
    /// Block of the tensors that the head borrows.
    owner: Option<usize>,
    done: Done,
}

impl Pass<'_> {
    /// What is read, in this order: weights on the way forward, all of each block on the way back.
    fn wanted(&self) -> Vec<Wanted> {
        let head = self.blocks.len().saturating_sub(1);
        let forward = (0..head).map(Wanted::Weights);
        let at_head = std::iter::once(Wanted::State(head)).chain(self.owner.map(Wanted::Weights));
        forward.chain(at_head).chain((0..head).rev().map(Wanted::State)).collect()
    }

    fn run(mut self, streams: &mut Streams) -> Result<(Seen, Done), OffloadError> {
        let Some((head, layers)) = self.blocks.split_last() else {
            return Err(OffloadError::Thread { what: "reads" });
        };
        let mut inputs = self.forward(layers, streams)?;
        let Some(input) = inputs.pop() else { return Err(OffloadError::Thread { what: "reads" }) };
        let (seen, mut flows) = self.head(head.as_ref(), &input, streams)?;
        drop(input);
        if flows.is_empty() {
            return Ok((seen, self.done));
        }
        if let [Flow { sequences, .. }] = flows.as_mut_slice()
            && let Some(sequences) = sequences.take()
        {
            // From here on the rest of the batch is of no use.
            for input in &mut inputs {
                *input = input.index_select(&sequences, 0)?;
            }
        }
        for (number, block) in layers.iter().enumerate().rev() {
            self.tell("backward", 2 * layers.len() - number)?;
            let Some(input) = inputs.pop() else { break };
            if number == 0 {
                // What layers keep for each other is of no use to the embedding, which is as large.
                ops::release_scratch();
                ops::trim_pages();
            }
            let state = streams.state()?;
            let vars = passes::vars(self.layout(number)?, &state.weights)?;
            let gradients = flows
                .iter_mut()
                .map(|flow| self.backward(number, block.as_ref(), (&vars, &input), flow))
                .collect::<Result<Vec<_>, _>>()?;
            drop((vars, input));
            self.finish(number, state, &gradients, streams)?;
        }
        self.done.moved = true;
        Ok((seen, self.done))
    }

    /// What goes into each block, the head's last.
    fn forward(&mut self, layers: &[Box<dyn Block>], streams: &mut Streams) -> Result<Vec<Tensor>, OffloadError> {
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
        Ok(inputs)
    }

    /// The head forward, and backward for what is chosen then: what was measured of the batch, and what goes on from there,
    /// the gradient first that moves weights. The head itself has moved by it.
    fn head(
        &mut self,
        block: &dyn Block,
        input: &Tensor,
        streams: &mut Streams,
    ) -> Result<(Seen, Vec<Flow>), OffloadError> {
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
        let OffloadTrainer { products, max_logits, .. } = *self.trainer;
        let Order { measures_errors, looks_first, .. } = self.order;
        let targets = &self.batch.targets;
        let num_units = targets.dim(0)?;
        let even = even_weights(num_units, num_units);
        let work = HeadWork { input, targets, weights: &even, measures_errors, max_logits, products };
        let (seen, mut whole) = if looks_first {
            (passes::look(block, &vars, &work)?, None)
        } else {
            let (seen, gradients) = passes::head(block, &vars, &work)?;
            (seen, Some(gradients))
        };
        if !seen.mean_loss().is_finite() {
            return Err(self.not_finite("the loss", block));
        }
        let choice = (self.choose)(&seen);
        let mut gradients = Vec::new();
        if matches!(choice, Backward::All | Backward::AllAndSample(_)) {
            let of_all = match whole.take() {
                Some(gradients) => gradients,
                None => passes::head(block, &vars, &HeadWork { measures_errors: false, ..work })?.1,
            };
            self.done.units_backward += num_units;
            gradients.push((None, of_all));
        }
        drop(whole);
        if let Backward::Sample(sample) | Backward::AllAndSample(sample) = &choice
            && !sample.indices.is_empty()
        {
            let sequences = Tensor::new(sample.indices.as_slice(), input.device())?;
            let (input, targets) = (input.index_select(&sequences, 0)?, targets.index_select(&sequences, 0)?);
            let of_sample =
                HeadWork { input: &input, targets: &targets, weights: &sample.weights, measures_errors: false, ..work };
            let (_, of_sample) = passes::head(block, &vars, &of_sample)?;
            self.done.units_backward += sample.indices.len();
            gradients.push((Some(sequences), of_sample));
        }
        let names: Vec<String> = vars.drain(..).map(|(name, _)| name).skip(num_own).collect();
        let (mut flows, mut of_weights) = (Vec::new(), Vec::new());
        for (sequences, Gradients { input, mut vars }) in gradients {
            let borrowed = names.iter().cloned().zip(vars.split_off(num_own)).collect();
            of_weights.push(vars);
            flows.push(Flow { sequences, grad: input, borrowed });
        }
        if !flows.is_empty() {
            self.finish(number, state, &of_weights, streams)?;
        }
        Ok((seen, flows))
    }

    /// A block backward for one gradient, which goes on to the block below; the gradients of its weights.
    fn backward(
        &self,
        number: usize,
        block: &dyn Block,
        (vars, input): (&[NamedVar], &Tensor),
        flow: &mut Flow,
    ) -> Result<Vec<Tensor>, OffloadError> {
        let Some(grad) = flow.grad.take() else { return Err(OffloadError::Thread { what: "reads" }) };
        let input = match &flow.sequences {
            Some(sequences) => input.index_select(sequences, 0)?,
            None => input.clone(),
        };
        let of_head = if self.owner == Some(number) { std::mem::take(&mut flow.borrowed) } else { Vec::new() };
        let Gradients { input, vars } = passes::backward(block, self.trainer.products, vars, (&input, &grad), of_head)?;
        flow.grad = input;
        Ok(vars)
    }

    /// Moves a block by the first of its gradients and hands it over to be written, unless a broken step had done so.
    /// Compares the second, if there is one.
    fn finish(
        &mut self,
        number: usize,
        mut state: Box<BlockState>,
        gradients: &[Vec<Tensor>],
        streams: &mut Streams,
    ) -> Result<(), OffloadError> {
        let Some((gradient, others)) = gradients.split_first() else { return Ok(()) };
        let trainer = self.trainer;
        let sum_of_squares = passes::with_numbers(gradient, passes::sum_of_squares)?;
        if !sum_of_squares.is_finite() {
            return Err(match self.blocks.get(number) {
                Some(block) => self.not_finite("the gradient", block.as_ref()),
                None => OffloadError::Thread { what: "reads" },
            });
        }
        self.done.sum_of_squares += sum_of_squares;
        if let Some(other) = others.first() {
            let compared = self.done.compared.get_or_insert_default();
            compared.sum_of_squares += passes::with_numbers(other, passes::sum_of_squares)?;
            compared.dot += passes::with_numbers(gradient, |a| passes::with_numbers(other, |b| passes::dot(a, b)))??;
        }
        if trainer.store.is_ahead(number) {
            return Ok(());
        }
        let norm = sum_of_squares.sqrt();
        let scale = match trainer.optimizer.clip_norm {
            Some(limit) if norm > limit => limit / norm,
            Some(_) | None => 1.0,
        };
        self.done.num_clipped += usize::from(scale < 1.0);
        let pace = Pace {
            optimizer: &trainer.optimizer,
            step: trainer.store.num_updates() + 1,
            lr_factor: self.order.lr_factor,
            scale: scale as f32,
            seed: trainer.seed,
            block: number,
        };
        let layout = self.layout(number)?;
        passes::with_numbers(gradient, |numbers| update(&mut state, layout, numbers, pace))?;
        streams.write(number, state)
    }

    fn layout(&self, number: usize) -> Result<&Layout, OffloadError> {
        self.trainer.store.files.layout(number)
    }

    /// From 1.
    fn step(&self) -> u64 {
        self.trainer.store.step() + 1
    }

    fn tell(&self, what: &str, done: usize) -> Result<(), OffloadError> {
        let total = 2 * self.blocks.len() as u64 - 1;
        Ok(self.watch.step(&format!("step {}: {what}", self.step()), done as u64, Some(total))?)
    }

    fn not_finite(&self, what: &'static str, block: &dyn Block) -> OffloadError {
        OffloadError::NotFinite { step: self.step(), what, block: block.name().to_owned(), state: String::new() }
    }
}
