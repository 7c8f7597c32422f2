//! From a config to a plan.

use super::composed::{Composition, composed};
use super::layers::{Example, example, plus, times};
use super::remedies::remedies;
use super::{MemoryPlan, MemorySettings, PlanItem, PlanKind, format_bytes};
use crate::device::resolved_num_threads;
use crate::models::ops::{Activations, Kept, Precision};
use crate::models::{MAX_LOGITS, ModelConfig, Network, TensorKind, TensorSpec};
use crate::optim::{OptimizerConfig, Schedule, StatePlace, StatePrecision};

/// Bytes of an f32.
pub(super) const F32: u64 = 4;
/// Program, libraries and allocator, measured with `examples/memory_check.rs`.
pub(crate) const PROGRAM_BYTES: u64 = 48 << 20;
/// What CUDA's context, its libraries' workspaces and unused parts of memory pools take of a GPU. Not measured: about what
/// is commonly seen.
pub(crate) const CUDA_BYTES: u64 = 768 << 20;
/// What they take of the machine's memory. Not measured: about what is commonly seen.
pub(crate) const CUDA_HOST_BYTES: u64 = 512 << 20;
/// Times that a GPU holds a tensor beside itself, its gradient and its moments while AdamW moves it: both new moments, the update,
/// what is kept of the weight, and their difference (`optim::kernels::adamw_composed`).
const COMPOSED_ADAMW: u64 = 5;
/// Times that a GPU holds the logits that are there at once, where head and loss are one: themselves; less the largest, and
/// their exponentials.
pub(super) const COMPOSED_LOGITS: u64 = 3;

/// Whose memory a plan is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A run on the processor: all of it is in the machine's memory.
    Processor,
    /// The GPU's share of a run on a GPU; the dataset, the program and what a recovery goes back to stay in the machine's
    /// memory, and the optimizer's state where it is to: see [`super::plan_beside_gpu`].
    Gpu,
}

/// What decides how much memory a run takes.
#[derive(Debug, Clone)]
pub struct PlanInput<'a> {
    /// Where the run computes.
    pub place: Place,
    /// The network.
    pub network: &'a Network,
    /// Its optimizer.
    pub optimizer: &'a OptimizerConfig,
    /// Its schedule.
    pub schedule: &'a Schedule,
    /// Whether the tier predicts: a Correct step holds two gradients.
    pub predict: bool,
    /// Whether forward passes read quantized copies of the weights.
    pub qat: bool,
    /// Whether the full-precision weights of before the switch teach.
    pub has_teacher: bool,
    /// Of matrix products.
    pub precision: Precision,
    /// Images or sequences per step.
    pub batch_size: usize,
    /// Parts a batch is cut into. An evaluation takes no more at once than one such part.
    pub num_micro_batches: usize,
    /// Tokens per sequence; unused for images.
    pub sequence_length: usize,
    /// Threads that the run computes with; 0 means one per core.
    pub num_threads: usize,
    /// The dataset in memory.
    pub dataset_bytes: u64,
    /// What there is.
    pub budget_bytes: u64,
    /// Where the budget comes from.
    pub budget_source: String,
    /// What the machine's memory has for a run on a GPU: nothing is proposed that needs more of it. Unused on the processor.
    pub beside_budget_bytes: u64,
}

/// The peak of a run, from its config alone: allocates no tensor.
///
/// Bytes are those of the operations at that place, in f32. Sums stay at `u64::MAX` when they would overflow.
#[must_use]
pub fn plan(input: &PlanInput<'_>) -> MemoryPlan {
    let case = Case::of(input);
    let mut items = case.items();
    items.sort_by_key(|item| std::cmp::Reverse(item.bytes));
    let (budget_bytes, budget_source) = (input.budget_bytes, input.budget_source.clone());
    let mut plan = MemoryPlan { items, budget_bytes, budget_source, remedies: Vec::new() };
    if !plan.fits() {
        plan.remedies = remedies(&case, input);
    }
    plan
}

/// Sums over the tensors of a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tensors {
    pub(super) num_params: u64,
    pub(super) num_buffers: u64,
    pub(super) optimizer_bytes: u64,
    /// Matrices that Muon orthogonalizes side by side on the processor, and one after the other on a GPU.
    workspace_bytes: [u64; 2],
    /// Numbers of the largest tensor.
    pub(super) largest: u64,
    is_muon: bool,
}

impl Tensors {
    pub(super) fn of(specs: &[TensorSpec], optimizer: &OptimizerConfig, num_threads: usize) -> Self {
        let count = |wants: fn(&TensorSpec) -> bool| {
            let sizes = specs.iter().filter(|spec| wants(spec)).map(|spec| times(&spec.shape));
            sizes.fold(0, u64::saturating_add)
        };
        Self {
            num_params: count(|spec| spec.kind != TensorKind::Buffer),
            num_buffers: count(|spec| spec.kind == TensorKind::Buffer),
            optimizer_bytes: optimizer.state_bytes(specs),
            workspace_bytes: [num_threads, 1].map(|at_once| optimizer.workspace_bytes(specs, at_once)),
            largest: specs.iter().map(|spec| times(&spec.shape)).max().unwrap_or(0),
            is_muon: optimizer.kind == crate::optim::OptimizerKind::Muon,
        }
    }
}

/// Everything that bytes depend on; remedies vary it.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) place: Place,
    pub(super) config: ModelConfig,
    pub(super) tensors: Tensors,
    pub(super) schedule: Schedule,
    pub(super) predict: bool,
    pub(super) qat: bool,
    pub(super) has_teacher: bool,
    pub(super) precision: Precision,
    pub(super) kept: Kept,
    pub(super) states: StatePrecision,
    pub(super) state_place: StatePlace,
    pub(super) batch_size: usize,
    pub(super) num_micro_batches: usize,
    pub(super) sequence_length: usize,
    pub(super) num_threads: usize,
    pub(super) dataset_bytes: u64,
}

impl Case {
    pub(super) fn of(input: &PlanInput<'_>) -> Self {
        let num_threads = resolved_num_threads(input.num_threads);
        Self {
            place: input.place,
            config: input.network.config().clone(),
            tensors: Tensors::of(&input.network.specs(), input.optimizer, num_threads),
            schedule: *input.schedule,
            predict: input.predict,
            qat: input.qat,
            has_teacher: input.has_teacher,
            precision: input.precision,
            kept: input.network.kept(),
            states: input.optimizer.states,
            state_place: input.optimizer.state_place,
            batch_size: input.batch_size.max(1),
            num_micro_batches: input.num_micro_batches.max(1),
            sequence_length: input.sequence_length,
            num_threads,
            dataset_bytes: input.dataset_bytes,
        }
    }

    /// The settings that it has.
    pub(super) fn settings(&self) -> MemorySettings {
        let (num_micro_batches, kept, states, state_place) =
            (self.num_micro_batches, self.kept, self.states, self.state_place);
        MemorySettings { num_micro_batches, kept, states, state_place }
    }

    pub(super) fn reads_text(&self) -> bool {
        self.config.max_positions().is_some()
    }

    /// True when what one image gives depends on the others that are computed with it.
    pub(super) fn has_batch_norm(&self) -> bool {
        self.tensors.num_buffers > 0
    }

    /// Examples that are in the graph together.
    pub(super) fn micro_batch(&self) -> usize {
        self.batch_size.div_ceil(self.num_micro_batches)
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.items().iter().fold(0, |sum, item| sum.saturating_add(item.bytes))
    }

    fn items(&self) -> Vec<PlanItem> {
        let example = self.example();
        let weights = self.weights();
        let average = self.average();
        let teacher = if self.has_teacher { weights } else { 0 };
        let quantized = if self.qat { plus(&[weights, teacher]) } else { 0 };
        let mut step = vec![self.gradients(), self.activations(&example), self.logits(&example)];
        if quantized > 0 {
            let who = if teacher > 0 {
                "copies that forward passes compute with and learn from"
            } else {
                "a copy that forward passes compute with"
            };
            let how = format!("{who}: {}", self.weights_how());
            step.push(PlanItem { kind: PlanKind::QuantizedWeights, bytes: quantized, how });
        }
        // Three things happen one after the other, and the peak is the largest: a step, saving, evaluating. What
        // operations keep for their next call is there in all three.
        let shelved = example.scratch.shelved(self.micro_batch() as u64, self.num_threads as u64);
        let shelved = match self.place {
            Place::Processor => plus(&[shelved, self.packed(&example), self.chunk_of_logits(&example)]),
            Place::Gpu => 0,
        };
        let shelved = shelved.saturating_mul(F32);
        // The graph and what adding gradients up took are gone by the time that weights are moved.
        let added = self.added_gradients().saturating_mul(F32);
        let given_back = plus(&[step[1].bytes, step[2].bytes, added]).saturating_sub(shelved);
        let stepping = step.iter().fold(0, |sum: u64, item| sum.saturating_add(item.bytes));
        let beside = plus(&[average, quantized, shelved]);
        // Copies of the state are made in the machine's memory.
        let saving = match self.place {
            Place::Processor => self.state().saturating_add(beside),
            Place::Gpu => beside,
        };
        let mut items = vec![
            PlanItem { kind: PlanKind::Weights, bytes: weights, how: self.weights_how() },
            self.optimizer(given_back),
            runtime(self.place, saving.saturating_sub(stepping)),
            self.evaluation(&example, beside, stepping.max(saving)),
        ];
        if self.place == Place::Processor {
            items.push(self.snapshot());
        }
        items.extend(step);
        if average > 0 {
            items.push(PlanItem { kind: PlanKind::WeightAverage, bytes: average, how: self.weights_how() });
        }
        if self.dataset_bytes > 0 && self.place == Place::Processor {
            let how = "examples of all parts, as loaded, with the tokenizer of texts".to_owned();
            items.push(PlanItem { kind: PlanKind::Dataset, bytes: self.dataset_bytes, how });
        }
        items
    }

    fn example(&self) -> Example {
        let fused = example(&self.config, self.kept, self.sequence_length);
        match self.place {
            Place::Processor => fused,
            Place::Gpu => {
                // Training for integers may read floats, but seldom does.
                let activations = if self.qat { Activations::Int8 } else { Activations::Floats };
                let how = Composition { kept: self.kept, activations, micro_batch: self.micro_batch() as u64 };
                composed(&self.config, self.sequence_length, fused, how)
            }
        }
    }

    /// What the optimizer keeps where the run computes, and works with there beyond `given_back` bytes of what a step took before.
    fn optimizer(&self, given_back: u64) -> PlanItem {
        let Tensors { optimizer_bytes, workspace_bytes: [side_by_side, one_by_one], largest, .. } = self.tensors;
        let to_move_in = match self.place {
            Place::Gpu if !self.is_offloaded() => largest.saturating_mul(COMPOSED_ADAMW * F32),
            Place::Processor | Place::Gpu => 0,
        };
        let to_orthogonalize_in = match self.place {
            Place::Processor => side_by_side,
            Place::Gpu => one_by_one,
        };
        let (kept, on_its_way) = if self.is_offloaded() {
            let largest = largest.saturating_mul(F32);
            (largest, format!("; here {} for the largest tensor on its way", format_bytes(largest)))
        } else {
            (optimizer_bytes, String::new())
        };
        // Tensors are moved one after the other.
        let (workspace, purpose) = if to_move_in > to_orthogonalize_in {
            (to_move_in, "to move the largest tensor in")
        } else {
            (to_orthogonalize_in, "to orthogonalize in")
        };
        let room = if workspace > 0 {
            format!("; {} {purpose}, of {} given back", format_bytes(workspace), format_bytes(given_back))
        } else {
            String::new()
        };
        let workspace = workspace.saturating_sub(given_back);
        let how = format!("{}{on_its_way}{room}", self.optimizer_how());
        PlanItem { kind: PlanKind::Optimizer, bytes: kept.saturating_add(workspace), how }
    }

    /// What a recovery goes back to.
    pub(super) fn snapshot(&self) -> PlanItem {
        let how = "a copy of weights, optimizer state and average, to go back to".to_owned();
        PlanItem { kind: PlanKind::RollbackSnapshot, bytes: self.state(), how }
    }

    /// True when a GPU computes and the optimizer's state is not on it.
    pub(super) fn is_offloaded(&self) -> bool {
        self.place == Place::Gpu && self.state_place == StatePlace::HostMemory
    }

    /// Bytes of all that changes during a run.
    pub(super) fn state(&self) -> u64 {
        plus(&[self.weights(), self.tensors.optimizer_bytes, self.average()])
    }

    /// Bytes of the weight average.
    fn average(&self) -> u64 {
        if self.schedule.ema_decay().is_some() { self.weights() } else { 0 }
    }

    /// Bytes of weights and running statistics.
    fn weights(&self) -> u64 {
        self.tensors.num_params.saturating_add(self.tensors.num_buffers).saturating_mul(F32)
    }

    fn weights_how(&self) -> String {
        let Tensors { num_params, num_buffers, .. } = self.tensors;
        let params = format!("{} parameters x 4 bytes", grouped(num_params));
        if num_buffers == 0 { params } else { format!("{params}, {} running statistics", grouped(num_buffers)) }
    }

    /// The state's arithmetic.
    pub(super) fn optimizer_how(&self) -> String {
        let Tensors { optimizer_bytes, is_muon, .. } = self.tensors;
        let place = if self.is_offloaded() { " in the machine's memory" } else { "" };
        let state = format!("{}{place}", format_bytes(optimizer_bytes));
        let numbers = if is_muon {
            format!("Muon: {state}, one number per matrix weight, two per other weight")
        } else {
            format!("AdamW: {state}, {} parameters x 2 moments", grouped(self.tensors.num_params))
        };
        let each = match self.states {
            StatePrecision::F32 => "of 4 bytes",
            StatePrecision::EightBit => "of 8 bits with their scales, of 4 bytes in small tensors",
        };
        format!("{numbers}, {each}")
    }

    /// One set, one more while parts of a batch are added up, one more to compare with in Correct.
    fn gradients(&self) -> PlanItem {
        let num_sets = 1 + u64::from(self.num_micro_batches > 1) + u64::from(self.predict);
        let (num_params, added) = (self.tensors.num_params, self.added_gradients());
        let twice = if added > 0 { ", and the largest tensor twice more" } else { "" };
        let numbers = num_params.saturating_mul(num_sets).saturating_add(added);
        let sets = if num_sets == 1 { "1 set".to_owned() } else { format!("{num_sets} sets") };
        let how = format!("{} parameters x 4 bytes x {sets}{twice}", grouped(num_params));
        PlanItem { kind: PlanKind::Gradients, bytes: numbers.saturating_mul(F32), how }
    }

    /// Numbers beside the gradients while they are added up: candle adds what each use of a tensor gives, two more of the
    /// largest while it does. Functions of ours do without.
    fn added_gradients(&self) -> u64 {
        let does_without = self.place == Place::Processor && self.has_fused_head();
        if does_without { 0 } else { self.tensors.largest.saturating_mul(2) }
    }

    fn activations(&self, example: &Example) -> PlanItem {
        let micro_batch = self.micro_batch() as u64;
        let besides = match self.place {
            // A teacher's pass comes before the way back; composed of many operations, its layers may take more.
            Place::Gpu if self.has_teacher => example.on_the_way_back.max(example.in_a_layer),
            Place::Processor | Place::Gpu => example.on_the_way_back,
        };
        let numbers = plus(&[
            example.input.saturating_mul(self.batch_size as u64),
            example.kept.saturating_add(besides).saturating_mul(micro_batch),
            example.scratch.in_use(micro_batch, self.num_threads as u64),
            self.packed(example),
        ]);
        let what = if self.reads_text() {
            format!("{} of {}", counted(micro_batch, "sequence"), counted(self.sequence_length as u64, "token"))
        } else {
            counted(micro_batch, "image")
        };
        let each = format_bytes(example.kept.saturating_mul(F32));
        let again = match self.kept {
            Kept::Activations => "",
            Kept::Input => ", where layers are computed again",
        };
        let beside = match self.place {
            Place::Processor => format!("the gradients of one layer, and what {} threads work with", self.num_threads),
            Place::Gpu => "the gradients of its largest result, and what one operation works with".to_owned(),
        };
        let how = format!("{what} x {each} kept for the backward pass{again}, {beside}");
        PlanItem { kind: PlanKind::Activations, bytes: numbers.saturating_mul(F32), how }
    }

    /// Room that packed weights take, or factors that are rounded, in numbers of f32.
    fn packed(&self, example: &Example) -> u64 {
        match self.place {
            Place::Processor => {
                let weights = example.scratch.packed(self.micro_batch() as u64, self.num_threads as u64);
                weights.saturating_mul(self.precision.packed_bytes()).div_ceil(F32)
            }
            Place::Gpu if self.precision.is_full() => 0,
            // Two numbers in the room of one: a matrix and its gradient, and what goes into it and comes out of it.
            Place::Gpu => {
                let reads = example.in_a_layer.saturating_mul(self.micro_batch() as u64) / 4;
                self.tensors.largest.saturating_add(reads)
            }
        }
    }

    /// The head of a language model is one function with its loss; a teacher is compared with by logits, though.
    fn has_fused_head(&self) -> bool {
        self.reads_text() && !self.has_teacher
    }

    /// Numbers in the logits that are there at once, where head and loss are one.
    fn chunk_of_logits(&self, example: &Example) -> u64 {
        let of_a_token = example.logits / (self.sequence_length as u64).max(1);
        let all = example.logits.saturating_mul(self.micro_batch() as u64);
        if self.has_fused_head() { all.min((MAX_LOGITS as u64).max(of_a_token)) } else { 0 }
    }

    fn logits(&self, example: &Example) -> PlanItem {
        if self.has_fused_head() {
            let numbers = self.chunk_of_logits(example);
            let (copies, more) = match self.place {
                Place::Processor => (1, ""),
                Place::Gpu => (COMPOSED_LOGITS, ", and twice as much on the way to their gradients"),
            };
            let how = format!("{} logits x 4 bytes: of so many tokens at once{more}", grouped(numbers));
            return PlanItem { kind: PlanKind::Logits, bytes: numbers.saturating_mul(copies * F32), how };
        }
        let numbers = example.logits.saturating_mul(self.micro_batch() as u64);
        let (own, how) = match self.place {
            // Their gradient is there twice while it is handed down.
            Place::Processor => (3, "and twice as much for their gradients"),
            // Less the largest, exponentials; on the way back those again, and a gradient.
            Place::Gpu => (4, "and three times as much for their gradients"),
        };
        // A teacher's logits, and both networks' logarithms and probabilities on the way to their divergence, with the
        // gradients of each.
        let (copies, teacher) =
            if self.has_teacher { (own + 12, ", and those of a teacher's divergence") } else { (own, "") };
        let how = format!("{} logits x 4 bytes, {how}{teacher}", grouped(numbers));
        PlanItem { kind: PlanKind::Logits, bytes: numbers.saturating_mul(copies * F32), how }
    }

    /// What measuring on held-out data takes beyond `given_back` bytes, which a step or a save has given back by then:
    /// `beside` bytes, the logits of as many examples as a step takes at once, what goes into and out of one layer.
    pub(super) fn evaluation(&self, example: &Example, beside: u64, given_back: u64) -> PlanItem {
        let each = plus(&[example.input, example.logits, example.in_a_layer]);
        let numbers = each.saturating_mul(self.micro_batch() as u64);
        let bytes = numbers.saturating_mul(F32).saturating_add(beside);
        let (needed, free) = (format_bytes(bytes), format_bytes(given_back));
        let how =
            format!("{needed} for {} examples at a time, of {free} given back", grouped(self.micro_batch() as u64));
        PlanItem { kind: PlanKind::Evaluation, bytes: bytes.saturating_sub(given_back), how }
    }
}

/// The program; and what saving a checkpoint takes beyond the memory that a step has given back by then.
fn runtime(place: Place, saving: u64) -> PlanItem {
    let (base, program) = match place {
        Place::Processor => (PROGRAM_BYTES, "program and allocator"),
        Place::Gpu => (CUDA_BYTES, "CUDA and its libraries, not measured"),
    };
    let program = format!("{} for {program}", format_bytes(base));
    let how = if saving == 0 { program } else { format!("{program}, {} while saving", format_bytes(saving)) };
    PlanItem { kind: PlanKind::Runtime, bytes: base.saturating_add(saving), how }
}

/// A count of things: "1 sequence", "2,048 sequences".
#[must_use]
pub fn counted(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", grouped(number))
}

/// A count with its thousands apart: "105,866".
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
