//! A step in progress: blocks forward, the head, and back what is chosen by the losses.

use std::cell::Cell;
use std::time::Duration;

use candle_core::Tensor;

use super::OffloadError;
use super::layout::Layout;
use super::passes::{self, Gradients, HeadWork, NamedVar};
use super::state::BlockState;
use super::streams::{Streams, Wanted};
use super::trainer::OffloadTrainer;
use super::update::{Pace, update};
use crate::data::Batch;
use crate::device::Watch;
use crate::hybrid::{Backward, Seen, StepOrder, even_weights};
use crate::models::{Block, Network, ops};

/// The block that lists what the head borrows; `None` where it borrows nothing.
pub(super) fn owner(network: &Network, layouts: &[Layout]) -> Option<usize> {
    let borrowed = network.blocks().last()?.borrows();
    let name = borrowed.first()?;
    layouts.iter().position(|layout| layout.slots.iter().any(|slot| slot.name == *name))
}

/// What a finished pass did.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// False where nothing went back.
    pub(super) moved: bool,
    /// Of the gradient that moved the weights.
    sum_of_squares: f64,
    /// Of the sampled gradient that it was compared with, and their product.
    compared: Option<Compared>,
    pub(super) num_clipped: usize,
    /// Sequences that went backward; one that did twice counts twice.
    pub(super) units_backward: usize,
    /// Time that predicted gradient norms took.
    pub(super) gate_seconds: f64,
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
    /// Of the output of the block that is next, on the device that computes.
    grad: Option<Tensor>,
    /// Of the tensors that the head borrows. They wait in the machine's memory, also where a GPU computes: there they would
    /// take the room of the largest matrix while all layers go back, and once more where the two parts are added.
    borrowed: Vec<(String, Tensor)>,
}

/// A step in progress.
pub(super) struct Pass<'a> {
    pub(super) blocks: &'a [Box<dyn Block>],
    pub(super) trainer: &'a OffloadTrainer,
    pub(super) batch: &'a Batch,
    pub(super) order: StepOrder,
    /// Called once, with what the forward pass measured, before anything moves.
    pub(super) choose: &'a dyn Fn(&Seen) -> Backward,
    pub(super) watch: Watch<'a>,
    /// Block of the tensors that the head borrows.
    pub(super) owner: Option<usize>,
    pub(super) done: Done,
}

impl Pass<'_> {
    /// What is read, in this order: weights on the way forward, all of each block on the way back.
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        let head = self.blocks.len().saturating_sub(1);
        let forward = (0..head).map(Wanted::Weights);
        let at_head = std::iter::once(Wanted::State(head)).chain(self.owner.map(Wanted::Weights));
        forward.chain(at_head).chain((0..head).rev().map(Wanted::State)).collect()
    }

    pub(super) fn run(mut self, streams: &mut Streams) -> Result<(Seen, Done), OffloadError> {
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
            let vars = passes::vars(self.layout(number)?, &state.weights, &self.trainer.device)?;
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
            let params = passes::detached(self.layout(number)?, &weights, &self.trainer.device)?;
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
        let device = &self.trainer.device;
        let mut vars = passes::vars(self.layout(number)?, &state.weights, device)?;
        let num_own = vars.len();
        if let Some(owner) = self.owner {
            let layout = self.layout(owner)?;
            let lent = passes::vars(layout, &streams.weights()?, device)?;
            let borrowed = block.borrows();
            vars.extend(lent.into_iter().filter(|(name, _)| borrowed.contains(name)));
        }
        let OffloadTrainer { products, max_logits, .. } = *self.trainer;
        let StepOrder { measures_errors, looks_first, .. } = self.order;
        let errors_time = Cell::new(Duration::ZERO);
        let wanted = measures_errors.then_some(&errors_time);
        let targets = &self.batch.targets;
        let num_units = targets.dim(0)?;
        let even = even_weights(num_units, num_units);
        let work = HeadWork { input, targets, weights: &even, errors_time: wanted, max_logits, products };
        let (seen, mut whole) = if looks_first {
            (passes::look(block, &vars, &work)?, None)
        } else {
            let (seen, gradients) = passes::head(block, &vars, &work)?;
            (seen, Some(gradients))
        };
        if !seen.mean_loss().is_finite() {
            return Err(self.not_finite("the loss", block));
        }
        self.done.gate_seconds = errors_time.get().as_secs_f64();
        let choice = (self.choose)(&seen);
        let mut gradients = Vec::new();
        if matches!(choice, Backward::All | Backward::AllAndSample(_)) {
            let of_all = match whole.take() {
                Some(gradients) => gradients,
                None => passes::head(block, &vars, &HeadWork { errors_time: None, ..work })?.1,
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
                HeadWork { input: &input, targets: &targets, weights: &sample.weights, errors_time: None, ..work };
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
            lr_factor: self.order.learning_rate_factor,
            scale: scale as f32,
            seed: trainer.seed,
            block: number,
        };
        let layout = self.layout(number)?;
        // An update is the processor's work, whatever computed the gradient.
        passes::with_numbers(gradient, |numbers| ops::on_processor(|| update(&mut state, layout, numbers, pace)))?;
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
