//! What can keep a measurement of speed from its result.

use std::path::PathBuf;

use crate::device::{Cancelled, ComputeError};
use crate::hybrid::HybridError;
use crate::models::ModelError;

/// Errors of this room.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the variants carry the documented errors of other rooms")]
pub enum BenchError {
    /// Nothing to measure, or no time for it.
    #[error("planning a measurement: expected {expected}, found {found}")]
    Plan {
        /// What it needs.
        expected: &'static str,
        /// What it has.
        found: String,
    },
    /// PyTorch could not be installed.
    #[error(
        "installing PyTorch with {tried}: {problem}. Name a Python that has torch with --python, or leave out --against-torch"
    )]
    Install {
        /// The command.
        tried: String,
        /// What it said.
        problem: String,
    },
    /// The process that computes with PyTorch does not do as asked.
    #[error("measuring PyTorch with {python}: {problem}")]
    Peer {
        /// Its Python.
        python: PathBuf,
        /// What it said, or that it said nothing.
        problem: String,
    },
    /// The two sides compute different things.
    #[error(
        "comparing {model} with PyTorch ({variant}): expected the loss {ours} within {tolerance}, found {theirs}. Times would compare different things"
    )]
    Differs {
        /// Model.
        model: &'static str,
        /// How PyTorch computed.
        variant: &'static str,
        /// Our loss, nats.
        ours: f64,
        /// PyTorch's, nats.
        theirs: f64,
        /// Difference that rounding explains.
        tolerance: f64,
    },
    /// Weights for the other side could not be written, or its answer read.
    #[error("{what} {path}: {source}", path = path.display())]
    File {
        /// What was tried: "writing".
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    #[error("computing: {0}")]
    Tensor(#[from] candle_core::Error),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Hybrid(#[from] HybridError),
}
