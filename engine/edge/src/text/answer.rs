//! One continuation in the making: which token comes next, what may be shown of it, and when it ends.

use tokenizers::Tokenizer;

use super::options::GenerateOptions;
use super::sampler::Sampler;
use super::stops::{Shown, StopFinder};
use super::stream::TextStream;
use crate::EdgeError;

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model said that it is over, or a stop string came.
    Stop,
    /// As many tokens as asked for, or as fit.
    Length,
    /// Whoever reads it has had enough.
    Cancelled,
}

/// A step of a continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// More text to show; empty while a character is incomplete or a stop string may have begun.
    pub(super) text: String,
    /// The token to go on from; `None` at the end.
    pub(super) token: Option<u32>,
    /// Why it ended.
    pub(super) finish: Option<Finish>,
}

/// A continuation that has read its prompt.
#[derive(Debug)]
pub(super) struct Answer<'m> {
    sampler: Sampler,
    stream: TextStream<'m>,
    stops: StopFinder,
    end_tokens: &'m [u32],
    /// The prompt and what came since.
    history: Vec<u32>,
    prompt_len: usize,
    max_tokens: usize,
}

impl<'m> Answer<'m> {
    pub(super) fn new(
        tokenizer: &'m Tokenizer,
        end_tokens: &'m [u32],
        prompt: Vec<u32>,
        options: &GenerateOptions,
    ) -> Self {
        Self {
            sampler: Sampler::new(options),
            stream: TextStream::new(tokenizer, &prompt),
            stops: StopFinder::new(&options.stop),
            end_tokens,
            prompt_len: prompt.len(),
            history: prompt,
            max_tokens: options.max_tokens,
        }
    }

    /// The prompt and all new tokens.
    pub(super) fn history(&self) -> &[u32] {
        &self.history
    }

    /// New tokens, the one that ends a text not counted.
    pub(super) fn num_tokens(&self) -> usize {
        self.history.len() - self.prompt_len
    }

    /// Goes on by a token, drawn from `logits` (vocab_size).
    ///
    /// Errors: [`EdgeError::Input`] for logits that are not finite; [`EdgeError::Tokenizer`].
    pub(super) fn step(&mut self, logits: &[f32]) -> Result<Step, EdgeError> {
        if self.max_tokens == 0 {
            return self.finish(Finish::Length, String::new());
        }
        let token = self.sampler.sample(logits, &self.history)?;
        if self.end_tokens.contains(&token) {
            return self.finish(Finish::Stop, String::new());
        }
        self.history.push(token);
        let piece = self.stream.push(token)?;
        match self.stops.push(&piece) {
            Shown::Last(text) => Ok(Step { text, token: None, finish: Some(Finish::Stop) }),
            Shown::More(text) if self.num_tokens() >= self.max_tokens => self.finish(Finish::Length, text),
            Shown::More(text) => Ok(Step { text, token: Some(token), finish: None }),
        }
    }

    /// Ends it: `text` and what was held back.
    pub(super) fn finish(&mut self, finish: Finish, mut text: String) -> Result<Step, EdgeError> {
        let rest = self.stream.finish()?;
        let finish = match self.stops.push(&rest) {
            Shown::Last(more) => {
                text.push_str(&more);
                Finish::Stop
            }
            Shown::More(more) => {
                text.push_str(&more);
                text.push_str(&self.stops.finish());
                finish
            }
        };
        Ok(Step { text, token: None, finish: Some(finish) })
    }
}
