//! Before the first run: what to do. And the list of runs that can go on.

use egui::{Context, Id, Modal, RichText, ScrollArea, Ui};
use foretrain_engine::hybrid::Phase;
use foretrain_engine::session::{Command, RunSummary};

use super::control;
use super::starting::starting_ui;
use crate::state::{Live, Saved};
use crate::theme::{font, palette, phase_color, phase_label, space};
use crate::views::{Answered, RunIdentity, ViewCtx, ask_ui, ended_word, resume_warning};
use crate::widgets::{Severity, hint_ui, notice_ui, number};

/// Width of the dialog, where the window has as much.
const DIALOG_WIDTH: f32 = 600.0;
/// Height of its list, likewise.
const LIST_HEIGHT: f32 = 380.0;
/// What it holds beside the list.
const DIALOG_REST: f32 = 190.0;
/// The phases stand side by side from this width on.
const FOUR_COLUMNS: f32 = 460.0;

/// Shown in place of the plots while there is nothing to plot.
pub fn welcome_ui(ctx: &ViewCtx<'_>, saved: &Saved, live: &mut Live, ui: &mut Ui) {
    if live.runs.answer().is_none() && !live.runs.is_waiting() && live.runs.failure().is_none() {
        live.runs.ask(ctx, |job| Command::ListRuns(job, saved.settings.runs_folder_path()));
    }
    let p = palette(ui);
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        ui.add_space(space::XL);
        ui.vertical_centered(|ui| {
            ui.set_max_width(ui.available_width().min(620.0));
            if live.start.is_waiting() {
                return starting_ui(ctx, live, ui);
            }
            ui.label(RichText::new("Ready to train").size(26.0).color(p.text_strong));
            ui.add_space(space::XS);
            ui.label(
                RichText::new(
                    "Start takes the recipe at the left as it stands. The built-in datasets are made on first use; \
                     nothing is downloaded.",
                )
                .color(p.text_weak),
            );
            ui.add_space(space::XL);
            phases_ui(ui);
            ui.add_space(space::XL);
            ui.with_layout(egui::Layout::top_down(egui::Align::Min), |ui| resumable_ui(ctx, live, ui));
        });
    });
}

/// The four phases, each with its color and what it does.
fn phases_ui(ui: &mut Ui) {
    let phases = [
        (Phase::Warmup, "Every example gets a backward pass while the learning rate rises."),
        (Phase::Full, "Still everything; the forecaster learns and the gate watches."),
        (Phase::Predict, "Only the examples predicted to matter get a backward pass."),
        (Phase::Correct, "Both ways on one batch, to see how good the prediction is."),
    ];
    let num_columns = if ui.available_width() < FOUR_COLUMNS { 2 } else { phases.len() };
    for row in phases.chunks(num_columns) {
        ui.columns(num_columns, |columns| {
            for (column, (phase, about)) in columns.iter_mut().zip(row) {
                phase_ui(*phase, about, column);
            }
        });
        ui.add_space(space::XS);
    }
}

fn phase_ui(phase: Phase, about: &str, ui: &mut Ui) {
    let p = palette(ui);
    let (bar, _) = ui.allocate_exact_size(egui::vec2(ui.available_width(), 4.0), egui::Sense::hover());
    ui.painter().rect_filled(bar, 2.0, phase_color(p, phase));
    ui.with_layout(egui::Layout::top_down(egui::Align::Min), |ui| {
        ui.label(RichText::new(phase_label(phase)).strong().color(p.text_strong));
        ui.add(egui::Label::new(RichText::new(about).size(font::SMALL + 0.5).color(p.text_weak)).wrap());
    });
}

fn resumable_ui(ctx: &ViewCtx<'_>, live: &mut Live, ui: &mut Ui) {
    let p = palette(ui);
    let Some(runs) = live.runs.answer() else { return };
    let resumable: Vec<RunSummary> = resumable(runs).into_iter().cloned().collect();
    if resumable.is_empty() {
        return;
    }
    ui.label(RichText::new("Go on with").strong().color(p.text_strong));
    ui.add_space(space::XS);
    for run in resumable.iter().take(5) {
        summary_ui(ctx, live, run, ui);
        ui.add_space(space::XS);
    }
}

/// The list in a dialog.
pub fn resume_dialog_ui(ctx: &ViewCtx<'_>, live: &mut Live, egui_ctx: &Context) {
    if !live.run.is_resume_open {
        return;
    }
    let modal = Modal::new(Id::unique("resume")).show(egui_ctx, |ui| {
        let window = ui.ctx().content_rect().size();
        ui.set_width(DIALOG_WIDTH.min(window.x - 2.0 * space::XL));
        ui.heading("Resume a run");
        hint_ui(ui, &ctx.settings.runs_folder_path().display().to_string());
        ui.add_space(space::SM);
        if live.runs.is_waiting() {
            hint_ui(ui, "Reading the folder…");
        }
        if let Some(failure) = live.runs.failure() {
            notice_ui(ui, Severity::Error, &failure.message, |_| {});
        }
        let runs: Vec<RunSummary> = live.runs.answer().cloned().unwrap_or_default();
        let (resumable, unreadable) = (resumable(&runs), unreadable(&runs));
        if resumable.is_empty() && !live.runs.is_waiting() && live.runs.failure().is_none() {
            notice_ui(ui, Severity::Info, "No run here has a checkpoint to go on from.", |_| {});
        }
        ScrollArea::vertical().max_height(LIST_HEIGHT.min((window.y - DIALOG_REST).max(80.0))).show(ui, |ui| {
            for run in resumable {
                summary_ui(ctx, live, run, ui);
                ui.add_space(space::XS);
            }
            for (run, problem) in unreadable {
                unreadable_ui(run, problem, ui);
                ui.add_space(space::XS);
            }
        });
        ui.add_space(space::SM);
        ui.button("Close").clicked()
    });
    if modal.inner || modal.should_close() || live.start.is_waiting() {
        live.run.is_resume_open = false;
    }
}

/// Asks before a run that diverged goes on.
pub fn ask_resume_ui(ctx: &ViewCtx<'_>, live: &mut Live, egui_ctx: &Context) {
    let Some(folder) = live.run.resume_asked.clone() else { return };
    let runs = live.runs.answer().map_or(&[][..], Vec::as_slice);
    let Some(warning) = runs.iter().find(|run| run.folder == folder).and_then(resume_warning) else {
        // It is no longer there, or goes on already.
        live.run.resume_asked = None;
        return;
    };
    match ask_ui(egui_ctx, "Resume", &warning) {
        Answered::NotYet => return,
        Answered::Yes => control::resume_run(ctx, live, &folder),
        Answered::No => {}
    }
    live.run.resume_asked = None;
}

/// Runs that can go on.
fn resumable(runs: &[RunSummary]) -> Vec<&RunSummary> {
    runs.iter().filter(|run| run.is_resumable && run.problem.is_none()).collect()
}

/// Runs that cannot even be read, each with the reason.
fn unreadable(runs: &[RunSummary]) -> Vec<(&RunSummary, &str)> {
    runs.iter().filter_map(|run| Some((run, run.problem.as_deref()?))).collect()
}

/// Says that a run is there and why it cannot go on.
fn unreadable_ui(run: &RunSummary, problem: &str, ui: &mut Ui) {
    notice_ui(ui, Severity::Warning, &format!("{} cannot be read: {problem}", run.name), |_| {});
}

fn summary_ui(ctx: &ViewCtx<'_>, live: &mut Live, run: &RunSummary, ui: &mut Ui) {
    let p = palette(ui);
    let name = live.label_of(run).to_owned();
    let warning = resume_warning(run);
    egui::Frame::new()
        .fill(p.card)
        .stroke(egui::Stroke::new(1.0, p.border))
        .corner_radius(crate::theme::radius::CARD)
        .inner_margin(space::MD)
        .show(ui, |ui| {
            ui.horizontal(|ui| {
                ui.vertical(|ui| {
                    ui.set_width(ui.available_width() - 90.0);
                    ui.spacing_mut().item_spacing.y = 2.0;
                    ui.label(RichText::new(&name).strong().color(p.text_strong))
                        .on_hover_text(run.folder.display().to_string());
                    let state = run.ended.as_ref().map_or("never ended", ended_word);
                    let started = RunIdentity::of_summary(run).started(&ctx.zone);
                    let started = if started.is_empty() { started } else { format!(" · began {started}") };
                    let line = format!(
                        "{} · {} · {} · step {} of {} · {state}{started}",
                        run.dataset,
                        run.model,
                        run.tier,
                        number::count(run.step),
                        number::count(run.num_steps)
                    );
                    ui.add(egui::Label::new(RichText::new(line).size(font::SMALL).color(p.text_weak)).wrap());
                });
                ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                    let resume = ui
                        .add_enabled(!live.is_running(), egui::Button::new("Resume"))
                        .accessible_name(format!("Resume {name}"));
                    if resume.on_disabled_hover_text("A run is going on").clicked() {
                        match warning {
                            Some(_) => live.run.resume_asked = Some(run.folder.clone()),
                            None => control::resume_run(ctx, live, &run.folder),
                        }
                    }
                });
            });
            if let Some(warning) = &warning {
                ui.add_space(space::XS);
                notice_ui(ui, Severity::Warning, warning, |_| {});
            }
        });
}
