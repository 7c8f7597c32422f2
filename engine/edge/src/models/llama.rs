//! Llama: RMS norm, rotary positions, SwiGLU, grouped-query attention. Source: transformers' `LlamaForCausalLM`.
//! BitNet b1.58 is a Llama with two more norms per block, before the output of attention and before that of the
//! feed-forward part. Source: Wang et al. 2023, arXiv 2310.11453, and llama.cpp's architecture "bitnet".

use super::attention::{Heads, LayerCache, Precision, Rope, RopePairs};
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
    /// Of BitNet.
    attention_sub_norm: Option<RmsNorm>,
    attention_out: Linear,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    /// Of BitNet.
    feed_forward_sub_norm: Option<RmsNorm>,
    down: Linear,
}

impl Llama {
    pub(super) fn load(config: &LlamaConfig, weights: &Weights) -> Result<Self, EdgeError> {
        let width = config.hidden_size;
        let table = |name: &str| weights.matrix(name, config.vocab_size, &[width], Layout::OutputMajor);
        let heads =
            Heads { heads: config.num_attention_heads, kv_heads: config.kv_heads(), head_dim: config.head_dim() };
        // llama.cpp's converter reorders the rows of a Llama, but not those of a BitNet.
        let is_reordered = weights.is_gguf() && !config.has_sub_norms();
        let pairs = if is_reordered { RopePairs::Neighbors } else { RopePairs::Halves };
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

    /// A cache without tokens for each layer.
    pub(super) fn empty_layers(&self) -> Vec<LayerCache> {
        let precision = |block: &Block| Precision::after(block.key.matrix());
        self.blocks.iter().map(|block| LayerCache::new(precision(block))).collect()
    }

    /// Bytes of the matrices that one token is multiplied with.
    pub(super) fn bytes_per_token(&self) -> usize {
        let layers = self.blocks.iter().flat_map(|block| {
            [&block.query, &block.key, &block.value, &block.attention_out, &block.gate, &block.up, &block.down]
        });
        layers.map(|layer| layer.matrix().num_bytes()).sum::<usize>() + self.head().num_bytes()
    }

    pub(super) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.tokens)
    }

    /// Hidden states after the last norm (n, width). The caller has checked the number of positions.
    pub(super) fn forward(&self, tokens: &[u32], cache: &mut Cache) -> Result<Vec<f32>, EdgeError> {
        let Heads { heads, kv_heads, head_dim } = self.heads;
        let mut x = embed(&self.tokens, tokens)?;
        let turns = self.rope.turns(cache.num_positions..cache.num_positions + tokens.len());
        for (block, layer) in self.blocks.iter().zip(&mut cache.layers) {
            let normed = block.attention_norm.apply(&x);
            let [mut query, mut key, value] = Linear::apply_together([&block.query, &block.key, &block.value], &normed);
            self.rope.apply(&mut query, heads * head_dim, &turns);
            self.rope.apply(&mut key, kv_heads * head_dim, &turns);
            layer.push(self.heads, &key, &value);
            let attended = normed_by(block.attention_sub_norm.as_ref(), layer.attend(self.heads, &query));
            add(&mut x, &block.attention_out.apply(&attended));
            let normed = block.feed_forward_norm.apply(&x);
            let [mut hidden, up] = Linear::apply_together([&block.gate, &block.up], &normed);
            silu_mul(&mut hidden, &up);
            let hidden = normed_by(block.feed_forward_sub_norm.as_ref(), hidden);
            add(&mut x, &block.down.apply(&hidden));
        }
        Ok(self.norm.apply(&x))
    }
}

/// `x` through `norm`, where there is one.
fn normed_by(norm: Option<&RmsNorm>, x: Vec<f32>) -> Vec<f32> {
    match norm {
        Some(norm) => norm.apply(&x),
        None => x,
    }
}

impl Block {
    fn load(config: &LlamaConfig, heads: Heads, weights: &Weights, name: &str) -> Result<Self, EdgeError> {
        let (width, inner, epsilon) = (config.hidden_size, config.intermediate_size, config.rms_norm_eps);
        let (query_width, kv_width) = (heads.heads * heads.head_dim, heads.kv_heads * heads.head_dim);
        let linear = |part: &str, out: usize, input: usize| {
            Linear::load_without_bias(weights, &format!("{name}.{part}"), out, input)
        };
        let sub_norm = |part: &str, width: usize| match config.has_sub_norms() {
            true => RmsNorm::load(weights, &format!("{name}.{part}"), width, epsilon).map(Some),
            false => Ok(None),
        };
        Ok(Self {
            attention_sub_norm: sub_norm("self_attn.attn_sub_norm", query_width)?,
            feed_forward_sub_norm: sub_norm("mlp.ffn_sub_norm", inner)?,
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
