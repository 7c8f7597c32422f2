//! From a spec to a dataset.

use std::path::Path;

use super::grammar::GRAMMAR;
use super::rounds::ROUNDS;
use super::{DataError, Dataset, DatasetSpec, cifar, files, glyphs, idx, image_folder, text, text_files};
use crate::device::Watch;

/// Loads or generates the dataset that `spec` names, split and with its warnings.
/// Generated sets are kept in the folder `cache`, which is made when absent.
/// Errors: see [`DataError`]; nothing is left half done.
pub fn load(spec: &DatasetSpec, cache: &Path, watch: Watch<'_>) -> Result<Dataset, DataError> {
    load_within(spec, cache, files::max_dataset_bytes(), watch)
}

/// [`load`] with a limit of its own: no part of the dataset that is held in memory, as read or as tokens, takes more
/// than `max_bytes`. The generated sets are as small as they are.
pub(super) fn load_within(
    spec: &DatasetSpec,
    cache: &Path,
    max_bytes: u64,
    watch: Watch<'_>,
) -> Result<Dataset, DataError> {
    match spec {
        DatasetSpec::Glyphs => glyphs::load(cache, watch),
        DatasetSpec::Grammar => GRAMMAR.load(cache, watch),
        DatasetSpec::Rounds => ROUNDS.load(cache, watch),
        DatasetSpec::Idx { path } => idx::load(path, max_bytes, watch),
        DatasetSpec::Cifar10 { path } => cifar::load(path, watch),
        DatasetSpec::ImageFolder { path, image_size } => image_folder::load(path, *image_size, max_bytes, watch),
        DatasetSpec::Text { path, tokenizer } => {
            text::build(text_files::read_text(path, max_bytes, watch)?, tokenizer, max_bytes, watch)
        }
        DatasetSpec::Jsonl { path, field, tokenizer } => {
            text::build(text_files::read_jsonl(path, field, max_bytes, watch)?, tokenizer, max_bytes, watch)
        }
    }
}
