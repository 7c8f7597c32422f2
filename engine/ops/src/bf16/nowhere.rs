//! Processors whose bf16 instructions we do not use: no kernel, so that nobody can multiply.

use crate::gemm::{Matrix, Old};

/// No such thing.
#[derive(Debug)]
pub(crate) enum Kernel {}

impl Kernel {
    /// Of nothing.
    pub(crate) fn name(&self) -> &'static str {
        match *self {}
    }

    /// None.
    pub(crate) fn packed_bytes(&self) -> u64 {
        match *self {}
    }

    /// As little.
    pub(crate) fn gains(&self, _: (usize, usize, usize)) -> bool {
        match *self {}
    }
}

/// No such thing either.
#[derive(Debug)]
pub(crate) enum Packed {}

/// Of no meaning without a kernel.
pub(crate) const MIN_SHARED_WORK: usize = usize::MAX;

/// None.
pub(crate) fn exact() -> Option<&'static Kernel> {
    None
}

/// None.
pub(crate) fn available() -> Option<&'static Kernel> {
    None
}

/// Never called, for want of a kernel.
pub(crate) fn multiply(
    kernel: &Kernel,
    _: (usize, usize, usize),
    _: (&mut [f32], usize),
    _: Old,
    _: f32,
    _: (Matrix<'_, f32>, Matrix<'_, f32>),
    _: usize,
) {
    match *kernel {}
}

/// Nothing is kept.
pub(crate) fn release_scratch() {}
