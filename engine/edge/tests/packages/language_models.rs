//! Language models against the reference, in every storage format and from GGUF.

use foretrain_edge::gguf::{GgufFile, TensorType};
use foretrain_edge::{Activations, GenerateOptions, Package, PackageKind};
use serde_json::{Value, json};

use super::builder::{Array, Files, Random, Scheme, Weights, character_tokenizer, files, reads_floats, write};
use super::image_models::{tolerance, without_rounding};
use super::reference::{self, assert_near};

const CHARACTERS: &str = "abcdefghijklm nopqrstuvwxyzéß→";
const VOCAB: usize = 30;
const POSITIONS: usize = 12;

pub fn gpt2(scheme: Scheme) -> (Value, Weights) {
    let (width, inner) = (128, 512);
    let config = json!({
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": VOCAB, "n_positions": POSITIONS,
        "n_embd": width, "n_layer": 2, "n_head": 4, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
    });
    let mut weights = Weights::new(4);
    let table = if scheme.is_integer() { Scheme::F16 } else { scheme };
    weights.matrix("transformer.wte.weight", &[VOCAB, width], table);
    weights.matrix("transformer.wpe.weight", &[POSITIONS, width], table);
    for layer in 0..2 {
        let name = |part: &str| format!("transformer.h.{layer}.{part}");
        for norm in ["ln_1", "ln_2"] {
            weights.vector(&name(&format!("{norm}.weight")), width, 1.0);
            weights.vector(&name(&format!("{norm}.bias")), width, 0.0);
        }
        let shapes = [
            ("attn.c_attn", 3 * width, width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", inner, width),
            ("mlp.c_proj", width, inner),
        ];
        for (part, out, input) in shapes {
            weights.conv1d(&name(&format!("{part}.weight")), out, input, scheme);
            weights.vector(&name(&format!("{part}.bias")), out, 0.0);
        }
    }
    weights.vector("transformer.ln_f.weight", width, 1.0);
    weights.vector("transformer.ln_f.bias", width, 0.0);
    (config, weights)
}

/// `width` 256 gives rows that TQ2_0 takes in GGUF, 96 rows that need unpacking.
pub fn llama(scheme: Scheme, width: usize, is_tied: bool) -> (Value, Weights) {
    let (inner, head_dim, heads, kv_heads) = (2 * width, 16, width / 16, width / 32);
    let config = json!({
        "model_type": "llama", "vocab_size": VOCAB, "max_position_embeddings": POSITIONS, "hidden_size": width,
        "intermediate_size": inner, "num_hidden_layers": 2, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": is_tied,
    });
    let mut weights = Weights::new(5);
    let table = if scheme.is_integer() { Scheme::F16 } else { scheme };
    weights.matrix("model.embed_tokens.weight", &[VOCAB, width], table);
    for layer in 0..2 {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        weights.vector(&name("input_layernorm"), width, 1.0);
        weights.vector(&name("post_attention_layernorm"), width, 1.0);
        for (part, out, input) in [
            ("self_attn.q_proj", heads * head_dim, width),
            ("self_attn.k_proj", kv_heads * head_dim, width),
            ("self_attn.v_proj", kv_heads * head_dim, width),
            ("self_attn.o_proj", width, heads * head_dim),
            ("mlp.gate_proj", inner, width),
            ("mlp.up_proj", inner, width),
            ("mlp.down_proj", width, inner),
        ] {
            weights.matrix(&name(part), &[out, input], scheme);
        }
    }
    weights.vector("model.norm.weight", width, 1.0);
    if !is_tied {
        weights.matrix("lm_head.weight", &[VOCAB, width], if scheme == Scheme::Ternary { table } else { scheme });
    }
    (config, weights)
}

pub fn text_files((config, weights): &(Value, Weights)) -> Files {
    files(config, "model.safetensors", weights.safetensors(), Some(character_tokenizer(CHARACTERS)))
}

fn tokens(seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..=POSITIONS).map(|_| (random.uniform() * VOCAB as f32) as u32).collect()
}

/// Losses of whole windows, and that a greedy continuation picks the reference's likeliest tokens.
#[track_caller]
fn check(package: &Package, logits: impl Fn(&[u32]) -> Vec<Vec<f64>>, tolerance: f64, what: &str) {
    assert_eq!(package.kind(), PackageKind::Text);
    for seed in 0..3 {
        let tokens = tokens(seed);
        let expected: Vec<f64> =
            logits(&tokens[..POSITIONS]).iter().zip(&tokens[1..]).map(|(row, &t)| reference::loss(row, t)).collect();
        assert_near(&package.token_losses(&tokens).unwrap(), &expected, tolerance, what);
    }
    let characters: Vec<char> = CHARACTERS.chars().collect();
    let prompt = "hé";
    let tokenizer = package.tokenizer().unwrap();
    let mut known = tokenizer.encode(prompt, false).unwrap().get_ids().to_vec();
    let num_new = POSITIONS - known.len();
    let options =
        GenerateOptions { max_tokens: num_new, temperature: 0.0, top_k: 0, seed: 0, ..GenerateOptions::default() };
    let mut pieces = Vec::new();
    let generated = package
        .generate(prompt, &options, &mut |piece| {
            pieces.push(piece.to_owned());
            true
        })
        .unwrap();
    assert_eq!(pieces.concat(), generated.text);
    assert_eq!(generated.num_tokens, num_new);
    for found in generated.text.chars() {
        let rows = logits(&known);
        let last = rows.last().unwrap();
        let token = characters.iter().position(|c| *c == found).unwrap();
        let best = last.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let span = last.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        // Two nearly equal tokens may change places in 32 bits.
        assert!(best - last[token] <= 2.0 * tolerance * span, "{what}: {found:?} is not the likeliest");
        known.push(token as u32);
    }
}

#[test]
fn gpt2_computes_what_the_reference_computes() {
    for scheme in Scheme::ALL {
        let built = gpt2(scheme);
        let dir = write(&text_files(&built));
        let package = Package::open(dir.path()).unwrap();
        let logits = |tokens: &[u32]| reference::gpt2(&built.1.arrays, 2, 4, tokens);
        check(&package, logits, tolerance(scheme), &format!("{scheme:?}"));
        let package = Package::open_with(dir.path(), Activations::Floats).unwrap();
        let exact = without_rounding(&built.1.arrays);
        check(&package, |tokens| reference::gpt2(&exact, 2, 4, tokens), 1e-4, &format!("{scheme:?} exact"));
    }
}

#[test]
fn llama_computes_what_the_reference_computes() {
    for scheme in Scheme::ALL {
        for (width, is_tied) in [(128, true), (96, false)] {
            let built = llama(scheme, width, is_tied);
            let dir = write(&text_files(&built));
            let package = Package::open(dir.path()).unwrap();
            let logits = |tokens: &[u32]| reference::llama(&built.1.arrays, 2, width / 16, width / 32, tokens);
            check(&package, logits, tolerance(scheme), &format!("{scheme:?} {width}"));
        }
    }
}

fn gpt2_name(name: &str) -> String {
    let name = name.replace("transformer.h.", "blk.").replace("transformer.", "");
    [
        ("wte.", "token_embd."),
        ("wpe.", "position_embd."),
        ("ln_f", "output_norm"),
        ("ln_1", "attn_norm"),
        ("ln_2", "ffn_norm"),
        ("attn.c_attn", "attn_qkv"),
        ("attn.c_proj", "attn_output"),
        ("mlp.c_fc", "ffn_up"),
        ("mlp.c_proj", "ffn_down"),
    ]
    .into_iter()
    .fold(name, |name, (from, to)| name.replace(from, to))
}

fn llama_name(name: &str) -> String {
    // The last norm has no block; those within blocks have names of their own.
    if name == "model.norm.weight" {
        return "output_norm.weight".to_owned();
    }
    let name = name.replace("model.layers.", "blk.").replace("model.", "");
    [
        ("embed_tokens", "token_embd"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("lm_head", "output"),
    ]
    .into_iter()
    .fold(name, |name, (from, to)| name.replace(from, to))
}

/// llama.cpp's order of query and key rows: halves of a head interleaved.
fn permuted(name: &str, array: &Array) -> Vec<f64> {
    if !name.contains("q_proj") && !name.contains("k_proj") {
        return array.values.clone();
    }
    let (cols, dim) = (array.shape[1], 16);
    let mut out = Vec::new();
    for head in 0..array.shape[0] / dim {
        for i in 0..dim / 2 {
            for half in 0..2 {
                let row = head * dim + half * dim / 2 + i;
                out.extend_from_slice(&array.values[row * cols..(row + 1) * cols]);
            }
        }
    }
    out
}

#[test]
fn gguf_packages_compute_the_same() {
    for kind in TensorType::ALL {
        let scheme = if reads_floats(kind) { Scheme::F32 } else { Scheme::Int8 };
        // Tables stay in floats; GPT-2's rows of 128 are too short for blocks of 256, Llama's of 256 are not.
        let (config, mut weights) = gpt2(Scheme::F32);
        let gpt2_kind = if kind.block_len() == 256 { TensorType::Q8_0 } else { kind };
        let file = weights.gguf("gpt2", gpt2_kind, |name| name.contains(".h."), gpt2_name, |_, a| a.values.clone());
        let tokenizer = Some(character_tokenizer(CHARACTERS));
        let dir = write(&files(&config, "model.gguf", file, tokenizer.clone()));
        let package = Package::open(dir.path()).unwrap();
        let logits = |tokens: &[u32]| reference::gpt2(&weights.arrays, 2, 4, tokens);
        let gpt2_scheme = if kind.block_len() == 1 { Scheme::F32 } else { Scheme::Int8 };
        check(&package, logits, tolerance(gpt2_scheme), &format!("gpt2 {kind:?}"));

        let (config, mut weights) = llama(Scheme::F32, 256, false);
        let file = weights.gguf("llama", kind, |name| name.contains("layers"), llama_name, permuted);
        let dir = write(&files(&config, "model.gguf", file, tokenizer));
        let package = Package::open(dir.path()).unwrap();
        let logits = |tokens: &[u32]| reference::llama(&weights.arrays, 2, 16, 8, tokens);
        check(&package, logits, tolerance(scheme), &format!("llama {kind:?}"));
    }
}

/// Looked-up rows and the head's products, of blocks that are kept as they are stored.
#[test]
fn tables_of_packed_floats_compute_the_same() {
    for kind in [TensorType::Q3K, TensorType::Q4K] {
        for is_tied in [false, true] {
            let (config, mut weights) = llama(Scheme::F32, 256, is_tied);
            let file = weights.gguf("llama", kind, |_| true, llama_name, permuted);
            let dir = write(&files(&config, "model.gguf", file, Some(character_tokenizer(CHARACTERS))));
            let package = Package::open(dir.path()).unwrap();
            let logits = |tokens: &[u32]| reference::llama(&weights.arrays, 2, 16, 8, tokens);
            check(&package, logits, tolerance(Scheme::F32), &format!("{kind:?}, tied: {is_tied}"));
        }
    }
}

#[test]
fn weights_that_are_no_numbers_give_no_text() {
    let check = |files: &Files, name: &str| {
        let dir = write(files);
        let package = Package::open(dir.path()).unwrap();
        let options =
            GenerateOptions { max_tokens: 3, temperature: 0.0, top_k: 0, seed: 0, ..GenerateOptions::default() };
        let generated = package.generate("ab", &options, &mut |_| true).map(|generated| generated.text);
        let losses = package.token_losses(&[0, 1, 2]);
        for error in [generated.unwrap_err().to_string(), losses.unwrap_err().to_string()] {
            assert!(error.contains("finite answers") && error.contains(name), "{error}");
        }
    };
    let mut built = gpt2(Scheme::F32);
    built.1.spoil("transformer.h.0.mlp.c_fc.weight", &f32::NAN.to_le_bytes());
    check(&text_files(&built), "model.safetensors");

    // A scale of a Q8_0 block, which nothing looks at when the file is opened.
    let (config, mut weights) = llama(Scheme::F32, 32, false);
    let mut file = weights.gguf("llama", TensorType::Q8_0, |name| name.contains("layers"), llama_name, permuted);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, &file).unwrap();
    let gguf = GgufFile::open(&path).unwrap();
    let blocks = gguf.data("blk.0.ffn_up.weight").unwrap();
    let at = file.windows(blocks.len()).position(|window| window == blocks).unwrap();
    file[at..at + 2].copy_from_slice(&half::f16::NAN.to_le_bytes());
    check(&files(&config, "model.gguf", file, Some(character_tokenizer(CHARACTERS))), "model.gguf");
}

#[test]
fn positions_take_no_memory_until_they_are_used() {
    let mut built = llama(Scheme::F32, 32, true);
    built.0["max_position_embeddings"] = json!(1_u64 << 40);
    let dir = write(&text_files(&built));
    let package = Package::open(dir.path()).unwrap();
    let options = GenerateOptions { max_tokens: 3, temperature: 0.0, top_k: 0, seed: 0, ..GenerateOptions::default() };
    assert_eq!(package.generate("ab", &options, &mut |_| true).unwrap().num_tokens, 3);
}

#[test]
fn generation_outgrows_the_positions_and_repeats_with_its_seed() {
    let dir = write(&text_files(&gpt2(Scheme::Ternary)));
    let package = Package::open(dir.path()).unwrap();
    let options = GenerateOptions { max_tokens: 40, temperature: 1.0, top_k: 5, seed: 3, ..GenerateOptions::default() };
    let long_prompt = "abcdefghijklmnopqrstuvwxyz";
    let once = package.generate(long_prompt, &options, &mut |_| true).unwrap();
    assert_eq!((once.num_tokens, once.text.chars().count()), (40, 40));
    assert_eq!(package.generate(long_prompt, &options, &mut |_| true).unwrap().text, once.text);
    let other = GenerateOptions { seed: 4, ..options.clone() };
    assert_ne!(package.generate(long_prompt, &other, &mut |_| true).unwrap().text, once.text);
    let mut count = 0;
    let stopped = package.generate("a", &options, &mut |_| {
        count += 1;
        count < 3
    });
    assert_eq!(stopped.unwrap().num_tokens, 3);
    assert!(package.generate("", &options, &mut |_| true).unwrap_err().to_string().contains("prompt"));
    let cold = GenerateOptions { temperature: -1.0, ..options.clone() };
    assert!(package.generate("a", &cold, &mut |_| true).unwrap_err().to_string().contains("temperature"));
    assert!(package.token_losses(&[0, 99]).unwrap_err().to_string().contains("99"));
    assert!(package.token_losses(&[0; POSITIONS + 2]).unwrap_err().to_string().contains("12 tokens"));
    assert!(package.token_losses(&[]).unwrap().is_empty());
    assert!(package.classify(&[]).unwrap_err().to_string().contains("image model"));
}
