//! Any language model: tokens in, hidden states and logits out, over a cache.

use std::ops::Range;
use std::path::PathBuf;

use super::attention::Heads;
use super::cache::{CacheFormat, LayerCache};
use super::config::TextConfig;
use super::finite::finite;
use super::gpt2::Gpt2;
use super::llama::Llama;
use crate::EdgeError;
use crate::runtime::Floats;
use crate::weights::{Matrix, Weights};

/// Tokens that pass through the layers together, at most: enough that unpacking a weight for them costs little each.
const TOKENS_AT_ONCE: usize = 256;
/// Numbers of the widest of what lies between two matrices, of all these tokens: 9 MiB, and there are several of them.
const NUMBERS_AT_ONCE: usize = 9 << 18;
/// Inputs that the widest kernel multiplies together.
const TILE: usize = 32;

/// Everything computed for the tokens so far.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    pub(super) layers: Vec<LayerCache>,
    pub(super) num_positions: usize,
}

impl Cache {
    /// Bytes of all keys and values.
    pub(crate) fn num_bytes(&self) -> usize {
        self.layers.iter().map(LayerCache::num_bytes).sum()
    }

    /// Forgets all but the first `num_positions` tokens.
    pub(crate) fn truncate(&mut self, num_positions: usize) {
        self.layers.iter_mut().for_each(|layer| layer.truncate(num_positions));
        self.num_positions = self.num_positions.min(num_positions);
    }

    /// Everything kept, as bytes that [`LanguageModel::restored_cache`] takes.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.layers.iter().flat_map(LayerCache::parts)
    }
}

/// Tokens of one sequence that pass through the layers together with other sequences'.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    /// At least one.
    pub(crate) tokens: &'a [u32],
    /// What was computed for those before them.
    pub(crate) cache: &'a mut Cache,
}

impl Part<'_> {
    /// Where the tokens stand.
    pub(super) fn positions(&self) -> Range<usize> {
        self.cache.num_positions..self.cache.num_positions + self.tokens.len()
    }

    /// Appends the rows of `keys` and `values`, all parts' after each other, to the caches of layer `layer`; returns these
    /// with their numbers of rows.
    pub(super) fn push<'a>(
        parts: &'a mut [Self],
        layer: usize,
        heads: Heads,
        keys: &[f32],
        values: &[f32],
    ) -> Vec<(&'a LayerCache, usize)> {
        let width = heads.kv_heads * heads.head_dim;
        let mut start = 0;
        let mut caches = Vec::with_capacity(parts.len());
        for part in parts {
            let rows = start..start + part.tokens.len() * width;
            start = rows.end;
            let Some(cache) = part.cache.layers.get_mut(layer) else { continue };
            cache.push(heads, keys.get(rows.clone()).unwrap_or_default(), values.get(rows).unwrap_or_default());
            caches.push((&*cache, part.tokens.len()));
        }
        caches
    }
}

/// A loaded language model.
#[derive(Debug)]
pub(crate) struct LanguageModel {
    network: Network,
    vocab_size: usize,
    max_positions: usize,
    tokens_at_once: usize,
    end_tokens: Vec<u32>,
    cache_format: CacheFormat,
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
                tokens_at_once: tokens_at_once(config.inner()),
                end_tokens: config.end_tokens(),
                cache_format: CacheFormat::default(),
                weights_path,
            },
            TextConfig::Llama(config) => Self {
                network: Network::Llama(Llama::load(config, weights)?),
                vocab_size: config.vocab_size,
                max_positions: config.max_position_embeddings,
                tokens_at_once: tokens_at_once(config.intermediate_size),
                end_tokens: config.end_tokens(),
                cache_format: CacheFormat::default(),
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

    /// Tokens that pass through the layers together, at most.
    pub(crate) fn tokens_at_once(&self) -> usize {
        self.tokens_at_once
    }

    /// The tokens that end a text.
    pub(crate) fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// The same model with further tokens that end a text.
    pub(crate) fn with_end_tokens(mut self, tokens: impl IntoIterator<Item = u32>) -> Self {
        self.end_tokens.extend(tokens);
        self
    }

    /// The same model, whose caches from now on are kept so.
    pub(crate) fn with_cache_format(self, cache_format: CacheFormat) -> Self {
        Self { cache_format, ..self }
    }

    /// A cache without tokens. It grows with the tokens read, not with the positions that a config claims.
    pub(crate) fn empty_cache(&self) -> Cache {
        let layers = match &self.network {
            Network::Gpt2(gpt2) => gpt2.empty_layers(self.cache_format),
            Network::Llama(llama) => llama.empty_layers(self.cache_format),
        };
        Cache { layers, num_positions: 0 }
    }

    /// Bytes of a cache of `num_positions` tokens; `None` for more than can be counted.
    pub(crate) fn cache_bytes(&self, num_positions: usize) -> Option<usize> {
        let layers = self.empty_cache().layers;
        layers.iter().try_fold(0_usize, |sum, layer| sum.checked_add(layer.bytes_of(self.heads(), num_positions)?))
    }

    /// The cache of `num_positions` tokens whose [`Cache::parts`] are `bytes`; `None` for another number of bytes.
    pub(crate) fn restored_cache(&self, num_positions: usize, bytes: &[u8]) -> Option<Cache> {
        if self.cache_bytes(num_positions) != Some(bytes.len()) {
            return None;
        }
        let mut left = bytes;
        let mut cache = self.empty_cache();
        for layer in &mut cache.layers {
            let (own, others) = left.split_at_checked(layer.bytes_of(self.heads(), num_positions)?)?;
            *layer = layer.restored(self.heads(), num_positions, own);
            left = others;
        }
        cache.num_positions = num_positions;
        Some(cache)
    }

    /// Appends `tokens` (n) to `cache`; returns their hidden states after the last norm (n, width).
    ///
    /// Errors: [`EdgeError::Input`] for a token outside the vocabulary or more tokens than positions.
    pub(crate) fn forward(&self, tokens: &[u32], cache: &mut Cache) -> Result<Vec<f32>, EdgeError> {
        self.check_positions(cache.num_positions + tokens.len())?;
        let mut hidden = Vec::with_capacity(tokens.len() * self.width());
        for tokens in tokens.chunks(self.tokens_at_once) {
            hidden.extend_from_slice(&self.forward_together(&mut [Part { tokens, cache: &mut *cache }])?);
        }
        Ok(hidden)
    }

    /// Appends each part's tokens to its cache, reading the weights once for all; returns their hidden states after the
    /// last norm, all parts' (n, width) after each other. The caller keeps the tokens of all within [`Self::tokens_at_once`].
    ///
    /// Errors: as [`LanguageModel::forward`]; then no cache has changed.
    pub(crate) fn forward_together(&self, parts: &mut [Part<'_>]) -> Result<Floats, EdgeError> {
        for part in &*parts {
            self.check_positions(part.positions().end)?;
        }
        let hidden = match &self.network {
            Network::Gpt2(gpt2) => gpt2.forward(parts),
            Network::Llama(llama) => llama.forward(parts),
        }?;
        for part in parts {
            part.cache.num_positions += part.tokens.len();
        }
        Ok(hidden)
    }

    fn check_positions(&self, num_positions: usize) -> Result<(), EdgeError> {
        if num_positions > self.max_positions {
            let expected = format!("at most {} tokens", self.max_positions);
            return Err(EdgeError::input("running the model", expected, num_positions.to_string()));
        }
        Ok(())
    }

    fn heads(&self) -> Heads {
        match &self.network {
            Network::Gpt2(gpt2) => gpt2.heads(),
            Network::Llama(llama) => llama.heads(),
        }
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
    pub(crate) fn logits(&self, hidden: &[f32]) -> Result<Floats, EdgeError> {
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

/// How many tokens pass together through layers whose widest numbers of a token are `width`: whole tiles, so that what lies
/// between two layers of a model of any size takes some tens of megabytes.
fn tokens_at_once(width: usize) -> usize {
    (NUMBERS_AT_ONCE / width.max(1) / TILE * TILE).clamp(TILE, TOKENS_AT_ONCE)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_models_read_fewer_tokens_at_once() {
        assert_eq!([0, 48, 5632, 6912].map(tokens_at_once), [256; 4]);
        assert_eq!([11008, 28672, usize::MAX].map(tokens_at_once), [192, 64, 32]);
    }
}
