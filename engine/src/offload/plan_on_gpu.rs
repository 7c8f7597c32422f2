//! Bytes of a streamed step whose passes a GPU computes: those that lie there, and those that stay in the machine's memory.
//!
//! Activations are those of layers composed of candle's operations (`memory::composed`). None of these figures was measured on
//! a GPU.

use super::layout::Layout;
use super::plan::{F32, OffloadInput, Phase, Sizes, gradients};
use super::rates;
use crate::memory::{CUDA_BYTES, ComposedBlocks, PlanItem, PlanKind, composed_blocks, counted, format_bytes, grouped};
use crate::models::{MAX_LOGITS, ModelConfig, ops};

/// What blocks take of a GPU for a batch, bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct GpuSizes {
    /// Tokens and their targets.
    tokens: u64,
    /// What a layer keeps for the way back.
    pub(super) layer: u64,
    on_the_way_back: u64,
    /// What the embedding and the head keep, logits apart.
    ends: u64,
    /// Logits that are there at once, with what becomes of them.
    logits: u64,
    /// Sets of the head's gradients: the sum, a part of the tokens and both together, where there are parts.
    head_gradients: u64,
    /// Products read and give numbers of 16 bits.
    is_rounded: bool,
}

impl GpuSizes {
    /// Blocks of `config` for so many sequences, with products of this precision; `None` for models of images.
    pub(super) fn of(
        config: &ModelConfig,
        (sequence_length, num_sequences): (usize, u64),
        products: ops::Precision,
    ) -> Option<Self> {
        let ComposedBlocks { layer, on_the_way_back, ends, logits, logit_copies } =
            composed_blocks(config, sequence_length, num_sequences)?;
        let bytes = |numbers: u64| numbers.saturating_mul(num_sequences).saturating_mul(F32);
        let num_tokens = num_sequences.saturating_mul(sequence_length as u64).max(1);
        let of_a_token = (logits / (sequence_length as u64).max(1)).max(1);
        let num_at_once = (MAX_LOGITS as u64 / of_a_token).clamp(1, num_tokens);
        Some(Self {
            tokens: bytes(2 * sequence_length as u64),
            layer: bytes(layer),
            on_the_way_back: bytes(on_the_way_back),
            ends: bytes(ends),
            logits: [of_a_token, logit_copies, F32]
                .iter()
                .fold(num_at_once, |product, &factor| product.saturating_mul(factor)),
            head_gradients: if num_at_once < num_tokens { 3 } else { 1 },
            is_rounded: !products.is_full(),
        })
    }
}

impl Sizes {
    /// The phase that takes most of the GPU's memory when `back` goes back of this batch, and the sample `compared` with it once
    /// more; `None` where no GPU computes. Gradients of the two are there one after the other.
    pub(super) fn gpu_peak(&self, back: &Self, compared: Option<&Self>) -> Option<Phase> {
        let (gpu, of_back) = (self.gpu?, back.gpu?);
        let head = self.layouts.len().saturating_sub(1);
        // Its input and what becomes of it waits while the other goes back.
        let waiting = compared.map_or(0, |sample| 2 * sample.hidden);
        let forward = (1..head).map(|block| Phase {
            weights: self.f32_bytes(block),
            activations: (block as u64 + 1) * self.hidden + gpu.layer + gpu.tokens,
            ..Phase::default()
        });
        // A matrix and its gradient once more in 16 bits, and what goes into it and comes out of it.
        let rounded = |matrix: u64| if gpu.is_rounded { matrix + gpu.layer / 4 } else { 0 };
        let at_head = Phase {
            weights: self.f32_bytes(head) + self.owner.map_or(0, |owner| self.f32_bytes(owner)),
            gradients: gpu.head_gradients * self.head_numbers * F32,
            activations: (head as u64) * self.hidden
                + 4 * back.hidden
                + waiting
                + gpu.ends
                + gpu.tokens
                + rounded(self.head_numbers * F32),
            logits: gpu.logits,
            ..Phase::default()
        };
        let backward = (0..head).map(|block| Phase {
            weights: self.f32_bytes(block),
            // candle adds what the embedding gives to a cleared table.
            gradients: self.f32_bytes(block) + if block == 0 { 2 * self.largest_tensor(block) } else { 0 },
            // Inputs up to here; output, its gradient and the input's with candle's copies; the block under its graph.
            activations: (block as u64 + 6) * back.hidden
                + waiting
                + if block == 0 {
                    of_back.ends
                } else {
                    of_back.layer + of_back.on_the_way_back + rounded(self.largest_tensor(block))
                }
                + gpu.tokens,
            ..Phase::default()
        });
        forward.chain([at_head]).chain(backward).max_by_key(|phase| phase.total())
    }

    /// The phase that takes most of the machine's memory beside a GPU: blocks as on disk, a tensor on its way to the GPU, and
    /// gradients that came back.
    pub(super) fn peak_beside_gpu(&self, head: usize, compared: Option<&Self>) -> Option<Phase> {
        let carried = self.owner.map_or(0, |_| self.head_numbers * F32);
        let on_disk = |block: usize| self.layouts.get(block).map_or(0, Layout::weight_bytes);
        let forward = (1..head).map(|block| Phase {
            weights: on_disk(block) + self.largest_tensor(block),
            state: if block + 1 == head { self.state(Some(head)) } else { on_disk(block + 1) },
            ..Phase::default()
        });
        let lent = self.owner.map_or(0, |owner| on_disk(owner) + self.largest_tensor(owner));
        let at_head = Phase {
            weights: self.largest_tensor(head).max(lent),
            state: self.state(Some(head)) + self.state(head.checked_sub(1)),
            gradients: self.head_numbers * F32 * gradients(compared),
            ..Phase::default()
        };
        let backward = (0..head).map(|block| Phase {
            weights: self.largest_tensor(block),
            state: self.state(Some(block)) + self.state(block.checked_sub(1)) + self.state(Some(block + 1)),
            gradients: (self.f32_bytes(block) + carried) * gradients(compared),
            ..Phase::default()
        });
        forward.chain([at_head]).chain(backward).max_by_key(|phase| phase.total())
    }

    /// Bytes of the largest tensor of a block, in f32.
    fn largest_tensor(&self, block: usize) -> u64 {
        let slots = self.layouts.get(block).map_or(&[][..], |layout| &layout.slots);
        slots.iter().map(|slot| slot.count as u64 * F32).max().unwrap_or(0)
    }
}

/// The GPU's share by kind.
pub(super) fn gpu_items(input: &OffloadInput<'_>, sizes: &Sizes, peak: Phase) -> Vec<PlanItem> {
    let largest = sizes.layouts.iter().map(Layout::num_weights).max().unwrap_or(0) as u64;
    let (batch, tokens) =
        (counted(input.batch_size as u64, "sequence"), counted(input.sequence_length as u64, "token"));
    let item = |kind, bytes, how: String| PlanItem { kind, bytes, how };
    let num_tokens = input.batch_size.saturating_mul(input.sequence_length);
    let measuring = rates::product_probe_bytes(num_tokens).saturating_sub(peak.total());
    let cuda = format!("{} for CUDA and its libraries, not measured", format_bytes(CUDA_BYTES));
    let runtime = match measuring {
        0 => cuda,
        more => format!("{cuda}, {} while the machine's rates are measured", format_bytes(more)),
    };
    vec![
        item(
            PlanKind::Weights,
            peak.weights,
            format!("one block in f32, or the head and what it borrows; the largest has {} weights", grouped(largest)),
        ),
        item(
            PlanKind::Gradients,
            peak.gradients,
            "of one block, until they are in the machine's memory; tables of the ends up to thrice, while they are added up".to_owned(),
        ),
        item(
            PlanKind::Activations,
            peak.activations,
            format!("{batch} of {tokens}: what goes into each block, and what one block keeps for its backward pass"),
        ),
        item(
            PlanKind::Logits,
            peak.logits,
            "of a part of the tokens, with twice as much on the way to their gradients".to_owned(),
        ),
        item(PlanKind::Runtime, CUDA_BYTES.saturating_add(measuring), runtime),
    ]
}
