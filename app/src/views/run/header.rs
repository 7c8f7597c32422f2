//! The bar at the top: which run, how far, and what can be done with it.

use egui::{Align, Color32, Layout, Response, RichText, Ui, vec2};
use foretrain_engine::session::{Command, RunSnapshot, RunStatus, StopReason};

use super::control;
use super::fold::Fold;
use crate::state::{Live, Saved};
use crate::theme::{Palette, font, palette, phase_color, phase_label, space};
use crate::views::ViewCtx;
use crate::widgets::{Icon, icon_text_button_ui, meter_ui, number, pill_ui};

/// Room that the phase, and the state at length, need beside the run's progress.
const WORDY: f32 = 360.0;
/// Room that the time left needs beside the step.
const TIMED: f32 = 200.0;

/// Shows the bar; while the recipe is folded, with the button that starts it.
pub(super) fn header_ui(ctx: &ViewCtx<'_>, saved: &Saved, live: &mut Live, recipe: Fold, ui: &mut Ui) {
    let p = palette(ui);
    ui.allocate_ui_with_layout(vec2(ui.available_width(), 40.0), Layout::right_to_left(Align::Center), |ui| {
        controls_ui(ctx, saved, live, recipe, ui);
        ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
            ui.spacing_mut().item_spacing.x = space::MD;
            match &ctx.snapshot {
                Some(run) => run_line_ui(run, p, ui),
                None => {
                    ui.label(RichText::new("New run").size(font::HEADING).color(p.text_strong));
                    ui.add(egui::Label::new(RichText::new("Nothing is running").color(p.text_weak)).truncate());
                }
            }
            if ctx.is_busy {
                pill_ui(ui, "Engine busy", p.warn_soft, p.warn)
                    .on_hover_text("The engine has not taken the last request yet; it is kept and sent again.");
            }
        });
    });
}

fn run_line_ui(run: &RunSnapshot, p: &Palette, ui: &mut Ui) {
    let title = egui::Label::new(RichText::new(&run.config.name).size(font::HEADING).color(p.text_strong)).truncate();
    let width = (ui.available_width() * 0.34).clamp(80.0, 280.0);
    ui.scope(|ui| {
        ui.set_max_width(width);
        let hover =
            run.folder.as_ref().map_or_else(|| "Its folder is not made yet".to_owned(), |f| f.display().to_string());
        ui.add(title).on_hover_text(hover);
    });
    let is_wordy = ui.available_width() >= WORDY;
    let (text, fill, ink) = status_of(&run.status, p);
    match &run.status {
        RunStatus::Preparing { what } if is_wordy => pill_ui(ui, &format!("{text}: {what}"), fill, ink),
        RunStatus::Preparing { what } | RunStatus::Unsaved { why: what } => {
            pill_ui(ui, text, fill, ink).on_hover_text(what)
        }
        RunStatus::Training | RunStatus::Validating | RunStatus::Paused | RunStatus::Ended(_) => {
            pill_ui(ui, text, fill, ink)
        }
    };
    let is_stepping = matches!(run.status, RunStatus::Training | RunStatus::Validating | RunStatus::Paused);
    if is_stepping && run.step > 0 && is_wordy {
        let color = phase_color(p, run.phase);
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 5.0;
            crate::widgets::swatch_ui(ui, color);
            ui.label(RichText::new(phase_label(run.phase)).color(p.text));
        });
    }
    ui.vertical(|ui| {
        ui.spacing_mut().item_spacing.y = 3.0;
        ui.add_space(2.0);
        let has_time = ui.available_width() >= TIMED;
        let of_step =
            run.in_step.as_ref().and_then(|now| Some(now.done as f32 / now.total.filter(|total| *total > 0)? as f32));
        let done = run.step as f32 + of_step.unwrap_or(0.0);
        let share = if run.config.num_steps == 0 { 0.0 } else { done / run.config.num_steps as f32 };
        ui.horizontal(|ui| {
            let steps = format!("Step {} of {}", number::count(run.step), number::count(run.config.num_steps));
            let steps = run.in_step.as_ref().map_or_else(|| steps.clone(), |now| format!("{steps}, now {}", now.what));
            ui.label(RichText::new(steps).size(font::SMALL + 0.5).color(p.text));
            if has_time {
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    ui.label(RichText::new(time_left(run)).size(font::SMALL + 0.5).color(p.text_weak));
                });
            }
        });
        meter_ui(ui, "Progress of the run", share, p.accent, None);
    });
}

fn time_left(run: &RunSnapshot) -> String {
    match (&run.status, run.seconds_left) {
        (RunStatus::Ended(_) | RunStatus::Unsaved { .. }, _) => {
            format!("{} of steps", number::seconds(run.savings.measured_ms / 1000.0))
        }
        (_, Some(seconds)) => format!("{} left", number::seconds(seconds)),
        (_, None) => "Time left not known yet".to_owned(),
    }
}

/// A run's state in a word or two, with its colors.
fn status_of(status: &RunStatus, p: &Palette) -> (&'static str, Color32, Color32) {
    match status {
        RunStatus::Preparing { .. } => ("Preparing", p.accent_soft, p.text),
        RunStatus::Training => ("Training", p.good_soft, p.good),
        RunStatus::Validating => ("Validating", p.good_soft, p.good),
        RunStatus::Paused => ("Paused", p.warn_soft, p.warn),
        RunStatus::Unsaved { .. } => ("Not saved", p.bad_soft, p.bad),
        RunStatus::Ended(reason) => match reason {
            StopReason::Finished => ("Finished", p.good_soft, p.good),
            StopReason::User => ("Stopped", p.control, p.text),
            StopReason::Diverged => ("Diverged", p.bad_soft, p.bad),
            StopReason::Failed(_) => ("Failed", p.bad_soft, p.bad),
            StopReason::Crashed(_) => ("Crashed", p.bad_soft, p.bad),
        },
    }
}

/// What can be done now, from right to left.
fn controls_ui(ctx: &ViewCtx<'_>, saved: &Saved, live: &mut Live, recipe: Fold, ui: &mut Ui) {
    ui.spacing_mut().item_spacing.x = space::SM;
    if let Some(run) = ctx.active_run() {
        return run_controls_ui(ctx, run, live, ui);
    }
    if live.start.is_waiting() {
        let p = palette(ui);
        pill_ui(ui, "Starting…", p.accent_soft, p.text);
        return;
    }
    if !recipe.is_open() && button_ui(ui, saved.draft.is_some(), Icon::Play, "Start training", "Ctrl+Enter").clicked() {
        control::start(ctx, live, saved);
    }
    let hover = "Go on with a run that was stopped or killed";
    if button_ui(ui, true, Icon::Resume, "Resume a run…", hover).clicked() {
        live.run.is_resume_open = true;
        live.runs.ask(ctx, |job| Command::ListRuns(job, saved.settings.runs_folder_path()));
    }
}

/// Buttons of a run that goes on; what was asked of it and is not done yet cannot be asked again.
fn run_controls_ui(ctx: &ViewCtx<'_>, run: &RunSnapshot, live: &mut Live, ui: &mut Ui) {
    let asked = live.run.asked;
    let is_unsaved = matches!(run.status, RunStatus::Unsaved { .. });
    let (stop, about_stop) = match (asked.is_stopping(), is_unsaved) {
        (true, _) => ("Stopping…", "It saves and ends."),
        (false, true) => ("Stop", "Give up what came after the last checkpoint"),
        (false, false) => ("Stop", "Save and end the run"),
    };
    if button_ui(ui, !asked.is_stopping(), Icon::Stop, stop, about_stop).clicked() {
        control::stop(ctx, live);
    }
    if run.status == RunStatus::Paused {
        if button_ui(ui, !asked.is_stopping(), Icon::Play, "Resume", "Go on (Space)").clicked() {
            control::pause_or_resume(ctx, live);
        }
    } else {
        let pause = if asked.is_pausing() { "Pausing…" } else { "Pause" };
        if button_ui(ui, control::can_pause(run, live), Icon::Pause, pause, "Stop at the next step (Space)").clicked() {
            control::pause_or_resume(ctx, live);
        }
    }
    let (save, about_save) = match (asked.is_saving(), is_unsaved) {
        (true, _) => ("Saving…", "The checkpoint is being written."),
        (false, true) => ("Save", "Try again to save the end of the run (Ctrl+S)"),
        (false, false) => ("Save", "Save a checkpoint at the next step (Ctrl+S)"),
    };
    if button_ui(ui, control::can_save(run, live), Icon::Save, save, about_save).clicked() {
        control::save(ctx, live);
    }
}

fn button_ui(ui: &mut Ui, is_enabled: bool, icon: Icon, text: &str, hover: &str) -> Response {
    ui.add_enabled_ui(is_enabled, |ui| icon_text_button_ui(ui, icon, text)).inner.on_hover_text(hover)
}
