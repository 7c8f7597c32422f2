//! Processors whose bf16 instructions we do not use: no kernel, so that nobody can multiply.

use crate::models::ops::gemm::{Matrix, Old};

/// No such thing.
#[derive(Debug)]
pub(in crate::models::ops) enum Kernel {}

impl Kernel {
    /// Of nothing.
    pub(in crate::models::ops) fn name(&self) -> &'static str {
        match *self {}
    }
}

/// No such thing either.
#[derive(Debug)]
pub(in crate::models::ops) enum Packed {}

/// None.
pub(in crate::models::ops) fn available() -> Option<&'static Kernel> {
    None
}

/// Never called, for want of a kernel.
pub(in crate::models::ops) fn multiply(
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
pub(in crate::models::ops) fn release_scratch() {}
