//! A state buffer in codes of 8 bits, cut into groups that share a scale.

use rayon::prelude::*;

use crate::models::ops::codes::GROUP;

/// Up to [`GROUP`] codes and their scale.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) codes: &'a mut [u8],
    pub(crate) scale: &'a mut f32,
}

/// A state buffer of codes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Coded {
    pub(super) codes: Vec<u8>,
    /// One for each [`GROUP`] of them.
    pub(super) scales: Vec<f32>,
}

/// Codes and scales group by group.
pub(crate) fn groups<'a>(codes: &'a mut [u8], scales: &'a mut [f32]) -> impl IndexedParallelIterator<Item = Group<'a>> {
    codes.par_chunks_mut(GROUP).zip(scales.par_iter_mut()).map(|(codes, scale)| Group { codes, scale })
}

impl Coded {
    pub(super) fn zeros(count: usize) -> Self {
        Self { codes: vec![0; count], scales: vec![0.0; count.div_ceil(GROUP)] }
    }

    pub(super) fn groups(&mut self) -> impl IndexedParallelIterator<Item = Group<'_>> {
        groups(&mut self.codes, &mut self.scales)
    }
}
