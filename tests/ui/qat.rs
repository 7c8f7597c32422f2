//! Quantization-aware training: the figures of the weights that ship lead, wherever a run is summed up.

use std::sync::Arc;

use egui::accesskit::Role;
use egui_kittest::kittest::Queryable;
use foretrain::state::Screen;
use foretrain::theme::ThemeChoice;
use foretrain_engine::quant::{QatConfig, QuantScheme};
use foretrain_engine::session::{
    Command, EventKind, LoadedRun, QuantizedFigures, RunSnapshot, RunStatus, RunSummary, StopReason, ValidationFigures,
    ValidationPoint,
};

use crate::scene::{self, Window};
use crate::screens::{answer_runs_with, click, commands, summary, tell, window_on};

fn point(step: u64, strength: f64) -> ValidationPoint {
    let figures = |loss, accuracy, num_examples| ValidationFigures { loss, accuracy: Some(accuracy), num_examples };
    ValidationPoint {
        step,
        loss: 1.995,
        accuracy: Some(0.878),
        num_examples: 1000,
        seconds: 0.4,
        whole: Some(figures(1.984, 0.8811, 5000)),
        quantized: Some(QuantizedFigures {
            scheme: QuantScheme::Ternary,
            strength,
            curve: figures(0.0457, 0.98, 1000),
            whole: Some(figures(0.0501, 0.9777, 5000)),
        }),
    }
}

fn trained(strength: f64) -> RunSnapshot {
    let run = scene::snapshot(900, RunStatus::Ended(StopReason::Finished));
    RunSnapshot { validations: vec![point(800, 0.5), point(900, strength)].into(), ..run }
}

#[track_caller]
fn has(harness: &Window, labels: &[&str]) {
    for label in labels {
        assert!(harness.query_all_by_label(label).count() >= 1, "{label} is not there");
    }
}

#[test]
fn the_side_card_leads_with_the_weights_that_ship() {
    let harness = scene::window_with(trained(1.0), ThemeChoice::Dark);
    has(&harness, &["Validation loss, ternary", "0.04570", "nats, at step 900; lowest 0.04570"]);
    has(&harness, &["Accuracy, ternary", "98.00%", "On all 5,000, ternary", "0.05010, 97.77%"]);
    has(&harness, &["In full precision", "1.995, 87.80%", "Validation, f32"]);
}

#[test]
fn before_quantization_is_complete_full_precision_leads() {
    let harness = scene::window_with(trained(0.75), ThemeChoice::Dark);
    has(&harness, &["Validation loss, full precision", "1.995", "Accuracy, full precision", "87.80%"]);
    has(&harness, &["As ternary by now", "0.04570, 98.00%"]);
}

#[test]
fn a_run_without_quantization_names_no_weights() {
    let harness = scene::training(900);
    has(&harness, &["Validation loss", "Accuracy"]);
    assert!(harness.query_by_label("In full precision").is_none());
}

#[test]
fn the_comparison_says_which_weights_its_figures_are_of() {
    let mut harness = window_on(Screen::Compare, ThemeChoice::Dark);
    let ternary = RunSummary {
        validation_loss: Some(0.0501),
        validation_accuracy: Some(0.9777),
        last_validation: Some(point(200, 1.0)),
        ..summary("ternary")
    };
    answer_runs_with(&mut harness, vec![ternary, summary("plain")]);
    for name in ["plain", "ternary"] {
        click(&mut harness, &format!("Compare {name}"));
        let sent = commands(&mut harness);
        let [Command::OpenRun(job, folder)] = sent.as_slice() else { panic!("expected OpenRun, found {sent:?}") };
        let run = scene::snapshot(200, RunStatus::Ended(StopReason::Finished));
        let mut config = scene::config();
        config.name = name.to_owned();
        let validations = if name == "ternary" { vec![point(200, 1.0)] } else { run.validations.to_vec() };
        let loaded = LoadedRun {
            folder: folder.clone(),
            config,
            num_params: run.num_params,
            history: run.history.clone(),
            validations,
            log: Vec::new(),
            savings: run.savings,
        };
        tell(&mut harness, *job, EventKind::RunOpened(Arc::new(loaded)));
        if name == "plain" {
            assert!(harness.query_by_label("Weights").is_none(), "nothing to tell apart");
        }
    }
    harness.run_steps(10);
    has(&harness, &["Weights", "f32"]);
    assert!(harness.query_all_by_label("0.05010").count() >= 1);
    assert!(harness.query_all_by_label("ternary, ternary").count() >= 1, "the legend names the weights");
}

#[test]
fn each_number_of_the_form_says_what_it_is() {
    let mut harness = scene::window(ThemeChoice::Dark);
    let draft = harness.state_mut().saved_mut().draft.as_mut().unwrap();
    draft.config.qat = Some(QatConfig::new(QuantScheme::Ternary));
    harness.run_steps(4);
    harness.get_by_label_contains("the learning rate goes to 3 times its value along with it");
    // "Switch after" and "Ramp over" have one unit, by which screen readers tell them from others.
    for (unit, index, told) in [
        ("% of the run", 0, "before quantization sets in"),
        ("% of the run", 1, "little by little"),
        ("x", 0, "along a ramp as far as that has come"),
    ] {
        let field = |harness: &Window| {
            let fields = harness.get_all_by_role_and_label(Role::SpinButton, unit);
            fields.collect::<Vec<_>>()[index].rect()
        };
        harness.get_all_by_role_and_label(Role::SpinButton, unit).nth(index).unwrap().scroll_to_me();
        harness.run_steps(4);
        harness.hover_at(field(&harness).center());
        harness.run_steps(60);
        harness.get_by_label_contains(told);
    }
}
