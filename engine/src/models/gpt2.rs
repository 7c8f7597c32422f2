//! GPT-2: learned positions, pre-norm layers, GELU, head tied to the token embedding. Tensor names, layouts
//! (matrices are (inputs, outputs)) and initial distributions are those of transformers' `GPT2LMHeadModel`.

use candle_core::Tensor;

use super::limits::check_positive;
use super::network::{Block, Forward, Init, TensorKind, TensorSpec};
use super::{Gpt2Config, LayerInput, ModelError};
use foretrain_ops::{
    Gpt2LayerShape, Gpt2LayerWeights, Kept, embedding, gpt2_layer, gpt2_layer_observed, layer_norm, linear,
};

const TOKENS: &str = "transformer.wte.weight";
const POSITIONS: &str = "transformer.wpe.weight";

/// Embedding, one block per layer, head.
pub(super) fn blocks(config: &Gpt2Config, kept: Kept) -> Result<Vec<Box<dyn Block>>, ModelError> {
    let Gpt2Config { vocab_size, n_positions, n_embd, n_layer, n_head, .. } = *config;
    check_positive(&[
        ("vocab_size", vocab_size),
        ("n_positions", n_positions),
        ("n_embd", n_embd),
        ("n_layer", n_layer),
        ("n_head", n_head),
    ])?;
    if !n_embd.is_multiple_of(n_head) {
        return Err(ModelError::Config { what: format!("n_head ({n_head}) must divide n_embd ({n_embd})") });
    }
    let mut blocks: Vec<Box<dyn Block>> = vec![Box::new(EmbeddingBlock { config: config.clone() })];
    for index in 0..n_layer {
        blocks.push(Box::new(LayerBlock { name: format!("transformer.h.{index}"), config: config.clone(), kept }));
    }
    blocks.push(Box::new(HeadBlock { config: config.clone() }));
    Ok(blocks)
}

fn spec(name: String, shape: &[usize], kind: TensorKind, init: Init) -> TensorSpec {
    TensorSpec { name, shape: shape.to_vec(), kind, init }
}

/// (n, t) u32 to (n, t, n_embd).
#[derive(Debug)]
struct EmbeddingBlock {
    config: Gpt2Config,
}

impl Block for EmbeddingBlock {
    fn name(&self) -> &str {
        "transformer.wte"
    }

    fn specs(&self) -> Vec<TensorSpec> {
        let c = &self.config;
        let init = Init::Normal(c.initializer_range);
        vec![
            spec(TOKENS.to_owned(), &[c.vocab_size, c.n_embd], TensorKind::Embedding, init),
            spec(POSITIONS.to_owned(), &[c.n_positions, c.n_embd], TensorKind::Embedding, init),
        ]
    }

    fn forward(&self, pass: &Forward<'_>, input: &Tensor) -> Result<Tensor, ModelError> {
        let (_, t) = input.dims2()?;
        if t > self.config.n_positions {
            return Err(ModelError::TooLong { found: t, limit: self.config.n_positions });
        }
        Ok(embedding(pass.params.get(TOKENS)?, Some(pass.params.get(POSITIONS)?), input)?)
    }
}

/// (n, t, n_embd) to (n, t, n_embd).
#[derive(Debug)]
struct LayerBlock {
    name: String,
    kept: Kept,
    config: Gpt2Config,
}

impl Block for LayerBlock {
    fn name(&self) -> &str {
        &self.name
    }

    fn specs(&self) -> Vec<TensorSpec> {
        let c = self.config.n_embd;
        let normal = Init::Normal(self.config.initializer_range);
        // Each layer adds to the residual stream twice; this keeps its variance (GPT-2 paper, section 2.3).
        let into_residual = Init::Normal(self.config.initializer_range / (2.0 * self.config.n_layer as f64).sqrt());
        let name = |part: &str| format!("{}.{part}", self.name);
        let matrix = |part: &str, shape: [usize; 2], init| spec(name(part), &shape, TensorKind::Matrix, init);
        let vector =
            |part: &str, len: usize, value| spec(name(part), &[len], TensorKind::Vector, Init::Constant(value));
        vec![
            vector("ln_1.weight", c, 1.0),
            vector("ln_1.bias", c, 0.0),
            matrix("attn.c_attn.weight", [c, 3 * c], normal),
            vector("attn.c_attn.bias", 3 * c, 0.0),
            matrix("attn.c_proj.weight", [c, c], into_residual),
            vector("attn.c_proj.bias", c, 0.0),
            vector("ln_2.weight", c, 1.0),
            vector("ln_2.bias", c, 0.0),
            matrix("mlp.c_fc.weight", [c, 4 * c], normal),
            vector("mlp.c_fc.bias", 4 * c, 0.0),
            matrix("mlp.c_proj.weight", [4 * c, c], into_residual),
            vector("mlp.c_proj.bias", c, 0.0),
        ]
    }

    fn forward(&self, pass: &Forward<'_>, input: &Tensor) -> Result<Tensor, ModelError> {
        let get = |part: &str| pass.params.get(&format!("{}.{part}", self.name));
        let weights = Gpt2LayerWeights {
            ln_1_weight: get("ln_1.weight")?,
            ln_1_bias: get("ln_1.bias")?,
            c_attn_weight: get("attn.c_attn.weight")?,
            c_attn_bias: get("attn.c_attn.bias")?,
            attn_c_proj_weight: get("attn.c_proj.weight")?,
            attn_c_proj_bias: get("attn.c_proj.bias")?,
            ln_2_weight: get("ln_2.weight")?,
            ln_2_bias: get("ln_2.bias")?,
            c_fc_weight: get("mlp.c_fc.weight")?,
            c_fc_bias: get("mlp.c_fc.bias")?,
            mlp_c_proj_weight: get("mlp.c_proj.weight")?,
            mlp_c_proj_bias: get("mlp.c_proj.bias")?,
        };
        let shape = Gpt2LayerShape {
            num_heads: self.config.n_head,
            eps: self.config.layer_norm_epsilon,
            precision: pass.precision,
            kept: self.kept,
            activations: pass.params.activations_of(&format!("{}.attn.c_attn.weight", self.name)),
        };
        if pass.is_observed() {
            let mut seen =
                |part: &str, x: &Tensor| pass.observe(&format!("{}.{part}.weight", self.name), LayerInput::Rows(x));
            return Ok(gpt2_layer_observed(input, &weights, shape, &mut seen)?);
        }
        Ok(gpt2_layer(input, &weights, shape)?)
    }
}

/// (n, t, n_embd) to logits (n, t, vocab_size).
#[derive(Debug)]
struct HeadBlock {
    config: Gpt2Config,
}

impl Block for HeadBlock {
    fn name(&self) -> &str {
        "transformer.ln_f"
    }

    fn specs(&self) -> Vec<TensorSpec> {
        let vector = |part: &str, value| {
            let name = format!("transformer.ln_f.{part}");
            spec(name, &[self.config.n_embd], TensorKind::Vector, Init::Constant(value))
        };
        vec![vector("weight", 1.0), vector("bias", 0.0)]
    }

    fn borrows(&self) -> Vec<String> {
        vec![TOKENS.to_owned()]
    }

    fn forward(&self, pass: &Forward<'_>, input: &Tensor) -> Result<Tensor, ModelError> {
        let get = |name: &str| pass.params.get(name);
        let (weight, bias) = (get("transformer.ln_f.weight")?, get("transformer.ln_f.bias")?);
        let x = layer_norm(input, weight, bias, self.config.layer_norm_epsilon)?;
        pass.observe(TOKENS, LayerInput::Rows(&x))?;
        Ok(linear(&x, get(TOKENS)?, pass.precision)?)
    }
}
