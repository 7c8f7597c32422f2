//! Options that say what to train, for every subcommand that trains.

use foretrain_engine::data::DatasetSpec;
use foretrain_engine::device::ComputeDevice;
use foretrain_engine::hybrid::{GateRule, Strategy};
use foretrain_engine::models::ops::{Kept, Precision};
use foretrain_engine::models::{DataShape, ModelPreset};
use foretrain_engine::optim::{OptimizerKind, StatePlace, StatePrecision};
use foretrain_engine::session::{PresetError, Recipe, RunConfig, recipe, tier};

use super::data_arg::DataArgs;
use super::{CliError, CommonArgs, number_arg};

/// A recipe, and what to change of it.
#[derive(Debug, Clone, clap::Args)]
pub struct RecipeArgs {
    /// Recipe to start from; `foretrain train --preset list` names them.
    #[arg(long, default_value = "glyphs-cnn")]
    pub preset: String,
    /// Dataset; the recipe's own when left out.
    #[command(flatten)]
    pub data: DataArgs,
    /// How daring prediction is: vanilla (none), conservative, balanced, aggressive; conservative when left out.
    #[arg(long)]
    pub tier: Option<String>,
    /// What Predict does instead of what the tier says: auto, importance, extrapolate-momentum, extrapolate-fitted,
    /// frozen, none.
    #[arg(long, value_parser = parse_strategy)]
    pub strategy: Option<Strategy>,
    /// Model preset instead of the recipe's.
    #[arg(long)]
    pub model: Option<String>,
    /// Optimizer instead of the recipe's: adamw or muon.
    #[arg(long, value_parser = parse_optimizer)]
    pub optimizer: Option<OptimizerKind>,
    /// Optimizer steps.
    #[arg(long, value_parser = number_arg::parse_count::<u64>, allow_negative_numbers = true)]
    pub steps: Option<u64>,
    /// Images or sequences per step.
    #[arg(long, value_parser = number_arg::parse_count::<usize>, allow_negative_numbers = true)]
    pub batch_size: Option<usize>,
    /// Parts that a batch is cut into, to save memory.
    #[arg(long, value_parser = number_arg::parse_count::<usize>, allow_negative_numbers = true)]
    pub micro_batches: Option<usize>,
    /// Numbers that matrix products of training read: f32; or, of language models, bf16 on a GPU or a processor with AMX-BF16 or
    /// AVX-512 BF16, fp16 on a GPU. Weights stay f32.
    #[arg(long, value_parser = parse_precision)]
    pub precision: Option<Precision>,
    /// Keep only the input of each transformer layer for the backward pass, and compute the rest again: far less memory,
    /// about a third more computing, the same result.
    #[arg(long)]
    pub activation_checkpointing: bool,
    /// Numbers that the optimizer's moments are kept in: f32, or 8bit, a quarter of the memory, with rounding; on the
    /// processor, or with --optimizer-offload.
    #[arg(long, value_parser = parse_states)]
    pub optimizer_states: Option<StatePrecision>,
    /// Keep the optimizer's moments in the machine's memory while a GPU computes, and let the processor move them: less of
    /// the GPU's memory, up to 12 bytes a weight between the two in each step. On the processor it changes nothing.
    #[arg(long)]
    pub optimizer_offload: bool,
    /// Tokens per sequence.
    #[arg(long, value_parser = number_arg::parse_count::<usize>, allow_negative_numbers = true)]
    pub sequence_length: Option<usize>,
    /// Peak learning rate.
    #[arg(long, value_parser = number_arg::parse_above_zero, allow_negative_numbers = true)]
    pub learning_rate: Option<f64>,
    /// Steps between two validations.
    #[arg(long, value_parser = number_arg::parse_count::<u64>, allow_negative_numbers = true)]
    pub validation_interval: Option<u64>,
    /// Steps between two checkpoints.
    #[arg(long, value_parser = number_arg::parse_count::<u64>, allow_negative_numbers = true)]
    pub checkpoint_interval: Option<u64>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0, value_parser = number_arg::parse_whole::<u64>, allow_negative_numbers = true)]
    pub seed: u64,
    /// Processor threads; 0 uses all.
    #[arg(long, default_value_t = 0, value_parser = number_arg::parse_whole::<usize>, allow_negative_numbers = true)]
    pub threads: usize,
    /// Most memory the run may use, in GiB; 80% of the machine's when left out.
    #[arg(long = "memory-budget", value_name = "GIB", value_parser = number_arg::parse_gib, allow_negative_numbers = true)]
    pub memory_budget_bytes: Option<u64>,
    /// Where to compute: cpu, cuda:N (a GPU by its number in nvidia-smi), or auto (the first GPU that build, driver and
    /// memory allow, else the processor; it says which and why). The recipe's own when left out: cpu in all presets.
    #[arg(long, value_name = "auto|cpu|cuda:N")]
    pub device: Option<ComputeDevice>,
    /// Most of the GPU's memory that the run may take, in GiB; what is free when left out. A run that passes it is saved
    /// and ends.
    #[arg(long = "vram-limit", value_name = "GIB", value_parser = number_arg::parse_gib, allow_negative_numbers = true)]
    pub vram_limit_bytes: Option<u64>,
    /// Name of the run.
    #[arg(long)]
    pub name: Option<String>,
}

/// Tier of a recipe for which none is named.
const DEFAULT_TIER: &str = "conservative";

/// The recipe that the arguments describe.
pub(super) fn config(args: &RecipeArgs, common: &CommonArgs) -> Result<RunConfig, CliError> {
    let tier = args.tier.as_deref().unwrap_or(DEFAULT_TIER);
    let mut config = preset_config(&args.preset, tier, args.data.spec()?, common)?;
    if let Some(label) = &args.model {
        let preset = ModelPreset::from_label(label).ok_or_else(|| {
            let known: Vec<&str> = ModelPreset::ALL.into_iter().map(ModelPreset::label).collect();
            CliError::Usage(format!("--model: expected one of {}, found {label:?}", known.join(", ")))
        })?;
        let fitted = preset.config(config.model.data_shape());
        config.model = fitted.map_err(|error| CliError::from_session(&error.into()))?;
    }
    if let Some(strategy) = args.strategy {
        take_strategy(&mut config, strategy)?;
    }
    config.optimizer.switch_to(args.optimizer.unwrap_or(config.optimizer.kind));
    config.num_steps = args.steps.unwrap_or(config.num_steps);
    config.batch_size = args.batch_size.unwrap_or(config.batch_size);
    config.num_micro_batches = args.micro_batches.unwrap_or(config.num_micro_batches);
    if let (Some(length), DataShape::Images { .. }) = (args.sequence_length, config.model.data_shape()) {
        let what = "expected none for images, which have no sequence";
        return Err(CliError::Usage(format!("--sequence-length: {what}, found {length}")));
    }
    config.precision = args.precision.unwrap_or(config.precision);
    if args.activation_checkpointing {
        config.kept = Kept::Input;
    }
    config.optimizer.states = args.optimizer_states.unwrap_or(config.optimizer.states);
    if args.optimizer_offload {
        config.optimizer.state_place = StatePlace::HostMemory;
    }
    config.sequence_length = args.sequence_length.unwrap_or(config.sequence_length);
    config.optimizer.learning_rate = args.learning_rate.unwrap_or(config.optimizer.learning_rate);
    config.validation_interval = args.validation_interval.unwrap_or(config.validation_interval);
    config.checkpoint_interval = args.checkpoint_interval.unwrap_or(config.checkpoint_interval);
    config.seed = args.seed;
    config.num_threads = args.threads;
    // 0 stands for the default.
    config.memory_budget_bytes = args.memory_budget_bytes.unwrap_or(0);
    config.device = args.device.unwrap_or(config.device);
    config.vram_limit_bytes = args.vram_limit_bytes.unwrap_or(0);
    if config.device == ComputeDevice::Cpu && config.vram_limit_bytes > 0 {
        let what = "expected --device cuda:N or auto with it, found a run on the processor";
        return Err(CliError::Usage(format!("--vram-limit: {what}")));
    }
    config.name = args.name.clone().unwrap_or(config.name);
    Ok(config)
}

/// The recipe called `preset` as it is, on `data` or its own dataset.
pub(super) fn preset_config(
    preset: &str,
    tier_name: &str,
    data: Option<DatasetSpec>,
    common: &CommonArgs,
) -> Result<RunConfig, CliError> {
    let recipe = recipe(preset).map_err(|error| unknown("--preset", &error))?;
    let tier = tier(tier_name).map_err(|error| unknown("--tier", &error))?;
    let data = match data {
        Some(data) => data,
        None => own_data(&recipe)?,
    };
    let mut config = recipe.run_config(&tier, data).map_err(|error| CliError::from_session(&error.into()))?;
    common.runs_folder()?.clone_into(&mut config.runs_folder);
    Ok(config)
}

/// A preset that an option names and that there is none of, by that option.
fn unknown(option: &str, error: &PresetError) -> CliError {
    CliError::Usage(match error {
        PresetError::Unknown { name, known, .. } => format!("{option}: expected one of {known}, found {name:?}"),
        PresetError::Recipe { .. } | PresetError::Tier(_) | PresetError::Target(_) | PresetError::Model(_) => {
            error.to_string()
        }
    })
}

/// The recipe's dataset. Errors: it is to be named by the user.
fn own_data(recipe: &Recipe) -> Result<DatasetSpec, CliError> {
    let is_complete = match &recipe.data {
        DatasetSpec::Glyphs | DatasetSpec::Grammar | DatasetSpec::Rounds => true,
        DatasetSpec::Idx { path }
        | DatasetSpec::Cifar10 { path }
        | DatasetSpec::ImageFolder { path, .. }
        | DatasetSpec::Text { path, .. }
        | DatasetSpec::Jsonl { path, .. } => !path.as_os_str().is_empty(),
    };
    if is_complete {
        return Ok(recipe.data.clone());
    }
    Err(CliError::Usage(format!("--preset {}: expected --data with the path of its dataset, found none", recipe.name)))
}

/// Lets the tier's numbers guide another strategy.
fn take_strategy(config: &mut RunConfig, strategy: Strategy) -> Result<(), CliError> {
    match (config.hybrid.strategy.predicts(), strategy.predicts()) {
        (false, true) => {
            let (tier, strategy) = (&config.tier, strategy.label());
            let what = "expected a tier that predicts (conservative, balanced, aggressive)";
            return Err(CliError::Usage(format!("--strategy {strategy}: {what}, found --tier {tier}")));
        }
        (true, false) => {
            let vanilla = tier("vanilla").map_err(|error| CliError::Usage(error.to_string()))?;
            (config.tier, config.hybrid) = (vanilla.name.clone(), vanilla.config());
        }
        (false, false) => {}
        (true, true) => {
            config.hybrid.strategy = strategy;
            if !strategy.samples() {
                // The gate counts what a sample costs.
                config.hybrid.gate = GateRule::Open;
            }
        }
    }
    Ok(())
}

/// A strategy by its name.
fn parse_strategy(name: &str) -> Result<Strategy, String> {
    Strategy::from_label(name)
        .ok_or_else(|| format!("expected one of {}", Strategy::ALL.map(Strategy::label).join(", ")))
}

/// A precision by its name.
pub(super) fn parse_precision(name: &str) -> Result<Precision, String> {
    Precision::ALL
        .into_iter()
        .find(|precision| precision.label() == name)
        .ok_or_else(|| format!("expected one of {}", Precision::ALL.map(Precision::label).join(", ")))
}

/// An optimizer by its name.
pub(super) fn parse_optimizer(name: &str) -> Result<OptimizerKind, String> {
    match name {
        "adamw" => Ok(OptimizerKind::AdamW),
        "muon" => Ok(OptimizerKind::Muon),
        _ => Err("expected adamw or muon".to_owned()),
    }
}

/// Numbers of an optimizer's state by their name.
fn parse_states(name: &str) -> Result<StatePrecision, String> {
    StatePrecision::ALL
        .into_iter()
        .find(|states| states.label() == name)
        .ok_or_else(|| format!("expected one of {}", StatePrecision::ALL.map(StatePrecision::label).join(", ")))
}
