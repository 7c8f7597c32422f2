//! Drives the engine from a terminal: sends a command, shows progress, waits for the answer.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foretrain_engine::device::Progress;
use foretrain_engine::session::{Command, Engine, Event, EventKind, JobId, StopReason};
use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::folders;

/// How long to wait for an event before looking at Ctrl-C again.
const POLL: Duration = Duration::from_millis(50);

/// Why a subcommand did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The engine refused or failed; the message says why.
    #[error("{0}")]
    Failed(String),
    /// The plan is over the memory budget; the table has been printed.
    #[error("{0}")]
    Memory(String),
    /// The divergence guard ended the run.
    #[error("the run diverged and was stopped; its last good weights are saved")]
    Diverged,
    /// Ctrl-C.
    #[error("interrupted; what was done so far is saved")]
    Interrupted,
}

impl CliError {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Memory(_) => 3,
            Self::Diverged => 4,
            Self::Interrupted => 130,
        })
    }

    /// Any error, in words with its causes.
    pub(super) fn from_display(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The engine, for one terminal.
#[derive(Debug)]
pub(super) struct Driver {
    engine: Engine,
    next_job: u64,
    is_interrupted: Arc<AtomicBool>,
}

impl Driver {
    pub(super) fn new() -> Result<Self, CliError> {
        let is_interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_interrupted);
        let handler = move || {
            // A second Ctrl-C ends the process at once; checkpoints are whole or absent.
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        };
        ctrlc::set_handler(handler).map_err(CliError::from_display)?;
        let engine = Engine::spawn(Arc::new(|| {}), folders::cache()).map_err(CliError::from_display)?;
        Ok(Self { engine, next_job: 0, is_interrupted })
    }

    /// The engine itself, for its snapshots.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Sends the command made for a new job and waits for what `pick` takes from its events.
    /// `on_tick` is called with each other event, and with `None` while there is none. Ctrl-C cancels the job.
    pub(super) fn ask<T>(
        &mut self,
        make: impl FnOnce(JobId) -> Command,
        mut on_tick: impl FnMut(&Engine, Option<&EventKind>),
        mut pick: impl FnMut(EventKind) -> Result<T, EventKind>,
    ) -> Result<T, CliError> {
        self.next_job += 1;
        let job = JobId(self.next_job);
        let command = make(job);
        let is_run = matches!(command, Command::Start(..) | Command::ResumeRun(..));
        self.engine.try_send(command).map_err(|_| CliError::Failed("the engine is busy".to_owned()))?;
        let mut has_told = false;
        loop {
            if self.is_interrupted.load(Ordering::Relaxed) && !has_told {
                let stop = if is_run { Command::Stop } else { Command::Cancel(job) };
                has_told = self.engine.try_send(stop).is_ok();
            }
            let Some(Event { job: from, kind }) = self.engine.wait_event(POLL) else {
                on_tick(&self.engine, None);
                continue;
            };
            if from != job {
                continue;
            }
            match kind {
                EventKind::Rejected(failure) => {
                    return Err(match &failure.plan {
                        Some(plan) => {
                            eprintln!("{}", output::plan_table(plan));
                            CliError::Memory(failure.message)
                        }
                        None => CliError::Failed(failure.message),
                    });
                }
                EventKind::Cancelled => return Err(CliError::Interrupted),
                EventKind::Ended(StopReason::Crashed(message)) => {
                    return Err(CliError::Failed(format!("the engine failed: {message}")));
                }
                kind => match pick(kind) {
                    Ok(answer) => return Ok(answer),
                    Err(kind) => on_tick(&self.engine, Some(&kind)),
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
        let answer = self.ask(make, |_, kind| show_progress(&bar, kind), pick);
        bar.finish_and_clear();
        answer
    }

    /// Ends the engine, waiting for what it still has to save.
    pub(super) fn shut_down(self) {
        self.engine.shut_down();
    }
}

/// A bar that shows what is being done and, once known, how much of it is left.
pub(super) fn spinner() -> ProgressBar {
    let bar = ProgressBar::no_length();
    bar.set_style(style("{spinner} {msg} {human_pos}"));
    bar
}

/// Shows a progress event on a bar made by [`spinner`].
pub(super) fn show_progress(bar: &ProgressBar, kind: Option<&EventKind>) {
    if let Some(EventKind::Progress(Progress { what, done, total })) = kind {
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
}

/// A bar's template; a wrong one falls back to the default style.
pub(super) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
