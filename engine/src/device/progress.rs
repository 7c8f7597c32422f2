//! Progress out, cancellation in: what every slow job is handed.

use super::CancelFlag;

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, as a present participle: "reading train images".
    pub what: String,
    /// Units done.
    pub done: u64,
    /// Units in all; `None` while unknown.
    pub total: Option<u64>,
}

/// The job was asked to end and did so, leaving nothing half done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// Handed to every job that can take over a second.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    cancel: &'a CancelFlag,
    on_progress: &'a (dyn Fn(Progress) + Sync),
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("cancel", self.cancel).finish_non_exhaustive()
    }
}

impl<'a> Watch<'a> {
    /// A watch over `cancel` that tells `on_progress`.
    pub fn new(cancel: &'a CancelFlag, on_progress: &'a (dyn Fn(Progress) + Sync)) -> Self {
        Self { cancel, on_progress }
    }

    /// Reports progress, then fails with [`Cancelled`] when the job was asked to end.
    pub fn step(&self, what: &str, done: u64, total: Option<u64>) -> Result<(), Cancelled> {
        (self.on_progress)(Progress { what: what.to_owned(), done, total });
        self.check()
    }

    /// Fails with [`Cancelled`] when the job was asked to end.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.cancel.is_set() { Err(Cancelled) } else { Ok(()) }
    }

    /// The flag itself, for a callee that takes one.
    #[must_use]
    pub fn cancel_flag(&self) -> &'a CancelFlag {
        self.cancel
    }
}

/// A watch for tests and callers who neither listen nor cancel.
#[macro_export]
macro_rules! unwatched {
    () => {
        $crate::device::Watch::new(&$crate::device::CancelFlag::default(), &|_| {})
    };
}
