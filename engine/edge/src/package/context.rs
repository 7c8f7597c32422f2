//! A text that a model has read, for going on from.

use std::path::Path;

use super::Model;
use super::prompt_cache;
use crate::EdgeError;
use crate::runtime::with_threads;
use crate::text::{GenerateOptions, Generated, Memory, generate};

/// What a model has read and written last. A prompt that starts in the same way is read only from where it differs.
#[derive(Debug, Clone)]
pub struct Context<'m> {
    model: &'m Model,
    memory: Memory,
}

impl<'m> Context<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        Self { model, memory: Memory::empty(model.network()) }
    }

    /// Whose context it is.
    #[must_use]
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// The tokens that it holds.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.memory.tokens
    }

    /// Continues `prompt` (tokens, as [`Model::prompt_tokens`] gives them). `on_text` gets each piece of new text (empty
    /// while a character is incomplete or a stop string may have begun) and returns false to end it. When the text outgrows
    /// the model's positions, its older half is forgotten.
    ///
    /// Errors: [`EdgeError::Input`] for an empty prompt or bad options; [`EdgeError::Tokenizer`]; [`EdgeError::Format`] for
    /// damaged weights, which give NaN or infinity. The context is empty after one.
    pub fn generate(
        &mut self,
        prompt: Vec<u32>,
        options: &GenerateOptions,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EdgeError> {
        let Self { model, memory } = self;
        with_threads(rayon::current_num_threads(), || {
            generate(model.network(), model.tokenizer(), memory, prompt, options, on_text)
        })
    }

    /// Writes what it holds to the file at `path`, under a temporary name first.
    ///
    /// Errors: [`EdgeError::Save`] with what the operating system says.
    pub fn save(&self, path: &Path) -> Result<(), EdgeError> {
        prompt_cache::save(path, &self.model.fingerprint(), &self.memory)
    }

    /// Takes what [`Context::save`] wrote.
    ///
    /// Errors: [`EdgeError::Read`]; [`EdgeError::Unsuited`] for another model's file and one of a model that keeps keys and
    /// values otherwise; [`EdgeError::Format`] for a damaged one. Nothing is allocated that the file's size does not justify.
    pub fn load(&mut self, path: &Path) -> Result<(), EdgeError> {
        self.memory = prompt_cache::load(path, &self.model.fingerprint(), self.model.network())?;
        Ok(())
    }
}
