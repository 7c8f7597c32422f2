//! Tokens to text as they come.

use tokenizers::Tokenizer;

use crate::EdgeError;

/// Turns tokens into text piece by piece. A token may be part of a character, and a decoder may treat the first token
/// of a text specially (a leading space), so pieces are differences of decoded windows.
#[derive(Debug)]
pub(super) struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// Where the decoded window starts.
    start: usize,
    /// Tokens whose text has been handed out.
    done: usize,
}

impl<'a> TextStream<'a> {
    /// A stream that continues `prompt`, whose text is not repeated.
    pub(super) fn new(tokenizer: &'a Tokenizer, prompt: &[u32]) -> Self {
        // A few tokens before are enough for the decoder to see that this is not the start of a text.
        let tokens = prompt[prompt.len().saturating_sub(4)..].to_vec();
        let done = tokens.len();
        Self { tokenizer, tokens, start: 0, done }
    }

    /// The text that `token` completes; empty while a character is incomplete.
    pub(super) fn push(&mut self, token: u32) -> Result<String, EdgeError> {
        self.tokens.push(token);
        self.take(false)
    }

    /// What is left, incomplete characters as U+FFFD.
    pub(super) fn finish(&mut self) -> Result<String, EdgeError> {
        self.take(true)
    }

    fn take(&mut self, is_last: bool) -> Result<String, EdgeError> {
        let before = self.decode(self.start, self.done)?;
        let now = self.decode(self.start, self.tokens.len())?;
        let is_incomplete = now.ends_with(char::REPLACEMENT_CHARACTER);
        // A character has at most 4 bytes: what is still incomplete after that is no character.
        let waits = is_incomplete && self.tokens.len() - self.done < 4;
        if (waits && !is_last) || self.done == self.tokens.len() {
            return Ok(String::new());
        }
        let piece = now.strip_prefix(&before).unwrap_or(&now).to_owned();
        self.start = self.done;
        self.done = self.tokens.len();
        Ok(piece)
    }

    fn decode(&self, start: usize, end: usize) -> Result<String, EdgeError> {
        let tokens = self.tokens.get(start..end).unwrap_or_default();
        self.tokenizer
            .decode(tokens, true)
            .map_err(|error| EdgeError::Tokenizer { tried: "decoding tokens".to_owned(), message: error.to_string() })
    }
}
