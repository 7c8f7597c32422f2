//! 2-D convolution for training on the CPU: forward and hand-written backward.
//!
//! Invariants: results do not depend on the number of threads; every sum has one order.

mod gradients;
mod kernel;
mod op;
mod pass;
mod plan;
#[cfg(test)]
mod tests;

pub use op::{Conv2dConfig, composed, conv2d};
