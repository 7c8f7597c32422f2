//! The runs on disk, kept up to date while a screen shows them.

use egui::{Color32, Context, Event};
use foretrain_engine::session::{Command, RunSummary, StopReason};

use super::{ViewCtx, ended_word};
use crate::state::{Live, Screen};
use crate::theme::Palette;

/// Has the runs read again once others may have changed them: `screen` is entered, or the window gets the focus. What is
/// shown of them stays until the answer comes.
pub fn doubt_runs(screen: Screen, live: &mut Live, ctx: &Context) {
    let is_entered = live.screen_seen.replace(screen) != Some(screen);
    let is_focused = ctx.input(|input| input.events.contains(&Event::WindowFocused(true)));
    if is_entered || is_focused {
        live.runs_seen = None;
    }
}

/// Asks for the runs when the folder is another one, or runs may have changed since the last time.
pub fn keep_runs_fresh(ctx: &ViewCtx<'_>, live: &mut Live) {
    let wanted = (ctx.settings.runs_folder_path(), live.num_run_changes);
    if live.runs_seen.as_ref() != Some(&wanted) && !live.runs.is_waiting() {
        live.runs.ask(ctx, |job| Command::ListRuns(job, wanted.0.clone()));
        live.runs_seen = Some(wanted);
    }
}

/// How a run stands, in a word, with its color.
#[must_use]
pub fn run_state(run: &RunSummary, p: &Palette) -> (&'static str, Color32) {
    match &run.ended {
        _ if run.problem.is_some() => ("unreadable", p.bad),
        _ if run.is_running => ("running", p.good),
        None => ("interrupted", p.warn),
        Some(reason @ (StopReason::Finished | StopReason::User)) => (ended_word(reason), p.text_weak),
        Some(reason @ (StopReason::Diverged | StopReason::Failed(_) | StopReason::Crashed(_))) => {
            (ended_word(reason), p.bad)
        }
    }
}
