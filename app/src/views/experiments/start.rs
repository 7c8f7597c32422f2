//! Starts an experiment, or says what keeps it from starting.

use egui::Ui;
use foretrain_engine::models::DataShape;
use foretrain_engine::session::{Command, ExperimentJob, ExperimentKind, RunConfig};

use super::estimate::stages_of;
use crate::state::{AskedExperiment, ExperimentChoice, ExperimentsSaved, Live, RecipeKey, Saved, experiment_command};
use crate::views::ViewCtx;

/// Share by which a rung's hybrid may lose against vanilla for the next one to open.
const LADDER_TOLERANCE: f64 = 0.01;

/// What keeps an experiment on `config` that is done like `how` from starting; `None` when nothing does.
pub(super) fn obstacle(config: &Result<RunConfig, String>, how: &ExperimentsSaved, live: &Live) -> Option<String> {
    let config = match config {
        Ok(config) => config,
        Err(missing) => return Some(missing.clone()),
    };
    if live.is_running() {
        return Some("A run is going on, and would spoil the pace of both. Stop it first.".to_owned());
    }
    match how.choice {
        ExperimentChoice::Arena => arena_obstacle(config, how),
        ExperimentChoice::Corrections if !config.hybrid.strategy.samples() => Some(
            "Corrections compare sampled gradients with full ones, and this recipe's tier samples none. Choose another tier."
                .to_owned(),
        ),
        ExperimentChoice::Corrections => (how.thresholds.is_empty() || how.horizons.is_empty())
            .then(|| "Choose at least one confidence threshold and one horizon.".to_owned()),
        ExperimentChoice::Tiers => None,
        ExperimentChoice::Ladder => ladder_obstacle(config, how),
    }
}

fn arena_obstacle(config: &RunConfig, how: &ExperimentsSaved) -> Option<String> {
    if !config.hybrid.strategy.predicts() {
        return Some("This recipe's tier never predicts: there is nothing to compare. Choose another tier.".to_owned());
    }
    if how.rate_factors.is_empty() || how.batch_divisors.is_empty() {
        return Some("Choose at least one learning rate and one batch size to try.".to_owned());
    }
    let odd = how.batch_divisors.iter().find(|divisor| !config.batch_size.is_multiple_of(**divisor));
    odd.map(|divisor| format!("A batch of {} cannot be divided by {divisor}.", config.batch_size))
}

fn ladder_obstacle(config: &RunConfig, how: &ExperimentsSaved) -> Option<String> {
    match config.model.data_shape() {
        DataShape::Images { .. } => {
            Some("The ladder trains language models. Choose a recipe that trains on text.".into())
        }
        DataShape::Text { .. } if !config.hybrid.strategy.predicts() => {
            Some("This recipe's tier never predicts: there is nothing to compare. Choose another tier.".to_owned())
        }
        DataShape::Text { .. } => how.rungs.is_empty().then(|| "Choose at least one size.".to_owned()),
    }
}

/// Asks for the experiment.
pub(super) fn start(ctx: &ViewCtx<'_>, saved: &Saved, live: &mut Live, ui: &Ui) {
    let Some(draft) = &saved.draft else { return };
    let Ok(config) = draft.run_config(ctx.settings) else { return };
    let how = &saved.experiments;
    let optimizer = config.optimizer.kind.name();
    let (about, kind) = match how.choice {
        ExperimentChoice::Arena => {
            let kind = ExperimentKind::Arena {
                rate_factors: how.rate_factors.clone(),
                batch_divisors: how.batch_divisors.clone(),
                num_seeds: how.num_seeds,
            };
            ("prediction against its controls", kind)
        }
        ExperimentChoice::Corrections => {
            let kind = ExperimentKind::Corrections {
                confidence_thresholds: how.thresholds.clone(),
                horizons: how.horizons.clone(),
                num_seeds: how.num_seeds,
            };
            ("forecasts and corrections", kind)
        }
        ExperimentChoice::Tiers => {
            ("tiers compared", ExperimentKind::Tiers { strategy: None, num_seeds: how.num_seeds })
        }
        ExperimentChoice::Ladder => {
            let kind = ExperimentKind::Ladder {
                sizes: how.rungs.clone(),
                minutes_per_rung: f64::from(how.minutes_per_rung),
                loss_tolerance: LADDER_TOLERANCE,
            };
            ("from small to large", kind)
        }
    };
    let title = format!("{} with {optimizer}: {about}", config.name);
    let now = jiff::Timestamp::now().to_zoned(ctx.zone.clone());
    let stages = stages_of(how, (config.num_steps, ctx.catalog.tiers.len()));
    let asked =
        AskedExperiment { title: title.clone(), recipe: RecipeKey::of(&config), since: ui.input(|input| input.time) };
    let folder = format!("{}-{}", now.strftime("%Y%m%d-%H%M%S"), file_name(&config.name));
    let job = ExperimentJob {
        kind,
        output: ctx.settings.reports_folder_path().join(folder),
        title,
        command: experiment_command(ctx.catalog, draft, &config, how),
        commit: option_env!("FORETRAIN_COMMIT").map(str::to_owned),
        day: now.date().to_string(),
        config,
    };
    // Measuring a step now would disturb its pace.
    live.stop_planning(ctx);
    live.experiments.run.ask(ctx, |id| Command::Experiment(id, Box::new(job)));
    live.experiments.follow(asked, stages);
}

/// `name` as a part of a folder's name.
fn file_name(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect()
}
