//! A streamed step in small: the first layers of the same network, at most so wide, go through memory and back to disk as
//! the whole will. Its pace, in weights a second, foretells a step of the whole, with everything that no rate of its own
//! shows: copies, conversions, fresh pages, and two threads that read and write with the cores that compute.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::store::{Commit, OffloadSettings};
use super::trainer::Ended;
use super::{OffloadError, OffloadTrainer, Precision};
use crate::data::Batch;
use crate::device::Watch;
use crate::hybrid::{Backward, Sample, Seen, StepCosts, StepOrder};
use crate::models::{Gpt2Config, LlamaConfig, ModelConfig, Network, TensorSpec, ops};
use crate::optim::OptimizerConfig;

/// Most weights of the layers that are rehearsed, where two layers have fewer.
const MOST_WEIGHTS: usize = 64 << 20;
/// Widest rehearsed layer. Matrices of 16 MiB and more come from memory, not from a core's cache, at any width.
const MAX_WIDTH: usize = 2048;
/// Times that a full and a sampled step take turns; the fastest of each counts.
const ROUNDS: usize = 2;
/// Tokens of the rehearsed vocabulary.
const VOCAB_SIZE: usize = 256;

/// What a step is made of.
#[derive(Debug, Clone, Copy)]
pub struct StepShape {
    /// Sequences.
    pub batch_size: usize,
    /// Tokens of each.
    pub sequence_length: usize,
    /// Of matrix products.
    pub products: ops::Precision,
    /// How numbers lie on disk.
    pub precision: Precision,
    /// Share of a batch that goes back in Predict; `None` where no step samples.
    pub sampling: Option<f64>,
}

/// What a rehearsal shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rehearsed {
    /// Weights that a step takes forward, back and to disk in a second.
    pub(super) weights_per_second: f64,
    /// What a Predict step costs; `None` where no step samples, or a batch is a single sequence.
    pub(super) step_costs: Option<StepCosts>,
}

/// Steps of a small network that `device` computes, from and to `place`, an empty folder whose files nobody keeps. `None` where
/// the disk has no room for that.
pub(super) fn rehearse(
    (place, device): (&Path, &Device),
    config: &ModelConfig,
    optimizer: &OptimizerConfig,
    shape: StepShape,
    watch: Watch<'_>,
) -> Result<Option<Rehearsed>, OffloadError> {
    let Some(config) = small(config) else { return Ok(None) };
    let network = Arc::new(Network::new(&config)?);
    let settings = OffloadSettings {
        folder: place.to_owned(),
        precision: shape.precision,
        commit: Some(Commit::Block),
        seed: 0,
        data: String::new(),
        start: None,
    };
    let mut first = |spec: &TensorSpec| Ok(some_weights(spec));
    // What a rehearsal says of its progress is nobody's.
    let quiet = Watch::new(watch.cancel_flag(), &|_| {});
    let opened = OffloadTrainer::open(Arc::clone(&network), optimizer, &settings, Some(&mut first), quiet);
    let mut trainer = match opened {
        Err(OffloadError::DiskSpace { .. }) => return Ok(None),
        opened => opened?.with_products(shape.products).computing_on(device.clone()),
    };
    let tokens = |shift: usize| {
        let count = shape.batch_size * shape.sequence_length;
        let ids: Vec<u32> = (0..count).map(|i| ((i * 37 + shift) % VOCAB_SIZE) as u32).collect();
        Tensor::from_vec(ids, (shape.batch_size, shape.sequence_length), device)
    };
    let batch = Batch { inputs: tokens(0)?, targets: tokens(37)? };
    // The first step makes files, pages and threads; the second is like all others.
    trainer.step(&batch, 0.0, quiet)?;
    let seconds = trainer.step(&batch, 0.0, quiet)?.seconds;
    let weights_per_second = network.num_params() as f64 / seconds;
    let step_costs = match shape.sampling {
        Some(share) if shape.batch_size > 1 => step_costs(&mut trainer, &batch, share, quiet)?,
        Some(_) | None => None,
    };
    Ok(Some(Rehearsed { weights_per_second, step_costs }))
}

/// Times steps in which all goes back and in which a sample does, in turns. Reading, updates and writing take the same time in
/// both: they count with the forward pass, not in proportion to the sample.
fn step_costs(
    trainer: &mut OffloadTrainer,
    batch: &Batch,
    share: f64,
    watch: Watch<'_>,
) -> Result<Option<StepCosts>, OffloadError> {
    let num_units = batch.targets.dim(0)?;
    let count = ((share * num_units as f64).round() as usize).clamp(1, num_units - 1);
    let order = StepOrder { learning_rate_factor: 0.0, measures_errors: true, looks_first: true };
    let mut seconds = |count: usize| {
        let choose = |_: &Seen| Backward::Sample(Sample::first(count, num_units));
        let step = trainer.streamed(batch, order, &choose, watch, |_, _| Ok(Ended::default()))?;
        Ok::<f64, OffloadError>(step.seconds)
    };
    let (mut whole, mut sampled) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        whole = whole.min(seconds(num_units)?);
        sampled = sampled.min(seconds(count)?);
    }
    let share = count as f64 / num_units as f64;
    let slice = ((whole - sampled) / (1.0 - share)).max(0.0);
    Ok(StepCosts::from_times(whole, sampled - slice * share, sampled, share))
}

/// The same network with fewer and at most so wide layers; `None` for one of images.
fn small(config: &ModelConfig) -> Option<ModelConfig> {
    match config {
        ModelConfig::Gpt2(config) => {
            let shrink = divisor(config.n_embd, config.n_head, config.n_head);
            let n_embd = config.n_embd / shrink;
            Some(ModelConfig::Gpt2(Gpt2Config {
                vocab_size: VOCAB_SIZE,
                n_embd,
                n_head: config.n_head / shrink,
                n_layer: num_layers(config.n_layer, 12 * n_embd * n_embd),
                ..config.clone()
            }))
        }
        ModelConfig::Llama(config) => {
            let shrink = divisor(config.hidden_size, config.num_attention_heads, config.num_key_value_heads);
            let (hidden_size, intermediate_size) = (config.hidden_size / shrink, config.intermediate_size / shrink);
            Some(ModelConfig::Llama(LlamaConfig {
                vocab_size: VOCAB_SIZE,
                hidden_size,
                intermediate_size,
                num_attention_heads: config.num_attention_heads / shrink,
                num_key_value_heads: config.num_key_value_heads / shrink,
                num_hidden_layers: num_layers(
                    config.num_hidden_layers,
                    hidden_size * (2 * hidden_size + 3 * intermediate_size),
                ),
                ..config.clone()
            }))
        }
        ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => None,
    }
}

/// What heads of both kinds, and with them the width, are divided by: heads keep their size.
fn divisor(width: usize, num_heads: usize, num_kv_heads: usize) -> usize {
    let divides = |by: &usize| num_heads.is_multiple_of(*by) && num_kv_heads.is_multiple_of(*by);
    let wanted = width.div_ceil(MAX_WIDTH).max(1);
    let is_wide = |by: &usize| width / by >= MAX_WIDTH / 2;
    (wanted..=num_kv_heads).find(divides).filter(is_wide).unwrap_or(1)
}

/// As many layers as are still quick, and two at least, so that one is read while the other computes.
fn num_layers(most: usize, num_weights: usize) -> usize {
    (MOST_WEIGHTS / num_weights.max(1)).max(2).min(most)
}

/// Numbers that are neither all alike nor of extreme size, at once.
fn some_weights(spec: &TensorSpec) -> Vec<f32> {
    (0..spec.num_elements()).map(|i| ((i * 7919) % 1009) as f32 * 4e-5 - 0.02).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::ScratchFolder;
    use super::super::tests::optimizer;
    use super::*;
    use crate::models::{DataShape, ModelPreset};

    fn shrunk(preset: &str) -> (ModelConfig, ModelConfig) {
        let shape = DataShape::Text { vocab_size: 32_000 };
        let whole = ModelPreset::from_label(preset).unwrap().config(shape).unwrap();
        let small = small(&whole).unwrap();
        (whole, small)
    }

    #[test]
    fn rehearsed_networks_are_small_and_of_the_same_make() {
        for preset in ["gpt2-char", "gpt2-124m", "gpt2-1.5b", "llama-1.1b", "llama-7b", "bitnet-2.4b"] {
            let (whole, small) = shrunk(preset);
            let (whole, small) = (Network::new(&whole).unwrap(), Network::new(&small).unwrap());
            assert!(small.num_params() < (140 << 20), "{preset}: {}", small.num_params());
            assert!(small.blocks().len() >= 4 && small.blocks().len() <= whole.blocks().len(), "{preset}");
            let names = |network: &Network| -> Vec<String> {
                network.blocks()[1].specs().into_iter().map(|spec| spec.name).collect()
            };
            assert_eq!(names(&whole), names(&small), "{preset}");
        }
    }

    #[test]
    fn heads_keep_their_size() {
        let (ModelConfig::Llama(whole), ModelConfig::Llama(small)) = shrunk("llama-7b") else { panic!("llamas") };
        let head = |config: &LlamaConfig| config.hidden_size / config.num_attention_heads;
        assert_eq!((head(&whole), small.hidden_size), (head(&small), 2048));
    }

    #[test]
    fn a_rehearsal_leaves_nothing_and_hinders_nobody() {
        let root = tempfile::tempdir().unwrap();
        let (config, _) = shrunk("gpt2-char");
        let shape = StepShape {
            batch_size: 1,
            sequence_length: 16,
            products: ops::Precision::F32,
            precision: Precision::Compact,
            sampling: None,
        };
        let rehearse = |shape| {
            let place = ScratchFolder::new(root.path()).unwrap();
            let there = (place.path(), &Device::Cpu);
            rehearse(there, &config, &optimizer(), shape, crate::unwatched!()).unwrap().unwrap()
        };
        let plain = rehearse(shape);
        assert!(plain.weights_per_second > 0.0 && plain.step_costs.is_none());
        // A single sequence goes back or it does not: that is no sample.
        assert!(rehearse(StepShape { sampling: Some(0.25), ..shape }).step_costs.is_none());
        let costs = rehearse(StepShape { batch_size: 4, sampling: Some(0.25), ..shape }).step_costs.unwrap();
        assert!(costs.forward > 0.0 && costs.of_slice(0.25) >= costs.forward, "{costs:?}");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
