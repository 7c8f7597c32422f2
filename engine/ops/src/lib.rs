//! Differentiable operations of our own, where candle has none or a slow one.
//!
//! On the CPU each is one node of candle's graph with a hand-written gradient: parallel, vectorized, and
//! with the same result for any number of threads that the shapes keep busy. On other devices they are
//! composed of candle's operations.

mod activations;
pub mod adamw;
mod attention;
mod backward;
pub mod batch_norm;
mod bf16;
mod buffers;
pub mod check;
pub mod codes;
pub mod conv2d;
mod cross_entropy;
mod distillation;
mod embedding;
mod epilogue;
mod function;
mod gate;
mod gelu;
mod gemm;
pub mod global_avg_pool;
mod gpt2_layer;
mod head_loss;
mod kernels;
mod lanes;
mod layer_norm;
mod linear;
mod llama_layer;
mod many;
pub mod max_pool;
mod newton_schulz;
mod pages;
mod panels;
mod precision;
pub mod profile;
mod real;
mod rms_norm;
mod rope;
mod rows;
mod sequence;
mod silu_mul;
mod simd;
#[cfg(target_arch = "x86_64")]
mod span;
#[cfg(target_arch = "x86_64")]
mod transpose;

pub use activations::Activations;
pub use attention::{Heads, MAX_COMPOSED_SCORES, causal_attention};
pub use backward::{backward, backward_onto};
pub use batch_norm::{batch_norm, conv_norm, residual_block};
pub use buffers::release_scratch;
pub use conv2d::{WinogradRoom, conv2d, conv2d_relu_pool, winograd_room};
pub use cross_entropy::{cross_entropy, error_norms};
pub use distillation::distillation_loss;
pub use embedding::embedding;
pub use epilogue::Epilogue;
pub use gate::GateActivation;
pub use gelu::gelu;
pub use gemm::add_product;
pub use global_avg_pool::global_avg_pool;
pub use gpt2_layer::{Gpt2LayerShape, Gpt2LayerWeights, gpt2_layer, gpt2_layer_observed};
pub use head_loss::{Around, HeadLoss, HeadTargets, head_loss};
pub use kernels::{has_kernels, on_processor, without_kernels};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use llama_layer::{LlamaLayerShape, LlamaLayerWeights, SubNorms, llama_layer, llama_layer_observed};
pub use max_pool::max_pool2d;
pub use newton_schulz::newton_schulz;
pub use pages::{give_back_pages, keep_freed_pages, share_freed_pages, trim_pages};
pub use precision::Precision;
pub use rms_norm::rms_norm;
pub use rope::rope;
pub use sequence::Kept;
pub use silu_mul::silu_mul;
