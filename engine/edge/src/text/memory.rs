//! The tokens that a cache holds, so that a prompt which starts like the last one is read from where it differs.

use crate::EdgeError;
use crate::models::{Cache, LanguageModel};
use crate::runtime::Floats;

/// A cache with its tokens.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    pub(crate) tokens: Vec<u32>,
    pub(crate) cache: Cache,
}

impl Memory {
    pub(crate) fn empty(model: &LanguageModel) -> Self {
        Self { tokens: Vec::new(), cache: model.empty_cache() }
    }

    /// How many of `prompt`'s first tokens are here already; at most all but the last, whose logits have to be computed.
    pub(crate) fn common_prefix(&self, prompt: &[u32]) -> usize {
        let most = prompt.len().saturating_sub(1);
        self.tokens.iter().zip(prompt).take(most).take_while(|(a, b)| a == b).count()
    }

    /// Forgets all but the first `num_tokens`.
    pub(crate) fn truncate(&mut self, num_tokens: usize) {
        self.tokens.truncate(num_tokens);
        self.cache.truncate(num_tokens);
    }

    /// Reads `tokens` (at least one) behind what is here; returns the logits of what follows.
    ///
    /// Errors: as [`LanguageModel::forward`] and [`LanguageModel::logits`].
    pub(crate) fn read(&mut self, model: &LanguageModel, tokens: &[u32]) -> Result<Floats, EdgeError> {
        let hidden = model.forward(tokens, &mut self.cache)?;
        self.tokens.extend_from_slice(tokens);
        model.logits(&hidden[hidden.len().saturating_sub(model.width())..])
    }
}
