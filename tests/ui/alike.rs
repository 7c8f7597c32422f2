//! Runs that are easily taken for another, or for a good one: of the same name, or ended by the divergence guard.

use std::sync::Arc;

use egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable;
use foretrain::state::Screen;
use foretrain::theme::ThemeChoice;
use foretrain_engine::hybrid::{Divergence, DivergenceKind};
use foretrain_engine::models::ModelPreset;
use foretrain_engine::quant::QuantScheme;
use foretrain_engine::session::{
    Command, EventKind, GuardEnd, LoadedRun, LogEntry, LogKind, RunConfig, RunStatus, RunSummary, StopReason,
};

use crate::scene::{self, Window};
use crate::screens::{IMAGES, answer_runs_with, click, commands, report, summary, tell, window_on, window_with_report};

/// 2026-01-01 10:00:00 UTC and an hour later.
const MOMENTS: [u64; 2] = [1_767_261_600_000, 1_767_265_200_000];

/// Two runs called "digits".
fn twins(change: impl Fn(&mut RunConfig)) -> [RunSummary; 2] {
    let mut configs = [scene::config(), scene::config()];
    change(&mut configs[1]);
    let mut number = 0;
    configs.map(|mut config| {
        config.name = "digits".to_owned();
        number += 1;
        RunSummary {
            name: "digits".to_owned(),
            started_unix_ms: Some(MOMENTS[number - 1]),
            config: Some(Arc::new(config)),
            ..summary(&format!("digits-{number}"))
        }
    })
}

#[test]
fn runs_of_one_name_are_told_apart_in_list_legend_and_table() {
    let mut harness = window_on(Screen::Compare, ThemeChoice::Dark);
    let runs = twins(|config| {
        config.seed = 8;
        config.optimizer.learning_rate = 1e-3;
    });
    answer_runs_with(&mut harness, runs.to_vec());
    let names = ["digits · seed 7 · learning rate 4.00e-3", "digits · seed 8 · learning rate 1.00e-3"];
    for (name, run) in names.iter().zip(&runs) {
        click(&mut harness, &format!("Compare {name}"));
        let sent = commands(&mut harness);
        let [Command::OpenRun(job, folder)] = sent.as_slice() else { panic!("expected OpenRun, found {sent:?}") };
        assert_eq!(*folder, run.folder);
        let shown = scene::snapshot(100, RunStatus::Ended(StopReason::Finished));
        let started = LogEntry { step: 0, unix_ms: run.started_unix_ms.unwrap(), kind: LogKind::Started { step: 0 } };
        let loaded = LoadedRun {
            folder: folder.clone(),
            config: (**run.config.as_ref().unwrap()).clone(),
            num_params: shown.num_params,
            history: shown.history.clone(),
            validations: shown.validations.to_vec(),
            log: vec![started],
            savings: shown.savings,
        };
        tell(&mut harness, *job, EventKind::RunOpened(Arc::new(loaded)));
    }
    harness.run_steps(20);
    for name in names {
        // Once in the table, and in the legend of each of the four plots.
        assert_eq!(harness.query_all_by_label(name).count(), 5, "{name}");
    }
    harness.get_by_label("2026-01-01 10:00:00");
    harness.get_by_label("2026-01-01 11:00:00");
}

#[test]
fn twins_of_one_recipe_are_told_apart_by_when_they_began() {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.run();
    click(&mut harness, "Resume a run…");
    let runs = twins(|_| {}).map(|run| RunSummary { is_resumable: true, ended: None, ..run });
    answer_runs_with(&mut harness, runs.to_vec());
    // In the dialog, and behind it in the list of the welcome.
    for moment in ["2026-01-01 10:00:00", "2026-01-01 11:00:00"] {
        assert_eq!(harness.query_all_by_label(&format!("Resume digits · {moment}")).count(), 2);
    }
}

fn guard_end() -> GuardEnd {
    let divergence = Divergence { kind: DivergenceKind::LossSpike, value: 6.5, limit: 4.0 };
    GuardEnd { step: 612, divergence, restored_step: Some(580) }
}

/// A run that diverged and can go on.
fn diverged() -> RunSummary {
    RunSummary {
        ended: Some(StopReason::Diverged),
        guard_end: Some(guard_end()),
        num_divergences: 4,
        is_resumable: true,
        ..summary("wild")
    }
}

#[test]
fn a_run_that_diverged_is_resumed_after_a_question_only() {
    let mut harness = scene::window(ThemeChoice::Light);
    harness.run_steps(4);
    answer_runs_with(&mut harness, vec![diverged()]);
    let warning = "This run diverged at step 612: loss spike (6.500 against a limit of 4.000). It was ended with its \
        last good weights, of step 580.";
    assert!(harness.query_all_by_label_contains(warning).count() >= 1, "beside the choice");
    for answer in ["Not now", "Resume anyway"] {
        click(&mut harness, "Resume wild");
        assert_eq!(scene::commands(&mut harness), [], "it asks first");
        harness.get_by_label("Resume a run that diverged?");
        harness.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
        harness.run_steps(2);
        assert_eq!(scene::commands(&mut harness), [], "no key reaches behind the question");
        click(&mut harness, answer);
        assert!(harness.query_by_label("Resume a run that diverged?").is_none());
    }
    let sent = scene::commands(&mut harness);
    assert!(matches!(sent.as_slice(), [Command::ResumeRun(..)]), "expected ResumeRun, found {sent:?}");
}

fn shipping() -> Window {
    let mut model = report(ModelPreset::MnistCnn, IMAGES);
    model.guard_end = Some(guard_end());
    let mut harness = window_with_report(Screen::Ship, model);
    harness.get_by_label_contains("This is its checkpoint of step 400.");
    assert_eq!(commands(&mut harness).len(), 0);
    harness
}

#[test]
fn a_model_of_a_run_that_diverged_is_exported_after_a_question_only() {
    let mut harness = shipping();
    for answer in ["Not now", "Export anyway"] {
        click(&mut harness, "Export for CPU");
        assert_eq!(commands(&mut harness).len(), 0, "it asks first");
        harness.get_by_label("Export a run that diverged?");
        click(&mut harness, answer);
    }
    let sent = commands(&mut harness);
    let [Command::Export(_, export)] = sent.as_slice() else { panic!("expected Export, found {sent:?}") };
    assert_eq!(export.target, "cpu");
    click(&mut harness, "Measure");
    assert_eq!(commands(&mut harness).len(), 2, "the same model is asked about once");
}

#[test]
fn a_model_of_a_run_that_diverged_is_quantized_after_a_question_only() {
    let mut harness = shipping();
    click(&mut harness, "Measure");
    assert_eq!(commands(&mut harness).len(), 0, "it asks first");
    harness.key_press(Key::Escape);
    harness.run_steps(3);
    assert!(harness.query_by_label("Quantize a run that diverged?").is_none());
    assert_eq!(commands(&mut harness).len(), 0);
    click(&mut harness, "Measure");
    click(&mut harness, "Quantize anyway");
    let sent = commands(&mut harness);
    let [Command::Quantize(_, first), Command::Quantize(_, second)] = sent.as_slice() else {
        panic!("expected two Quantize, found {sent:?}")
    };
    assert_eq!((first.scheme, second.scheme), (QuantScheme::Int8, QuantScheme::Ternary));
}

#[test]
fn a_run_tells_how_often_it_diverged() {
    for (step, count) in [(600, "0"), (900, "1")] {
        let harness = scene::window_with(scene::snapshot(step, RunStatus::Training), ThemeChoice::Dark);
        let row = harness.get_by_label("Divergences").rect();
        let in_row = |rect: egui::Rect| (rect.center().y - row.center().y).abs() < 4.0 && rect.left() > row.right();
        assert_eq!(harness.query_all_by_label(count).filter(|value| in_row(value.rect())).count(), 1, "step {step}");
    }
}
