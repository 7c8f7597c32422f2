//! Lays out the experiments.

use egui::Ui;

use super::{form, race, report, reports};
use crate::state::{Live, Saved};
use crate::views::compare::tabs_ui;
use crate::views::{ViewCtx, empty_ui, panes_ui, run};

/// Shows the screen.
pub(in crate::views) fn experiments_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    // The estimate is made from the recipe's own step.
    run::plan_when_settled(ctx, saved, live, ui);
    reports::keep_reports_fresh(ctx, &mut live.experiments);
    panes_ui(
        ui,
        "experiments",
        &mut (saved, live),
        |(saved, live), ui| {
            tabs_ui(&mut saved.compare.tab, ui);
            form::form_ui(ctx, saved, live, ui);
            reports::reports_ui(ctx, live, ui);
        },
        |(saved, live), ui| result_ui(ctx, saved, live, ui),
    );
}

fn result_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    let experiments = &live.experiments;
    let is_race = experiments.run.is_waiting() && !experiments.is_report_wanted;
    if is_race {
        return race::race_ui(ctx, saved, live, ui);
    }
    race::failure_ui(live, ui);
    match live.experiments.report.clone() {
        Some(shown) => report::report_ui(&shown, saved, &mut live.experiments, ui),
        None => empty_ui(
            ui,
            "Does prediction pay on this recipe?",
            "Start an arena at the left: it trains the recipe and three controls, all tuned alike, and says what \
             prediction saved and what it cost. Or open a report of an earlier one.",
        ),
    }
}
