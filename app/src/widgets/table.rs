//! Cells of tables.

use egui::{Align, Label, Layout, Response, Ui, WidgetText};

/// A number in a grid, at the right of its column. The grid's last column has no right side to go by: it is to be of text,
/// or the grid one column wider than its rows.
pub fn number_cell_ui(ui: &mut Ui, text: impl Into<WidgetText>) -> Response {
    ui.with_layout(Layout::right_to_left(Align::Center), |ui| ui.add(Label::new(text).extend())).inner
}
