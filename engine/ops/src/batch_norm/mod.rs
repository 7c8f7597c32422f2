//! Batch normalization over (n, h, w) of (n, c, h, w), alone and behind a convolution.
//!
//! Source: Ioffe and Szegedy 2015, arXiv 1502.03167. Invariant: sums have one order for any number of threads.

mod channels;
mod conv_norm;
mod op;
mod residual;
#[cfg(test)]
mod tests;

pub use conv_norm::{ConvNorm, conv_norm};
pub use op::{Affine, Moments, Statistics, batch_norm, composed};
pub use residual::{ResidualBlock, residual_block};
