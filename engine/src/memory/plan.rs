//! The plan: bytes by kind against a budget.

use serde::{Deserialize, Serialize};

use crate::models::ops::Kept;
use crate::optim::{StatePlace, StatePrecision};

/// What bytes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum PlanKind {
    Weights,
    Gradients,
    Optimizer,
    WeightAverage,
    QuantizedWeights,
    RollbackSnapshot,
    Activations,
    Logits,
    Evaluation,
    Dataset,
    Runtime,
}

impl PlanKind {
    /// The name to show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Weights => "Weights",
            Self::Gradients => "Gradients",
            Self::Optimizer => "Optimizer state",
            Self::WeightAverage => "Weight average",
            Self::QuantizedWeights => "Quantized weights",
            Self::RollbackSnapshot => "Rollback snapshot",
            Self::Activations => "Activations",
            Self::Logits => "Logits",
            Self::Evaluation => "Evaluation, beyond a step",
            Self::Dataset => "Dataset",
            Self::Runtime => "Program and buffers",
        }
    }
}

/// One line of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanItem {
    /// What for.
    pub kind: PlanKind,
    /// How much.
    pub bytes: u64,
    /// The arithmetic, for the curious: "105,866 parameters x 4 bytes".
    pub how: String,
}

/// What a run will hold at its peak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemoryPlan {
    /// By kind, largest first.
    pub items: Vec<PlanItem>,
    /// What there is.
    pub budget_bytes: u64,
    /// Where the budget comes from: "80% of this machine's 23.4 GiB".
    pub budget_source: String,
    /// What would make it fit, mildest first, settings before all else; empty when it fits.
    pub remedies: Vec<Remedy>,
}

/// What would make a run fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedy {
    /// In words, with the bytes that it would take then.
    pub what: String,
    /// The settings that do it; `None` for a change of what is trained, or of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<MemorySettings>,
    /// Sequences in a batch, where it is to stream the blocks from disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streamed_batch: Option<usize>,
}

/// Settings that trade time for memory and leave the training what it is, or near it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemorySettings {
    /// Parts that a batch is cut into.
    pub num_micro_batches: usize,
    /// What transformer layers keep for the backward pass.
    pub kept: Kept,
    /// Numbers of the optimizer's moments.
    pub states: StatePrecision,
    /// Where they are kept.
    #[serde(default, skip_serializing_if = "StatePlace::is_with_weights")]
    pub state_place: StatePlace,
}

impl Remedy {
    /// One that takes more than settings.
    #[must_use]
    pub fn in_words(what: impl Into<String>) -> Self {
        Self { what: what.into(), settings: None, streamed_batch: None }
    }
}

impl std::fmt::Display for Remedy {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.what)
    }
}

impl MemoryPlan {
    /// All kinds together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.items.iter().fold(0, |sum, item| sum.saturating_add(item.bytes))
    }

    /// True when the peak stays within the budget.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.total_bytes() <= self.budget_bytes
    }

    /// True when a quarter more than the peak stays within it, too.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let total = self.total_bytes();
        total.saturating_add(total / 4) <= self.budget_bytes
    }
}
