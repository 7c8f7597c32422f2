//! From a spec to a dataset.

use std::path::Path;

use super::{DataError, Dataset, DatasetSpec, cifar, glyphs, grammar, idx, image_folder, text, text_files};
use crate::device::Watch;

/// Loads or generates the dataset that `spec` names, split and with its warnings.
/// Generated sets are kept in the folder `cache`, which is made when absent.
/// Errors: see [`DataError`]; nothing is left half done.
pub fn load(spec: &DatasetSpec, cache: &Path, watch: Watch<'_>) -> Result<Dataset, DataError> {
    match spec {
        DatasetSpec::Glyphs => glyphs::load(cache, watch),
        DatasetSpec::Grammar => grammar::load(cache, watch),
        DatasetSpec::Idx { path } => idx::load(path, watch),
        DatasetSpec::Cifar10 { path } => cifar::load(path, watch),
        DatasetSpec::ImageFolder { path, image_size } => image_folder::load(path, *image_size, watch),
        DatasetSpec::Text { path, tokenizer } => text::build(text_files::read_text(path, watch)?, tokenizer, watch),
        DatasetSpec::Jsonl { path, field, tokenizer } => {
            text::build(text_files::read_jsonl(path, field, watch)?, tokenizer, watch)
        }
    }
}
