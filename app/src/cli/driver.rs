//! Drives the engine from a terminal: sends a command, shows progress, waits for the answer.

use std::sync::Arc;
use std::time::Duration;

use foretrain_engine::device::{CancelFlag, Progress, Watch};
use foretrain_engine::session::{Command, Engine, Event, EventKind, Failure, JobId, StopReason};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{CliError, output};
use crate::folders;

/// How long to wait for an event before looking at Ctrl-C again.
const POLL: Duration = Duration::from_millis(50);

/// A flag that Ctrl-C sets; to be asked for once. A second Ctrl-C ends the process at once: files are whole or absent.
pub(super) fn interrupt_flag() -> Result<CancelFlag, CliError> {
    let flag = CancelFlag::default();
    let seen = flag.clone();
    let handler = move || {
        if seen.is_set() {
            std::process::exit(CliError::Interrupted.exit_code().into());
        }
        seen.set();
    };
    ctrlc::set_handler(handler).map_err(CliError::from_display)?;
    Ok(flag)
}

/// The engine, for one terminal.
#[derive(Debug)]
pub(super) struct Driver {
    engine: Engine,
    next_job: u64,
    interrupt: CancelFlag,
}

impl Driver {
    pub(super) fn new() -> Result<Self, CliError> {
        let interrupt = interrupt_flag()?;
        let engine = Engine::spawn(Arc::new(|| {}), folders::cache()).map_err(CliError::from_display)?;
        Ok(Self { engine, next_job: 0, interrupt })
    }

    /// The engine itself, for its snapshots.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Sends the command made for a new job and waits for what `pick` takes from its events.
    /// `on_tick` is called with the job and each other event, and with `None` while there is none. Ctrl-C cancels the job.
    pub(super) fn ask<T>(
        &mut self,
        make: impl FnOnce(JobId) -> Command,
        mut on_tick: impl FnMut(&Engine, JobId, Option<&EventKind>),
        mut pick: impl FnMut(EventKind) -> Result<T, EventKind>,
    ) -> Result<T, CliError> {
        self.next_job += 1;
        let job = JobId(self.next_job);
        let command = make(job);
        let is_run = matches!(
            command,
            Command::Start(..)
                | Command::ResumeRun(..)
                | Command::ResumeRunOn(..)
                | Command::Experiment(..)
                | Command::Offload(..)
                | Command::BenchTrain(..)
        );
        self.engine.try_send(command).map_err(|_| CliError::Failed("the engine is busy".to_owned()))?;
        let mut has_told = false;
        loop {
            if self.interrupt.is_set() && !has_told {
                let stop = if is_run { Command::Stop } else { Command::Cancel(job) };
                has_told = self.engine.try_send(stop).is_ok();
            }
            let Some(Event { job: from, kind }) = self.engine.wait_event(POLL) else {
                on_tick(&self.engine, job, None);
                continue;
            };
            if from != job {
                continue;
            }
            match kind {
                EventKind::Rejected(failure) => return Err(refusal(failure)),
                EventKind::Cancelled => return Err(CliError::Interrupted),
                EventKind::Ended(StopReason::Crashed(message)) => {
                    return Err(CliError::Failed(format!("the engine failed: {message}")));
                }
                kind => match pick(kind) {
                    Ok(answer) => return Ok(answer),
                    Err(kind) => on_tick(&self.engine, job, Some(&kind)),
                },
            }
        }
    }

    /// [`Self::ask`] with a progress bar on standard error.
    pub(super) fn ask_with_bar<T>(
        &mut self,
        make: impl FnOnce(JobId) -> Command,
        pick: impl FnMut(EventKind) -> Result<T, EventKind>,
    ) -> Result<T, CliError> {
        let bar = spinner();
        let answer = self.ask(make, |_, _, kind| show_event(&bar, kind), pick);
        bar.finish_and_clear();
        answer
    }

    /// Ends the engine, waiting for what it still has to save.
    pub(super) fn shut_down(self) {
        self.engine.shut_down();
    }
}

/// A refusal as an error; prints the plan when memory was the reason.
fn refusal(failure: Failure) -> CliError {
    match failure.plan {
        Some(plan) => {
            output::note(output::plan_table(&plan));
            let figures = json!({ "plan": plan });
            CliError::Memory { message: failure.message, figures, remedy: plan.remedies.first().cloned() }
        }
        None => CliError::blaming(failure.blame, failure.message),
    }
}

/// Does `work`, which `cancel` ends, with a progress bar on standard error.
pub(super) fn with_bar<T>(
    cancel: &CancelFlag,
    work: impl FnOnce(Watch<'_>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let bar = spinner();
    let done = work(Watch::new(cancel, &|progress| show_progress(&bar, &progress)));
    bar.finish_and_clear();
    done
}

/// A bar that shows what is being done and, once known, how much of it is left.
pub(super) fn spinner() -> ProgressBar {
    let bar = ProgressBar::no_length();
    bar.set_style(style("{spinner} {msg} {human_pos}"));
    bar
}

/// Shows a progress event on a bar made by [`spinner`].
pub(super) fn show_event(bar: &ProgressBar, kind: Option<&EventKind>) {
    if let Some(EventKind::Progress(progress)) = kind {
        show_progress(bar, progress);
    }
}

fn show_progress(bar: &ProgressBar, Progress { what, done, total }: &Progress) {
    if bar.length() != *total {
        match total {
            Some(total) => {
                bar.set_length(*total);
                bar.set_style(style("{msg:32!} {wide_bar} {percent}%"));
            }
            None => bar.set_style(style("{spinner} {msg} {human_pos}")),
        }
    }
    bar.set_message(what.clone());
    bar.set_position(*done);
}

/// A bar's template; a wrong one falls back to the default style.
pub(super) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
