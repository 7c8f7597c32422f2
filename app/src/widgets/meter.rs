//! Bars: one share, or parts of a whole.

use egui::{
    Align, Color32, CornerRadius, Label, Layout, Rect, Response, RichText, Sense, Stroke, Ui, UiBuilder, WidgetInfo,
    pos2, vec2,
};

use crate::theme::{font, palette, size, space};

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
    let mut left = rect.left();
    let mut hovered = None;
    let pointer = response.hover_pos();
    for segment in segments {
        let width = (f64::from(rect.width()) * segment.amount / full) as f32;
        let part = Rect::from_min_max(pos2(left, rect.top()), pos2(left + width, rect.bottom()));
        painter.rect_filled(part, 0.0, segment.color);
        if width > 3.0 {
            painter.vline(part.right(), part.y_range(), Stroke::new(1.0, p.card));
        }
        if pointer.is_some_and(|pointer| part.contains(pointer)) {
            hovered = Some(segment);
        }
        left += width;
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
