//! From text to tokens, a lot of it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenizers::Tokenizer;
use tokenizers::models::ModelWrapper;

use super::cuts::Cuts;
use super::format::{self, Own, UNKNOWN};
use super::unknown::Unknown;
use crate::data::files::{self, OpenFile};
use crate::data::{DataError, TextDataset, TokenizerSpec};
use crate::device::Watch;

/// GPT-2's end of a document.
const END_OF_TEXT: &str = "<|endoftext|>";
/// Names under which vocabularies keep the end of a document.
pub(crate) const DOCUMENT_ENDS: [&str; 5] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>"];

/// Most bytes of a tokenizer's file. The largest published ones are half as long.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Most bytes that the tokenizers library is given at once: it takes some fifty bytes of memory for each.
const MAX_PIECE_BYTES: usize = 64 << 20;

/// A tokenizer with a quick way to encode a lot of text.
#[derive(Debug)]
pub(in crate::data) struct TextEncoder {
    pub tokenizer: Tokenizer,
    pub vocab_size: usize,
    kind: Kind,
    /// Where it came from.
    path: PathBuf,
}

#[derive(Debug)]
enum Kind {
    Bytes,
    Chars {
        ids: HashMap<char, u32>,
        unknown: u32,
    },
    /// As the tokenizers library does it.
    Library {
        cuts: Cuts,
        unknown: Unknown,
    },
}

impl TextEncoder {
    /// The tokenizer of `spec`; characters come from `documents`, the training part.
    pub fn new(spec: &TokenizerSpec, documents: &[String], path: &Path, watch: Watch<'_>) -> Result<Self, DataError> {
        match spec {
            TokenizerSpec::Byte => Self::bytes(path),
            TokenizerSpec::Char => Self::chars(documents, path, watch),
            TokenizerSpec::Gpt2 { folder } => Self::gpt2(folder, watch),
            TokenizerSpec::File { path } => Self::file(path, watch),
        }
    }

    fn bytes(path: &Path) -> Result<Self, DataError> {
        let value = format::byte_level_bpe(&json!(format::byte_vocab()), &json!([]), false, &json!([]));
        let tokenizer = format::from_json(&value, path)?;
        Ok(Self { tokenizer, vocab_size: 256, kind: Kind::Bytes, path: path.to_owned() })
    }

    fn chars(documents: &[String], path: &Path, watch: Watch<'_>) -> Result<Self, DataError> {
        let mut is_seen = vec![false; char::MAX as usize + 1];
        is_seen[UNKNOWN as usize] = true;
        for document in documents {
            for piece in Cuts::Anywhere.pieces(document) {
                watch.check()?;
                piece.chars().for_each(|c| is_seen[c as usize] = true);
            }
        }
        let seen = (0..).zip(is_seen).filter(|&(_, is_seen)| is_seen);
        let alphabet = seen.filter_map(|(code, _)| char::from_u32(code));
        let ids: HashMap<char, u32> = alphabet.zip(0..).collect();
        let unknown = ids.get(&UNKNOWN).copied().unwrap_or(0);
        let vocab: BTreeMap<String, u32> = ids.iter().map(|(c, &id)| (c.to_string(), id)).collect();
        let tokenizer = format::from_json(&format::characters(&vocab), path)?;
        Ok(Self { tokenizer, vocab_size: ids.len(), kind: Kind::Chars { ids, unknown }, path: path.to_owned() })
    }

    fn gpt2(folder: &Path, watch: Watch<'_>) -> Result<Self, DataError> {
        let vocab_path = first_of(folder, ["encoder.json", "vocab.json"])?;
        let merges_path = first_of(folder, ["vocab.bpe", "merges.txt"])?;
        let vocab = read_file(&vocab_path, "reading the vocabulary", watch)?;
        let vocab: BTreeMap<String, u32> = serde_json::from_slice(&vocab).map_err(|error| {
            let hint = "Is this GPT-2's encoder.json (vocab.json in transformers)?";
            DataError::format(
                "a GPT-2 vocabulary",
                "a JSON object of token to number",
                error.to_string(),
                hint,
                &vocab_path,
            )
        })?;
        let merges = read_file(&merges_path, "reading the merges", watch)?;
        let merges = String::from_utf8(merges).map_err(|error| {
            let hint = "Is this GPT-2's vocab.bpe (merges.txt in transformers)?";
            DataError::format("GPT-2 merges", "UTF-8 text", error.to_string(), hint, &merges_path)
        })?;
        let pairs = merge_pairs(&merges, &merges_path)?;
        let added = vocab.get(END_OF_TEXT).map(|id| {
            json!({"id": id, "content": END_OF_TEXT, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        });
        let added: Vec<Value> = added.into_iter().collect();
        let file = format::byte_level_bpe(&json!(vocab), &json!(pairs), true, &json!(added)).to_string();
        let tokenizer = format::from_bytes(file.as_bytes(), folder)?;
        Self::of_library(tokenizer, file.as_bytes(), folder)
    }

    fn file(path: &Path, watch: Watch<'_>) -> Result<Self, DataError> {
        let file = read_file(path, "reading the tokenizer", watch)?;
        let mut tokenizer = format::from_bytes(&file, path)?;
        // Both would silently change how much text there is.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| format::refused("reading", path, &error.to_string()))?;
        remove_dropout(&mut tokenizer);
        match format::recognize(&tokenizer) {
            Some(Own::Bytes) => Self::checked(tokenizer, Kind::Bytes, path),
            Some(Own::Characters { ids, unknown }) => Self::checked(tokenizer, Kind::Chars { ids, unknown }, path),
            None => Self::of_library(tokenizer, &file, path),
        }
    }

    /// `file`: the tokenizer's `tokenizer.json`.
    fn of_library(tokenizer: Tokenizer, file: &[u8], path: &Path) -> Result<Self, DataError> {
        let kind = Kind::Library { cuts: Cuts::of(&tokenizer), unknown: Unknown::of(&tokenizer, file) };
        Self::checked(tokenizer, kind, path)
    }

    /// Errors: numbers so far apart that a model would need rows for tokens that do not exist.
    fn checked(tokenizer: Tokenizer, kind: Kind, path: &Path) -> Result<Self, DataError> {
        let vocab = tokenizer.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        if vocab.is_empty() || vocab_size > 2 * vocab.len() + 1000 {
            return Err(DataError::format(
                "a tokenizer",
                "tokens numbered from 0 without large gaps",
                format!("{} tokens numbered up to {vocab_size}", vocab.len()),
                "Use the tokenizer as its authors published it",
                path,
            ));
        }
        Ok(Self { tokenizer, vocab_size, kind, path: path.to_owned() })
    }

    /// The token that ends a document, where the vocabulary has one.
    pub fn document_end(&self) -> Option<u32> {
        match self.kind {
            Kind::Bytes | Kind::Chars { .. } => None,
            Kind::Library { .. } => DOCUMENT_ENDS.iter().find_map(|token| self.tokenizer.token_to_id(token)),
        }
    }

    /// Tokens of `text`, as the tokenizer itself gives them, and how many characters were not in the vocabulary.
    pub fn encode(&self, text: &str) -> Result<(Vec<u32>, usize), DataError> {
        match &self.kind {
            Kind::Bytes => Ok((text.bytes().map(u32::from).collect(), 0)),
            Kind::Chars { ids, unknown } => {
                let mut num_unknown = 0;
                let tokens = text.chars().map(|c| {
                    ids.get(&c).copied().unwrap_or_else(|| {
                        num_unknown += 1;
                        *unknown
                    })
                });
                let tokens = tokens.collect();
                Ok((tokens, num_unknown))
            }
            Kind::Library { unknown, .. } => {
                let tokens = format::encode(&self.tokenizer, text)
                    .map_err(|reason| format::refused("encoding text with", &self.path, &reason))?;
                let num_unknown = unknown.count(&self.tokenizer, text, &tokens);
                Ok((tokens, num_unknown))
            }
        }
    }

    /// Cuts `text` into pieces of some 64 KB, at least one, which give the same tokens one by one as in one go.
    /// Errors: a piece that cannot be cut and is too long for the tokenizers library.
    pub fn pieces<'t>(&self, text: &'t str) -> Result<Vec<&'t str>, DataError> {
        match &self.kind {
            Kind::Bytes | Kind::Chars { .. } => Ok(Cuts::Anywhere.pieces(text)),
            Kind::Library { cuts, .. } => {
                let pieces = cuts.pieces(text);
                match pieces.iter().find(|piece| piece.len() > MAX_PIECE_BYTES) {
                    None => Ok(pieces),
                    Some(piece) => Err(self.too_long(*cuts, piece.len())),
                }
            }
        }
    }

    fn too_long(&self, cuts: Cuts, num_bytes: usize) -> DataError {
        let hint = match cuts {
            Cuts::Anywhere | Cuts::BeforeSpaces => "Put spaces or line ends into the text, or use single bytes",
            Cuts::Nowhere => {
                "Cut the text into several files or JSON lines, or use GPT-2's tokenizer, bytes or characters"
            }
        };
        let limit = files::size(MAX_PIECE_BYTES as u64);
        let what = "a document for this tokenizer";
        let expected = format!("at most {limit} that must be encoded in one go");
        DataError::format(what, expected, files::size(num_bytes as u64), hint, &self.path)
    }
}

/// True when `text` was made into tokens by the same vocabulary as that of the `tokenizer.json` at `path`.
/// Errors: a file that is no tokenizer.
pub(crate) fn has_vocabulary_of(text: &TextDataset, path: &Path, watch: Watch<'_>) -> Result<bool, DataError> {
    let other = TextEncoder::file(path, watch)?;
    Ok(text.tokenizer.get_vocab(true) == other.tokenizer.get_vocab(true))
}

/// Dropout leaves out merges at random, so that a text would have other tokens each time.
fn remove_dropout(tokenizer: &mut Tokenizer) {
    let ModelWrapper::BPE(model) = tokenizer.get_model() else { return };
    if model.dropout.is_some() {
        let mut model = model.clone();
        model.dropout = None;
        tokenizer.with_model(model);
    }
}

/// A file that belongs to a tokenizer. Errors: one that is too long to.
fn read_file(path: &Path, doing: &str, watch: Watch<'_>) -> Result<Vec<u8>, DataError> {
    let mut open = OpenFile::open(path)?;
    if open.len > MAX_FILE_BYTES {
        let hint = "Is this the tokenizer's file, and not a text or a model?";
        return Err(files::too_large("a tokenizer's file", MAX_FILE_BYTES, open.len, hint, path));
    }
    open.read_all(doing, MAX_FILE_BYTES, watch)
}

/// The pairs of tokens that a file of merges lists, one a line.
fn merge_pairs<'m>(merges: &'m str, path: &Path) -> Result<Vec<(&'m str, &'m str)>, DataError> {
    let mut pairs = Vec::new();
    for (i, line) in merges.lines().enumerate() {
        if line.is_empty() || (i == 0 && line.starts_with("#version")) {
            continue;
        }
        let Some(pair) = line.split_once(' ').filter(|(_, right)| !right.contains(' ')) else {
            let found = format!("line {}: {line:.60?}", i + 1);
            let hint = "Is this GPT-2's vocab.bpe (merges.txt in transformers)?";
            return Err(DataError::format("GPT-2 merges", "two tokens a line", found, hint, path));
        };
        pairs.push(pair);
    }
    Ok(pairs)
}

fn first_of(folder: &Path, names: [&str; 2]) -> Result<PathBuf, DataError> {
    names.iter().map(|name| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        let hint = "Choose the folder with GPT-2's encoder.json and vocab.bpe";
        let found = files::list_folder(folder)
            .map_or_else(|error| error.to_string(), |entries| format!("{} other files", entries.len()));
        DataError::format("a GPT-2 tokenizer", names.join(" or "), found, hint, folder)
    })
}
