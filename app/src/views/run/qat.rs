//! Quantization-aware training: what the weights are trained for, and when quantization sets in.

use egui::{DragValue, Response, Ui};
use foretrain_engine::models::ops::Activations;
use foretrain_engine::quant::{Distillation, QatConfig, QuantScheme};
use foretrain_engine::session::RunConfig;

use crate::widgets::{field_ui, hint_ui};

/// Shows the choice, and its two numbers where there is something to quantize.
pub(super) fn qat_ui(config: &mut RunConfig, ui: &mut Ui) {
    field_ui(ui, "Train for", |ui| {
        let chosen = config.qat.map(|qat| qat.scheme);
        let default = if config.start_from.is_some() { QatConfig::fine_tuning } else { QatConfig::new };
        let mut choice_ui = |ui: &mut Ui, scheme: Option<QuantScheme>, label: &str, hover: &str| {
            if ui.selectable_label(chosen == scheme, label).on_hover_text(hover).clicked() && chosen != scheme {
                config.qat = scheme.map(|scheme| match config.qat {
                    Some(qat) => for_another(qat, scheme, default),
                    None => default(scheme),
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
    field_ui(ui, "Switch after", |ui| percent_ui(&mut qat.start_fraction, 0.99, ui).on_hover_text(ABOUT_SWITCH));
    let most = 1.0 - qat.start_fraction;
    qat.ramp_fraction = qat.ramp_fraction.min(most);
    field_ui(ui, "Ramp over", |ui| percent_ui(&mut qat.ramp_fraction, most, ui).on_hover_text(ABOUT_RAMP));
    field_ui(ui, "Rate after", |ui| rate_ui(&mut qat.learning_rate_factor, ui));
    field_ui(ui, "Inputs", |ui| {
        let reads = [
            (Activations::Int8, "8 bits", "Matrices of integers read inputs rounded as foretrain-edge rounds them"),
            (Activations::Floats, "Floats", "Inputs stay as they are; the runtime still rounds them"),
        ];
        ui.horizontal_wrapped(|ui| {
            for (activations, label, hover) in reads {
                ui.selectable_value(&mut qat.activations, activations, label).on_hover_text(hover);
            }
        });
    });
    field_ui(ui, "Teacher", |ui| teacher_ui(&mut qat.distillation, ui));
    hint_ui(ui, &hint(qat, config.num_steps));
}

const ABOUT_SWITCH: &str =
    "Share of the run in full precision, before quantization sets in; 0 quantizes from the first step";
const ABOUT_RAMP: &str = "Share of the run, after the switch, over which forward passes go from full-precision to quantized \
                          weights little by little; 0 switches at once. Three values learn best along a ramp";

/// `qat` for another scheme, which brings its own numbers where nobody has chosen one.
fn for_another(qat: QatConfig, scheme: QuantScheme, default: fn(QuantScheme) -> QatConfig) -> QatConfig {
    let (former, new) = (default(qat.scheme), default(scheme));
    let kept = |number: fn(&QatConfig) -> f64| {
        let is_chosen = number(&qat).to_bits() != number(&former).to_bits();
        number(if is_chosen { &qat } else { &new })
    };
    QatConfig {
        scheme,
        start_fraction: kept(|qat| qat.start_fraction),
        ramp_fraction: kept(|qat| qat.ramp_fraction),
        learning_rate_factor: kept(|qat| qat.learning_rate_factor),
        ..qat
    }
}

/// What the learning rate is multiplied by once weights are quantized altogether.
fn rate_ui(factor: &mut f64, ui: &mut Ui) {
    let number = DragValue::new(factor).range(0.05..=20.0).speed(0.02).max_decimals(2).prefix("x ");
    ui.add(number).on_hover_text(
        "What the learning rate is multiplied by once weights are quantized altogether: from the switch on, along a ramp as \
         far as that has come. Ternary weights learn best at about twice the rate of full precision, and three times along a \
         ramp",
    );
}

/// The share of the weights of before the switch in what is learned; 0 for none.
fn teacher_ui(distillation: &mut Option<Distillation>, ui: &mut Ui) {
    let mut percent = distillation.map_or(0.0, |found| found.weight * 100.0);
    let number = DragValue::new(&mut percent).range(0.0..=100.0).speed(0.5).max_decimals(1).suffix(" %");
    let hover = "The full-precision weights of just before the switch teach with this share; a forward pass more for each \
                 example that learns";
    if ui.add(number).on_hover_text(hover).changed() {
        let weight = (percent / 100.0).clamp(0.0, 1.0);
        let known = distillation.unwrap_or(Distillation::DEFAULT);
        *distillation = (weight > 0.0).then_some(Distillation { weight, ..known });
    }
}

/// A share of the run, shown in percent.
fn percent_ui(share: &mut f64, most: f64, ui: &mut Ui) -> Response {
    let mut percent = *share * 100.0;
    let number = DragValue::new(&mut percent).range(0.0..=most * 100.0).speed(0.5).max_decimals(1);
    let response = ui.add(number.suffix(" % of the run"));
    if response.changed() {
        *share = (percent / 100.0).clamp(0.0, most);
    }
    response
}

/// What the numbers mean in steps, and for the learning rate.
fn hint(qat: &QatConfig, num_steps: u64) -> String {
    let num_steps = num_steps as f64;
    let switch = (qat.start_fraction * num_steps).floor();
    let done = ((qat.start_fraction + qat.ramp_fraction) * num_steps).ceil();
    // As the field shows it.
    let factor = (qat.learning_rate_factor * 100.0).round() / 100.0;
    let has_rate = (factor - 1.0).abs() > 1e-9;
    let when = if done > switch {
        let rate = if has_rate {
            format!("; the learning rate goes to {factor} times its value along with it")
        } else {
            String::new()
        };
        format!("Quantization sets in after step {switch:.0} and is complete at step {done:.0}{rate}")
    } else {
        let rate = if has_rate { format!(", at {factor} times the learning rate") } else { String::new() };
        if switch > 0.0 {
            format!("Full precision to step {switch:.0}, quantized weights from then on{rate}")
        } else {
            format!("Quantized weights from the first step{rate}")
        }
    };
    format!("{when}. Each validation measures both; the quantized weights ship.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(scheme: QuantScheme, start: f64, ramp: f64, factor: f64, expected: &str) {
        let qat = QatConfig {
            start_fraction: start,
            ramp_fraction: ramp,
            learning_rate_factor: factor,
            ..QatConfig::new(scheme)
        };
        let told = hint(&qat, 1000);
        assert!(told.starts_with(expected), "{told}");
    }

    #[test]
    fn the_hint_tells_steps_and_rate() {
        check(
            QuantScheme::Ternary,
            0.2,
            0.3,
            3.0,
            "Quantization sets in after step 200 and is complete at step 500; the learning rate goes to 3 times its value",
        );
        check(QuantScheme::Int8, 0.3, 0.0, 1.0, "Full precision to step 300, quantized weights from then on. Each");
        check(
            QuantScheme::Int8,
            0.0,
            0.0,
            0.5,
            "Quantized weights from the first step, at 0.5 times the learning rate.",
        );
    }
}
