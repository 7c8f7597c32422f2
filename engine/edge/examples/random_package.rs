//! Writes a package of a small Llama with random weights and a tokenizer of single characters: for comparing what
//! different kernels and processors make of the same files.
//!
//! `cargo run -p foretrain-edge --example random_package -- ternary packages/random`
#![allow(clippy::print_stdout, reason = "a command line")]
#![allow(clippy::unwrap_used, reason = "the builder of the tests")]

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/packages/builder.rs"]
mod builder;

use std::path::Path;

use anyhow::bail;
use builder::{Scheme, Weights, character_tokenizer, files, write_into};
use serde_json::json;

const CHARACTERS: &str = " abcdefghijklmnopqrstuvwxyzäöüß.,;→🦀";
const WIDTH: usize = 256;
const INNER: usize = 768;
const LAYERS: usize = 4;
const HEADS: usize = 8;
const KV_HEADS: usize = 2;
const POSITIONS: usize = 128;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let schemes = [
        ("f32", Scheme::F32),
        ("f16", Scheme::F16),
        ("bf16", Scheme::Bf16),
        ("int8", Scheme::Int8),
        ("int4", Scheme::Int4),
        ("ternary", Scheme::Ternary),
        ("ternary-base3", Scheme::TernaryBase3),
    ];
    let names = schemes.map(|(name, _)| name).join(", ");
    let [name, folder] = arguments.as_slice() else { bail!("expected SCHEME FOLDER, with SCHEME one of {names}") };
    let Some((_, scheme)) = schemes.into_iter().find(|(known, _)| known == name) else {
        bail!("expected a scheme of {names}, found {name:?}");
    };
    let vocab = CHARACTERS.chars().count();
    let config = json!({
        "model_type": "llama", "vocab_size": vocab, "max_position_embeddings": POSITIONS, "hidden_size": WIDTH,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": true,
    });
    let mut weights = Weights::new(11);
    weights.matrix("model.embed_tokens.weight", &[vocab, WIDTH], Scheme::F16);
    weights.vector("model.norm.weight", WIDTH, 1.0);
    let kv_width = WIDTH / HEADS * KV_HEADS;
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        weights.vector(&name("input_layernorm"), WIDTH, 1.0);
        weights.vector(&name("post_attention_layernorm"), WIDTH, 1.0);
        for (part, out, input) in [
            ("self_attn.q_proj", WIDTH, WIDTH),
            ("self_attn.k_proj", kv_width, WIDTH),
            ("self_attn.v_proj", kv_width, WIDTH),
            ("self_attn.o_proj", WIDTH, WIDTH),
            ("mlp.gate_proj", INNER, WIDTH),
            ("mlp.up_proj", INNER, WIDTH),
            ("mlp.down_proj", WIDTH, INNER),
        ] {
            weights.matrix(&name(part), &[out, input], scheme);
        }
    }
    let folder = Path::new(folder);
    std::fs::create_dir_all(folder)?;
    let tokenizer = character_tokenizer(CHARACTERS);
    write_into(folder, &files(&config, "model.safetensors", weights.safetensors(), Some(tokenizer)));
    println!("{}", folder.display());
    Ok(())
}
