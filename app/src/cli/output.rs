//! What the command line prints: tables and the JSON line on standard output, notes on standard error.
//!
//! Invariant: a reader that goes away never makes a panic. On standard output it is [`CliError::ClosedPipe`]; a note
//! that nobody reads is dropped.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;

use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use foretrain_engine::memory::{MemoryPlan, format_bytes};
use foretrain_engine::session::{ValidationFigures, ValidationPoint};

use super::CliError;
use crate::widgets::number::milliseconds;

/// Prints a line on standard output. Errors: see [`piece`].
pub(super) fn line(text: impl Display) -> Result<(), CliError> {
    piece(format_args!("{text}\n"))
}

/// Prints text on standard output as it is, visible at once.
/// Errors: [`CliError::ClosedPipe`] when its reader went away, any other trouble in words.
pub(super) fn piece(text: impl Display) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).map_err(|error| CliError::from_output(&error))
}

/// Prints a line for people on standard error.
pub(super) fn note(text: impl Display) {
    // A note that cannot be written must not end a run.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints the one-line JSON of `--json`; `value` must be an object.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    line(serde_json::to_string(value).map_err(CliError::from_display)?)
}

/// A path for JSON, which has text only: what is not UTF-8 becomes U+FFFD, where serde would refuse the path.
pub(super) fn path_text(path: &Path) -> String {
    path.display().to_string()
}

/// A table with these headers.
pub(super) fn table(headers: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(headers.to_vec());
    table
}

/// A right-aligned cell.
pub(super) fn number(text: impl Into<String>) -> Cell {
    Cell::new(text.into()).set_alignment(CellAlignment::Right)
}

/// Bytes by kind against the budget.
pub(super) fn plan_table(plan: &MemoryPlan) -> String {
    let mut table = table(&["memory for", "bytes", "how"]);
    for item in &plan.items {
        table.add_row(vec![Cell::new(item.kind.label()), number(format_bytes(item.bytes)), Cell::new(&item.how)]);
    }
    table.add_row(vec![Cell::new("together"), number(format_bytes(plan.total_bytes())), Cell::new("")]);
    let budget = Cell::new(&plan.budget_source);
    table.add_row(vec![Cell::new("budget"), number(format_bytes(plan.budget_bytes)), budget]);
    let remedies = plan.remedies.iter().map(|remedy| format!("\nfits with {remedy}"));
    format!("{table}{}", remedies.collect::<String>())
}

/// A metric as people read it: accuracy in percent, loss in nats.
pub(super) fn metric(name: &str, value: f64) -> String {
    if name == "accuracy" { format!("{:.2} %", value * 100.0) } else { format!("{value:.4} nats") }
}

/// What is counted where a validation counts examples: only text has no accuracy.
pub(super) fn example_unit(accuracy: Option<f64>) -> &'static str {
    if accuracy.is_some() { "images" } else { "tokens" }
}

/// A peak of this process's memory, beside what was planned where that was: "507 MiB (planned 538 MiB, -5.8 %)".
pub(super) fn peak_and_plan(peak: u64, planned: Option<u64>) -> String {
    match planned {
        Some(planned) => {
            let share = (peak as f64 / planned as f64 - 1.0) * 100.0;
            format!("{} (planned {}, {share:+.1} %)", format_bytes(peak), format_bytes(planned))
        }
        None => format_bytes(peak),
    }
}

/// Name and value of each figure of a validation, with how many examples each is of: what training has come to, on the
/// whole part where that was measured; in quantization-aware training the other precision; then the curve's.
pub(super) fn validation_rows(point: &ValidationPoint) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    let mut push = |names: [&'static str; 2], figures: ValidationFigures, of: &str| {
        let unit = example_unit(figures.accuracy);
        let value = |name, value| format!("{} on {} {unit}{of}", metric(name, value), figures.num_examples);
        rows.push((names[0], value("loss", figures.loss)));
        if let Some(accuracy) = figures.accuracy {
            rows.push((names[1], value("accuracy", accuracy)));
        }
    };
    const VALIDATION: [&str; 2] = ["validation loss", "validation accuracy"];
    const CURVE: [&str; 2] = ["loss as on the curve", "accuracy as on the curve"];
    match point.quantized {
        None => {
            push(VALIDATION, point.figures(), "");
            if point.whole.is_some() {
                push(CURVE, ValidationPoint { whole: None, ..*point }.figures(), "");
            }
        }
        Some(quantized) => {
            let of_quantized = format!(", {} weights", quantized.scheme.label());
            let of_trained = ", full-precision weights";
            if quantized.strength >= 1.0 {
                push(VALIDATION, quantized.figures(), &of_quantized);
                push(["full-precision loss", "full-precision accuracy"], point.full_precision(), of_trained);
            } else {
                push(VALIDATION, point.full_precision(), of_trained);
                push(["quantized loss", "quantized accuracy"], quantized.figures(), &of_quantized);
            }
            if quantized.whole.is_some() {
                push(CURVE, quantized.curve, &of_quantized);
            }
        }
    }
    rows
}

/// Seconds as "1 h 2 min", "3 min 4 s", "5.6 s" or "7.80 ms".
pub(super) fn duration(seconds: f64) -> String {
    if (0.0..1.0).contains(&seconds) {
        return milliseconds(seconds * 1e3);
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_are_not_zero() {
        let told = [0.0, 0.000_42, 0.0123, 0.42, 5.64, 132.0, 3720.0].map(duration);
        assert_eq!(told, ["0.00 ms", "0.42 ms", "12.3 ms", "420 ms", "5.6 s", "2 min 12 s", "1 h 2 min"]);
    }
}
