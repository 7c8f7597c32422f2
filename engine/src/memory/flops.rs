//! Work of a step, for estimates of time.

use super::layers::example;
use crate::models::ModelConfig;
use crate::models::ops::Kept;

/// Floating-point operations of one forward pass over a batch; a backward pass takes about twice as many.
///
/// A multiplication with its addition counts as two; only matrix products and convolutions count.
/// `sequence_length` is unused for images. Stays at `u64::MAX` when it would overflow.
#[must_use]
pub fn step_flops(config: &ModelConfig, batch_size: usize, sequence_length: usize) -> u64 {
    example(config, Kept::Activations, sequence_length).flops.saturating_mul(batch_size as u64)
}
