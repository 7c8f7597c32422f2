//! Llama: RMS norm, rotary positions, SwiGLU, grouped-query attention; and BitNet, which is a Llama with two more norms in
//! a layer. Tensor names, layouts (matrices are (outputs, inputs)) and initial distributions are those of transformers'
//! `LlamaForCausalLM` and `BitNetForCausalLM`.

use candle_core::Tensor;

use super::limits::check_positive;
use super::network::{Block, Forward, Init, TensorKind, TensorSpec};
use super::{LayerInput, LlamaConfig, ModelError};
use foretrain_ops::{
    Heads, Kept, LlamaLayerShape, LlamaLayerWeights, SubNorms, embedding, linear, llama_layer, llama_layer_observed,
    rms_norm,
};

const TOKENS: &str = "model.embed_tokens.weight";
const NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";
/// Norms within a layer that only a BitNet has.
const ATTENTION_SUB_NORM: &str = "self_attn.attn_sub_norm";
const FEED_FORWARD_SUB_NORM: &str = "mlp.ffn_sub_norm";

/// Embedding, one block per layer, head.
pub(super) fn blocks(config: &LlamaConfig, kept: Kept) -> Result<Vec<Box<dyn Block>>, ModelError> {
    let LlamaConfig { vocab_size, max_position_embeddings, hidden_size, intermediate_size, .. } = *config;
    let LlamaConfig { num_hidden_layers, num_attention_heads: heads, num_key_value_heads: kv_heads, .. } = *config;
    check_positive(&[
        ("vocab_size", vocab_size),
        ("max_position_embeddings", max_position_embeddings),
        ("hidden_size", hidden_size),
        ("intermediate_size", intermediate_size),
        ("num_hidden_layers", num_hidden_layers),
        ("num_attention_heads", heads),
        ("num_key_value_heads", kv_heads),
    ])?;
    if !hidden_size.is_multiple_of(2 * heads) {
        let what = format!("num_attention_heads ({heads}) must cut hidden_size ({hidden_size}) into even heads");
        return Err(ModelError::Config { what });
    }
    if !heads.is_multiple_of(kv_heads) {
        let what = format!("num_key_value_heads ({kv_heads}) must divide num_attention_heads ({heads})");
        return Err(ModelError::Config { what });
    }
    let mut blocks: Vec<Box<dyn Block>> = vec![Box::new(EmbeddingBlock { config: config.clone() })];
    for index in 0..num_hidden_layers {
        blocks.push(Box::new(LayerBlock { name: format!("model.layers.{index}"), config: config.clone(), kept }));
    }
    blocks.push(Box::new(HeadBlock { config: config.clone() }));
    Ok(blocks)
}

fn spec(name: String, shape: &[usize], kind: TensorKind, init: Init) -> TensorSpec {
    TensorSpec { name, shape: shape.to_vec(), kind, init }
}

/// (n, t) u32 to (n, t, hidden_size).
#[derive(Debug)]
struct EmbeddingBlock {
    config: LlamaConfig,
}

impl Block for EmbeddingBlock {
    fn name(&self) -> &str {
        "model.embed_tokens"
    }

    fn specs(&self) -> Vec<TensorSpec> {
        let shape = [self.config.vocab_size, self.config.hidden_size];
        vec![spec(TOKENS.to_owned(), &shape, TensorKind::Embedding, Init::Normal(self.config.initializer_range))]
    }

    fn forward(&self, pass: &Forward<'_>, input: &Tensor) -> Result<Tensor, ModelError> {
        let (_, t) = input.dims2()?;
        if t > self.config.max_position_embeddings {
            return Err(ModelError::TooLong { found: t, limit: self.config.max_position_embeddings });
        }
        Ok(embedding(pass.params.get(TOKENS)?, None, input)?)
    }
}

/// (n, t, hidden_size) to (n, t, hidden_size).
#[derive(Debug)]
struct LayerBlock {
    name: String,
    kept: Kept,
    config: LlamaConfig,
}

impl LayerBlock {
    fn heads(&self) -> Heads {
        let c = &self.config;
        Heads {
            num_query: c.num_attention_heads,
            num_kv: c.num_key_value_heads,
            size: c.hidden_size / c.num_attention_heads,
        }
    }
}

impl Block for LayerBlock {
    fn name(&self) -> &str {
        &self.name
    }

    fn specs(&self) -> Vec<TensorSpec> {
        let (c, hidden, heads) = (self.config.hidden_size, self.config.intermediate_size, self.heads());
        let kv = heads.num_kv * heads.size;
        let init = Init::Normal(self.config.initializer_range);
        let name = |part: &str| format!("{}.{part}.weight", self.name);
        let matrix = |part: &str, shape: [usize; 2]| spec(name(part), &shape, TensorKind::Matrix, init);
        let norm = |part: &str, width: usize| spec(name(part), &[width], TensorKind::Vector, Init::Constant(1.0));
        let mut specs = vec![
            norm("input_layernorm", c),
            matrix("self_attn.q_proj", [c, c]),
            matrix("self_attn.k_proj", [kv, c]),
            matrix("self_attn.v_proj", [kv, c]),
            matrix("self_attn.o_proj", [c, c]),
            norm("post_attention_layernorm", c),
            matrix("mlp.gate_proj", [hidden, c]),
            matrix("mlp.up_proj", [hidden, c]),
            matrix("mlp.down_proj", [c, hidden]),
        ];
        if self.config.sub_norms {
            specs.extend([norm(ATTENTION_SUB_NORM, c), norm(FEED_FORWARD_SUB_NORM, hidden)]);
        }
        specs
    }

    fn forward(&self, pass: &Forward<'_>, input: &Tensor) -> Result<Tensor, ModelError> {
        let get = |part: &str| pass.params.get(&format!("{}.{part}.weight", self.name));
        let weights = LlamaLayerWeights {
            input_layernorm: get("input_layernorm")?,
            q_proj: get("self_attn.q_proj")?,
            k_proj: get("self_attn.k_proj")?,
            v_proj: get("self_attn.v_proj")?,
            o_proj: get("self_attn.o_proj")?,
            post_attention_layernorm: get("post_attention_layernorm")?,
            gate_proj: get("mlp.gate_proj")?,
            up_proj: get("mlp.up_proj")?,
            down_proj: get("mlp.down_proj")?,
            sub_norms: if self.config.sub_norms {
                let (attention, feed_forward) = (get(ATTENTION_SUB_NORM)?, get(FEED_FORWARD_SUB_NORM)?);
                Some(SubNorms { attn_sub_norm: attention, ffn_sub_norm: feed_forward })
            } else {
                None
            },
        };
        let shape = LlamaLayerShape {
            heads: self.heads(),
            eps: self.config.rms_norm_eps,
            rope_theta: self.config.rope_theta,
            hidden_act: self.config.hidden_act,
            precision: pass.precision,
            kept: self.kept,
            activations: pass.params.activations_of(&format!("{}.self_attn.q_proj.weight", self.name)),
        };
        if pass.is_observed() {
            let mut seen =
                |part: &str, x: &Tensor| pass.observe(&format!("{}.{part}.weight", self.name), LayerInput::Rows(x));
            return Ok(llama_layer_observed(input, &weights, shape, &mut seen)?);
        }
        Ok(llama_layer(input, &weights, shape)?)
    }
}

/// (n, t, hidden_size) to logits (n, t, vocab_size).
#[derive(Debug)]
struct HeadBlock {
    config: LlamaConfig,
}

impl Block for HeadBlock {
    fn name(&self) -> &str {
        "model.norm"
    }

    fn specs(&self) -> Vec<TensorSpec> {
        let c = &self.config;
        let mut specs = vec![spec(NORM.to_owned(), &[c.hidden_size], TensorKind::Vector, Init::Constant(1.0))];
        if !c.tie_word_embeddings {
            let init = Init::Normal(c.initializer_range);
            specs.push(spec(HEAD.to_owned(), &[c.vocab_size, c.hidden_size], TensorKind::Head, init));
        }
        specs
    }

    fn borrows(&self) -> Vec<String> {
        if self.config.tie_word_embeddings { vec![TOKENS.to_owned()] } else { Vec::new() }
    }

    fn forward(&self, pass: &Forward<'_>, input: &Tensor) -> Result<Tensor, ModelError> {
        let head = if self.config.tie_word_embeddings { TOKENS } else { HEAD };
        let x = rms_norm(input, pass.params.get(NORM)?, self.config.rms_norm_eps)?;
        let x = pass.params.activations_of(head).read(&x)?;
        pass.observe(head, LayerInput::Rows(&x))?;
        Ok(linear(&x, pass.params.get(head)?, pass.precision)?)
    }
}
