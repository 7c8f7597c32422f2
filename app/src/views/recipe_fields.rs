//! A recipe as a list of named values: to read, and to find what tells two recipes apart.

use std::path::Path;

use foretrain_engine::data::{DatasetSpec, TokenizerSpec};
use foretrain_engine::device::ComputeDevice;
use foretrain_engine::models::ModelConfig;
use foretrain_engine::models::ops::Kept;
use foretrain_engine::optim::{OptimizerKind, Schedule};
use foretrain_engine::session::RunConfig;

use crate::state::preset_of;
use crate::widgets::number;

/// The card of the form that a value stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipeCard {
    /// What it learns from.
    Data,
    /// What learns.
    Model,
    /// How it predicts.
    Tier,
    /// How weights move.
    Training,
    /// What precision the weights are trained for.
    Quantization,
}

/// A value of a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeField {
    /// Its card.
    pub card: RecipeCard,
    /// Its name in the form.
    pub name: &'static str,
    /// The value in words.
    pub value: String,
    /// The value says by itself what it is: "AdamW".
    is_telling: bool,
}

impl RecipeField {
    /// In a few words, for a line of several: "seed 7", "AdamW".
    #[must_use]
    pub fn short(&self) -> String {
        if self.is_telling { self.value.clone() } else { format!("{} {}", self.name.to_lowercase(), self.value) }
    }
}

/// Everything that decides a run, in the order of the form; where its files go and how much memory it may take do not.
#[must_use]
pub fn recipe_fields(config: &RunConfig) -> Vec<RecipeField> {
    let mut fields = Vec::new();
    for (card, add) in [
        (RecipeCard::Data, data as fn(&RunConfig, &mut Vec<Value>)),
        (RecipeCard::Model, model),
        (RecipeCard::Tier, tier),
        (RecipeCard::Training, training),
        (RecipeCard::Training, optimizer),
        (RecipeCard::Training, record),
        (RecipeCard::Quantization, quantization),
    ] {
        let mut values = Vec::new();
        add(config, &mut values);
        fields.extend(values.into_iter().map(|(name, value, is_telling)| RecipeField {
            card,
            name,
            value,
            is_telling,
        }));
    }
    fields
}

/// Name, value, and whether the value says by itself what it is.
type Value = (&'static str, String, bool);

fn data(config: &RunConfig, values: &mut Vec<Value>) {
    let (kind, path, tokenizer) = match &config.data {
        DatasetSpec::Glyphs => ("glyphs", None, None),
        DatasetSpec::Grammar => ("grammar", None, None),
        DatasetSpec::Rounds => ("rounds", None, None),
        DatasetSpec::Idx { path } => ("IDX images", Some(path), None),
        DatasetSpec::Cifar10 { path } => ("CIFAR-10", Some(path), None),
        DatasetSpec::ImageFolder { path, .. } => ("image folder", Some(path), None),
        DatasetSpec::Text { path, tokenizer } => ("text files", Some(path), Some(tokenizer)),
        DatasetSpec::Jsonl { path, tokenizer, .. } => ("JSONL text", Some(path), Some(tokenizer)),
    };
    values.push(("Dataset", kind.to_owned(), true));
    if let Some(path) = path {
        values.push(("Path", path.display().to_string(), false));
    }
    match &config.data {
        DatasetSpec::ImageFolder { image_size: (height, width), .. } => {
            values.push(("Image size", format!("{width} x {height} px"), false));
        }
        DatasetSpec::Jsonl { field, .. } => values.push(("Text field", field.clone(), false)),
        DatasetSpec::Glyphs
        | DatasetSpec::Grammar
        | DatasetSpec::Rounds
        | DatasetSpec::Idx { .. }
        | DatasetSpec::Cifar10 { .. }
        | DatasetSpec::Text { .. } => {}
    }
    if let Some(tokenizer) = tokenizer {
        values.push(("Tokens", tokenizer_text(tokenizer), true));
    }
}

fn tokenizer_text(tokenizer: &TokenizerSpec) -> String {
    let named = |path: &Path| path.display().to_string();
    match tokenizer {
        TokenizerSpec::Byte => "bytes".to_owned(),
        TokenizerSpec::Char => "characters".to_owned(),
        TokenizerSpec::Gpt2 { folder } => format!("GPT-2 BPE in {}", named(folder)),
        TokenizerSpec::File { path } => named(path),
    }
}

fn model(config: &RunConfig, values: &mut Vec<Value>) {
    let text = preset_of(&config.model).map_or_else(|| sizes_text(&config.model), |preset| preset.label().to_owned());
    values.push(("Model", text, true));
    if let Some(checkpoint) = &config.start_from {
        values.push(("Begin with", checkpoint.display().to_string(), false));
    }
    if config.model.max_positions().is_some() {
        values.push(("Sequence", format!("{} tokens", number::count(config.sequence_length as u64)), false));
    }
}

/// Family and sizes of a model that is no preset.
fn sizes_text(model: &ModelConfig) -> String {
    let list = |sizes: &[usize]| sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
    match model {
        ModelConfig::Mlp(mlp) => format!("MLP of {}", list(&mlp.hidden_sizes)),
        ModelConfig::Cnn(cnn) => format!("CNN of {}, then {}", list(&cnn.channels), cnn.hidden_size),
        ModelConfig::ResNet(net) => format!("ResNet of {} in {} blocks", list(&net.hidden_sizes), list(&net.depths)),
        ModelConfig::Gpt2(gpt2) => format!("GPT-2, {} layers of {}", gpt2.n_layer, gpt2.n_embd),
        ModelConfig::Llama(llama) => {
            format!("{}, {} layers of {}", llama.family(), llama.num_hidden_layers, llama.hidden_size)
        }
    }
}

fn tier(config: &RunConfig, values: &mut Vec<Value>) {
    values.push(("Tier", config.tier.clone(), true));
    let hybrid = &config.hybrid;
    if !hybrid.strategy.predicts() {
        return;
    }
    let steps = |steps: u32| format!("{steps} steps");
    let share = |share: f64| plain(share);
    values.push(("Strategy", hybrid.strategy.label().to_owned(), false));
    values.extend([
        ("Predict at most", steps(hybrid.max_predict_steps), false),
        ("Correct every", steps(hybrid.correction_interval), false),
        ("Check every", steps(hybrid.check_interval), false),
        ("Gate open for", steps(hybrid.gate_hold_steps), false),
        ("Confidence", share(hybrid.confidence_threshold), false),
        ("Divergence σ", share(hybrid.divergence_sigma), false),
        ("Backward share", share(hybrid.slice_fraction), false),
        ("Least share", share(hybrid.min_slice_fraction), false),
        ("Cost at most", share(hybrid.gate_cost), false),
        ("Warmup", share(hybrid.warmup_fraction), false),
    ]);
}

fn training(config: &RunConfig, values: &mut Vec<Value>) {
    let optimizer = &config.optimizer;
    let rate = match optimizer.kind {
        OptimizerKind::AdamW => "Learning rate",
        OptimizerKind::Muon => "Rate, matrices",
    };
    values.extend([
        ("Optimizer", optimizer.kind.name().to_owned(), true),
        ("Steps", number::count(config.num_steps), false),
        ("Batch size", number::count(config.batch_size as u64), false),
        (rate, format!("{:.2e}", optimizer.learning_rate), false),
    ]);
    if optimizer.kind == OptimizerKind::Muon {
        values.push(("Rate, others", format!("{:.2e}", optimizer.adam_learning_rate), false));
    }
    let schedule = match config.schedule {
        Schedule::Cosine { warmup_fraction, final_fraction } => {
            format!("cosine to {}, warmup {}", plain(final_fraction), plain(warmup_fraction))
        }
        Schedule::ConstantEma { warmup_fraction, ema_decay } => {
            format!("constant, EMA {}, warmup {}", plain(ema_decay), plain(warmup_fraction))
        }
    };
    values.push(("Schedule", schedule, true));
    values.push(("Seed", config.seed.to_string(), false));
}

fn optimizer(config: &RunConfig, values: &mut Vec<Value>) {
    let optimizer = &config.optimizer;
    values.extend([
        ("Weight decay", plain(optimizer.weight_decay), false),
        ("Clip norm", optimizer.clip_norm.map_or_else(|| "off".to_owned(), plain), false),
        ("Beta 1", plain(optimizer.beta1), false),
        ("Beta 2", plain(optimizer.beta2), false),
        ("Epsilon", format!("{:e}", optimizer.epsilon), false),
        ("Batch parts", config.num_micro_batches.to_string(), false),
    ]);
    if optimizer.kind == OptimizerKind::Muon {
        values.push(("Momentum", plain(optimizer.momentum), false));
        values.push(("Newton-Schulz", format!("{} steps", optimizer.newton_schulz_steps), false));
    }
    if config.model.max_positions().is_none() {
        let mirror = if config.augmentation.flip { "mirror, " } else { "" };
        values.push(("Augment", format!("{mirror}shift {} px", config.augmentation.shift_pixels), false));
    }
}

fn record(config: &RunConfig, values: &mut Vec<Value>) {
    let every = |steps: u64| format!("every {} steps", number::count(steps));
    let device = match config.device {
        ComputeDevice::Cpu => "processor".to_owned(),
        ComputeDevice::Cuda(index) => format!("GPU {index}"),
        ComputeDevice::Auto => "automatic".to_owned(),
    };
    let threads = if config.num_threads == 0 { "all".to_owned() } else { config.num_threads.to_string() };
    values.extend([
        ("Validate", every(config.validation_interval), false),
        ("On at most", format!("{} examples", number::count(config.max_validation_examples as u64)), false),
        ("Checkpoint", every(config.checkpoint_interval), false),
        ("Keep last", config.keep_last.to_string(), false),
        ("Threads", threads, false),
        ("Device", device, false),
    ]);
    if config.vram_limit_bytes > 0 {
        values.push(("GPU limit", number::bytes(config.vram_limit_bytes), false));
    }
    if !config.optimizer.states.is_full() {
        values.push(("Moments in", "8 bits".to_owned(), false));
    }
    if !config.optimizer.state_place.is_with_weights() {
        values.push(("Moments kept", "on the host".to_owned(), false));
    }
    if !config.precision.is_full() {
        values.push(("Products in", config.precision.label().to_owned(), true));
    }
    if config.kept == Kept::Input {
        values.push(("Layers keep", "their input, for the backward pass".to_owned(), true));
    }
}

fn quantization(config: &RunConfig, values: &mut Vec<Value>) {
    if let Some(qat) = config.qat {
        values.extend([
            ("Train for", qat.scheme.label().to_owned(), false),
            ("Switch after", plain(qat.start_fraction), false),
            ("Ramp over", plain(qat.ramp_fraction), false),
            ("Rate after", plain(qat.learning_rate_factor), false),
            ("Inputs", qat.activations.label().to_owned(), false),
            ("Teacher", qat.distillation.map_or_else(|| "none".to_owned(), |found| plain(found.weight)), false),
        ]);
    }
}

/// As it was typed: "0.05".
fn plain(value: f64) -> String {
    value.to_string()
}
