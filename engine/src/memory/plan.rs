//! The plan: bytes by kind against a budget.

use serde::{Deserialize, Serialize};

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
    /// What would make it fit, best first; empty when it fits.
    pub remedies: Vec<String>,
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
