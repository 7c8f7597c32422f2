//! Tiny checkpoints on disk, as a training session writes them.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use foretrain_engine::data::{DatasetSpec, SplitRecord, TokenizerSpec};
use foretrain_engine::export::{
    COMPLETE_MARKER, Checkpoint, ModelCard, Preprocessing, TOKENIZER_FILE, WEIGHTS_FILE, read_checkpoint, write_params,
};
use foretrain_engine::models::{
    Activation, CnnConfig, DataShape, GateActivation, Gpt2Config, LlamaConfig, MlpConfig, ModelConfig, Network, Params,
    ResNetConfig, TensorKind, initial_params,
};
use foretrain_engine::unwatched;
use serde_json::json;

/// Characters that the text fixtures know.
const CHARACTERS: &str = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,!?'-:;\n";

pub fn mlp() -> ModelConfig {
    let hidden_sizes = vec![48, 32];
    ModelConfig::Mlp(MlpConfig {
        in_channels: 1,
        image_size: (8, 8),
        hidden_sizes,
        num_classes: 5,
        activation: Activation::Gelu,
    })
}

pub fn cnn() -> ModelConfig {
    let channels = vec![8, 12];
    ModelConfig::Cnn(CnnConfig { in_channels: 1, image_size: (12, 12), channels, hidden_size: 20, num_classes: 4 })
}

pub fn resnet() -> ModelConfig {
    ModelConfig::ResNet(ResNetConfig {
        num_channels: 3,
        image_size: (12, 12),
        embedding_size: 8,
        hidden_sizes: vec![8, 16],
        depths: vec![1, 1],
        num_classes: 3,
    })
}

pub fn gpt2(n_embd: usize) -> ModelConfig {
    ModelConfig::Gpt2(Gpt2Config {
        vocab_size: CHARACTERS.chars().count(),
        n_positions: 24,
        n_embd,
        n_layer: 2,
        n_head: 4,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.1,
    })
}

pub fn llama(hidden_size: usize, tie_word_embeddings: bool) -> ModelConfig {
    ModelConfig::Llama(LlamaConfig {
        vocab_size: CHARACTERS.chars().count(),
        max_position_embeddings: 40,
        hidden_size,
        intermediate_size: hidden_size * 2,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        tie_word_embeddings,
        initializer_range: 0.1,
        hidden_act: GateActivation::Silu,
        sub_norms: false,
    })
}

pub fn bitnet(hidden_size: usize, hidden_act: GateActivation) -> ModelConfig {
    match llama(hidden_size, true) {
        ModelConfig::Llama(config) => ModelConfig::Llama(LlamaConfig { sub_norms: true, hidden_act, ..config }),
        other => other,
    }
}

/// One of each family, narrow and wide enough for whole TQ2_0 rows.
pub fn families() -> Vec<(&'static str, ModelConfig)> {
    vec![
        ("mlp", mlp()),
        ("cnn", cnn()),
        ("resnet", resnet()),
        ("gpt2, 64 wide", gpt2(64)),
        ("gpt2, 256 wide", gpt2(256)),
        ("llama, 64 wide, tied", llama(64, true)),
        ("llama, 256 wide", llama(256, false)),
        ("bitnet, 64 wide", bitnet(64, GateActivation::Relu2)),
        ("bitnet, 256 wide", bitnet(256, GateActivation::Silu)),
    ]
}

pub fn card(model: &ModelConfig) -> ModelCard {
    let network = Network::new(model).unwrap();
    let (data, preprocessing) = match model.data_shape() {
        DataShape::Images { channels, .. } => (DatasetSpec::Glyphs, images(channels)),
        DataShape::Text { .. } => {
            (DatasetSpec::Text { path: "text".into(), tokenizer: TokenizerSpec::Char }, Preprocessing::Text)
        }
    };
    ModelCard {
        name: "fixture".to_owned(),
        model: model.clone(),
        num_params: network.num_params() as u64,
        data,
        dataset_name: "A fixture".to_owned(),
        preprocessing,
        split: SplitRecord { rule: "none".to_owned(), num_train: 9, num_validation: 3, num_test: 0 },
        sequence_length: model.max_positions().map(|positions| positions / 2),
        tier: "vanilla".to_owned(),
        recipe: None,
        step: 20,
        num_steps: 20,
        trained_for: None,
        validation_loss: Some(1.25),
        validation_accuracy: None,
        version: "0.0.0-fixture".to_owned(),
    }
}

fn images(channels: usize) -> Preprocessing {
    let classes = ["one", "two", "three", "four", "five"].map(str::to_owned).to_vec();
    Preprocessing::Images { mean: vec![0.3; channels], std: vec![0.4; channels], classes }
}

/// Random weights. Biases, norms and running statistics are not left at 0 and 1, where a mix-up would not show.
pub fn weights(model: &ModelConfig) -> Params {
    let network = Network::new(model).unwrap();
    let (weights, buffers) = initial_params(&network, 7, &Device::Cpu).unwrap();
    let mut all: Params = weights.into_iter().chain(buffers).collect();
    for (index, spec) in network.specs().iter().enumerate() {
        let shift = |i: usize| ((i * 7 + index * 3) % 11) as f32 / 40.0;
        if matches!(spec.kind, TensorKind::Vector | TensorKind::Buffer) {
            let shifts: Vec<f32> = (0..spec.num_elements()).map(shift).collect();
            let shifts = Tensor::from_vec(shifts, spec.shape.as_slice(), &Device::Cpu).unwrap();
            all.insert(&spec.name, (all.get(&spec.name).unwrap() + shifts).unwrap());
        }
    }
    all
}

/// A complete checkpoint folder.
pub fn write_checkpoint(folder: &Path, card: &ModelCard, weights: &Params) {
    std::fs::create_dir_all(folder).unwrap();
    card.write(folder).unwrap();
    write_params(&folder.join(WEIGHTS_FILE), weights, &BTreeMap::new(), unwatched!()).unwrap();
    if card.is_language_model() {
        std::fs::write(folder.join(TOKENIZER_FILE), character_tokenizer()).unwrap();
    }
    std::fs::write(folder.join(COMPLETE_MARKER), "").unwrap();
}

pub fn checkpoint(folder: &Path, model: &ModelConfig) -> Checkpoint {
    write_checkpoint(folder, &card(model), &weights(model));
    read_checkpoint(folder).unwrap()
}

/// One token per character.
pub fn character_tokenizer() -> String {
    let vocab: BTreeMap<String, usize> = CHARACTERS.chars().enumerate().map(|(id, c)| (c.to_string(), id)).collect();
    tokenizer(
        &json!({ "type": "Split", "pattern": { "Regex": "" }, "behavior": "Isolated", "invert": false }),
        &json!({ "type": "WordLevel", "vocab": vocab, "unk_token": "?" }),
    )
}

/// GPT-2's kind: bytes in printable letters, one merge, and the token `end`, which ends documents.
pub fn byte_level_tokenizer(end: &str) -> String {
    let mut vocab: BTreeMap<String, usize> =
        ('!'..='~').take(CHARACTERS.chars().count() - 3).enumerate().map(|(id, c)| (c.to_string(), id)).collect();
    for text in ["Ġ", "AB", end] {
        vocab.insert(text.to_owned(), vocab.len());
    }
    tokenizer(
        &json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true }),
        &json!({ "type": "BPE", "vocab": vocab, "merges": ["A B"], "dropout": null, "unk_token": null,
                 "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                 "byte_fallback": false, "ignore_merges": false }),
    )
}

fn tokenizer(pre_tokenizer: &serde_json::Value, model: &serde_json::Value) -> String {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": { "type": "Fuse" }, "model": model,
    })
    .to_string()
}

/// Names below a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
