//! Any language model: tokens in, hidden states and logits out, over a cache.

use std::path::PathBuf;

use super::attention::LayerCache;
use super::config::TextConfig;
use super::finite::finite;
use super::gpt2::Gpt2;
use super::llama::Llama;
use crate::EdgeError;
use crate::weights::{Matrix, Weights};

/// Tokens that pass through the layers together: enough that unpacking a weight for them costs little each, few enough
/// that what lies between two layers of a 7B model takes some ten megabytes.
const TOKENS_AT_ONCE: usize = 256;

/// Everything computed for the tokens so far.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    pub(super) layers: Vec<LayerCache>,
    pub(super) num_positions: usize,
}

impl Cache {
    /// Tokens so far.
    pub(crate) fn num_positions(&self) -> usize {
        self.num_positions
    }

    /// Bytes of all keys and values.
    pub(crate) fn num_bytes(&self) -> usize {
        self.layers.iter().map(LayerCache::num_bytes).sum()
    }
}

/// A loaded language model.
#[derive(Debug)]
pub(crate) struct LanguageModel {
    network: Network,
    vocab_size: usize,
    max_positions: usize,
    end_token: Option<u32>,
    /// The file, for errors.
    weights_path: PathBuf,
}

#[derive(Debug)]
enum Network {
    Gpt2(Gpt2),
    Llama(Llama),
}

impl LanguageModel {
    /// Errors: [`EdgeError::MissingTensor`], [`EdgeError::Tensor`].
    pub(crate) fn load(config: &TextConfig, weights: &Weights) -> Result<Self, EdgeError> {
        let weights_path = weights.path().to_owned();
        Ok(match config {
            TextConfig::Gpt2(config) => Self {
                network: Network::Gpt2(Gpt2::load(config, weights)?),
                vocab_size: config.vocab_size,
                max_positions: config.n_positions,
                end_token: config.eos_token_id,
                weights_path,
            },
            TextConfig::Llama(config) => Self {
                network: Network::Llama(Llama::load(config, weights)?),
                vocab_size: config.vocab_size,
                max_positions: config.max_position_embeddings,
                end_token: config.eos_token_id,
                weights_path,
            },
        })
    }

    /// Distinct tokens.
    pub(crate) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Longest sequence.
    pub(crate) fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// The token that ends a text.
    pub(crate) fn end_token(&self) -> Option<u32> {
        self.end_token
    }

    /// A cache without tokens. It grows with the tokens read, not with the positions that a config claims.
    pub(crate) fn empty_cache(&self) -> Cache {
        let layers = match &self.network {
            Network::Gpt2(gpt2) => gpt2.empty_layers(),
            Network::Llama(llama) => llama.empty_layers(),
        };
        Cache { layers, num_positions: 0 }
    }

    /// Appends `tokens` (n) to `cache`; returns their hidden states after the last norm (n, width).
    ///
    /// Errors: [`EdgeError::Input`] for a token outside the vocabulary or more tokens than positions.
    pub(crate) fn forward(&self, tokens: &[u32], cache: &mut Cache) -> Result<Vec<f32>, EdgeError> {
        let num_positions = cache.num_positions + tokens.len();
        if num_positions > self.max_positions {
            let expected = format!("at most {} tokens", self.max_positions);
            return Err(EdgeError::input("running the model", expected, num_positions.to_string()));
        }
        let mut hidden = Vec::with_capacity(tokens.len() * self.width());
        for tokens in tokens.chunks(TOKENS_AT_ONCE) {
            hidden.extend(match &self.network {
                Network::Gpt2(gpt2) => gpt2.forward(tokens, cache),
                Network::Llama(llama) => llama.forward(tokens, cache),
            }?);
            cache.num_positions += tokens.len();
        }
        Ok(hidden)
    }

    /// Bytes of weights that one more token reads, besides its own row of the embedding.
    pub(crate) fn bytes_per_token(&self) -> usize {
        match &self.network {
            Network::Gpt2(gpt2) => gpt2.bytes_per_token(),
            Network::Llama(llama) => llama.bytes_per_token(),
        }
    }

    /// Logits (n, vocab_size) of hidden states (n, width).
    ///
    /// Errors: [`EdgeError::Format`] for weights that give NaN or infinity.
    pub(crate) fn logits(&self, hidden: &[f32]) -> Result<Vec<f32>, EdgeError> {
        let logits = match &self.network {
            Network::Gpt2(gpt2) => gpt2.head().apply(hidden),
            Network::Llama(llama) => llama.head().apply(hidden),
        };
        finite(logits, &self.weights_path)
    }

    /// Width of the hidden states.
    pub(crate) fn width(&self) -> usize {
        match &self.network {
            Network::Gpt2(gpt2) => gpt2.head().cols(),
            Network::Llama(llama) => llama.head().cols(),
        }
    }
}

/// The rows of `table` for `tokens` (n, width).
///
/// Errors: [`EdgeError::Input`] for a token that has no row.
pub(super) fn embed(table: &Matrix, tokens: &[u32]) -> Result<Vec<f32>, EdgeError> {
    let mut x = Vec::with_capacity(tokens.len() * table.cols());
    for &token in tokens {
        let row = usize::try_from(token).ok().and_then(|token| table.row(token));
        let row = row.ok_or_else(|| {
            let expected = format!("tokens below {}", table.rows());
            EdgeError::input("running the model", expected, format!("token {token}"))
        })?;
        x.extend_from_slice(&row);
    }
    Ok(x)
}
