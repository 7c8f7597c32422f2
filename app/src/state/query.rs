//! A question to the engine and the last answer to it.

use foretrain_engine::device::Progress;
use foretrain_engine::session::{Blame, Command, Event, EventKind, Failure, JobId};

use crate::views::ViewCtx;

/// A question that may be asked again and again. Only the answer to the last one counts; until it
/// comes, the one before stays, so that a screen does not flicker.
#[derive(Debug, Clone)]
pub struct Query<T> {
    waiting: Option<JobId>,
    progress: Option<Progress>,
    answer: Option<T>,
    failure: Option<Failure>,
}

impl<T> Default for Query<T> {
    fn default() -> Self {
        Self { waiting: None, progress: None, answer: None, failure: None }
    }
}

impl<T> Query<T> {
    /// Asks, cancelling what was asked before.
    pub fn ask(&mut self, ctx: &ViewCtx<'_>, command: impl FnOnce(JobId) -> Command) -> JobId {
        self.cancel(ctx);
        let job = ctx.next_job();
        ctx.request(command(job));
        self.waiting = Some(job);
        self.progress = None;
        self.failure = None;
        job
    }

    /// Asks the engine to stop answering.
    pub fn cancel(&mut self, ctx: &ViewCtx<'_>) {
        if let Some(job) = self.waiting.take() {
            ctx.request(Command::Cancel(job));
        }
    }

    /// Asks the engine to stop answering, and waits until it has.
    pub fn end(&self, ctx: &ViewCtx<'_>) {
        if let Some(job) = self.waiting {
            ctx.request(Command::Cancel(job));
        }
    }

    /// Takes what `event` says about this question; `pick` takes the answer out of its kind.
    /// True when the event was the answer, a failure or a cancellation.
    pub fn take(&mut self, event: &Event, pick: impl FnOnce(&EventKind) -> Option<T>) -> bool {
        if self.waiting != Some(event.job) {
            return false;
        }
        if let Some(answer) = pick(&event.kind) {
            self.answer = Some(answer);
            self.failure = None;
            self.finish();
            return true;
        }
        match &event.kind {
            EventKind::Progress(progress) => self.progress = Some(progress.clone()),
            EventKind::Rejected(failure) => {
                self.failure = Some(failure.clone());
                self.finish();
                return true;
            }
            EventKind::Cancelled | EventKind::Ended(_) => {
                self.finish();
                return true;
            }
            EventKind::Started { .. }
            | EventKind::Saved(_)
            | EventKind::Inspected(_)
            | EventKind::Planned(_)
            | EventKind::Quantized(_)
            | EventKind::Exported(_)
            | EventKind::Answered(_)
            | EventKind::Runs(_)
            | EventKind::RunOpened(_)
            | EventKind::Described(_)
            | EventKind::Benched(_)
            | EventKind::ImageRead(_)
            | EventKind::ChartDrawn(_)
            | EventKind::Raced(_)
            | EventKind::Reports(_)
            | EventKind::OffloadPlanned(_)
            | EventKind::Streamed(_)
            | EventKind::Validated(_)
            | EventKind::Offloaded(_)
            | EventKind::Experimented { .. } => {}
        }
        false
    }

    /// True when the answer to `job` is what it waits for.
    #[must_use]
    pub fn waits_for(&self, job: JobId) -> bool {
        self.waiting == Some(job)
    }

    /// True until the answer, a failure or a cancellation comes.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// How far the engine is with it.
    #[must_use]
    pub fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    /// The last answer.
    #[must_use]
    pub fn answer(&self) -> Option<&T> {
        self.answer.as_ref()
    }

    /// Why the last question was not answered.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Forgets answer and failure.
    pub fn clear(&mut self) {
        self.answer = None;
        self.failure = None;
    }

    /// Forgets the failure.
    pub fn dismiss(&mut self) {
        self.failure = None;
    }

    /// Notes a failure that needs no engine: an incomplete form.
    pub fn fail(&mut self, message: String) {
        self.waiting = None;
        self.failure = Some(Failure { message, plan: None, blame: Blame::Request });
    }

    fn finish(&mut self) {
        self.waiting = None;
        self.progress = None;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::dialogs::Dialogs;
    use crate::state::{Catalog, Settings};

    fn parts() -> (Catalog, Settings, Dialogs, Cell<u64>) {
        (Catalog::default(), Settings::default(), Dialogs::default(), Cell::new(1))
    }

    fn answer(job: u64, kind: EventKind) -> Event {
        Event { job: JobId(job), kind }
    }

    fn pick(kind: &EventKind) -> Option<usize> {
        if let EventKind::Runs(runs) = kind { Some(runs.len()) } else { None }
    }

    #[test]
    fn only_the_last_question_is_answered() {
        let (catalog, settings, dialogs, jobs) = parts();
        let ctx = ViewCtx::new(&catalog, &settings, &dialogs, &jobs);
        let mut query: Query<usize> = Query::default();
        let old = query.ask(&ctx, |job| Command::ListRuns(job, "a".into()));
        let new = query.ask(&ctx, |job| Command::ListRuns(job, "b".into()));
        let sent = ctx.into_requests();
        assert_eq!(sent[1], Command::Cancel(old));
        assert!(!query.take(&answer(old.0, EventKind::Runs(Vec::new())), pick));
        assert!(query.is_waiting());
        assert!(query.take(&answer(new.0, EventKind::Runs(Vec::new())), pick));
        assert_eq!(query.answer(), Some(&0));
        assert!(!query.is_waiting());
    }

    #[test]
    fn a_failure_keeps_the_last_answer() {
        let (catalog, settings, dialogs, jobs) = parts();
        let ctx = ViewCtx::new(&catalog, &settings, &dialogs, &jobs);
        let mut query: Query<usize> = Query { answer: Some(3), ..Query::default() };
        let job = query.ask(&ctx, |job| Command::ListRuns(job, "a".into()));
        let failure = Failure { message: "no".to_owned(), plan: None, blame: Blame::Work };
        assert!(query.take(&answer(job.0, EventKind::Rejected(failure.clone())), pick));
        assert_eq!((query.answer(), query.failure()), (Some(&3), Some(&failure)));
    }
}
