//! Characters that a tokenizer does not know, counted.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizer, Tokenizer};

use super::format;

/// What becomes of a character that a tokenizer does not know.
#[derive(Debug)]
pub(super) enum Unknown {
    /// There is none: the tokenizer works on bytes and knows them all, or refuses such a text.
    Never,
    /// It becomes this token, alone or with its neighbors. Where the token is an added one, a text may also spell it.
    Token { id: u32, spelled: Option<String> },
    /// It leaves no token. Kept: what was found of each character that was looked at.
    LeftOut(Mutex<HashMap<char, bool>>),
}

/// The part of a `tokenizer.json` that the library keeps to itself.
#[derive(Debug, Deserialize)]
struct UnigramFile {
    model: UnigramModel,
}

#[derive(Debug, Deserialize)]
struct UnigramModel {
    unk_id: Option<u32>,
}

impl Unknown {
    /// What `tokenizer` does; `file` is its `tokenizer.json`.
    pub fn of(tokenizer: &Tokenizer, file: &[u8]) -> Self {
        match tokenizer.get_model() {
            ModelWrapper::BPE(_) if knows_bytes(tokenizer) => Self::Never,
            ModelWrapper::BPE(model) => match &model.unk_token {
                Some(token) => Self::token(tokenizer, tokenizer.token_to_id(token)),
                None => Self::LeftOut(Mutex::default()),
            },
            ModelWrapper::WordPiece(model) => Self::token(tokenizer, tokenizer.token_to_id(&model.unk_token)),
            ModelWrapper::WordLevel(model) => Self::token(tokenizer, tokenizer.token_to_id(&model.unk_token)),
            ModelWrapper::Unigram(_) => {
                let parsed = serde_json::from_slice::<UnigramFile>(file);
                Self::token(tokenizer, parsed.ok().and_then(|file| file.model.unk_id))
            }
        }
    }

    /// Without the token in its vocabulary, the library refuses a text that needs it.
    fn token(tokenizer: &Tokenizer, id: Option<u32>) -> Self {
        let Some(id) = id else { return Self::Never };
        let spelled = tokenizer.get_added_tokens_decoder().get(&id).map(|token| token.content.clone());
        Self::Token { id, spelled: spelled.filter(|content| !content.is_empty()) }
    }

    /// How many characters of `text` became nothing or the unknown token in `ids`; neighbors that became one count as
    /// one.
    pub fn count(&self, tokenizer: &Tokenizer, text: &str, ids: &[u32]) -> usize {
        match self {
            Self::Never => 0,
            Self::Token { id, spelled } => {
                let num_found = ids.iter().filter(|&found| found == id).count();
                let is_spelled = |content: &String| text.matches(content.as_str()).count();
                num_found.saturating_sub(spelled.as_ref().filter(|_| num_found > 0).map_or(0, is_spelled))
            }
            Self::LeftOut(known) => {
                let mut counts = HashMap::new();
                for c in text.chars() {
                    *counts.entry(c).or_insert(0) += 1;
                }
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                let mut is_left_out = |c: char| *known.entry(c).or_insert_with(|| leaves_nothing(tokenizer, c));
                counts.into_iter().filter(|&(c, _)| is_left_out(c)).map(|(_, count)| count).sum()
            }
        }
    }
}

/// True for a BPE over bytes with a token for each of them.
fn knows_bytes(tokenizer: &Tokenizer) -> bool {
    let is_over_bytes = matches!(tokenizer.get_pre_tokenizer(), Some(PreTokenizerWrapper::ByteLevel(_)));
    is_over_bytes && format::byte_alphabet().iter().all(|c| tokenizer.token_to_id(&c.to_string()).is_some())
}

/// True when the model is given `c`, alone, and makes nothing of it. White space that a tokenizer drops on its way to
/// the model is dropped on purpose.
fn leaves_nothing(tokenizer: &Tokenizer, c: char) -> bool {
    let mut buffer = [0; 4];
    let text: &str = c.encode_utf8(&mut buffer);
    if !format::encode(tokenizer, text).is_ok_and(|ids| ids.is_empty()) {
        return false;
    }
    let reaches_model = std::panic::AssertUnwindSafe(|| {
        let mut split = tokenizer.get_added_vocabulary().extract_and_normalize(tokenizer.get_normalizer(), text);
        let is_split = tokenizer.get_pre_tokenizer().is_none_or(|pre| pre.pre_tokenize(&mut split).is_ok());
        let parts = split.get_splits(OffsetReferential::Original, OffsetType::None);
        is_split && parts.iter().any(|(part, ..)| !part.is_empty())
    });
    std::panic::catch_unwind(reaches_model).unwrap_or(false)
}
