//! Optimizer and schedule settings.

use serde::{Deserialize, Serialize};

use super::OptimError;
use super::muon::MatrixView;
use crate::models::ops::codes::GROUP;
use crate::models::{TensorKind, TensorSpec};

/// Which rule moves the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay. Source: Loshchilov and Hutter 2017, arXiv 1711.05101.
    AdamW,
    /// Orthogonalized momentum for matrices, AdamW for the rest. Source: Jordan et al. 2024, Muon.
    Muon,
}

impl OptimizerKind {
    /// As its authors write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AdamW => "AdamW",
            Self::Muon => "Muon",
        }
    }
}

/// Numbers that the state is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum StatePrecision {
    /// 4 bytes each.
    #[default]
    F32,
    /// 8 bits each and an f32 for 2048 of them, in tensors of 4096 numbers and more; in the machine's memory.
    /// Source: Dettmers et al. 2021, arXiv 2110.02861.
    EightBit,
}

/// Where the state is kept. On the processor both are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum StatePlace {
    /// In the memory of the device that computes.
    #[default]
    WithWeights,
    /// In the machine's memory, where the processor moves it: optimizer offload.
    /// Source: Ren et al. 2021, ZeRO-Offload, arXiv 2101.06840.
    HostMemory,
}

impl StatePlace {
    /// True where the weights are.
    #[must_use]
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub fn is_with_weights(&self) -> bool {
        *self == Self::WithWeights
    }
}

/// Smaller tensors keep an f32 state: they take little room, and rounding costs most where a scale serves few. As in the
/// paper's library.
const MIN_EIGHT_BIT: u64 = 4096;

impl StatePrecision {
    /// All.
    pub const ALL: [Self; 2] = [Self::F32, Self::EightBit];

    /// True for f32.
    #[must_use]
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub fn is_full(&self) -> bool {
        *self == Self::F32
    }

    /// As on the command line.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::EightBit => "8bit",
        }
    }

    /// Bytes of this many numbers of a tensor's state.
    fn bytes(self, count: u64) -> u64 {
        match self {
            Self::F32 => count.saturating_mul(4),
            Self::EightBit => count.saturating_add(count.div_ceil(GROUP as u64).saturating_mul(4)),
        }
    }
}

/// Optimizer settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Which rule.
    pub kind: OptimizerKind,
    /// Peak learning rate (of the matrices, when Muon moves them).
    pub learning_rate: f64,
    /// Learning rate of the tensors that Muon leaves to AdamW. With AdamW alone it is unused: what Muon would give matrices.
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
    /// Numbers of the moments. Recipes of earlier versions have none.
    #[serde(default, skip_serializing_if = "StatePrecision::is_full")]
    pub states: StatePrecision,
    /// Where the moments are kept. Recipes of earlier versions have none.
    #[serde(default, skip_serializing_if = "StatePlace::is_with_weights")]
    pub state_place: StatePlace,
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

impl OptimizerConfig {
    /// Goes over to another rule, at the rate that is known for it: AdamW moves everything at the rate that it has beside
    /// Muon, a fifth of Muon's or less in most recipes. Going back brings back the rates of before.
    pub fn switch_to(&mut self, kind: OptimizerKind) {
        if kind != self.kind {
            self.kind = kind;
            std::mem::swap(&mut self.learning_rate, &mut self.adam_learning_rate);
        }
    }

    /// Errors: [`OptimError::Setting`] for the first setting outside its range.
    pub fn check(&self) -> Result<(), OptimError> {
        let not_negative = |value: f64| value.is_finite() && value >= 0.0;
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let decay = |value: f64| (0.0..1.0).contains(&value);
        let steps = f64::from(self.newton_schulz_steps);
        let rules = [
            ("learning_rate", self.learning_rate, "a finite x >= 0", not_negative(self.learning_rate)),
            ("adam_learning_rate", self.adam_learning_rate, "a finite x >= 0", not_negative(self.adam_learning_rate)),
            ("beta1", self.beta1, "0 <= x < 1", decay(self.beta1)),
            ("beta2", self.beta2, "0 <= x < 1", decay(self.beta2)),
            ("epsilon", self.epsilon, "a finite x > 0", positive(self.epsilon)),
            ("weight_decay", self.weight_decay, "a finite x >= 0", not_negative(self.weight_decay)),
            ("momentum", self.momentum, "0 <= x < 1", decay(self.momentum)),
            ("newton_schulz_steps", steps, "1 to 10", (1.0..=10.0).contains(&steps)),
            ("clip_norm", self.clip_norm.unwrap_or(1.0), "a finite x > 0", self.clip_norm.is_none_or(positive)),
        ];
        match rules.into_iter().find(|(.., is_met)| !is_met) {
            Some((key, found, expected, _)) => Err(OptimError::Setting { key, expected, found }),
            None => Ok(()),
        }
    }

    /// Bytes of the state that [`super::Optimizer`] keeps for these tensors.
    #[must_use]
    pub fn state_bytes(&self, specs: &[TensorSpec]) -> u64 {
        let bytes = |spec: &TensorSpec| {
            let moments = match (spec.kind, self.view(spec)) {
                (TensorKind::Buffer, _) => 0,
                (_, Some(_)) => 1,
                (_, None) => 2,
            };
            self.states_of(spec).bytes(num_elements(spec)).saturating_mul(moments)
        };
        specs.iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// Numbers of a tensor's moments.
    pub(super) fn states_of(&self, spec: &TensorSpec) -> StatePrecision {
        if num_elements(spec) < MIN_EIGHT_BIT { StatePrecision::F32 } else { self.states }
    }

    /// Bytes that a step takes besides: the matrices that Muon orthogonalizes on `num_threads` threads at once.
    #[must_use]
    pub fn workspace_bytes(&self, specs: &[TensorSpec], num_threads: usize) -> u64 {
        let matrices = specs.iter().filter(|spec| self.view(spec).is_some());
        // Per matrix: the direction, it over its norm, the next iterate, and two small squares.
        let mut numbers: Vec<u64> = matrices.map(|spec| num_elements(spec).saturating_mul(4)).collect();
        numbers.sort_unstable_by_key(|&size| std::cmp::Reverse(size));
        numbers.into_iter().take(num_threads.max(1)).fold(0, u64::saturating_add).saturating_mul(4)
    }

    /// Decoupled weight decay of a tensor: biases and norm scales have none.
    pub(super) fn weight_decay_of(&self, kind: TensorKind) -> f64 {
        if kind == TensorKind::Vector { 0.0 } else { self.weight_decay }
    }

    /// How Muon sees a tensor; `None` when AdamW moves it.
    pub(super) fn view(&self, spec: &TensorSpec) -> Option<MatrixView> {
        match (self.kind, spec.kind) {
            (OptimizerKind::Muon, TensorKind::Matrix) => MatrixView::of(&spec.name, &spec.shape),
            (
                OptimizerKind::Muon | OptimizerKind::AdamW,
                TensorKind::Matrix | TensorKind::Embedding | TensorKind::Head | TensorKind::Vector | TensorKind::Buffer,
            ) => None,
        }
    }
}

fn num_elements(spec: &TensorSpec) -> u64 {
    spec.shape.iter().fold(1, |product: u64, &size| product.saturating_mul(size as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_over_to_another_rule_takes_its_rate_and_going_back_brings_the_rates_back() {
        let muon = OptimizerConfig {
            kind: OptimizerKind::Muon,
            learning_rate: 1.5e-2,
            adam_learning_rate: 3e-3,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.01,
            momentum: 0.9,
            newton_schulz_steps: 3,
            clip_norm: None,
            states: StatePrecision::F32,
            state_place: StatePlace::WithWeights,
        };
        let mut optimizer = muon.clone();
        optimizer.switch_to(OptimizerKind::AdamW);
        assert_eq!((optimizer.kind, optimizer.learning_rate), (OptimizerKind::AdamW, 3e-3));
        optimizer.switch_to(OptimizerKind::AdamW);
        assert_eq!(optimizer.learning_rate, 3e-3);
        optimizer.switch_to(OptimizerKind::Muon);
        assert_eq!(optimizer, muon);
    }
}
