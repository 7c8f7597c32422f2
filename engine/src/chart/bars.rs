//! Contenders compared by groups: bars from zero, or dots.

use super::axis::{Extent, straightened};
use super::curves::{ERROR, Plot, error_bar};
use super::description::{BarPanel, BarStyle, Contender};
use super::font::{Face, width};
use super::geometry::Frame;
use super::legend::{Entry, Sample};
use super::marks::{self, Filling};
use super::palette::Palette;
use super::scene::{Anchor, Paint, Point, Shape, Stroke};
use super::text::{clean, wrap};
use super::ticks::alike;

/// Share of a group's room that its bars take.
const FILLED: f64 = 0.72;
/// Widest bar, px.
const WIDEST: f64 = 54.0;
/// Size of the values above bars, px.
const VALUE: f64 = 11.0;
/// Size of the groups' names, px.
pub(super) const NAME: f64 = 12.0;
/// Between lines of a group's name, px.
pub(super) const NAME_LINE: f64 = 15.0;

/// Extent of all values and their ends; of zero, too, where bars stand on it.
pub(super) fn y_extent(panel: &BarPanel) -> Extent {
    let mut extent = Extent::EMPTY;
    for bar in panel.contenders.iter().flat_map(|contender| &contender.bars) {
        let (low, high) = bar.ends.unwrap_or((bar.value, bar.value));
        for value in [bar.value, low, high] {
            if let Ok(value) = straightened(panel.y.scale, value) {
                extent.include(value);
            }
        }
    }
    if panel.style == BarStyle::Bars && !extent.is_empty() {
        extent.include(0.0);
    }
    extent
}

/// Entries of the legend: none for a contender that is alone.
pub(super) fn entries(panel: &BarPanel, p: &Palette) -> Vec<Entry> {
    if panel.contenders.len() < 2 {
        return Vec::new();
    }
    let entry = |(label, color): (String, u8)| {
        let sample = match panel.style {
            BarStyle::Bars => Sample::Area(Paint::solid(p.series(color))),
            BarStyle::Dots => Sample::Mark { color, filling: Filling::Full, has_ends: false },
        };
        Entry::new(sample, label)
    };
    let labels = panel.contenders.iter().map(|contender| (clean(&contender.label), contender.color));
    labels.filter(|(label, _)| !label.is_empty()).map(entry).collect()
}

/// The groups' names in lines, for a panel whose plot is `plot_width` px wide.
pub(super) fn names(panel: &BarPanel, plot_width: f64) -> Vec<Vec<String>> {
    let room = plot_width / panel.groups.len().max(1) as f64 - 8.0;
    panel.groups.iter().map(|group| wrap(&clean(group), Face::Regular, NAME, room, 2)).collect()
}

/// Draws bars or dots with their values, and the groups' names below the frame.
pub(super) fn draw(plot: &Plot<'_>, panel: &BarPanel, shapes: &mut Vec<Shape>) {
    let frame = plot.frame;
    if panel.contenders.iter().all(|contender| contender.bars.is_empty()) {
        return plot.no_data(shapes);
    }
    let slot = frame.width() / panel.groups.len().max(1) as f64;
    for (index, lines) in names(panel, frame.width()).iter().enumerate() {
        let x = frame.left + (index as f64 + 0.5) * slot;
        for (row, line) in lines.iter().enumerate() {
            let y = frame.bottom + 17.0 + row as f64 * NAME_LINE;
            shapes.push(Shape::text([x, y], Anchor::Middle, (Face::Regular, NAME), plot.p.text, line));
        }
    }
    let num_contenders = panel.contenders.len().max(1) as f64;
    let pitch = (slot * FILLED / num_contenders).min(WIDEST / 0.88);
    let texts = value_texts(panel);
    // All or none: a missing one would look like a missing value.
    let are_values_shown = texts.iter().flatten().all(|text| width(text, Face::Regular, VALUE) <= pitch);
    for ((number, contender), texts) in panel.contenders.iter().enumerate().zip(&texts) {
        for ((group, bar), text) in contender.bars.iter().enumerate().zip(texts) {
            let offset = (number as f64 - (num_contenders - 1.0) / 2.0) * pitch;
            let x = frame.left + (group as f64 + 0.5) * slot + offset;
            let Ok(y) = plot.y.px(bar.value) else {
                let at = [x, frame.bottom - 5.0];
                shapes.push(Shape::text(at, Anchor::Middle, (Face::Regular, VALUE), plot.p.text_weak, "n/a"));
                continue;
            };
            let top = bar_shape(plot, panel.style, (contender.color, pitch), (x, y), shapes);
            let mut edge = top;
            if let Some(ends) = bar.ends {
                error_bar(plot, &error_strokes(plot.p, panel.style, contender.color), x, ends, shapes);
                edge = label_edge(plot, bar.value, ends).unwrap_or(edge);
            }
            if panel.style == BarStyle::Dots && plot.y.holds(y) {
                shapes.push(marks::mark(plot.p, contender.color, Filling::Full, [x, y]));
            }
            if are_values_shown {
                let is_down = panel.style == BarStyle::Bars && bar.value < 0.0;
                let at = [x, value_baseline(frame, edge, is_down, panel.style)];
                shapes.extend(value_text(plot.p, at, text));
            }
        }
    }
}

/// Error bars on bars have the text's color and a rim, to be seen on any color.
fn error_strokes(p: &Palette, style: BarStyle, color: u8) -> Vec<Stroke> {
    match style {
        BarStyle::Bars => vec![Stroke::solid(p.background, 3.2), Stroke::solid(p.text, ERROR)],
        BarStyle::Dots => vec![Stroke::solid(p.series(color), ERROR)],
    }
}

/// Draws a bar; returns the px of its end.
fn bar_shape(
    plot: &Plot<'_>,
    style: BarStyle,
    (color, pitch): (u8, f64),
    (x, y): (f64, f64),
    shapes: &mut Vec<Shape>,
) -> f64 {
    let frame = plot.frame;
    let end = y.clamp(frame.top, frame.bottom);
    match style {
        BarStyle::Dots => {}
        BarStyle::Bars => {
            let zero = plot.y.px_of_straightened(0.0).clamp(frame.top, frame.bottom);
            let bar = pitch * 0.88;
            let (top, bottom) = (end.min(zero), end.max(zero));
            let fill = Paint::solid(plot.p.series(color));
            shapes.push(Shape::Rect { corner: [x - bar / 2.0, top], size: [bar, bottom - top], fill });
        }
    }
    end
}

/// The end of an error bar beyond which the value stands.
fn label_edge(plot: &Plot<'_>, value: f64, (low, high): (f64, f64)) -> Option<f64> {
    let end = if value < 0.0 { low } else { high };
    plot.y.px(end).ok().map(|y| y.clamp(plot.frame.top, plot.frame.bottom))
}

fn value_baseline(frame: Frame, edge: f64, is_down: bool, style: BarStyle) -> f64 {
    let gap = match style {
        BarStyle::Bars => 4.0,
        BarStyle::Dots => 7.0,
    };
    if is_down { (edge + gap + VALUE * 0.7).min(frame.bottom) } else { (edge - gap).max(frame.top + VALUE * 0.7) }
}

/// A value with a backdrop, which keeps lines of the grid from striking it through.
fn value_text(p: &Palette, [x, y]: Point, text: &str) -> [Shape; 2] {
    let (wide, high) = (width(text, Face::Regular, VALUE) + 4.0, VALUE * 0.8);
    let fill = Paint::pale(p.background, 0.8);
    let backdrop = Shape::Rect { corner: [x - wide / 2.0, y - high], size: [wide, high + 1.0], fill };
    [backdrop, Shape::text([x, y], Anchor::Middle, (Face::Regular, VALUE), p.text, text)]
}

/// All values with the same number of decimals, by contender.
fn value_texts(panel: &BarPanel) -> Vec<Vec<String>> {
    let values = |contender: &Contender| contender.bars.iter().map(|bar| bar.value).collect::<Vec<_>>();
    let mut texts = alike(&panel.contenders.iter().flat_map(values).collect::<Vec<_>>()).into_iter();
    panel.contenders.iter().map(|contender| texts.by_ref().take(contender.bars.len()).collect()).collect()
}
