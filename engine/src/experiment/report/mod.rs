//! Reports: an experiment's result with the conditions under which it was measured, as JSON, Markdown and charts.
//!
//! Markdown and charts are functions of the JSON alone, so that a report can be written again without measuring again.

mod arena_markdown;
mod corrections_charts;
mod corrections_markdown;
mod features_charts;
mod features_markdown;
mod frame;
mod growth_markdown;
mod ladder_charts;
mod ladder_markdown;
mod quantization_charts;
mod quantization_markdown;
#[cfg(test)]
mod tests;
mod tiers_charts;
mod tiers_markdown;
mod tuned;

use serde::{Deserialize, Serialize};

use super::{
    ArenaResult, CorrectionsResult, FeaturesResult, GrowthResult, LadderResult, QuantizationResult, TiersResult,
};
use crate::chart::Chart;
use crate::device::MachineRecord;

/// Under which conditions an experiment was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Title: "MNIST CNN with Muon".
    pub title: String,
    /// Dataset, its fingerprint and its split, in words.
    pub dataset: String,
    /// Model, in words.
    pub model: String,
    /// The machine.
    pub machine: MachineRecord,
    /// Compute threads of one race.
    pub num_threads: usize,
    /// Races at once, each on threads of its own.
    #[serde(default = "one")]
    pub num_side_by_side: usize,
    /// Version of the program.
    pub version: String,
    /// Commit of the program; `None` when it was not built from a repository.
    pub commit: Option<String>,
    /// Day of the run: "2026-11-28".
    pub day: String,
    /// Command that runs it again.
    pub command: String,
    /// Seconds that the whole experiment took.
    pub seconds: f64,
}

/// Reports of before there were several.
fn one() -> usize {
    1
}

/// A result with its conditions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured<R> {
    /// Conditions.
    pub conditions: Conditions,
    /// Everything measured.
    pub result: R,
}

/// The report of one experiment; its JSON says of which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "experiment", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and its results are on the heap")]
pub enum Report {
    /// The recipe against its controls.
    Arena(Measured<ArenaResult>),
    /// How good forecasts and corrections are.
    Corrections(Measured<CorrectionsResult>),
    /// Tiers against vanilla.
    Tiers(Measured<TiersResult>),
    /// Language models from small to large.
    Ladder(Measured<LadderResult>),
    /// Deep networks from shallow ones.
    Growth(Measured<GrowthResult>),
    /// Fewer bits, trained for and not.
    Quantization(Measured<QuantizationResult>),
    /// Ways to save memory, each alone.
    Features(Measured<FeaturesResult>),
}

impl Report {
    /// Reads a `report.json`. Errors: it is damaged, or was not written by this program.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let value: serde_json::Value = serde_json::from_slice(bytes)?;
        if value.is_object() && value.get("experiment").is_none() {
            // The first version knew the arena alone.
            return serde_json::from_slice(bytes).map(Self::Arena);
        }
        serde_json::from_slice(bytes)
    }

    /// Under which conditions it was run.
    #[must_use]
    pub fn conditions(&self) -> &Conditions {
        match self {
            Self::Arena(report) => &report.conditions,
            Self::Corrections(report) => &report.conditions,
            Self::Tiers(report) => &report.conditions,
            Self::Ladder(report) => &report.conditions,
            Self::Growth(report) => &report.conditions,
            Self::Quantization(report) => &report.conditions,
            Self::Features(report) => &report.conditions,
        }
    }

    /// What the figures say, in words.
    #[must_use]
    pub fn verdict(&self) -> String {
        match self {
            Self::Arena(report) => report.result.verdict(),
            Self::Corrections(report) => report.result.verdict(),
            Self::Tiers(report) => report.result.verdict(),
            Self::Ladder(report) => report.result.verdict(),
            Self::Growth(report) => report.result.verdict(),
            Self::Quantization(report) => report.result.verdict(),
            Self::Features(report) => report.result.verdict(),
        }
    }

    /// The report in Markdown; its pictures are those of [`Self::charts`], by name.
    #[must_use]
    pub fn markdown(&self) -> String {
        let parts = match self {
            Self::Arena(report) => arena_markdown::parts(&report.result),
            Self::Corrections(report) => corrections_markdown::parts(&report.result),
            Self::Tiers(report) => tiers_markdown::parts(&report.result),
            Self::Ladder(report) => ladder_markdown::parts(&report.result),
            Self::Growth(report) => growth_markdown::parts(&report.result),
            Self::Quantization(report) => quantization_markdown::parts(&report.result),
            Self::Features(report) => features_markdown::parts(&report.result),
        };
        frame::page(self, &parts)
    }

    /// Charts by file name without ending.
    #[must_use]
    pub fn charts(&self) -> Vec<(String, Chart)> {
        let subtitle = frame::subtitle(self.conditions());
        match self {
            Self::Arena(report) => {
                tuned::charts((&report.result.tuned, &report.result.results), "full steps", &subtitle)
            }
            Self::Corrections(report) => corrections_charts::charts(&report.result, &subtitle),
            Self::Tiers(report) => tiers_charts::charts(&report.result, &subtitle),
            Self::Ladder(report) => ladder_charts::charts(&report.result, &subtitle),
            Self::Growth(report) => {
                tuned::charts((&report.result.tuned, &report.result.results), "steps at full depth", &subtitle)
            }
            Self::Quantization(report) => quantization_charts::charts(&report.result, &subtitle),
            Self::Features(report) => features_charts::charts(&report.result, &subtitle),
        }
    }
}
