//! Messages beside what caused them.

use egui::{CornerRadius, Frame, Margin, RichText, Sense, Ui, vec2};

use super::Icon;
use crate::theme::{palette, radius, size, space};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Good news.
    Good,
    /// To know.
    Info,
    /// To look at.
    Warning,
    /// Something was not done.
    Error,
}

/// A message, with room for a way out below it.
pub fn notice_ui<R>(ui: &mut Ui, severity: Severity, message: &str, way_out: impl FnOnce(&mut Ui) -> R) -> R {
    let p = palette(ui);
    let (fill, color, icon) = match severity {
        Severity::Good => (p.good_soft, p.good, Icon::Check),
        Severity::Info => (p.accent_soft, p.text, Icon::Info),
        Severity::Warning => (p.warn_soft, p.warn, Icon::Warning),
        Severity::Error => (p.bad_soft, p.bad, Icon::Warning),
    };
    Frame::new()
        .fill(fill)
        .corner_radius(CornerRadius::same(radius::CONTROL))
        .inner_margin(Margin::symmetric(10, 8))
        .show(ui, |ui| {
            ui.set_min_width(ui.available_width());
            ui.horizontal_top(|ui| {
                let (rect, _) = ui.allocate_exact_size(vec2(size::ICON, size::ICON + 2.0), Sense::hover());
                icon.paint(ui.painter(), rect, color);
                ui.vertical(|ui| {
                    ui.spacing_mut().item_spacing.y = space::XS;
                    ui.add(egui::Label::new(RichText::new(message).color(p.text)).wrap());
                    way_out(ui)
                })
                .inner
            })
            .inner
        })
        .inner
}
