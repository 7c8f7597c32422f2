//! The head of a plot card: its title, and the legend that is the read-out, too.
//!
//! Invariant: where things stand depends on names and widths, never on values: a plot that moved when the pointer
//! enters it would leave the pointer.

use egui::{Align, Color32, FontId, Label, Layout, Rect, RichText, Sense, Stroke, Ui, UiBuilder, pos2, vec2};

use super::curve::{BandKind, Curve, CurveStyle};
use super::plot_card::{PlotView, Readout};
use crate::theme::{Palette, font, space};
use crate::widgets::number;

/// Height of the title's line.
const TITLE_LINE: f32 = 24.0;
/// Height of a line of the legend alone.
const LEGEND_LINE: f32 = 18.0;
/// Cards narrower than this put their legend below the title, so that neighbours look alike.
const ONE_LINE: f32 = 480.0;
/// Width of a piece of a curve.
const SAMPLE: f32 = 14.0;
/// As wide as most values.
const VALUE_LIKE: &str = "-0.01234";
/// As wide as most uncertainties.
const DEVIATION_LIKE: &str = " (0.0120 to 0.0120)";

/// Shows the head; `tools` adds buttons at its right.
pub(super) fn header_ui(
    ui: &mut Ui,
    p: &Palette,
    view: PlotView,
    about: Readout<'_>,
    curves: &[Curve<'_>],
    tools: impl FnOnce(&mut Ui),
) {
    let legend = Legend {
        view,
        p,
        is_named: curves.len() > 1,
        curves: curves.iter().filter(|curve| curve.is_read_out).collect(),
    };
    let widths = legend.widths(ui);
    let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), TITLE_LINE), Sense::hover());
    // Children of their own: what is too long is cut, it does not widen the card.
    let mut right = ui.new_child(UiBuilder::new().max_rect(rect).layout(Layout::right_to_left(Align::Center)));
    tools(&mut right);
    let mut rest = rect.with_max_x(right.min_rect().left() - space::XS);
    rest.min.x = title_ui(ui, p, view, about, rest) + space::SM;
    if rect.width() >= ONE_LINE && total(&widths) <= rest.width() {
        legend.line_ui(ui, 0, &widths, rest);
        return;
    }
    let mut first = 0;
    for length in lines(&widths, rect.width()) {
        let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), LEGEND_LINE), Sense::hover());
        legend.line_ui(ui, first, &widths[first..first + length], rect);
        first += length;
    }
}

/// The title, its unit, and where the cursor is; returns the right end of all that may stand there.
fn title_ui(ui: &mut Ui, p: &Palette, view: PlotView, about: Readout<'_>, rect: Rect) -> f32 {
    let hover = if about.unit.is_empty() {
        about.about.to_owned()
    } else {
        format!("{}\n\nUnit: {}.", about.about, about.unit)
    };
    let mut left = ui.new_child(UiBuilder::new().max_rect(rect).layout(Layout::left_to_right(Align::Center)));
    left.set_clip_rect(rect.intersect(left.clip_rect()));
    left.spacing_mut().item_spacing.x = space::XS;
    left.add(Label::new(RichText::new(about.title).strong().color(p.text_strong)).extend()).on_hover_text(hover);
    let small = |text: &str| Label::new(RichText::new(text).size(font::SMALL).color(p.text_weak)).extend();
    if !about.unit.is_empty() {
        left.add(small(about.unit));
    }
    let begin = left.min_rect().right();
    if let Some(cursor) = view.cursor {
        left.add(small(&cursor_text(cursor)));
    }
    begin + space::XS + text_width(ui, &cursor_text(view.x_end))
}

fn cursor_text(x: f64) -> String {
    format!("at {x:.0}:")
}

fn text_width(ui: &Ui, text: &str) -> f32 {
    let font = FontId::proportional(font::SMALL);
    ui.painter().layout_no_wrap(text.to_owned(), font, Color32::PLACEHOLDER).size().x
}

/// Width of entries side by side.
fn total(widths: &[f32]) -> f32 {
    widths.iter().sum::<f32>() + space::SM * widths.len().saturating_sub(1) as f32
}

/// How many entries stand in each line: as many as fit, one at least.
fn lines(widths: &[f32], available: f32) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut first = 0;
    while first < widths.len() {
        let fits = (first + 1..=widths.len()).rev().find(|end| total(&widths[first..*end]) <= available);
        let end = fits.unwrap_or(first + 1);
        lines.push(end - first);
        first = end;
    }
    lines
}

/// The curves of a plot with their values.
struct Legend<'a> {
    view: PlotView,
    p: &'a Palette,
    /// A single curve is named by the title.
    is_named: bool,
    curves: Vec<&'a Curve<'a>>,
}

impl Legend<'_> {
    /// Room for each curve's sample, name and value.
    fn widths(&self, ui: &Ui) -> Vec<f32> {
        let width_of = |curve: &&Curve<'_>| {
            let name = if self.is_named { text_width(ui, curve.name) + space::XS } else { 0.0 };
            let has_band = curve.bands.iter().any(Option::is_some);
            let deviation = if has_band { text_width(ui, DEVIATION_LIKE) } else { 0.0 };
            SAMPLE + space::XS + name + text_width(ui, VALUE_LIKE) + deviation
        };
        self.curves.iter().map(width_of).collect()
    }

    /// Shows the entries from `first` on, one for each width, spread a little where there is room.
    fn line_ui(&self, ui: &mut Ui, first: usize, widths: &[f32], rect: Rect) {
        let spare = (rect.width() - total(widths)).max(0.0) / widths.len().max(1) as f32;
        let mut left = rect.left();
        for (curve, width) in self.curves.iter().skip(first).zip(widths) {
            let right = (left + width + spare.min(space::LG)).min(rect.right());
            self.entry_ui(ui, curve, Rect::from_min_max(pos2(left, rect.top()), pos2(right, rect.bottom())));
            left = right + space::SM;
        }
    }

    /// The sample, name and value of a curve. A name that is too long is cut, the value is not.
    fn entry_ui(&self, ui: &mut Ui, curve: &Curve<'_>, rect: Rect) {
        let value = self.value_of(curve);
        let mut ui = ui.new_child(UiBuilder::new().max_rect(rect).layout(Layout::left_to_right(Align::Center)));
        ui.set_clip_rect(rect.expand2(vec2(space::XS, 0.0)).intersect(ui.clip_rect()));
        ui.spacing_mut().item_spacing.x = space::XS;
        sample_ui(&mut ui, curve);
        if self.is_named {
            let room = (ui.available_width() - space::XS - text_width(&ui, &value)).max(0.0);
            let name = RichText::new(curve.name).size(font::SMALL).color(self.p.text_weak);
            let name = Label::new(name);
            if text_width(&ui, curve.name) <= room {
                ui.add(name.extend());
            } else {
                ui.add_sized(vec2(room, rect.height()), name.truncate());
            }
        }
        ui.add(Label::new(RichText::new(value).size(font::SMALL).color(self.p.text)).extend());
    }

    /// The value at the cursor, or the last one.
    fn value_of(&self, curve: &Curve<'_>) -> String {
        let point = match self.view.cursor {
            Some(cursor) => curve.series.at(cursor, curve.reach.max(0.5)),
            None => curve.series.last(),
        };
        let Some((x, y)) = point else { return "—".to_owned() };
        let value = number::value(f64::from(y));
        let ends = curve.bands.iter().flatten().find_map(|band| {
            let ((_, low), (_, high)) = (band.low.at(x, 0.5)?, band.high.at(x, 0.5)?);
            Some((band.kind, f64::from(low), f64::from(high)))
        });
        match ends {
            Some((BandKind::Calibrated, low, high)) => {
                format!("{value} ({} to {})", number::interval_end(low), number::interval_end(high))
            }
            Some((BandKind::Deviations, _, high)) => {
                format!("{value} ± {} (σ)", number::two_digits((high - f64::from(y)) / 2.0))
            }
            None => value,
        }
    }
}

/// A piece of the curve as it is drawn.
fn sample_ui(ui: &mut Ui, curve: &Curve<'_>) {
    let (rect, _) = ui.allocate_exact_size(vec2(SAMPLE, 10.0), Sense::hover());
    let (painter, y) = (ui.painter(), rect.center().y);
    let line = |from: f32, to: f32, stroke: Stroke| {
        painter.hline(rect.left() + from..=rect.left() + to, y, stroke);
    };
    match curve.style {
        CurveStyle::Solid => line(0.0, SAMPLE, Stroke::new(2.0, curve.color)),
        CurveStyle::Faint => line(0.0, SAMPLE, Stroke::new(2.0, curve.color.gamma_multiply(0.4))),
        CurveStyle::Dashed => {
            line(0.0, 5.0, Stroke::new(2.0, curve.color));
            line(9.0, SAMPLE, Stroke::new(2.0, curve.color));
        }
        CurveStyle::Marks => {
            painter.circle_filled(rect.center(), 3.5, curve.color);
        }
        CurveStyle::OpenMarks => {
            let (c, r) = (rect.center(), 4.0);
            let corners = [c - vec2(r, 0.0), c - vec2(0.0, r), c + vec2(r, 0.0), c + vec2(0.0, r)];
            painter.add(egui::Shape::closed_line(corners.to_vec(), Stroke::new(1.3, curve.color)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_go_on_in_the_next_line_where_they_do_not_fit() {
        let widths = [100.0, 100.0, 100.0, 100.0];
        assert_eq!(lines(&widths, 500.0), [4]);
        assert_eq!(lines(&widths, 424.0), [4], "four and three gaps");
        assert_eq!(lines(&widths, 423.0), [3, 1]);
        assert_eq!(lines(&widths, 250.0), [2, 2]);
        assert_eq!(lines(&[300.0, 50.0], 250.0), [1, 1], "one too long for any line has its own");
        assert_eq!(lines(&[], 250.0), [0usize; 0]);
    }
}
