//! Optimizer and schedule settings.

use serde::{Deserialize, Serialize};

/// Which rule moves the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay. Source: Loshchilov and Hutter 2017, arXiv 1711.05101.
    AdamW,
    /// Orthogonalized momentum for matrices, AdamW for the rest. Source: Jordan et al. 2024, Muon.
    Muon,
}

/// Optimizer settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Which rule.
    pub kind: OptimizerKind,
    /// Peak learning rate (of the matrices, when Muon moves them).
    pub learning_rate: f64,
    /// Learning rate of the tensors that Muon leaves to AdamW; unused with AdamW alone.
    pub adam_learning_rate: f64,
    /// Decay of AdamW's first moment.
    pub beta1: f64,
    /// Decay of AdamW's second moment.
    pub beta2: f64,
    /// Added to AdamW's denominator.
    pub epsilon: f64,
    /// Decoupled weight decay, on matrices and embeddings.
    pub weight_decay: f64,
    /// Muon's momentum.
    pub momentum: f64,
    /// Muon's Newton-Schulz iterations (3 to 5).
    pub newton_schulz_steps: u32,
    /// Gradients are scaled down to this global L2 norm; `None` leaves them.
    pub clip_norm: Option<f64>,
}

/// Learning rate over the run, as a factor of the peak.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Schedule {
    /// Linear warmup, then a cosine down to `final_fraction` of the peak.
    Cosine {
        /// Share of the steps spent warming up.
        warmup_fraction: f64,
        /// Factor at the last step.
        final_fraction: f64,
    },
    /// Linear warmup, then constant; evaluation uses an exponential moving average of the weights.
    ConstantEma {
        /// Share of the steps spent warming up.
        warmup_fraction: f64,
        /// Decay of the average per step.
        ema_decay: f64,
    },
}
