//! Which dataset: what a recipe or a command line names.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A dataset by name or by place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DatasetSpec {
    /// Built in: digits drawn from stroke fonts, 28x28 grey, 20,000 + 4,000.
    Glyphs,
    /// Built in: text from a stochastic grammar, 2 MB.
    Grammar,
    /// Built in: lines that repeat a random sequence of letters, 1 MB; depth matters.
    Rounds,
    /// Folder with MNIST-style IDX files, plain or .gz.
    Idx {
        /// The folder.
        path: PathBuf,
    },
    /// CIFAR-10 in its binary layout: a .tar.gz archive or the unpacked folder.
    Cifar10 {
        /// Archive or folder.
        path: PathBuf,
    },
    /// One folder per class, with PNG or JPEG files.
    ImageFolder {
        /// The folder of folders.
        path: PathBuf,
        /// Height and width that every image is scaled to.
        image_size: (usize, usize),
    },
    /// A text file, or a folder of .txt files.
    Text {
        /// File or folder.
        path: PathBuf,
        /// How text becomes tokens.
        tokenizer: TokenizerSpec,
    },
    /// One JSON object a line.
    Jsonl {
        /// The file.
        path: PathBuf,
        /// The field that holds the text.
        field: String,
        /// How text becomes tokens.
        tokenizer: TokenizerSpec,
    },
}

impl DatasetSpec {
    /// The same text by the tokenizer in `path`, the `tokenizer.json` of a checkpoint or package, so that its model can
    /// be measured on it. Images stay as they are; so do the built-in texts, which have character vocabularies of their
    /// own.
    #[must_use]
    pub fn with_tokenizer(&self, path: &Path) -> Self {
        let mut spec = self.clone();
        match &mut spec {
            Self::Text { tokenizer, .. } | Self::Jsonl { tokenizer, .. } => {
                *tokenizer = TokenizerSpec::File { path: path.to_owned() };
            }
            Self::Glyphs
            | Self::Grammar
            | Self::Rounds
            | Self::Idx { .. }
            | Self::Cifar10 { .. }
            | Self::ImageFolder { .. } => {}
        }
        spec
    }
}

/// How text becomes tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenizerSpec {
    /// 256 bytes.
    Byte,
    /// The distinct characters of the training part.
    Char,
    /// GPT-2's byte-level BPE from a folder with `encoder.json` (or `vocab.json`) and `vocab.bpe` (or `merges.txt`).
    Gpt2 {
        /// The folder.
        folder: PathBuf,
    },
    /// A Hugging Face `tokenizer.json`, also one that a checkpoint holds.
    File {
        /// The file.
        path: PathBuf,
    },
}

/// Random changes to training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Mirror half of the images.
    pub flip: bool,
    /// Shift by up to this many pixels each way, filling with zeros.
    pub shift_pixels: u32,
}
