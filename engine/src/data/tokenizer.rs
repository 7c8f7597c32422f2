//! Tokenizers: every kind ends as one that saves to a Hugging Face `tokenizer.json`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::files::{self, OpenFile};
use super::{DataError, TokenizerSpec};
use crate::device::Watch;

/// What every character outside the vocabulary becomes: Unicode's own sign for it, so that it reads well in text.
const UNKNOWN: char = char::REPLACEMENT_CHARACTER;
/// GPT-2's end of a document.
const END_OF_TEXT: &str = "<|endoftext|>";
/// Names under which vocabularies keep the end of a document.
const DOCUMENT_ENDS: [&str; 5] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>"];

/// What is said when the tokenizers library panics.
const GAVE_UP: &str = "the tokenizers library gave up on it";

/// A tokenizer with a quick way to encode a lot of text.
#[derive(Debug)]
pub(super) struct TextEncoder {
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
    /// Text may be cut at single line ends without changing a token.
    Gpt2,
    File,
}

impl TextEncoder {
    /// The tokenizer of `spec`; characters come from `documents`, the training part.
    pub fn new(spec: &TokenizerSpec, documents: &[String], path: &Path, watch: Watch<'_>) -> Result<Self, DataError> {
        match spec {
            TokenizerSpec::Byte => Self::bytes(path),
            TokenizerSpec::Char => Self::chars(documents, path),
            TokenizerSpec::Gpt2 { folder } => Self::gpt2(folder, watch),
            TokenizerSpec::File { path } => Self::file(path, watch),
        }
    }

    fn bytes(path: &Path) -> Result<Self, DataError> {
        let vocab: BTreeMap<String, usize> =
            byte_alphabet().iter().enumerate().map(|(byte, c)| (c.to_string(), byte)).collect();
        let tokenizer = from_json(&bpe(&json!(vocab), &json!([]), false, &json!([])), path)?;
        Ok(Self { tokenizer, vocab_size: 256, kind: Kind::Bytes, path: path.to_owned() })
    }

    fn chars(documents: &[String], path: &Path) -> Result<Self, DataError> {
        let mut alphabet: BTreeSet<char> = documents.iter().flat_map(|text| text.chars()).collect();
        alphabet.insert(UNKNOWN);
        let ids: HashMap<char, u32> = alphabet.iter().zip(0..).map(|(&c, id)| (c, id)).collect();
        let unknown = ids.get(&UNKNOWN).copied().unwrap_or(0);
        let vocab: BTreeMap<String, u32> = ids.iter().map(|(c, &id)| (c.to_string(), id)).collect();
        let tokenizer = from_json(
            &json!({
                "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
                "pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": false},
                "post_processor": null,
                "decoder": {"type": "Fuse"},
                "model": {"type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN.to_string()},
            }),
            path,
        )?;
        Ok(Self { tokenizer, vocab_size: ids.len(), kind: Kind::Chars { ids, unknown }, path: path.to_owned() })
    }

    fn gpt2(folder: &Path, watch: Watch<'_>) -> Result<Self, DataError> {
        let vocab_path = first_of(folder, ["encoder.json", "vocab.json"])?;
        let merges_path = first_of(folder, ["vocab.bpe", "merges.txt"])?;
        let vocab = OpenFile::open(&vocab_path)?.read_all("reading the vocabulary", watch)?;
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
        let merges = OpenFile::open(&merges_path)?.read_all("reading the merges", watch)?;
        let merges = String::from_utf8(merges).map_err(|error| {
            let hint = "Is this GPT-2's vocab.bpe (merges.txt in transformers)?";
            DataError::format("GPT-2 merges", "UTF-8 text", error.to_string(), hint, &merges_path)
        })?;
        let mut pairs = Vec::new();
        for (i, line) in merges.lines().enumerate() {
            if line.is_empty() || (i == 0 && line.starts_with("#version")) {
                continue;
            }
            let Some(pair) = line.split_once(' ').filter(|(_, right)| !right.contains(' ')) else {
                let found = format!("line {}: {line:.60?}", i + 1);
                let hint = "Is this GPT-2's vocab.bpe (merges.txt in transformers)?";
                return Err(DataError::format("GPT-2 merges", "two tokens a line", found, hint, &merges_path));
            };
            pairs.push(pair);
        }
        let added = vocab.get(END_OF_TEXT).map(|id| {
            json!({"id": id, "content": END_OF_TEXT, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        });
        let added: Vec<Value> = added.into_iter().collect();
        let tokenizer = from_json(&bpe(&json!(vocab), &json!(pairs), true, &json!(added)), folder)?;
        Self::checked(tokenizer, Kind::Gpt2, folder)
    }

    fn file(path: &Path, watch: Watch<'_>) -> Result<Self, DataError> {
        let bytes = OpenFile::open(path)?.read_all("reading the tokenizer", watch)?;
        let mut tokenizer = from_bytes(&bytes, path)?;
        // Both would silently change how much text there is.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| refused("reading", path, &error.to_string()))?;
        Self::checked(tokenizer, Kind::File, path)
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
            Kind::Gpt2 | Kind::File => DOCUMENT_ENDS.iter().find_map(|token| self.tokenizer.token_to_id(token)),
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
            Kind::Gpt2 | Kind::File => {
                // A hostile file may pass the library's reader and still break its encoder.
                let encode = std::panic::AssertUnwindSafe(|| self.tokenizer.encode_fast(text, false));
                let encoding = match std::panic::catch_unwind(encode) {
                    Ok(Ok(encoding)) => encoding,
                    Ok(Err(error)) => return Err(refused("encoding text with", &self.path, &error.to_string())),
                    Err(_) => return Err(refused("encoding text with", &self.path, GAVE_UP)),
                };
                Ok((encoding.get_ids().to_vec(), 0))
            }
        }
    }

    /// Cuts `text` into pieces of some 64 KB which give the same tokens one by one as in one go.
    pub fn pieces<'t>(&self, text: &'t str) -> Vec<&'t str> {
        match self.kind {
            Kind::File => vec![text],
            Kind::Bytes | Kind::Chars { .. } | Kind::Gpt2 => cut_at_lines(text),
        }
    }
}

/// Cuts after single line ends between visible characters: there, and only there, GPT-2's pattern never looks across.
fn cut_at_lines(text: &str) -> Vec<&str> {
    const PIECE: usize = 1 << 16;
    let bytes = text.as_bytes();
    let mut pieces = Vec::new();
    let mut begin = 0;
    let mut at = PIECE;
    while at + 1 < bytes.len() {
        let is_cut = |i: usize| {
            let visible = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_graphic);
            bytes.get(i) == Some(&b'\n') && i > 0 && visible(i - 1) && visible(i + 1)
        };
        let Some(line_end) = (at..bytes.len()).find(|&i| is_cut(i)) else { break };
        pieces.push(&text[begin..=line_end]);
        begin = line_end + 1;
        at = begin + PIECE;
    }
    pieces.push(&text[begin..]);
    pieces
}

/// GPT-2's printable stand-in for each byte: itself where printable, else counted up from U+0100.
/// Source: `bytes_to_unicode` in the GPT-2 repository's encoder.py.
fn byte_alphabet() -> [char; 256] {
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

/// A byte-level BPE in the form of `tokenizer.json`.
fn bpe(vocab: &Value, merges: &Value, use_regex: bool, added_tokens: &Value) -> Value {
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    })
}

fn from_json(value: &Value, path: &Path) -> Result<Tokenizer, DataError> {
    from_bytes(value.to_string().as_bytes(), path)
}

/// The library is written for files that its own authors made; what it cannot take, it may panic on.
fn from_bytes(bytes: &[u8], path: &Path) -> Result<Tokenizer, DataError> {
    match std::panic::catch_unwind(|| Tokenizer::from_bytes(bytes)) {
        Ok(Ok(tokenizer)) => Ok(tokenizer),
        Ok(Err(error)) => Err(refused("reading", path, &error.to_string())),
        Err(_) => Err(refused("reading", path, GAVE_UP)),
    }
}

fn refused(tried: &'static str, path: &Path, reason: &str) -> DataError {
    let hint = "Is it a tokenizer.json as the tokenizers library writes it?";
    DataError::Tokenizer { tried, path: path.to_owned(), reason: reason.to_owned(), hint }
}

fn first_of(folder: &Path, names: [&str; 2]) -> Result<PathBuf, DataError> {
    names.iter().map(|name| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        let hint = "Choose the folder with GPT-2's encoder.json and vocab.bpe";
        let found = files::list_folder(folder)
            .map_or_else(|error| error.to_string(), |entries| format!("{} other files", entries.len()));
        DataError::format("a GPT-2 tokenizer", names.join(" or "), found, hint, folder)
    })
}
