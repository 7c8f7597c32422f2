//! Our own tokenizers in the form of `tokenizer.json`, and how one is told from others.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

pub(super) use foretrain_edge::gguf::byte_level_bpe;
use serde_json::{Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use crate::data::DataError;

/// What every character outside the vocabulary becomes: Unicode's own sign for it, so that it reads well in text.
pub(super) const UNKNOWN: char = char::REPLACEMENT_CHARACTER;
/// Cuts off every character by itself.
const EACH_CHARACTER: &str = r"[\s\S]";

/// What is said when the tokenizers library panics.
pub(super) const GAVE_UP: &str = "the tokenizers library gave up on it";

/// GPT-2's printable stand-in for each byte: itself where printable, else counted up from U+0100.
/// Source: `bytes_to_unicode` in the GPT-2 repository's encoder.py.
pub(super) fn byte_alphabet() -> [char; 256] {
    let mut next = 0x100_u32;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
        _ => {
            let stand_in = char::from_u32(next).unwrap_or(UNKNOWN);
            next += 1;
            stand_in
        }
    })
}

/// The number of each byte's stand-in.
pub(super) fn byte_vocab() -> BTreeMap<String, u32> {
    byte_alphabet().iter().zip(0..).map(|(c, byte)| (c.to_string(), byte)).collect()
}

/// A character a token, in the form of `tokenizer.json`.
pub(super) fn characters(vocab: &BTreeMap<String, u32>) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {
            "type": "Split", "pattern": {"Regex": EACH_CHARACTER}, "behavior": "Isolated", "invert": false,
        },
        "post_processor": null,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN.to_string()},
    })
}

/// A tokenizer of ours as its file tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// Byte b is token b.
    Bytes,
    /// A character a token; others become `unknown`.
    Characters { ids: HashMap<char, u32>, unknown: u32 },
}

/// What `tokenizer` is, when it does to text just what one of ours does; `None` for all others.
pub(super) fn recognize(tokenizer: &Tokenizer) -> Option<Own> {
    let is_bare = tokenizer.get_normalizer().is_none()
        && tokenizer.get_post_processor().is_none()
        && tokenizer.get_added_tokens_decoder().is_empty();
    if !is_bare {
        return None;
    }
    match (tokenizer.get_model(), tokenizer.get_pre_tokenizer()?) {
        (ModelWrapper::BPE(model), PreTokenizerWrapper::ByteLevel(level)) => {
            let is_direct = !level.add_prefix_space && !level.use_regex;
            // Without a longer token there can be no merge.
            let has_bytes_only = tokenizer.get_vocab(false).into_iter().collect::<BTreeMap<_, _>>() == byte_vocab();
            let is_unmarked = model.continuing_subword_prefix.is_none() && model.end_of_word_suffix.is_none();
            (is_direct && has_bytes_only && is_unmarked).then_some(Own::Bytes)
        }
        (ModelWrapper::WordLevel(model), PreTokenizerWrapper::Split(split)) => {
            let is_each = split.pattern == SplitPattern::Regex(EACH_CHARACTER.to_owned())
                && split.behavior == SplitDelimiterBehavior::Isolated
                && !split.invert;
            if !is_each {
                return None;
            }
            let vocab = tokenizer.get_vocab(false);
            let ids: Option<HashMap<char, u32>> =
                vocab.into_iter().map(|(token, id)| Some((only_char(&token)?, id))).collect();
            let ids = ids?;
            let unknown = *ids.get(&only_char(&model.unk_token)?)?;
            Some(Own::Characters { ids, unknown })
        }
        _ => None,
    }
}

/// The character of a text that has just one.
fn only_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// The tokenizer of a `tokenizer.json`.
pub(super) fn from_json(value: &Value, path: &Path) -> Result<Tokenizer, DataError> {
    from_bytes(value.to_string().as_bytes(), path)
}

/// The library is written for files that its own authors made; what it cannot take, it may panic on.
pub(super) fn from_bytes(bytes: &[u8], path: &Path) -> Result<Tokenizer, DataError> {
    foretrain_edge::check_tokenizer(bytes).map_err(|reason| refused("reading", path, &reason))?;
    match std::panic::catch_unwind(|| Tokenizer::from_bytes(bytes)) {
        Ok(Ok(tokenizer)) => Ok(tokenizer),
        Ok(Err(error)) => Err(refused("reading", path, &error.to_string())),
        Err(_) => Err(refused("reading", path, GAVE_UP)),
    }
}

/// Tokens of `text`. Errors: what the library said, its panics included.
pub(super) fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, String> {
    // A hostile file may pass the library's reader and still break its encoder.
    let encode = std::panic::AssertUnwindSafe(|| tokenizer.encode_fast(text, false));
    match std::panic::catch_unwind(encode) {
        Ok(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(GAVE_UP.to_owned()),
    }
}

/// The error for a tokenizer that the library does not take, or that does not take a text.
pub(super) fn refused(tried: &'static str, path: &Path, reason: &str) -> DataError {
    let hint = "Is it a tokenizer.json as the tokenizers library writes it?";
    DataError::Tokenizer { tried, path: path.to_owned(), reason: reason.to_owned(), hint }
}
