//! A dataset in memory, split.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::DataError;
use crate::models::DataShape;

/// Bytes that a tokenizer takes for each entry of its vocabulary, with its merges and both maps: GPT-2's, as measured
/// once what reading it took had been given back.
const TOKENIZER_ENTRY_BYTES: usize = 300;

/// Part of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SplitPart {
    /// Weights learn from it.
    Train,
    /// Choices are made on it.
    Validation,
    /// Final figures only.
    Test,
}

/// How the parts came about; recorded with every run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRecord {
    /// The rule in words: "last 10% of each document".
    pub rule: String,
    /// Examples (images) or tokens (text) for training.
    pub num_train: usize,
    /// The same for validation.
    pub num_validation: usize,
    /// The same for testing; 0 without a test part.
    pub num_test: usize,
}

/// Partial trouble that the user should see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataWarning {
    /// Files, or lines of a file, left out.
    SkippedFiles {
        /// How many.
        count: usize,
        /// The first few, each with its reason.
        examples: Vec<String>,
    },
    /// The largest class is this many times the smallest.
    ClassImbalance {
        /// Largest class: name and count.
        largest: (String, usize),
        /// Smallest class: name and count.
        smallest: (String, usize),
    },
    /// Too few validation examples to tell 1% apart.
    SmallValidation {
        /// How many there are.
        count: usize,
    },
    /// Characters that the tokenizer does not know. They became the unknown token, or nothing where it has none.
    /// A vocabulary of the training part's characters lacks only characters of the other parts; the tokenizer of
    /// another model may lack some of every part.
    UnknownCharacters {
        /// How many.
        count: usize,
    },
    /// A generated set could not be kept on disk, so the next start generates it again.
    NotCached {
        /// Why.
        reason: String,
    },
}

/// Where the documents of each part end, as counts of tokens from the part's start; the last one is the part's length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DocumentEnds {
    /// Training part.
    pub train: Vec<usize>,
    /// Validation part.
    pub validation: Vec<usize>,
    /// Test part.
    pub test: Vec<usize>,
}

/// Images of one part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSplit {
    /// Pixels, shape (n, channels, height, width), 0 to 255.
    pub pixels: Vec<u8>,
    /// Class of each image.
    pub labels: Vec<u32>,
}

/// Images with a class each. A clone shares their pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageDataset {
    /// Name to show.
    pub name: String,
    /// Color channels.
    pub channels: usize,
    /// Pixels.
    pub height: usize,
    /// Pixels.
    pub width: usize,
    /// Class names in label order.
    pub classes: Vec<String>,
    /// Training part.
    pub train: Arc<ImageSplit>,
    /// Validation part.
    pub validation: Arc<ImageSplit>,
    /// Test part; empty when there is none.
    pub test: Arc<ImageSplit>,
    /// Mean of pixel/255 per channel over the training part, unless [`Self::with_normalization`] set another.
    pub mean: Vec<f32>,
    /// Standard deviation of pixel/255 per channel over the training part, unless [`Self::with_normalization`] set
    /// another.
    pub std: Vec<f32>,
    /// How the parts came about.
    pub split: SplitRecord,
    /// Partial trouble.
    pub warnings: Vec<DataWarning>,
}

impl ImageDataset {
    /// The images of `part`.
    #[must_use]
    pub fn part(&self, part: SplitPart) -> &ImageSplit {
        match part {
            SplitPart::Train => &self.train,
            SplitPart::Validation => &self.validation,
            SplitPart::Test => &self.test,
        }
    }

    /// The same images, normalized as a model expects that was trained on others: by `mean` and `std` of pixel/255 per
    /// channel. The pixels are shared. Errors: [`DataError::Normalization`] unless there is a finite mean and a finite
    /// standard deviation above 0 for each channel.
    pub fn with_normalization(&self, mean: &[f32], std: &[f32]) -> Result<Self, DataError> {
        let fits = |values: &[f32]| values.len() == self.channels && values.iter().all(|value| value.is_finite());
        if fits(mean) && fits(std) && std.iter().all(|&value| value > 0.0) {
            return Ok(Self { mean: mean.to_vec(), std: std.to_vec(), ..self.clone() });
        }
        Err(DataError::Normalization {
            dataset: self.name.clone(),
            expected: format!("a finite mean and a standard deviation above 0 for each of {} channels", self.channels),
            found: format!("means {mean:?} and standard deviations {std:?}"),
        })
    }

    /// Bytes of one image: channels x height x width.
    #[must_use]
    pub fn image_bytes(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Training images of each class, in label order.
    #[must_use]
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for &label in &self.train.labels {
            if let Some(count) = counts.get_mut(label as usize) {
                *count += 1;
            }
        }
        counts
    }
}

/// Tokens, with the tokenizer that made them.
#[derive(Debug, Clone)]
pub struct TextDataset {
    /// Name to show.
    pub name: String,
    /// Text to tokens and back.
    pub tokenizer: tokenizers::Tokenizer,
    /// Number of distinct tokens.
    pub vocab_size: usize,
    /// Training part, documents joined.
    pub train: Vec<u32>,
    /// Validation part.
    pub validation: Vec<u32>,
    /// Test part; empty when there is none.
    pub test: Vec<u32>,
    /// Where documents end.
    pub document_ends: DocumentEnds,
    /// How the parts came about.
    pub split: SplitRecord,
    /// Partial trouble.
    pub warnings: Vec<DataWarning>,
}

impl TextDataset {
    /// The tokens of `part`.
    #[must_use]
    pub fn part(&self, part: SplitPart) -> &[u32] {
        match part {
            SplitPart::Train => &self.train,
            SplitPart::Validation => &self.validation,
            SplitPart::Test => &self.test,
        }
    }

    /// Where the documents of `part` end, in tokens.
    #[must_use]
    pub fn document_ends(&self, part: SplitPart) -> &[usize] {
        match part {
            SplitPart::Train => &self.document_ends.train,
            SplitPart::Validation => &self.document_ends.validation,
            SplitPart::Test => &self.document_ends.test,
        }
    }
}

/// Any dataset.
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and its pixels are on the heap")]
#[derive(Debug, Clone)]
pub enum Dataset {
    /// Images.
    Images(ImageDataset),
    /// Text.
    Text(Box<TextDataset>),
}

impl Dataset {
    /// Name to show.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Images(images) => &images.name,
            Self::Text(text) => &text.name,
        }
    }

    /// What it asks of a model.
    #[must_use]
    pub fn shape(&self) -> DataShape {
        match self {
            Self::Images(images) => DataShape::Images {
                channels: images.channels,
                height: images.height,
                width: images.width,
                num_classes: images.classes.len(),
            },
            Self::Text(text) => DataShape::Text { vocab_size: text.vocab_size },
        }
    }

    /// How the parts came about.
    #[must_use]
    pub fn split(&self) -> &SplitRecord {
        match self {
            Self::Images(images) => &images.split,
            Self::Text(text) => &text.split,
        }
    }

    /// Partial trouble.
    #[must_use]
    pub fn warnings(&self) -> &[DataWarning] {
        match self {
            Self::Images(images) => &images.warnings,
            Self::Text(text) => &text.warnings,
        }
    }

    /// The same images, normalized as a model expects that was trained on others. See
    /// [`ImageDataset::with_normalization`]. Errors: [`DataError::Normalization`], for text always.
    pub fn with_normalization(&self, mean: &[f32], std: &[f32]) -> Result<Self, DataError> {
        match self {
            Self::Images(images) => Ok(Self::Images(images.with_normalization(mean, std)?)),
            Self::Text(text) => Err(DataError::Normalization {
                dataset: text.name.clone(),
                expected: "images".to_owned(),
                found: "text".to_owned(),
            }),
        }
    }

    /// Bytes of memory that the examples and a tokenizer take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Images(images) => [&images.train, &images.validation, &images.test]
                .iter()
                .map(|split| split.pixels.len() + 4 * split.labels.len())
                .sum::<usize>(),
            Self::Text(text) => {
                let num_tokens = text.train.len() + text.validation.len() + text.test.len();
                4 * num_tokens + TOKENIZER_ENTRY_BYTES * text.vocab_size
            }
        };
        bytes as u64
    }
}
