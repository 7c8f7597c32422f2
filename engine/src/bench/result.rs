//! What a measurement of speed found, as it is stored.

use serde::{Deserialize, Serialize};

use super::turn::{Turn, median};
use super::{BenchModel, BenchSize, TorchVariant};
use crate::device::MachineRecord;
use crate::models::ops::Precision;

/// Speed of training, model by model, and under which conditions it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainSpeed {
    /// The machine.
    pub machine: MachineRecord,
    /// Compute threads of each side.
    pub num_threads: usize,
    /// Of our matrix products.
    #[serde(default)]
    pub precision: Precision,
    /// Times that each side had its turn.
    pub rounds: usize,
    /// Seconds of a turn; a slow step makes it longer.
    pub seconds_per_turn: f64,
    /// PyTorch's version, when it was measured.
    pub torch: Option<String>,
    /// Models, in the order asked for.
    pub cases: Vec<CaseSpeed>,
}

/// Times of one side over all its turns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TurnTimes {
    /// Median of the turns' medians, milliseconds.
    pub median_ms: f64,
    /// Fastest turn's median.
    pub least_ms: f64,
    /// Slowest turn's median.
    pub most_ms: f64,
    /// Processor milliseconds, all threads; `None` where the system does not tell.
    pub processor_ms: Option<f64>,
    /// Steps timed.
    pub num_steps: usize,
}

impl TurnTimes {
    pub(super) fn of(turns: &[Turn]) -> Self {
        let medians: Vec<f64> = turns.iter().map(Turn::median_ms).collect();
        let processor: Option<Vec<f64>> = turns.iter().map(|turn| turn.processor_ms).collect();
        Self {
            least_ms: medians.iter().copied().fold(f64::INFINITY, f64::min),
            most_ms: medians.iter().copied().fold(0.0, f64::max),
            median_ms: median(medians),
            processor_ms: processor.map(median),
            num_steps: turns.iter().map(|turn| turn.step_ms.len()).sum(),
        }
    }
}

/// Speed of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseSpeed {
    /// Which.
    pub model: BenchModel,
    /// Trainable numbers.
    pub num_params: u64,
    /// Batch of a step.
    pub size: BenchSize,
    /// A full step of ours: forward, backward, gradient norm, AdamW.
    pub step: TurnTimes,
    /// A forward pass of ours that keeps nothing, with the loss.
    pub forward: TurnTimes,
    /// Full steps of ours with smaller batches and shorter sequences.
    pub scaling: Vec<ScalePoint>,
    /// Full steps of PyTorch's, in turns with ours.
    pub peers: Vec<PeerSpeed>,
}

/// A full step of ours with another batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ScalePoint {
    /// The batch.
    pub size: BenchSize,
    /// Its time.
    pub step: TurnTimes,
}

/// PyTorch, one way of computing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerSpeed {
    /// Which way.
    pub variant: TorchVariant,
    /// What came of it.
    pub outcome: PeerOutcome,
}

/// What came of one way of computing with PyTorch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PeerOutcome {
    /// It was measured.
    Measured {
        /// Its full step.
        step: TurnTimes,
        /// Its time over ours, median of the rounds: above 1, we are faster.
        ratio: f64,
        /// Least of a round.
        ratio_least: f64,
        /// Most of a round.
        ratio_most: f64,
        /// Its first loss minus ours, nats.
        loss_difference: f64,
    },
    /// It cannot be had on this machine, and why.
    Unavailable(String),
}

impl CaseSpeed {
    /// Images or tokens a second of our steps.
    #[must_use]
    pub fn examples_per_second(&self) -> f64 {
        self.size.examples() as f64 / self.step.median_ms * 1e3
    }

    /// Forward passes in the time of a step.
    #[must_use]
    pub fn forward_speedup(&self) -> f64 {
        self.step.median_ms / self.forward.median_ms
    }
}
