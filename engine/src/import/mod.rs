//! Models that others wrote, as checkpoints: folders of Hugging Face transformers and llama.cpp's GGUF files.
//!
//! Invariants: nothing in a file is believed before it was checked; a tensor that is missing, of another shape, not a
//! number or of no use is refused by name; what is read has exactly the tensors of the network that its config describes.

mod checkpoint;
mod error;
mod gguf;
mod gguf_config;
mod hugging_face;
mod source;
mod tensors;

#[cfg(test)]
mod tests;

pub use checkpoint::{ModelReader, StartingPoint, read_model, read_stored_model, starting_point};
pub use error::ImportError;
