//! What the user asked of the run and has not seen done yet.

use foretrain_engine::session::{LogEntry, LogKind, RunSnapshot, RunStatus};

/// Requests under way; each is forgotten once the run shows that it was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// Entries of the run's log when it was asked to stop.
    stop: Option<usize>,
    pause: bool,
    /// Entries of the run's log and its step when it was asked to save.
    save: Option<(usize, u64)>,
}

impl Asked {
    /// Notes that `run` was asked to stop; `None` while it has no snapshot yet.
    pub fn stop(&mut self, run: Option<&RunSnapshot>) {
        self.stop = Some(run.map_or(0, |run| run.log.len()));
    }

    /// Notes that the run was asked to pause.
    pub fn pause(&mut self) {
        self.pause = true;
    }

    /// Notes that `run` was asked to save.
    pub fn save(&mut self, run: &RunSnapshot) {
        self.save = Some((run.log.len(), run.step));
    }

    /// True from the request to stop until the run ended, or cannot.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// True from the request to pause until the run waits.
    #[must_use]
    pub fn is_pausing(&self) -> bool {
        self.pause
    }

    /// True from the request to save until a checkpoint is complete, or failed.
    #[must_use]
    pub fn is_saving(&self) -> bool {
        self.save.is_some()
    }

    /// Forgets what `run` shows to be done.
    pub fn settle(&mut self, run: &RunSnapshot) {
        // Its last checkpoint could not be written since then: stopping is up to the user again.
        let is_stuck = |num_seen: usize| matches!(run.status, RunStatus::Unsaved { .. }) && run.log.len() > num_seen;
        if self.stop.is_some_and(is_stuck) {
            self.stop = None;
        }
        self.pause &= matches!(run.status, RunStatus::Training | RunStatus::Validating);
        if self.save.is_some_and(|(num_seen, step)| is_save_over(&run.log, num_seen, step)) {
            self.save = None;
        }
    }
}

/// True when `log` tells, after its first `num_seen` entries, how a save went, or a checkpoint of `step` is there
/// anyway: a run that waits does not save the same step twice.
fn is_save_over(log: &[LogEntry], num_seen: usize, step: u64) -> bool {
    let is_saved = |entry: &LogEntry| matches!(entry.kind, LogKind::Saved(_));
    log.iter().skip(num_seen).any(|entry| is_saved(entry) || matches!(entry.kind, LogKind::Warning(_)))
        || log.iter().rev().find(|entry| is_saved(entry)).is_some_and(|entry| entry.step >= step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_save_is_over_when_the_log_says_so() {
        let entry = |step, kind| LogEntry { step, unix_ms: 0, kind };
        let saved = |step| entry(step, LogKind::Saved("/runs/a/checkpoints/step".into()));
        let old = [saved(200), entry(210, LogKind::Paused)];
        assert!(!is_save_over(&old, 2, 210), "the checkpoint before does not count");
        assert!(is_save_over(&old, 2, 200), "this step is saved already");
        assert!(is_save_over(&[saved(200), saved(211)], 1, 210));
        assert!(is_save_over(&[saved(200), entry(211, LogKind::Warning("disk full".to_owned()))], 1, 210));
    }
}
