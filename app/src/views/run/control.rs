//! What can be asked of a run, by a button or by a key. A request is remembered until the run shows that it was heard:
//! it is not made twice, and the screen says that it is under way.

use std::path::Path;

use foretrain_engine::session::{Command, JobId, RunSnapshot, RunStatus};

use crate::state::{Live, Saved, Wanted};
use crate::views::ViewCtx;

/// Said when a run is asked for meanwhile.
const EXPERIMENT_GOES_ON: &str = "An experiment is going on: a run would spoil its pace, and it the run's. Wait for it, or \
                                  cancel it on Compare.";

/// Starts the run that the form describes; what it lacks becomes a message beside the button.
pub fn start(ctx: &ViewCtx<'_>, live: &mut Live, saved: &Saved) {
    if live.is_running() {
        return;
    }
    let Some(draft) = &saved.draft else { return };
    match draft.wanted(ctx.settings) {
        Ok(wanted) if !saved.tier_lock.access(&wanted.config().tier, wanted.config()).is_open() => {
            let tier = &wanted.config().tier;
            live.start.fail(format!("The tier {tier} is locked for this recipe: see Tier in the form."));
        }
        Ok(Wanted::Run(config)) => begin(ctx, live, |job| Command::Start(job, config)),
        Ok(Wanted::Streamed(asked)) => begin(ctx, live, |job| Command::Offload(job, asked)),
        Err(message) => live.start.fail(message),
    }
}

/// Goes on with the run in `folder`.
pub fn resume_run(ctx: &ViewCtx<'_>, live: &mut Live, folder: &Path) {
    if !live.is_running() {
        begin(ctx, live, |job| Command::ResumeRun(job, folder.to_owned()));
    }
}

fn begin(ctx: &ViewCtx<'_>, live: &mut Live, command: impl FnOnce(JobId) -> Command) {
    if live.is_experimenting() {
        return live.start.fail(EXPERIMENT_GOES_ON.to_owned());
    }
    // Measuring a step now would disturb the run's own probe.
    live.stop_planning(ctx);
    live.ended = None;
    live.run.replaced = None;
    live.start.ask(ctx, command);
}

/// Saves and ends the run, or the start that is under way.
pub fn stop(ctx: &ViewCtx<'_>, live: &mut Live) {
    if live.is_running() && !live.run.asked.is_stopping() {
        ctx.request(Command::Stop);
        live.run.asked.stop(ctx.active_run());
    }
}

/// Pauses the run, or goes on with it.
pub fn pause_or_resume(ctx: &ViewCtx<'_>, live: &mut Live) {
    let Some(run) = ctx.active_run() else { return };
    if run.status == RunStatus::Paused {
        ctx.request(Command::Resume);
    } else if can_pause(run, live) {
        ctx.request(Command::Pause);
        live.run.asked.pause();
    }
}

/// Saves a checkpoint now.
pub fn save(ctx: &ViewCtx<'_>, live: &mut Live) {
    if let Some(run) = ctx.active_run().filter(|run| can_save(run, live)) {
        ctx.request(Command::Save);
        live.run.asked.save(run);
    }
}

/// True while a request to pause would be heard.
pub fn can_pause(run: &RunSnapshot, live: &Live) -> bool {
    let asked = live.run.asked;
    matches!(run.status, RunStatus::Training | RunStatus::Validating) && !asked.is_pausing() && !asked.is_stopping()
}

/// True while there is something to save and nobody has asked for it yet.
pub fn can_save(run: &RunSnapshot, live: &Live) -> bool {
    let asked = live.run.asked;
    let is_heard = match &run.status {
        RunStatus::Training | RunStatus::Validating | RunStatus::Paused | RunStatus::Unsaved { .. } => true,
        RunStatus::Preparing { .. } | RunStatus::Ended(_) => false,
    };
    is_heard && run.step > 0 && !asked.is_saving() && !asked.is_stopping()
}
