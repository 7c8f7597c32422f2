//! What blocks of a language model take on a GPU one at a time, where they are composed of candle's operations.

use super::composed::{Composition, composed};
use super::layers::{Example, example};
use super::planner::COMPOSED_LOGITS;
use crate::models::ModelConfig;
use crate::models::ops::{Activations, Kept};

/// Numbers of one sequence, all of the f32 type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ComposedBlocks {
    /// What one layer keeps for the way back: more than a pass without a graph holds of it.
    pub(crate) layer: u64,
    /// What its way back holds besides.
    pub(crate) on_the_way_back: u64,
    /// What the embedding and the head keep, logits apart.
    pub(crate) ends: u64,
    /// Logits.
    pub(crate) logits: u64,
    /// Times that as much as those that are there at once is held, with what becomes of them on the way to the loss and back.
    pub(crate) logit_copies: u64,
}

/// Blocks of `config` on one of so many sequences of `t` tokens; `None` for models of images.
pub(crate) fn composed_blocks(config: &ModelConfig, t: usize, num_sequences: u64) -> Option<ComposedBlocks> {
    let with_layers = |num_layers| with_layers(config, t, num_sequences, num_layers);
    let (one, two) = (with_layers(1)?, with_layers(2)?);
    let layer = two.kept.saturating_sub(one.kept);
    Some(ComposedBlocks {
        layer,
        on_the_way_back: one.on_the_way_back,
        ends: one.kept.saturating_sub(layer),
        logits: one.logits,
        logit_copies: COMPOSED_LOGITS,
    })
}

/// A sequence in the same network with so many layers.
fn with_layers(config: &ModelConfig, t: usize, micro_batch: u64, num_layers: usize) -> Option<Example> {
    let mut config = config.clone();
    match &mut config {
        ModelConfig::Gpt2(config) => config.n_layer = num_layers,
        ModelConfig::Llama(config) => config.num_hidden_layers = num_layers,
        ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => return None,
    }
    let fused = example(&config, Kept::Activations, t);
    let how = Composition { kept: Kept::Activations, activations: Activations::Floats, micro_batch };
    Some(composed(&config, t, fused, how))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::models::{DataShape, ModelPreset};

    #[test]
    fn layers_and_ends_are_the_whole() {
        for preset in [ModelPreset::Gpt2_124M, ModelPreset::Llama1100M] {
            let config = preset.config(DataShape::Text { vocab_size: 1000 }).unwrap();
            let blocks = composed_blocks(&config, 64, 1).unwrap();
            let how = Composition { kept: Kept::Activations, activations: Activations::Floats, micro_batch: 1 };
            let whole = composed(&config, 64, example(&config, Kept::Activations, 64), how);
            let num_layers = match &config {
                ModelConfig::Gpt2(config) => config.n_layer,
                ModelConfig::Llama(config) => config.num_hidden_layers,
                other => panic!("expected a language model, found {other:?}"),
            };
            assert_eq!(whole.kept, blocks.ends + num_layers as u64 * blocks.layer, "{preset:?}");
            assert!(blocks.ends < blocks.layer && blocks.logits == 64 * 1000, "{blocks:?}");
        }
        let images = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };
        assert_eq!(composed_blocks(&ModelPreset::Mlp.config(images).unwrap(), 64, 1), None);
    }
}
