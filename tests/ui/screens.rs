//! Data, Compare, Export and Try it: what a click asks for, and what an answer shows. One file, because these screens
//! share most of what an answer is made of.

use std::sync::Arc;

use egui::accesskit::Role;
use egui::{Key, Modifiers};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use foretrain::app::App;
use foretrain::state::{DataKind, Screen};
use foretrain::theme::ThemeChoice;
use foretrain_engine::data::{DataWarning, DatasetSpec, SplitRecord};
use foretrain_engine::export::{Blocker, ModelCard, PackageFormat, Preprocessing, TargetPreset};
use foretrain_engine::models::{DataShape, ModelPreset};
use foretrain_engine::quant::{PostTraining, QuantScheme, Rounding, StrayTables, Tables};
use foretrain_engine::session::{
    Answer, AnswerOutput, Blame, Command, DataPreview, EdgeFigures, Event, EventKind, ExportReport, Failure,
    ImagePreview, InferInput, JobId, LoadedRun, ModelReport, ModelSource, Naming, PreviewExamples, QuantizeReport,
    RunStatus, RunSummary, StopReason, TargetFit, TokenPreview,
};

use crate::scene;

type Window = Harness<'static, App>;

/// The window on `screen`, all its own questions asked.
pub fn window_on(screen: Screen, theme: ThemeChoice) -> Window {
    let mut harness = scene::window(theme);
    harness.state_mut().saved_mut().screen = screen;
    harness.run_steps(6);
    harness
}

/// What the window asked for, its own look at the runs' folder left out.
pub fn commands(harness: &mut Window) -> Vec<Command> {
    let pending = harness.state_mut().take_pending();
    pending.into_iter().filter(|command| !matches!(command, Command::ListRuns(..))).collect()
}

pub fn tell(harness: &mut Window, job: JobId, kind: EventKind) {
    harness.state_mut().apply_event(&Event { job, kind });
    harness.run_steps(6);
}

pub fn click(harness: &mut Window, label: &str) {
    harness.get_by_label(label).click();
    harness.run_steps(4);
}

fn split() -> SplitRecord {
    SplitRecord { rule: "a tenth of each class".to_owned(), num_train: 18_000, num_validation: 2_000, num_test: 4_000 }
}

fn images() -> DataPreview {
    let images =
        (0..20).map(|index| ImagePreview { pixels: vec![index * 12; 784].into(), label: u32::from(index) % 2 });
    DataPreview {
        name: "shapes".to_owned(),
        split: split(),
        warnings: vec![DataWarning::SmallValidation { count: 12 }],
        examples: PreviewExamples::Images {
            shape: (1, 28, 28),
            classes: vec!["ring".to_owned(), "bar".to_owned()].into(),
            class_counts: vec![12_000, 6_000],
            images: images.collect(),
        },
    }
}

#[test]
fn a_dataset_is_inspected_filtered_and_trained_on() {
    let mut harness = window_on(Screen::Data, ThemeChoice::Dark);
    click(&mut harness, "Inspect");
    let sent = commands(&mut harness);
    let [Command::Inspect(job, DatasetSpec::Glyphs)] = sent.as_slice() else {
        panic!("expected Inspect, found {sent:?}")
    };
    tell(&mut harness, *job, EventKind::Inspected(Arc::new(images())));
    harness.get_by_label("18,000");
    harness.get_by_label("Rule: a tenth of each class");
    harness.get_by_label_contains("Only 12 validation examples");
    assert_eq!(harness.get_all_by_label("Example of ring").count(), 10);
    harness.get_all_by_label("bar").last().unwrap().click();
    harness.run_steps(4);
    assert!(harness.query_by_label("Example of ring").is_none(), "only one class is shown");
    harness.state_mut().saved_mut().data.kind = DataKind::Grammar;
    harness.run_steps(2);
    harness.get_all_by_label("Train on this").last().unwrap().click();
    harness.run_steps(3);
    let saved = harness.state().saved();
    let draft = saved.draft.as_ref().unwrap();
    assert_eq!((saved.screen, draft.data.kind), (Screen::Run, DataKind::Grammar));
    assert!(!draft.model.reads_images(), "text needs a model that reads text");
}

#[test]
fn a_missing_path_is_said_beside_the_form_and_an_inspection_can_be_cancelled() {
    let mut harness = window_on(Screen::Data, ThemeChoice::Light);
    harness.state_mut().saved_mut().data.kind = DataKind::Idx;
    harness.run_steps(2);
    click(&mut harness, "Inspect");
    harness.get_by_label_contains("Choose the folder with the IDX files");
    assert_eq!(commands(&mut harness), []);
    harness.state_mut().saved_mut().data.path = "/data/mnist".to_owned();
    click(&mut harness, "Inspect");
    let sent = commands(&mut harness);
    let [Command::Inspect(job, _)] = sent.as_slice() else { panic!("expected Inspect, found {sent:?}") };
    click(&mut harness, "Cancel: Inspecting");
    assert_eq!(commands(&mut harness), [Command::Cancel(*job)]);
}

#[test]
fn text_is_shown_token_by_token() {
    let mut harness = window_on(Screen::Data, ThemeChoice::Light);
    click(&mut harness, "Inspect");
    let Some(Command::Inspect(job, _)) = commands(&mut harness).pop() else { panic!("no Inspect") };
    let tokens = ["The", " fox", "\n"].map(|text| TokenPreview { id: 1, text: text.to_owned() }).to_vec();
    let preview = DataPreview {
        name: "fable".to_owned(),
        split: split(),
        warnings: Vec::new(),
        examples: PreviewExamples::Text { vocab_size: 64, tokens },
    };
    tell(&mut harness, job, EventKind::Inspected(Arc::new(preview)));
    harness.get_by_label_contains("The fox¶");
}

pub fn summary(name: &str) -> RunSummary {
    RunSummary {
        folder: format!("/runs/{name}").into(),
        name: name.to_owned(),
        dataset: "glyphs".to_owned(),
        model: "CNN, 0.11M parameters".to_owned(),
        tier: "balanced".to_owned(),
        step: 400,
        num_steps: 1200,
        validation_loss: Some(0.2),
        validation_accuracy: Some(0.95),
        last_validation: None,
        ended: Some(StopReason::Finished),
        started_unix_ms: None,
        config: None,
        guard_end: None,
        num_divergences: 0,
        is_running: false,
        is_resumable: false,
        problem: None,
    }
}

pub fn answer_runs_with(harness: &mut Window, runs: Vec<RunSummary>) {
    let mut asked = harness.state_mut().take_pending().into_iter().filter_map(|command| match command {
        Command::ListRuns(job, _) => Some(job),
        _ => None,
    });
    let job = asked.next_back();
    tell(harness, job.expect("the screen asks for the runs"), EventKind::Runs(runs));
}

fn answer_runs(harness: &mut Window) {
    answer_runs_with(harness, vec![summary("second"), summary("first")]);
}

/// The comparison of a run of 300 steps, "first", and one of 200 steps, "second".
fn comparison() -> Window {
    let mut harness = window_on(Screen::Compare, ThemeChoice::Dark);
    answer_runs(&mut harness);
    for (name, steps) in [("first", 300), ("second", 200)] {
        click(&mut harness, &format!("Compare {name}"));
        let sent = commands(&mut harness);
        let [Command::OpenRun(job, folder)] = sent.as_slice() else { panic!("expected OpenRun, found {sent:?}") };
        assert_eq!(folder.file_name().unwrap(), name);
        let run = scene::snapshot(steps, RunStatus::Ended(StopReason::Finished));
        let mut config = scene::config();
        config.name = name.to_owned();
        let loaded = LoadedRun {
            folder: folder.clone(),
            config,
            num_params: run.num_params,
            history: run.history.clone(),
            validations: run.validations.to_vec(),
            log: Vec::new(),
            savings: run.savings,
        };
        tell(&mut harness, *job, EventKind::RunOpened(Arc::new(loaded)));
    }
    harness.run_steps(20);
    harness
}

#[test]
fn chosen_runs_are_read_and_laid_over_each_other() {
    let mut harness = comparison();
    assert!(harness.get_all_by_value("Final figures").count() >= 1);
    assert!(harness.get_all_by_value("300").count() >= 1, "the steps of a run stand in the table");
    harness.get_by_label("Training loss over steps");
    click(&mut harness, "Seconds in steps");
    harness.get_by_label("Training loss over seconds");
}

/// First and last x of the comparison's plots.
fn in_view(harness: &Window) -> (f64, f64) {
    harness.state().live().compare.in_view.expect("plots are shown")
}

/// Zooms into the first plot.
#[track_caller]
fn zoom_in(harness: &mut Window, plot: &str) {
    let (from, to) = in_view(harness);
    harness.get_by_label(plot).hover();
    harness.run_steps(2);
    harness.event(egui::Event::Zoom(4.0));
    harness.run_steps(2);
    let (left, right) = in_view(harness);
    assert!(right - left < (to - from) / 2.0, "zoomed from {from}..{to} to {left}..{right}");
}

#[test]
fn another_axis_or_other_runs_show_everything_again() {
    let mut harness = comparison();
    zoom_in(&mut harness, "Training loss over steps");
    click(&mut harness, "Seconds in steps");
    let (from, to) = in_view(&harness);
    assert!(from.abs() < 1.0 && (5.0..30.0).contains(&to), "expected all seconds, found {from} to {to}");
    zoom_in(&mut harness, "Training loss over seconds");
    harness.get_by_role_and_label(Role::Button, "Steps").click();
    harness.run_steps(4);
    let (from, to) = in_view(&harness);
    assert!(from.abs() < 1.0 && to > 300.0, "expected all steps, found {from} to {to}");
    zoom_in(&mut harness, "Training loss over steps");
    click(&mut harness, "Compare second");
    let (from, to) = in_view(&harness);
    assert!(from.abs() < 1.0 && to > 300.0, "expected all steps of the first, found {from} to {to}");
}

#[test]
fn a_dismissed_error_stays_away() {
    let mut harness = window_on(Screen::Compare, ThemeChoice::Light);
    answer_runs(&mut harness);
    click(&mut harness, "Compare first");
    let sent = commands(&mut harness);
    let [Command::OpenRun(job, _)] = sent.as_slice() else { panic!("expected OpenRun, found {sent:?}") };
    let failure =
        Failure { message: "reading metrics.jsonl: it is cut off".to_owned(), plan: None, blame: Blame::Work };
    tell(&mut harness, *job, EventKind::Rejected(failure));
    harness.get_by_label_contains("it is cut off");
    click(&mut harness, "Dismiss");
    harness.run_steps(8);
    assert!(harness.query_by_label_contains("it is cut off").is_none());
    assert_eq!(commands(&mut harness), [], "it is not asked for again");
    assert!(harness.state().saved().compare.runs.is_empty(), "it can be chosen anew");
}

#[test]
fn an_unreadable_run_says_why_and_cannot_be_chosen() {
    let mut harness = window_on(Screen::Compare, ThemeChoice::Dark);
    let problem = Some("reading config.ron: expected a recipe, found nothing".to_owned());
    let broken = RunSummary { problem, step: 0, num_steps: 0, ended: None, ..summary("broken") };
    answer_runs_with(&mut harness, vec![broken, summary("first")]);
    harness.get_by_label("Compare first");
    assert!(harness.query_by_label("Compare broken").is_none());
    click(&mut harness, "Cannot compare broken: reading config.ron: expected a recipe, found nothing");
    assert_eq!(commands(&mut harness), []);
    assert!(harness.state().saved().compare.runs.is_empty());
}

pub fn report(model: ModelPreset, shape: DataShape) -> ModelReport {
    let target = |id: &str, name: &str| TargetPreset {
        id: id.to_owned(),
        name: name.to_owned(),
        examples: "any PC".to_owned(),
        scheme: QuantScheme::Ternary,
        format: PackageFormat::Gguf,
        memory_bytes: 8 << 30,
        memory_bandwidth: 40_000_000_000,
        images: None,
        tables: Tables::default(),
        why: "a CPU waits for memory".to_owned(),
    };
    let blocker = Blocker { what: "needs 14 GB, the target has 1 GB".to_owned(), remedy: "Choose ternary".to_owned() };
    ModelReport {
        input: "/runs/first".into(),
        folder: "/runs/first/checkpoints/step-00000400".into(),
        source: ModelSource::Checkpoint,
        card: ModelCard {
            name: "First, run".to_owned(),
            model: model.config(shape).unwrap(),
            num_params: 105_866,
            data: DatasetSpec::Glyphs,
            dataset_name: "glyphs".to_owned(),
            preprocessing: Preprocessing::Text,
            split: split(),
            tier: "balanced".to_owned(),
            recipe: None,
            step: 400,
            sequence_length: None,
            num_steps: 1200,
            trained_for: None,
            validation_loss: Some(0.2),
            validation_accuracy: Some(0.95),
            version: "0.1.0".to_owned(),
        },
        guard_end: None,
        targets: vec![
            TargetFit {
                target: target("cpu", "CPU"),
                predicted_bytes: 40_000,
                predicted_range: None,
                most_tokens_per_second: None,
                fallback: None,
                blockers: Vec::new(),
            },
            TargetFit {
                // No model fits, whatever its tables are.
                target: TargetPreset { memory_bytes: 1 << 10, ..target("board", "Edge board") },
                predicted_bytes: 14 << 30,
                predicted_range: None,
                most_tokens_per_second: None,
                fallback: None,
                blockers: vec![blocker],
            },
        ],
    }
}

/// The window on `screen` with a model in it.
pub fn window_with_model(screen: Screen, model: ModelPreset, shape: DataShape) -> Window {
    window_with_report(screen, report(model, shape))
}

/// The window on `screen` with the model that `report` is about, which lies in "/runs/first".
pub fn window_with_report(screen: Screen, report: ModelReport) -> Window {
    let mut harness = scene::window(ThemeChoice::Dark);
    harness.state_mut().saved_mut().screen = screen;
    harness.state_mut().saved_mut().model_path = "/runs/first".to_owned();
    harness.run_steps(8);
    let asked = commands(&mut harness);
    let job = asked.iter().find_map(|command| match command {
        Command::Describe(job, folder) if folder.ends_with("first") => Some(*job),
        _ => None,
    });
    let job = job.unwrap_or_else(|| panic!("expected Describe, found {asked:?}"));
    tell(&mut harness, job, EventKind::Described(Arc::new(report)));
    harness
}

pub const IMAGES: DataShape = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };

pub fn quantized(scheme: QuantScheme) -> QuantizeReport {
    QuantizeReport {
        scheme,
        metric: "accuracy".to_owned(),
        before: 0.95,
        after: 0.9312,
        loss_before: 0.2,
        loss_after: 0.25,
        num_examples: 1000,
        bytes_before: 423_464,
        bytes_after: 40_000,
        bits_per_weight: 3.02,
        tensor_errors: vec![("classifier.weight".to_owned(), 0.41)],
        method: "nearest".to_owned(),
        layers: Vec::new(),
        speeds: Vec::new(),
        tables: None,
        notes: vec!["ternary costs a little".to_owned()],
        output: None,
        report: None,
    }
}

pub fn exported(target: &str, package: &str) -> ExportReport {
    ExportReport {
        target: target.to_owned(),
        package: package.into(),
        files: vec![("model.safetensors".to_owned(), 40_000)],
        quality: quantized(QuantScheme::Ternary),
        edge: Some(EdgeFigures { metric: 0.9307, num_examples: 2000, ms_per_example: 0.4 }),
        run_command: "foretrain infer --package first".to_owned(),
        notes: Vec::new(),
    }
}

#[test]
fn both_precisions_are_measured_and_shown() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::MnistCnn, IMAGES);
    click(&mut harness, "Measure");
    let sent = commands(&mut harness);
    let [Command::Quantize(first, int8), Command::Quantize(second, ternary)] = sent.as_slice() else {
        panic!("expected two Quantize, found {sent:?}")
    };
    assert_eq!((int8.scheme, ternary.scheme), (QuantScheme::Int8, QuantScheme::Ternary));
    assert_eq!((int8.max_examples, &int8.output), (4000, &None));
    assert_eq!(int8.options.calibration_samples, PostTraining::DEFAULT_SAMPLES, "as on the command line");
    tell(&mut harness, *first, EventKind::Quantized(Box::new(quantized(QuantScheme::Int8))));
    let failure = Failure { message: "quantizing: the weights hold NaN".to_owned(), plan: None, blame: Blame::Work };
    tell(&mut harness, *second, EventKind::Rejected(failure));
    harness.get_by_label("93.12%");
    assert!(harness.query_all_by_label("95.00%").count() >= 1);
    harness.get_by_label_contains("the weights hold NaN");
}

#[test]
fn one_click_exports_for_a_target_that_can_take_the_model() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::MnistCnn, IMAGES);
    harness.get_by_label_contains("needs 14 GB");
    click(&mut harness, "Export for Edge board");
    assert_eq!(commands(&mut harness), [], "a blocked target cannot be clicked");
    click(&mut harness, "Export for CPU");
    let sent = commands(&mut harness);
    let [Command::Export(job, export)] = sent.as_slice() else { panic!("expected Export, found {sent:?}") };
    assert_eq!(export.target, "cpu");
    assert_eq!(export.output.to_str(), Some("/packages/first-run-step400-cpu"));
    assert_eq!(export.naming, Naming::NextFree, "a second export takes another folder");
    assert!(export.input.ends_with("step-00000400"));
    let exported = exported("cpu", "/packages/first-run-step400-cpu-2");
    tell(&mut harness, *job, EventKind::Exported(Box::new(exported)));
    harness.get_by_label("93.07%");
    harness.get_by_label("Copy the command");
    harness.get_by_label("foretrain infer --package first");
    click(&mut harness, "Try this package");
    let saved = harness.state().saved();
    assert_eq!((saved.screen, saved.trial.package.as_str()), (Screen::Try, "/packages/first-run-step400-cpu-2"));
}

/// foretrain-edge does not run ONNX: no trial is offered, and no pace claimed.
#[test]
fn an_onnx_package_is_measured_by_its_graph() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::MnistCnn, IMAGES);
    click(&mut harness, "Export for CPU");
    let Some(Command::Export(job, _)) = commands(&mut harness).pop() else { panic!("no Export") };
    let mut quality = quantized(QuantScheme::Int8);
    quality.after = 0.9411;
    let exported = ExportReport { quality, edge: None, ..exported("cpu", "/packages/first-onnx") };
    tell(&mut harness, job, EventKind::Exported(Box::new(exported)));
    harness.get_by_label("94.11%");
    harness.get_by_label_contains("its graph was computed and measured");
    assert!(harness.query_by_label("Try this package").is_none() && harness.query_by_label("Pace here").is_none());
}

/// A window with three targets, of which one cannot take the model.
pub fn window_with_three_targets() -> Window {
    let mut report = report(ModelPreset::MnistCnn, IMAGES);
    let mut other = report.targets[0].clone();
    (other.target.id, other.target.name) = ("phone".to_owned(), "Phone".to_owned());
    report.targets.push(other);
    window_with_report(Screen::Ship, report)
}

pub fn next_export(harness: &mut Window) -> (JobId, String) {
    let sent = commands(harness);
    let [Command::Export(job, export)] = sent.as_slice() else { panic!("expected Export, found {sent:?}") };
    (*job, export.target.clone())
}

#[test]
fn all_targets_that_can_are_exported_one_after_the_other() {
    let mut harness = window_with_three_targets();
    click(&mut harness, "Export for all targets");
    let (job, target) = next_export(&mut harness);
    assert_eq!(target, "cpu");
    harness.get_by_label("Waits for the exports before it.");
    let failure = Failure { message: "writing the package: no space left".to_owned(), plan: None, blame: Blame::Work };
    tell(&mut harness, job, EventKind::Rejected(failure));
    let (job, target) = next_export(&mut harness);
    assert_eq!(target, "phone", "a failure does not keep the others from being made");
    tell(&mut harness, job, EventKind::Exported(Box::new(exported("phone", "/packages/phone"))));
    assert_eq!(commands(&mut harness), [], "a blocked target is left out");
    harness.get_by_label_contains("CPU: writing the package: no space left");
    click(&mut harness, "Export for CPU");
    let (job, _) = next_export(&mut harness);
    tell(&mut harness, job, EventKind::Exported(Box::new(exported("cpu", "/packages/cpu"))));
    harness.run_steps(3);
    harness.get_by_label("Copy the command for phone");
    harness.get_by_label("Copy the command for cpu");
    assert!(harness.query_by_label_contains("CPU: writing the package").is_none(), "a new export forgets it");
}

#[test]
fn what_is_chosen_is_measured_as_it_is_chosen() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::MnistCnn, IMAGES);
    for label in ["ternary", "int4", "GPTQ", "Equalize first", "Measure"] {
        click(&mut harness, label);
    }
    let sent = commands(&mut harness);
    let [Command::Quantize(_, int8), Command::Quantize(_, int4)] = sent.as_slice() else {
        panic!("expected two Quantize, found {sent:?}")
    };
    assert_eq!((int8.scheme, int4.scheme), (QuantScheme::Int8, QuantScheme::Int4));
    assert!(int4.options.is_equalized && int4.options.rounding == Rounding::Compensated);
    click(&mut harness, "Export for CPU");
    let sent = commands(&mut harness);
    let [Command::Export(_, export)] = sent.as_slice() else { panic!("expected Export, found {sent:?}") };
    // One target is told what it cannot do; of several precisions, those that cannot go without.
    let alike = PostTraining { stray_tables: StrayTables::Refuse, ..int4.options };
    assert_eq!(export.options, alike, "exports are rounded the same way");
}

#[test]
fn an_export_is_followed_in_the_card_of_its_target() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::MnistCnn, IMAGES);
    click(&mut harness, "Export for CPU");
    let Some(Command::Export(job, _)) = commands(&mut harness).pop() else { panic!("no Export") };
    let button = harness.get_by_label("Export for CPU").rect();
    let progress = harness.get_by_label("Exporting for CPU").rect();
    assert!(progress.top() >= button.bottom() && (progress.left() - button.left()).abs() < 1.0);
    let failure = Failure { message: "writing the package: no space left".to_owned(), plan: None, blame: Blame::Work };
    tell(&mut harness, job, EventKind::Rejected(failure));
    harness.get_by_label_contains("no space left");
    click(&mut harness, "Dismiss");
    assert!(harness.query_by_label_contains("no space left").is_none());
}

/// The run saves a better checkpoint, of step 500, and the screen hears of it; it must ask for nothing else.
fn save_a_better_one(harness: &mut Window) {
    let folder = "/runs/first/checkpoints/step-00000500";
    tell(harness, JobId(9_999), EventKind::Saved(folder.into()));
    harness.run_steps(4);
    let sent = commands(harness);
    let [Command::Describe(job, _)] = sent.as_slice() else { panic!("expected Describe alone, found {sent:?}") };
    let mut better = report(ModelPreset::MnistCnn, IMAGES);
    better.folder = folder.into();
    better.card.step = 500;
    tell(harness, *job, EventKind::Described(Arc::new(better)));
    assert_eq!(commands(harness), [], "nothing is cancelled or asked unasked");
}

#[test]
fn measurements_survive_a_new_checkpoint_until_it_is_taken() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::MnistCnn, IMAGES);
    click(&mut harness, "Measure");
    let sent = commands(&mut harness);
    let [Command::Quantize(first, _), Command::Quantize(second, _)] = sent.as_slice() else {
        panic!("expected two Quantize, found {sent:?}")
    };
    tell(&mut harness, *first, EventKind::Quantized(Box::new(quantized(QuantScheme::Int8))));
    save_a_better_one(&mut harness);
    harness.get_by_label("93.12%");
    harness.get_by_label_contains("of step 400");
    harness.get_by_label("step 400 of 1,200");
    tell(&mut harness, *second, EventKind::Quantized(Box::new(quantized(QuantScheme::Ternary))));
    assert_eq!(harness.query_all_by_label("93.12%").count(), 2, "what was under way went on");
    click(&mut harness, "Use step 500");
    assert_eq!(harness.query_all_by_label("93.12%").count(), 0);
    harness.get_by_label("step 500 of 1,200");
    assert!(harness.query_by_label("Use step 500").is_none());
    click(&mut harness, "Export for CPU");
    let sent = commands(&mut harness);
    let [Command::Export(_, export)] = sent.as_slice() else { panic!("expected Export, found {sent:?}") };
    assert!(export.input.ends_with("step-00000500"));
}

#[test]
fn a_new_checkpoint_is_taken_at_once_where_nothing_was_asked_of_the_old_one() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::MnistCnn, IMAGES);
    save_a_better_one(&mut harness);
    harness.get_by_label("step 500 of 1,200");
    assert!(harness.query_by_label("Use step 500").is_none());
}

#[test]
fn answers_survive_a_new_checkpoint_and_are_asked_of_it_when_it_is_taken() {
    let mut harness = window_with_model(Screen::Try, ModelPreset::MnistCnn, IMAGES);
    draw(&mut harness);
    let Some(Command::Infer(job, _)) = commands(&mut harness).pop() else { panic!("no Infer") };
    let seven = |_| AnswerOutput::Classes(vec![("7".to_owned(), 0.9), ("1".to_owned(), 0.1)]);
    tell(&mut harness, job, answers(seven));
    save_a_better_one(&mut harness);
    assert_eq!(harness.query_all_by_label("Probability of 7").count(), 3);
    click(&mut harness, "Use step 500");
    let sent = commands(&mut harness);
    let [Command::Infer(_, infer)] = sent.as_slice() else { panic!("expected Infer, found {sent:?}") };
    assert!(infer.input.ends_with("step-00000500"));
    assert_eq!(harness.query_all_by_label("Probability of 7").count(), 0);
}

#[test]
fn the_newest_run_is_proposed_once_and_its_path_can_be_cleared() {
    let mut harness = window_on(Screen::Ship, ThemeChoice::Dark);
    answer_runs(&mut harness);
    assert_eq!(harness.state().saved().model_path, "/runs/second");
    harness.run_steps(2);
    let is_path = |node: &egui_kittest::kittest::AccessKitNode<'_>| {
        node.role() == Role::TextInput && node.value().as_deref() == Some("/runs/second")
    };
    harness.get_by(is_path).focus();
    harness.run_steps(2);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    harness.key_press(Key::Backspace);
    harness.run_steps(6);
    assert_eq!(harness.state().saved().model_path, "");
    harness.event(egui::Event::Text("/runs/elsewhere".to_owned()));
    harness.run_steps(8);
    assert_eq!(harness.state().saved().model_path, "/runs/elsewhere");
    let sent = commands(&mut harness);
    let is_asked = |command: &Command| matches!(command, Command::Describe(_, path) if path.ends_with("elsewhere"));
    assert!(sent.iter().any(is_asked), "expected Describe, found {sent:?}");
}

#[test]
fn data_that_may_be_a_file_or_a_folder_has_a_dialog_for_each() {
    let mut harness = window_on(Screen::Data, ThemeChoice::Dark);
    for (kind, has_both) in [(DataKind::Cifar10, true), (DataKind::Text, true), (DataKind::Idx, false)] {
        harness.state_mut().saved_mut().data.kind = kind;
        harness.run_steps(3);
        assert_eq!(harness.query_by_label("Choose the dataset as a file…").is_some(), has_both, "{kind:?}");
        assert_eq!(harness.query_by_label("Choose the dataset as a folder…").is_some(), has_both, "{kind:?}");
        assert_eq!(harness.query_by_label("Choose the dataset…").is_none(), has_both, "{kind:?}");
    }
}

fn answers(output: impl Fn(QuantScheme) -> AnswerOutput) -> EventKind {
    let schemes = [QuantScheme::F32, QuantScheme::Int8, QuantScheme::Ternary];
    let answer = |scheme| Answer { scheme, output: output(scheme), latency_ms: 0.31, weight_bytes: 423_464 };
    EventKind::Answered(schemes.map(answer).to_vec())
}

/// Draws a short line with the keys.
fn draw(harness: &mut Window) {
    harness.get_by_label("Canvas to draw on").focus();
    harness.run_steps(2);
    harness.key_press_modifiers(Modifiers::SHIFT, Key::ArrowRight);
    harness.run_steps(3);
}

#[test]
fn a_drawing_is_answered_in_three_precisions() {
    let mut harness = window_with_model(Screen::Try, ModelPreset::MnistCnn, IMAGES);
    draw(&mut harness);
    let sent = commands(&mut harness);
    let [Command::Infer(job, infer)] = sent.as_slice() else { panic!("expected Infer, found {sent:?}") };
    let InferInput::Image { pixels } = &infer.prompt else { panic!("expected an image") };
    assert_eq!((pixels.len(), infer.schemes.len()), (784, 3));
    assert!(pixels.contains(&255), "what was drawn is asked about");
    let classes = |scheme| {
        let right = if scheme == QuantScheme::Ternary { "4" } else { "7" };
        AnswerOutput::Classes(vec![(right.to_owned(), 0.9), ("1".to_owned(), 0.1)])
    };
    tell(&mut harness, *job, answers(classes));
    harness.get_by_label("differs from full precision");
    click(&mut harness, "Clear");
    assert!(harness.query_by_label("differs from full precision").is_none());
}

#[test]
fn an_image_file_is_read_and_answered() {
    let mut harness = window_with_model(Screen::Try, ModelPreset::MnistCnn, IMAGES);
    harness.get_by_role_and_label(Role::TextInput, "File").focus();
    harness.run_steps(2);
    harness.get_by_role_and_label(Role::TextInput, "File").type_text("/pictures/seven.png");
    harness.run_steps(2);
    click(&mut harness, "Load image");
    let sent = commands(&mut harness);
    let [Command::ReadImage(job, read)] = sent.as_slice() else { panic!("expected ReadImage, found {sent:?}") };
    assert_eq!((read.path.to_str(), read.shape), (Some("/pictures/seven.png"), (1, 28, 28)));
    tell(&mut harness, *job, EventKind::ImageRead(vec![200; 784].into()));
    let sent = commands(&mut harness);
    let [Command::Infer(_, infer)] = sent.as_slice() else { panic!("expected Infer, found {sent:?}") };
    assert_eq!(infer.prompt, InferInput::Image { pixels: vec![200; 784] });
}

#[test]
fn an_exported_package_is_tried_as_it_is() {
    let mut harness = window_with_model(Screen::Try, ModelPreset::MnistCnn, IMAGES);
    harness.state_mut().saved_mut().trial.package = "/packages/digits".to_owned();
    click(&mut harness, "A package");
    harness.run_steps(30);
    let sent = commands(&mut harness);
    let [Command::Describe(job, folder)] = sent.as_slice() else { panic!("expected Describe, found {sent:?}") };
    assert_eq!(folder.to_str(), Some("/packages/digits"));
    let package = ModelReport {
        input: folder.clone(),
        folder: folder.clone(),
        source: ModelSource::Package(QuantScheme::Ternary),
        targets: Vec::new(),
        ..report(ModelPreset::MnistCnn, IMAGES)
    };
    tell(&mut harness, *job, EventKind::Described(Arc::new(package)));
    harness.get_by_label("ternary");
    harness.get_by_label("The package's answer appears here.");
    draw(&mut harness);
    let sent = commands(&mut harness);
    let [Command::Infer(_, infer)] = sent.as_slice() else { panic!("expected Infer, found {sent:?}") };
    assert_eq!(infer.input.to_str(), Some("/packages/digits"));
}

#[test]
fn a_prompt_is_gone_on_from() {
    let mut harness = window_with_model(Screen::Try, ModelPreset::Gpt2Char, DataShape::Text { vocab_size: 64 });
    click(&mut harness, "Go on");
    let sent = commands(&mut harness);
    let [Command::Infer(job, infer)] = sent.as_slice() else { panic!("expected Infer, found {sent:?}") };
    let InferInput::Prompt { text, max_tokens, .. } = &infer.prompt else { panic!("expected a prompt") };
    assert_eq!((text.as_str(), *max_tokens), ("The ", 80));
    tell(&mut harness, *job, answers(|scheme| AnswerOutput::Text(format!("fox in {}", scheme.label()))));
    harness.get_by_label("fox in f32");
    harness.get_by_label("fox in ternary");
}

#[test]
fn control_and_enter_in_the_prompt_go_on_from_it() {
    let mut harness = window_with_model(Screen::Try, ModelPreset::Gpt2Char, DataShape::Text { vocab_size: 64 });
    harness.get_by_role(Role::MultilineTextInput).focus();
    harness.run_steps(2);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    harness.run_steps(3);
    let sent = commands(&mut harness);
    let [Command::Infer(..)] = sent.as_slice() else { panic!("expected Infer alone, found {sent:?}") };
    assert_eq!(harness.state().saved().trial.prompt, "The ", "the key is no line break");
}

#[test]
fn enter_on_the_canvas_asks_for_an_answer() {
    let mut harness = window_with_model(Screen::Try, ModelPreset::MnistCnn, IMAGES);
    harness.state_mut().saved_mut().trial.is_live = false;
    harness.get_by_label("Canvas to draw on").focus();
    harness.run_steps(2);
    harness.key_press(Key::Enter);
    harness.run_steps(3);
    assert_eq!(commands(&mut harness), [], "there is nothing to answer yet");
    draw(&mut harness);
    assert_eq!(commands(&mut harness), [], "strokes alone do not ask");
    harness.key_press(Key::Enter);
    harness.run_steps(3);
    let sent = commands(&mut harness);
    assert!(matches!(sent.as_slice(), [Command::Infer(..)]), "expected Infer, found {sent:?}");
}

#[test]
fn a_small_window_puts_things_below_each_other() {
    let mut harness = window_with_model(Screen::Try, ModelPreset::MnistCnn, IMAGES);
    harness.set_size(egui::vec2(853.0, 480.0));
    harness.run_steps(6);
    let (canvas, answer) = (harness.get_by_label("Canvas to draw on").rect(), harness.get_by_label("Answer").rect());
    assert!(canvas.right() <= 853.0 && answer.right() <= 853.0, "{canvas} and {answer}");
    assert!(answer.top() >= canvas.bottom(), "{answer} is not below {canvas}");
    harness.state_mut().saved_mut().screen = Screen::Ship;
    harness.run_steps(6);
    let (first, second) =
        (harness.get_by_label("Export for CPU").rect(), harness.get_by_label("Export for Edge board").rect());
    assert!(second.top() > first.bottom(), "cards in one column: {first} and {second}");
}

#[test]
fn empty_screens_say_what_to_do() {
    for (screen, text) in [
        (Screen::Data, "Look before you train"),
        (Screen::Compare, "Nothing chosen"),
        (Screen::Ship, "No model yet"),
        (Screen::Try, "No model yet"),
    ] {
        for theme in [ThemeChoice::Dark, ThemeChoice::Light] {
            window_on(screen, theme).get_by_label(text);
        }
    }
}
