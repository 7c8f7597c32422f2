//! Closing the window while work goes on: a run is saved first, everything else is cancelled.

use egui::{Context, Id, Modal, Ui};
use foretrain_engine::session::RunStatus;

use super::run::{self, last_checkpoint};
use super::{Action, ViewCtx};
use crate::state::{CloseState, Live};
use crate::theme::space;
use crate::widgets::{Severity, notice_ui, number};

/// Width of the dialogs.
const WIDTH: f32 = 420.0;

/// Seconds until the user may leave without waiting for the end.
const PATIENCE_SECONDS: f64 = 10.0;

/// Asks, then shows how far the end is, and why the window stays if it does. When to close is up to the app.
pub fn close_ui(ctx: &ViewCtx<'_>, live: &mut Live, egui_ctx: &Context) {
    match live.close {
        CloseState::Open | CloseState::Closing => {}
        CloseState::Asking { has_run } => asking_ui(ctx, live, has_run, egui_ctx),
        CloseState::Ending { since, .. } => ending_ui(ctx, live, since, egui_ctx),
        CloseState::Lost => lost_ui(ctx, live, egui_ctx),
    }
}

fn asking_ui(ctx: &ViewCtx<'_>, live: &mut Live, has_run: bool, egui_ctx: &Context) {
    let jobs = in_words(&live.jobs_under_way());
    let (title, yes, no) = if has_run {
        ("A run is going on".to_owned(), "Stop, save and close", "Keep training")
    } else {
        (format!("{} is going on", capitalized(&jobs)), "Cancel it and close", "Keep going")
    };
    let modal = Modal::new(Id::unique("close")).show(egui_ctx, |ui| {
        ui.set_width(WIDTH);
        ui.heading(title);
        ui.add_space(space::SM);
        if has_run {
            ui.label("Stopping saves a checkpoint, so that you can go on from it later.");
        }
        if !jobs.is_empty() {
            ui.label(format!("Closing cancels {jobs}; nothing half done is left."));
        }
        ui.add_space(space::MD);
        ui.horizontal(|ui| {
            if ui.button(yes).clicked() {
                match why_unsaved(ctx) {
                    // To stop it now would give up what it holds.
                    Some(_) => run::save(ctx, live),
                    None => run::stop(ctx, live),
                }
                live.end_jobs(ctx);
                live.close = CloseState::Ending { has_run, since: ui.input(|input| input.time) };
            }
            if ui.button(no).clicked() {
                live.close = CloseState::Open;
            }
        });
    });
    if modal.should_close() && matches!(live.close, CloseState::Asking { .. }) {
        live.close = CloseState::Open;
    }
}

fn ending_ui(ctx: &ViewCtx<'_>, live: &mut Live, since: f64, egui_ctx: &Context) {
    Modal::new(Id::unique("closing")).show(egui_ctx, |ui| {
        ui.set_width(WIDTH);
        match why_unsaved(ctx) {
            Some(why) => unsaved_ui(ctx, live, why, ui),
            None => waiting_ui(ctx, live, since, ui),
        }
    });
}

/// Why the end of the run is not on disk, when the run waits for the user because of that.
fn why_unsaved<'a>(ctx: &'a ViewCtx<'_>) -> Option<&'a str> {
    if let RunStatus::Unsaved { why } = &ctx.active_run()?.status { Some(why) } else { None }
}

/// What is still to be done, and the way out when it takes too long.
fn waiting_ui(ctx: &ViewCtx<'_>, live: &mut Live, since: f64, ui: &mut Ui) {
    let run = ctx.active_run();
    ui.horizontal(|ui| {
        ui.spinner();
        ui.heading(if live.is_running() { "Saving and closing…" } else { "Closing…" });
    });
    ui.add_space(space::SM);
    if live.is_running() {
        if let Some(run) = run {
            ui.label(format!("Ending the run at step {}.", number::count(run.step)));
        }
        ui.label("The window closes when the checkpoint is on disk.");
    }
    let jobs = in_words(&live.jobs_under_way());
    if !jobs.is_empty() {
        ui.label(format!("Cancelling {jobs}."));
    }
    if ui.input(|input| input.time) - since < PATIENCE_SECONDS {
        return;
    }
    ui.add_space(space::MD);
    let text = match run {
        Some(run) => format!("Close without saving (last checkpoint: {})", last_checkpoint(run)),
        None => "Close without waiting".to_owned(),
    };
    if ui.button(text).clicked() {
        close_now(ctx, live);
    }
}

/// The end of the run cannot be written; the run waits for what the user says.
fn unsaved_ui(ctx: &ViewCtx<'_>, live: &mut Live, why: &str, ui: &mut Ui) {
    ui.heading("The run could not be saved");
    ui.add_space(space::SM);
    notice_ui(ui, Severity::Error, why, |_| {});
    last_ui(ctx, ui);
    ui.horizontal(|ui| {
        let is_saving = live.run.asked.is_saving();
        let text = if is_saving { "Saving…" } else { "Try again" };
        if ui.add_enabled(!is_saving, egui::Button::new(text)).clicked() {
            run::save(ctx, live);
        }
        leave_ui(ctx, live, ui);
    });
}

/// The run ended without saving while the window waited for it.
fn lost_ui(ctx: &ViewCtx<'_>, live: &mut Live, egui_ctx: &Context) {
    let why = live.loss_of_run().unwrap_or_default().to_owned();
    Modal::new(Id::unique("lost")).show(egui_ctx, |ui| {
        ui.set_width(WIDTH);
        ui.heading("The run ended without saving");
        ui.add_space(space::SM);
        notice_ui(ui, Severity::Error, &why, |_| {});
        last_ui(ctx, ui);
        ui.horizontal(|ui| leave_ui(ctx, live, ui))
    });
}

fn last_ui(ctx: &ViewCtx<'_>, ui: &mut Ui) {
    ui.add_space(space::SM);
    if let Some(run) = &ctx.snapshot {
        ui.label(format!("The last checkpoint is {}.", last_checkpoint(run)));
    }
    ui.add_space(space::MD);
}

fn leave_ui(ctx: &ViewCtx<'_>, live: &mut Live, ui: &mut Ui) {
    if ui.button("Close anyway").clicked() {
        close_now(ctx, live);
    }
    if ui.button("Keep open").clicked() {
        live.close = CloseState::Open;
    }
}

fn close_now(ctx: &ViewCtx<'_>, live: &mut Live) {
    live.close = CloseState::Closing;
    ctx.act(Action::Close);
}

/// "an export, a quantization and a trial".
fn in_words(parts: &[&str]) -> String {
    match parts {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_put_in_words() {
        assert_eq!(in_words(&[]), "");
        assert_eq!(in_words(&["an export"]), "an export");
        assert_eq!(in_words(&["an export", "a quantization", "a trial"]), "an export, a quantization and a trial");
        assert_eq!(capitalized("an export"), "An export");
    }
}
