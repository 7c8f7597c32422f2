//! `foretrain experiment quantization`.

use std::path::PathBuf;

use comfy_table::Table;
use foretrain_engine::experiment::{QuantizationFigures, QuantizationResult};
use foretrain_engine::models::ops::Activations;
use foretrain_engine::quant::{Distillation, PostTraining, QatConfig, QuantScheme};
use foretrain_engine::session::ExperimentKind;
use serde_json::{Value, json};

use super::{Asked, ask, cell, estimate, optimizer_name};
use crate::cli::qat_arg::{parse_activations, parse_scheme};
use crate::cli::recipe_arg::{self, RecipeArgs};
use crate::cli::{CliError, CommonArgs, number_arg, output};

/// Tier when none is named: every step is a full one.
const TIER: &str = "vanilla";

/// Arguments of `quantization`.
#[derive(Debug, clap::Args)]
pub struct QuantizationArgs {
    /// What to train.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// What is trained for: ternary, int4, int8.
    #[arg(long, value_name = "SCHEMES", value_delimiter = ',', default_value = "ternary", value_parser = parse_scheme)]
    pub qat: Vec<QuantScheme>,
    /// Share of these runs in full precision before the switch; when left out 0.2 for ternary, 0.3 otherwise.
    #[arg(long, value_name = "SHARE", value_parser = number_arg::parse_share)]
    pub qat_start: Option<f64>,
    /// Share of them over which quantization sets in after that, 0 for at once; when left out 0.3 for ternary, 0 otherwise.
    #[arg(long, value_name = "SHARE", value_parser = number_arg::parse_share)]
    pub qat_ramp: Option<f64>,
    /// What matrices of integers read from the switch on: int8, rounded as foretrain-edge does it, or f32.
    #[arg(long, value_name = "TYPE", default_value = "int8", value_parser = parse_activations)]
    pub qat_activations: Activations,
    /// What the learning rate is multiplied by once quantization is complete; when left out 3 for ternary, 1 otherwise.
    #[arg(long, value_name = "NUMBER", value_parser = number_arg::parse_above_zero)]
    pub qat_rate: Option<f64>,
    /// Train for each scheme once more, with this share of the full-precision weights' answers in what is learned.
    #[arg(long, value_name = "SHARE", value_parser = number_arg::parse_share)]
    pub qat_teacher: Option<f64>,
    /// Training images or sequences that gptq is calibrated on.
    #[arg(long, value_name = "COUNT", default_value_t = PostTraining::DEFAULT_SAMPLES)]
    #[arg(value_parser = number_arg::parse_count::<usize>)]
    pub calibration_samples: usize,
    /// Seeds, the same for each.
    #[arg(long, default_value_t = 3, value_parser = number_arg::parse_count::<u64>)]
    pub seeds: u64,
    /// Folder of the report; must not exist.
    #[arg(long)]
    pub output: Option<PathBuf>,
}

pub(super) fn run(args: &QuantizationArgs, common: &CommonArgs) -> Result<(), CliError> {
    let tier = args.recipe.tier.clone().unwrap_or_else(|| TIER.to_owned());
    let config = recipe_arg::config(&RecipeArgs { tier: Some(tier), ..args.recipe.clone() }, common)?;
    let title = format!("{} with {}: what fewer bits cost", config.name, optimizer_name(&config));
    let training = |&scheme: &QuantScheme| {
        let default = QatConfig::new(scheme);
        QatConfig {
            activations: args.qat_activations,
            learning_rate_factor: args.qat_rate.unwrap_or(default.learning_rate_factor),
            ..default.with_times(args.qat_start, args.qat_ramp)
        }
    };
    let teacher = args.qat_teacher.map(|weight| Distillation { weight, ..Distillation::DEFAULT });
    let trainings = args.qat.iter().map(training).flat_map(|plain| {
        let taught = teacher.map(|_| QatConfig { distillation: teacher, ..plain });
        std::iter::once(plain).chain(taught)
    });
    let kind = ExperimentKind::Quantization {
        trainings: trainings.collect(),
        calibration_samples: args.calibration_samples,
        num_seeds: args.seeds,
    };
    ask(Asked { kind, config, title, output: args.output.clone() }, common)
}

/// What to print: each way to fewer bits, and everything for programs.
pub(super) fn figures(result: &QuantizationResult) -> (Table, Value) {
    let all = result.figures();
    let is_text = all.iter().any(|figures| figures.perplexity.is_some());
    let (quality, cost) = if is_text { ("perplexity", "costs, %") } else { ("accuracy, %", "costs, points") };
    let mut table = output::table(&["weights", "bits", quality, "loss, nats", cost, "at most", "seconds"]);
    for figures in &all {
        let quality = if is_text { figures.perplexity } else { figures.accuracy };
        let (factor, decimals) = if is_text { (1.0, 3) } else { (100.0, 2) };
        table.add_row(vec![
            figures.name.as_str().into(),
            cell(Some(figures.bits_per_weight), 2),
            cell(quality.map(|quality| factor * quality.mean), decimals),
            cell(figures.loss.map(|loss| loss.mean), 4),
            cell(figures.lost.map(|lost| lost.mean), 2),
            cell(figures.limit, 1),
            cell(figures.seconds.map(|seconds| seconds.mean), 1),
        ]);
    }
    (table, json!({ "experiment": "quantization", "weights": all.iter().map(figures_json).collect::<Vec<_>>() }))
}

fn figures_json(figures: &QuantizationFigures) -> Value {
    json!({
        "name": figures.name,
        "bits_per_weight": figures.bits_per_weight,
        "loss": estimate(figures.loss),
        "accuracy": estimate(figures.accuracy),
        "perplexity": estimate(figures.perplexity),
        "lost": estimate(figures.lost),
        "limit": figures.limit,
        "is_met": figures.is_met(),
        "seconds": estimate(figures.seconds),
        "cost_ratio": estimate(figures.cost_ratio),
        "diverged_runs": figures.num_diverged,
    })
}
