//! From documents to a split text dataset of tokens.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::files;
use super::tokenizer::TextEncoder;
use super::{DataError, DataWarning, Dataset, DocumentEnds, SplitRecord, TextDataset, TokenizerSpec};
use crate::device::Watch;

/// Documents, split, before they become tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RawText {
    pub name: String,
    pub train: Vec<String>,
    pub validation: Vec<String>,
    pub test: Vec<String>,
    /// The split in words.
    pub rule: String,
    pub warnings: Vec<DataWarning>,
    pub path: PathBuf,
}

/// Fewer validation tokens make a noisy loss.
const MIN_VALIDATION: usize = 10_000;

/// Encodes the documents. Errors: a part too short to predict one token, a tokenizer that cannot be had, tokens of
/// more than `max_bytes`, [`DataError::Cancelled`].
pub(super) fn build(
    mut raw: RawText,
    spec: &TokenizerSpec,
    max_bytes: u64,
    watch: Watch<'_>,
) -> Result<Dataset, DataError> {
    for part in [&mut raw.train, &mut raw.validation, &mut raw.test] {
        part.retain(|document| !document.is_empty());
        end_lines(part);
    }
    let encoder = TextEncoder::new(spec, &raw.train, &raw.path, watch)?;
    let mut parts = PartEncoder { encoder: &encoder, left_bytes: max_bytes, path: &raw.path, watch };
    let train = parts.encode(&raw.train, "training")?;
    let validation = parts.encode(&raw.validation, "validation")?;
    let test = parts.encode(&raw.test, "test")?;
    if train.tokens.len() < 2 || validation.tokens.len() < 2 {
        return Err(DataError::format(
            "text",
            "at least 2 tokens for training and for validation",
            format!("{} and {}", train.tokens.len(), validation.tokens.len()),
            "Use a longer text",
            &raw.path,
        ));
    }
    let mut warnings = raw.warnings;
    let num_unknown = train.num_unknown + validation.num_unknown + test.num_unknown;
    if num_unknown > 0 {
        warnings.push(DataWarning::UnknownCharacters { count: num_unknown });
    }
    if validation.tokens.len() < MIN_VALIDATION {
        warnings.push(DataWarning::SmallValidation { count: validation.tokens.len() });
    }
    let split = SplitRecord {
        rule: raw.rule,
        num_train: train.tokens.len(),
        num_validation: validation.tokens.len(),
        num_test: test.tokens.len(),
    };
    Ok(Dataset::Text(Box::new(TextDataset {
        name: raw.name,
        vocab_size: encoder.vocab_size,
        tokenizer: encoder.tokenizer,
        train: train.tokens,
        validation: validation.tokens,
        test: test.tokens,
        document_ends: DocumentEnds { train: train.ends, validation: validation.ends, test: test.ends },
        split,
        warnings,
    })))
}

/// Where documents follow each other, each ends its last line, so that joined they still read as they did.
fn end_lines(documents: &mut [String]) {
    if documents.len() > 1 {
        for document in documents.iter_mut().filter(|document| !document.ends_with('\n')) {
            document.push('\n');
        }
    }
}

#[derive(Debug, Default)]
struct Encoded {
    tokens: Vec<u32>,
    ends: Vec<usize>,
    num_unknown: usize,
}

impl Encoded {
    fn num_bytes(&self) -> u64 {
        4 * self.tokens.len() as u64
    }
}

/// Turns the documents of one part after another into tokens.
#[derive(Debug)]
struct PartEncoder<'a> {
    encoder: &'a TextEncoder,
    /// Bytes that further tokens may take.
    left_bytes: u64,
    path: &'a Path,
    watch: Watch<'a>,
}

/// A stretch of text to encode, and whether it ends its document.
type Piece<'t> = (&'t str, bool);

impl PartEncoder<'_> {
    fn encode(&mut self, documents: &[String], part: &str) -> Result<Encoded, DataError> {
        let separator = self.encoder.document_end().filter(|_| documents.len() > 1);
        let pieces = self.pieces(documents)?;
        let total = documents.iter().map(|document| document.len() as u64).sum();
        let what = format!("encoding the {part} part");
        let mut encoded = Encoded::default();
        let mut done = 0;
        let mut rest = pieces.as_slice();
        while !rest.is_empty() {
            self.watch.step(&what, done, Some(total))?;
            let (slab, after) = rest.split_at(slab_len(rest));
            rest = after;
            let parts: Vec<(Vec<u32>, usize)> =
                slab.par_iter().map(|(piece, _)| self.encoder.encode(piece)).collect::<Result<_, _>>()?;
            for ((tokens, num_unknown), (piece, is_last)) in parts.into_iter().zip(slab) {
                encoded.tokens.extend(tokens);
                encoded.num_unknown += num_unknown;
                done += piece.len() as u64;
                if *is_last {
                    encoded.tokens.extend(separator);
                    encoded.ends.push(encoded.tokens.len());
                }
            }
            self.check_room(&encoded, done, total)?;
        }
        self.watch.step(&what, done, Some(total))?;
        self.left_bytes = self.left_bytes.saturating_sub(encoded.num_bytes());
        Ok(encoded)
    }

    fn pieces<'t>(&self, documents: &'t [String]) -> Result<Vec<Piece<'t>>, DataError> {
        let mut pieces = Vec::new();
        for document in documents {
            let cut = self.encoder.pieces(document)?;
            let num_pieces = cut.len();
            pieces.extend(cut.into_iter().zip(1..).map(|(piece, i)| (piece, i == num_pieces)));
        }
        Ok(pieces)
    }

    /// Errors: more tokens than memory is there for. A byte of text may be a token, which takes four.
    fn check_room(&self, encoded: &Encoded, done: u64, total: u64) -> Result<(), DataError> {
        if encoded.num_bytes() <= self.left_bytes {
            return Ok(());
        }
        Err(DataError::format(
            "text as tokens",
            format!("at most {} of tokens", files::size(self.left_bytes)),
            format!("more in the first {} of {}", files::size(done), files::size(total)),
            "A dataset may take a quarter of this machine's memory, 16 GiB at most; use a part of the text, or a \
             tokenizer with longer tokens",
            self.path,
        ))
    }
}

/// How many of `pieces` are encoded between two looks at the watch, at least one. They are bounded in number and
/// bytes, because the tokenizers library takes many times their length in memory.
fn slab_len(pieces: &[Piece<'_>]) -> usize {
    const MAX_PIECES: usize = 64;
    const MAX_BYTES: usize = 64 << 20;
    let mut num_bytes = 0;
    let fitting = pieces.iter().take(MAX_PIECES).take_while(|(piece, _)| {
        num_bytes += piece.len();
        num_bytes <= MAX_BYTES
    });
    fitting.count().max(1)
}
