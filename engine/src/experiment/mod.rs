//! Experiments: what prediction saves and what it costs, measured on any dataset and model, against controls.
//!
//! Invariants: contenders are tuned on the validation part with a seed that the comparison does not use; times compared
//! come from one process in which contenders take turns; the test part is measured once, after everything was decided.

mod arena;
mod error;
mod race;
mod recipe;
mod report;
mod stages;
mod statistics;
mod stopwatch;
mod trial;
mod tune;

pub use arena::{ArenaPlan, ArenaResult, ArenaSummary, FROZEN, HYBRID, SAME_STEPS, SAME_TIME, arena};
pub use error::ExperimentError;
pub use race::{Contender, Ground, OnRace, RaceView, race};
pub use recipe::TrialRecipe;
pub use report::{ArenaReport, Conditions};
pub use stages::{ArenaSize, Stage};
pub use statistics::Estimate;
pub use stopwatch::Stopwatch;
pub use trial::{CurvePoint, PhaseShare, Trial, TrialResult, phase_index};
pub use tune::{Tried, Tuned, tune};
