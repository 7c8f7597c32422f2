//! Growing a transformer: the weights of a network of n blocks become the first weights of one of 2n.
//!
//! A deep network's blocks resemble each other, so those of a shallow one, which costs half as much to train, predict
//! them. Sources: Gong et al. 2019, "Efficient training of BERT by progressively stacking" (ICML, PMLR 97); Du et al.
//! 2024, "Stacking your transformers", arXiv 2405.15319.

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::{ModelConfig, ModelError, Network, Params, initial_params};

/// Where the new blocks stand among those of the shallow network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlockOrder {
    /// The whole stack, then the new ones: 0 1 2, 0 1 2.
    Stacked,
    /// A new one after each: 0 0, 1 1, 2 2.
    Interleaved,
}

/// What the new blocks hold at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NewBlocks {
    /// Copies of the shallow network's blocks.
    Copied,
    /// Draws of the deep network's initial distributions: the control that copies must beat.
    Random,
}

/// How a network of n blocks becomes one of 2n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Growth {
    /// Where the new blocks stand.
    pub order: BlockOrder,
    /// What they hold at first.
    pub new_blocks: NewBlocks,
}

impl BlockOrder {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stacked, Self::Interleaved];

    /// Name to type and to show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Stacked => "stacked",
            Self::Interleaved => "interleaved",
        }
    }

    /// The order called `label`; `None` when there is no such one.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.label() == label)
    }

    /// The shallow network's block that stands behind block `index` of the deep one, and whether it is that block
    /// itself rather than a new one. `num_blocks`: of the shallow network, at least 1.
    fn origin(self, index: usize, num_blocks: usize) -> (usize, bool) {
        match self {
            Self::Stacked => (index % num_blocks, index < num_blocks),
            Self::Interleaved => (index / 2, index.is_multiple_of(2)),
        }
    }
}

impl Growth {
    /// The first weights of `deep`, a copy, from the `weights` of `shallow`, which has half as many blocks and is the
    /// same otherwise. Embeddings, head and the shallow network's own blocks stay what they are; `seed` draws new
    /// blocks that are random.
    ///
    /// Errors: [`ModelError::Config`] for networks that are not half and whole of each other;
    /// [`ModelError::MissingTensor`] for weights of another network.
    pub fn grown(
        self,
        (shallow, deep): (&Network, &Network),
        weights: &Params,
        (seed, device): (u64, &Device),
    ) -> Result<Params, ModelError> {
        let num_blocks = check_halves(shallow.config(), deep.config())?;
        let (mut grown, _) = initial_params(deep, seed, device)?;
        // The first and the last block are embedding and head; between them is one for each layer.
        let layers = |network: &Network| -> Vec<String> {
            let names = network.blocks().iter().map(|block| block.name().to_owned());
            names.skip(1).take(network.blocks().len().saturating_sub(2)).collect()
        };
        let (shallow_layers, deep_layers) = (layers(shallow), layers(deep));
        let in_layer = |name: &str| shallow_layers.iter().any(|layer| part_of(name, layer).is_some());
        for (name, tensor) in weights.iter().filter(|(name, _)| !in_layer(name)) {
            grown.insert(name, tensor.copy()?);
        }
        for (index, layer) in deep_layers.iter().enumerate() {
            let (origin, is_kept) = self.order.origin(index, num_blocks);
            if !is_kept && self.new_blocks == NewBlocks::Random {
                continue;
            }
            let Some(origin) = shallow_layers.get(origin) else { continue };
            for (part, tensor) in weights.iter().filter_map(|(name, tensor)| Some((part_of(name, origin)?, tensor))) {
                grown.insert(format!("{layer}.{part}"), tensor.copy()?);
            }
        }
        check_shapes(deep, &grown)?;
        Ok(grown)
    }
}

/// What follows the block's name in the name of one of its tensors.
fn part_of<'n>(name: &'n str, block: &str) -> Option<&'n str> {
    name.strip_prefix(block)?.strip_prefix('.')
}

/// Blocks of the shallow network. Errors: [`ModelError::Config`].
fn check_halves(shallow: &ModelConfig, deep: &ModelConfig) -> Result<usize, ModelError> {
    match shallow.num_blocks() {
        Some(num_blocks) if num_blocks > 0 && shallow.with_num_blocks(2 * num_blocks).as_ref() == Some(deep) => {
            Ok(num_blocks)
        }
        Some(_) | None => Err(ModelError::Config {
            what: format!(
                "growing needs two transformers that are equal but for one having half the other's blocks, found \
                 {shallow:?} and {deep:?}"
            ),
        }),
    }
}

/// Errors: [`ModelError::MissingTensor`], [`ModelError::Shape`], and [`ModelError::Config`] for a tensor too many.
fn check_shapes(network: &Network, params: &Params) -> Result<(), ModelError> {
    let specs = network.specs();
    for spec in &specs {
        let found = params.get(&spec.name)?.dims();
        if found != spec.shape {
            let (name, expected, found) = (spec.name.clone(), spec.shape.clone(), found.to_vec());
            return Err(ModelError::Shape { name, expected, found });
        }
    }
    if params.len() != specs.len() {
        let what = format!("growing: expected {} tensors, found {}", specs.len(), params.len());
        return Err(ModelError::Config { what });
    }
    Ok(())
}

impl ModelConfig {
    /// Transformer blocks; `None` for other networks.
    #[must_use]
    pub fn num_blocks(&self) -> Option<usize> {
        match self {
            Self::Gpt2(config) => Some(config.n_layer),
            Self::Llama(config) => Some(config.num_hidden_layers),
            Self::Mlp(_) | Self::Cnn(_) | Self::ResNet(_) => None,
        }
    }

    /// The same transformer with so many blocks; `None` for other networks.
    #[must_use]
    pub fn with_num_blocks(&self, num_blocks: usize) -> Option<Self> {
        match self.clone() {
            Self::Gpt2(config) => Some(Self::Gpt2(super::Gpt2Config { n_layer: num_blocks, ..config })),
            Self::Llama(config) => Some(Self::Llama(super::LlamaConfig { num_hidden_layers: num_blocks, ..config })),
            Self::Mlp(_) | Self::Cnn(_) | Self::ResNet(_) => None,
        }
    }

    /// The same transformer as wide as this, with so many heads, each with keys and values of its own; the feed-forward
    /// part gets narrower or wider in proportion. `None` for other networks.
    #[must_use]
    pub fn with_width(&self, width: usize, num_heads: usize) -> Option<Self> {
        match self.clone() {
            Self::Gpt2(config) => Some(Self::Gpt2(super::Gpt2Config { n_embd: width, n_head: num_heads, ..config })),
            Self::Llama(config) => Some(Self::Llama(super::LlamaConfig {
                hidden_size: width,
                intermediate_size: (config.intermediate_size * width / config.hidden_size.max(1)).max(1),
                num_attention_heads: num_heads,
                num_key_value_heads: num_heads,
                ..config
            })),
            Self::Mlp(_) | Self::Cnn(_) | Self::ResNet(_) => None,
        }
    }
}

#[cfg(test)]
#[path = "growth_tests.rs"]
mod tests;
