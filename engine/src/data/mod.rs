//! Datasets: where examples come from, how they are split, how batches are drawn.
//!
//! Invariants: a split follows a rule that is recorded with it; text is never shuffled across
//! documents before splitting; the batch of step `n` is a function of (dataset, seed, n) alone;
//! a hostile file makes an error, never a panic or an allocation larger than the file justifies.

mod dataset;
mod spec;

pub use dataset::{DataWarning, Dataset, ImageDataset, ImageSplit, SplitPart, SplitRecord, TextDataset};
pub use spec::{DatasetSpec, TokenizerSpec};
