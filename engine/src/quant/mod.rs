//! Quantization: scales, packing, and what it does to a checkpoint.

mod scheme;

pub use scheme::QuantScheme;
