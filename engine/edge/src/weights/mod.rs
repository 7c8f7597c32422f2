//! Weights by their Hugging Face names, from safetensors or GGUF, in the types that the kernels take.
//!
//! Invariant: whatever a file claims is checked here; a [`Matrix`] and a vector have the sizes that were asked for.
#![forbid(unsafe_code)]

mod activations;
mod float_rows;
mod integer_rows;
mod matrix;
mod packed_floats;
mod safetensors_file;
mod store;
mod tensor;
mod triple_rows;
mod widened;

pub use activations::Activations;
pub(crate) use matrix::Matrix;
pub(crate) use store::{Layout, ROPE_DIVISORS, Weights};
