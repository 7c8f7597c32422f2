//! What a screen is handed: frozen state to read, and a queue for what it wants done.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use foretrain_engine::session::{Command, JobId, RunSnapshot};
use jiff::tz::TimeZone;

use crate::dialogs::Dialogs;
use crate::state::{Catalog, Screen, Settings, is_active};

/// What a screen wants of the window itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Show a screen.
    Show(Screen),
    /// Close the window, asking first while a run goes on.
    Close,
}

/// Handed to every screen, for one frame.
#[derive(Debug)]
pub struct ViewCtx<'a> {
    /// The current run, or the last one.
    pub snapshot: Option<Arc<RunSnapshot>>,
    /// What can be chosen.
    pub catalog: &'a Catalog,
    /// Settings as they were at the frame's beginning.
    pub settings: &'a Settings,
    /// Time zone in which moments are shown.
    pub zone: TimeZone,
    /// The engine has not taken the last requests yet.
    pub is_busy: bool,
    /// File dialogs.
    pub dialogs: &'a Dialogs,
    next_job: &'a Cell<u64>,
    requests: RefCell<Vec<Command>>,
    actions: RefCell<Vec<Action>>,
}

impl<'a> ViewCtx<'a> {
    /// A context for one frame; jobs are numbered on from `next_job`.
    #[must_use]
    pub fn new(catalog: &'a Catalog, settings: &'a Settings, dialogs: &'a Dialogs, next_job: &'a Cell<u64>) -> Self {
        Self {
            snapshot: None,
            catalog,
            settings,
            zone: TimeZone::UTC,
            is_busy: false,
            dialogs,
            next_job,
            requests: RefCell::default(),
            actions: RefCell::default(),
        }
    }

    /// Queues a request to the engine.
    pub fn request(&self, command: Command) {
        self.requests.borrow_mut().push(command);
    }

    /// Queues a request to the window.
    pub fn act(&self, action: Action) {
        self.actions.borrow_mut().push(action);
    }

    /// A number that no job had before.
    #[must_use]
    pub fn next_job(&self) -> JobId {
        let job = JobId(self.next_job.get());
        self.next_job.set(job.0 + 1);
        job
    }

    /// The run in hand, when it has not ended.
    #[must_use]
    pub fn active_run(&self) -> Option<&RunSnapshot> {
        self.snapshot.as_deref().filter(|run| is_active(&run.status))
    }

    /// What was queued for the engine.
    #[must_use]
    pub fn into_requests(self) -> Vec<Command> {
        self.requests.into_inner()
    }

    /// What was queued for the engine, and for the window.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Command>, Vec<Action>) {
        (self.requests.into_inner(), self.actions.into_inner())
    }
}
