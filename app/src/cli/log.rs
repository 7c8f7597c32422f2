//! A run's log on a terminal: each line once, and none of what happened before this process.

use foretrain_engine::hybrid::HybridEvent;
use foretrain_engine::session::{LogEntry, LogKind, ValidationFigures, ValidationPoint};

use super::output;

/// What of a growing log has been printed.
#[derive(Debug, Default)]
pub(super) struct LogPrinter {
    /// Entries done with; `None` before the first look.
    num_seen: Option<usize>,
    /// Step of the last validation done with.
    last_validated: Option<u64>,
}

impl LogPrinter {
    /// Lines for what is new in `log`. Of a run that goes on, that begins with where it does.
    pub(super) fn new_lines(&mut self, log: &[LogEntry]) -> Vec<String> {
        if log.is_empty() {
            return Vec::new();
        }
        // The last start is this process's: it writes one before it publishes its log.
        let start = log.iter().rposition(|entry| matches!(entry.kind, LogKind::Started { .. })).unwrap_or(0);
        let first = self.num_seen.replace(log.len()).unwrap_or(start);
        let new = log.iter().enumerate().skip(first);
        new.filter_map(|(number, entry)| {
            let is_first = number == 0;
            line(&entry.kind, is_first).map(|line| format!("step {:>6}  {line}", entry.step))
        })
        .collect()
    }
}

impl LogPrinter {
    /// A line for each validation of `log`'s run that was made since this process began it, or went on with it.
    pub(super) fn new_validations(&mut self, log: &[LogEntry], validations: &[ValidationPoint]) -> Vec<String> {
        let start =
            log.iter().rfind(|entry| matches!(entry.kind, LogKind::Started { .. })).map_or(0, |entry| entry.step);
        let last = *self.last_validated.get_or_insert(start);
        self.last_validated = validations.last().map(|point| point.step.max(last)).or(self.last_validated);
        let told = |point: &ValidationPoint| {
            let ValidationPoint { step, loss, accuracy, num_examples, .. } = point;
            let accuracy_text = |accuracy: &Option<f64>| {
                accuracy.map_or_else(String::new, |share| format!(", accuracy {:.2} %", 100.0 * share))
            };
            let quantized = point.quantized.map_or_else(String::new, |quantized| {
                let ValidationFigures { loss, accuracy, .. } = quantized.curve;
                format!("; {} {loss:.4} nats{}", quantized.scheme.label(), accuracy_text(&accuracy))
            });
            let (accuracy, unit) = (accuracy_text(accuracy), output::example_unit(*accuracy));
            format!("step {step:>6}  validation loss {loss:.4} nats{accuracy}{quantized}, on {num_examples} {unit}")
        };
        validations.iter().filter(|point| point.step > last).map(told).collect()
    }
}

/// What the hybrid trainer tells.
pub(super) fn hybrid_line(event: &HybridEvent) -> String {
    match event {
        HybridEvent::Phase { from, to, why } if from == to => format!("{to}: {why}"),
        HybridEvent::Phase { from, to, why } => format!("{from} -> {to}: {why}"),
        HybridEvent::Note(what) => what.clone(),
        HybridEvent::Diverged { divergence, recovery, restored_step } => {
            let back = restored_step.map_or_else(String::new, |step| format!(", back to the weights of step {step}"));
            format!("divergence: {divergence}; answer: {recovery}{back}")
        }
    }
}

/// A log entry for a terminal; `None` for those that the bar shows already, and for the first of all, a run's start.
fn line(kind: &LogKind, is_first: bool) -> Option<String> {
    match kind {
        LogKind::Hybrid(event) => Some(hybrid_line(event)),
        LogKind::Placed(text) => Some(text.clone()),
        LogKind::Warning(text) => Some(format!("warning: {text}")),
        LogKind::Started { step } if !is_first => Some(format!("going on after step {step}")),
        LogKind::Started { .. } | LogKind::Saved(_) | LogKind::Paused | LogKind::Resumed | LogKind::Ended(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(step: u64, kind: LogKind) -> LogEntry {
        LogEntry { step, unix_ms: 0, kind }
    }

    fn warning(step: u64, text: &str) -> LogEntry {
        entry(step, LogKind::Warning(text.to_owned()))
    }

    #[test]
    fn validations_of_this_process_are_told_once() {
        let at = |step| ValidationPoint {
            step,
            loss: 0.5,
            accuracy: Some(0.9),
            num_examples: 1_000,
            seconds: 1.0,
            whole: None,
            quantized: None,
        };
        let log = [entry(0, LogKind::Started { step: 0 }), entry(50, LogKind::Started { step: 50 })];
        let mut printer = LogPrinter::default();
        let line = "step    100  validation loss 0.5000 nats, accuracy 90.00 %, on 1000 images";
        assert!(printer.new_validations(&log, &[at(50)]).is_empty(), "that was before");
        assert_eq!(printer.new_validations(&log, &[at(50), at(100)]), [line]);
        assert!(printer.new_validations(&log, &[at(50), at(100)]).is_empty());
    }

    #[test]
    fn each_line_is_printed_once() {
        let mut printer = LogPrinter::default();
        let mut log = vec![entry(0, LogKind::Started { step: 0 }), warning(1, "a")];
        assert!(printer.new_lines(&[]).is_empty());
        assert_eq!(printer.new_lines(&log), ["step      1  warning: a"]);
        assert!(printer.new_lines(&log).is_empty());
        log.push(warning(2, "b"));
        assert_eq!(printer.new_lines(&log), ["step      2  warning: b"]);
    }

    #[test]
    fn what_happened_before_a_run_was_resumed_is_not_told_again() {
        for step in [0, 25] {
            let mut log = vec![entry(0, LogKind::Started { step: 0 }), warning(step, "old")];
            log.extend([entry(step, LogKind::Started { step }), warning(step, "new")]);
            let mut printer = LogPrinter::default();
            let lines = printer.new_lines(&log);
            let expected =
                [format!("step {step:>6}  going on after step {step}"), format!("step {step:>6}  warning: new")];
            assert_eq!(lines, expected);
            assert!(printer.new_lines(&log).is_empty());
        }
    }
}
