//! Where a run's time went, for the end of `foretrain train`.

use foretrain_engine::session::{RunPart, RunSnapshot, RunTimes};
use serde_json::{Map, Value, json};

/// Rows for people, and the same as JSON: wall time by part of the run, and shares of operations, `null` where no step was
/// sampled.
pub(super) fn time_shares(run: &RunSnapshot) -> (Vec<(&'static str, String)>, Value) {
    let times = RunTimes::of(&run.history, &run.validations);
    let total = times.total_ms();
    let parts: Vec<(String, f64)> = RunPart::ALL
        .into_iter()
        .map(|part| (part_name(part), times.part_ms(part)))
        .filter(|(_, ms)| *ms > 0.0)
        .collect();
    let operations = times.operations();
    let mut rows = Vec::new();
    if total > 0.0 {
        rows.push(("time by phase", in_words(parts.iter().map(|(name, ms)| (name.as_str(), ms / total)))));
    }
    if !operations.is_empty() {
        let mut sorted = operations.clone();
        sorted.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let shares = in_words(sorted.iter().map(|(operation, share)| (operation.label(), *share)));
        let of_steps = format!("(measured in {} of {} steps)", times.num_sampled(), run.history.len());
        rows.push(("time of all threads in steps", format!("{shares}\n{of_steps}")));
    }
    let parts: Map<String, Value> = parts.into_iter().map(|(name, ms)| (name, json!(ms / 1e3))).collect();
    let shares: Map<String, Value> =
        operations.iter().map(|(operation, share)| (format!("{operation:?}"), json!(share))).collect();
    let operations =
        (!operations.is_empty()).then(|| json!({ "num_sampled_steps": times.num_sampled(), "shares": shares }));
    (rows, json!({ "seconds": parts, "operations": operations }))
}

fn part_name(part: RunPart) -> String {
    match part {
        RunPart::Steps(phase) => phase.to_string(),
        RunPart::Validation => "Validation".to_owned(),
        RunPart::Between => "Other".to_owned(),
    }
}

/// "Full 71.2 %, Predict 28.8 %", four to a line.
fn in_words<'a>(shares: impl Iterator<Item = (&'a str, f64)>) -> String {
    let shares: Vec<String> = shares.map(|(name, share)| format!("{name} {:.1} %", share * 100.0)).collect();
    shares.chunks(4).map(|line| line.join(", ")).collect::<Vec<_>>().join(",\n")
}
