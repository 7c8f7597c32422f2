//! Networks built from a config: sequences of blocks of named tensors.
//!
//! Invariants: a network holds no weights (they are in [`Params`], in the names of Hugging Face
//! transformers where the family exists there); every tensor's name, shape and initial
//! distribution is known from the config alone, before anything is allocated.

mod cnn;
#[cfg(test)]
mod composed_tests;
mod config;
mod error;
mod gpt2;
mod growth;
pub mod hf_config;
mod limits;
mod llama;
mod mlp;
mod nearest;
mod network;
mod observe;
mod params;
mod resnet;
mod running_stats;
#[cfg(test)]
mod transformer_tests;
#[cfg(test)]
mod vision_tests;

pub use config::{
    Activation, CnnConfig, DataShape, Gpt2Config, LlamaConfig, MlpConfig, ModelConfig, ModelPreset, ResNetConfig,
};
pub use error::ModelError;
pub use foretrain_ops as ops;
pub use growth::{BlockOrder, Growth, NewBlocks};
pub(crate) use nearest::{nearest, nearest_found};
pub(crate) use network::initial_values;
pub use network::{
    BatchStats, Block, Forward, Init, MAX_LOGITS, Mode, Network, TensorKind, TensorSpec, initial_params,
};
pub use observe::{InputObserver, LayerInput};
pub use ops::GateActivation;
pub(crate) use params::host_copy;
pub use params::{ParamStore, Params};
pub use resnet::BATCH_NORM_EPS;
pub use running_stats::{BATCH_NORM_MOMENTUM, updated_running_stats};
