//! What the threads of a training step were busy with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::models::ops::profile::Kind;

/// What a thread of a step can be busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// Products of matrices outside attention and convolutions, with their biases.
    MatrixProducts,
    /// Attention, its own products included.
    Attention,
    /// Convolutions, their own products included, with the bias and the ReLU that end them.
    Convolutions,
    /// Layer, root-mean-square and batch norm.
    Norms,
    /// GELU, the gates of feed-forward parts, rounding of activations.
    Activations,
    /// Pooling.
    Pooling,
    /// Embedding tables and rotary positions.
    Embeddings,
    /// Cross entropy, and the error norms that prediction works with.
    Loss,
    /// Norm and clipping of the gradient, the optimizer, averages of weights.
    Optimizer,
    /// Making the batch.
    Data,
    /// Phases, gate, forecaster, guard.
    Decisions,
    /// All else: candle's own operations (fully connected layers of MLPs and CNNs among them), copies, threads that wait.
    Other,
}

impl Operation {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 12] = [
        Self::MatrixProducts,
        Self::Attention,
        Self::Convolutions,
        Self::Norms,
        Self::Activations,
        Self::Pooling,
        Self::Embeddings,
        Self::Loss,
        Self::Optimizer,
        Self::Data,
        Self::Decisions,
        Self::Other,
    ];

    /// The name to show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::MatrixProducts => "Matrix products",
            Self::Attention => "Attention",
            Self::Convolutions => "Convolutions",
            Self::Norms => "Norms",
            Self::Activations => "Activations",
            Self::Pooling => "Pooling",
            Self::Embeddings => "Embeddings",
            Self::Loss => "Loss",
            Self::Optimizer => "Optimizer",
            Self::Data => "Data",
            Self::Decisions => "Decisions",
            Self::Other => "Other and waiting",
        }
    }

    /// What it takes in, in a sentence.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::MatrixProducts => "Products of matrices outside attention and convolutions, with their biases.",
            Self::Attention => "Attention, with its own matrix products.",
            Self::Convolutions => "Convolutions, with their own matrix products, bias and ReLU.",
            Self::Norms => "Layer, root-mean-square and batch norm.",
            Self::Activations => "GELU, the gates of feed-forward parts, rounding of activations.",
            Self::Pooling => "Pooling.",
            Self::Embeddings => "Embedding tables and rotary positions.",
            Self::Loss => "Cross entropy, and the error norms that prediction works with.",
            Self::Optimizer => "Norm and clipping of the gradient, the optimizer, averages of weights.",
            Self::Data => "Making the batch.",
            Self::Decisions => "Phases, gate, forecaster, guard.",
            Self::Other => {
                "Operations without a kernel of ours (the fully connected layers of MLPs and CNNs among them), copies, and \
                 threads that wait."
            }
        }
    }
}

impl From<Kind> for Operation {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Product => Self::MatrixProducts,
            Kind::Attention => Self::Attention,
            Kind::Norm => Self::Norms,
            Kind::Activation => Self::Activations,
            Kind::Convolution => Self::Convolutions,
            Kind::Pooling => Self::Pooling,
            Kind::Embedding => Self::Embeddings,
            Kind::Loss => Self::Loss,
        }
    }
}

/// Time of all threads of a step by operation, milliseconds: together as many times the step's wall time as there are
/// threads. Where one thread works and the others can but wait (data, decisions, the optimizer's small parts), all of them
/// count.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<Operation, f32>", into = "BTreeMap<Operation, f32>")]
pub struct OperationTimes([f32; Operation::ALL.len()]);

impl OperationTimes {
    /// Adds to an operation.
    pub fn add(&mut self, operation: Operation, ms: f32) {
        for (time, found) in self.0.iter_mut().zip(Operation::ALL) {
            if found == operation {
                *time += ms;
            }
        }
    }

    /// Operations with their times, in the order of [`Operation::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Operation, f32)> {
        Operation::ALL.into_iter().zip(self.0)
    }

    /// Of all together.
    #[must_use]
    pub fn total_ms(&self) -> f32 {
        self.0.iter().sum()
    }
}

impl FromIterator<(Operation, f32)> for OperationTimes {
    fn from_iter<I: IntoIterator<Item = (Operation, f32)>>(times: I) -> Self {
        let mut all = Self::default();
        times.into_iter().for_each(|(operation, ms)| all.add(operation, ms));
        all
    }
}

impl From<BTreeMap<Operation, f32>> for OperationTimes {
    fn from(times: BTreeMap<Operation, f32>) -> Self {
        times.into_iter().collect()
    }
}

/// Without those that took no time.
impl From<OperationTimes> for BTreeMap<Operation, f32> {
    fn from(times: OperationTimes) -> Self {
        times.iter().filter(|(_, ms)| *ms > 0.0).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn lines_of_metrics_name_what_took_time() {
        let times: OperationTimes =
            [(Operation::Norms, 1.5), (Operation::Other, 0.25), (Operation::Norms, 0.5)].into_iter().collect();
        let text = serde_json::to_string(&times).unwrap();
        assert_eq!(text, r#"{"Norms":2.0,"Other":0.25}"#);
        assert_eq!(serde_json::from_str::<OperationTimes>(&text).unwrap(), times);
        assert_eq!(times.total_ms(), 2.25);
    }
}
