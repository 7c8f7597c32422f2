//! Charts on memory features: how losses fall, and where they end.

use super::frame;
use crate::chart::{Axis, BarPanel, BarStyle, Chart, CurvePanel, Panel, Series};
use crate::experiment::{Estimate, FeatureFigures, FeaturesResult};

/// Charts by file name without ending.
pub(super) fn charts(result: &FeaturesResult, subtitle: &str) -> Vec<(String, Chart)> {
    let all = result.figures();
    let series = all.iter().zip(&result.results).enumerate().filter_map(|(index, (figures, result))| {
        let points = result.runs.first()?.curve.iter().map(|point| (point.step as f64, point.loss));
        Some(Series::line(figures.name, index as u8, points))
    });
    let curves = Chart {
        title: "Training loss".to_owned(),
        subtitle: format!("{subtitle}; first seed, mean over each hundredth of the run"),
        width: 1000,
        height: 420,
        panels: vec![Panel::Curves(CurvePanel {
            x: Axis::new("step", "").whole(),
            y: Axis::new("training loss", "nats").log(),
            series: series.collect(),
            ..CurvePanel::default()
        })],
        ..Chart::default()
    };
    let costs = Chart {
        title: "What each feature costs".to_owned(),
        subtitle: format!("{subtitle}; mean over seeds, 95% interval"),
        width: 1200,
        height: 480,
        columns: 2,
        panels: vec![
            panel(&all, Axis::new("validation loss", "nats"), |figures| figures.loss),
            panel(&all, Axis::new("time of a step over plain training's", ""), |figures| figures.time_ratio),
        ],
        ..Chart::default()
    };
    vec![("loss".to_owned(), curves), ("costs".to_owned(), costs)]
}

/// A dot for each training.
fn panel(all: &[FeatureFigures], y: Axis, of: fn(&FeatureFigures) -> Option<Estimate>) -> Panel {
    let contender = |(index, figures): (usize, &FeatureFigures)| {
        frame::contender(figures.name, index, vec![frame::bar(of(figures), 1.0)])
    };
    Panel::Bars(BarPanel {
        y,
        style: BarStyle::Dots,
        groups: vec![String::new()],
        contenders: all.iter().enumerate().map(contender).collect(),
        ..BarPanel::default()
    })
}
