//! Where text may be cut so that its pieces give the tokens that the whole would give.

use tokenizers::Tokenizer;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

/// Bytes from which on a piece is cut.
const PIECE_BYTES: usize = 1 << 16;

/// Where a tokenizer never looks across.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cuts {
    /// Between any two characters.
    Anywhere,
    /// Before a space or line end that stands alone between two visible characters.
    ///
    /// This holds for GPT-2's pattern, `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
    /// where nothing changes the text before it and no added token holds or swallows white space. No alternative takes
    /// white space after anything else, so a match ends before the space; the one that looks ahead, `\s+(?!\S)`, needs
    /// two of them to be there; and added tokens, which are cut out first, end or begin beside the space, not in it.
    BeforeSpaces,
    /// Nowhere, as far as is known.
    Nowhere,
}

impl Cuts {
    /// What may be done to a text for `tokenizer`.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let is_gpt2 = match tokenizer.get_pre_tokenizer() {
            Some(PreTokenizerWrapper::ByteLevel(level)) => level.use_regex && !level.add_prefix_space,
            Some(_) | None => false,
        };
        let added = tokenizer.get_added_tokens_decoder();
        let mut added = added.values();
        let stays_visible = added.all(|token| {
            let has_space = token.content.contains(char::is_whitespace);
            !has_space && !token.lstrip && !token.rstrip
        });
        let is_safe = is_gpt2 && stays_visible && tokenizer.get_normalizer().is_none();
        if is_safe { Self::BeforeSpaces } else { Self::Nowhere }
    }

    /// Cuts `text` into pieces of some 64 KB, as far as it may be cut; at least one.
    pub fn pieces(self, text: &str) -> Vec<&str> {
        self.pieces_from(text, PIECE_BYTES)
    }

    /// Cuts `text` into pieces of at least `num_bytes`, the last excepted.
    pub(super) fn pieces_from(self, text: &str, num_bytes: usize) -> Vec<&str> {
        match self {
            Self::Anywhere => cut(text, num_bytes, |_| true),
            Self::BeforeSpaces => cut(text, num_bytes, |at| is_lone_space(text, at)),
            Self::Nowhere => vec![text],
        }
    }
}

/// Cuts at the first character from `num_bytes` on that `may_cut` allows, over and over.
fn cut(text: &str, num_bytes: usize, may_cut: impl Fn(usize) -> bool) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest_from = 0;
    let next_cut =
        |from: usize| (from + num_bytes.max(1)..text.len()).find(|&at| text.is_char_boundary(at) && may_cut(at));
    while let Some(at) = next_cut(rest_from) {
        pieces.push(&text[rest_from..at]);
        rest_from = at;
    }
    pieces.push(&text[rest_from..]);
    pieces
}

/// True for a space or line end at byte `at` whose neighbors on both sides are there and no white space.
fn is_lone_space(text: &str, at: usize) -> bool {
    if !matches!(text.as_bytes().get(at), Some(b' ' | b'\n')) {
        return false;
    }
    let (before, after) = (text[..at].chars().next_back(), text[at + 1..].chars().next());
    before.is_some_and(|c| !c.is_whitespace()) && after.is_some_and(|c| !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_where_they_are_allowed() {
        let text = "ab cd  ef\ngh\n\nij é k";
        assert_eq!(Cuts::BeforeSpaces.pieces_from(text, 1), ["ab", " cd  ef", "\ngh\n\nij", " é", " k"]);
        assert_eq!(Cuts::BeforeSpaces.pieces_from(text, 4), ["ab cd  ef", "\ngh\n\nij", " é k"]);
        assert_eq!(Cuts::Anywhere.pieces_from("aéb", 1), ["a", "é", "b"]);
        assert_eq!(Cuts::Anywhere.pieces_from("aéb", 2), ["aé", "b"]);
        assert_eq!(Cuts::Nowhere.pieces_from(text, 1), [text]);
        assert_eq!(Cuts::Anywhere.pieces(""), [""]);
    }

    #[test]
    fn lines_that_end_in_spaces_are_cut_too() {
        // As in WikiText: no line end stands alone.
        let line = " = A title = \n \n Some words , and more of them . \n";
        let text = line.repeat(10_000);
        let pieces = Cuts::BeforeSpaces.pieces(&text);
        assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.len() < PIECE_BYTES + line.len()));
        assert_eq!(pieces.concat(), text);
    }
}
