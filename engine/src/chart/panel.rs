//! One panel: title, axis names and legend above, the frame with its grid and ticks, names of ticks below.

use super::axis::{Extent, Margin, Range, Ruler};
use super::curves::{self, Plot};
use super::description::{Axis, BarPanel, Chart, CurvePanel, Panel, Scale, XRange};
use super::font::{Face, width};
use super::geometry::Frame;
use super::legend::{self, Legend};
use super::palette::Palette;
use super::scene::{Anchor, Paint, Point, Shape, Stroke};
use super::text::{clean, shorten};
use super::ticks::Tick;
use super::{ChartError, bars, x_ranges};

/// Sizes of text, px.
const TITLE: f64 = 13.5;
const LABEL: f64 = 12.0;
const TICK: f64 = 11.5;
/// Height of the row with title and legend.
const HEAD_ROW: f64 = 22.0;
/// Between header and frame: the topmost tick's name stands half above the frame.
const HEAD_GAP: f64 = 8.0;
/// Height of the names of x ticks, and of the x axis's own name.
const TICK_ROW: f64 = 20.0;
const LABEL_ROW: f64 = 18.0;
/// Between a tick's name and the frame.
const TICK_GAP: f64 = 7.0;
/// Right of the frame: the last tick's name stands half outside it.
pub(super) const RIGHT: f64 = 14.0;
/// Least distance of y ticks, and of x ticks whose names are short.
const Y_TICKS: f64 = 22.0;
const X_TICKS: f64 = 68.0;

/// A panel whose ranges and texts are known, and whose place is not.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    content: Content<'a>,
    title: String,
    y_label: String,
    legend: Legend,
    is_legend_beside: bool,
    /// Colored x ranges behind the curves.
    ranges: &'a [XRange],
    x_ticks: XTicks,
    y: Range,
    is_blank: bool,
    has_strip: bool,
}

#[derive(Debug)]
enum Content<'a> {
    Curves { panel: &'a CurvePanel, x: Range },
    Bars { panel: &'a BarPanel, num_lines: usize },
}

/// Whether the x axis is named here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum XTicks {
    Named,
    /// A panel below names them.
    Bare,
}

/// Where a panel stands among the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The x range of all panels, when they share one.
    pub(super) shared: Option<Range>,
    pub(super) x_ticks: XTicks,
    pub(super) is_first_row: bool,
}

/// The x range that all panels share: the first one asked for, else that of all data.
pub(super) fn shared_x(chart: &Chart) -> Result<Option<Range>, ChartError> {
    let panels = || {
        chart.panels.iter().filter_map(|panel| match panel {
            Panel::Curves(panel) => Some(panel),
            Panel::Bars(_) => None,
        })
    };
    let Some(first) = panels().find(|panel| panel.x.range.is_some()).or_else(|| panels().next()) else {
        return Ok(None);
    };
    let mut extent = Extent::EMPTY;
    panels().for_each(|panel| extent.join(curves::x_extent(panel)));
    let margin = if panels().all(curves::is_points_only) { Margin::Narrow } else { Margin::None };
    Range::of(&first.x, extent, margin).map(Some)
}

impl<'a> Prepared<'a> {
    /// Works out what `panel` shows in a cell of `room` px.
    pub(super) fn new(
        chart: &'a Chart,
        panel: &'a Panel,
        Place { shared, x_ticks, is_first_row }: Place,
        room: f64,
        p: &Palette,
    ) -> Result<Self, ChartError> {
        let (content, title, y_axis, entries, extent) = match panel {
            Panel::Curves(panel) => {
                check_lengths(panel)?;
                let margin = if curves::is_points_only(panel) { Margin::Narrow } else { Margin::None };
                let x = match shared {
                    Some(x) => x,
                    None => Range::of(&panel.x, curves::x_extent(panel), margin)?,
                };
                let extent = curves::y_extent(panel, |value| x.contains(value));
                let entries = curves::entries(panel, p);
                (Content::Curves { panel, x }, &panel.title, &panel.y, entries, extent)
            }
            Panel::Bars(panel) => {
                check_bars(panel)?;
                // The plot will not be narrower than this, so names will not need more lines.
                let num_lines = bars::names(panel, room - 80.0).iter().map(Vec::len).max().unwrap_or(0);
                let entries = bars::entries(panel, p);
                (Content::Bars { panel, num_lines }, &panel.title, &panel.y, entries, bars::y_extent(panel))
            }
        };
        let y = Range::of(y_axis, extent, Margin::Around)?;
        let is_blank = extent.is_empty() && y_axis.range.is_none();
        let ranges = match content {
            Content::Curves { .. } => chart.x_ranges.as_slice(),
            Content::Bars { .. } => &[],
        };
        // Over a shared axis one strip tells the colors of all.
        let has_strip = !ranges.is_empty() && (is_first_row || shared.is_none());
        let title = shorten(&clean(title), Face::Bold, TITLE, room);
        let title_width = if title.is_empty() { 0.0 } else { width(&title, Face::Bold, TITLE) + 10.0 };
        let y_label = shorten(&axis_text(y_axis), Face::Regular, LABEL, (room - title_width).max(40.0));
        let used = title_width + width(&y_label, Face::Regular, LABEL);
        let legend = legend::lay_out(entries, room - RIGHT);
        let is_legend_beside = legend.num_rows == 1 && used + 24.0 + legend.first_row_width + RIGHT <= room;
        Ok(Self { content, title, y_label, legend, is_legend_beside, ranges, x_ticks, y, is_blank, has_strip })
    }

    /// Height above the frame, px.
    pub(super) fn header(&self) -> f64 {
        let has_row = !self.title.is_empty() || !self.y_label.is_empty() || self.is_legend_beside;
        let row = if has_row { HEAD_ROW } else { 0.0 };
        let legend = if self.is_legend_beside { 0.0 } else { self.legend.height() };
        let strip = if self.has_strip { x_ranges::STRIP } else { 0.0 };
        row + legend + HEAD_GAP + strip
    }

    /// Height below the frame, px.
    pub(super) fn footer(&self) -> f64 {
        match (&self.content, self.x_ticks) {
            (Content::Bars { num_lines, .. }, _) => 10.0 + *num_lines as f64 * bars::NAME_LINE,
            (Content::Curves { .. }, XTicks::Bare) => 6.0,
            (Content::Curves { panel, .. }, XTicks::Named) => {
                TICK_ROW + if axis_text(&panel.x).is_empty() { 0.0 } else { LABEL_ROW }
            }
        }
    }

    /// Width left of the frame, px, when the frame is `height` px high.
    pub(super) fn left(&self, height: f64) -> f64 {
        let widths = self.y_ticks(height).into_iter().map(|tick| width(&tick.label, Face::Regular, TICK));
        widths.fold(12.0, f64::max) + TICK_GAP
    }

    fn y_ticks(&self, height: f64) -> Vec<Tick> {
        // Numbers beside nothing would look measured.
        if self.is_blank { Vec::new() } else { self.y.ticks(height, Y_TICKS.max(height / 9.0)) }
    }

    /// Draws everything; the header begins at `corner`, the frame's lower right is right of and below it.
    pub(super) fn draw(&self, p: &Palette, corner: Point, room: f64, frame: Frame, shapes: &mut Vec<Shape>) {
        self.draw_header(p, corner, room, shapes);
        let y = Ruler { range: self.y, from_px: frame.bottom, to_px: frame.top };
        let x_range = match &self.content {
            Content::Curves { x, .. } => *x,
            Content::Bars { .. } => Range { scale: Scale::Linear, low: 0.0, high: 1.0, is_whole: false },
        };
        let plot = Plot { p, frame, x: Ruler { range: x_range, from_px: frame.left, to_px: frame.right }, y };
        x_ranges::draw(&plot, self.ranges, self.has_strip, shapes);
        self.draw_y_axis(&plot, shapes);
        match &self.content {
            Content::Curves { panel, .. } => {
                self.draw_x_axis(&plot, &panel.x, shapes);
                plot.draw(panel, shapes);
            }
            Content::Bars { panel, .. } => {
                bars::draw(&plot, panel, shapes);
                base_line(&plot, shapes);
            }
        }
    }

    fn draw_header(&self, p: &Palette, [left, top]: Point, room: f64, shapes: &mut Vec<Shape>) {
        let baseline = top + 13.5;
        let mut x = left;
        if !self.title.is_empty() {
            shapes.push(Shape::text([x, baseline], Anchor::Start, (Face::Bold, TITLE), p.title, &self.title));
            x += width(&self.title, Face::Bold, TITLE) + 10.0;
        }
        if !self.y_label.is_empty() {
            let font = (Face::Regular, LABEL);
            shapes.push(Shape::text([x, baseline], Anchor::Start, font, p.text_weak, &self.y_label));
        }
        if self.is_legend_beside {
            let x = left + room - RIGHT - self.legend.first_row_width;
            self.legend.draw(p, [x, top], shapes);
        } else {
            let has_row = !self.title.is_empty() || !self.y_label.is_empty();
            self.legend.draw(p, [left, top + if has_row { HEAD_ROW } else { 0.0 }], shapes);
        }
    }

    fn draw_y_axis(&self, plot: &Plot<'_>, shapes: &mut Vec<Shape>) {
        let Frame { left, right, .. } = plot.frame;
        for tick in self.y_ticks(plot.frame.height()) {
            let y = plot.y.px_of_straightened(tick.at);
            let line = crisp(y);
            let is_minor = tick.label.is_empty();
            let is_zero = tick.at == 0.0 && self.y.scale == Scale::Linear && self.y.low < 0.0;
            let color = if is_zero { plot.p.axis } else { plot.p.grid };
            let paint = Paint::pale(color, if is_minor { 0.5 } else { 1.0 });
            let stroke = Stroke { paint, ..Stroke::solid(color, 1.0) };
            shapes.push(Shape::segment([left, line], [right, line], stroke));
            if !is_minor {
                let at = [left - TICK_GAP, y + TICK * 0.35];
                shapes.push(Shape::text(at, Anchor::End, (Face::Regular, TICK), plot.p.text_weak, &tick.label));
            }
        }
    }

    fn draw_x_axis(&self, plot: &Plot<'_>, axis: &Axis, shapes: &mut Vec<Shape>) {
        let Frame { left, right, bottom, .. } = plot.frame;
        base_line(plot, shapes);
        for tick in x_ticks(plot.x.range, plot.frame.width()) {
            let x = plot.x.px_of_straightened(tick.at);
            let line = crisp(x);
            let len = if tick.label.is_empty() { 3.0 } else { 5.0 };
            let stroke = Stroke::solid(plot.p.axis, 1.0);
            shapes.push(Shape::segment([line, bottom], [line, bottom + len], stroke));
            if self.x_ticks == XTicks::Named && !tick.label.is_empty() {
                let at = [x, bottom + 17.0];
                shapes.push(Shape::text(at, Anchor::Middle, (Face::Regular, TICK), plot.p.text_weak, &tick.label));
            }
        }
        if self.x_ticks == XTicks::Named {
            let text = shorten(&axis_text(axis), Face::Regular, LABEL, plot.frame.width());
            let at = [f64::midpoint(left, right), bottom + TICK_ROW + 14.0];
            shapes.push(Shape::text(at, Anchor::Middle, (Face::Regular, LABEL), plot.p.text, &text));
        }
    }
}

fn base_line(plot: &Plot<'_>, shapes: &mut Vec<Shape>) {
    let Frame { left, right, bottom, .. } = plot.frame;
    let y = crisp(bottom);
    shapes.push(Shape::segment([left, y], [right, y], Stroke::solid(plot.p.axis, 1.0)));
}

/// Ticks whose names do not touch.
fn x_ticks(range: Range, len: f64) -> Vec<Tick> {
    let ticks = range.ticks(len, X_TICKS);
    let widest = ticks.iter().map(|tick| width(&tick.label, Face::Regular, TICK)).fold(0.0, f64::max);
    if widest + 14.0 <= X_TICKS { ticks } else { range.ticks(len, widest + 14.0) }
}

/// A line 1 px wide fills whole pixels when it runs along their middle.
fn crisp(px: f64) -> f64 {
    px.floor() + 0.5
}

/// "Loss (nats)".
fn axis_text(axis: &Axis) -> String {
    let (label, unit) = (clean(&axis.label), clean(&axis.unit));
    match (label.is_empty(), unit.is_empty()) {
        (_, true) => label,
        (true, false) => unit,
        (false, false) => format!("{label} ({unit})"),
    }
}

fn check_lengths(panel: &CurvePanel) -> Result<(), ChartError> {
    for series in &panel.series {
        for piece in &series.pieces {
            let [num_x, num_y, num_low, num_high] =
                [&piece.x, &piece.y, &piece.low, &piece.high].map(|column| column.len());
            let is_band_alone = series.style == super::Style::Band && num_y == 0;
            let have_ends = num_low == num_high && (num_low == 0 || num_low == num_x);
            if !((num_y == num_x || is_band_alone) && have_ends) {
                return Err(ChartError::Lengths { series: series.label.clone(), num_x, num_y, num_low, num_high });
            }
        }
    }
    Ok(())
}

fn check_bars(panel: &BarPanel) -> Result<(), ChartError> {
    let num_groups = panel.groups.len();
    for contender in &panel.contenders {
        let num_bars = contender.bars.len();
        if num_bars != num_groups {
            return Err(ChartError::Bars { contender: contender.label.clone(), num_bars, num_groups });
        }
    }
    if panel.style == super::BarStyle::Bars && panel.y.scale == Scale::Log {
        let panel = if panel.title.is_empty() { &panel.y.label } else { &panel.title };
        return Err(ChartError::LogBars { panel: panel.clone() });
    }
    Ok(())
}
