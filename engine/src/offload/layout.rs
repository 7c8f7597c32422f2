//! Where the numbers of a block lie.

use serde::{Deserialize, Serialize};

use crate::models::ops::codes::GROUP;
use crate::models::{Block, TensorKind};

/// How a number lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Precision {
    /// bf16 weights with stochastic rounding and no other copy, 8-bit moments: 4 bytes a weight.
    #[default]
    Compact,
    /// f32 weights and moments, AdamW as in memory: 12 bytes a weight.
    Full,
}

impl Precision {
    /// Bytes of a weight without its moments.
    #[must_use]
    pub fn weight_bytes(self) -> u64 {
        match self {
            Self::Compact => 2,
            Self::Full => 4,
        }
    }

    /// Bytes of a moment, its share of the scales aside.
    pub(super) fn moment_bytes(self) -> u64 {
        match self {
            Self::Compact => 1,
            Self::Full => 4,
        }
    }
}

/// One tensor of a block.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) kind: TensorKind,
    /// How many numbers.
    pub(super) count: usize,
}

/// The tensors of a block, one after the other in their network's order. Scales start anew with each tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// The block's name.
    pub(super) block: String,
    pub(super) slots: Vec<Slot>,
    pub(super) precision: Precision,
}

impl Layout {
    pub(super) fn of(block: &dyn Block, precision: Precision) -> Self {
        let slot = |spec: crate::models::TensorSpec| Slot {
            count: spec.num_elements(),
            name: spec.name,
            shape: spec.shape,
            kind: spec.kind,
        };
        Self { block: block.name().to_owned(), slots: block.specs().into_iter().map(slot).collect(), precision }
    }

    /// Numbers of all tensors.
    pub(super) fn num_weights(&self) -> usize {
        self.slots.iter().map(|slot| slot.count).sum()
    }

    /// Scales of a moment; none in full precision.
    pub(super) fn num_scales(&self) -> usize {
        match self.precision {
            Precision::Compact => self.slots.iter().map(|slot| slot.count.div_ceil(GROUP)).sum(),
            Precision::Full => 0,
        }
    }

    /// Bytes of the weights alone.
    pub(super) fn weight_bytes(&self) -> u64 {
        self.num_weights() as u64 * self.precision.weight_bytes()
    }

    /// Bytes of weights, moments and scales.
    pub(super) fn state_bytes(&self) -> u64 {
        let moment = self.num_weights() as u64 * self.precision.moment_bytes() + self.num_scales() as u64 * 4;
        self.weight_bytes() + 2 * moment
    }
}
