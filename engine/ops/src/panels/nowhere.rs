//! Processors without AVX-512: nobody multiplies here.

use crate::gemm::{Matrix, Old};

/// Of nothing.
#[derive(Debug)]
pub(crate) enum Packed {}

/// Of no meaning without a kernel.
pub(crate) const MIN_SHARED_WORK: usize = usize::MAX;

/// Never.
pub(crate) fn is_available() -> bool {
    false
}

/// Nothing is packed.
pub(crate) fn packed_bytes() -> u64 {
    0
}

/// Nothing does.
pub(crate) fn gains(_: (usize, usize, usize), _: Matrix<'_, f32>) -> bool {
    false
}

/// Never called, as nothing gains by it.
pub(crate) fn multiply(
    _: (usize, usize, usize),
    _: (&mut [f32], usize),
    _: Old,
    _: f32,
    _: (Matrix<'_, f32>, Matrix<'_, f32>),
    _: usize,
) {
    unreachable!("panels are multiplied by AVX-512 alone");
}
