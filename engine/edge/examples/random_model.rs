//! Writes a GGUF file of a language model with random weights and random tables (Q8_0), in the shape of a known one: for
//! measuring speed, which does not depend on what the weights say. Weights are ternary (TQ2_0) unless another form is named:
//! the same trits in TQ1_0 or as F16, which other programs turn into forms of their own, or blocks of Q8_0 or Q4_0.
//!
//! `cargo run --release -p foretrain-edge --example random_model -- 1.1b model.gguf`
//! `cargo run --release -p foretrain-edge --example random_model -- 1.1b model-Q8_0.gguf q8_0`
#![allow(clippy::print_stdout, reason = "a command line")]

use std::fs::File;
use std::io::BufWriter;

use anyhow::{Context, bail};
use foretrain_edge::gguf::{Array, GgufWriter, TensorType, Value};
use foretrain_ternary::{BLOCK_LEN, CODE_BYTES, Packing};
use half::f16;

/// The numbers of a model.
struct Shape {
    name: &'static str,
    architecture: &'static str,
    width: usize,
    layers: u32,
    heads: usize,
    kv_heads: usize,
    inner: usize,
    vocab: usize,
    is_tied: bool,
    positions: u32,
    theta: f32,
}

const SHAPES: [Shape; 3] = [
    // TinyLlama 1.1B.
    Shape {
        name: "1.1b",
        architecture: "llama",
        width: 2048,
        layers: 22,
        heads: 32,
        kv_heads: 4,
        inner: 5632,
        vocab: 32000,
        is_tied: false,
        positions: 2048,
        theta: 1e4,
    },
    // BitNet b1.58 2B4T.
    Shape {
        name: "2b",
        architecture: "bitnet",
        width: 2560,
        layers: 30,
        heads: 20,
        kv_heads: 5,
        inner: 6912,
        vocab: 128_256,
        is_tied: true,
        positions: 4096,
        theta: 5e5,
    },
    // Llama 2 7B.
    Shape {
        name: "7b",
        architecture: "llama",
        width: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 32,
        inner: 11008,
        vocab: 32000,
        is_tied: false,
        positions: 4096,
        theta: 1e4,
    },
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, path, form) = match arguments.as_slice() {
        [name, path] => (name, path, "tq2_0"),
        [name, path, form] => (name, path, form.as_str()),
        _ => bail!("expected SHAPE FILE [FORM], with SHAPE one of {}", SHAPES.map(|shape| shape.name).join(", ")),
    };
    let Some(shape) = SHAPES.iter().find(|shape| shape.name == name) else {
        bail!("expected a shape of {}, found {name:?}", SHAPES.map(|shape| shape.name).join(", "));
    };
    let Some((weight_type, weights)) = random_weights(form, shape) else {
        bail!("expected a form of tq2_0, tq1_0, f16, q8_0, q4_0, found {form:?}");
    };
    let table = random_blocks(shape.width * shape.vocab / 32, 34, 0.02 / 70.0);
    let ones: Vec<u8> = [1.0_f32; 16384].iter().flat_map(|one| one.to_le_bytes()).collect();
    let mut writer = GgufWriter::new(shape.architecture);
    describe(&mut writer, shape)?;
    let (width, kv_width) = (shape.width, shape.width / shape.heads * shape.kv_heads);
    for name in if shape.is_tied { &["token_embd"][..] } else { &["token_embd", "output"] } {
        writer.add_tensor(&format!("{name}.weight"), TensorType::Q8_0, &[shape.vocab, width], table.as_slice())?;
    }
    writer.add_tensor("output_norm.weight", TensorType::F32, &[width], &ones[..width * 4])?;
    for layer in 0..shape.layers {
        for (part, rows, cols) in [
            ("attn_q", width, width),
            ("attn_k", kv_width, width),
            ("attn_v", kv_width, width),
            ("attn_output", width, width),
            ("ffn_gate", shape.inner, width),
            ("ffn_up", shape.inner, width),
            ("ffn_down", width, shape.inner),
        ] {
            let len = weight_type.byte_len(&[rows, cols]).context("rows of whole blocks")?;
            let bytes = weights.get(..len).context("a matrix larger than the largest")?;
            writer.add_tensor(&format!("blk.{layer}.{part}.weight"), weight_type, &[rows, cols], bytes)?;
        }
        let bitnet = [("attn_sub_norm", width), ("ffn_sub_norm", shape.inner)];
        let more = if shape.architecture == "bitnet" { &bitnet[..] } else { &[] };
        for (part, len) in [("attn_norm", width), ("ffn_norm", width)].iter().chain(more) {
            writer.add_tensor(&format!("blk.{layer}.{part}.weight"), TensorType::F32, &[*len], &ones[..len * 4])?;
        }
    }
    let file = File::create(path).with_context(|| format!("creating {path}"))?;
    writer.write(&mut BufWriter::new(file))?;
    println!("{path}: {} bytes", std::fs::metadata(path)?.len());
    Ok(())
}

/// What llama.cpp wants to know: the shape, and a vocabulary of made-up pieces.
fn describe(writer: &mut GgufWriter<'_>, shape: &Shape) -> anyhow::Result<()> {
    let number = |number: usize| u32::try_from(number);
    let key = |name: &str| format!("{}.{name}", shape.architecture);
    writer.add_metadata("general.name", shape.name)?;
    for (name, value) in [
        ("block_count", shape.layers),
        ("context_length", shape.positions),
        ("embedding_length", number(shape.width)?),
        ("feed_forward_length", number(shape.inner)?),
        ("attention.head_count", number(shape.heads)?),
        ("attention.head_count_kv", number(shape.kv_heads)?),
        ("rope.dimension_count", number(shape.width / shape.heads)?),
        ("vocab_size", number(shape.vocab)?),
    ] {
        writer.add_metadata(&key(name), value)?;
    }
    writer.add_metadata(&key("attention.layer_norm_rms_epsilon"), 1e-5_f32)?;
    writer.add_metadata(&key("rope.freq_base"), shape.theta)?;
    writer.add_metadata("tokenizer.ggml.model", "llama")?;
    writer.add_metadata("tokenizer.ggml.pre", "default")?;
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter();
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let pieces: Vec<String> = special.chain(bytes).chain((0..).map(|n| format!("t{n:06}"))).take(shape.vocab).collect();
    // Unknown, control, bytes, then ordinary pieces.
    let kinds = [2, 3, 3].into_iter().chain([6; 256]).chain(std::iter::repeat(1)).take(shape.vocab).collect();
    writer.add_metadata("tokenizer.ggml.tokens", Value::Array(Array::String(pieces)))?;
    writer.add_metadata("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; shape.vocab])))?;
    writer.add_metadata("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)))?;
    for (name, token) in [("bos", 1_u32), ("eos", 2), ("unknown", 0)] {
        writer.add_metadata(&format!("tokenizer.ggml.{name}_token_id"), token)?;
    }
    Ok(())
}

/// 64-bit numbers of a xorshift generator. Source: Marsaglia 2003, "Xorshift RNGs".
fn random() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(0x9e37_79b9_7f4a_7c15_u64), |&state| {
        let state = state ^ (state << 13);
        let state = state ^ (state >> 7);
        Some(state ^ (state << 17))
    })
}

/// Blocks of trits with one scale.
fn random_trits(num_blocks: usize, scale: f32) -> Vec<u8> {
    let codes = random().flat_map(|number| {
        let codes = number.to_le_bytes();
        // A code of 3 is no trit: it becomes 1, a zero.
        codes.map(|byte| byte & !((byte & (byte >> 1) & 0x55) << 1))
    });
    let codes: Vec<u8> = codes.take(num_blocks * CODE_BYTES).collect();
    let scale = f16::from_f32(scale).to_le_bytes();
    codes.chunks_exact(CODE_BYTES).flat_map(|codes| [codes, &scale].concat()).collect()
}

/// The form called `form`, and weights in it: as many as the largest matrix of `shape` has.
fn random_weights(form: &str, shape: &Shape) -> Option<(TensorType, Vec<u8>)> {
    let num_weights = shape.width * shape.inner;
    let size = 1.0 / (shape.width as f32).sqrt();
    Some(match form {
        "tq2_0" => (TensorType::Tq2_0, random_trits(num_weights / BLOCK_LEN, size)),
        "tq1_0" => {
            let trits = Packing::Tq2_0.unpack(&random_trits(num_weights / BLOCK_LEN, size), num_weights).ok()?.trits;
            (TensorType::Tq1_0, Packing::Tq1_0.pack(&trits, size).ok()?)
        }
        "f16" => {
            let values = [0.0, size, -size].map(|value| f16::from_f32(value).to_le_bytes());
            let codes = random().flat_map(u64::to_le_bytes).map(|byte| values[usize::from(byte) % 3]);
            (TensorType::F16, codes.take(num_weights).flatten().collect())
        }
        "q8_0" => (TensorType::Q8_0, random_blocks(num_weights / 32, 34, size / 70.0)),
        "q4_0" => (TensorType::Q4_0, random_blocks(num_weights / 32, 18, size / 5.0)),
        _ => return None,
    })
}

/// Blocks of `block_bytes` that start with a scale: Q8_0 or Q4_0.
fn random_blocks(num_blocks: usize, block_bytes: usize, scale: f32) -> Vec<u8> {
    let mut blocks: Vec<u8> = random().flat_map(u64::to_le_bytes).take(num_blocks * block_bytes).collect();
    let scale = f16::from_f32(scale).to_le_bytes();
    for block in blocks.chunks_exact_mut(block_bytes) {
        block[..2].copy_from_slice(&scale);
    }
    blocks
}
