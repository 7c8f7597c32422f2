//! Charts on growth: loss over steps, time and cost, and the final figures side by side.

use super::tuned::{curves, finals};
use crate::chart::{Axis, BarStyle, Chart};
use crate::experiment::GrowthResult;

/// Charts by file name without ending.
pub(super) fn charts(result: &GrowthResult, subtitle: &str) -> Vec<(String, Chart)> {
    let field = (result.tuned.as_slice(), result.results.as_slice());
    let loss = Chart {
        title: "Training loss against steps, time and cost".to_owned(),
        subtitle: format!("{subtitle}; first seed, mean over each hundredth of the run"),
        width: 1200,
        height: 420,
        columns: 3,
        panels: vec![
            curves(field, Axis::new("step", "").whole(), &|point| point.step as f64),
            curves(field, Axis::new("training time", "s"), &|point| point.seconds),
            curves(field, Axis::new("cost", "steps at full depth"), &|point| point.cost),
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
