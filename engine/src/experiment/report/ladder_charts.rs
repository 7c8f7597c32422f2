//! Charts on the ladder: both losses on each rung, and what changes with size.

use crate::chart::{Axis, Chart, CurvePanel, Limit, Panel, Series};
use crate::experiment::{LadderResult, RungOutcome, RungResult};

/// Charts by file name without ending; none when no rung trained.
pub(super) fn charts(result: &LadderResult, subtitle: &str) -> Vec<(String, Chart)> {
    let panels: Vec<Panel> = result.rungs.iter().filter_map(losses).collect();
    if panels.is_empty() {
        return Vec::new();
    }
    let num_columns = panels.len().min(2) as u32;
    let num_rows = (panels.len() as u32).div_ceil(num_columns);
    let losses = Chart {
        title: "Training loss on each rung".to_owned(),
        subtitle: format!("{subtitle}; mean over each hundredth of the planned steps"),
        width: 1000,
        height: 80 + 320 * num_rows,
        columns: num_columns,
        panels,
        ..Chart::default()
    };
    let tolerance = 1.0 + result.plan.loss_tolerance;
    let sizes = Chart {
        title: "What changes with size".to_owned(),
        subtitle: subtitle.to_owned(),
        width: 1000,
        height: 420,
        columns: 2,
        panels: vec![
            against_size(result, "hybrid's loss over vanilla's", RungResult::loss_ratio, Some(tolerance)),
            against_size(result, "speed-up against vanilla", RungResult::speed_up, None),
        ],
        ..Chart::default()
    };
    vec![("loss".to_owned(), losses), ("size".to_owned(), sizes)]
}

fn losses(rung: &RungResult) -> Option<Panel> {
    let RungOutcome::Trained { vanilla, hybrid } = &rung.outcome else { return None };
    let line = |label, color, of: &crate::experiment::TrialResult| {
        Series::line(label, color, of.curve.iter().map(|point| (point.step as f64, point.loss)))
    };
    Some(Panel::Curves(CurvePanel {
        title: format!("{} ({} parameters)", rung.size.label(), rung.num_params),
        x: Axis::new("step", "").whole(),
        y: Axis::new("training loss", "nats").log(),
        series: vec![line("hybrid", 0, hybrid), line("vanilla", 1, vanilla)],
        ..CurvePanel::default()
    }))
}

fn against_size(result: &LadderResult, label: &str, of: fn(&RungResult) -> Option<f64>, limit: Option<f64>) -> Panel {
    let points = result.rungs.iter().filter_map(|rung| Some((rung.num_params as f64, of(rung)?)));
    let limits = limit.map(|y| Limit { y, label: "next rung opens below".to_owned() });
    Panel::Curves(CurvePanel {
        x: Axis::new("parameters", "").log(),
        y: Axis::new(label, ""),
        series: vec![Series::line("", 0, points).with_style(crate::chart::Style::Points)],
        limits: limits.into_iter().collect(),
        ..CurvePanel::default()
    })
}
