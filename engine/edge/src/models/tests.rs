//! What a model makes of a token does not depend on what else passes through it at the same time: the same bits for a token
//! alone, for one of a prompt's and for one beside those of other texts, in every form of weights and of the cache, with
//! every set of kernels.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use foretrain_ternary::Packing;
use half::{bf16, f16};

use super::{CacheFormat, LanguageModel, Part, TextConfig};
use crate::gguf::{GgufFile, GgufWriter, TensorType, encode_q3_k, encode_q4_0, encode_q4_k, encode_q8_0};
use crate::kernels::tests::with_each_set;
use crate::weights::Weights;

/// A block of the widest form.
const WIDTH: usize = 256;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const VOCAB: usize = 40;
/// Tokens before those that are looked at, which go on beyond the 64 positions that attention takes at once.
const BEFORE: usize = 60;
/// Tokens that are looked at.
const LOOKED_AT: usize = 9;

/// A Llama of one layer whose matrices are of the form `kind`.
fn model(kind: TensorType) -> LanguageModel {
    let mut state = 1_u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut writer = GgufWriter::new("llama");
    for (key, number) in [
        ("context_length", 100),
        ("embedding_length", WIDTH),
        ("feed_forward_length", WIDTH),
        ("block_count", 1),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
    ] {
        writer.add_metadata(&format!("llama.{key}"), u32::try_from(number).unwrap()).unwrap();
    }
    writer.add_metadata("llama.attention.layer_norm_rms_epsilon", 1e-5_f32).unwrap();
    let kv_width = WIDTH / HEADS * KV_HEADS;
    for (name, shape) in [
        ("token_embd", &[VOCAB, WIDTH][..]),
        ("output_norm", &[WIDTH]),
        ("output", &[VOCAB, WIDTH]),
        ("blk.0.attn_norm", &[WIDTH]),
        ("blk.0.ffn_norm", &[WIDTH]),
        ("blk.0.attn_q", &[WIDTH, WIDTH]),
        ("blk.0.attn_k", &[kv_width, WIDTH]),
        ("blk.0.attn_v", &[kv_width, WIDTH]),
        ("blk.0.attn_output", &[WIDTH, WIDTH]),
        ("blk.0.ffn_gate", &[WIDTH, WIDTH]),
        ("blk.0.ffn_up", &[WIDTH, WIDTH]),
        ("blk.0.ffn_down", &[WIDTH, WIDTH]),
    ] {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| 0.2 * random()).collect();
        let (kind, bytes) = match shape {
            [_] => (TensorType::F32, encoded(TensorType::F32, &vec![1.0; values.len()])),
            _ => (kind, encoded(kind, &values)),
        };
        writer.add_tensor(&format!("{name}.weight"), kind, shape, bytes).unwrap();
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    let path = Path::new("model.gguf");
    let file = GgufFile::parse(bytes.into(), path).unwrap();
    let (config, architecture) = TextConfig::from_gguf(&file, path).unwrap();
    LanguageModel::load(&config, &Weights::from_gguf(&file, path, architecture).unwrap()).unwrap()
}

fn encoded(kind: TensorType, values: &[f32]) -> Vec<u8> {
    let trits = || values.iter().map(|x| (x * 7.0).round_ties_even() as i8).collect::<Vec<_>>();
    match kind {
        TensorType::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        TensorType::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        TensorType::Bf16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        TensorType::Q8_0 => encode_q8_0(values).unwrap(),
        TensorType::Q4_0 => encode_q4_0(values).unwrap(),
        TensorType::Q3K => encode_q3_k(values).unwrap(),
        TensorType::Q4K => encode_q4_k(values).unwrap(),
        TensorType::Tq1_0 => Packing::Tq1_0.pack(&trits(), 0.1).unwrap(),
        TensorType::Tq2_0 => Packing::Tq2_0.pack(&trits(), 0.1).unwrap(),
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_token_gives_the_same_bits_alone_and_in_company() {
    with_each_set(|set| {
        for kind in TensorType::ALL {
            for format in [CacheFormat::F32, CacheFormat::F16, CacheFormat::Int8] {
                check(&model(kind).with_cache_format(format), &format!("{set} {kind:?} {format:?}"));
            }
        }
    });
}

#[track_caller]
fn check(model: &LanguageModel, what: &str) {
    let tokens: Vec<u32> = (0..BEFORE + LOOKED_AT).map(|at| (at * at % VOCAB) as u32).collect();
    let (before, tokens) = tokens.split_at(BEFORE);
    let mut cache = model.empty_cache();
    model.forward(before, &mut cache).unwrap();
    // One after the other, and what was there before each.
    let (mut caches, mut alone, mut logits) = (vec![cache], Vec::new(), Vec::new());
    for token in tokens {
        let mut cache = caches[caches.len() - 1].clone();
        let hidden = model.forward(&[*token], &mut cache).unwrap();
        logits.extend(bits(&model.logits(&hidden).unwrap()));
        alone.extend(bits(&hidden));
        caches.push(cache);
    }
    for count in 2..=LOOKED_AT {
        let (alone, logits) = (&alone[..count * WIDTH], &logits[..count * VOCAB]);
        let hidden = model.forward(&tokens[..count], &mut caches[0].clone()).unwrap();
        assert!(bits(&hidden) == alone, "{what}: {count} tokens of one text");
        assert!(bits(&model.logits(&hidden).unwrap()) == logits, "{what}: logits of {count} tokens");
        let mut others = caches[..count].to_vec();
        let texts = others.iter_mut().zip(tokens.chunks(1));
        let mut texts: Vec<Part<'_>> = texts.map(|(cache, tokens)| Part { tokens, cache }).collect();
        assert!(bits(&model.forward_together(&mut texts).unwrap()) == alone, "{what}: {count} texts");
    }
}
