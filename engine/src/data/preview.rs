//! What a dataset looks like, for a person to look at.

use std::sync::Arc;

use super::{DataWarning, Dataset, ImageDataset, SplitRecord, TextDataset};

/// An image to show.
#[derive(Debug, Clone, PartialEq)]
pub struct ImagePreview {
    /// Pixels (channels, height, width), 0 to 255.
    pub pixels: Arc<[u8]>,
    /// Class.
    pub label: u32,
}

/// A token to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPreview {
    /// Its number.
    pub id: u32,
    /// Its text.
    pub text: String,
}

/// A dataset, described.
#[derive(Debug, Clone)]
pub struct DataPreview {
    /// Name.
    pub name: String,
    /// How it was split.
    pub split: SplitRecord,
    /// Partial trouble.
    pub warnings: Vec<DataWarning>,
    /// What there is to see.
    pub examples: PreviewExamples,
}

/// What there is to see of a dataset.
#[derive(Debug, Clone)]
pub enum PreviewExamples {
    /// Images.
    Images {
        /// (channels, height, width).
        shape: (usize, usize, usize),
        /// Class names.
        classes: Arc<[String]>,
        /// Training images of each class.
        class_counts: Vec<usize>,
        /// Some images of each class.
        images: Vec<ImagePreview>,
    },
    /// Text.
    Text {
        /// Distinct tokens.
        vocab_size: usize,
        /// The beginning of the training part, token by token.
        tokens: Vec<TokenPreview>,
    },
}

/// Most tokens shown of a text.
const MAX_TOKENS: usize = 400;

/// Describes `dataset`, with at most `max_images` images, evenly from its classes.
#[must_use]
pub fn preview(dataset: &Dataset, max_images: usize) -> DataPreview {
    let examples = match dataset {
        Dataset::Images(images) => preview_images(images, max_images),
        Dataset::Text(text) => preview_text(text),
    };
    DataPreview {
        name: dataset.name().to_owned(),
        split: dataset.split().clone(),
        warnings: dataset.warnings().to_vec(),
        examples,
    }
}

/// The first images of each class, class after class.
fn preview_images(dataset: &ImageDataset, max_images: usize) -> PreviewExamples {
    let num_classes = dataset.classes.len().max(1);
    // With more classes than images, the first classes get one each.
    let per_class = (max_images / num_classes).max(1);
    let mut by_class = vec![Vec::new(); num_classes];
    for (pixels, &label) in dataset.train.pixels.chunks_exact(dataset.image_bytes()).zip(&dataset.train.labels) {
        if let Some(images) = by_class.get_mut(label as usize)
            && images.len() < per_class
        {
            images.push(ImagePreview { pixels: Arc::from(pixels), label });
        }
    }
    PreviewExamples::Images {
        shape: (dataset.channels, dataset.height, dataset.width),
        classes: dataset.classes.clone().into(),
        class_counts: dataset.class_counts(),
        images: by_class.into_iter().flatten().take(max_images).collect(),
    }
}

fn preview_text(dataset: &TextDataset) -> PreviewExamples {
    let tokens = dataset.train.iter().take(MAX_TOKENS);
    PreviewExamples::Text {
        vocab_size: dataset.vocab_size,
        tokens: tokens.map(|&id| TokenPreview { id, text: token_text(&dataset.tokenizer, id) }).collect(),
    }
}

/// The text of one token; the vocabulary's own spelling where the token is a part of a character.
fn token_text(tokenizer: &tokenizers::Tokenizer, id: u32) -> String {
    let spelling = || tokenizer.id_to_token(id).unwrap_or_else(|| format!("<{id}>"));
    match tokenizer.decode(&[id], false) {
        Ok(text) if !text.is_empty() && !text.contains(char::REPLACEMENT_CHARACTER) => text,
        Ok(_) | Err(_) => spelling(),
    }
}
