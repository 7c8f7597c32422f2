//! Quantization-aware training: what the weights are trained for, and when quantization sets in.

use egui::{DragValue, Ui};
use foretrain_engine::quant::{QatConfig, QuantScheme};
use foretrain_engine::session::RunConfig;

use crate::widgets::{field_ui, hint_ui};

/// Shows the choice, and its two numbers where there is something to quantize.
pub(super) fn qat_ui(config: &mut RunConfig, ui: &mut Ui) {
    field_ui(ui, "Train for", |ui| {
        let chosen = config.qat.map(|qat| qat.scheme);
        let mut choice_ui = |ui: &mut Ui, scheme: Option<QuantScheme>, label: &str, hover: &str| {
            if ui.selectable_label(chosen == scheme, label).on_hover_text(hover).clicked() && chosen != scheme {
                config.qat = scheme.map(|scheme| match config.qat {
                    Some(qat) => QatConfig { scheme, ..qat },
                    None if config.start_from.is_some() => QatConfig::fine_tuning(scheme),
                    None => QatConfig::new(scheme),
                });
            }
        };
        // The panel stays as narrow as it is.
        ui.horizontal_wrapped(|ui| {
            choice_ui(ui, None, "Full precision", "Weights as they are; quantize after training");
            choice_ui(ui, Some(QuantScheme::Int8), "Int8", "Forward passes come to compute with 8-bit weights");
            choice_ui(ui, Some(QuantScheme::Int4), "Int4", "Forward passes come to compute with 4-bit weights");
            choice_ui(
                ui,
                Some(QuantScheme::Ternary),
                "Ternary",
                "Forward passes come to compute with weights of three values",
            );
        });
    });
    let Some(qat) = &mut config.qat else { return };
    field_ui(ui, "Switch after", |ui| percent_ui(&mut qat.start_fraction, 0.99, ui));
    let most = 1.0 - qat.start_fraction;
    qat.ramp_fraction = qat.ramp_fraction.min(most);
    field_ui(ui, "Ramp over", |ui| percent_ui(&mut qat.ramp_fraction, most, ui));
    let num_steps = config.num_steps as f64;
    let switch = (qat.start_fraction * num_steps).floor();
    let done = ((qat.start_fraction + qat.ramp_fraction) * num_steps).ceil();
    hint_ui(ui, &hint(switch, done));
}

/// A share of the run, shown in percent.
fn percent_ui(share: &mut f64, most: f64, ui: &mut Ui) {
    let mut percent = *share * 100.0;
    let number = DragValue::new(&mut percent).range(0.0..=most * 100.0).speed(0.5).max_decimals(1);
    if ui.add(number.suffix(" % of the run")).changed() {
        *share = (percent / 100.0).clamp(0.0, most);
    }
}

/// What the two numbers mean in steps.
fn hint(switch: f64, done: f64) -> String {
    let when = if done > switch {
        format!("Quantization sets in after step {switch:.0} and is complete at step {done:.0}")
    } else if switch > 0.0 {
        format!("Full precision to step {switch:.0}, quantized weights from then on")
    } else {
        "Quantized weights from the first step".to_owned()
    };
    format!("{when}. Each validation measures both; the quantized weights ship.")
}
