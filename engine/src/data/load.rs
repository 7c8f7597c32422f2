//! From a spec to a dataset.

use std::path::Path;

use super::{DataError, Dataset, DatasetSpec, idx, text, text_files};
use crate::device::Watch;

/// Loads or generates the dataset that `spec` names, split and with its warnings.
/// Generated sets are kept in the folder `cache`, which is made when absent.
/// Errors: see [`DataError`]; nothing is left half done.
pub fn load(spec: &DatasetSpec, cache: &Path, watch: Watch<'_>) -> Result<Dataset, DataError> {
    match spec {
        DatasetSpec::Idx { path } => idx::load(path, watch),
        DatasetSpec::Text { path, tokenizer } => text::build(text_files::read_text(path, watch)?, tokenizer, watch),
        DatasetSpec::Jsonl { path, field, tokenizer } => {
            text::build(text_files::read_jsonl(path, field, watch)?, tokenizer, watch)
        }
        DatasetSpec::Glyphs | DatasetSpec::Grammar | DatasetSpec::Cifar10 { .. } | DatasetSpec::ImageFolder { .. } => {
            Err(DataError::format("a dataset", "a kind that is read", format!("{spec:?}"), "Choose another", cache))
        }
    }
}
