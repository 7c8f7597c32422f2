//! Charts on quantization: losses of the trainings, and what each way to fewer bits costs.

use super::frame;
use crate::chart::{Axis, BarPanel, BarStyle, Chart, CurvePanel, Panel, Series};
use crate::experiment::{Estimate, QuantizationFigures, QuantizationResult};

/// Charts by file name without ending.
pub(super) fn charts(result: &QuantizationResult, subtitle: &str) -> Vec<(String, Chart)> {
    let series = result.plan.contenders.iter().zip(&result.trained).enumerate();
    let series = series.filter_map(|(index, (contender, results))| {
        let points = results.first()?.curve.iter().map(|point| (point.step as f64, point.loss));
        Some(Series::line(&contender.name, index as u8, points))
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
    let all = result.figures();
    let is_text = all.iter().any(|figures| figures.perplexity.is_some());
    let quality = if is_text {
        panel(&all, Axis::new("held-out perplexity", ""), 1.0, |figures| figures.perplexity)
    } else {
        panel(&all, Axis::new("held-out accuracy", "%"), 100.0, |figures| figures.accuracy)
    };
    let quality = Chart {
        title: "Quality in fewer bits".to_owned(),
        subtitle: format!("{subtitle}; mean over seeds, 95% interval"),
        width: 1200,
        height: 480,
        columns: 2,
        panels: vec![quality, panel(&all, Axis::new("held-out loss", "nats"), 1.0, |figures| figures.loss)],
        ..Chart::default()
    };
    vec![("loss".to_owned(), curves), ("quality".to_owned(), quality)]
}

/// A dot for each way.
fn panel(all: &[QuantizationFigures], y: Axis, factor: f64, of: fn(&QuantizationFigures) -> Option<Estimate>) -> Panel {
    let contender = |(index, figures): (usize, &QuantizationFigures)| {
        frame::contender(&figures.name, index, vec![frame::bar(of(figures), factor)])
    };
    Panel::Bars(BarPanel {
        y,
        style: BarStyle::Dots,
        groups: vec![String::new()],
        contenders: all.iter().enumerate().map(contender).collect(),
        ..BarPanel::default()
    })
}
