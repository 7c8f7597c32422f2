//! GPT-2: learned positions, layer norm before each part, GELU, head tied to the token embedding.
//! Source: transformers' `GPT2LMHeadModel`.

use super::attention::{Heads, attend};
use super::cache::{CacheFormat, LayerCache, Precision};
use super::config::Gpt2Config;
use super::language_model::{Part, embed};
use super::linear::Linear;
use super::norm::{LayerNorm, add, gelu};
use crate::EdgeError;
use crate::runtime::Floats;
use crate::weights::{Layout, Matrix, Weights};

#[derive(Debug)]
pub(super) struct Gpt2 {
    tokens: Matrix,
    positions: Matrix,
    blocks: Vec<Block>,
    norm: LayerNorm,
    /// When not tied to `tokens`.
    head: Option<Matrix>,
    heads: Heads,
}

#[derive(Debug)]
struct Block {
    attention_norm: LayerNorm,
    query_key_value: Linear,
    attention_out: Linear,
    feed_forward_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Gpt2 {
    pub(super) fn load(config: &Gpt2Config, weights: &Weights) -> Result<Self, EdgeError> {
        let width = config.n_embd;
        let table = |name: &str, rows| weights.matrix(name, rows, &[width], Layout::OutputMajor);
        let head_name = "lm_head.weight";
        let mut gpt2 = Self {
            tokens: table("transformer.wte.weight", config.vocab_size)?,
            positions: table("transformer.wpe.weight", config.n_positions)?,
            blocks: Vec::new(),
            norm: LayerNorm::load(weights, "transformer.ln_f", width, config.layer_norm_epsilon)?,
            head: if weights.contains(head_name) { Some(table(head_name, config.vocab_size)?) } else { None },
            heads: Heads { heads: config.n_head, kv_heads: config.n_head, head_dim: width / config.n_head },
        };
        for number in 0..config.n_layer {
            gpt2.blocks.push(Block::load(config, weights, &format!("transformer.h.{number}"))?);
        }
        Ok(gpt2)
    }

    /// A cache without tokens for each layer.
    pub(super) fn empty_layers(&self, format: CacheFormat) -> Vec<LayerCache> {
        let precision = |block: &Block| Precision::after(block.query_key_value.matrix(), format);
        self.blocks.iter().map(|block| LayerCache::new(precision(block))).collect()
    }

    /// Bytes of the matrices that one token is multiplied with.
    pub(super) fn bytes_per_token(&self) -> usize {
        let layers =
            self.blocks.iter().flat_map(|block| [&block.query_key_value, &block.attention_out, &block.up, &block.down]);
        layers.map(|layer| layer.matrix().num_bytes()).sum::<usize>() + self.head().num_bytes()
    }

    pub(super) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.tokens)
    }

    pub(super) fn heads(&self) -> Heads {
        self.heads
    }

    /// Hidden states after the last norm, all parts' (n, width) after each other. The caller has checked the numbers of
    /// positions.
    pub(super) fn forward(&self, parts: &mut [Part<'_>]) -> Result<Floats, EdgeError> {
        let width = self.tokens.cols();
        let n = parts.iter().map(|part| part.tokens.len()).sum();
        let mut x = Vec::new();
        for part in &*parts {
            let mut rows = embed(&self.tokens, part.tokens)?;
            for (row, position) in rows.chunks_exact_mut(width).zip(part.positions()) {
                add(row, &self.positions.row(position).unwrap_or_default());
            }
            x.extend(rows);
        }
        for (number, block) in self.blocks.iter().enumerate() {
            let qkv = block.query_key_value.apply(&block.attention_norm.apply(&x));
            Linear::fetch_ahead([&block.attention_out], n);
            let third = |number: usize| -> Vec<f32> {
                qkv.chunks_exact(width).skip(number).step_by(3).flatten().copied().collect()
            };
            let caches = Part::push(parts, number, self.heads, &third(1), &third(2));
            let out = block.attention_out.apply(&attend(self.heads, &caches, &third(0)));
            Linear::fetch_ahead([&block.up], n);
            add(&mut x, &out);
            let mut hidden = block.up.apply(&block.feed_forward_norm.apply(&x));
            Linear::fetch_ahead([&block.down], n);
            gelu(&mut hidden);
            let out = block.down.apply(&hidden);
            match self.blocks.get(number + 1) {
                Some(next) => Linear::fetch_ahead([&next.query_key_value], n),
                None => Matrix::fetch_ahead(&[self.head()], n),
            }
            add(&mut x, &out);
        }
        Ok(self.norm.apply(&x))
    }
}

impl Block {
    fn load(config: &Gpt2Config, weights: &Weights, name: &str) -> Result<Self, EdgeError> {
        let (width, inner, epsilon) = (config.n_embd, config.inner(), config.layer_norm_epsilon);
        // transformers keeps these as `Conv1D`, whose weight is (in, out).
        let linear = |part: &str, out: usize, input: usize| {
            Linear::load_laid_out(weights, &format!("{name}.{part}"), out, input, Layout::InputMajor)
        };
        Ok(Self {
            attention_norm: LayerNorm::load(weights, &format!("{name}.ln_1"), width, epsilon)?,
            query_key_value: linear("attn.c_attn", width.saturating_mul(3), width)?,
            attention_out: linear("attn.c_proj", width, width)?,
            feed_forward_norm: LayerNorm::load(weights, &format!("{name}.ln_2"), width, epsilon)?,
            up: linear("mlp.c_fc", inner, width)?,
            down: linear("mlp.c_proj", width, inner)?,
        })
    }
}
