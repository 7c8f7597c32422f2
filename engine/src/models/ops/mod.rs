//! Differentiable operations of our own, where candle has none or a slow one.

mod buffers;
#[cfg(test)]
pub(crate) mod check;
mod cross_entropy;
mod gemm;
mod layer_norm;
mod real;
mod rms_norm;
mod simd;

pub use cross_entropy::{cross_entropy, error_norms};
pub use layer_norm::layer_norm;
pub use rms_norm::rms_norm;
