//! All chosen plots of a run as one chart for files: the curves in view, whatever is scrolled away.

use std::collections::BTreeMap;

use foretrain_engine::hybrid::Phase;
use foretrain_engine::session::RunSnapshot;
use foretrain_engine::session::chart::{
    Axis, Chart, CurvePanel, Limit, NEUTRAL, Panel, Piece, Scale, Series as ChartSeries, Source, Style, XAxes, XRange,
};

use super::{Band, Curve, CurveStyle, PlotKind, RunSeries, Series, curves_of};
use crate::state::PlotsSaved;
use crate::theme::{DARK, Palette, phase_color, phase_label};
use crate::widgets::number;

/// Size, px: all plots, what a chart has beside them, each plot.
const WIDTH: u32 = 1200;
const FIXED_HEIGHT: u32 = 180;
const PLOT_HEIGHT: u32 = 180;
/// Most buckets of a curve: enough for each px, whatever level of the series they come from.
const MAX_BUCKETS: usize = 4 * WIDTH as usize;
/// Most columns of phases.
const MAX_COLUMNS: u32 = WIDTH;

/// What of a run is in view.
#[derive(Debug, Clone, Copy)]
pub struct ChartView<'a> {
    /// First and last step.
    pub steps: (f64, f64),
    /// Values, lowest and highest, of the plots whose y axis was zoomed; on a log scale their log10.
    pub y_zooms: &'a BTreeMap<PlotKind, (f64, f64)>,
}

/// The plots of `run` chosen in `plots` as far as they are in `view`; its work grows with the picture, not with the run.
#[must_use]
pub fn run_chart(run: &RunSnapshot, series: &RunSeries, plots: &PlotsSaved, view: ChartView<'_>) -> Chart {
    let last = series.last_step();
    let range = (view.steps.0.max(0.0), view.steps.1.min(last));
    // A view beside all steps, or of one: then all are shown.
    let range = if range.0 < range.1 { range } else { (0.0, last.max(1.0)) };
    let kinds: Vec<PlotKind> = PlotKind::ALL.into_iter().filter(|kind| plots.shown.contains(kind)).collect();
    let panel = |kind: &PlotKind| {
        let y_zoom = view.y_zooms.get(kind).copied();
        Panel::Curves(panel(*kind, series, plots, (range, y_zoom)))
    };
    let panels = kinds.iter().map(panel).collect();
    Chart {
        title: run.config.name.clone(),
        subtitle: conditions(run, plots, &kinds, range),
        width: WIDTH,
        height: FIXED_HEIGHT + PLOT_HEIGHT * kinds.len() as u32,
        columns: 1,
        x_axes: XAxes::Shared,
        x_ranges: phases(series, range),
        panels,
    }
}

/// What a reader must know beside the plots.
fn conditions(run: &RunSnapshot, plots: &PlotsSaved, kinds: &[PlotKind], (from, to): (f64, f64)) -> String {
    let config = &run.config;
    let mut parts = vec![
        format!("{} parameters", number::short_count(run.num_params as f64)),
        format!("tier {}", config.tier),
        format!("batch size {}", config.batch_size),
        format!("seed {}", config.seed),
        format!("steps {from:.0} to {to:.0} of {}", config.num_steps),
    ];
    if plots.smoothing > 0.0 && kinds.contains(&PlotKind::Loss) {
        parts.push(format!("loss smoothed with weight {:.2} of the past", plots.smoothing));
    }
    parts.join(" · ")
}

fn panel(
    kind: PlotKind,
    series: &RunSeries,
    plots: &PlotsSaved,
    (range, y_zoom): ((f64, f64), Option<(f64, f64)>),
) -> CurvePanel {
    let is_loss = kind == PlotKind::Loss;
    let mut y = Axis::new("", kind.unit());
    if is_loss && plots.is_log {
        y.scale = Scale::Log;
        y.range = y_zoom.map(|(low, high)| (10f64.powf(low), 10f64.powf(high)));
    } else {
        y.range = y_zoom;
    }
    // Colors are looked up by what they are in one of the two palettes; the chart has its own two.
    let curves = curves_of(kind, series, &DARK, is_loss && plots.smoothing > 0.0);
    CurvePanel {
        title: kind.title().to_owned(),
        x: Axis::new("Step", "").between(range.0, range.1).whole(),
        y,
        series: curves.iter().flat_map(|curve| drawn(curve, range)).collect(),
        limits: kind.limit().map(|y| Limit { y, label: "Limit".to_owned() }).into_iter().collect(),
    }
}

/// A curve behind its band, if it has one.
fn drawn(curve: &Curve<'_>, range: (f64, f64)) -> Vec<ChartSeries> {
    let color = color_index(&DARK, curve.color);
    let (style, source) = match curve.style {
        CurveStyle::Solid => (Style::Line, Source::Measured),
        CurveStyle::Faint => (Style::Faint, Source::Measured),
        CurveStyle::Dashed => (Style::Line, Source::Predicted),
        CurveStyle::Marks => (Style::Points, Source::Measured),
        CurveStyle::OpenMarks => (Style::OpenPoints, Source::Measured),
    };
    let mut all = Vec::new();
    for Band { kind, low, high } in curve.bands.into_iter().flatten().filter(|band| !band.low.is_empty()) {
        let label = format!("{} {}", curve.name, kind.label());
        all.push(ChartSeries { label, color, source, style: Style::Band, pieces: band(low, high, range) });
    }
    // What is left out of the read-out is another look of a curve that is in it.
    let label = if curve.is_read_out { curve.name.to_owned() } else { String::new() };
    all.push(ChartSeries { label, color, source, style, pieces: line(curve.series, range) });
    all
}

fn line(series: &Series, (from, to): (f64, f64)) -> Vec<Piece> {
    let drawn = series.draw(from, to, MAX_BUCKETS);
    let runs = drawn.runs.into_iter().map(|run| run.points.into_iter().map(|[x, y]| (x, y)).collect());
    let marks = drawn.nan_marks.into_iter().map(|x| [(x, f64::NAN)].into_iter().collect());
    runs.chain(marks).collect()
}

fn band(low: &Series, high: &Series, (from, to): (f64, f64)) -> Vec<Piece> {
    let (low, high) = (low.spans(from, to, MAX_BUCKETS), high.spans(from, to, MAX_BUCKETS));
    let pieces = low.iter().zip(&high).map(|(low, high)| {
        let mut piece = Piece::default();
        for (low, high) in low.iter().zip(high) {
            let ends = if low.from < low.to { &[low.from, low.to][..] } else { &[low.from][..] };
            for &x in ends {
                piece.x.push(x);
                piece.low.push(low.min);
                piece.high.push(high.max);
            }
        }
        piece
    });
    pieces.collect()
}

fn phases(series: &RunSeries, (from, to): (f64, f64)) -> Vec<XRange> {
    let spans = series.phases.spans(from, to, MAX_COLUMNS);
    let range = |(from, to, phase): (f64, f64, Phase)| XRange {
        from,
        to,
        label: phase_label(phase).to_owned(),
        color: color_index(&DARK, phase_color(&DARK, phase)),
    };
    spans.into_iter().map(range).collect()
}

/// The chart's colors come in the order of the palette's series; what is none of them is gray.
fn color_index(p: &Palette, color: egui::Color32) -> u8 {
    p.series.iter().position(|known| *known == color).map_or(NEUTRAL, |index| index as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_has_its_color() {
        let series = RunSeries::default();
        for kind in PlotKind::ALL {
            for curve in curves_of(kind, &series, &DARK, true) {
                assert_ne!(color_index(&DARK, curve.color), NEUTRAL, "{kind:?}: {}", curve.name);
            }
        }
        let phases = [Phase::Warmup, Phase::Full, Phase::Predict, Phase::Correct];
        let colors = phases.map(|phase| color_index(&DARK, phase_color(&DARK, phase)));
        assert_eq!(colors, [NEUTRAL, 0, 1, 3]);
    }
}
