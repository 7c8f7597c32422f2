//! Measurements of speed: run on the trainer thread, since they would spoil a run's pace and it theirs.

use std::sync::Mutex;

use super::experimenting::refuse_runs;
use super::outlet::Outlet;
use super::trainer_thread::Inbox;
use super::{EventKind, JobId, SessionError, presets};
use crate::bench::{TrainBenchPlan, bench_train};
use crate::device::{CancelFlag, Progress, Watch};

/// Measures, then sends the result.
pub(super) fn run(
    job: JobId,
    plan: &TrainBenchPlan,
    cancel: &CancelFlag,
    inbox: Inbox<'_>,
    outlet: &mut Outlet,
) -> Result<(), SessionError> {
    let shared = Mutex::new(&mut *outlet);
    let tell = |progress: Progress| {
        if let Ok(mut outlet) = shared.lock() {
            refuse_runs(inbox, &mut outlet);
            outlet.send(job, EventKind::Progress(progress));
        }
    };
    let vanilla = presets::tier("vanilla")?.config();
    let speed = bench_train(plan, &vanilla, Watch::new(cancel, &tell))?;
    outlet.send(job, EventKind::Benched(Box::new(speed)));
    Ok(())
}
