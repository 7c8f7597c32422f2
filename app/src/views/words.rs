//! How a run stands, in words.

use foretrain_engine::session::{RunStatus, StopReason};

/// How a run ended, in a word.
#[must_use]
pub fn ended_word(reason: &StopReason) -> &'static str {
    match reason {
        StopReason::Finished => "finished",
        StopReason::User => "stopped",
        StopReason::Diverged => "diverged",
        StopReason::Failed(_) => "failed",
        StopReason::Crashed(_) => "crashed",
    }
}

/// What a run is doing, or how it ended, with the reason where there is one.
#[must_use]
pub fn status_text(status: &RunStatus) -> String {
    match status {
        RunStatus::Preparing { what } => format!("preparing: {what}"),
        RunStatus::Training => "training".to_owned(),
        RunStatus::Validating => "validating".to_owned(),
        RunStatus::Paused => "paused".to_owned(),
        RunStatus::Unsaved { why } => format!("not saved: {why}"),
        RunStatus::Ended(reason) => match reason {
            StopReason::Finished | StopReason::User | StopReason::Diverged => ended_word(reason).to_owned(),
            StopReason::Failed(message) | StopReason::Crashed(message) => format!("{}: {message}", ended_word(reason)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_in_words() {
        assert_eq!(status_text(&RunStatus::Ended(StopReason::User)), "stopped");
        assert_eq!(status_text(&RunStatus::Ended(StopReason::Failed("disk full".to_owned()))), "failed: disk full");
        assert_eq!(status_text(&RunStatus::Unsaved { why: "disk full".to_owned() }), "not saved: disk full");
    }
}
