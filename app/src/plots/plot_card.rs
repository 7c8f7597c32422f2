//! A card with one plot: title and read-out above, linked axes below.

use std::ops::RangeInclusive;

use egui::{CornerRadius, Frame, Id, Margin, Stroke, Ui, Vec2b, vec2};
use egui_plot::{
    AxisHints, FilledArea, GridInput, GridMark, HLine, Line, LineStyle, MarkerShape, Plot, PlotPoints, PlotUi, Points,
    VLine,
};

use super::curve::{Band, Curve, CurveStyle};
use super::legend::header_ui;
use super::series::Span;
use super::zoom::Zoom;
use crate::theme::{Palette, font, palette, radius, size};
use crate::widgets::number;

/// From the edge of a card to what it holds, at its left and right: border and margin.
pub(super) const CARD_EDGE: f32 = 11.0;

/// What linked plots share.
#[derive(Debug, Clone, Copy)]
pub struct PlotView {
    /// Plots with the same id zoom, pan and point together.
    pub link: Id,
    /// What x counts: "steps".
    pub x_name: &'static str,
    /// All of x: from 0 to the last step, or to the run's planned end.
    pub x_end: f64,
    /// Where the cursor is on any of the linked plots.
    pub cursor: Option<f64>,
    /// Show the whole run again.
    pub reset: bool,
}

/// What a plot card is about.
#[derive(Debug, Clone, Copy)]
pub struct Readout<'a> {
    /// Title.
    pub title: &'a str,
    /// Unit of y.
    pub unit: &'a str,
    /// What it says.
    pub about: &'a str,
    /// A line at this y, if any.
    pub limit: Option<f64>,
    /// Show log10 of the values.
    pub is_log: bool,
    /// Height of the plot itself.
    pub height: f32,
}

/// What a shown plot tells the others.
#[derive(Debug, Clone, Copy)]
pub struct PlotAnswer {
    /// Step under the pointer.
    pub hovered: Option<f64>,
    /// Steps in view.
    pub range: (f64, f64),
    /// Pixels of the first and last of them.
    pub pixels: (f32, f32),
    /// Values in view, lowest and highest; on a log scale their log10.
    pub y_range: (f64, f64),
    /// Values that the user zoomed to, like `y_range`; `None` where y fits what is in view.
    pub y_zoom: Option<(f64, f64)>,
    /// The card.
    pub rect: egui::Rect,
}

/// Shows a card with `curves`; `tools` adds buttons at the right of its title.
pub fn plot_card_ui(
    ui: &mut Ui,
    view: PlotView,
    about: Readout<'_>,
    curves: &[Curve<'_>],
    tools: impl FnOnce(&mut Ui),
) -> PlotAnswer {
    let p = palette(ui);
    let frame = Frame::new()
        .fill(p.card)
        .stroke(Stroke::new(1.0, p.border))
        .corner_radius(CornerRadius::same(radius::CARD))
        .inner_margin(Margin { left: 10, right: 10, top: 6, bottom: 4 });
    let shown = frame.show(ui, |ui| {
        ui.set_min_width(ui.available_width());
        ui.spacing_mut().item_spacing.y = 2.0;
        header_ui(ui, p, view, about, curves, tools);
        plot_ui(ui, p, view, about, curves)
    });
    PlotAnswer { rect: shown.response.rect, ..shown.inner }
}

fn plot_ui(ui: &mut Ui, p: &'static Palette, view: PlotView, about: Readout<'_>, curves: &[Curve<'_>]) -> PlotAnswer {
    let is_log = about.is_log;
    // An unnamed canvas would be a riddle to a screen reader.
    let mut plot = Plot::new(("plot", about.title))
        .height(about.height)
        .link_axis(view.link, Vec2b::new(true, false))
        .link_cursor(view.link, Vec2b::new(true, false))
        .show_x(true)
        .show_y(false)
        .allow_scroll(false)
        .allow_zoom(Vec2b::new(true, false))
        .allow_drag(Vec2b::new(true, false))
        .allow_axis_zoom_drag(false)
        .allow_boxed_zoom(false)
        .set_margin_fraction(vec2(0.0, 0.08))
        .x_grid_spacer(|input| grid(input, 48.0, 1.0))
        .y_grid_spacer(move |input| if is_log { log_grid(input) } else { grid(input, 26.0, 0.0) })
        .include_x(0.0)
        .include_x(view.x_end)
        .custom_x_axes(vec![
            AxisHints::new_x()
                .label_spacing(44.0..=64.0)
                .formatter(|mark, _| step_label(mark))
                .tick_label_font(tick_font()),
        ])
        .custom_y_axes(vec![
            AxisHints::new_y()
                .min_thickness(size::PLOT_AXIS)
                .tick_label_font(tick_font())
                .formatter(move |mark, range| value_label(mark, range, is_log)),
        ])
        .grid_color(p.grid)
        .cursor_color(p.text_weak)
        .show_background(false)
        .label_formatter(|_| None);
    let is_empty = curves.iter().all(|curve| curve.series.is_empty());
    if is_empty {
        plot = plot.include_y(0.0).include_y(1.0).show_axes(false).show_grid(false);
    }
    if view.reset {
        plot = plot.reset();
    }
    let max_buckets = (ui.available_width() as usize).max(64);
    let zoom = Zoom::of(view.link, about.title, is_log);
    let mut drawn = (0.0, view.x_end);
    let shown = plot.show(ui, |plot_ui| {
        zoom.build(plot_ui, view.reset);
        let bounds = plot_ui.plot_bounds();
        let is_new = !bounds.is_valid() || view.reset || plot_ui.auto_bounds().x;
        if !is_new {
            drawn = (bounds.min()[0], bounds.max()[0]);
        }
        for curve in curves {
            draw_curve(plot_ui, p, curve, drawn, max_buckets, is_log);
        }
        if let Some(limit) = about.limit {
            plot_ui.hline(HLine::new("Limit", limit).color(p.limit).width(1.2).style(LineStyle::dashed_dense()));
        }
    });
    if is_empty {
        let font = egui::FontId::proportional(font::SMALL + 0.5);
        let center = shown.transform.frame().center();
        ui.painter().text(center, egui::Align2::CENTER_CENTER, "Nothing measured yet", font, p.text_weak);
    }
    let bounds = *shown.transform.bounds();
    let frame = *shown.transform.frame();
    zoom.show(ui, p, about.title, &shown.transform);
    let range = (bounds.min()[0], bounds.max()[0]);
    if is_moved(drawn, range) {
        // Its curves, and with them y, are those of the range before.
        ui.ctx().request_repaint();
    }
    ui.ctx().accesskit_node_builder(shown.response.id, |node| {
        node.set_label(format!("{} over {}", about.title, view.x_name));
    });
    let hovered = shown.response.hover_pos().map(|pos| shown.transform.value_from_position(pos).x.round());
    PlotAnswer {
        hovered,
        range,
        y_range: (bounds.min()[1], bounds.max()[1]),
        y_zoom: zoom.y(ui.ctx()),
        pixels: (frame.left(), frame.right()),
        rect: shown.response.rect,
    }
}

/// True when other steps are in view now; rounding is not a move.
fn is_moved(before: (f64, f64), now: (f64, f64)) -> bool {
    let least = 1e-6 * (now.1 - now.0).abs();
    (before.0 - now.0).abs() > least || (before.1 - now.1).abs() > least
}

fn draw_curve(
    plot_ui: &mut PlotUi<'_>,
    p: &Palette,
    curve: &Curve<'_>,
    (from, to): (f64, f64),
    max_buckets: usize,
    is_log: bool,
) {
    for Band { low, high, .. } in curve.bands.into_iter().flatten() {
        let (low, high) = (low.spans(from, to, max_buckets), high.spans(from, to, max_buckets));
        for (low, high) in low.iter().zip(&high) {
            draw_band(plot_ui, curve, low, high, is_log);
        }
    }
    let drawn = curve.series.draw(from, to, max_buckets);
    for run in drawn.runs {
        let points: Vec<[f64; 2]> = run.points.into_iter().filter_map(|point| scaled(point, is_log)).collect();
        let points = PlotPoints::new(points);
        match curve.style {
            CurveStyle::Solid => plot_ui.line(Line::new(curve.name, points).color(curve.color).width(1.6)),
            CurveStyle::Faint => {
                plot_ui.line(Line::new(curve.name, points).color(curve.color.gamma_multiply(0.35)).width(1.0));
            }
            CurveStyle::Dashed => {
                let style = LineStyle::Dashed { length: 5.0 };
                plot_ui.line(Line::new(curve.name, points).color(curve.color).width(1.6).style(style));
            }
            CurveStyle::Marks => {
                plot_ui
                    .points(Points::new(curve.name, points).color(curve.color).radius(3.0).shape(MarkerShape::Circle));
            }
            CurveStyle::OpenMarks => {
                let marks = Points::new(curve.name, points).color(curve.color).radius(3.2).filled(false);
                plot_ui.points(marks.shape(MarkerShape::Diamond));
            }
        }
    }
    for x in drawn.nan_marks {
        plot_ui.vline(VLine::new("Not a number", x).color(p.bad).width(1.5).style(LineStyle::dotted_dense()));
    }
}

fn draw_band(plot_ui: &mut PlotUi<'_>, curve: &Curve<'_>, low: &[Span], high: &[Span], is_log: bool) {
    let (mut xs, mut mins, mut maxs) = (Vec::new(), Vec::new(), Vec::new());
    for (low, high) in low.iter().zip(high) {
        let ends = if low.from < low.to { &[low.from, low.to][..] } else { &[low.from][..] };
        for &x in ends {
            // On a log scale a band that reaches below zero ends at the smallest value that can be drawn.
            let bottom = if is_log { low.min.max(high.max * 1e-2) } else { low.min };
            if let (Some([_, bottom]), Some([_, top])) = (scaled([x, bottom], is_log), scaled([x, high.max], is_log)) {
                xs.push(x);
                mins.push(bottom);
                maxs.push(top);
            }
        }
    }
    if xs.len() > 1 {
        plot_ui.add(
            FilledArea::new(curve.name, &xs, &mins, &maxs)
                .fill_color(curve.color.gamma_multiply(0.16))
                .allow_hover(false),
        );
    }
}

/// On a log scale only what is above zero can be drawn.
fn scaled([x, y]: [f64; 2], is_log: bool) -> Option<[f64; 2]> {
    if !is_log {
        Some([x, y])
    } else if y > 0.0 {
        Some([x, y.log10()])
    } else {
        None
    }
}

/// Marks at 1, 2 or 5 times a power of ten, at least `distance` pixels and `least_step` apart.
fn grid(input: GridInput, distance: f64, least_step: f64) -> Vec<GridMark> {
    // egui_plot hands over the value of 8 pixels.
    let least = (input.base_step_size * distance / 8.0).max(least_step);
    let (low, high) = input.bounds;
    if !(least.is_finite() && least > 0.0 && low.is_finite() && high.is_finite()) {
        return Vec::new();
    }
    let power = 10f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= least).unwrap_or(10.0 * power);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last.min(first + 200)).map(|i| GridMark { value: i as f64 * step, step_size: step }).collect()
}

/// Marks for log10 values: 1, 2 and 5 in each decade, decades alone when there are many.
fn log_grid(input: GridInput) -> Vec<GridMark> {
    let (low, high) = input.bounds;
    if !(low.is_finite() && high.is_finite()) || high - low > 40.0 {
        return Vec::new();
    }
    let pixels = (high - low) / input.base_step_size * 8.0;
    let steps: &[f64] = if high - low > 4.0 {
        &[1.0]
    } else if pixels / (high - low) < 120.0 {
        &[1.0, 3.0]
    } else {
        &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0]
    };
    let decades = low.floor() as i32..=high.ceil() as i32;
    decades
        .flat_map(|decade| steps.iter().map(move |step| f64::from(decade) + step.log10()))
        .filter(|value| (low..=high).contains(value))
        .map(|value| GridMark { value, step_size: 0.3 })
        .collect()
}

fn tick_font() -> egui::FontId {
    egui::FontId::proportional(font::SMALL)
}

fn step_label(mark: GridMark) -> String {
    if mark.value < 0.0 { String::new() } else { number::short_count(mark.value) }
}

fn value_label(mark: GridMark, range: &RangeInclusive<f64>, is_log: bool) -> String {
    if is_log {
        return number::value(10f64.powf(mark.value)).trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let size = range.start().abs().max(range.end().abs());
    if size >= 1e12 {
        return if mark.value == 0.0 { "0".to_owned() } else { format!("{:.1e}", mark.value) };
    }
    if size >= 1e4 {
        return number::short_count(mark.value);
    }
    if size < 1e-3 && mark.value != 0.0 {
        return format!("{:.0e}", mark.value);
    }
    let decimals = (-mark.step_size.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{:.decimals$}", mark.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(low: f64, high: f64, pixels: f64) -> GridInput {
        GridInput { bounds: (low, high), base_step_size: (high - low) / pixels * 8.0 }
    }

    #[test]
    fn marks_are_round_and_apart() {
        let values: Vec<f64> = grid(input(0.0, 1200.0, 330.0), 48.0, 1.0).iter().map(|mark| mark.value).collect();
        assert_eq!(values, [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0, 1200.0]);
        assert!(grid(input(0.0, f64::NAN, 100.0), 48.0, 1.0).is_empty());
        assert!(grid(input(1.0, 1.0, 100.0), 48.0, 0.0).is_empty());
    }

    #[test]
    fn labels_stay_short_for_any_size() {
        let label = |value, size| value_label(GridMark { value, step_size: size / 5.0 }, &(0.0..=size), false);
        assert_eq!(label(3.0e37, 4.0e37), "3.0e37");
        assert_eq!(label(0.0, 4.0e37), "0");
        assert_eq!(label(25_000.0, 1e5), "25.0K");
        assert_eq!(label(0.5, 1.0), "0.5");
    }

    #[test]
    fn log_marks_lie_in_view() {
        let marks = log_grid(input(-1.0, 0.5, 260.0));
        assert!(marks.iter().any(|mark| mark.value == 0.0));
        assert!(marks.iter().all(|mark| (-1.0..=0.5).contains(&mark.value)));
    }
}
