//! Charts on corrections: the error before and after each, what each setting took away, how far to believe forecasts.

use super::frame;
use crate::chart::{Axis, BarPanel, Chart, CurvePanel, Panel, Series, Style};
use crate::experiment::{CorrectionsResult, DEMANDED_REDUCTION, SettingResult};
use crate::hybrid::Correction;

/// Charts by file name without ending.
pub(super) fn charts(result: &CorrectionsResult, subtitle: &str) -> Vec<(String, Chart)> {
    let num_columns = result.plan.horizons.len().clamp(1, 3) as u32;
    let num_rows = (result.settings.len() as u32).div_ceil(num_columns);
    let errors = Chart {
        title: "Error of the loss forecast before and after each correction".to_owned(),
        subtitle: format!("{subtitle}; first seed"),
        width: 400 * num_columns.max(2),
        height: 80 + 240 * num_rows,
        columns: num_columns,
        panels: result.settings.iter().map(errors).collect(),
        ..Chart::default()
    };
    let reduction = Chart {
        title: "Share of the forecasts' error that corrections took away".to_owned(),
        subtitle: format!(
            "{subtitle}; all corrections, 95% interval over seeds; demanded at confidence 0.55: {:.0}%",
            100.0 * DEMANDED_REDUCTION
        ),
        width: 900,
        height: 420,
        columns: 1,
        panels: vec![reductions(result)],
        ..Chart::default()
    };
    let reliability = Chart {
        title: "How far the forecasts' intervals can be believed".to_owned(),
        subtitle: format!("{subtitle}; Predict and Correct steps, all horizons and seeds together"),
        width: 640,
        height: 520,
        columns: 1,
        panels: vec![reliability(result)],
        ..Chart::default()
    };
    vec![("errors".to_owned(), errors), ("reduction".to_owned(), reduction), ("reliability".to_owned(), reliability)]
}

fn errors(setting: &SettingResult) -> Panel {
    let corrections = setting.results.first().map_or(&[][..], |result| result.corrections.as_slice());
    let points = |of: fn(&Correction) -> f32| {
        corrections.iter().map(move |(step, correction)| (*step as f64, f64::from(of(correction))))
    };
    Panel::Curves(CurvePanel {
        title: format!("confidence {}, H {}", setting.confidence_threshold, setting.max_predict_steps),
        x: Axis::new("step", "").whole(),
        y: Axis::new("|forecast − measured loss|", "nats").log(),
        series: vec![
            Series::line("before", 1, points(Correction::error_before)).with_style(Style::OpenPoints),
            Series::line("after", 0, points(Correction::error_after)).with_style(Style::Points),
        ],
        ..CurvePanel::default()
    })
}

fn reductions(result: &CorrectionsResult) -> Panel {
    let thresholds = result.plan.confidence_thresholds.iter().enumerate().map(|(index, &threshold)| {
        let settings = result.settings.iter().filter(|setting| setting.confidence_threshold == threshold);
        let bar = |setting: &SettingResult| {
            let figures = setting.figures();
            let mut bar = frame::bar(figures.error_reduction, 100.0);
            if let Some(found) = figures.corrections {
                bar.value = 100.0 * found.error_reduction;
            }
            bar
        };
        frame::contender(format!("confidence {threshold}"), index, settings.map(bar).collect())
    });
    let contenders: Vec<_> = thresholds.collect();
    // Up to 100%, so that the demand has its place; downwards as far as need be.
    let ends = contenders.iter().flat_map(|contender| &contender.bars).filter_map(|bar| bar.ends);
    let values = contenders.iter().flat_map(|contender| &contender.bars).map(|bar| bar.value);
    let least = ends.map(|(low, _)| low).chain(values).fold(0.0, f64::min);
    Panel::Bars(BarPanel {
        y: Axis::new("error reduction", "%").between(least, 100.0),
        groups: result.plan.horizons.iter().map(|horizon| format!("H {horizon}")).collect(),
        contenders,
        ..BarPanel::default()
    })
}

fn reliability(result: &CorrectionsResult) -> Panel {
    let diagonal = Series::line("as stated", 0, [(0.0, 0.0), (100.0, 100.0)]).with_style(Style::Reference);
    let thresholds = result.plan.confidence_thresholds.iter().enumerate().map(|(index, &threshold)| {
        let found = result.reliability(threshold);
        let label = format!("confidence {threshold}, {} forecasts", found.num_forecasts);
        let points = found.curve.iter().map(|point| (100.0 * point.nominal, 100.0 * point.observed));
        Series::line(label, index as u8, points)
    });
    Panel::Curves(CurvePanel {
        x: Axis::new("losses stated to fall inside", "%").between(0.0, 100.0),
        y: Axis::new("losses that fell inside", "%").between(0.0, 100.0),
        series: std::iter::once(diagonal).chain(thresholds).collect(),
        ..CurvePanel::default()
    })
}
