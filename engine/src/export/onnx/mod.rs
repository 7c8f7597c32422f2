//! Image models as ONNX: floats, or 8-bit integers in the QDQ form.
//!
//! A checkpoint becomes a graph of floats (batch norm folded, pixels normalized inside); that graph is computed here,
//! compared with the trainer's network, calibrated on training images and made one of integers; the file is read back
//! and compared as a whole. Every figure of a package comes from computing the graph that is in it.

mod compose;
mod evaluate;
mod fold;
mod model;
mod package;
mod proto;
mod qdq;
mod ranges;
mod readme;

#[cfg(test)]
mod tests;

pub use evaluate::Evaluator;
pub use model::{OnnxModel, pixels_tensor};
pub use package::write_onnx_package;

pub(super) use model::{blockers, holds, predicted_bytes};

/// Version of the operators: the first in which QuantizeLinear takes a scale per channel, so that every runtime since
/// the end of 2020 reads the files.
pub const OPSET: i64 = 13;
/// Version of the file format: the one that came with this opset (onnx 1.8).
pub const IR_VERSION: i64 = 7;
/// Name of the file within a package.
pub const ONNX_FILE: &str = "model.onnx";
