//! Quantization: scales, packing, and what it does to a checkpoint.

mod error;
mod scheme;

pub use error::QuantError;
pub use scheme::QuantScheme;
