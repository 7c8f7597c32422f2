//! Charts on tiers: loss over steps and time, and the final figures side by side.

use super::frame;
use crate::chart::{Axis, BarPanel, BarStyle, Chart, CurvePanel, Panel, Series};
use crate::experiment::{CurvePoint, Estimate, TierFigures, TiersResult};

/// Charts by file name without ending.
pub(super) fn charts(result: &TiersResult, subtitle: &str) -> Vec<(String, Chart)> {
    let curves = Chart {
        title: "Training loss against steps and time".to_owned(),
        subtitle: format!("{subtitle}; first seed, mean over each hundredth of the run"),
        width: 1000,
        height: 420,
        columns: 2,
        panels: vec![
            curves(result, Axis::new("step", "").whole(), |point| point.step as f64),
            curves(result, Axis::new("training time", "s"), |point| point.seconds),
        ],
        ..Chart::default()
    };
    let tiers = result.figures();
    let is_text = tiers.iter().any(|tier| tier.perplexity.is_some());
    let quality = if is_text {
        bars(&tiers, Axis::new("held-out perplexity", ""), BarStyle::Dots, 1.0, |tier| tier.perplexity)
    } else {
        bars(&tiers, Axis::new("held-out accuracy", "%"), BarStyle::Dots, 100.0, |tier| tier.accuracy)
    };
    let finals = Chart {
        title: "Speed-up and quality of each tier".to_owned(),
        subtitle: format!("{subtitle}; mean over seeds, 95% interval"),
        width: 1200,
        height: 420,
        columns: 3,
        panels: vec![
            bars(&tiers, Axis::new("speed-up against vanilla", ""), BarStyle::Bars, 1.0, |tier| tier.speed_up),
            bars(&tiers, Axis::new("held-out loss", "nats"), BarStyle::Dots, 1.0, |tier| tier.loss),
            quality,
        ],
        ..Chart::default()
    };
    vec![("loss".to_owned(), curves), ("final".to_owned(), finals)]
}

fn curves(result: &TiersResult, x: Axis, of: fn(&CurvePoint) -> f64) -> Panel {
    let series = result.plan.tiers.iter().zip(&result.results).enumerate().filter_map(|(index, (tier, results))| {
        let points = results.first()?.curve.iter().map(|point| (of(point), point.loss));
        Some(Series::line(&tier.name, index as u8, points))
    });
    Panel::Curves(CurvePanel {
        x,
        y: Axis::new("training loss", "nats").log(),
        series: series.collect(),
        ..CurvePanel::default()
    })
}

fn bars(
    tiers: &[TierFigures],
    y: Axis,
    style: BarStyle,
    factor: f64,
    of: fn(&TierFigures) -> Option<Estimate>,
) -> Panel {
    let contender =
        |(index, tier): (usize, &TierFigures)| frame::contender(&tier.name, index, vec![frame::bar(of(tier), factor)]);
    Panel::Bars(BarPanel {
        y,
        style,
        groups: vec![String::new()],
        contenders: tiers.iter().enumerate().map(contender).collect(),
        ..BarPanel::default()
    })
}
