//! A small Llama with random weights, whole in one GGUF file: a token per byte, a chat template, room for long texts.

use std::path::{Path, PathBuf};

use foretrain_edge::gguf::{Array, GgufWriter, TensorType, Value, encode_q8_0};

const WIDTH: usize = 64;
const INNER: usize = 128;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
/// 256 bytes, a start and an end.
const VOCAB: usize = 258;
const TEMPLATE: &str =
    "{{ bos_token }}{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}<assistant>";

/// Writes the file into `dir`; `seed` makes another model.
pub fn write_talker(dir: &Path, positions: u32, seed: u32) -> PathBuf {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut writer = GgufWriter::new("llama");
    for (key, number) in [
        ("context_length", positions),
        ("embedding_length", WIDTH as u32),
        ("feed_forward_length", INNER as u32),
        ("block_count", 2),
        ("attention.head_count", HEADS as u32),
        ("attention.head_count_kv", KV_HEADS as u32),
    ] {
        writer.add_metadata(&format!("llama.{key}"), number).unwrap();
    }
    writer.add_metadata("llama.attention.layer_norm_rms_epsilon", 1e-5_f32).unwrap();
    let special = ["<s>", "</s>"].map(str::to_owned);
    let tokens: Vec<String> = alphabet().into_iter().map(|c| c.to_string()).chain(special).collect();
    let kinds = (0..VOCAB).map(|token| if token < 256 { 1 } else { 3 }).collect();
    for (key, value) in [
        ("ggml.model", Value::from("gpt2")),
        ("ggml.tokens", Value::Array(Array::String(tokens))),
        ("ggml.token_type", Value::Array(Array::I32(kinds))),
        ("ggml.bos_token_id", Value::from(256)),
        ("ggml.eos_token_id", Value::from(257)),
        ("ggml.add_bos_token", Value::Bool(true)),
        ("chat_template", Value::from(TEMPLATE)),
    ] {
        writer.add_metadata(&format!("tokenizer.{key}"), value).unwrap();
    }
    let mut add = |name: &str, shape: &[usize]| {
        let len: usize = shape.iter().product();
        let is_norm = shape.len() == 1;
        let values: Vec<f32> = (0..len).map(|_| if is_norm { 1.0 } else { 0.4 * random() }).collect();
        let (kind, bytes) = if is_norm || name == "token_embd" {
            (TensorType::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        } else {
            (TensorType::Q8_0, encode_q8_0(&values).unwrap())
        };
        writer.add_tensor(&format!("{name}.weight"), kind, shape, bytes).unwrap();
    };
    add("token_embd", &[VOCAB, WIDTH]);
    add("output_norm", &[WIDTH]);
    let kv_width = WIDTH / HEADS * KV_HEADS;
    for layer in 0..2 {
        for (part, shape) in [
            ("attn_norm", &[WIDTH][..]),
            ("ffn_norm", &[WIDTH]),
            ("attn_q", &[WIDTH, WIDTH]),
            ("attn_k", &[kv_width, WIDTH]),
            ("attn_v", &[kv_width, WIDTH]),
            ("attn_output", &[WIDTH, WIDTH]),
            ("ffn_gate", &[INNER, WIDTH]),
            ("ffn_up", &[INNER, WIDTH]),
            ("ffn_down", &[WIDTH, INNER]),
        ] {
            add(&format!("blk.{layer}.{part}"), shape);
        }
    }
    let path = dir.join(format!("talker-{seed}.gguf"));
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// GPT-2's printable stand-ins for bytes, in the order of the bytes.
fn alphabet() -> Vec<char> {
    let mut next = 0x100;
    let stand_in = |byte: u8| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap()
        }
    };
    (0..=255).map(stand_in).collect()
}
