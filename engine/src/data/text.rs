//! From documents to a split text dataset of tokens.

use std::path::PathBuf;

use rayon::prelude::*;

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

/// Encodes the documents. Errors: a part too short to predict one token, a tokenizer that cannot be had.
pub(super) fn build(mut raw: RawText, spec: &TokenizerSpec, watch: Watch<'_>) -> Result<Dataset, DataError> {
    for part in [&mut raw.train, &mut raw.validation, &mut raw.test] {
        part.retain(|document| !document.is_empty());
        end_lines(part);
    }
    let encoder = TextEncoder::new(spec, &raw.train, &raw.path, watch)?;
    let train = encode(&encoder, &raw.train, "training", watch)?;
    let validation = encode(&encoder, &raw.validation, "validation", watch)?;
    let test = encode(&encoder, &raw.test, "test", watch)?;
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
    let num_unknown = validation.num_unknown + test.num_unknown;
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

fn encode(encoder: &TextEncoder, documents: &[String], part: &str, watch: Watch<'_>) -> Result<Encoded, DataError> {
    /// Pieces between two looks at the watch.
    const SLAB: usize = 64;
    let separator = encoder.document_end().filter(|_| documents.len() > 1);
    // Each piece with whether it ends its document.
    let pieces: Vec<(&str, bool)> = documents
        .iter()
        .flat_map(|document| {
            let pieces = encoder.pieces(document);
            let last = pieces.len() - 1;
            pieces.into_iter().enumerate().map(move |(i, piece)| (piece, i == last))
        })
        .collect();
    let total = documents.iter().map(|document| document.len() as u64).sum();
    let what = format!("encoding the {part} part");
    let mut encoded = Encoded::default();
    let mut done = 0;
    for slab in pieces.chunks(SLAB) {
        watch.step(&what, done, Some(total))?;
        let parts: Vec<(Vec<u32>, usize)> =
            slab.par_iter().map(|(piece, _)| encoder.encode(piece)).collect::<Result<_, _>>()?;
        for ((tokens, num_unknown), (piece, is_last)) in parts.into_iter().zip(slab) {
            encoded.tokens.extend(tokens);
            encoded.num_unknown += num_unknown;
            done += piece.len() as u64;
            if *is_last {
                encoded.tokens.extend(separator);
                encoded.ends.push(encoded.tokens.len());
            }
        }
    }
    watch.step(&what, done, Some(total))?;
    Ok(encoded)
}
