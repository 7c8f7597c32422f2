//! Tokens to text as they come.

use tokenizers::Tokenizer;

use super::guard::guarded;
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
        let text = guarded(|| self.tokenizer.decode(tokens, true));
        text.map_err(|message| EdgeError::Tokenizer { tried: "decoding tokens".to_owned(), message })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokenizers::decoders::byte_level::ByteLevel;
    use tokenizers::models::bpe::BPE;

    use super::*;

    /// One token per byte, as GPT-2's tokenizer without merges.
    fn byte_tokenizer() -> Tokenizer {
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let vocab: Vec<(String, u32)> = alphabet.iter().map(char::to_string).zip(0..).collect();
        let vocab: [(String, u32); 256] = vocab.try_into().unwrap();
        let bpe = BPE::builder().vocab_and_merges(vocab, vec![]).build().unwrap();
        let mut tokenizer = Tokenizer::new(bpe);
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, false)));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        tokenizer
    }

    #[test]
    fn characters_come_whole() {
        let tokenizer = byte_tokenizer();
        let text = "né → 🦀!";
        let tokens = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        assert_eq!(tokens.len(), text.len());
        let mut stream = TextStream::new(&tokenizer, &[]);
        let pieces: Vec<String> = tokens.iter().map(|&token| stream.push(token).unwrap()).collect();
        assert_eq!(pieces.concat() + &stream.finish().unwrap(), text);
        assert_eq!(&pieces[..3], ["n", "", "é"]);
    }

    #[test]
    fn a_prompt_is_not_repeated_and_broken_bytes_come_at_the_end() {
        let tokenizer = byte_tokenizer();
        let tokens = tokenizer.encode("abcdefé", false).unwrap().get_ids().to_vec();
        let mut stream = TextStream::new(&tokenizer, &tokens[..5]);
        assert_eq!(stream.push(tokens[5]).unwrap(), "f");
        assert_eq!(stream.push(tokens[6]).unwrap(), "");
        assert_eq!(stream.finish().unwrap(), "\u{fffd}");
        assert_eq!(stream.finish().unwrap(), "");
    }
}
