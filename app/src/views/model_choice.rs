//! Which model: a run, or any checkpoint folder. One choice for all screens that ask for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use egui::{RichText, Ui};
use foretrain_engine::session::{Command, ModelReport, ModelSource};

use super::{ViewCtx, job_ui, keep_runs_fresh};
use crate::dialogs::PickKind;
use crate::state::Live;
use crate::theme::{font, palette, space};
use crate::widgets::{PathField, card_ui, combo_ui, field_ui, hint_ui, number, path_field_ui};

/// Seconds without a change of the path before the engine is asked about it.
const SETTLE_SECONDS: f64 = 0.4;

/// Shows the choice, and what was chosen. Returns the report on `path`, once there is one.
pub fn model_choice_ui(ctx: &ViewCtx<'_>, path: &mut String, live: &mut Live, ui: &mut Ui) -> Option<Arc<ModelReport>> {
    keep_runs_fresh(ctx, live);
    card_ui(ui, "Model", |ui| {
        let runs = live.runs.answer().map_or(&[][..], Vec::as_slice);
        let usable = || runs.iter().filter(|run| run.step > 0);
        if path.trim().is_empty()
            && let Some(newest) = usable().next()
        {
            *path = newest.folder.display().to_string();
        }
        let current = runs.iter().find(|run| run.folder == Path::new(path.trim()));
        let title = match current {
            Some(run) => run.name.as_str(),
            None if path.trim().is_empty() => "No run yet",
            None => "Another checkpoint",
        };
        let mut chosen = None;
        field_ui(ui, "Run", |ui| {
            combo_ui(ui, "model-run", title, |ui| {
                for run in usable() {
                    let about = format!("{} · {} · step {}", run.name, run.dataset, number::count(run.step));
                    let label = ui.selectable_label(current.is_some_and(|current| current.folder == run.folder), about);
                    if label.on_hover_text(run.folder.display().to_string()).clicked() {
                        chosen = Some(run.folder.display().to_string());
                    }
                }
                if usable().next().is_none() {
                    ui.label("No run in this folder has done a step.");
                }
            });
        });
        if let Some(chosen) = chosen {
            *path = chosen;
        }
        field_ui(ui, "Folder", |ui| {
            let field = PathField {
                salt: "model-path",
                what: "a run or a checkpoint",
                kind: PickKind::Folder,
                hint: "/path/to/run",
            };
            path_field_ui(ui, ctx.dialogs, field, path);
        });
        hint_ui(ui, "Of a run, its best checkpoint is taken.");
        ask_when_settled(ctx, path.trim(), live, ui);
    });
    chosen_ui(path, live, ui)
}

/// Shows the choice of an exported package, and what was chosen. Returns the report on `path`, once there is one.
pub fn package_choice_ui(
    ctx: &ViewCtx<'_>,
    path: &mut String,
    live: &mut Live,
    ui: &mut Ui,
) -> Option<Arc<ModelReport>> {
    card_ui(ui, "Package", |ui| {
        field_ui(ui, "Folder", |ui| {
            let field =
                PathField { salt: "package-path", what: "a package", kind: PickKind::Folder, hint: "/path/to/package" };
            path_field_ui(ui, ctx.dialogs, field, path);
        });
        hint_ui(ui, "As Quantize & export wrote it: the folder with manifest.json.");
        ask_when_settled(ctx, path.trim(), live, ui);
    });
    chosen_ui(path, live, ui)
}

/// Shows what the engine says about `path`, and returns it.
fn chosen_ui(path: &str, live: &Live, ui: &mut Ui) -> Option<Arc<ModelReport>> {
    let report = live.model.describe.answer().filter(|report| report.input == Path::new(path.trim())).cloned();
    if let Some(report) = report.as_deref().filter(|_| live.model.describe.failure().is_none()) {
        card_ui(ui, "What it is", |ui| about_ui(report, ui));
    }
    report
}

/// Asks about the path once it rests, and again when a run saved something; says how that goes.
fn ask_when_settled(ctx: &ViewCtx<'_>, path: &str, live: &mut Live, ui: &mut Ui) {
    if path.is_empty() {
        return;
    }
    let now = ui.input(|input| input.time);
    let wanted = (path.to_owned(), live.num_run_changes);
    match &mut live.model.asked {
        Some((asked, due)) if *asked == wanted => {
            if due.is_finite() && now >= *due {
                *due = f64::INFINITY;
                live.model.describe.ask(ctx, |job| Command::Describe(job, path.into()));
            }
        }
        asked => *asked = Some((wanted, now + SETTLE_SECONDS)),
    }
    if live.model.asked.as_ref().is_some_and(|(_, due)| due.is_finite()) {
        ui.ctx().request_repaint_after(Duration::from_secs_f64(SETTLE_SECONDS));
    }
    let is_known = live.model.describe.answer().is_some_and(|report| report.input == Path::new(path));
    // Reading it again after a save need not move what is below.
    if !is_known || live.model.describe.failure().is_some() {
        job_ui(ctx, "Reading the model's card", &mut live.model.describe, ui);
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
