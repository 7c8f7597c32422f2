//! The arena's charts: loss over steps, time and cost, and the final figures side by side.

use super::frame;
use crate::chart::{Axis, BarPanel, BarStyle, Chart, CurvePanel, Panel, Series};
use crate::experiment::{ArenaResult, CurvePoint, Estimate, TrialResult};

/// Charts by file name without ending.
pub(super) fn charts(result: &ArenaResult, subtitle: &str) -> Vec<(String, Chart)> {
    let curves = Chart {
        title: "Training loss against steps, time and cost".to_owned(),
        subtitle: format!("{subtitle}; first seed, mean over each hundredth of the run"),
        width: 1200,
        height: 420,
        columns: 3,
        panels: vec![
            curves(result, Axis::new("step", "").whole(), &|point| point.step as f64),
            curves(result, Axis::new("training time", "s"), &|point| point.seconds),
            curves(result, Axis::new("cost", "full steps"), &|point| point.cost),
        ],
        ..Chart::default()
    };
    let finals = Chart {
        title: "Held-out loss and training time at the end".to_owned(),
        subtitle: format!("{subtitle}; mean over seeds, 95% interval"),
        width: 1000,
        height: 420,
        columns: 2,
        panels: vec![
            dots(result, Axis::new("held-out loss", "nats"), BarStyle::Dots, &|result| result.held_out().loss),
            dots(result, Axis::new("training time", "s"), BarStyle::Bars, &|result| result.seconds),
        ],
        ..Chart::default()
    };
    vec![("loss".to_owned(), curves), ("final".to_owned(), finals)]
}

fn curves(result: &ArenaResult, x: Axis, of: &dyn Fn(&CurvePoint) -> f64) -> Panel {
    let series = result.tuned.iter().zip(&result.results).enumerate().filter_map(|(index, (tuned, results))| {
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

fn dots(result: &ArenaResult, y: Axis, style: BarStyle, of: &dyn Fn(&TrialResult) -> f64) -> Panel {
    let contenders = result.tuned.iter().zip(&result.results).enumerate().map(|(index, (tuned, results))| {
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
