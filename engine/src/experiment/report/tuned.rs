//! What reports on tuned contenders share: their curves, their final figures side by side, their grids.

use std::fmt::Write;

use super::frame;
use crate::chart::{Axis, BarPanel, BarStyle, Chart, CurvePanel, Panel, Series};
use crate::experiment::{CurvePoint, Estimate, TrialResult, Tuned};

/// Contenders with their results, one per seed.
pub(super) type Field<'a> = (&'a [Tuned], &'a [Vec<TrialResult>]);

/// Charts by file name without ending: loss over steps, time and cost, which is counted in `cost_unit`, and the final figures
/// side by side.
pub(super) fn charts(field: Field<'_>, cost_unit: &str, subtitle: &str) -> Vec<(String, Chart)> {
    let loss = Chart {
        title: "Training loss against steps, time and cost".to_owned(),
        subtitle: format!("{subtitle}; first seed, mean over each hundredth of the run"),
        width: 1200,
        height: 420,
        columns: 3,
        panels: vec![
            curves(field, Axis::new("step", "").whole(), &|point| point.step as f64),
            curves(field, Axis::new("training time", "s"), &|point| point.seconds),
            curves(field, Axis::new("cost", cost_unit), &|point| point.cost),
        ],
        ..Chart::default()
    };
    let end = Chart {
        title: "Held-out loss and training time at the end".to_owned(),
        subtitle: format!("{subtitle}; mean over seeds, 95% interval"),
        width: 1000,
        height: 420,
        columns: 2,
        panels: vec![
            finals(field, Axis::new("held-out loss", "nats"), BarStyle::Dots, &|result| result.held_out().loss),
            finals(field, Axis::new("training time", "s"), BarStyle::Bars, &|result| result.seconds),
        ],
        ..Chart::default()
    };
    vec![("loss".to_owned(), loss), ("final".to_owned(), end)]
}

/// Training losses of the first seed over `of`.
fn curves((tuned, results): Field<'_>, x: Axis, of: &dyn Fn(&CurvePoint) -> f64) -> Panel {
    let series = tuned.iter().zip(results).enumerate().filter_map(|(index, (tuned, results))| {
        let points = results.first()?.curve.iter().map(|point| (of(point), point.loss));
        Some(Series::line(&tuned.contender.name, index as u8, points))
    });
    Panel::Curves(CurvePanel {
        x,
        y: Axis::new("training loss", "nats").log(),
        series: series.collect(),
        ..CurvePanel::default()
    })
}

/// A figure of each contender: mean over seeds, 95% interval.
fn finals((tuned, results): Field<'_>, y: Axis, style: BarStyle, of: &dyn Fn(&TrialResult) -> f64) -> Panel {
    let contenders = tuned.iter().zip(results).enumerate().map(|(index, (tuned, results))| {
        let values: Vec<f64> = results.iter().map(of).collect();
        frame::contender(&tuned.contender.name, index, vec![frame::bar(Estimate::of(&values), 1.0)])
    });
    Panel::Bars(BarPanel {
        y,
        style,
        groups: vec![String::new()],
        contenders: contenders.collect(),
        ..BarPanel::default()
    })
}

/// What was tried, and what was chosen.
pub(super) fn tuning(tuned: &[Tuned]) -> String {
    let mut text =
        "## Tuning\n\nEach contender got the best of its grid by validation loss, with a seed of its own.\n\n\
                    | contender | setting | validation loss | |\n| --- | --- | --- | --- |\n"
            .to_owned();
    for tuned in tuned {
        for (index, tried) in tuned.tried.iter().enumerate() {
            let loss = tried.validation_loss.map_or_else(|| "diverged".to_owned(), |loss| format!("{loss:.4}"));
            let mark = match (index == tuned.best, tuned.is_at_edge) {
                (false, _) => "",
                (true, false) => "chosen",
                (true, true) => "chosen, at an edge of its grid",
            };
            let _ = writeln!(text, "| {} | {} | {loss} | {mark} |", tuned.contender.name, tried.setting);
        }
    }
    text
}
