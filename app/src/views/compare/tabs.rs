//! What is compared: runs with each other, or a recipe with its controls.

use egui::Ui;

use crate::state::CompareTab;
use crate::theme::space;

/// Shows the choice, above what there is to choose from.
pub(in crate::views) fn tabs_ui(tab: &mut CompareTab, ui: &mut Ui) {
    ui.horizontal(|ui| {
        ui.selectable_value(tab, CompareTab::Runs, "Past runs").on_hover_text("Curves of runs laid over each other");
        ui.selectable_value(tab, CompareTab::Experiments, "Experiments")
            .on_hover_text("A recipe against its controls: what prediction saves and what it costs");
    });
    ui.add_space(space::XS);
}
