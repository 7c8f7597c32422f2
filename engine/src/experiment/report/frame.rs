//! What all reports share: title and verdict, tables, pictures, conditions.

use std::fmt::Write;

use super::{Conditions, Report};
use crate::chart::{Bar, Contender};
use crate::experiment::{Estimate, TrialResult};
use crate::memory::format_bytes;

/// What an experiment has to say in Markdown.
pub(super) struct Parts {
    /// The main tables, above the pictures.
    pub(super) figures: String,
    /// Everything else, below them; ends with a newline.
    pub(super) details: String,
    /// Seeds in words: "1, 2, 3; tuning seed 0".
    pub(super) seeds: String,
}

/// The whole page.
pub(super) fn page(report: &Report, parts: &Parts) -> String {
    let mut text = format!("# {}\n\n{}\n\n{}\n", report.conditions().title, report.verdict(), parts.figures);
    for (name, chart) in report.charts() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "![{}]({name}.svg)\n", chart.title);
    }
    text.push_str(&parts.details);
    if !parts.details.is_empty() {
        text.push('\n');
    }
    text.push_str(&under(report.conditions(), &parts.seeds));
    text
}

/// What every chart says below its title.
pub(super) fn subtitle(conditions: &Conditions) -> String {
    format!("{}; {}", conditions.model, conditions.dataset)
}

/// A table; each row as wide as the head.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), " --- |".repeat(head.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// A value with its interval, one over seeds, as a chart shows it; what was not measured is named, not drawn.
pub(super) fn bar(estimate: Option<Estimate>, factor: f64) -> Bar {
    match estimate {
        Some(Estimate { mean, interval: Some((low, high)), .. }) => {
            Bar::within(factor * mean, factor * low, factor * high)
        }
        Some(Estimate { mean, .. }) => Bar::of(factor * mean),
        None => Bar::of(f64::NAN),
    }
}

/// One contender's bars.
pub(super) fn contender(label: impl Into<String>, color: usize, bars: Vec<Bar>) -> Contender {
    Contender { label: label.into(), color: color as u8, bars }
}

/// The part of the data that results were measured on.
pub(super) fn part_of<'a>(results: impl IntoIterator<Item = &'a TrialResult>) -> &'static str {
    if results.into_iter().any(|result| result.test.is_some()) { "test" } else { "validation" }
}

fn under(conditions: &Conditions, seeds: &str) -> String {
    let Conditions { dataset, model, machine, num_threads, version, commit, day, command, seconds, .. } = conditions;
    let side_by_side = match conditions.num_side_by_side {
        0 | 1 => String::new(),
        count => format!(" for each of {count} races side by side"),
    };
    let commit = commit.as_deref().map_or_else(String::new, |commit| format!(", commit {commit}"));
    let memory = format_bytes(machine.memory_bytes);
    let minutes = seconds / 60.0;
    let gpu = machine.gpu.as_ref().map_or_else(String::new, |gpu| format!("; computed on {gpu}"));
    format!(
        "## Conditions\n\n- Data: {dataset}\n- Model: {model}\n- Seeds: {seeds}\n\
         - Machine: {}, {} cores, {memory}, {}, {}; {num_threads} compute threads{side_by_side}{gpu}\n\
         - Program: foretrain {version}{commit}, {day}, {minutes:.1} minutes in all\n- Command: `{command}`\n",
        machine.processor, machine.num_cores, machine.vector_instructions, machine.system
    )
}
