//! Bars: one share, or parts of a whole.

use egui::{
    Align, Color32, CornerRadius, FontId, Label, Layout, Painter, Pos2, Rect, Response, RichText, Sense, Stroke, Ui,
    UiBuilder, WidgetInfo, pos2, vec2,
};

use crate::theme::{Palette, font, palette, size, space, text_on};

/// A bar filled to `share` of 1, with an optional mark at another share.
pub fn meter_ui(ui: &mut Ui, name: &str, share: f32, color: Color32, mark: Option<f32>) -> Response {
    meter_of_parts_ui(ui, name, &[(share, color)], mark)
}

/// A bar filled by parts from left to right, each a share of 1 with its color.
pub fn meter_of_parts_ui(ui: &mut Ui, name: &str, parts: &[(f32, Color32)], mark: Option<f32>) -> Response {
    let p = palette(ui);
    let share: f32 = parts.iter().map(|(share, _)| share).sum();
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), size::METER), Sense::hover());
    response.widget_info(|| {
        let mut info = WidgetInfo::labeled(egui::accesskit::Role::Meter, true, name);
        info.value = Some(f64::from(share));
        info
    });
    if ui.is_rect_visible(rect) {
        let radius = CornerRadius::same((size::METER / 2.0) as u8);
        ui.painter().rect_filled(rect, radius, p.control);
        let mut left = rect.left();
        for &(share, color) in parts {
            let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
            let right = (left + rect.width() * share).min(rect.right());
            let part = rect.with_min_x(left).with_max_x(right);
            if part.width() > 0.0 {
                // All of the bar, of which only the part shows: a part's own round ends would say more than there is.
                let shape = rect.with_max_x(right.max(rect.left() + size::METER));
                ui.painter().with_clip_rect(part.intersect(ui.clip_rect())).rect_filled(shape, radius, color);
            }
            left = right;
        }
        if let Some(mark) = mark.filter(|mark| (0.0..=1.0).contains(mark)) {
            let x = rect.left() + rect.width() * mark;
            ui.painter().vline(x, rect.expand(2.0).y_range(), Stroke::new(1.5, p.text_strong));
        }
    }
    response
}

/// A line of a bar chart: what it is, how much of the longest, and the figure itself.
#[derive(Debug, Clone, Copy)]
pub struct BarRow<'a> {
    /// What it is.
    pub name: &'a str,
    /// Width of the column of names, points.
    pub name_width: f32,
    /// The bar's accessible name.
    pub about: &'a str,
    /// Length of the bar, 0 to 1.
    pub share: f32,
    /// Color of the bar.
    pub color: Color32,
    /// The figure.
    pub value: &'a str,
    /// Width of the column of figures, points.
    pub value_width: f32,
}

impl BarRow<'_> {
    /// Width for counts and percents.
    pub const VALUE_WIDTH: f32 = 52.0;
}

/// Shows it: the name at the left, the figure at the right, the bar between them.
pub fn bar_row_ui(ui: &mut Ui, row: BarRow<'_>) {
    let p = palette(ui);
    ui.horizontal(|ui| {
        // No more than half of a narrow card for the names.
        let name_width = row.name_width.min(ui.available_width() / 2.0);
        cell_ui(ui, name_width, Layout::left_to_right(Align::Center), RichText::new(row.name).color(p.text));
        let width = ui.available_width() - row.value_width - ui.spacing().item_spacing.x;
        ui.scope(|ui| {
            ui.set_max_width(width.max(space::LG));
            meter_ui(ui, row.about, row.share, row.color, None);
        });
        let layout = Layout::right_to_left(Align::Center);
        cell_ui(ui, row.value_width, layout, RichText::new(row.value).color(p.text_weak));
    });
}

/// Text in a cell of a fixed width, cut where it is longer.
fn cell_ui(ui: &mut Ui, width: f32, layout: Layout, text: RichText) {
    let (rect, _) = ui.allocate_exact_size(vec2(width, 18.0), Sense::hover());
    let mut cell = ui.new_child(UiBuilder::new().max_rect(rect).layout(layout));
    cell.add(Label::new(text.size(font::SMALL + 0.5)).truncate());
}

/// A part of a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// What it is.
    pub name: String,
    /// How much.
    pub amount: f64,
    /// Its color.
    pub color: Color32,
}

/// Parts side by side, as wide as all together; `limit` is marked when they exceed it.
pub fn stacked_bar_ui(ui: &mut Ui, name: &str, segments: &[Segment], limit: f64) -> Response {
    let p = palette(ui);
    let total: f64 = segments.iter().map(|segment| segment.amount).sum();
    let full = total.max(f64::MIN_POSITIVE);
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 14.0), Sense::hover());
    response.widget_info(|| {
        let mut info = WidgetInfo::labeled(egui::accesskit::Role::Meter, true, name);
        info.value = Some(total / limit.max(f64::MIN_POSITIVE));
        info
    });
    if !ui.is_rect_visible(rect) {
        return response;
    }
    let painter = ui.painter().with_clip_rect(rect);
    painter.rect_filled(rect, 2.0, p.control);
    let mut hovered = None;
    for (segment, part) in laid_out(segments, rect) {
        paint_segment(&painter, p, segment, part);
        hovered = hovered.or(under(response.hover_pos(), segment, part));
    }
    if total > limit {
        let x = rect.left() + (f64::from(rect.width()) * limit / full) as f32;
        ui.painter().vline(x, rect.expand(3.0).y_range(), Stroke::new(2.0, p.bad));
    }
    match hovered {
        Some(segment) => response.on_hover_text_at_pointer(segment.name.clone()),
        None => response,
    }
}

/// Segments with their places side by side in `rect`, which they fill.
fn laid_out(segments: &[Segment], rect: Rect) -> impl Iterator<Item = (&Segment, Rect)> {
    let total = segments.iter().map(|segment| segment.amount).sum::<f64>().max(f64::MIN_POSITIVE);
    let mut left = rect.left();
    segments.iter().map(move |segment| {
        let right = left + (f64::from(rect.width()) * segment.amount / total) as f32;
        let part = Rect::from_min_max(pos2(left, rect.top()), pos2(right, rect.bottom()));
        left = right;
        (segment, part)
    })
}

fn paint_segment(painter: &Painter, p: &Palette, segment: &Segment, part: Rect) {
    painter.rect_filled(part, 0.0, segment.color);
    if part.width() > 3.0 {
        painter.vline(part.right(), part.y_range(), Stroke::new(1.0, p.card));
    }
}

fn under(pointer: Option<Pos2>, segment: &Segment, part: Rect) -> Option<&Segment> {
    pointer.filter(|pointer| part.contains(*pointer)).map(|_| segment)
}

/// A part of a whole that has parts of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Flame {
    /// Itself; its name shows under the pointer.
    pub segment: Segment,
    /// Written on it where it fits.
    pub label: String,
    /// Its parts, each with what is written on it; empty where they are not known.
    pub parts: Vec<(Segment, String)>,
}

/// Height of each of the two rows.
const FLAME_ROW: f32 = 18.0;

/// Parts side by side, and below each its own parts, as wide as all of them together.
pub fn flames_ui(ui: &mut Ui, name: &str, flames: &[Flame]) -> Response {
    let p = palette(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 2.0 * FLAME_ROW), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::Meter, true, name));
    if !ui.is_rect_visible(rect) {
        return response;
    }
    let painter = ui.painter().with_clip_rect(rect);
    painter.rect_filled(rect, 2.0, p.control);
    let mut hovered = None;
    let mut show = |segment: &Segment, label: &str, part: Rect| {
        paint_segment(&painter, p, segment, part);
        write_on(&painter, label, segment.color, part);
        if under(response.hover_pos(), segment, part).is_some() {
            hovered = Some(segment.name.clone());
        }
    };
    let wholes: Vec<Segment> = flames.iter().map(|flame| flame.segment.clone()).collect();
    let (upper, lower) = rect.split_top_bottom_at_fraction(0.5);
    for ((segment, part), flame) in laid_out(&wholes, upper).zip(flames) {
        show(segment, &flame.label, part);
        let (parts, labels): (Vec<Segment>, Vec<&String>) =
            flame.parts.iter().map(|(segment, label)| (segment.clone(), label)).unzip();
        let below = Rect::from_x_y_ranges(part.x_range(), lower.y_range());
        for ((segment, part), label) in laid_out(&parts, below).zip(labels) {
            show(segment, label, part);
        }
    }
    painter.hline(rect.x_range(), upper.bottom(), Stroke::new(1.0, p.card));
    match hovered {
        Some(name) => response.on_hover_text_at_pointer(name),
        None => response,
    }
}

/// Writes `label` in the middle of a part of this color, where it fits.
fn write_on(painter: &Painter, label: &str, color: Color32, part: Rect) {
    let galley = painter.layout_no_wrap(label.to_owned(), FontId::proportional(font::SMALL), text_on(color));
    if !label.is_empty() && galley.size().x + 2.0 * space::XS <= part.width() {
        painter.galley(part.center() - galley.size() / 2.0, galley, text_on(color));
    }
}
