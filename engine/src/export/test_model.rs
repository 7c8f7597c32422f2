//! Checkpoints for the unit tests of this room.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use candle_core::{Device, Tensor};

use super::{Checkpoint, ModelCard, Preprocessing};
use crate::data::{DatasetSpec, SplitRecord};
use crate::models::{
    DataShape, GateActivation, LlamaConfig, ModelConfig, Network, Params, ResNetConfig, TensorKind, initial_params,
};

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
        hidden_act: GateActivation::Silu,
        sub_norms: false,
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
    let card = card(model, Preprocessing::Text);
    Checkpoint { folder: folder.to_owned(), card, weights, tokenizer_json: Some(tokenizer) }
}

/// [`tiny_llama`] with sub-norms, which are not at 1, and a squared ReLU.
pub(crate) fn tiny_bitnet(folder: &Path) -> Checkpoint {
    let mut checkpoint = tiny_llama(folder);
    let ModelConfig::Llama(config) = &mut checkpoint.card.model else { panic!("a llama") };
    (config.sub_norms, config.hidden_act, config.tie_word_embeddings) = (true, GateActivation::Relu2, true);
    let network = Network::new(&checkpoint.card.model).unwrap();
    let (weights, _) = initial_params(&network, 3, &Device::Cpu).unwrap();
    let shifted = |name: &str, weight: &Tensor| {
        if !name.ends_with("sub_norm.weight") {
            return candle_core::Result::Ok(weight.clone());
        }
        let shifts: Vec<f32> = (0..weight.elem_count()).map(|i| (i as f32).sin() * 0.2).collect();
        weight + Tensor::from_vec(shifts, weight.dims(), &Device::Cpu)?
    };
    checkpoint.weights = weights.map(shifted).unwrap();
    checkpoint
}

/// A residual network for color images of 9 by 8 with random weights, norms and statistics.
pub(crate) fn tiny_resnet() -> Checkpoint {
    tiny_vision(ModelConfig::ResNet(ResNetConfig {
        num_channels: 3,
        image_size: (9, 8),
        embedding_size: 8,
        hidden_sizes: vec![8, 12],
        depths: vec![1, 2],
        num_classes: 3,
    }))
}

/// An image model with three classes and random weights; vectors and buffers are not at 0 and 1, where a mix-up would
/// not show.
pub(crate) fn tiny_vision(model: ModelConfig) -> Checkpoint {
    let network = Network::new(&model).unwrap();
    let (weights, buffers) = initial_params(&network, 3, &Device::Cpu).unwrap();
    let mut weights: Params = weights.into_iter().chain(buffers).collect();
    for (number, spec) in network.specs().iter().enumerate() {
        if matches!(spec.kind, TensorKind::Vector | TensorKind::Buffer) {
            let shifts: Vec<f32> = (0..spec.num_elements()).map(|i| ((i * 7 + number) % 11) as f32 / 20.0).collect();
            let shifts = Tensor::from_vec(shifts, spec.shape.as_slice(), &Device::Cpu).unwrap();
            weights.insert(&spec.name, (weights.get(&spec.name).unwrap() + shifts).unwrap());
        }
    }
    let DataShape::Images { channels, .. } = model.data_shape() else { panic!("an image model") };
    let (mean, std) = ([0.3, 0.4, 0.5], [0.2, 0.25, 0.3]);
    let classes = ["one", "two", "three"].map(str::to_owned).to_vec();
    let preprocessing =
        Preprocessing::Images { mean: mean[..channels].to_vec(), std: std[..channels].to_vec(), classes };
    Checkpoint { folder: "none".into(), card: card(model, preprocessing), weights, tokenizer_json: None }
}

fn card(model: ModelConfig, preprocessing: Preprocessing) -> ModelCard {
    ModelCard {
        name: "tiny".to_owned(),
        model,
        num_params: 0,
        data: DatasetSpec::Grammar,
        dataset_name: "none".to_owned(),
        preprocessing,
        split: SplitRecord { rule: "none".to_owned(), num_train: 0, num_validation: 0, num_test: 0 },
        sequence_length: None,
        tier: "vanilla".to_owned(),
        recipe: None,
        step: 0,
        num_steps: 0,
        trained_for: None,
        validation_loss: None,
        validation_accuracy: None,
        version: "0".to_owned(),
    }
}
