//! Before the first run: what to do. And the list of runs that can go on.

use egui::{Context, Id, Modal, RichText, ScrollArea, Ui};
use foretrain_engine::hybrid::Phase;
use foretrain_engine::session::{Command, RunSummary, StopReason};

use crate::state::{Live, Saved};
use crate::theme::{font, palette, phase_color, phase_label, space};
use crate::views::ViewCtx;
use crate::widgets::{Severity, hint_ui, meter_ui, notice_ui, number};

/// Shown in place of the plots while there is nothing to plot.
pub fn welcome_ui(ctx: &ViewCtx<'_>, saved: &Saved, live: &mut Live, ui: &mut Ui) {
    if live.runs.answer().is_none() && !live.runs.is_waiting() && live.runs.failure().is_none() {
        live.runs.ask(ctx, |job| Command::ListRuns(job, saved.settings.runs_folder_path()));
    }
    let p = palette(ui);
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        ui.add_space(space::XL);
        ui.vertical_centered(|ui| {
            ui.set_max_width(620.0);
            if live.start.is_waiting() {
                starting_ui(live, ui);
                return;
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

/// What the engine does before the first step.
fn starting_ui(live: &Live, ui: &mut Ui) {
    let p = palette(ui);
    ui.label(RichText::new("Starting").size(26.0).color(p.text_strong));
    ui.add_space(space::XS);
    let Some(progress) = live.start.progress() else { return };
    ui.label(RichText::new(&progress.what).color(p.text_weak));
    if let Some(total) = progress.total.filter(|total| *total > 0) {
        ui.add_space(space::SM);
        meter_ui(ui, "Progress of the start", progress.done as f32 / total as f32, p.accent, None);
    }
}

/// The four phases, each with its color and what it does.
fn phases_ui(ui: &mut Ui) {
    let p = palette(ui);
    let phases = [
        (Phase::Warmup, "Every example gets a backward pass while the learning rate rises."),
        (Phase::Full, "Still everything; the forecaster learns and the gate watches."),
        (Phase::Predict, "Only the examples predicted to matter get a backward pass."),
        (Phase::Correct, "Both ways on one batch, to see how good the prediction is."),
    ];
    ui.columns(phases.len(), |columns| {
        for (column, (phase, about)) in columns.iter_mut().zip(phases) {
            let color = phase_color(p, phase);
            let (bar, _) = column.allocate_exact_size(egui::vec2(column.available_width(), 4.0), egui::Sense::hover());
            column.painter().rect_filled(bar, 2.0, color);
            column.with_layout(egui::Layout::top_down(egui::Align::Min), |ui| {
                ui.label(RichText::new(phase_label(phase)).strong().color(p.text_strong));
                ui.add(egui::Label::new(RichText::new(about).size(font::SMALL + 0.5).color(p.text_weak)).wrap());
            });
        }
    });
}

fn resumable_ui(ctx: &ViewCtx<'_>, live: &mut Live, ui: &mut Ui) {
    let p = palette(ui);
    let Some(runs) = live.runs.answer() else { return };
    let resumable: Vec<RunSummary> = runs.iter().filter(|run| run.is_resumable).cloned().collect();
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
        ui.set_width(600.0);
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
        let resumable: Vec<&RunSummary> = runs.iter().filter(|run| run.is_resumable).collect();
        if resumable.is_empty() && !live.runs.is_waiting() && live.runs.failure().is_none() {
            notice_ui(ui, Severity::Info, "No run here has a checkpoint to go on from.", |_| {});
        }
        ScrollArea::vertical().max_height(380.0).show(ui, |ui| {
            for run in resumable {
                summary_ui(ctx, live, run, ui);
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

fn summary_ui(ctx: &ViewCtx<'_>, live: &mut Live, run: &RunSummary, ui: &mut Ui) {
    let p = palette(ui);
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
                    ui.label(RichText::new(&run.name).strong().color(p.text_strong))
                        .on_hover_text(run.folder.display().to_string());
                    let state = ended_text(run.ended.as_ref());
                    let line = format!(
                        "{} · {} · {} · step {} of {} · {state}",
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
                        .accessible_name(format!("Resume {}", run.name));
                    if resume.on_disabled_hover_text("A run is going on").clicked() {
                        live.ended = None;
                        live.start.ask(ctx, |job| Command::ResumeRun(job, run.folder.clone()));
                    }
                });
            });
        });
}

fn ended_text(ended: Option<&StopReason>) -> &'static str {
    match ended {
        None => "never ended",
        Some(StopReason::Finished) => "finished",
        Some(StopReason::User) => "stopped",
        Some(StopReason::Diverged) => "diverged",
        Some(StopReason::Failed(_)) => "failed",
        Some(StopReason::Crashed(_)) => "crashed",
    }
}
