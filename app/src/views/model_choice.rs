//! Which model: a run, any checkpoint folder, or a package. One choice for all screens that ask for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use egui::{RichText, Ui};
use foretrain_engine::session::{Command, ModelReport, ModelSource, RunSummary, StopReason};

use super::{ViewCtx, job_ui, keep_runs_fresh, model_warning};
use crate::dialogs::PickKind;
use crate::state::{HeldModel, Live, ModelLive};
use crate::theme::{font, palette, space};
use crate::widgets::{PathField, Severity, card_ui, combo_ui, field_ui, hint_ui, notice_ui, number, path_field_ui};

/// Seconds without a change of the path before the engine is asked about it.
const SETTLE_SECONDS: f64 = 0.4;

/// Shows the choice of a run or a checkpoint. Returns the report on `path`, once there is one.
pub fn model_choice_ui(ctx: &ViewCtx<'_>, path: &mut String, live: &mut Live, ui: &mut Ui) -> Option<Arc<ModelReport>> {
    keep_runs_fresh(ctx, live);
    card_ui(ui, "Model", |ui| {
        let runs = live.runs.answer().map_or(&[][..], Vec::as_slice);
        let usable: Vec<&RunSummary> = runs.iter().filter(|run| run.step > 0 && run.problem.is_none()).collect();
        run_choice_ui(live, &usable, path, ui);
        let is_typing = field_ui(ui, "Folder", |ui| {
            let field = PathField {
                salt: "model-path",
                what: "a run or a checkpoint",
                kind: PickKind::Folder,
                hint: "/path/to/run",
            };
            path_field_ui(ui, ctx.dialogs, field, path).has_focus()
        });
        // Once, and not under the user's hands: a path that was emptied stays so.
        if !live.model.is_proposed
            && !is_typing
            && let Some(newest) = usable.first()
        {
            live.model.is_proposed = true;
            if path.trim().is_empty() {
                *path = newest.folder.display().to_string();
            }
        }
        hint_ui(
            ui,
            "Of a run, its best checkpoint is taken: the latest within one standard error of the lowest validation loss.",
        );
        ask_when_settled(ctx, path.trim(), live.num_run_changes, &mut live.model, ui);
    });
    report_on(path, &live.model)
}

/// A list of the runs that have done a step.
fn run_choice_ui(live: &Live, runs: &[&RunSummary], path: &mut String, ui: &mut Ui) {
    let current = runs.iter().find(|run| run.folder == Path::new(path.trim()));
    let title = match current {
        Some(run) => live.label_of(run),
        None if path.trim().is_empty() && runs.is_empty() => "No run yet",
        None if path.trim().is_empty() => "None chosen",
        None => "Another checkpoint",
    };
    let mut chosen = None;
    field_ui(ui, "Run", |ui| {
        combo_ui(ui, "model-run", title, |ui| {
            for run in runs {
                let diverged = if run.ended == Some(StopReason::Diverged) { " · diverged" } else { "" };
                let step = number::count(run.step);
                let about = format!("{} · {} · step {step}{diverged}", live.label_of(run), run.dataset);
                let label = ui.selectable_label(current.is_some_and(|current| current.folder == run.folder), about);
                if label.on_hover_text(run.folder.display().to_string()).clicked() {
                    chosen = Some(run.folder.display().to_string());
                }
            }
            if runs.is_empty() {
                ui.label("No run in this folder has done a step.");
            }
        });
    });
    if let Some(chosen) = chosen {
        *path = chosen;
    }
}

/// Shows the choice of an exported package. Returns the report on `path`, once there is one.
pub fn package_choice_ui(
    ctx: &ViewCtx<'_>,
    path: &mut String,
    live: &mut ModelLive,
    ui: &mut Ui,
) -> Option<Arc<ModelReport>> {
    card_ui(ui, "Package", |ui| {
        field_ui(ui, "Folder", |ui| {
            let field =
                PathField { salt: "package-path", what: "a package", kind: PickKind::Folder, hint: "/path/to/package" };
            path_field_ui(ui, ctx.dialogs, field, path);
        });
        hint_ui(ui, "As Quantize & export wrote it: the folder with manifest.json.");
        // A run that goes on never changes a package.
        ask_when_settled(ctx, path.trim(), 0, live, ui);
    });
    report_on(path, live)
}

/// What the engine says about `path`.
fn report_on(path: &str, live: &ModelLive) -> Option<Arc<ModelReport>> {
    live.describe.answer().filter(|report| report.input == Path::new(path.trim())).cloned()
}

/// Shows what the model is, and what to know of its run.
pub fn model_card_ui(report: &ModelReport, ui: &mut Ui) {
    card_ui(ui, "What it is", |ui| about_ui(report, ui));
    if let Some(warning) = model_warning(report) {
        notice_ui(ui, Severity::Warning, &warning, |_| {});
    }
}

/// Says that the run has a better checkpoint than the one whose results are shown; true when the user takes it.
pub fn newer_model_ui(held: &HeldModel, ui: &mut Ui) -> bool {
    let Some((old, new)) = held.steps() else { return false };
    let (old, new) = (number::count(old), number::count(new));
    let message =
        format!("Everything here is of step {old}. The run has saved a better checkpoint since, of step {new}.");
    notice_ui(ui, Severity::Info, &message, |ui| {
        let hover = "Begins anew with it. A run keeps few checkpoints: the older one may be gone from the disk.";
        ui.button(format!("Use step {new}")).on_hover_text(hover).clicked()
    })
}

/// Asks about the path once it rests, and again when `num_changes` says that a run saved something; says how that goes.
fn ask_when_settled(ctx: &ViewCtx<'_>, path: &str, num_changes: u64, live: &mut ModelLive, ui: &mut Ui) {
    if path.is_empty() {
        return;
    }
    let now = ui.input(|input| input.time);
    let wanted = (path.to_owned(), num_changes);
    match &mut live.asked {
        Some((asked, due)) if *asked == wanted => {
            if due.is_finite() && now >= *due {
                *due = f64::INFINITY;
                live.describe.ask(ctx, |job| Command::Describe(job, path.into()));
            }
        }
        asked => *asked = Some((wanted, now + SETTLE_SECONDS)),
    }
    if live.asked.as_ref().is_some_and(|(_, due)| due.is_finite()) {
        ui.ctx().request_repaint_after(Duration::from_secs_f64(SETTLE_SECONDS));
    }
    let is_known = live.describe.answer().is_some_and(|report| report.input == Path::new(path));
    // Reading it again after a save need not move what is below.
    if !is_known || live.describe.failure().is_some() {
        job_ui(ctx, "Reading the model's card", &mut live.describe, ui);
    }
}

fn about_ui(report: &ModelReport, ui: &mut Ui) {
    let p = palette(ui);
    let card = &report.card;
    let mut row = |name: &str, value: String| {
        field_ui(ui, name, |ui| {
            ui.add(egui::Label::new(RichText::new(value).color(p.text)).truncate());
        });
    };
    row("Model", format!("{}, {}", card.family(), card.size_label()));
    row("Learned from", card.dataset_name.clone());
    row("Tier", card.tier.clone());
    row("Checkpoint", format!("step {} of {}", number::count(card.step), number::count(card.num_steps)));
    if let Some(loss) = card.validation_loss {
        row("Validation", format!("loss {} nats", number::value(loss)));
    }
    if let Some(accuracy) = card.validation_accuracy {
        row("Accuracy", format!("{:.2}%", accuracy * 100.0));
    }
    if let ModelSource::Package(scheme) = report.source {
        row("Stored in", scheme.label().to_owned());
    }
    ui.add_space(space::XS);
    let place = RichText::new(report.folder.display().to_string()).size(font::SMALL).color(p.text_weak);
    ui.add(egui::Label::new(place).truncate()).on_hover_text(report.folder.display().to_string());
}
