//! A checkpoint for the unit tests of this room.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use candle_core::Device;

use super::{Checkpoint, ModelCard, Preprocessing};
use crate::data::{DatasetSpec, SplitRecord};
use crate::models::{LlamaConfig, ModelConfig, Network, initial_params};

/// A Llama of two layers with random weights; its tokenizer lies in `folder`.
pub(crate) fn tiny_llama(folder: &Path) -> Checkpoint {
    let model = ModelConfig::Llama(LlamaConfig {
        vocab_size: 20,
        max_position_embeddings: 32,
        hidden_size: 64,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        tie_word_embeddings: false,
        // Large, so that attention is far from even and positions matter.
        initializer_range: 0.4,
    });
    let (weights, _) = initial_params(&Network::new(&model).unwrap(), 3, &Device::Cpu).unwrap();
    let vocab: serde_json::Map<String, serde_json::Value> =
        ('a'..='t').enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
    let tokenizer = folder.join("tokenizer.json");
    let words = serde_json::json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "a" },
    });
    std::fs::write(&tokenizer, words.to_string()).unwrap();
    let card = ModelCard {
        name: "tiny".to_owned(),
        model,
        num_params: 0,
        data: DatasetSpec::Grammar,
        dataset_name: "none".to_owned(),
        preprocessing: Preprocessing::Text,
        split: SplitRecord { rule: "none".to_owned(), num_train: 0, num_validation: 0, num_test: 0 },
        sequence_length: None,
        tier: "vanilla".to_owned(),
        step: 0,
        num_steps: 0,
        trained_for: None,
        validation_loss: None,
        validation_accuracy: None,
        version: "0".to_owned(),
    };
    Checkpoint { folder: folder.to_owned(), card, weights, tokenizer_json: Some(tokenizer) }
}
