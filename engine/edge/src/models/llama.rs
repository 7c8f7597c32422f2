//! Llama: RMS norm, rotary positions, SwiGLU, grouped-query attention. Source: transformers' `LlamaForCausalLM`.
//! BitNet b1.58 is a Llama with two more norms per block, before the output of attention and before that of the
//! feed-forward part, whose gate may be a squared ReLU. Source: Wang et al. 2023, arXiv 2310.11453, Ma et al. 2025, arXiv
//! 2504.12285, and the architectures "bitnet" of llama.cpp and "bitnet-b1.58" of bitnet.cpp.

use super::attention::{Heads, attend};
use super::cache::{CacheFormat, LayerCache, Precision};
use super::language_model::{Part, embed};
use super::linear::Linear;
use super::llama_config::{LlamaConfig, LlamaGate};
use super::norm::{RmsNorm, add, relu_squared_mul, silu_mul};
use super::rope::{Rope, RopePairs, Turns};
use crate::EdgeError;
use crate::runtime::Floats;
use crate::weights::{Layout, Matrix, ROPE_DIVISORS, Weights};

#[derive(Debug)]
pub(super) struct Llama {
    tokens: Matrix,
    blocks: Vec<Block>,
    norm: RmsNorm,
    /// When not tied to `tokens`.
    head: Option<Matrix>,
    heads: Heads,
    rope: Rope,
    gate: LlamaGate,
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
        let divisors = weights.contains(ROPE_DIVISORS).then(|| weights.vector(ROPE_DIVISORS, heads.head_dim / 2));
        let divisors = divisors.transpose()?;
        let scaling = config.rope_scaling(weights.path())?;
        let mut llama = Self {
            tokens: table("model.embed_tokens.weight")?,
            blocks: Vec::new(),
            norm: RmsNorm::load(weights, "model.norm", width, config.rms_norm_eps)?,
            head: if config.tie_word_embeddings { None } else { Some(table("lm_head.weight")?) },
            heads,
            rope: Rope::new(config.theta(), heads.head_dim, pairs, scaling, divisors.as_deref()),
            gate: config.gate(),
        };
        for number in 0..config.num_hidden_layers {
            llama.blocks.push(Block::load(config, heads, weights, &format!("model.layers.{number}"))?);
        }
        Ok(llama)
    }

    /// A cache without tokens for each layer.
    pub(super) fn empty_layers(&self, format: CacheFormat) -> Vec<LayerCache> {
        let precision = |block: &Block| Precision::after(block.key.matrix(), format);
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

    pub(super) fn heads(&self) -> Heads {
        self.heads
    }

    /// Hidden states after the last norm, all parts' (n, width) after each other. The caller has checked the numbers of
    /// positions.
    pub(super) fn forward(&self, parts: &mut [Part<'_>]) -> Result<Floats, EdgeError> {
        let Heads { heads, kv_heads, head_dim } = self.heads;
        let (query_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let (mut x, mut turns) = (Vec::new(), Turns::default());
        let n = parts.iter().map(|part| part.tokens.len()).sum();
        for part in &*parts {
            x.extend(embed(&self.tokens, part.tokens)?);
            turns.extend(self.rope.turns(part.positions()));
        }
        for (number, block) in self.blocks.iter().enumerate() {
            let normed = block.attention_norm.apply(&x);
            let [mut query, mut key, value] = Linear::apply_together([&block.query, &block.key, &block.value], &normed);
            Linear::fetch_ahead([&block.attention_out], n);
            self.rope.apply(&mut query, query_width, &turns);
            self.rope.apply(&mut key, kv_width, &turns);
            let caches = Part::push(parts, number, self.heads, &key, &value);
            let attended = normed_by(block.attention_sub_norm.as_ref(), attend(self.heads, &caches, &query));
            let out = block.attention_out.apply(&attended);
            Linear::fetch_ahead([&block.gate, &block.up], n);
            add(&mut x, &out);
            let normed = block.feed_forward_norm.apply(&x);
            let [mut hidden, up] = Linear::apply_together([&block.gate, &block.up], &normed);
            Linear::fetch_ahead([&block.down], n);
            match self.gate {
                LlamaGate::Silu => silu_mul(&mut hidden, &up),
                LlamaGate::ReluSquared => relu_squared_mul(&mut hidden, &up),
            }
            let hidden = normed_by(block.feed_forward_sub_norm.as_ref(), hidden);
            let out = block.down.apply(&hidden);
            match self.blocks.get(number + 1) {
                Some(next) => Linear::fetch_ahead([&next.query, &next.key, &next.value], n),
                None => Matrix::fetch_ahead(&[self.head()], n),
            }
            add(&mut x, &out);
        }
        Ok(self.norm.apply(&x))
    }
}

/// `x` through `norm`, where there is one.
fn normed_by(norm: Option<&RmsNorm>, x: Floats) -> Floats {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use crate::gguf::{GgufFile, GgufWriter, TensorType};
    use crate::models::{LanguageModel, TextConfig};
    use crate::weights::Weights;

    const WIDTH: usize = 32;
    const INNER: usize = 48;
    const HEADS: usize = 4;
    const KV_HEADS: usize = 2;
    const DIM: usize = WIDTH / HEADS;
    const VOCAB: usize = 11;
    const LAYERS: usize = 2;

    type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

    fn bitnet() -> Tensors {
        let mut state = 1_u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut tensors = Tensors::new();
        // Of one matrix, kept apart.
        tensors.insert("blk.1.ffn_up.scale".to_owned(), (vec![1], vec![0.7]));
        let mut add = |name: String, shape: &[usize]| {
            // Norms around 1, so that leaving one out shows.
            let (center, size) = if shape.len() == 1 { (1.0, 0.5) } else { (0.0, 0.4) };
            let values = (0..shape.iter().product()).map(|_| center + size * random()).collect();
            tensors.insert(format!("{name}.weight"), (shape.to_vec(), values));
        };
        add("token_embd".to_owned(), &[VOCAB, WIDTH]);
        add("output_norm".to_owned(), &[WIDTH]);
        for layer in 0..LAYERS {
            for (part, shape) in [
                ("attn_norm", &[WIDTH][..]),
                ("attn_sub_norm", &[WIDTH]),
                ("ffn_norm", &[WIDTH]),
                ("ffn_sub_norm", &[INNER]),
                ("attn_q", &[WIDTH, WIDTH]),
                ("attn_k", &[KV_HEADS * DIM, WIDTH]),
                ("attn_v", &[KV_HEADS * DIM, WIDTH]),
                ("attn_output", &[WIDTH, WIDTH]),
                ("ffn_gate", &[INNER, WIDTH]),
                ("ffn_up", &[INNER, WIDTH]),
                ("ffn_down", &[WIDTH, INNER]),
            ] {
                add(format!("blk.{layer}.{part}"), shape);
            }
        }
        tensors
    }

    fn model(tensors: &Tensors, architecture: &str, squares: bool) -> LanguageModel {
        let mut writer = GgufWriter::new(architecture);
        if squares && architecture == "bitnet" {
            writer.add_metadata("bitnet.hidden_activation", "relu2").unwrap();
        }
        for (name, number) in [
            ("context_length", 16),
            ("embedding_length", WIDTH),
            ("feed_forward_length", INNER),
            ("block_count", LAYERS),
            ("attention.head_count", HEADS),
            ("attention.head_count_kv", KV_HEADS),
        ] {
            writer.add_metadata(&format!("{architecture}.{name}"), u32::try_from(number).unwrap()).unwrap();
        }
        writer.add_metadata(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-5_f32).unwrap();
        for (name, (shape, values)) in tensors {
            let bytes: &[u8] = bytemuck::cast_slice(values);
            writer.add_tensor(name, TensorType::F32, shape, bytes).unwrap();
        }
        let mut bytes = Vec::new();
        writer.write(&mut bytes).unwrap();
        let path = Path::new("bitnet.gguf");
        let file = GgufFile::parse(bytes.into(), path).unwrap();
        let (config, architecture) = TextConfig::from_gguf(&file, path).unwrap();
        LanguageModel::load(&config, &Weights::from_gguf(&file, path, architecture).unwrap()).unwrap()
    }

    /// The same network in plain loops of f64, with llama.cpp's order of operations for "bitnet".
    fn reference(tensors: &Tensors, squares: bool, tokens: &[u32]) -> Vec<f64> {
        let get = |name: &str| &tensors[&format!("{name}.weight")].1;
        let norm = |name: &str, x: &[f64]| -> Vec<f64> {
            let mean_square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
            let inverse = 1.0 / (mean_square + 1e-5).sqrt();
            x.iter().zip(get(name)).map(|(x, w)| x * inverse * f64::from(*w)).collect()
        };
        let product = |name: &str, x: &[f64]| -> Vec<f64> {
            let rows = get(name).chunks(x.len());
            let scale = tensors.get(&format!("{name}.scale")).map_or(1.0, |(_, scale)| f64::from(scale[0]));
            rows.map(|row| scale * row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>()).collect()
        };
        let turn = |x: &mut [f64], position: usize| {
            for head in x.chunks_mut(DIM) {
                for i in 0..DIM / 2 {
                    let angle = position as f64 / 10_000_f64.powf(2.0 * i as f64 / DIM as f64);
                    let (a, b) = (head[i], head[i + DIM / 2]);
                    head[i] = a * angle.cos() - b * angle.sin();
                    head[i + DIM / 2] = b * angle.cos() + a * angle.sin();
                }
            }
        };
        let embedded = |&token: &u32| -> Vec<f64> {
            get("token_embd")[token as usize * WIDTH..][..WIDTH].iter().map(|&x| f64::from(x)).collect()
        };
        let mut xs: Vec<Vec<f64>> = tokens.iter().map(embedded).collect();
        for layer in 0..LAYERS {
            let name = |part: &str| format!("blk.{layer}.{part}");
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for (position, x) in xs.iter_mut().enumerate() {
                let normed = norm(&name("attn_norm"), x);
                let (mut query, mut key) = (product(&name("attn_q"), &normed), product(&name("attn_k"), &normed));
                turn(&mut query, position);
                turn(&mut key, position);
                keys.push(key);
                values.push(product(&name("attn_v"), &normed));
                let mut attended = vec![0.0; WIDTH];
                for head in 0..HEADS {
                    let kv = head / (HEADS / KV_HEADS) * DIM;
                    let query = &query[head * DIM..][..DIM];
                    let dot = |key: &Vec<f64>| query.iter().zip(&key[kv..]).map(|(q, k)| q * k).sum::<f64>();
                    let weights: Vec<f64> = keys.iter().map(|key| (dot(key) / (DIM as f64).sqrt()).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for (weight, value) in weights.iter().zip(&values) {
                        for i in 0..DIM {
                            attended[head * DIM + i] += weight / sum * value[kv + i];
                        }
                    }
                }
                let out = product(&name("attn_output"), &norm(&name("attn_sub_norm"), &attended));
                x.iter_mut().zip(out).for_each(|(x, out)| *x += out);
                let normed = norm(&name("ffn_norm"), x);
                let (gate, up) = (product(&name("ffn_gate"), &normed), product(&name("ffn_up"), &normed));
                let open = |g: f64| if squares { g.max(0.0) * g.max(0.0) } else { g / (1.0 + (-g).exp()) };
                let hidden: Vec<f64> = gate.iter().zip(up).map(|(&g, u)| open(g) * u).collect();
                let out = product(&name("ffn_down"), &norm(&name("ffn_sub_norm"), &hidden));
                x.iter_mut().zip(out).for_each(|(x, out)| *x += out);
            }
        }
        product("token_embd", &norm("output_norm", xs.last().unwrap()))
    }

    #[test]
    fn bitnet_computes_what_the_reference_computes() {
        check("bitnet", false);
        check("bitnet", true);
        check("bitnet-b1.58", true);
    }

    #[track_caller]
    fn check(architecture: &str, squares: bool) {
        let (tensors, tokens) = (bitnet(), [3, 1, 4, 1, 5, 9, 2, 6]);
        let model = model(&tensors, architecture, squares);
        let expected = reference(&tensors, squares, &tokens);
        let largest = expected.iter().fold(0.0_f64, |largest, logit| largest.max(logit.abs()));
        // At once, and one token after the other.
        for step in [tokens.len(), 1, 3] {
            let mut cache = model.empty_cache();
            let mut hidden = Vec::new();
            for tokens in tokens.chunks(step) {
                hidden = model.forward(tokens, &mut cache).unwrap();
            }
            let logits = model.logits(&hidden[hidden.len() - WIDTH..]).unwrap();
            assert_eq!(logits.len(), VOCAB);
            for (found, expected) in logits.iter().zip(&expected) {
                assert!((f64::from(*found) - expected).abs() <= 1e-4 * largest, "{step}: {found} {expected}");
            }
        }
    }
}
