//! What the model does on fixed inputs, after each validation.

use std::sync::Arc;

use candle_core::{D, DType, Device, IndexOp, Tensor};
use rand::RngExt;
use serde_json::json;

use super::{ImageSample, Samples, SessionError};
use crate::data::{Dataset, ImageDataset, TextDataset};
use crate::device::seed::{Stream, stream};
use crate::models::{Forward, Mode, Network, Params};

/// Images in the grid.
const NUM_IMAGES: usize = 24;
/// Tokens of the fixed prompt.
const PROMPT_TOKENS: usize = 24;
/// Tokens added to it.
const NEW_TOKENS: usize = 96;
/// Sampling temperature: below 1, so that early models show words, not noise.
const TEMPERATURE: f64 = 0.8;

/// Takes samples of a run.
pub(super) struct Sampler {
    dataset: Arc<Dataset>,
    seed: u64,
}

impl Sampler {
    pub(super) fn new(dataset: Arc<Dataset>, seed: u64) -> Self {
        Self { dataset, seed }
    }

    /// What `network` makes of the fixed inputs; `None` when the validation part is empty.
    pub(super) fn take(&self, step: u64, network: &Network, params: &Params) -> Result<Option<Samples>, SessionError> {
        match &*self.dataset {
            Dataset::Images(images) => classify(images, step, network, params),
            Dataset::Text(text) => self.complete(text, step, network, params),
        }
    }

    fn complete(
        &self,
        text: &TextDataset,
        step: u64,
        network: &Network,
        params: &Params,
    ) -> Result<Option<Samples>, SessionError> {
        let mut tokens: Vec<u32> = text.validation.iter().take(PROMPT_TOKENS).copied().collect();
        if tokens.is_empty() {
            return Ok(None);
        }
        let device = device_of(params);
        let num_prompt = tokens.len();
        let max_positions = network.config().max_positions().unwrap_or(NEW_TOKENS);
        // The same numbers at every step, so that what changes is the model.
        let mut rng = stream(self.seed, Stream::Sample, 0);
        for _ in 0..NEW_TOKENS {
            let window = &tokens[tokens.len().saturating_sub(max_positions)..];
            let input = Tensor::new(window, &device)?.unsqueeze(0)?;
            let logits = network.forward(&Forward::new(params, Mode::Eval), &input)?;
            let last = logits.i((0, window.len() - 1))?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            tokens.push(draw(&last, rng.random::<f64>()));
        }
        let decode = |ids: &[u32]| {
            text.tokenizer.decode(ids, false).map_err(|error| SessionError::Recipe {
                what: format!("the tokenizer cannot turn tokens into text: {error}. Choose another tokenizer"),
            })
        };
        Ok(Some(Samples::Text {
            step,
            prompt: decode(&tokens[..num_prompt])?,
            completion: decode(&tokens[num_prompt..])?,
        }))
    }
}

impl Samples {
    /// As a file in the run's `samples` folder.
    pub(super) fn record(&self) -> serde_json::Value {
        match self {
            Self::Images { step, classes, images, .. } => json!({
                "step": step,
                "classes": classes,
                "images": images.iter().map(|image| json!({
                    "label": image.label, "predicted": image.predicted, "probability": image.probability,
                })).collect::<Vec<_>>(),
            }),
            Self::Text { step, prompt, completion } => {
                json!({ "step": step, "prompt": prompt, "completion": completion })
            }
        }
    }
}

fn classify(
    images: &ImageDataset,
    step: u64,
    network: &Network,
    params: &Params,
) -> Result<Option<Samples>, SessionError> {
    let num_images = NUM_IMAGES.min(images.validation.labels.len());
    if num_images == 0 {
        return Ok(None);
    }
    let shape = (images.channels, images.height, images.width);
    let size = shape.0 * shape.1 * shape.2;
    let stride = images.validation.labels.len() / num_images;
    let pixels_of = |number: usize| &images.validation.pixels[number * stride * size..][..size];
    let mut values = Vec::with_capacity(num_images * size);
    for number in 0..num_images {
        for (channel, plane) in pixels_of(number).chunks(size / shape.0).enumerate() {
            let (mean, std) = (images.mean[channel], images.std[channel]);
            values.extend(plane.iter().map(|&pixel| (f32::from(pixel) / 255.0 - mean) / std));
        }
    }
    let input = Tensor::from_vec(values, (num_images, shape.0, shape.1, shape.2), &device_of(params))?;
    let logits = network.forward(&Forward::new(params, Mode::Eval), &input)?;
    let probabilities = candle_nn::ops::softmax(&logits, D::Minus1)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let samples = probabilities.iter().enumerate().map(|(number, row)| {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or((0, 0.0), |(i, &p)| (i, p));
        ImageSample {
            pixels: Arc::from(pixels_of(number)),
            label: images.validation.labels[number * stride],
            predicted: best.0 as u32,
            probability: best.1,
        }
    });
    Ok(Some(Samples::Images { step, shape, classes: Arc::from(images.classes.as_slice()), images: samples.collect() }))
}

fn device_of(params: &Params) -> Device {
    params.iter().next().map_or(Device::Cpu, |(_, tensor)| tensor.device().clone())
}

/// The token at `uniform` (0 to 1) of the cumulative distribution of `logits` at [`TEMPERATURE`].
fn draw(logits: &[f32], uniform: f64) -> u32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit - max) / TEMPERATURE).exp()).collect();
    let mut left = uniform * weights.iter().sum::<f64>();
    for (token, weight) in weights.iter().enumerate() {
        left -= weight;
        if left <= 0.0 {
            return token as u32;
        }
    }
    weights.len().saturating_sub(1) as u32
}
