//! A card per hardware target, with what would keep it from taking the model.

use std::path::Path;

use egui::{CornerRadius, Frame, Margin, RichText, Stroke, Ui};
use foretrain_engine::export::PackageFormat;
use foretrain_engine::session::{Command, ExportJob, ModelReport, TargetFit};

use crate::state::ShipLive;
use crate::theme::{font, palette, radius, space};
use crate::views::ViewCtx;
use crate::widgets::{Severity, hint_ui, meter_ui, notice_ui, number, pill_ui, section_title_ui};

/// Width from which another column of cards fits.
const CARD_WIDTH: f32 = 330.0;

/// The name of a package, without the target.
pub(super) fn proposed_name(model: &ModelReport) -> String {
    let words = model.card.name.to_lowercase();
    let parts: Vec<&str> = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    let stem = if parts.is_empty() { "model".to_owned() } else { parts.join("-") };
    format!("{stem}-step{}", model.card.step)
}

/// Shows the cards.
pub(super) fn targets_ui(ctx: &ViewCtx<'_>, folder: &Path, live: &mut ShipLive, model: &ModelReport, ui: &mut Ui) {
    section_title_ui(ui, "Export for");
    let columns = ((ui.available_width() / CARD_WIDTH) as usize).clamp(1, 3);
    for row in model.targets.chunks(columns) {
        ui.columns(columns, |cells| {
            for (cell, fit) in cells.iter_mut().zip(row) {
                target_ui(ctx, folder, live, model, fit, cell);
            }
        });
    }
}

fn target_ui(ctx: &ViewCtx<'_>, folder: &Path, live: &mut ShipLive, model: &ModelReport, fit: &TargetFit, ui: &mut Ui) {
    let p = palette(ui);
    let target = &fit.target;
    let frame = Frame::new()
        .fill(p.card)
        .stroke(Stroke::new(1.0, p.border))
        .corner_radius(CornerRadius::same(radius::CARD))
        .inner_margin(Margin::same(space::MD as i8));
    frame.show(ui, |ui| {
        ui.set_min_width(ui.available_width());
        ui.horizontal(|ui| {
            section_title_ui(ui, &target.name);
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                let container = match target.format {
                    PackageFormat::Gguf if model.card.is_language_model() => "GGUF",
                    PackageFormat::Gguf | PackageFormat::Safetensors => "safetensors",
                };
                pill_ui(ui, &format!("{} · {container}", target.scheme.label()), p.accent_soft, p.text);
            });
        });
        ui.add(egui::Label::new(RichText::new(&target.examples).size(font::SMALL).color(p.text_weak)).truncate());
        ui.add(egui::Label::new(RichText::new(sentence(&target.why)).size(font::SMALL).color(p.text)).wrap());
        let share = fit.predicted_bytes as f64 / target.memory_bytes.max(1) as f64;
        let color = if share > 1.0 { p.bad } else { p.accent };
        meter_ui(ui, &format!("Share of the memory of {}", target.name), share as f32, color, None);
        hint_ui(
            ui,
            &format!(
                "predicted file {} of {} of memory",
                number::bytes(fit.predicted_bytes),
                number::bytes(target.memory_bytes)
            ),
        );
        for blocker in &fit.blockers {
            notice_ui(ui, Severity::Warning, &format!("{}. {}", blocker.what, blocker.remedy), |_| {});
        }
        let is_free = fit.blockers.is_empty() && !live.export.is_waiting();
        let button = egui::Button::new(RichText::new("Export").strong());
        let button = ui.add_enabled(is_free, button).accessible_name(format!("Export for {}", target.name));
        let why_not =
            if fit.blockers.is_empty() { "An export is under way" } else { "This target cannot take the model" };
        if button.on_disabled_hover_text(why_not).clicked() {
            let name = if live.name.trim().is_empty() { proposed_name(model) } else { live.name.trim().to_owned() };
            let output = folder.join(format!("{name}-{}", target.id));
            live.target.clone_from(&target.name);
            live.export.clear();
            let (input, target) = (model.folder.clone(), target.id.clone());
            live.export.ask(ctx, |job| Command::Export(job, ExportJob { input, target, output, data: None }));
        }
    });
}

/// Preset files speak in phrases; a card speaks in sentences.
fn sentence(phrase: &str) -> String {
    let mut letters = phrase.chars();
    let first = letters.next().map(|first| first.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_become_sentences() {
        assert_eq!(sentence("a CPU waits for memory"), "A CPU waits for memory.");
        assert_eq!(sentence(""), ".");
    }
}
