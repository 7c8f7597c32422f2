//! Models as others write them: read back exactly, and refused by name when something is wrong.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::*;
use crate::export::test_model::{tiny_bitnet, tiny_llama};
use crate::export::{Checkpoint, TargetPreset, WEIGHTS_FILE, export_package, quantize_for_target, write_params};
use crate::models::{DataShape, LlamaConfig, ModelConfig, ModelPreset, Network, Params, hf_config, initial_params};
use crate::quant::QuantScheme;
use crate::unwatched;

#[track_caller]
fn assert_same(found: &Params, expected: &Params) {
    assert_eq!(found.len(), expected.len());
    for (name, tensor) in expected.iter() {
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let found = found.get(name).unwrap();
        assert_eq!(found.dims(), tensor.dims(), "{name}");
        assert_eq!(values(found), values(tensor), "{name}");
    }
}

fn read(path: &Path) -> Result<Checkpoint, ImportError> {
    read_model(path, &path.with_file_name("cache"), unwatched!())
}

/// A folder as transformers writes it.
fn write_folder(folder: &Path, config: &Value, weights: &Params) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let vocab: serde_json::Map<String, Value> = (0..20).map(|id| (format!("t{id}"), id.into())).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "t0" },
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    write_params(&folder.join(WEIGHTS_FILE), weights, &BTreeMap::new(), unwatched!()).unwrap();
}

fn tiny_gpt2() -> (Value, Params) {
    let preset = ModelPreset::Gpt2Char.config(DataShape::Text { vocab_size: 20 }).unwrap();
    let mut config = hf_config::to_json(&preset).unwrap();
    config["n_layer"] = 1.into();
    config["n_embd"] = 32.into();
    let network = Network::new(&hf_config::from_json(&config).unwrap()).unwrap();
    let (weights, _) = initial_params(&network, 4, &Device::Cpu).unwrap();
    (config, weights)
}

/// Without how its weights were drawn, which not every file says.
fn drawn_alike(model: ModelConfig) -> ModelConfig {
    match model {
        ModelConfig::Llama(config) => ModelConfig::Llama(LlamaConfig { initializer_range: 0.02, ..config }),
        other => other,
    }
}

#[test]
fn packages_of_every_kind_are_read_back_as_they_were_stored() {
    for model in [tiny_llama, tiny_bitnet] {
        let root = tempfile::tempdir().unwrap();
        check_read_back(root.path(), &model(root.path()));
    }
}

fn check_read_back(root: &Path, checkpoint: &Checkpoint) {
    let gguf = TargetPreset::find("cpu-x86-64").unwrap();
    for scheme in QuantScheme::ALL {
        let mut targets = vec![gguf.clone().with_scheme(scheme)];
        if scheme.is_float() {
            targets.push(TargetPreset::for_scheme(scheme));
        }
        for target in targets {
            let folder = root.join(&target.id).join(scheme.label());
            export_package(checkpoint, &target, &folder, None, unwatched!()).unwrap();
            let expected = quantize_for_target(checkpoint, &target, unwatched!()).unwrap().dequantized().unwrap();
            let found = read(&folder).unwrap();
            assert_same(&found.weights, &expected);
            assert_eq!(drawn_alike(found.card.model), drawn_alike(checkpoint.card.model.clone()), "{scheme:?}");
            assert!(found.tokenizer_json.unwrap().is_file());
        }
    }
}

#[test]
fn gpt2_of_the_first_files_is_read_without_its_prefix() {
    let root = tempfile::tempdir().unwrap();
    let (config, weights) = tiny_gpt2();
    let mut bare: Params = weights
        .iter()
        .map(|(name, tensor)| (name.trim_start_matches("transformer.").to_owned(), tensor.clone()))
        .collect();
    // Masks and a repeated head, as older versions saved them.
    bare.insert("h.0.attn.bias", Tensor::ones((1, 1, 4, 4), candle_core::DType::U8, &Device::Cpu).unwrap());
    bare.insert("lm_head.weight", weights.get("transformer.wte.weight").unwrap().clone());
    write_folder(&root.path().join("gpt2"), &config, &bare);
    assert_same(&read(&root.path().join("gpt2")).unwrap().weights, &weights);
}

#[test]
fn half_precision_shards_become_f32() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sharded");
    let (config, weights) = tiny_gpt2();
    let half = weights.map(|_, tensor| tensor.to_dtype(candle_core::DType::BF16)).unwrap();
    write_folder(&folder, &config, &half);
    let names: Vec<String> = half.iter().map(|(name, _)| name.to_owned()).collect();
    let mut map = serde_json::Map::new();
    for (number, part) in names.chunks(names.len().div_ceil(3)).enumerate() {
        let file = format!("model-{:05}-of-00003.safetensors", number + 1);
        let shard: Params = part.iter().map(|name| (name.clone(), half.get(name).unwrap().clone())).collect();
        write_params(&folder.join(&file), &shard, &BTreeMap::new(), unwatched!()).unwrap();
        map.extend(part.iter().map(|name| (name.clone(), json!(file))));
    }
    // The whole file would be read where there were no index.
    std::fs::remove_file(folder.join(WEIGHTS_FILE)).unwrap();
    let index = folder.join("model.safetensors.index.json");
    std::fs::write(&index, json!({ "metadata": {}, "weight_map": map }).to_string()).unwrap();
    let expected = half.map(|_, tensor| tensor.to_dtype(candle_core::DType::F32)).unwrap();
    assert_same(&read(&folder).unwrap().weights, &expected);

    for (wrong, says) in [
        (json!({ "weight_map": { "a": "../elsewhere.safetensors" } }), "in this folder"),
        (json!({ "weight_map": {} }), "at least one tensor"),
        (json!([]), "weight_map"),
        (json!({ "weight_map": { "a": "missing.safetensors" } }), "missing.safetensors"),
    ] {
        std::fs::write(&index, wrong.to_string()).unwrap();
        let error = read(&folder).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn what_is_wrong_with_a_tensor_is_said_by_its_name() {
    let root = tempfile::tempdir().unwrap();
    let (config, weights) = tiny_gpt2();
    let check = |change: &dyn Fn(&mut Params), says: &[&str]| {
        let folder = root.path().join("wrong");
        let mut wrong = weights.clone();
        change(&mut wrong);
        write_folder(&folder, &config, &wrong);
        let error = read(&folder).unwrap_err().to_string();
        for word in says {
            assert!(error.contains(word), "{error}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    };
    let name = "transformer.h.0.mlp.c_fc.weight";
    let renamed = |params: &mut Params| {
        let kept = params.iter().filter(|(other, _)| *other != name);
        let mut kept: Params = kept.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
        kept.insert("transformer.h.0.mlp.fc.weight", weights.get(name).unwrap().clone());
        *params = kept;
    };
    check(&renamed, &[name, "none of that name", "transformer.h.0.mlp.fc.weight"]);
    let turned =
        |params: &mut Params| params.insert(name, weights.get(name).unwrap().t().unwrap().contiguous().unwrap());
    check(&turned, &[name, "[32, 128]", "[128, 32]"]);
    let broken = |params: &mut Params| {
        let mut values = weights.get(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values[7] = f32::NAN;
        params.insert(name, Tensor::from_vec(values, (32, 128), &Device::Cpu).unwrap());
    };
    check(&broken, &[name, "NaN at index 7"]);
    let whole = |params: &mut Params| {
        params.insert(name, Tensor::zeros((32, 128), candle_core::DType::I64, &Device::Cpu).unwrap());
    };
    check(&whole, &[name, "I64"]);
    let more = |params: &mut Params| {
        params.insert("transformer.h.1.ln_1.weight", Tensor::new(&[1.0_f32], &Device::Cpu).unwrap());
    };
    check(&more, &["transformer.h.1.ln_1.weight", "nearest", "transformer.h.0.ln_1.weight"]);
}

#[test]
fn other_files_are_refused_with_a_way_out() {
    let root = tempfile::tempdir().unwrap();
    let check = |name: &str, files: &[(&str, &[u8])], says: &str| {
        let folder = root.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        for (file, content) in files {
            std::fs::write(folder.join(file), content).unwrap();
        }
        let path = if let [(file, _)] = files { folder.join(file) } else { folder };
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    check("text", &[("notes.txt", b"hello")], "a file of another kind");
    check("pickle", &[("config.json", b"{}"), ("pytorch_model.bin", b"x")], "safe_serialization");
    check("version", &[("model.gguf", b"GGUF\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")], "version 2");
    check("empty", &[("model.gguf", b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")], "general.architecture");
    check("family", &[("config.json", br#"{"model_type":"mamba"}"#), (WEIGHTS_FILE, b"x")], "mamba");
    check("nothing", &[], "checkpoint");
    let (config, weights) = tiny_gpt2();
    let folder = root.path().join("mute");
    write_folder(&folder, &config, &weights);
    std::fs::remove_file(folder.join("tokenizer.json")).unwrap();
    assert!(read(&folder).unwrap_err().to_string().contains("tokenizer.json"));
    // Offsets that lie are found before anything is read.
    write_folder(&folder, &config, &weights);
    let path = folder.join(WEIGHTS_FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 4);
    std::fs::write(&path, bytes).unwrap();
    assert!(read(&folder).unwrap_err().to_string().contains("by the header's offsets"));
}

#[test]
fn a_vocabulary_within_gguf_becomes_the_tokenizer_that_it_was() {
    let root = tempfile::tempdir().unwrap();
    let mut checkpoint = tiny_llama(root.path());
    // Eleven letters, a merge, a word that ends a document, and numbers without a token.
    let mut vocab: serde_json::Map<String, Value> =
        ('a'..='k').zip(0..).map(|(c, id)| (c.to_string(), id.into())).collect();
    vocab.insert("ab".to_owned(), 11.into());
    vocab.insert("\u{120}".to_owned(), 12.into());
    let end = json!({
        "id": 13, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    });
    let tokenizer =
        foretrain_edge::gguf::byte_level_bpe(&Value::Object(vocab), &json!([["a", "b"]]), true, &json!([end]))
            .to_string();
    std::fs::write(checkpoint.tokenizer_json.as_ref().unwrap(), &tokenizer).unwrap();
    checkpoint.card.name = "vocabulary".to_owned();
    let folder = root.path().join("package");
    let target = TargetPreset::find("cpu-x86-64").unwrap().with_scheme(QuantScheme::F32);
    export_package(&checkpoint, &target, &folder, None, unwatched!()).unwrap();
    // Alone, the file has only its own vocabulary.
    let alone = root.path().join("alone.gguf");
    std::fs::copy(folder.join("model.gguf"), &alone).unwrap();
    let found = read(&alone).unwrap();
    assert_same(&found.weights, &checkpoint.weights);
    let found: tokenizers::Tokenizer = tokenizers::Tokenizer::from_file(found.tokenizer_json.unwrap()).unwrap();
    let meant = tokenizers::Tokenizer::from_bytes(tokenizer.as_bytes()).unwrap();
    for text in ["abba", "a b ab", "abk<|endoftext|>ab", "kab ba"] {
        let ids = |tokenizer: &tokenizers::Tokenizer| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        assert_eq!(ids(&found), ids(&meant), "{text}");
    }
    assert_eq!(found.token_to_id("<|endoftext|>"), Some(13));
    assert_eq!(found.get_vocab_size(true), meant.get_vocab_size(true));
}
