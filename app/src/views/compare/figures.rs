//! Final figures of a run, and tables of them as text.

use std::fmt::Write;
use std::sync::Arc;

use foretrain_engine::quant::QuantScheme;
use foretrain_engine::session::{LoadedRun, ValidationPoint};
use jiff::tz::TimeZone;

use crate::views::RunIdentity;

/// What a run came to; `None` where it was not measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figures {
    pub(super) name: String,
    pub(super) tier: String,
    pub(super) num_params: u64,
    pub(super) num_steps: u64,
    /// Time spent in steps.
    pub(super) seconds: f64,
    /// What the weights of the last validation were quantized to: those that ship; `None` for full precision.
    pub(super) quantized: Option<QuantScheme>,
    pub(super) validation_loss: Option<f64>,
    pub(super) validation_accuracy: Option<f64>,
    /// Share of example-backwards saved.
    pub(super) backward_saved: Option<f64>,
    /// Share of time saved against the vanilla steps measured at the run's start.
    pub(super) time_saved: Option<f64>,
}

impl Figures {
    /// The figures of `run`: those of its last validation, on the whole part where that was measured.
    pub(super) fn of(run: &LoadedRun) -> Self {
        let last = run.validations.last().map(ValidationPoint::figures);
        Self {
            name: run.config.name.clone(),
            tier: run.config.tier.clone(),
            num_params: run.num_params,
            num_steps: run.savings.num_steps,
            seconds: run.savings.measured_ms / 1e3,
            quantized: run.validations.last().and_then(shipped_scheme),
            validation_loss: last.map(|figures| figures.loss),
            validation_accuracy: last.and_then(|figures| figures.accuracy),
            backward_saved: run.savings.backward_share_saved(),
            time_saved: run.savings.time_share_saved(),
        }
    }
}

/// What the weights that `point` is about are quantized to: in quantization-aware training, once the network computes with
/// those alone.
pub(super) fn shipped_scheme(point: &ValidationPoint) -> Option<QuantScheme> {
    point.quantized.filter(|quantized| quantized.strength >= 1.0).map(|quantized| quantized.scheme)
}

/// The name of such weights.
pub(super) fn weights_name(scheme: Option<QuantScheme>) -> &'static str {
    scheme.unwrap_or(QuantScheme::F32).label()
}

/// One line per run. What was not measured is an empty cell.
pub(super) fn figures_csv(runs: &[Arc<LoadedRun>], zone: &TimeZone) -> String {
    let mut text = String::from(
        "run,folder,started,tier,seed,parameters,steps,seconds,validation_loss,validation_accuracy,validation_weights,\
         backward_saved,time_saved\n",
    );
    let cell = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    for run in runs {
        let figures = Figures::of(run);
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{},{},{},{}",
            quoted(&figures.name),
            quoted(&run.folder.display().to_string()),
            RunIdentity::of_loaded(run).started(zone),
            quoted(&figures.tier),
            run.config.seed,
            figures.num_params,
            figures.num_steps,
            figures.seconds,
            cell(figures.validation_loss),
            cell(figures.validation_accuracy),
            figures.validation_loss.map_or("", |_| weights_name(figures.quantized)),
            cell(figures.backward_saved),
            cell(figures.time_saved)
        );
    }
    text
}

/// One line per step and run: every measured value, unsmoothed.
pub(super) fn curves_csv(runs: &[Arc<LoadedRun>]) -> String {
    let mut text = String::from(
        "run,folder,step,seconds,loss,validation_loss,validation_accuracy,validation_weights,examples_per_second\n",
    );
    for run in runs {
        let name = format!("{},{}", quoted(&run.config.name), quoted(&run.folder.display().to_string()));
        let mut seconds = 0.0;
        let mut validations = run.validations.iter().peekable();
        for row in run.history.iter() {
            seconds += f64::from(row.step_ms) / 1e3;
            let mut point = None;
            while let Some(next) = validations.next_if(|point| point.step <= row.step) {
                point = Some(next);
            }
            let curve = point.map(ValidationPoint::on_curve);
            let loss = curve.map_or_else(String::new, |figures| figures.loss.to_string());
            let accuracy =
                curve.and_then(|figures| figures.accuracy).map_or_else(String::new, |value| value.to_string());
            let weights = point.map_or("", |point| weights_name(shipped_scheme(point)));
            let rate = f64::from(row.num_examples) / f64::from(row.step_ms) * 1e3;
            let _ = writeln!(text, "{name},{},{seconds},{},{loss},{accuracy},{weights},{rate}", row.step, row.loss);
        }
    }
    text
}

/// A CSV cell: in quotes where it holds what would end it. Source: RFC 4180.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_hold_a_comma_are_quoted() {
        assert_eq!(quoted("a, \"b\""), "\"a, \"\"b\"\"\"");
        assert_eq!(quoted("plain"), "plain");
    }
}
