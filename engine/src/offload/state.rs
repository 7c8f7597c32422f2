//! A block in memory: the numbers of its file.

use half::bf16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::layout::{Layout, Precision};

/// Numbers per task of a conversion.
const TASK: usize = 1 << 16;

/// Weights of a block, tensor after tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Weights {
    Full(Vec<f32>),
    Compact(Vec<bf16>),
}

impl Weights {
    /// All 0.
    pub(super) fn zeros(layout: &Layout) -> Self {
        let count = layout.num_weights();
        match layout.precision {
            Precision::Full => Self::Full(vec![0.0; count]),
            Precision::Compact => Self::Compact(vec![bf16::ZERO; count]),
        }
    }

    /// `count` numbers from `start` on, in f32. Past the end there are none.
    pub(super) fn numbers(&self, start: usize, count: usize) -> Vec<f32> {
        match self {
            Self::Full(all) => all.get(start..start + count).unwrap_or_default().to_vec(),
            Self::Compact(all) => {
                let halves = all.get(start..start + count).unwrap_or_default();
                let mut numbers = vec![0.0; halves.len()];
                let tasks = numbers.par_chunks_mut(TASK).zip(halves.par_chunks(TASK));
                tasks.for_each(|(numbers, halves)| halves.convert_to_f32_slice(numbers));
                numbers
            }
        }
    }

    /// Bytes of `count` numbers from `start` on. Past the end there are none.
    pub(super) fn bytes(&self, start: usize, count: usize) -> &[u8] {
        match self {
            Self::Full(all) => bytemuck::cast_slice(all.get(start..start + count).unwrap_or_default()),
            Self::Compact(all) => bytemuck::cast_slice(all.get(start..start + count).unwrap_or_default()),
        }
    }

    /// Writes numbers from `start` on, rounded to nearest. What does not fit is left out.
    pub(super) fn set(&mut self, start: usize, numbers: &[f32]) {
        match self {
            Self::Full(all) => {
                if let Some(place) = all.get_mut(start..start + numbers.len()) {
                    place.copy_from_slice(numbers);
                }
            }
            Self::Compact(all) => {
                if let Some(place) = all.get_mut(start..start + numbers.len()) {
                    place.convert_from_f32_slice(numbers);
                }
            }
        }
    }
}

/// A moment of a block's weights, in their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Moment {
    Full(Vec<f32>),
    /// Codes, and a scale for each group of each tensor.
    Compact(Vec<u8>, Vec<f32>),
}

impl Moment {
    /// All 0.
    pub(super) fn zeros(layout: &Layout) -> Self {
        let count = layout.num_weights();
        match layout.precision {
            Precision::Full => Self::Full(vec![0.0; count]),
            Precision::Compact => Self::Compact(vec![0; count], vec![0.0; layout.num_scales()]),
        }
    }
}

/// Everything in a block's file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BlockState {
    /// Updates that it had.
    pub(super) step: u64,
    pub(super) weights: Weights,
    pub(super) m: Moment,
    pub(super) v: Moment,
}

impl BlockState {
    /// All 0, before the first update.
    pub(super) fn zeros(layout: &Layout) -> Self {
        Self { step: 0, weights: Weights::zeros(layout), m: Moment::zeros(layout), v: Moment::zeros(layout) }
    }

    /// The bytes of its file after the header: weights, first moment, second moment.
    pub(super) fn sections(&self) -> Vec<&[u8]> {
        let mut sections = vec![match &self.weights {
            Weights::Full(all) => bytemuck::cast_slice(all),
            Weights::Compact(all) => bytemuck::cast_slice(all),
        }];
        for moment in [&self.m, &self.v] {
            match moment {
                Moment::Full(all) => sections.push(bytemuck::cast_slice(all)),
                Moment::Compact(codes, scales) => sections.extend([codes.as_slice(), bytemuck::cast_slice(scales)]),
            }
        }
        sections
    }

    /// The same, to be read into.
    pub(super) fn sections_mut(&mut self) -> Vec<&mut [u8]> {
        let mut sections = vec![self.weights.bytes_mut()];
        for moment in [&mut self.m, &mut self.v] {
            match moment {
                Moment::Full(all) => sections.push(bytemuck::cast_slice_mut(all)),
                Moment::Compact(codes, scales) => {
                    sections.extend([codes.as_mut_slice(), bytemuck::cast_slice_mut(scales)]);
                }
            }
        }
        sections
    }
}

impl Weights {
    /// The bytes of the file's first section, to be read into.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Full(all) => bytemuck::cast_slice_mut(all),
            Self::Compact(all) => bytemuck::cast_slice_mut(all),
        }
    }
}
