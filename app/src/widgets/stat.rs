//! Figures, pills and chips.

use egui::{Color32, Response, RichText, Sense, Stroke, Ui, Vec2, WidgetInfo, vec2};

use crate::theme::{font, palette, radius};

/// A figure with its name above it and a quiet line below it.
pub fn stat_ui(ui: &mut Ui, name: &str, value: &str, color: Color32, below: &str) {
    let p = palette(ui);
    ui.vertical(|ui| {
        ui.spacing_mut().item_spacing.y = 1.0;
        ui.label(RichText::new(name).size(font::SMALL).color(p.text_weak));
        ui.label(RichText::new(value).size(font::METRIC).color(color));
        if !below.is_empty() {
            ui.add(egui::Label::new(RichText::new(below).size(font::SMALL).color(p.text_weak)).wrap());
        }
    });
}

/// A short state in a colored capsule.
pub fn pill_ui(ui: &mut Ui, text: &str, fill: Color32, color: Color32) -> Response {
    let font = egui::FontId::proportional(font::SMALL + 0.5);
    let galley = ui.painter().layout_no_wrap(text.to_owned(), font, color);
    let (rect, response) = ui.allocate_exact_size(galley.size() + vec2(20.0, 8.0), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::Label, true, text));
    ui.painter().rect_filled(rect, rect.height() / 2.0, fill);
    ui.painter().galley(rect.center() - galley.size() / 2.0, galley, color);
    response
}

/// A small toggle with a colored dot.
pub fn chip_ui(ui: &mut Ui, text: &str, color: Option<Color32>, is_on: bool) -> Response {
    let p = palette(ui);
    let galley = ui.painter().layout_no_wrap(
        text.to_owned(),
        egui::FontId::proportional(font::SMALL + 0.5),
        Color32::PLACEHOLDER,
    );
    let dot = if color.is_some() { 12.0 } else { 0.0 };
    let (rect, response) = ui.allocate_exact_size(vec2(galley.size().x + dot + 18.0, 22.0), Sense::click());
    let enabled = ui.is_enabled();
    response.widget_info(|| WidgetInfo::selected(egui::accesskit::Role::CheckBox, enabled, is_on, text));
    if ui.is_rect_visible(rect) {
        let (fill, border, ink) = match (is_on, response.hovered()) {
            (true, false) => (p.accent_soft, p.accent_soft, p.text_strong),
            (true, true) => (p.accent_soft, p.accent, p.text_strong),
            (false, false) => (Color32::TRANSPARENT, p.border_strong, p.text_weak),
            (false, true) => (p.control_hover, p.border_strong, p.text_strong),
        };
        let border = if response.has_focus() { p.accent } else { border };
        let round = f32::from(radius::CONTROL) + 6.0;
        ui.painter().rect(rect, round, fill, Stroke::new(1.0, border), egui::StrokeKind::Inside);
        if let Some(color) = color {
            let center = egui::pos2(rect.left() + 13.0, rect.center().y);
            if is_on {
                ui.painter().circle_filled(center, 4.0, color);
            } else {
                ui.painter().circle_stroke(center, 3.5, Stroke::new(1.0, p.text_weak));
            }
        }
        let left = egui::pos2(rect.left() + 9.0 + dot, rect.center().y - galley.size().y / 2.0);
        ui.painter().galley(left, galley, ink);
    }
    response
}

/// A colored square that ties a name to a curve or a segment.
pub fn swatch_ui(ui: &mut Ui, color: Color32) {
    let (rect, _) = ui.allocate_exact_size(Vec2::splat(10.0), Sense::hover());
    ui.painter().rect_filled(rect, 2.0, color);
}
