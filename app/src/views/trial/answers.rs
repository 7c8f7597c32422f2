//! Answers side by side.

use egui::{FontId, RichText, Ui};
use foretrain_engine::quant::QuantScheme;
use foretrain_engine::session::{Answer, AnswerOutput};

use crate::theme::{Palette, font, palette, space};
use crate::widgets::{BarRow, bar_row_ui, card_ui, num_columns, number};

/// Classes shown of each answer.
const MOST_CLASSES: usize = 5;
/// Least width of an answer.
const CARD_WIDTH: f32 = 230.0;
/// Width of the column of classes.
const NAME_WIDTH: f32 = 64.0;

/// Shows one card for each precision, side by side where they fit.
pub(super) fn answers_ui(answers: &[Answer], ui: &mut Ui) {
    let columns = num_columns(ui, CARD_WIDTH, answers.len());
    for row in answers.chunks(columns) {
        ui.columns(columns, |cells| {
            for (cell, answer) in cells.iter_mut().zip(row) {
                card_ui(cell, title(answer.scheme), |ui| answer_ui(answer, answers.first(), ui));
            }
        });
    }
}

fn title(scheme: QuantScheme) -> &'static str {
    match scheme {
        QuantScheme::F32 => "Full precision (f32)",
        QuantScheme::F16 => "f16",
        QuantScheme::Bf16 => "bf16",
        QuantScheme::Int8 => "int8",
        QuantScheme::Int4 => "int4",
        QuantScheme::Int4K => "int4 (Q4_K)",
        QuantScheme::Ternary => "Ternary",
        QuantScheme::TernaryBase3 => "Ternary, base 3",
    }
}

fn answer_ui(answer: &Answer, first: Option<&Answer>, ui: &mut Ui) {
    let p = palette(ui);
    match &answer.output {
        AnswerOutput::Classes(classes) => classes_ui(p, classes, first, ui),
        AnswerOutput::Text(text) => {
            let shown = if text.is_empty() { "(nothing)" } else { text };
            egui::Frame::new().fill(p.inset).corner_radius(6).inner_margin(8).show(ui, |ui| {
                ui.set_min_width(ui.available_width());
                let text = RichText::new(shown).font(FontId::monospace(font::MONO)).color(p.text_strong);
                ui.add(egui::Label::new(text).wrap());
            });
        }
    }
    ui.add_space(space::XS);
    let unit = match &answer.output {
        AnswerOutput::Classes(_) => "an image",
        AnswerOutput::Text(_) => "a token",
    };
    ui.horizontal_wrapped(|ui| {
        let pace = format!("{} {unit}", number::milliseconds(answer.latency_ms));
        ui.label(RichText::new(pace).color(p.text));
        let mut weights = format!("weights {}", number::bytes(answer.weight_bytes));
        if let Some(first) = first.filter(|first| first.scheme != answer.scheme && answer.weight_bytes > 0) {
            weights += &format!(" ({:.1}x smaller)", first.weight_bytes as f64 / answer.weight_bytes as f64);
        }
        ui.label(RichText::new(weights).color(p.text_weak));
    });
}

fn classes_ui(p: &Palette, classes: &[(String, f32)], first: Option<&Answer>, ui: &mut Ui) {
    let mut ranked: Vec<&(String, f32)> = classes.iter().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let reference = match first.map(|first| &first.output) {
        Some(AnswerOutput::Classes(classes)) => classes.iter().max_by(|a, b| a.1.total_cmp(&b.1)),
        Some(AnswerOutput::Text(_)) | None => None,
    };
    if let Some((name, chance)) = ranked.first() {
        let agrees = reference.is_none_or(|(other, _)| other == name);
        ui.horizontal(|ui| {
            ui.label(RichText::new(name).size(44.0).color(if agrees { p.text_strong } else { p.warn }));
            ui.vertical(|ui| {
                ui.add_space(14.0);
                ui.label(RichText::new(number::percent(f64::from(*chance))).color(p.text_weak));
                if !agrees {
                    ui.label(RichText::new("differs from full precision").size(font::SMALL).color(p.warn));
                }
            });
        });
    }
    for (name, chance) in ranked.iter().take(MOST_CLASSES) {
        let row = BarRow {
            name,
            name_width: NAME_WIDTH,
            about: &format!("Probability of {name}"),
            share: *chance,
            color: p.measured,
            value: &number::percent(f64::from(*chance)),
            value_width: BarRow::VALUE_WIDTH,
        };
        bar_row_ui(ui, row);
    }
}
