//! Networks: a config and weights become something that answers.
//!
//! Image models turn normalized pixels into logits; language models turn tokens into hidden states over a cache.
#![forbid(unsafe_code)]

mod attention;
mod cache;
mod cnn;
mod config;
mod conv;
mod finite;
mod gguf_config;
mod gpt2;
mod image_model;
mod language_model;
mod linear;
mod llama;
mod llama_config;
mod mlp;
mod norm;
mod resnet;
mod rope;
#[cfg(test)]
mod tests;

pub(crate) use attention::softmax;
pub use cache::CacheFormat;
pub(crate) use config::{Config, TextConfig};
pub(crate) use image_model::ImageModel;
pub(crate) use language_model::{Cache, LanguageModel, Part};
