//! A card per hardware target, with what would keep it from taking the model.

use std::path::Path;

use egui::{RichText, Ui};
use foretrain_engine::export::PackageFormat;
use foretrain_engine::quant::{PostTraining, StrayTables};
use foretrain_engine::session::{Command, ExportJob, ModelReport, Naming, TargetFit};

use super::tables::ABOUT_SPEED;
use crate::state::{ShipAction, ShipLive};
use crate::theme::{font, palette};
use crate::views::{ViewCtx, job_ui};
use crate::widgets::{Severity, card_ui, hint_ui, meter_ui, notice_ui, num_columns, number, pill_ui, section_title_ui};

/// Least width of a card.
const CARD_WIDTH: f32 = 320.0;

/// The name of a package, without the target.
pub(super) fn proposed_name(model: &ModelReport) -> String {
    let words = model.card.name.to_lowercase();
    let parts: Vec<&str> = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    let stem = if parts.is_empty() { "model".to_owned() } else { parts.join("-") };
    format!("{stem}-step{}", model.card.step)
}

/// The name typed, or else the one proposed.
pub(super) fn package_name<'a>(typed: &'a str, proposed: &'a str) -> &'a str {
    let typed = typed.trim();
    if typed.is_empty() { proposed } else { typed }
}

/// Shows the cards.
pub(super) fn targets_ui(ctx: &ViewCtx<'_>, live: &mut ShipLive, model: &ModelReport, fits: &[TargetFit], ui: &mut Ui) {
    ui.horizontal(|ui| {
        section_title_ui(ui, "Export for");
        let open: Vec<String> =
            fits.iter().filter(|fit| fit.blockers.is_empty()).map(|fit| fit.target.id.clone()).collect();
        let is_free = !is_exporting(live) && !open.is_empty();
        let button =
            ui.add_enabled(is_free, egui::Button::new("All targets")).accessible_name("Export for all targets");
        if button.on_hover_text("One package after the other, for every target that can take the model").clicked() {
            live.wanted = Some(ShipAction::Export(open, StrayTables::LeaveOut));
        }
        if !live.queue.is_empty() {
            let button = ui.button("Cancel all").on_hover_text("The export under way, and those that wait for it");
            if button.clicked() {
                live.queue.clear();
                live.export.cancel(ctx);
            }
        }
    });
    let columns = num_columns(ui, CARD_WIDTH, 3);
    for (index, row) in fits.chunks(columns).enumerate() {
        // What stands above the buttons is as high in all cards of a row: as the highest was in the last frame.
        let id = ui.scope_id().with(("targets", columns, index));
        let known: f32 = ui.data(|data| data.get_temp(id)).unwrap_or(0.0);
        let mut highest = 0.0_f32;
        ui.columns(columns, |cells| {
            for (cell, fit) in cells.iter_mut().zip(row) {
                card_ui(cell, "", |ui| {
                    let own = above_ui(model, fit, ui);
                    highest = highest.max(own);
                    ui.add_space((known - own).max(0.0));
                    target_ui(ctx, live, fit, ui);
                });
            }
        });
        if (highest - known).abs() > 0.5 {
            ui.data_mut(|data| data.insert_temp(id, highest));
            ui.ctx().request_repaint();
        }
    }
}

/// What stands above a card's button; returns its height.
fn above_ui(model: &ModelReport, fit: &TargetFit, ui: &mut Ui) -> f32 {
    let shown = ui.scope(|ui| {
        about_ui(model, fit, ui);
        for blocker in &fit.blockers {
            notice_ui(ui, Severity::Warning, &format!("{}. {}", blocker.what, blocker.remedy), |_| {});
        }
    });
    shown.response.rect.height()
}

fn target_ui(ctx: &ViewCtx<'_>, live: &mut ShipLive, fit: &TargetFit, ui: &mut Ui) {
    let is_free = fit.blockers.is_empty() && !is_exporting(live);
    let button = egui::Button::new(RichText::new("Export").strong());
    let button = ui.add_enabled(is_free, button).accessible_name(format!("Export for {}", fit.target.name));
    let why_not = if fit.blockers.is_empty() { "An export is under way" } else { "This target cannot take the model" };
    if button.on_disabled_hover_text(why_not).clicked() {
        live.wanted = Some(ShipAction::Export(vec![fit.target.id.clone()], StrayTables::Refuse));
    }
    if live.target == fit.target.id {
        progress_ui(ctx, &fit.target.name, live, ui);
    } else if live.queue.contains(&fit.target.id) {
        ui.horizontal(|ui| {
            hint_ui(ui, "Waits for the exports before it.");
            let name = format!("Do not export for {}", fit.target.name);
            if ui.button("Leave out").accessible_name(name).clicked() {
                live.queue.retain(|id| *id != fit.target.id);
            }
        });
    }
}

/// True while a package is made or waits to be.
fn is_exporting(live: &ShipLive) -> bool {
    live.export.is_waiting() || !live.queue.is_empty()
}

/// What the target is, what it gets, and how much of it that fills.
fn about_ui(model: &ModelReport, fit: &TargetFit, ui: &mut Ui) {
    let p = palette(ui);
    let target = &fit.target;
    ui.horizontal(|ui| {
        section_title_ui(ui, &target.name);
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            let container = match target.format {
                PackageFormat::Gguf if model.card.is_language_model() => "GGUF",
                PackageFormat::Gguf | PackageFormat::Safetensors => "safetensors",
                PackageFormat::Onnx => "ONNX",
                PackageFormat::Transformers => "transformers",
            };
            pill_ui(ui, &format!("{} · {container}", target.scheme.label()), p.accent_soft, p.text);
        });
    });
    ui.add(egui::Label::new(RichText::new(&target.examples).size(font::SMALL).color(p.text_weak)).truncate());
    ui.add(egui::Label::new(RichText::new(sentence(&target.why)).size(font::SMALL).color(p.text)).wrap());
    let share = fit.predicted_bytes as f64 / target.memory_bytes.max(1) as f64;
    let color = if share > 1.0 { p.bad } else { p.accent };
    meter_ui(ui, &format!("Share of the memory of {}", target.name), share as f32, color, None);
    let (file, memory) = (number::bytes(fit.predicted_bytes), number::bytes(target.memory_bytes));
    let hint = hint_ui(ui, &format!("Predicted size: {file}, of {memory} of memory."));
    if let Some((least, most)) = fit.predicted_range {
        hint.on_hover_text(format!(
            "{} to {}: the types of token embedding and head are chosen by measuring; the prediction is of 8 bits",
            number::bytes(least),
            number::bytes(most)
        ));
    }
    if let Some(speed) = fit.most_tokens_per_second {
        let told = number::tokens_per_second(speed);
        let bound = if speed > number::FASTEST { "memory would give" } else { "at most" };
        hint_ui(ui, &format!("Predicted speed: {bound} {told} tokens/s.")).on_hover_text(ABOUT_SPEED);
    }
    if let Some(fallback) = &fit.fallback {
        hint_ui(ui, &format!("{fallback}."));
    }
}

/// Asks for a package in a folder that does not exist yet.
pub(super) fn export(
    ctx: &ViewCtx<'_>,
    (folder, options): (&Path, PostTraining),
    live: &mut ShipLive,
    model: &ModelReport,
    fit: &TargetFit,
) {
    let proposed = proposed_name(model);
    let output = folder.join(format!("{}-{}", package_name(&live.name, &proposed), fit.target.id));
    let (input, target) = (model.folder.clone(), fit.target.id.clone());
    live.target.clone_from(&target);
    live.is_failure_seen = false;
    live.is_exporting = true;
    let job =
        ExportJob { input, target, scheme: None, format: None, output, data: None, naming: Naming::NextFree, options };
    live.export.ask(ctx, |id| Command::Export(id, job));
}

/// How the export goes, or why it failed; that is brought into view once.
fn progress_ui(ctx: &ViewCtx<'_>, name: &str, live: &mut ShipLive, ui: &mut Ui) {
    let shown = ui.scope(|ui| job_ui(ctx, &format!("Exporting for {name}"), &mut live.export, ui)).response;
    if live.export.failure().is_some() && !live.is_failure_seen {
        live.is_failure_seen = true;
        shown.scroll_to_me(None);
    }
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

    #[test]
    fn a_typed_name_is_taken_without_its_blanks() {
        assert_eq!(package_name("  mine ", "proposed"), "mine");
        assert_eq!(package_name(" ", "proposed"), "proposed");
    }
}
