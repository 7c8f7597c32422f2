//! Reports: an experiment's result with the conditions under which it was measured, as JSON, Markdown and charts.
//!
//! Markdown and charts are functions of the JSON alone, so that a report can be written again without measuring again.

mod arena_charts;
mod arena_markdown;
mod words;

use serde::{Deserialize, Serialize};

use super::ArenaResult;
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
    /// Compute threads.
    pub num_threads: usize,
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

/// One arena with its conditions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArenaReport {
    /// Conditions.
    pub conditions: Conditions,
    /// Everything measured.
    pub result: ArenaResult,
}

impl ArenaReport {
    /// The report in Markdown; its pictures are those of [`Self::charts`], by name.
    #[must_use]
    pub fn markdown(&self) -> String {
        arena_markdown::markdown(self)
    }

    /// Charts by file name without ending.
    #[must_use]
    pub fn charts(&self) -> Vec<(String, Chart)> {
        arena_charts::charts(self)
    }
}
