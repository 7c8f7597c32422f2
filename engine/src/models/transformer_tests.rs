//! Behavior of whole GPT-2 and Llama networks.
#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::{Device, Tensor};

use super::*;
use foretrain_ops::{Kept, cross_entropy};

fn gpt2() -> ModelConfig {
    ModelConfig::Gpt2(Gpt2Config {
        vocab_size: 11,
        n_positions: 12,
        n_embd: 16,
        n_layer: 2,
        n_head: 2,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.2,
    })
}

fn llama(tied: bool) -> ModelConfig {
    ModelConfig::Llama(LlamaConfig {
        vocab_size: 11,
        max_position_embeddings: 12,
        hidden_size: 16,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        rms_norm_eps: 1e-5,
        rope_theta: 100.0,
        tie_word_embeddings: tied,
        initializer_range: 0.2,
        hidden_act: GateActivation::Silu,
        sub_norms: false,
    })
}

fn bitnet() -> ModelConfig {
    match llama(true) {
        ModelConfig::Llama(config) => {
            ModelConfig::Llama(LlamaConfig { sub_norms: true, hidden_act: GateActivation::Relu2, ..config })
        }
        other => other,
    }
}

/// (n, t) tokens that a model can learn to continue.
fn tokens(n: usize, t: usize) -> Tensor {
    let ids: Vec<u32> = (0..n * t).map(|i| ((i % t) * 3 + i / t * 2) as u32 % 11).collect();
    Tensor::from_vec(ids, (n, t), &Device::Cpu).unwrap()
}

fn built(config: &ModelConfig) -> (Network, ParamStore) {
    let network = Network::new(config).unwrap();
    let (weights, buffers) = initial_params(&network, 5, &Device::Cpu).unwrap();
    assert_eq!(buffers.len(), 0);
    (network, ParamStore::new(weights, buffers, &Device::Cpu).unwrap())
}

fn logits(network: &Network, params: &Params, ids: &Tensor) -> Vec<Vec<f32>> {
    let logits = network.forward(&Forward::new(params, Mode::Eval), ids).unwrap();
    logits.flatten_to(1).unwrap().to_vec2().unwrap()
}

/// Losses of plain SGD on one batch.
fn train(config: &ModelConfig, num_steps: usize) -> Vec<f32> {
    let (network, store) = built(config);
    let ids = tokens(4, 9);
    let inputs = ids.narrow(1, 0, 8).unwrap();
    let targets = ids.narrow(1, 1, 8).unwrap().flatten_all().unwrap();
    let mut losses = Vec::new();
    for _ in 0..num_steps {
        let params = store.tracked();
        let logits = network.forward(&Forward::new(&params, Mode::Train), &inputs).unwrap();
        let loss = cross_entropy(&logits.flatten_to(1).unwrap(), &targets).unwrap().mean_all().unwrap();
        losses.push(loss.to_scalar().unwrap());
        let grads = loss.backward().unwrap();
        for (name, var) in store.vars() {
            let grad = grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
            var.set(&(var.as_detached_tensor() - (grad * 0.3).unwrap()).unwrap()).unwrap();
        }
    }
    losses
}

#[test]
fn training_lowers_the_loss_and_repeats_bit_for_bit() {
    for config in [gpt2(), llama(false), llama(true), bitnet()] {
        let losses = train(&config, 60);
        assert!(losses[59] < 0.3 * losses[0], "{losses:?}");
        let again = train(&config, 60);
        assert!(losses.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "{config:?}");
    }
}

#[test]
fn a_later_token_changes_no_earlier_logit() {
    for config in [gpt2(), llama(false), bitnet()] {
        let (network, store) = built(&config);
        let params = store.detached();
        let mut ids: Vec<u32> = tokens(1, 12).flatten_all().unwrap().to_vec1().unwrap();
        let before = logits(&network, &params, &Tensor::from_vec(ids.clone(), (1, 12), &Device::Cpu).unwrap());
        ids[7] = (ids[7] + 1) % 11;
        let after = logits(&network, &params, &Tensor::from_vec(ids, (1, 12), &Device::Cpu).unwrap());
        for position in 0..12 {
            assert_eq!(before[position] == after[position], position < 7, "position {position}");
        }
    }
}

#[test]
fn sequences_of_a_batch_do_not_meet() {
    for config in [gpt2(), llama(true)] {
        let (network, store) = built(&config);
        let params = store.detached();
        let ids = tokens(3, 8);
        let together = logits(&network, &params, &ids);
        for sequence in 0..3 {
            let alone = logits(&network, &params, &ids.narrow(0, sequence, 1).unwrap());
            for (a, b) in alone.iter().zip(&together[sequence * 8..]) {
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }
    }
}

#[test]
fn recomputed_layers_have_the_same_gradients_bit_for_bit() {
    for config in [gpt2(), llama(false), bitnet()] {
        let (_, store) = built(&config);
        let ids = tokens(5, 9);
        let targets = ids.narrow(1, 1, 8).unwrap().flatten_all().unwrap();
        let step = |kept: Kept| {
            let network = Network::keeping(&config, kept).unwrap();
            let params = store.tracked();
            let inputs = ids.narrow(1, 0, 8).unwrap();
            let logits = network.forward(&Forward::new(&params, Mode::Train), &inputs).unwrap();
            let loss = cross_entropy(&logits.flatten_to(1).unwrap(), &targets).unwrap().mean_all().unwrap();
            let grads = loss.backward().unwrap();
            let bits = |tensor: &Tensor| -> Vec<u32> {
                tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
            };
            let of = |(name, var): (&str, &candle_core::Var)| (name.to_owned(), bits(grads.get(var).unwrap()));
            (bits(&loss.unsqueeze(0).unwrap()), store.vars().map(of).collect::<Vec<_>>())
        };
        assert!(step(Kept::Activations) == step(Kept::Input), "{config:?}");
    }
}

#[test]
fn only_language_models_compute_layers_again() {
    let data = DataShape::Images { channels: 1, height: 8, width: 8, num_classes: 3 };
    let error = Network::keeping(&ModelPreset::Mlp.config(data).unwrap(), Kept::Input).unwrap_err().to_string();
    assert!(error.contains("activation checkpointing"), "{error}");
}

#[test]
fn block_by_block_is_the_same_network() {
    for config in [gpt2(), llama(false), llama(true), bitnet()] {
        let (network, store) = built(&config);
        let params = store.detached();
        let inputs = vec![tokens(3, 8), tokens(1, 5)];
        let whole: Vec<_> = inputs.iter().map(|ids| logits(&network, &params, ids)).collect();
        let mut largest = 0;
        let of_block = |block: &dyn Block| {
            let names = block.specs().into_iter().map(|spec| spec.name).chain(block.borrows());
            let some: Params = names.map(|name| (name.clone(), params.get(&name).unwrap().clone())).collect();
            largest = largest.max(some.len());
            Ok::<_, ModelError>(some)
        };
        let mut seen = Vec::new();
        let finish = |number: usize, logits: &Tensor| {
            assert_eq!(number, seen.len());
            seen.push(logits.flatten_to(1)?.to_vec2::<f32>()?);
            Ok(())
        };
        network.forward_by_blocks(of_block, inputs, finish).unwrap();
        assert_eq!(seen, whole, "{config:?}");
        assert!(largest < params.len() / 2);
    }
}

#[test]
fn too_many_positions_are_an_error() {
    for config in [gpt2(), llama(false)] {
        let (network, store) = built(&config);
        let params = store.detached();
        let error = network.forward(&Forward::new(&params, Mode::Eval), &tokens(1, 13)).unwrap_err();
        assert!(matches!(error, ModelError::TooLong { found: 13, limit: 12 }), "{error}");
        assert!(network.forward(&Forward::new(&params, Mode::Eval), &tokens(1, 12)).is_ok());
    }
}

#[test]
fn configs_that_do_not_fit_are_errors() {
    let ModelConfig::Gpt2(mut bad) = gpt2() else { panic!("expected a gpt2") };
    bad.n_head = 3;
    assert!(Network::new(&ModelConfig::Gpt2(bad)).is_err());
    let ModelConfig::Llama(good) = llama(false) else { panic!("expected a llama") };
    for bad in [
        LlamaConfig { num_key_value_heads: 3, ..good.clone() },
        LlamaConfig { num_attention_heads: 16, num_key_value_heads: 16, ..good.clone() },
        LlamaConfig { vocab_size: 0, ..good },
    ] {
        assert!(Network::new(&ModelConfig::Llama(bad)).is_err());
    }
}

#[track_caller]
fn check_size(preset: ModelPreset, vocab_size: usize, expected: usize) {
    let config = preset.config(DataShape::Text { vocab_size }).unwrap();
    assert_eq!(Network::new(&config).unwrap().num_params(), expected, "{}", preset.label());
}

#[test]
fn sizes_are_what_the_labels_say() {
    check_size(ModelPreset::Gpt2Char, 65, 834_432);
    check_size(ModelPreset::Gpt2_11M, 65, 10_770_816);
    check_size(ModelPreset::Gpt2_124M, 50_257, 124_439_808);
    check_size(ModelPreset::Gpt2_350M, 50_257, 354_823_168);
    check_size(ModelPreset::Gpt2_774M, 50_257, 774_030_080);
    check_size(ModelPreset::Gpt2_1500M, 50_257, 1_557_611_200);
    check_size(ModelPreset::Llama11M, 65, 11_261_568);
    check_size(ModelPreset::Llama110M, 32_000, 109_529_856);
    check_size(ModelPreset::Llama1100M, 32_000, 1_100_048_384);
    check_size(ModelPreset::Llama7B, 32_000, 6_738_415_616);
    check_size(ModelPreset::BitNet11M, 65, 11_246_592);
    check_size(ModelPreset::BitNet2400M, 128_256, 2_412_820_480);
}

#[test]
fn names_are_those_of_transformers() {
    let names = |config: &ModelConfig| -> Vec<String> {
        Network::new(config).unwrap().specs().into_iter().map(|spec| spec.name).collect()
    };
    let gpt2 = names(&gpt2());
    assert_eq!(gpt2.len(), 2 + 2 * 12 + 2);
    for name in ["transformer.wte.weight", "transformer.h.1.attn.c_attn.weight", "transformer.ln_f.bias"] {
        assert!(gpt2.iter().any(|n| n == name), "{name}");
    }
    let untied = names(&llama(false));
    for name in ["model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight", "lm_head.weight"] {
        assert!(untied.iter().any(|n| n == name), "{name}");
    }
    assert!(!names(&llama(true)).iter().any(|n| n == "lm_head.weight"));
    for name in ["model.layers.1.self_attn.attn_sub_norm.weight", "model.layers.0.mlp.ffn_sub_norm.weight"] {
        assert!(names(&bitnet()).iter().any(|n| n == name) && !untied.iter().any(|n| n == name), "{name}");
    }
}

/// GPT-2 straight from its definition, one number at a time in f64.
mod naive {
    pub(super) type Matrix = Vec<Vec<f64>>;

    fn affine(x: &Matrix, w: &Matrix, b: &[f64]) -> Matrix {
        let cell = |row: &Vec<f64>, j: usize| b[j] + row.iter().zip(w).map(|(x, w)| x * w[j]).sum::<f64>();
        x.iter().map(|row| (0..b.len()).map(|j| cell(row, j)).collect()).collect()
    }

    fn norm(x: &Matrix, w: &[f64], b: &[f64]) -> Matrix {
        let one = |row: &Vec<f64>| -> Vec<f64> {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            row.iter().zip(w.iter().zip(b)).map(|(x, (w, b))| (x - mean) / (variance + 1e-5).sqrt() * w + b).collect()
        };
        x.iter().map(one).collect()
    }

    fn attention(qkv: &Matrix, heads: usize) -> Matrix {
        let (t, c) = (qkv.len(), qkv[0].len() / 3);
        let d = c / heads;
        let mut out = vec![vec![0.0; c]; t];
        for h in 0..heads {
            for i in 0..t {
                let score = |j: usize| (0..d).map(|e| qkv[i][h * d + e] * qkv[j][c + h * d + e]).sum::<f64>();
                let weights: Vec<f64> = (0..=i).map(|j| (score(j) / (d as f64).sqrt()).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (j, weight) in weights.iter().enumerate() {
                    for e in 0..d {
                        out[i][h * d + e] += weight / total * qkv[j][2 * c + h * d + e];
                    }
                }
            }
        }
        out
    }

    fn gelu(x: f64) -> f64 {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
    }

    fn sum(a: &Matrix, b: &Matrix) -> Matrix {
        a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
    }

    pub(super) fn gpt2(ids: &[u32], layers: usize, heads: usize, get: &dyn Fn(&str) -> Matrix) -> Matrix {
        let vector = |name: &str| get(name).remove(0);
        let (wte, wpe) = (get("wte.weight"), get("wpe.weight"));
        let mut x: Matrix = ids
            .iter()
            .enumerate()
            .map(|(i, &id)| wte[id as usize].iter().zip(&wpe[i]).map(|(a, b)| a + b).collect())
            .collect();
        for layer in 0..layers {
            let m = |part: &str| get(&format!("h.{layer}.{part}"));
            let v = |part: &str| vector(&format!("h.{layer}.{part}"));
            let h = norm(&x, &v("ln_1.weight"), &v("ln_1.bias"));
            let h = attention(&affine(&h, &m("attn.c_attn.weight"), &v("attn.c_attn.bias")), heads);
            x = sum(&x, &affine(&h, &m("attn.c_proj.weight"), &v("attn.c_proj.bias")));
            let h = norm(&x, &v("ln_2.weight"), &v("ln_2.bias"));
            let h = affine(&h, &m("mlp.c_fc.weight"), &v("mlp.c_fc.bias"));
            let h: Matrix = h.iter().map(|row| row.iter().map(|&x| gelu(x)).collect()).collect();
            x = sum(&x, &affine(&h, &m("mlp.c_proj.weight"), &v("mlp.c_proj.bias")));
        }
        let x = norm(&x, &vector("ln_f.weight"), &vector("ln_f.bias"));
        let dot = |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        x.iter().map(|row| wte.iter().map(|token| dot(row, token)).collect()).collect()
    }
}

#[test]
fn gpt2_equals_its_definition_in_f64() {
    let (network, store) = built(&gpt2());
    // Weights that are nowhere trivial: biases and norm scales too.
    let params = store
        .detached()
        .map::<ModelError>(|_, tensor| {
            let wave = ops::check::wave(tensor.dims(), 0.3)?.to_dtype(candle_core::DType::F32)?;
            Ok((tensor + wave)?)
        })
        .unwrap();
    let get = |name: &str| -> naive::Matrix {
        let tensor = params.get(&format!("transformer.{name}")).unwrap().to_dtype(candle_core::DType::F64).unwrap();
        if tensor.rank() == 1 { vec![tensor.to_vec1().unwrap()] } else { tensor.to_vec2().unwrap() }
    };
    let ids = tokens(1, 12);
    let expected = naive::gpt2(&ids.flatten_all().unwrap().to_vec1::<u32>().unwrap(), 2, 2, &get);
    let found = logits(&network, &params, &ids);
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((f64::from(*found) - expected).abs() < 1e-4 * expected.abs().max(1.0), "{found} {expected}");
    }
}

#[test]
fn gradients_of_all_weights_agree_with_central_differences() {
    for config in [gpt2(), llama(true), bitnet()] {
        let (network, store) = built(&config);
        let names: Vec<String> = store.vars().map(|(name, _)| name.to_owned()).collect();
        let to_f64 = |t: &Tensor| t.to_dtype(candle_core::DType::F64).unwrap();
        let values: Vec<Tensor> = store.vars().map(|(_, var)| to_f64(&var.as_detached_tensor())).collect();
        let (inputs, targets) = (tokens(2, 5), tokens(2, 5).flatten_all().unwrap());
        let loss = |x: &[Tensor]| {
            let params: Params = names.iter().cloned().zip(x.iter().cloned()).collect();
            let logits =
                network.forward(&Forward::new(&params, Mode::Train), &inputs).map_err(candle_core::Error::wrap)?;
            cross_entropy(&logits.flatten_to(1)?, &targets)?.mean_all()
        };
        let error = ops::check::gradient_error(&values, loss).unwrap();
        assert!(error < 1e-7, "{error}");
    }
}
