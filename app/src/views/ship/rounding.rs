//! How weights find their codes: fields for all that can be asked of a quantization beside its precision.

use egui::{DragValue, Response, Ui};
use foretrain_engine::quant::{QuantScheme, Sparsity, StrayTables, TernaryScales};
use foretrain_engine::session::ModelReport;

use crate::state::ShipSaved;
use crate::widgets::{combo_ui, field_ui};

/// Share of zeros that is proposed first.
const FIRST_SHARE: f64 = 0.5;

/// Fields for `model`, whose examples are called `unit` (with a blank before it).
pub(super) fn rounding_ui(saved: &mut ShipSaved, model: &ModelReport, unit: &str, ui: &mut Ui) {
    field_ui(ui, "Rounding", |ui| {
        ui.selectable_value(&mut saved.is_compensated, false, "Nearest")
            .on_hover_text("Each weight by itself: seconds");
        ui.selectable_value(&mut saved.is_compensated, true, "GPTQ").on_hover_text(
            "Column by column, later columns making up for the errors of earlier ones, by what the layers read: slower, \
             and mostly better",
        );
    });
    field_ui(ui, "Channels", |ui| {
        ui.checkbox(&mut saved.is_equalized, "Equalize first")
            .on_hover_text("Scales channels against each other; what the network computes stays the same");
    });
    field_ui(ui, "Per tensor", |ui| {
        ui.checkbox(&mut saved.is_mixed, "Mix precisions")
            .on_hover_text("Tensors whose rounding costs most loss, as measured, get more bits, within the budget");
        let budget = DragValue::new(&mut saved.budget_bits).range(1.0..=32.0).speed(0.05).max_decimals(2);
        ui.add_enabled(saved.is_mixed, budget.prefix("at most ").suffix(" bits per weight"));
    });
    // Always in its place, so that a choice above moves nothing.
    let is_calibrated = saved.post_training(&model.card, StrayTables::Refuse).is_calibrated();
    field_ui(ui, "Calibrated on", |ui| {
        let samples = DragValue::new(&mut saved.calibration_samples).range(1..=100_000).speed(8.0).suffix(unit);
        ui.add_enabled(is_calibrated, samples)
            .on_hover_text("Of the training part. The validation part judges and decides nothing.")
            .on_disabled_hover_text("Nothing is calibrated: that is for GPTQ, equalizing and mixed precisions");
    });
    ternary_ui(saved, model, ui);
    sparsity_ui(saved, model, ui);
}

fn ternary_ui(saved: &mut ShipSaved, model: &ModelReport, ui: &mut Ui) {
    let is_ternary = |scheme| matches!(scheme, QuantScheme::Ternary | QuantScheme::TernaryBase3);
    let why_not = "No precision chosen here, and no target of this model, is ternary";
    let has_ternary = schemes(saved, model).any(is_ternary);
    field_ui(ui, "Ternary scales", |ui| {
        choice_ui(ui, has_ternary, |ui| {
            combo_ui(ui, "ternary-scales", scales_in_full(saved.ternary_scales), |ui| {
                for scales in TernaryScales::ALL {
                    ui.selectable_value(&mut saved.ternary_scales, scales, scales_in_full(scales));
                }
            });
        })
        .on_hover_text(
            "Weights that share a scale. Finer scales cost no space in TQ2_0 and TQ1_0, whose blocks of 256 have one each; \
             tensors whose rows fill no whole blocks keep one",
        )
        .on_disabled_hover_text(why_not);
    });
    field_ui(ui, "Ternary rule", |ui| {
        choice_ui(ui, has_ternary, |ui| {
            ui.selectable_value(&mut saved.is_threshold, false, "Absmean");
            ui.selectable_value(&mut saved.is_threshold, true, "Threshold");
        })
        .on_hover_text(
            "How weights become trits when each is rounded by itself. Absmean: divided by their mean magnitude and rounded. \
             Threshold: zero below 0.7 of the mean magnitude, with the least-squares scale. With GPTQ it counts only for \
             layers that lose less so",
        )
        .on_disabled_hover_text(why_not);
    });
}

fn sparsity_ui(saved: &mut ShipSaved, model: &ModelReport, ui: &mut Ui) {
    let has_integers = schemes(saved, model).any(|scheme| !scheme.is_float());
    field_ui(ui, "Sparsity", |ui| {
        choice_ui(ui, has_integers, |ui| {
            let sparsity = &mut saved.sparsity;
            ui.selectable_value(sparsity, None, "None");
            ui.selectable_value(sparsity, Some(Sparsity::TwoOfFour), "2:4");
            let share = if let Some(Sparsity::Share(share)) = sparsity { *share } else { FIRST_SHARE };
            ui.selectable_value(sparsity, Some(Sparsity::Share(share)), "Share");
            let mut percent = share * 100.0;
            let field = DragValue::new(&mut percent).range(1.0..=99.0).speed(0.5).max_decimals(1).suffix("%");
            let is_share = matches!(sparsity, Some(Sparsity::Share(_)));
            if ui.add_enabled(is_share, field).changed() {
                *sparsity = Some(Sparsity::Share(percent / 100.0));
            }
        })
        .on_hover_text(
            "Sets weights of quantized matrices to zero, those that matter least: two of every four neighbors, or a share of \
             each tensor. The file stays as large: its storages have room for every weight",
        )
        .on_disabled_hover_text("No precision chosen here, and no target of this model, stores integers");
    });
}

/// A choice with a place for its tooltips.
fn choice_ui(ui: &mut Ui, is_enabled: bool, contents: impl FnOnce(&mut Ui)) -> Response {
    ui.add_enabled_ui(is_enabled, |ui| ui.horizontal(contents).response).inner
}

/// Precisions that these fields may come to: those chosen to be measured, and those of the targets.
fn schemes<'a>(saved: &'a ShipSaved, model: &'a ModelReport) -> impl Iterator<Item = QuantScheme> + 'a {
    saved.schemes.iter().copied().chain(model.targets.iter().map(|fit| fit.target.scheme))
}

fn scales_in_full(scales: TernaryScales) -> &'static str {
    match scales {
        TernaryScales::Tensor => "One for each tensor",
        TernaryScales::Row => "One for each row",
        TernaryScales::Block => "One for each 256 weights",
    }
}
