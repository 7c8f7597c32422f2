//! Datasets: where examples come from, how they are split, how batches are drawn.
//!
//! Invariants: a split follows a rule that is recorded with it; text is never shuffled across
//! documents before splitting; the batch of step `n` is a function of (dataset, seed, n) alone;
//! a hostile file makes an error, never a panic or an allocation larger than the file justifies or than a quarter of
//! the machine's memory; equal datasets have equal fingerprints, others do not.

mod batch;
mod cache;
mod cifar;
mod dataset;
mod draw;
mod error;
mod files;
mod fingerprint;
mod gather;
mod generated_text;
mod glyphs;
mod grammar;
mod idx;
mod image_folder;
mod images;
mod json_line;
mod load;
mod preview;
mod rounds;
mod segments;
mod spec;
mod split;
mod text;
mod text_files;
mod tokenizer;

#[cfg(test)]
mod tests;

pub use batch::{Batch, BatchConfig, BatchSource, Example};
pub use dataset::{DataWarning, Dataset, DocumentEnds, ImageDataset, ImageSplit, SplitPart, SplitRecord, TextDataset};
pub use error::DataError;
pub use load::load;
pub use preview::{DataPreview, ImagePreview, PreviewExamples, TokenPreview, preview};
pub use spec::{Augmentation, DatasetSpec, TokenizerSpec};
pub(crate) use tokenizer::{DOCUMENT_ENDS, has_vocabulary_of};
