//! Starts an arena, or says what keeps it from starting.

use egui::Ui;
use foretrain_engine::optim::OptimizerKind;
use foretrain_engine::session::{Command, ExperimentJob, ExperimentKind, RunConfig};

use super::estimate::size_of;
use crate::state::{AskedExperiment, ExperimentsSaved, Live, RecipeKey, Saved, arena_command};
use crate::views::ViewCtx;

/// What keeps an arena of `config` that is done like `how` from starting; `None` when nothing does.
pub(super) fn obstacle(config: &Result<RunConfig, String>, how: &ExperimentsSaved, live: &Live) -> Option<String> {
    let config = match config {
        Ok(config) => config,
        Err(missing) => return Some(missing.clone()),
    };
    if live.is_running() {
        return Some("A run is going on, and would spoil the pace of both. Stop it first.".to_owned());
    }
    if !config.hybrid.strategy.predicts() {
        return Some("This recipe's tier never predicts: there is nothing to compare. Choose another tier.".to_owned());
    }
    if how.rate_factors.is_empty() || how.batch_divisors.is_empty() {
        return Some("Choose at least one learning rate and one batch size to try.".to_owned());
    }
    let odd = how.batch_divisors.iter().find(|divisor| !config.batch_size.is_multiple_of(**divisor));
    odd.map(|divisor| format!("A batch of {} cannot be divided by {divisor}.", config.batch_size))
}

/// Asks for the arena.
pub(super) fn start(ctx: &ViewCtx<'_>, saved: &Saved, live: &mut Live, ui: &Ui) {
    let Some(draft) = &saved.draft else { return };
    let Ok(config) = draft.run_config(ctx.settings) else { return };
    let how = &saved.experiments;
    let optimizer = match config.optimizer.kind {
        OptimizerKind::AdamW => "AdamW",
        OptimizerKind::Muon => "Muon",
    };
    let title = format!("{} with {optimizer}: prediction against its controls", config.name);
    let now = jiff::Timestamp::now().to_zoned(ctx.zone.clone());
    let stages = size_of(how, config.num_steps).stages();
    let asked =
        AskedExperiment { title: title.clone(), recipe: RecipeKey::of(&config), since: ui.input(|input| input.time) };
    let folder = format!("{}-{}", now.strftime("%Y%m%d-%H%M%S"), file_name(&config.name));
    let job = ExperimentJob {
        kind: ExperimentKind::Arena {
            rate_factors: how.rate_factors.clone(),
            batch_divisors: how.batch_divisors.clone(),
            num_seeds: how.num_seeds,
        },
        output: ctx.settings.reports_folder_path().join(folder),
        title,
        command: arena_command(ctx.catalog, draft, &config, how),
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
