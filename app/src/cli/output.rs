//! Tables and the JSON line.

use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use foretrain_engine::memory::{MemoryPlan, format_bytes};

use super::CliError;

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

/// Prints the one-line JSON of `--json`.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    println!("{}", serde_json::to_string(value).map_err(CliError::from_display)?);
    Ok(())
}

/// A metric as people read it: accuracy in percent, loss in nats.
pub(super) fn metric(name: &str, value: f64) -> String {
    if name == "accuracy" { format!("{:.2} %", value * 100.0) } else { format!("{value:.4} nats") }
}

/// Seconds as "1 h 2 min", "3 min 4 s" or "5.6 s".
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}
