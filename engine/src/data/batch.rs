//! Batches: what a training step or a validation looks at.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Tensor};

use super::draw::Draw;
use super::gather::{Change, gather};
use super::segments::Segments;
use super::{Augmentation, DataError, Dataset, ImageDataset, SplitPart, TextDataset};
use crate::device::seed::Stream;

/// Inputs with what they should become.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Images: (n, channels, height, width) f32, normalized by mean and standard deviation per channel.
    /// Text: (n, t) u32 tokens.
    pub inputs: Tensor,
    /// Images: (n) u32 classes. Text: (n, t) u32, each the token after its input.
    pub targets: Tensor,
}

/// An example as the dataset holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Example<'a> {
    /// An image.
    Image {
        /// channels x height x width, 0 to 255.
        pixels: &'a [u8],
        /// Its class.
        label: u32,
    },
    /// The inputs of a sequence and the token after them.
    Text(&'a [u32]),
}

/// How batches are drawn.
#[derive(Debug, Clone)]
pub struct BatchConfig {
    /// Images or sequences per batch.
    pub batch_size: usize,
    /// Tokens per sequence; unused for images.
    pub sequence_length: usize,
    /// Changes to training images; unused for text.
    pub augmentation: Augmentation,
    /// Seed of order, windows and changes.
    pub seed: u64,
    /// Where the tensors go.
    pub device: Device,
}

/// Draws batches from a dataset.
///
/// Invariant: the batch of a step is a function of (dataset, config, step) alone; what is kept between calls only
/// saves time.
#[derive(Debug)]
pub struct BatchSource {
    dataset: Arc<Dataset>,
    config: BatchConfig,
    /// Text: segments of the train, validation and test parts.
    segments: [Segments; 3],
    /// Images: the order of the epoch that was drawn last.
    order: Mutex<Option<(u64, Arc<[u32]>)>>,
}

impl BatchSource {
    /// Batches of `config` from `dataset`.
    /// Errors: [`DataError::Batch`] on a size of 0, an empty training part, or a text shorter than one sequence.
    pub fn new(dataset: Arc<Dataset>, config: BatchConfig) -> Result<Self, DataError> {
        let refuse = |expected: String, found: String, hint| {
            Err(DataError::Batch { dataset: dataset.name().to_owned(), expected, found, hint })
        };
        if config.batch_size == 0 {
            return refuse("a batch size of at least 1".into(), "0".into(), "Raise the batch size");
        }
        let parts = [SplitPart::Train, SplitPart::Validation, SplitPart::Test];
        let segments = match &*dataset {
            Dataset::Images(images) => {
                if images.train.labels.is_empty() || images.image_bytes() == 0 {
                    return refuse("training images".into(), "none".into(), "Choose another dataset");
                }
                parts.map(|_| Segments::new(&[], 0, 1))
            }
            Dataset::Text(text) => {
                if config.sequence_length == 0 {
                    return refuse("sequences of at least 1 token".into(), "0".into(), "Raise the sequence length");
                }
                let segments = parts.map(|part| segments_of(text, part, config.sequence_length));
                if segments[0].num_starts() == 0 {
                    return refuse(
                        format!("a training part of at least {} tokens", config.sequence_length.saturating_add(1)),
                        format!("{}", text.train.len()),
                        "Lower the sequence length or use a longer text",
                    );
                }
                segments
            }
        };
        Ok(Self { dataset, config, segments, order: Mutex::new(None) })
    }

    /// The dataset.
    #[must_use]
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// The config.
    #[must_use]
    pub fn config(&self) -> &BatchConfig {
        &self.config
    }

    /// Images of `part`; for text, sequences that lie in it side by side.
    #[must_use]
    pub fn num_examples(&self, part: SplitPart) -> usize {
        match &*self.dataset {
            Dataset::Images(images) => images.part(part).labels.len(),
            Dataset::Text(_) => self.segments_of(part).num_windows(),
        }
    }

    /// The training batch of `step`, always full. Images: each epoch shows every image once, in an order of its own;
    /// a batch may span two epochs. Text: random windows. Errors: [`DataError::Tensor`].
    pub fn train_batch(&self, step: u64) -> Result<Batch, DataError> {
        match &*self.dataset {
            Dataset::Images(images) => {
                let indices = self.train_indices(images.train.labels.len(), step);
                let mut draw = Draw::new(self.config.seed, Stream::Augment, step);
                let augmentation = self.config.augmentation;
                let changes = if augmentation == Augmentation::default() {
                    Vec::new()
                } else {
                    Change::draw(augmentation, indices.len(), &mut draw)
                };
                self.image_batch(images, SplitPart::Train, &indices, &changes)
            }
            Dataset::Text(text) => {
                let mut draw = Draw::new(self.config.seed, Stream::Data, step);
                let segments = self.segments_of(SplitPart::Train);
                let starts: Vec<usize> = (0..self.config.batch_size)
                    .filter_map(|_| segments.start(draw.below(segments.num_starts())))
                    .collect();
                self.text_batch(&text.train, &starts, self.config.sequence_length)
            }
        }
    }

    /// Batches over `part` in order, without changes; the last may be smaller. With more than `max_examples` examples,
    /// that many, evenly spread. Text: sequences side by side; a part shorter than one gives one short sequence.
    pub fn evaluation_batches(
        &self,
        part: SplitPart,
        max_examples: usize,
    ) -> impl Iterator<Item = Result<Batch, DataError>> + '_ {
        let chosen: Vec<usize> = self.evaluation_indices(part, max_examples).collect();
        let first_of_each = (0..chosen.len()).step_by(self.config.batch_size);
        first_of_each.map(move |first| {
            let last = (first + self.config.batch_size).min(chosen.len());
            self.evaluation_batch(part, chosen[first..last].iter().copied())
        })
    }

    /// The examples of [`Self::evaluation_batches`], in the same order, as the dataset holds them.
    pub fn evaluation_examples(&self, part: SplitPart, max_examples: usize) -> impl Iterator<Item = Example<'_>> {
        self.evaluation_indices(part, max_examples).filter_map(move |i| match &*self.dataset {
            Dataset::Images(images) => {
                let (split, size) = (images.part(part), images.image_bytes());
                let pixels = split.pixels.get(i * size..(i + 1) * size)?;
                Some(Example::Image { pixels, label: *split.labels.get(i)? })
            }
            Dataset::Text(text) => {
                let (tokens, segments) = (text.part(part), self.segments_of(part));
                if segments.num_windows() == 0 {
                    return Some(Example::Text(tokens));
                }
                let start = segments.window_start(i)?;
                tokens.get(start..=start + self.config.sequence_length).map(Example::Text)
            }
        })
    }

    /// Which examples of `part` an evaluation looks at: all, or `max_examples` of them, evenly spread.
    fn evaluation_indices(&self, part: SplitPart, max_examples: usize) -> impl Iterator<Item = usize> + use<> {
        let total = match &*self.dataset {
            Dataset::Images(images) => images.part(part).labels.len(),
            Dataset::Text(text) => self.num_examples(part).max(usize::from(text.part(part).len() > 1)),
        };
        let chosen = total.min(max_examples);
        // The product of two counts fits 128 bits.
        (0..chosen).map(move |i| (i as u128 * total as u128 / chosen as u128) as usize)
    }

    fn evaluation_batch(&self, part: SplitPart, examples: impl Iterator<Item = usize>) -> Result<Batch, DataError> {
        match &*self.dataset {
            Dataset::Images(images) => {
                let indices: Vec<u32> = examples.map(|i| i as u32).collect();
                self.image_batch(images, part, &indices, &[])
            }
            Dataset::Text(text) => {
                let tokens = text.part(part);
                let segments = self.segments_of(part);
                if segments.num_windows() == 0 {
                    return self.text_batch(tokens, &[0], tokens.len().saturating_sub(1));
                }
                let starts: Vec<usize> = examples.filter_map(|i| segments.window_start(i)).collect();
                self.text_batch(tokens, &starts, self.config.sequence_length)
            }
        }
    }

    fn segments_of(&self, part: SplitPart) -> &Segments {
        let [train, validation, test] = &self.segments;
        match part {
            SplitPart::Train => train,
            SplitPart::Validation => validation,
            SplitPart::Test => test,
        }
    }

    /// Indices of the images of `step`.
    fn train_indices(&self, num_images: usize, step: u64) -> Vec<u32> {
        let first = u128::from(step) * self.config.batch_size as u128;
        (0..self.config.batch_size as u128)
            .filter_map(|i| {
                let position = first + i;
                let epoch = (position / num_images as u128) as u64;
                let position = (position % num_images as u128) as usize;
                self.epoch_order(num_images, epoch).get(position).copied()
            })
            .collect()
    }

    fn epoch_order(&self, num_images: usize, epoch: u64) -> Arc<[u32]> {
        let mut kept = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((kept_epoch, order)) if *kept_epoch == epoch => Arc::clone(order),
            Some(_) | None => {
                let order: Arc<[u32]> = Draw::new(self.config.seed, Stream::Data, epoch).permutation(num_images).into();
                *kept = Some((epoch, Arc::clone(&order)));
                order
            }
        }
    }

    fn image_batch(
        &self,
        images: &ImageDataset,
        part: SplitPart,
        indices: &[u32],
        changes: &[Change],
    ) -> Result<Batch, DataError> {
        let split = images.part(part);
        let device = &self.config.device;
        let pixels = gather(images, split, indices, changes);
        let shape = (indices.len(), images.channels, images.height, images.width);
        let labels: Vec<u32> = indices.iter().filter_map(|&i| split.labels.get(i as usize).copied()).collect();
        Ok(Batch {
            inputs: Tensor::from_vec(pixels, shape, device)?,
            targets: Tensor::from_vec(labels, indices.len(), device)?,
        })
    }

    fn text_batch(&self, tokens: &[u32], starts: &[usize], length: usize) -> Result<Batch, DataError> {
        let device = &self.config.device;
        let pick = |shift: usize| {
            let window = |&start: &usize| -> Range<usize> { start + shift..start + shift + length };
            let values: Vec<u32> =
                starts.iter().filter_map(|start| tokens.get(window(start))).flatten().copied().collect();
            Tensor::from_vec(values, (starts.len(), length), device)
        };
        Ok(Batch { inputs: pick(0)?, targets: pick(1)? })
    }
}

fn segments_of(text: &TextDataset, part: SplitPart, sequence_length: usize) -> Segments {
    Segments::new(text.document_ends(part), text.part(part).len(), sequence_length)
}
