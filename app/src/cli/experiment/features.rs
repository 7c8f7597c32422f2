//! `foretrain experiment features`.

use std::path::PathBuf;

use comfy_table::Table;
use foretrain_engine::experiment::{FeatureFigures, FeaturesResult, MemoryFeature};
use foretrain_engine::memory::format_bytes;
use foretrain_engine::optim::OptimizerKind;
use foretrain_engine::session::ExperimentKind;
use serde_json::{Value, json};

use super::{Asked, ask, cell, estimate, optimizer_name};
use crate::cli::recipe_arg::{self, RecipeArgs};
use crate::cli::{CliError, CommonArgs, number_arg, output};

/// Arguments of `features`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("preset", |preset| preset.default_value("grammar-gpt2-char")))]
pub struct FeaturesArgs {
    /// What to train.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Features, each tried alone: micro-batches, activation-checkpointing, 8bit-states, bf16-products, streamed-full,
    /// streamed-compact; all that this machine and the optimizer have when left out.
    #[arg(long, value_name = "FEATURES", value_delimiter = ',', value_parser = parse_feature)]
    pub features: Vec<MemoryFeature>,
    /// Seeds, the same for each.
    #[arg(long, default_value_t = 3, value_parser = number_arg::parse_count::<u64>)]
    pub seeds: u64,
    /// Folder of the report; must not exist. Streamed blocks lie beside it for the time.
    #[arg(long)]
    pub output: Option<PathBuf>,
}

pub(super) fn run(args: &FeaturesArgs, common: &CommonArgs) -> Result<(), CliError> {
    let recipe = &args.recipe;
    let given = [
        ("--tier", recipe.tier.is_some()),
        ("--strategy", recipe.strategy.is_some()),
        ("--micro-batches", recipe.micro_batches.is_some()),
        ("--activation-checkpointing", recipe.activation_checkpointing),
        ("--optimizer-states", recipe.optimizer_states.is_some()),
        ("--optimizer-offload", recipe.optimizer_offload),
        ("--precision", recipe.precision.is_some()),
        ("--device", recipe.device.is_some()),
    ];
    if let Some((option, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
        let why = "expected none, because plain training in full steps on the processor is compared with each feature";
        return Err(CliError::Usage(format!("{option}: {why}")));
    }
    let mut config = recipe_arg::config(recipe, common)?;
    if recipe.optimizer.is_none() && config.optimizer.kind != OptimizerKind::AdamW {
        let found = config.optimizer.kind.name();
        output::note(format_args!(
            "AdamW instead of the recipe's {found}: streamed training has no other (--optimizer)"
        ));
    }
    config.optimizer.switch_to(recipe.optimizer.unwrap_or(OptimizerKind::AdamW));
    if let Some(rate) = recipe.learning_rate {
        config.optimizer.learning_rate = rate;
    }
    let features = if args.features.is_empty() {
        let streams = config.optimizer.kind == OptimizerKind::AdamW;
        let cuts = config.batch_size > 1;
        let can = |feature: &MemoryFeature| {
            let has_parts = cuts || *feature != MemoryFeature::MicroBatches;
            feature.missing().is_none() && has_parts && (streams || feature.stored().is_none())
        };
        let (features, others): (Vec<_>, Vec<_>) = MemoryFeature::ALL.into_iter().partition(can);
        if !others.is_empty() {
            let others: Vec<&str> = others.into_iter().map(MemoryFeature::label).collect();
            let why = "which this machine, optimizer or batch has no use for";
            output::note(format_args!("without {}, {why}", others.join(", ")));
        }
        features
    } else {
        args.features.clone()
    };
    let title = format!("{} with {}: ways to save memory", config.name, optimizer_name(&config));
    let kind = ExperimentKind::Features { features, num_seeds: args.seeds };
    ask(Asked { kind, config, title, output: args.output.clone() }, common)
}

fn parse_feature(label: &str) -> Result<MemoryFeature, String> {
    MemoryFeature::from_label(label)
        .ok_or_else(|| format!("expected one of {}", MemoryFeature::ALL.map(MemoryFeature::label).join(", ")))
}

/// What to print: a row for each training, and everything for programs.
pub(super) fn figures(result: &FeaturesResult) -> (Table, Value) {
    let all = result.figures();
    let head = [
        "training",
        "loss, nats",
        "loss over plain's",
        "plain's weights",
        "s per step",
        "time over plain's",
        "memory, planned",
    ];
    let mut table = output::table(&head);
    for figures in &all {
        table.add_row(vec![
            figures.name.into(),
            cell(figures.loss.map(|loss| loss.mean), 4),
            cell(figures.loss_ratio.map(|ratio| ratio.mean), 4),
            output::number(format!("{} of {} seeds", figures.num_equal, figures.num_seeds)),
            cell(figures.step_seconds.map(|seconds| seconds.mean), 3),
            cell(figures.time_ratio.map(|ratio| ratio.mean), 2),
            output::number(format_bytes(figures.planned_bytes)),
        ]);
    }
    let trainings: Vec<Value> = all.iter().map(training_json).collect();
    (table, json!({ "experiment": "features", "trainings": trainings }))
}

fn training_json(figures: &FeatureFigures) -> Value {
    json!({
        "name": figures.name,
        "loss": estimate(figures.loss),
        "loss_ratio": estimate(figures.loss_ratio),
        "time_ratio": estimate(figures.time_ratio),
        "step_seconds": estimate(figures.step_seconds),
        "seeds_with_plain_weights": figures.num_equal,
        "must_have_plain_weights": figures.must_be_equal,
        "planned_bytes": figures.planned_bytes,
    })
}
