//! The way out of an engine thread: events that never block it, snapshots at most 30 times a second.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Sender, TrySendError};

use super::{Event, EventKind, JobId, RunSnapshot, RunStatus, StopReason, Wake};

/// Least time between two published snapshots.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(33);

/// Events and snapshots of one engine thread.
pub(super) struct Outlet {
    events: Sender<Event>,
    snapshot: Arc<ArcSwapOption<RunSnapshot>>,
    wake: Wake,
    /// Milestones that found the channel full.
    waiting: VecDeque<Event>,
    last_published: Option<Instant>,
}

impl Outlet {
    pub(super) fn new(events: Sender<Event>, snapshot: Arc<ArcSwapOption<RunSnapshot>>, wake: Wake) -> Self {
        Self { events, snapshot, wake, waiting: VecDeque::new(), last_published: None }
    }

    /// Sends an event without waiting. With a full channel, progress is dropped (newer progress follows)
    /// and everything else waits for the next call.
    pub(super) fn send(&mut self, job: JobId, kind: EventKind) {
        let event = Event { job, kind };
        self.flush();
        if matches!(event.kind, EventKind::Progress(_) | EventKind::Raced(_)) {
            // Dropped when full, on purpose.
            let _ = self.events.try_send(event);
        } else {
            self.waiting.push_back(event);
            self.flush();
        }
        (self.wake)();
    }

    /// Sends milestones that waited.
    pub(super) fn flush(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.waiting.push_front(event);
                    return;
                }
                // Nobody listens any more.
                Err(TrySendError::Disconnected(_)) => self.waiting.clear(),
            }
        }
    }

    /// True while milestones wait.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// True when enough time has passed for a new snapshot.
    pub(super) fn is_snapshot_due(&self) -> bool {
        self.is_due_after(SNAPSHOT_INTERVAL)
    }

    /// True when the last snapshot is at least this old.
    pub(super) fn is_due_after(&self, interval: Duration) -> bool {
        self.last_published.is_none_or(|last| last.elapsed() >= interval)
    }

    /// Swaps the snapshot and wakes the window.
    pub(super) fn publish(&mut self, snapshot: RunSnapshot) {
        self.snapshot.store(Some(Arc::new(snapshot)));
        self.last_published = Some(Instant::now());
        self.flush();
        (self.wake)();
    }

    /// Marks the published run as ended when it did not get to say so itself.
    pub(super) fn end_run(&mut self, job: JobId, reason: &StopReason) {
        if let Some(snapshot) = self.snapshot.load_full().filter(|snapshot| snapshot.job == job) {
            self.publish(RunSnapshot {
                status: RunStatus::Ended(reason.clone()),
                in_step: None,
                ..(*snapshot).clone()
            });
        }
    }
}
