//! Rows of a form: a label, then a control as wide as there is room.

use egui::{Align, Button, Layout, Response, RichText, Sense, Ui, vec2};

use crate::theme::{font, palette, size};

/// A row: `label` in the column of labels, then `control`. Names every control inside by the label.
pub fn field_ui<R>(ui: &mut Ui, label: &str, control: impl FnOnce(&mut Ui) -> R) -> R {
    let p = palette(ui);
    ui.allocate_ui_with_layout(vec2(ui.available_width(), size::CONTROL), Layout::left_to_right(Align::Center), |ui| {
        let (rect, _) = ui.allocate_exact_size(vec2(size::LABEL, size::CONTROL), Sense::hover());
        let text = egui::Label::new(RichText::new(label).color(p.text_weak)).truncate();
        let mut left = ui.new_child(egui::UiBuilder::new().max_rect(rect).layout(Layout::left_to_right(Align::Center)));
        let label = left.add(text);
        ui.label_inputs_by(label.id, control)
    })
    .inner
}

/// A combo box that fills the row, as far as one reads a choice at a glance.
pub fn combo_ui<R>(
    ui: &mut Ui,
    salt: &str,
    selected: impl Into<String>,
    contents: impl FnOnce(&mut Ui) -> R,
) -> Option<R> {
    let width = ui.available_width().min(size::CHOICE);
    egui::ComboBox::from_id_salt(salt)
        .width(width)
        .truncate()
        .selected_text(selected.into())
        .show_ui(ui, contents)
        .inner
}

/// A quiet line under a control.
pub fn hint_ui(ui: &mut Ui, text: &str) -> Response {
    let p = palette(ui);
    ui.add(egui::Label::new(RichText::new(text).size(font::SMALL).color(p.text_weak)).wrap())
}

/// The button that a screen is about: as wide as there is room.
pub fn primary_button_ui(ui: &mut Ui, enabled: bool, text: &str) -> Response {
    let p = palette(ui);
    let label = RichText::new(text).size(15.0).strong().color(p.on_accent);
    ui.scope(|ui| {
        let widgets = &mut ui.visuals_mut().widgets;
        for (state, fill) in
            [(&mut widgets.inactive, p.accent), (&mut widgets.hovered, p.accent_hover), (&mut widgets.active, p.accent)]
        {
            state.weak_bg_fill = fill;
            state.bg_fill = fill;
            state.bg_stroke.color = fill;
        }
        let button = Button::new(label).corner_radius(6);
        let wanted = vec2(ui.available_width(), size::PRIMARY);
        ui.add_enabled_ui(enabled, |ui| ui.add_sized(wanted, button)).inner
    })
    .inner
}

/// A check box whose label explains itself when hovered.
#[derive(Debug, Clone, Copy)]
pub struct CheckLabel<'a> {
    /// What it switches.
    pub text: &'a str,
    /// What that does.
    pub hover: &'a str,
}

impl CheckLabel<'_> {
    /// Shows it.
    pub fn show(self, ui: &mut Ui, value: &mut bool) -> Response {
        ui.checkbox(value, self.text).on_hover_text(self.hover)
    }
}
