//! Built-in texts: documents told one after the other, kept in the cache, a character a token.

use std::path::Path;

use super::cache::{self, Cached};
use super::draw::Draw;
use super::text::{self, RawText};
use super::{DataError, Dataset, TokenizerSpec};
use crate::device::Watch;
use crate::device::seed::Stream;

/// A built-in text.
pub(super) struct GeneratedText {
    /// Name of the dataset, and of its file in the cache.
    pub name: &'static str,
    /// Part of that file's name: another number for another text.
    pub version: u32,
    /// Seed of all documents; they are the same for every run.
    pub seed: u64,
    /// Length: the last document is followed by line ends up to here, so that the length is known before.
    pub num_bytes: usize,
    /// What each document ends with, and holds nowhere else.
    pub end: &'static str,
    /// One document; ASCII.
    pub document: fn(&mut Draw) -> String,
}

impl GeneratedText {
    /// The text, from the cache in `folder` or newly told. Errors: [`DataError::Cancelled`].
    pub fn load(&self, folder: &Path, watch: Watch<'_>) -> Result<Dataset, DataError> {
        let name = format!("{}-v{}.txt", self.name, self.version);
        let Cached { bytes, warning } =
            cache::load_or_make(folder, &name, self.num_bytes as u64, watch, || self.generate(watch))?;
        let text = String::from_utf8_lossy(&bytes);
        let documents: Vec<&str> = text.trim_end().split_inclusive(self.end).collect();
        let (train, rest) = documents.split_at(documents.len() * 9 / 10);
        let (validation, test) = rest.split_at(rest.len() / 2);
        let own = |documents: &[&str]| documents.iter().map(|&document| document.to_owned()).collect();
        let raw = RawText {
            name: self.name.to_owned(),
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
    fn generate(&self, watch: Watch<'_>) -> Result<Vec<u8>, DataError> {
        let mut text = String::with_capacity(self.num_bytes);
        for index in 0.. {
            if index % 64 == 0 {
                watch.step("writing the built-in text", text.len() as u64, Some(self.num_bytes as u64))?;
            }
            let document = (self.document)(&mut Draw::new(self.seed, Stream::Generate, index));
            if text.len() + document.len() > self.num_bytes {
                break;
            }
            text.push_str(&document);
        }
        let mut bytes = text.into_bytes();
        bytes.resize(self.num_bytes, b'\n');
        Ok(bytes)
    }
}
