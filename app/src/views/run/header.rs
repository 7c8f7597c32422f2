//! The bar at the top: which run, how far, and what can be done with it.

use egui::{Align, Color32, Layout, RichText, Ui, vec2};
use foretrain_engine::session::{Command, RunSnapshot, RunStatus, StopReason};

use crate::state::{Live, Saved};
use crate::theme::{Palette, font, palette, phase_color, phase_label, space};
use crate::views::ViewCtx;
use crate::widgets::{Icon, icon_text_button_ui, meter_ui, number, pill_ui};

/// Shows the bar.
pub fn header_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    let p = palette(ui);
    ui.allocate_ui_with_layout(vec2(ui.available_width(), 40.0), Layout::right_to_left(Align::Center), |ui| {
        controls_ui(ctx, saved, live, ui);
        ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
            ui.spacing_mut().item_spacing.x = space::MD;
            match &ctx.snapshot {
                Some(run) => run_line_ui(run, p, ui),
                None => {
                    ui.label(RichText::new("New run").size(font::HEADING).color(p.text_strong));
                    ui.label(RichText::new("Nothing is running").color(p.text_weak));
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
    let (text, fill, ink) = status_of(&run.status, p);
    pill_ui(ui, &text, fill, ink);
    if matches!(run.status, RunStatus::Training | RunStatus::Validating | RunStatus::Paused) && run.step > 0 {
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
        let share = if run.config.num_steps == 0 { 0.0 } else { run.step as f32 / run.config.num_steps as f32 };
        ui.horizontal(|ui| {
            let steps = format!("Step {} of {}", number::count(run.step), number::count(run.config.num_steps));
            ui.label(RichText::new(steps).size(font::SMALL + 0.5).color(p.text));
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                ui.label(RichText::new(time_left(run)).size(font::SMALL + 0.5).color(p.text_weak));
            });
        });
        meter_ui(ui, "Progress of the run", share, p.accent, None);
    });
}

fn time_left(run: &RunSnapshot) -> String {
    match (&run.status, run.seconds_left) {
        (RunStatus::Ended(_), _) => format!("{} of steps", number::seconds(run.savings.measured_ms / 1000.0)),
        (_, Some(seconds)) => format!("{} left", number::seconds(seconds)),
        (_, None) => "Time left not known yet".to_owned(),
    }
}

/// A run's state in a word or two, with its colors.
fn status_of(status: &RunStatus, p: &Palette) -> (String, Color32, Color32) {
    match status {
        RunStatus::Preparing { what } => (format!("Preparing: {what}"), p.accent_soft, p.text),
        RunStatus::Training => ("Training".to_owned(), p.good_soft, p.good),
        RunStatus::Validating => ("Validating".to_owned(), p.good_soft, p.good),
        RunStatus::Paused => ("Paused".to_owned(), p.warn_soft, p.warn),
        RunStatus::Ended(reason) => match reason {
            StopReason::Finished => ("Finished".to_owned(), p.good_soft, p.good),
            StopReason::User => ("Stopped".to_owned(), p.control, p.text),
            StopReason::Diverged => ("Diverged".to_owned(), p.bad_soft, p.bad),
            StopReason::Failed(_) => ("Failed".to_owned(), p.bad_soft, p.bad),
            StopReason::Crashed(_) => ("Crashed".to_owned(), p.bad_soft, p.bad),
        },
    }
}

/// What can be done now, from right to left.
fn controls_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut Ui) {
    ui.spacing_mut().item_spacing.x = space::SM;
    let p = palette(ui);
    match ctx.active_run() {
        Some(run) => {
            let can_pause = matches!(run.status, RunStatus::Training | RunStatus::Validating);
            let is_paused = run.status == RunStatus::Paused;
            let has_steps = run.step > 0;
            ui.add_enabled_ui(true, |ui| {
                if icon_text_button_ui(ui, Icon::Stop, "Stop").on_hover_text("Save and end the run").clicked() {
                    ctx.request(Command::Stop);
                }
            });
            if is_paused {
                if icon_text_button_ui(ui, Icon::Play, "Resume").on_hover_text("Go on (Space)").clicked() {
                    ctx.request(Command::Resume);
                }
            } else {
                ui.add_enabled_ui(can_pause, |ui| {
                    if icon_text_button_ui(ui, Icon::Pause, "Pause")
                        .on_hover_text("Stop at the next step (Space)")
                        .clicked()
                    {
                        ctx.request(Command::Pause);
                    }
                });
            }
            ui.add_enabled_ui(has_steps, |ui| {
                let save = icon_text_button_ui(ui, Icon::Save, "Save");
                if save.on_hover_text("Save a checkpoint at the next step (Ctrl+S)").clicked() {
                    ctx.request(Command::Save);
                }
            });
        }
        None => {
            let resume = icon_text_button_ui(ui, Icon::Resume, "Resume a run…");
            if resume.on_hover_text("Go on with a run that was stopped or killed").clicked() {
                live.run.is_resume_open = true;
                live.runs.ask(ctx, |job| Command::ListRuns(job, saved.settings.runs_folder_path()));
            }
            if live.start.is_waiting() {
                pill_ui(ui, "Starting…", p.accent_soft, p.text);
            }
        }
    }
}
