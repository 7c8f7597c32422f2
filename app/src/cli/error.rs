//! Why a subcommand did not do what it was asked, and the exit code that says so.

use std::path::PathBuf;

use foretrain_edge::EdgeError;
use foretrain_engine::memory::Remedy;
use foretrain_engine::session::{Blame, SessionError};
use serde_json::{Value, json};

/// Why a subcommand did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The engine refused or failed; the message says why.
    #[error("{0}")]
    Failed(String),
    /// Arguments that are wrong in a way that clap cannot judge: values that do not go together, a path that is not there
    /// or that is taken.
    #[error("{0}")]
    Usage(String),
    /// The plan is over the memory budget; the table has been printed.
    #[error("{message}")]
    Memory {
        /// What is needed, and what there is.
        message: String,
        /// The plan, for programs: an object that joins the one of `--json`.
        figures: Value,
        /// The first thing that would make it fit.
        remedy: Option<Remedy>,
    },
    /// The divergence guard ended the run.
    #[error("the run diverged and was stopped; its last good weights are saved")]
    Diverged,
    /// Ctrl-C.
    #[error("interrupted; nothing is left half done")]
    Interrupted,
    /// Ctrl-C during a run, which can go on.
    #[error("interrupted; saved at step {step}; go on with: foretrain train --resume {}", folder.display())]
    Saved {
        /// Steps done.
        step: u64,
        /// The run's folder.
        folder: PathBuf,
    },
    /// The plan takes more than the disk has; the table has been printed.
    #[error("{message}")]
    Disk {
        /// What is needed, and what there is.
        message: String,
        /// The plan, as in [`Self::Memory`].
        figures: Value,
    },
    /// Of several packages, not all were written.
    #[error("{message}")]
    Packages {
        /// How many were, and why the others were not.
        message: String,
        /// What was written and what was not, as in [`Self::Memory`].
        figures: Value,
        /// Why not all.
        ended: Ended,
    },
    /// Ctrl-C during a streamed training, which can go on.
    #[error("interrupted. {saved}; the same command goes on from there")]
    Offloaded {
        /// What is on disk: "Step 3 is saved".
        saved: String,
        /// What was done, for programs: an object that joins the one of `--json`.
        figures: Value,
    },
    /// The divergence guard ended a streamed training, which can go on.
    #[error(
        "the training diverged and was stopped. {saved}; the same command goes on, at the lower learning rate it had come to. Where that diverges again, try a lower --learning-rate, or a new folder"
    )]
    OffloadDiverged {
        /// What is on disk: "Step 3 is saved".
        saved: String,
        /// What was done, as in [`Self::Offloaded`].
        figures: Value,
    },
    /// Whoever read standard output has seen enough (`| head -1`), which is no failure.
    #[error("standard output was closed by its reader")]
    ClosedPipe,
}

/// Why several packages were not all written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Each was tried; whether another request would help, where none was written.
    Blaming(Blame),
    /// Ctrl-C.
    Interrupted,
}

impl CliError {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ClosedPipe => 0,
            Self::Failed(_) | Self::Disk { .. } | Self::Packages { ended: Ended::Blaming(Blame::Work), .. } => 1,
            Self::Usage(_) | Self::Packages { ended: Ended::Blaming(Blame::Request), .. } => 2,
            Self::Memory { .. } => 3,
            Self::Diverged | Self::OffloadDiverged { .. } => 4,
            Self::Interrupted
            | Self::Saved { .. }
            | Self::Offloaded { .. }
            | Self::Packages { ended: Ended::Interrupted, .. } => 130,
        }
    }

    /// Any error, in words with its causes.
    pub(super) fn from_display(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// An error of the engine: usage, where another request would help.
    pub(super) fn from_session(error: &SessionError) -> Self {
        if error.is_cancelled() { Self::Interrupted } else { Self::blaming(error.blame(), error.to_string()) }
    }

    /// An error of foretrain-edge: usage, where it was given what it cannot take.
    pub(super) fn from_edge(error: &EdgeError) -> Self {
        let is_input = matches!(error, EdgeError::Input { .. });
        Self::blaming(if is_input { Blame::Request } else { Blame::Work }, error.to_string())
    }

    /// What went wrong, by what it lies in.
    pub(super) fn blaming(blame: Blame, message: String) -> Self {
        match blame {
            Blame::Request => Self::Usage(message),
            Blame::Work => Self::Failed(message),
        }
    }

    /// An error of writing to standard output.
    pub(super) fn from_output(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::Failed(format!("writing to standard output: {error}"))
        }
    }

    /// What `--json` prints instead of an answer.
    pub(super) fn to_json(&self) -> Value {
        let mut json = json!({ "error": self.to_string(), "exit_code": self.exit_code() });
        if let (Self::Saved { step, folder }, Some(object)) = (self, json.as_object_mut()) {
            object.insert("step".to_owned(), json!(step));
            object.insert("run".to_owned(), json!(super::output::path_text(folder)));
        }
        if let (
            Self::Memory { figures: Value::Object(figures), .. }
            | Self::Disk { figures: Value::Object(figures), .. }
            | Self::Packages { figures: Value::Object(figures), .. }
            | Self::Offloaded { figures: Value::Object(figures), .. }
            | Self::OffloadDiverged { figures: Value::Object(figures), .. },
            Some(object),
        ) = (self, json.as_object_mut())
        {
            object.extend(figures.clone());
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_memory_error_has_the_plan() {
        let error = CliError::Memory { message: "too much".to_owned(), figures: json!({ "plan": 1 }), remedy: None };
        assert_eq!(error.to_json(), json!({ "error": "too much", "exit_code": 3, "plan": 1 }));
        assert_eq!(CliError::Diverged.to_json()["exit_code"], 4);
        let saved = CliError::Saved { step: 23, folder: "runs/digits".into() }.to_json();
        assert_eq!(
            (&saved["step"], &saved["run"], &saved["exit_code"]),
            (&json!(23), &json!("runs/digits"), &json!(130))
        );
    }

    #[test]
    fn a_closed_pipe_is_a_success() {
        let error = |kind| CliError::from_output(&std::io::Error::from(kind)).exit_code();
        assert_eq!((error(std::io::ErrorKind::BrokenPipe), error(std::io::ErrorKind::StorageFull)), (0, 1));
    }
}
