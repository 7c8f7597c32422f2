//! Differentiable operations of our own, where candle has none or a slow one.

pub mod batch_norm;
mod buffers;
#[cfg(test)]
pub(crate) mod check;
pub mod conv2d;
mod cross_entropy;
mod epilogue;
mod gemm;
pub mod global_avg_pool;
mod lanes;
mod layer_norm;
pub mod max_pool;
mod real;
mod rms_norm;
mod simd;

pub use batch_norm::{batch_norm, batch_norm_by};
pub use conv2d::conv2d;
pub use cross_entropy::{cross_entropy, error_norms};
pub use epilogue::Epilogue;
pub use global_avg_pool::global_avg_pool;
pub use layer_norm::layer_norm;
pub use max_pool::max_pool2d;
pub use rms_norm::rms_norm;
