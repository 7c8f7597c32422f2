//! Llama: RMS norm, rotary positions, SwiGLU, grouped-query attention. Source: transformers' `LlamaForCausalLM`.

use super::attention::{Heads, Rope, RopePairs};
use super::config::LlamaConfig;
use super::language_model::{Cache, embed};
use super::linear::Linear;
use super::norm::{RmsNorm, add, silu_mul};
use crate::EdgeError;
use crate::weights::{Layout, Matrix, Weights};

#[derive(Debug)]
pub(super) struct Llama {
    tokens: Matrix,
    blocks: Vec<Block>,
    norm: RmsNorm,
    /// When not tied to `tokens`.
    head: Option<Matrix>,
    heads: Heads,
    rope: Rope,
}

#[derive(Debug)]
struct Block {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    attention_out: Linear,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Llama {
    pub(super) fn load(config: &LlamaConfig, weights: &Weights) -> Result<Self, EdgeError> {
        let width = config.hidden_size;
        let table = |name: &str| weights.matrix(name, config.vocab_size, &[width], Layout::OutputMajor);
        let heads =
            Heads { heads: config.num_attention_heads, kv_heads: config.kv_heads(), head_dim: config.head_dim() };
        let pairs = if weights.is_gguf() { RopePairs::Neighbors } else { RopePairs::Halves };
        let mut llama = Self {
            tokens: table("model.embed_tokens.weight")?,
            blocks: Vec::new(),
            norm: RmsNorm::load(weights, "model.norm", width, config.rms_norm_eps)?,
            head: if config.tie_word_embeddings { None } else { Some(table("lm_head.weight")?) },
            heads,
            rope: Rope { theta: config.theta(), head_dim: heads.head_dim, pairs },
        };
        for number in 0..config.num_hidden_layers {
            llama.blocks.push(Block::load(config, heads, weights, &format!("model.layers.{number}"))?);
        }
        Ok(llama)
    }

    pub(super) fn num_layers(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.tokens)
    }

    /// Hidden states after the last norm (n, width). The caller has checked the number of positions.
    pub(super) fn forward(&self, tokens: &[u32], cache: &mut Cache) -> Result<Vec<f32>, EdgeError> {
        let Heads { heads, kv_heads, head_dim } = self.heads;
        let mut x = embed(&self.tokens, tokens)?;
        let position = cache.num_positions;
        for (block, layer) in self.blocks.iter().zip(&mut cache.layers) {
            let normed = block.attention_norm.apply(&x);
            let (mut query, mut key) = (block.query.apply(&normed), block.key.apply(&normed));
            self.rope.apply(&mut query, heads * head_dim, position);
            self.rope.apply(&mut key, kv_heads * head_dim, position);
            layer.push(self.heads, &key, &block.value.apply(&normed));
            add(&mut x, &block.attention_out.apply(&layer.attend(self.heads, &query)));
            let normed = block.feed_forward_norm.apply(&x);
            let mut hidden = block.gate.apply(&normed);
            silu_mul(&mut hidden, &block.up.apply(&normed));
            add(&mut x, &block.down.apply(&hidden));
        }
        Ok(self.norm.apply(&x))
    }
}

impl Block {
    fn load(config: &LlamaConfig, heads: Heads, weights: &Weights, name: &str) -> Result<Self, EdgeError> {
        let (width, inner, epsilon) = (config.hidden_size, config.intermediate_size, config.rms_norm_eps);
        let (query_width, kv_width) = (heads.heads * heads.head_dim, heads.kv_heads * heads.head_dim);
        let linear = |part: &str, out: usize, input: usize| {
            Linear::load_without_bias(weights, &format!("{name}.{part}"), out, input)
        };
        Ok(Self {
            attention_norm: RmsNorm::load(weights, &format!("{name}.input_layernorm"), width, epsilon)?,
            query: linear("self_attn.q_proj", query_width, width)?,
            key: linear("self_attn.k_proj", kv_width, width)?,
            value: linear("self_attn.v_proj", kv_width, width)?,
            attention_out: linear("self_attn.o_proj", width, query_width)?,
            feed_forward_norm: RmsNorm::load(weights, &format!("{name}.post_attention_layernorm"), width, epsilon)?,
            gate: linear("mlp.gate_proj", inner, width)?,
            up: linear("mlp.up_proj", inner, width)?,
            down: linear("mlp.down_proj", width, inner)?,
        })
    }
}
