//! 2-D convolution for training on the CPU: forward and hand-written backward.
//!
//! Invariants: results do not depend on the number of threads; every sum has one order.

mod direct;
mod gradients;
mod kernel;
mod op;
mod pass;
mod pixels;
mod plan;
mod pooled;
#[cfg(test)]
mod tests;
mod winograd;
mod winograd_steps;
mod winograd_tiles;

pub(super) use gradients::{InputGradient, Wanted, gradients};
pub(super) use op::{finish_plane, forward};
pub(super) use plan::Sizes;

pub use op::{Conv2dConfig, composed, conv2d};
pub use pooled::conv2d_relu_pool;
pub use winograd::{WinogradRoom, winograd_room};
