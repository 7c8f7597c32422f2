//! The quantize and export screen: a queue of exports, options by scheme, predictions that follow what is chosen.

use egui::accesskit::{Role, Toggled};
use egui_kittest::kittest::{NodeT, Queryable};
use foretrain::state::Screen;
use foretrain_engine::export::TargetPreset;
use foretrain_engine::models::{DataShape, ModelPreset};
use foretrain_engine::quant::{QuantScheme, Sparsity, TableType, Tables, TernaryRule, TernaryScales};
use foretrain_engine::session::{Command, EventKind, QuantizeReport, TargetSpeed, fit_target};

use crate::scene::Window;
use crate::screens::{
    IMAGES, click, commands, exported, next_export, quantized, report, tell, window_with_model, window_with_report,
    window_with_three_targets,
};

const TEXT: DataShape = DataShape::Text { vocab_size: 64 };

#[test]
fn cancelling_one_export_goes_on_with_the_others_and_says_so() {
    let mut harness = window_with_three_targets();
    click(&mut harness, "Export for all targets");
    let (cancelled, _) = next_export(&mut harness);
    click(&mut harness, "Cancel: Exporting for CPU");
    let sent = commands(&mut harness);
    let [Command::Cancel(job), Command::Export(next, export)] = sent.as_slice() else { panic!("found {sent:?}") };
    assert_eq!((*job, export.target.as_str()), (cancelled, "phone"));
    harness.get_by_label("Cancelled, and not exported: CPU");
    tell(&mut harness, *next, EventKind::Exported(Box::new(exported("phone", "/packages/phone"))));
    harness.get_by_label("Cancelled, and not exported: CPU");
    click(&mut harness, "Export for CPU");
    next_export(&mut harness);
    assert!(harness.query_by_label_contains("Cancelled, and").is_none(), "a new export forgets it");
}

#[test]
fn all_exports_are_cancelled_at_once_and_one_that_waits_is_left_out() {
    for button in ["Cancel all", "Do not export for Phone"] {
        let mut harness = window_with_three_targets();
        click(&mut harness, "Export for all targets");
        let (job, _) = next_export(&mut harness);
        click(&mut harness, button);
        harness.run_steps(3);
        let is_all = button == "Cancel all";
        assert_eq!(commands(&mut harness), if is_all { vec![Command::Cancel(job)] } else { Vec::new() }, "{button}");
        assert!(harness.query_by_label("Waits for the exports before it.").is_none(), "{button}");
        tell(&mut harness, job, EventKind::Exported(Box::new(exported("cpu", "/packages/cpu"))));
        assert_eq!(commands(&mut harness), [], "{button}");
    }
}

fn is_disabled(harness: &Window, role: Role, label: &str) -> bool {
    harness.get_by_role_and_label(role, label).accesskit_node().is_disabled()
}

#[test]
fn ternary_options_and_sparsity_are_sent_and_wait_for_a_scheme_that_has_them() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::MnistCnn, IMAGES);
    for label in ["Threshold", "2:4", "Measure"] {
        click(&mut harness, label);
    }
    harness.state_mut().saved_mut().ship.ternary_scales = TernaryScales::Row;
    harness.run_steps(2);
    let scales = harness.get_by_role_and_label(Role::ComboBox, "Ternary scales");
    assert_eq!(scales.accesskit_node().value().as_deref(), Some("One for each row"));
    click(&mut harness, "Export for CPU");
    let sent = commands(&mut harness);
    let options: Vec<_> = sent
        .iter()
        .map(|command| match command {
            Command::Quantize(_, job) => job.options,
            Command::Export(_, job) => job.options,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(options.len(), 3);
    for asked in &options {
        assert_eq!((asked.ternary_rule, asked.sparsity), (TernaryRule::Threshold, Some(Sparsity::TwoOfFour)));
    }
    assert_eq!(options[2].ternary_scales, TernaryScales::Row);
    // Neither of the targets nor of the precisions is ternary, then not even of integers.
    let mut of_floats = report(ModelPreset::MnistCnn, IMAGES);
    of_floats.targets.iter_mut().for_each(|fit| fit.target.scheme = QuantScheme::Bf16);
    for (scheme, has_integers) in [(QuantScheme::Int8, true), (QuantScheme::F16, false)] {
        let mut harness = window_with_report(Screen::Ship, of_floats.clone());
        harness.state_mut().saved_mut().ship.schemes = [scheme].into();
        harness.run_steps(3);
        assert!(
            is_disabled(&harness, Role::ComboBox, "Ternary scales") && is_disabled(&harness, Role::Button, "Threshold")
        );
        assert_eq!(is_disabled(&harness, Role::Button, "2:4"), !has_integers);
    }
}

#[test]
fn choosing_gptq_moves_nothing() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::MnistCnn, IMAGES);
    let place = |harness: &Window| harness.get_by_label("Measure").rect();
    let before = place(&harness);
    click(&mut harness, "GPTQ");
    harness.run_steps(3);
    assert_eq!(place(&harness), before);
    assert_ne!(harness.get_by_label("GPTQ").accesskit_node().toggled(), Some(Toggled::False));
}

#[test]
fn a_precision_has_its_predicted_speeds() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::Gpt2Char, TEXT);
    click(&mut harness, "int8");
    click(&mut harness, "Measure");
    let sent = commands(&mut harness);
    let [Command::Quantize(job, _)] = sent.as_slice() else { panic!("expected one Quantize, found {sent:?}") };
    let speed = |target: &str, most_tokens_per_second| TargetSpeed {
        target: target.to_owned(),
        name: target.to_owned(),
        most_tokens_per_second,
    };
    let speeds = vec![speed("board", 123.0), speed("gpu", 4560.0)];
    tell(
        &mut harness,
        *job,
        EventKind::Quantized(Box::new(QuantizeReport { speeds, ..quantized(QuantScheme::Ternary) })),
    );
    harness.get_by_label("Predicted tokens/s");
    harness.get_by_label("123 to 4,560");
}

/// A language model's report, with predicted speeds that say nothing.
fn of_text(scheme: QuantScheme) -> QuantizeReport {
    let speed = |target: &str, most_tokens_per_second| TargetSpeed {
        target: target.to_owned(),
        name: target.to_owned(),
        most_tokens_per_second,
    };
    QuantizeReport {
        metric: "loss".to_owned(),
        before: 2.6703,
        after: 2.6801,
        loss_before: 2.6703,
        loss_after: 2.6801,
        num_examples: 64_000,
        speeds: vec![speed("board", 54_433.0), speed("gpu", 4_286_589.0)],
        ..quantized(scheme)
    }
}

#[test]
fn a_language_model_s_loss_stands_once_and_the_table_fits_a_small_window() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::Gpt2Char, TEXT);
    harness.set_size(egui::vec2(1000.0, 640.0));
    click(&mut harness, "int8");
    click(&mut harness, "Measure");
    let sent = commands(&mut harness);
    let [Command::Quantize(job, _)] = sent.as_slice() else { panic!("expected one Quantize, found {sent:?}") };
    tell(&mut harness, *job, EventKind::Quantized(Box::new(of_text(QuantScheme::TernaryBase3))));
    assert_eq!(harness.query_all_by_label("2.6801").count(), 1);
    assert!(harness.query_by_label("Validation loss").is_none());
    for label in ["Measured on", "Predicted tokens/s", "54,433 or more"] {
        // One of the names is that of a field of the form, too.
        let rights = harness.get_all_by_label(label).map(|node| node.rect().right());
        let right = rights.fold(0.0, f32::max);
        assert!(right <= 980.0, "{label} ends at {right}");
    }
    assert!(harness.query_all_by_label("64,000 tokens").count() >= 1);
}

#[test]
fn rows_measured_with_other_settings_say_so() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::MnistCnn, IMAGES);
    click(&mut harness, "int8");
    click(&mut harness, "Measure");
    let sent = commands(&mut harness);
    let [Command::Quantize(job, _)] = sent.as_slice() else { panic!("expected one Quantize, found {sent:?}") };
    tell(&mut harness, *job, EventKind::Quantized(Box::new(quantized(QuantScheme::Ternary))));
    assert!(harness.query_by_label_contains("other settings").is_none());
    // What does nothing without a calibration makes no difference.
    harness.state_mut().saved_mut().ship.calibration_samples = 7;
    harness.run_steps(3);
    assert!(harness.query_by_label_contains("other settings").is_none());
    click(&mut harness, "GPTQ");
    harness.get_by_label("nearest: other settings");
    click(&mut harness, "Measure");
    click(&mut harness, "Cancel: Measuring ternary");
    harness.get_by_label("nearest: other settings");
    harness.get_by_label("Cancelled, and not measured: ternary");
    click(&mut harness, "Measure");
    let Some(Command::Quantize(job, _)) = commands(&mut harness).pop() else { panic!("no Quantize") };
    assert!(harness.query_by_label_contains("Cancelled, and not").is_none(), "a new question forgets it");
    let gptq = QuantizeReport { method: "gptq, calibrated on 7 images".to_owned(), ..quantized(QuantScheme::Ternary) };
    tell(&mut harness, job, EventKind::Quantized(Box::new(gptq)));
    assert!(harness.query_by_label_contains("other settings").is_none());
}

#[test]
fn of_several_measurements_one_is_shown_in_full_and_all_are_cancelled_at_once() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::MnistCnn, IMAGES);
    for label in ["bf16", "int4", "Measure"] {
        click(&mut harness, label);
    }
    let jobs: Vec<_> = commands(&mut harness)
        .iter()
        .map(|command| match command {
            Command::Quantize(job, _) => *job,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(jobs.len(), 4);
    assert_eq!(harness.query_all_by_label("waiting for the engine").count(), 1);
    assert_eq!(harness.query_all_by_label("waits for the one before it").count(), 3);
    click(&mut harness, "Cancel: Measuring int4");
    assert_eq!(harness.query_all_by_label("waits for the one before it").count(), 2);
    click(&mut harness, "Cancel all measurements");
    harness.get_by_label("Cancelled, and not measured: bf16, int8, int4, ternary");
    let cancelled = commands(&mut harness);
    assert_eq!(cancelled.len(), 4, "{cancelled:?}");
    assert!(harness.query_by_label("waiting for the engine").is_none());
}

#[test]
fn a_card_says_which_tensors_cannot_be_stored_as_its_target_has_them() {
    let described = report(ModelPreset::Gpt2Char, TEXT);
    let target = TargetPreset::find("cpu-x86-64").unwrap();
    let fit = fit_target(&described.card, target, Tables::default()).unwrap();
    let fallback = fit.fallback.clone().expect("rows of this model fill no blocks of 256");
    assert!(fallback.contains("Q8_0, not ternary") && fallback.contains("edge-board"), "{fallback}");
    let board = TargetPreset::find("edge-board").unwrap();
    assert_eq!(fit_target(&described.card, board, Tables::default()).unwrap().fallback, None);
    let mut described = described;
    described.targets = vec![fit];
    window_with_report(Screen::Ship, described).get_by_label(&format!("{fallback}."));
}

#[test]
fn buttons_of_a_row_of_cards_are_aligned() {
    let mut harness = window_with_three_targets();
    harness.run_steps(6);
    // One of them has a blocker to tell.
    let top = |name: &str| harness.get_by_label(name).rect().top();
    assert_eq!(top("Export for CPU"), top("Export for Edge board"));
}

#[test]
fn a_copy_is_acknowledged() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::MnistCnn, IMAGES);
    click(&mut harness, "Export for CPU");
    let (job, _) = next_export(&mut harness);
    tell(&mut harness, job, EventKind::Exported(Box::new(exported("cpu", "/packages/cpu"))));
    assert!(harness.query_by_label("Copied").is_none());
    click(&mut harness, "Copy the command");
    harness.get_by_label("Copied");
}

#[test]
fn predicted_sizes_follow_the_types_of_embedding_and_head() {
    let mut described = report(ModelPreset::Gpt2Char, TEXT);
    let target = TargetPreset::find("cpu-x86-64").unwrap();
    described.targets = vec![fit_target(&described.card, target.clone(), Tables::default()).unwrap()];
    let card = described.card.clone();
    let mut harness = window_with_report(Screen::Ship, described);
    let mut seen = Vec::new();
    for table in [TableType::Int8, TableType::F16] {
        harness.state_mut().saved_mut().ship.tables = Tables { embedding: Some(table), head: None };
        harness.run_steps(3);
        let asked = Tables { embedding: Some(table), head: None };
        let bytes = fit_target(&card, target.clone(), asked).unwrap().predicted_bytes;
        let text = format!("Predicted size: {},", foretrain::widgets::number::bytes(bytes));
        harness.get_by_label_contains(&text);
        seen.push(bytes);
    }
    assert!(seen[0] < seen[1], "{seen:?}");
}
