//! Bytes of a streamed step, in memory and on disk, from the config alone.
//!
//! The peak is that of the phase that takes most: a layer forward, the head, a layer backward, the embedding backward.
//! Each counts what `trainer` and `passes` hold then, with what candle makes of it. Where a GPU computes, its share is a plan
//! of its own (`plan_on_gpu`).

use super::layout::{Layout, Precision};
use super::plan_on_gpu::{GpuSizes, gpu_items};
use super::rates;
use super::store::Commit;
use crate::device::{GpuBudget, resolved_num_threads};
use crate::hybrid::MAX_SLICE;
use crate::memory::{
    CUDA_BYTES, CUDA_HOST_BYTES, MemoryPlan, PROGRAM_BYTES, PlanItem, PlanKind, Remedy, counted, format_bytes, grouped,
    sequence_layer, step_flops,
};
use crate::models::{MAX_LOGITS, ModelConfig, Network, ops};

/// Bytes of an f32.
pub(super) const F32: u64 = 4;

/// What decides how much a streamed training takes.
#[derive(Debug, Clone)]
pub struct OffloadInput<'a> {
    /// The network, a gpt2 or llama.
    pub network: &'a Network,
    /// How numbers lie on disk.
    pub precision: Precision,
    /// Of matrix products.
    pub products: ops::Precision,
    /// Sequences per step.
    pub batch_size: usize,
    /// Tokens per sequence.
    pub sequence_length: usize,
    /// Threads that compute; 0 means one per core.
    pub num_threads: usize,
    /// Share of a batch that goes back in Predict at first, where a sample of it does; `None` where Predict samples nothing.
    pub sampling: Option<f64>,
    /// The dataset in memory.
    pub dataset_bytes: u64,
    /// What there is.
    pub budget_bytes: u64,
    /// Where the budget comes from.
    pub budget_source: String,
    /// What there is of a GPU's memory, where one computes.
    pub gpu: Option<GpuBudget>,
}

/// What a streamed training takes.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct OffloadPlan {
    /// Peak in the machine's memory, by kind.
    pub memory: MemoryPlan,
    /// Peak in a GPU's memory, by kind, where one computes.
    #[serde(default)]
    pub gpu: Option<MemoryPlan>,
    /// Numbers that are trained.
    pub num_params: u64,
    /// Bytes of disk when steps are committed whole.
    pub disk_bytes_by_step: u64,
    /// Bytes of disk when each block is committed by itself.
    pub disk_bytes_by_block: u64,
    /// Bytes that a step reads.
    pub read_bytes: u64,
    /// Bytes that a step reads before it is known what goes back: all that one takes which moves nothing, but for what was
    /// read ahead.
    #[serde(default)]
    pub forward_read_bytes: u64,
    /// Bytes that a step writes.
    pub written_bytes: u64,
    /// Floating-point operations of a step's passes: forward, forward again on the way back, backward.
    pub flops: u64,
    /// Those of them that only recomputation costs.
    pub recomputed_flops: u64,
    /// Bytes that recomputation saves: what all layers but one would keep for the way back.
    pub recomputation_saves_bytes: u64,
    /// Bytes that streaming saves: weights and optimizer state of all blocks but three.
    pub streaming_saves_bytes: u64,
    /// Bytes that moving each block at once saves: gradients of all blocks but the largest.
    pub fusion_saves_bytes: u64,
    /// Bytes that compact numbers save, in files: 8 of 12 a weight.
    pub compact_saves_bytes: u64,
    /// A Predict step, where it samples.
    #[serde(default)]
    pub predict: Option<PredictPlan>,
}

/// What a Predict step takes, which goes back with a sample alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PredictPlan {
    /// Peak in the machine's memory, bytes.
    pub memory_bytes: u64,
    /// Peak in a GPU's memory, bytes, where one computes.
    #[serde(default)]
    pub gpu_bytes: Option<u64>,
    /// Sequences in the sample.
    pub num_sequences: usize,
    /// Floating-point operations of its passes.
    pub flops: u64,
}

impl OffloadPlan {
    /// The first plan that is over its budget: of the machine's memory, or of a GPU's.
    #[must_use]
    pub fn over(&self) -> Option<&MemoryPlan> {
        std::iter::once(&self.memory).chain(&self.gpu).find(|plan| !plan.fits())
    }

    /// True when the peaks stay within the budgets.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.over().is_none()
    }
}

/// One moment of a step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Phase {
    pub(super) weights: u64,
    pub(super) state: u64,
    pub(super) gradients: u64,
    pub(super) activations: u64,
    pub(super) logits: u64,
}

impl Phase {
    pub(super) fn total(self) -> u64 {
        [self.weights, self.state, self.gradients, self.activations, self.logits]
            .iter()
            .fold(0, |sum: u64, &bytes| sum.saturating_add(bytes))
    }
}

/// What a streamed training takes, from its config alone: allocates no tensor. `None` for a model of images.
/// Sums stay at `u64::MAX` when they would overflow.
#[must_use]
pub fn plan(input: &OffloadInput<'_>) -> Option<OffloadPlan> {
    let sizes = Sizes::of(input)?;
    let sample = input.sampling.and_then(|share| sample_of(input, share));
    // A Correct step, where there is one, takes more than a full one; its sample grows where gradients disagree, and is drawn.
    let compared = input.sampling.map(|share| sample_of(input, (1.5 * share.max(MAX_SLICE)).min(1.0)));
    let compared = compared.and_then(|sample| Sizes::of(sample.as_ref().unwrap_or(input)));
    let peak = sizes.peak(&sizes, compared.as_ref())?;
    let planned = |mut items: Vec<PlanItem>, budget_bytes: u64, budget_source: String| {
        items.retain(|item| item.bytes > 0);
        items.sort_by_key(|item| std::cmp::Reverse(item.bytes));
        MemoryPlan { items, budget_bytes, budget_source, remedies: Vec::new() }
    };
    let mut memory = planned(items(input, &sizes, peak), input.budget_bytes, input.budget_source.clone());
    if !memory.fits() {
        let total = memory.total_bytes();
        let last = format!("a memory budget of {}", format_bytes(total));
        memory.remedies = remedies(input, (input.budget_bytes, last), |plan| plan.memory.total_bytes());
    }
    let gpu = sizes.gpu_peak(&sizes, compared.as_ref()).zip(input.gpu.as_ref()).map(|(peak, budget)| {
        let mut gpu = planned(gpu_items(input, &sizes, peak), budget.bytes, budget.source.clone());
        if !gpu.fits() {
            let total = format_bytes(gpu.total_bytes());
            let last = format!("a GPU with {total} free and a limit as high, or the processor (this run as it is)");
            gpu.remedies = remedies(input, (budget.bytes, last), |plan| {
                plan.gpu.as_ref().map_or(u64::MAX, MemoryPlan::total_bytes)
            });
        }
        gpu
    });
    let layouts = &sizes.layouts;
    let total = |of: fn(&Layout) -> u64| layouts.iter().map(of).fold(0, u64::saturating_add);
    let (weights, state) = (total(Layout::weight_bytes), total(Layout::state_bytes));
    let borrowed = sizes.owner.and_then(|owner| layouts.get(owner)).map_or(0, Layout::weight_bytes);
    let (head, head_state) = layouts.last().map_or((0, 0), |head| (head.weight_bytes(), head.state_bytes()));
    // The head is read once, with its state, for both ways.
    let forward = weights.saturating_sub(head).saturating_add(borrowed);
    let forward_flops = step_flops(input.network.config(), input.batch_size, input.sequence_length);
    // The head is computed once, for both ways.
    let head_flops = [2, input.batch_size as u64, input.sequence_length as u64, sizes.head_numbers]
        .iter()
        .fold(1, |product: u64, &factor| product.saturating_mul(factor));
    let recomputed_flops = forward_flops.saturating_sub(head_flops);
    let num_params = input.network.num_params() as u64;
    let three = layouts.iter().map(Layout::state_bytes).max().unwrap_or(0).saturating_mul(3);
    Some(OffloadPlan {
        memory,
        gpu,
        num_params,
        disk_bytes_by_step: Commit::Step.disk_bytes(layouts),
        disk_bytes_by_block: Commit::Block.disk_bytes(layouts),
        read_bytes: forward.saturating_add(state),
        forward_read_bytes: forward.saturating_add(head_state),
        written_bytes: state,
        flops: forward_flops.saturating_mul(3).saturating_add(recomputed_flops),
        recomputed_flops,
        recomputation_saves_bytes: sizes
            .saved_where_computed()
            .saturating_mul((layouts.len() as u64).saturating_sub(3)),
        streaming_saves_bytes: state.saturating_sub(three),
        fusion_saves_bytes: num_params.saturating_mul(F32).saturating_sub(sizes.largest_f32()),
        predict: sample.and_then(|sample| {
            let sampled = Sizes::of(&sample)?;
            let besides = program_bytes(input).saturating_add(input.dataset_bytes);
            let memory_bytes = sizes.peak(&sampled, None)?.total().saturating_add(besides);
            let gpu_bytes = sizes.gpu_peak(&sampled, None).map(|peak| peak.total().saturating_add(CUDA_BYTES));
            let share = sample.batch_size as f64 / input.batch_size as f64;
            let flops = forward_flops as f64 * (1.0 + 3.0 * share);
            Some(PredictPlan { memory_bytes, gpu_bytes, num_sequences: sample.batch_size, flops: flops as u64 })
        }),
        compact_saves_bytes: match input.precision {
            Precision::Compact => num_params.saturating_mul(12).saturating_sub(state),
            Precision::Full => 0,
        },
    })
}

/// Bytes of everything a phase may hold.
pub(super) struct Sizes {
    pub(super) layouts: Vec<Layout>,
    pub(super) owner: Option<usize>,
    /// What blocks take of a GPU, where one computes.
    pub(super) gpu: Option<GpuSizes>,
    /// Hidden states of a batch.
    pub(super) hidden: u64,
    /// What a layer saves of a batch.
    saved: u64,
    /// What threads work with on the way forward, and on the way back.
    forward: u64,
    backward: u64,
    /// Factors of a layer's weight gradients, in buffers that wait for the next layer's.
    factors: u64,
    /// Numbers of the matrix that makes logits.
    pub(super) head_numbers: u64,
    /// Bytes of the logits that are there at once.
    logits: u64,
}

impl Sizes {
    fn of(input: &OffloadInput<'_>) -> Option<Self> {
        let config = input.network.config();
        let (width, vocab_size) = match config {
            ModelConfig::Gpt2(config) => (config.n_embd, config.vocab_size),
            ModelConfig::Llama(config) => (config.hidden_size, config.vocab_size),
            ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => return None,
        };
        let num_sequences = input.batch_size.max(1) as u64;
        let threads = resolved_num_threads(input.num_threads) as u64;
        let layer = sequence_layer(config, input.sequence_length, num_sequences, threads)?;
        let packed = layer.packed.saturating_mul(input.products.packed_bytes());
        let num_tokens = num_sequences.saturating_mul(input.sequence_length as u64);
        let rows = (MAX_LOGITS as u64 / (vocab_size as u64).max(1)).clamp(1, num_tokens.max(1));
        let blocks = input.network.blocks();
        let layouts: Vec<Layout> = blocks.iter().map(|block| Layout::of(block.as_ref(), input.precision)).collect();
        let name = blocks.last()?.borrows().into_iter().next();
        let owner = name.and_then(|name| layouts.iter().position(|l| l.slots.iter().any(|slot| slot.name == name)));
        Some(Self {
            gpu: input
                .gpu
                .as_ref()
                .and_then(|_| GpuSizes::of(config, (input.sequence_length, num_sequences), input.products)),
            owner,
            layouts,
            hidden: num_tokens.saturating_mul(width as u64).saturating_mul(F32),
            saved: num_sequences.saturating_mul(layer.saved).saturating_mul(F32),
            // A pass without a graph saves as well, in a buffer for each thread.
            forward: threads
                .min(num_sequences)
                .saturating_mul(layer.forward + layer.saved)
                .saturating_mul(F32)
                .saturating_add(packed),
            backward: threads
                .min(layer.group)
                .saturating_mul(layer.backward)
                .max(threads.min(num_sequences).saturating_mul(layer.forward))
                .saturating_mul(F32)
                .saturating_add(packed),
            factors: layer.group.saturating_mul(layer.factors).saturating_mul(F32),
            head_numbers: (width as u64).saturating_mul(vocab_size as u64),
            logits: rows.saturating_mul(vocab_size as u64).saturating_mul(F32),
        })
    }

    /// What a layer saves of a batch, on the device that computes it.
    fn saved_where_computed(&self) -> u64 {
        self.gpu.map_or(self.saved, |gpu| gpu.layer)
    }

    pub(super) fn f32_bytes(&self, block: usize) -> u64 {
        self.layouts.get(block).map_or(0, |layout| layout.num_weights() as u64 * F32)
    }

    fn largest_f32(&self) -> u64 {
        (0..self.layouts.len()).map(|block| self.f32_bytes(block)).max().unwrap_or(0)
    }

    pub(super) fn state(&self, block: Option<usize>) -> u64 {
        block.and_then(|block| self.layouts.get(block)).map_or(0, Layout::state_bytes)
    }

    /// The phase that takes most of the machine's memory when `back` goes back of this batch, and the sample to `compare` with
    /// once more.
    fn peak(&self, back: &Self, compared: Option<&Self>) -> Option<Phase> {
        let head = self.layouts.len().saturating_sub(1);
        if self.gpu.is_some() {
            return self.peak_beside_gpu(head, compared);
        }
        let layers = 1..head;
        let mut phases: Vec<Phase> = layers.clone().map(|block| self.layer_forward(block, head)).collect();
        phases.push(self.at_head(back, head, compared));
        phases.extend(layers.rev().map(|block| back.layer_backward(block, head, compared)));
        phases.push(back.embedding_backward(head, compared));
        phases.into_iter().max_by_key(|phase| phase.total())
    }

    /// A layer in f32 while the numbers it was made from are still there, and the next block's.
    fn layer_forward(&self, block: usize, head: usize) -> Phase {
        let weights = |block: usize| self.layouts.get(block).map_or(0, Layout::weight_bytes);
        let next = if block + 1 == head { self.state(Some(head)) } else { weights(block + 1) };
        Phase {
            weights: self.f32_bytes(block) + weights(block),
            state: next,
            activations: (block as u64 + 1) * self.hidden + self.forward,
            ..Phase::default()
        }
    }

    fn at_head(&self, back: &Self, head: usize, compared: Option<&Self>) -> Phase {
        let lent = self.owner.map_or(0, |owner| self.f32_bytes(owner));
        Phase {
            weights: self.f32_bytes(head) + lent,
            state: self.state(Some(head)) + self.state(head.checked_sub(1)),
            gradients: self.head_numbers * F32 * gradients(compared),
            // Shelved by the layers; inputs of all blocks; what the head makes of its input, and their gradients.
            activations: self.forward
                + head as u64 * self.hidden
                + 4 * (back.hidden + compared.map_or(0, |sample| sample.hidden)),
            logits: self.logits,
        }
    }

    fn layer_backward(&self, block: usize, head: usize, compared: Option<&Self>) -> Phase {
        let carried = self.owner.map_or(0, |_| self.head_numbers * F32);
        let own = self.f32_bytes(block);
        let written = if block == head { None } else { Some(block + 1) };
        Phase {
            weights: own,
            state: self.state(Some(block)) + self.state(block.checked_sub(1)) + self.state(written),
            gradients: (own + carried) * gradients(compared),
            // Inputs up to here; output, its gradient and the input's with candle's copies.
            activations: (block as u64 + 6) * self.hidden
                + compared.map_or(0, |sample| 6 * sample.hidden + sample.saved + sample.factors)
                + self.saved
                + self.factors
                + self.backward.max(self.forward),
            logits: 0,
        }
    }

    fn embedding_backward(&self, head: usize, compared: Option<&Self>) -> Phase {
        Phase {
            weights: self.f32_bytes(0),
            state: self.state(Some(0)) + self.state(Some(1).filter(|&block| block <= head)),
            // What a head carried here is added to in place.
            gradients: self.f32_bytes(0) * gradients(compared),
            activations: 3 * self.hidden + compared.map_or(0, |sample| 3 * sample.hidden),
            logits: 0,
        }
    }
}

/// Gradients that are there at once: of what goes back, and of a sample that is compared with it.
pub(super) fn gradients(compared: Option<&Sizes>) -> u64 {
    1 + u64::from(compared.is_some())
}

/// What gradients are of.
fn of_one_block(input: &OffloadInput<'_>) -> &'static str {
    if input.sampling.is_some() { "of one block, twice where a Correct step compares" } else { "of one block" }
}

/// This share of a batch; `None` where that is all of it.
fn sample_of<'a>(input: &OffloadInput<'a>, share: f64) -> Option<OffloadInput<'a>> {
    let batch_size = (share * input.batch_size as f64).ceil() as usize;
    (batch_size < input.batch_size).then(|| OffloadInput { batch_size: batch_size.max(1), ..input.clone() })
}

fn items(input: &OffloadInput<'_>, sizes: &Sizes, peak: Phase) -> Vec<PlanItem> {
    let largest = sizes.layouts.iter().map(Layout::num_weights).max().unwrap_or(0) as u64;
    let per_weight = input.precision.weight_bytes() + 2 * input.precision.moment_bytes();
    let (batch, tokens) =
        (counted(input.batch_size as u64, "sequence"), counted(input.sequence_length as u64, "token"));
    let item = |kind, bytes, how: String| PlanItem { kind, bytes, how };
    // Before the first step rates are measured; a step of a small model takes less than that.
    let num_tokens = input.batch_size.saturating_mul(input.sequence_length);
    let (probes, program, weights) = if input.gpu.is_some() {
        let weights = "one block as on disk, and its largest tensor in f32 on its way to the GPU".to_owned();
        (rates::update_probe_bytes(), "program, allocator and CUDA's libraries, not measured", weights)
    } else {
        let weights = format!("one block in f32; the largest has {} weights", grouped(largest));
        (rates::update_probe_bytes().max(rates::product_probe_bytes(num_tokens)), "program and allocator", weights)
    };
    let measuring = probes.saturating_sub(peak.total());
    let runtime = match measuring {
        0 => program.to_owned(),
        more => format!("{program}, {} while the machine's rates are measured", format_bytes(more)),
    };
    vec![
        item(PlanKind::Weights, peak.weights, weights),
        item(
            PlanKind::Optimizer,
            peak.state,
            format!("blocks as on disk, {per_weight} bytes a weight: in use, read next, being written"),
        ),
        item(PlanKind::Gradients, peak.gradients, of_one_block(input).to_owned()),
        item(
            PlanKind::Activations,
            peak.activations,
            format!("{batch} of {tokens}: what goes into each block, one block's own, and factors of its gradients"),
        ),
        item(PlanKind::Logits, peak.logits, format!("of a part of the tokens, {}", format_bytes(sizes.logits))),
        item(PlanKind::Runtime, program_bytes(input).saturating_add(measuring), runtime),
        item(
            PlanKind::Dataset,
            input.dataset_bytes,
            "examples of all parts, as loaded, with the tokenizer of texts".to_owned(),
        ),
    ]
}

/// The program, with what it loads to compute on a GPU.
fn program_bytes(input: &OffloadInput<'_>) -> u64 {
    PROGRAM_BYTES + if input.gpu.is_some() { CUDA_HOST_BYTES } else { 0 }
}

/// Smaller batches and shorter sequences, as far as they bring what `of` a plan counts below the budget; and the `last` resort.
fn remedies(input: &OffloadInput<'_>, (budget_bytes, last): (u64, String), of: fn(&OffloadPlan) -> u64) -> Vec<Remedy> {
    let gpu = input.gpu.as_ref().map(|budget| GpuBudget { bytes: u64::MAX, ..budget.clone() });
    let total = |batch_size: usize, sequence_length: usize| {
        let ample = OffloadInput { budget_bytes: u64::MAX, gpu: gpu.clone(), ..input.clone() };
        plan(&OffloadInput { batch_size, sequence_length, ..ample }).map_or(u64::MAX, |plan| of(&plan))
    };
    let halves = |from: usize| std::iter::successors(Some(from), |&size| (size > 1).then_some(size / 2)).skip(1);
    let fits = |bytes: u64| bytes <= budget_bytes;
    let batch = halves(input.batch_size).find(|&size| fits(total(size, input.sequence_length)));
    let length = halves(input.sequence_length).find(|&length| fits(total(input.batch_size, length)));
    let words = [
        batch.map(|size| format!("batches of {size}: {}", format_bytes(total(size, input.sequence_length)))),
        length.map(|length| {
            let tokens = counted(length as u64, "token");
            format!("sequences of {tokens}: {}", format_bytes(total(input.batch_size, length)))
        }),
        Some(last),
    ];
    words.into_iter().flatten().map(Remedy::in_words).collect()
}
