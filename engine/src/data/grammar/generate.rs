//! The documents as a dataset, kept in the cache.

use std::path::Path;

use super::story;
use crate::data::cache::{self, Cached};
use crate::data::draw::Draw;
use crate::data::text::{self, RawText};
use crate::data::{DataError, Dataset, TokenizerSpec};
use crate::device::Watch;
use crate::device::seed::Stream;

/// Part of the cache's name: another number for another text.
const VERSION: u32 = 1;
/// Seed of all documents; they are the same for every run.
const SEED: u64 = 0x6772_616d_6d61;
/// Length of the text: its last document is followed by empty lines up to here, so that the length is known before.
const NUM_BYTES: usize = 2_000_000;

/// The text, from the cache or newly told, a character a token.
pub(in crate::data) fn load(folder: &Path, watch: Watch<'_>) -> Result<Dataset, DataError> {
    let name = format!("grammar-v{VERSION}.txt");
    let Cached { bytes, warning } = cache::load_or_make(folder, &name, NUM_BYTES as u64, watch, || generate(watch))?;
    let text = String::from_utf8_lossy(&bytes);
    let documents: Vec<&str> = text.trim_end().split_inclusive("\n\n").collect();
    let (train, rest) = documents.split_at(documents.len() * 9 / 10);
    let (validation, test) = rest.split_at(rest.len() / 2);
    let own = |documents: &[&str]| documents.iter().map(|&document| document.to_owned()).collect();
    let raw = RawText {
        name: "grammar".to_owned(),
        train: own(train),
        validation: own(validation),
        test: own(test),
        rule: format!(
            "of {} documents in order: the first 90% for training, then 5% for validation, the last 5% for testing",
            documents.len()
        ),
        warnings: warning.into_iter().collect(),
        path: folder.to_owned(),
    };
    text::build(raw, &TokenizerSpec::Char, u64::MAX, watch)
}

/// Whole documents, then line ends up to the fixed length. Errors: [`DataError::Cancelled`].
fn generate(watch: Watch<'_>) -> Result<Vec<u8>, DataError> {
    let mut text = String::with_capacity(NUM_BYTES);
    for index in 0.. {
        if index % 64 == 0 {
            watch.step("telling stories", text.len() as u64, Some(NUM_BYTES as u64))?;
        }
        let document = story::document(&mut Draw::new(SEED, Stream::Generate, index));
        if text.len() + document.len() > NUM_BYTES {
            break;
        }
        text.push_str(&document);
    }
    let mut bytes = text.into_bytes();
    bytes.resize(NUM_BYTES, b'\n');
    Ok(bytes)
}
