//! Experiments: what prediction saves and what it costs, measured on any dataset and model, against controls.
//!
//! | experiment | question |
//! | --- | --- |
//! | arena | does prediction beat vanilla with as many steps, vanilla with as much time, and predicting nothing? |
//! | corrections | how good are the forecasts, and what of their error does a correction take away? |
//! | tiers | what does more daring save, and what does it cost? |
//! | ladder | does what holds for a small language model hold for the next size? |
//! | growth | do a shallow network's weights predict a deep one's? |
//! | quantization | what do fewer bits cost, trained for and not? |
//! | features | does each way of saving memory train as the plain path does? |
//!
//! Invariants: contenders are tuned on the validation part with a seed that the comparison does not use; times compared
//! come from one process in which contenders take turns; the test part is measured once, after everything was decided.

mod arena;
mod arena_size;
mod correction_figures;
mod corrections;
mod error;
mod features;
mod features_figures;
mod growth;
mod growth_summary;
mod ladder;
#[cfg(test)]
mod literal;
mod quantization;
mod quantization_figures;
mod race;
mod recipe;
mod report;
mod stages;
mod statistics;
mod stopwatch;
mod tiers;
mod trial;
mod tune;
mod words;

pub use arena::{ArenaPlan, ArenaResult, ArenaSummary, FROZEN, HYBRID, SAME_STEPS, SAME_TIME, arena};
pub use arena_size::{ArenaSize, ArenaStage};
pub use correction_figures::{CorrectionFigures, Overhead};
pub use corrections::{
    CorrectionsPlan, CorrectionsResult, DEMANDED_OVERHEAD, DEMANDED_REDUCTION, SettingFigures, SettingResult,
    corrections,
};
pub use error::ExperimentError;
pub use features::{FeatureResult, FeatureRun, FeaturesPlan, FeaturesResult, MemoryFeature, features};
pub use features_figures::FeatureFigures;
pub use growth::{GrowthPlan, GrowthResult, Pace, growth};
pub use growth_summary::GrowthSummary;
pub use ladder::{LadderPlan, LadderResult, Rung, RungOutcome, RungResult, RungSize, ladder};
pub use quantization::{Form, QuantizationPlan, QuantizationResult, StoredForm, quantization};
pub use quantization_figures::{Demand, QuantizationFigures};
pub use race::{Beginning, Contender, Ground, OnRace, RaceView, Terms};
pub use recipe::TrialRecipe;
pub use report::{Conditions, Measured, Report};
pub use stages::{Eyes, Stages};
pub use statistics::Estimate;
pub use stopwatch::Stopwatch;
pub use tiers::{TierFigures, TiersPlan, TiersResult, tiers};
pub use trial::{CurvePoint, Exam, HeldOut, PhaseShare, Reliability, Trial, TrialResult, phase_index};
pub use tune::{Tried, Tuned, tune};
