//! Generation: prompt, then one token at a time.

use std::time::Instant;

use tokenizers::{Encoding, Tokenizer};

use super::answer::{Answer, Finish, Step};
use super::guard::guarded;
use super::memory::Memory;
use super::options::GenerateOptions;
use crate::EdgeError;
use crate::models::LanguageModel;
use crate::runtime::Floats;

/// A continued prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// The new text, without the prompt.
    pub text: String,
    /// New tokens.
    pub num_tokens: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were in the cache already.
    pub cached_tokens: usize,
    /// Why it ended.
    pub finish: Finish,
    /// Time to read the prompt and have the first logits, milliseconds.
    pub prompt_ms: f64,
    /// Time for all new tokens, milliseconds.
    pub decode_ms: f64,
}

/// A continuation that goes on when asked to.
#[derive(Debug)]
pub(crate) struct Generator<'m> {
    model: &'m LanguageModel,
    memory: Memory,
    answer: Answer<'m>,
    logits: Floats,
    /// The last token, which is read when the next one is asked for.
    pending: Option<u32>,
    prompt_tokens: usize,
    cached_tokens: usize,
}

impl<'m> Generator<'m> {
    /// Reads `prompt`, as far as `memory` does not hold it. Of a prompt longer than the model's positions only the last
    /// half of so many tokens counts, so that the next have room.
    ///
    /// Errors: [`EdgeError::Input`] for an empty prompt or bad options; [`EdgeError::Format`] for damaged weights.
    pub(crate) fn start(
        model: &'m LanguageModel,
        tokenizer: &'m Tokenizer,
        mut memory: Memory,
        prompt: Vec<u32>,
        options: &GenerateOptions,
    ) -> Result<Self, EdgeError> {
        options.check()?;
        if prompt.is_empty() {
            return Err(EdgeError::input("continuing a prompt", "a prompt of at least one known token", "none"));
        }
        let seen = last_half(&prompt, model.max_positions());
        let cached_tokens = memory.common_prefix(seen);
        memory.truncate(cached_tokens);
        let logits = memory.read(model, seen.get(cached_tokens..).unwrap_or_default())?;
        let prompt_tokens = prompt.len();
        let answer = Answer::new(tokenizer, model.end_tokens(), prompt, options);
        Ok(Self { model, memory, answer, logits, pending: None, prompt_tokens, cached_tokens })
    }

    /// The next step; when the text has outgrown the model's positions, its older half is forgotten.
    ///
    /// Errors: [`EdgeError::Tokenizer`]; [`EdgeError::Format`] for damaged weights.
    pub(crate) fn step(&mut self) -> Result<(String, Option<Finish>), EdgeError> {
        if let Some(token) = self.pending.take() {
            let most = self.model.max_positions();
            self.logits = if self.memory.tokens.len() < most {
                self.memory.read(self.model, &[token])?
            } else {
                self.memory.truncate(0);
                self.memory.read(self.model, last_half(self.answer.history(), most))?
            };
        }
        let Step { text, token, finish } = self.answer.step(&self.logits)?;
        self.pending = token;
        Ok((text, finish))
    }

    /// Ends it before its end; returns what was held back.
    ///
    /// Errors: [`EdgeError::Tokenizer`].
    pub(crate) fn cancel(&mut self) -> Result<String, EdgeError> {
        Ok(self.answer.finish(Finish::Cancelled, String::new())?.text)
    }

    /// New tokens so far.
    pub(crate) fn num_tokens(&self) -> usize {
        self.answer.num_tokens()
    }

    /// The memory for the next prompt.
    pub(crate) fn into_memory(self) -> Memory {
        self.memory
    }
}

/// All of `tokens` when they fit `most` positions, else as many of the last as fill half of them.
fn last_half(tokens: &[u32], most: usize) -> &[u32] {
    &tokens[num_passed_over(tokens.len(), most)..]
}

/// How many of `num_tokens` are passed over for `most` positions: they come first.
pub(crate) fn num_passed_over(num_tokens: usize, most: usize) -> usize {
    if num_tokens > most { num_tokens - most.div_ceil(2) } else { 0 }
}

/// Continues `prompt` and gives `on_text` each piece that may be shown, until it returns false. `memory` holds the text
/// afterwards; after an error it is empty.
///
/// Errors: as [`Generator::start`] and [`Generator::step`].
pub(crate) fn generate(
    model: &LanguageModel,
    tokenizer: &Tokenizer,
    memory: &mut Memory,
    prompt: Vec<u32>,
    options: &GenerateOptions,
    on_text: &mut dyn FnMut(&str) -> bool,
) -> Result<Generated, EdgeError> {
    let prompt_start = Instant::now();
    let own = std::mem::replace(memory, Memory::empty(model));
    let mut generator = Generator::start(model, tokenizer, own, prompt, options)?;
    let prompt_ms = milliseconds(prompt_start);
    let decode_start = Instant::now();
    let mut text = String::new();
    let finish = loop {
        let (piece, finish) = generator.step()?;
        text.push_str(&piece);
        let goes_on = on_text(&piece);
        if let Some(finish) = finish {
            break finish;
        }
        if !goes_on {
            let rest = generator.cancel()?;
            text.push_str(&rest);
            break Finish::Cancelled;
        }
    };
    let generated = Generated {
        text,
        num_tokens: generator.num_tokens(),
        prompt_tokens: generator.prompt_tokens,
        cached_tokens: generator.cached_tokens,
        finish,
        prompt_ms,
        decode_ms: milliseconds(decode_start),
    };
    *memory = generator.into_memory();
    Ok(generated)
}

/// The tokens of `text`, and where they are in it, in bytes; nothing is added around them.
pub(crate) fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Encoding, EdgeError> {
    guarded(|| tokenizer.encode(text, false))
        .map_err(|message| EdgeError::Tokenizer { tried: "encoding a text".to_owned(), message })
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
