//! Experiments through the engine's public face: what they measure, what they write, what they refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use foretrain_engine::data::{DatasetSpec, TokenizerSpec};
use foretrain_engine::experiment::{GrowthResult, HYBRID, Report, RungOutcome, RungSize, SAME_STEPS};
use foretrain_engine::memory::PlanKind;
use foretrain_engine::models::BlockOrder;
use foretrain_engine::quant::{QatConfig, QuantScheme};
use foretrain_engine::session::{
    Blame, Command, EventKind, ExperimentJob, ExperimentKind, Failure, JobId, RunConfig, read_report, rewrite_report,
};
use foretrain_tests::{TestEngine, small_config, write_idx};

/// The smallest comparison that is one.
fn small_arena() -> ExperimentKind {
    ExperimentKind::Arena { rate_factors: vec![1.0], batch_divisors: vec![1], num_seeds: 1 }
}

/// A job that writes to `output`, below the test's folder.
fn job(config: RunConfig, kind: ExperimentKind, output: &Path) -> ExperimentJob {
    ExperimentJob {
        kind,
        config,
        output: output.to_owned(),
        title: "A small test".to_owned(),
        command: "foretrain experiment".to_owned(),
        commit: None,
        day: "2026-11-28".to_owned(),
    }
}

/// An engine, and a small recipe on small data.
fn workshop() -> (TestEngine, RunConfig) {
    let test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 1_000, 200);
    let config = small_config(&data, &runs);
    (test, config)
}

fn start(test: &mut TestEngine, job: ExperimentJob) -> JobId {
    test.send(|id| Command::Experiment(id, Box::new(job)))
}

/// Runs an experiment to its end.
fn finish(test: &mut TestEngine, job: ExperimentJob) -> (Arc<Report>, PathBuf) {
    let id = start(test, job);
    test.wait(id, |kind| match kind {
        EventKind::Experimented { report, folder } => Some((report, folder)),
        _ => None,
    })
}

fn refusal(test: &mut TestEngine, job: ExperimentJob) -> Failure {
    let id = start(test, job);
    test.wait(id, |kind| if let EventKind::Rejected(failure) = kind { Some(failure) } else { None })
}

/// Waits until an experiment trains.
fn wait_for_training(test: &TestEngine, id: JobId) {
    test.wait(id, |kind| match kind {
        EventKind::Progress(progress) => (progress.what.starts_with("stage 1") && progress.done > 0).then_some(()),
        _ => None,
    });
}

/// Everything in a folder, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut files: Vec<(String, Vec<u8>)> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect();
    files.sort();
    files
}

/// The folder must hold what its report.json gives, and give the same bytes when it is written again.
#[track_caller]
fn check_folder(folder: &Path, charts: &[&str]) -> Report {
    let written = files(folder);
    let names: Vec<&str> = written.iter().map(|(name, _)| name.as_str()).collect();
    let expected = charts.iter().map(|chart| format!("{chart}.svg"));
    let mut expected: Vec<String> = expected.chain(["README.md".to_owned(), "report.json".to_owned()]).collect();
    expected.sort();
    assert_eq!(names, expected);
    let again = folder.with_file_name("again");
    let report = rewrite_report(folder, &again).unwrap();
    assert!(files(&again) == written, "the report written again differs");
    assert_eq!(read_report(folder).unwrap().markdown(), report.markdown());
    report
}

#[test]
fn an_arena_is_measured_and_written() {
    let (mut test, config) = workshop();
    let output = test.folder.path().join("arena");
    let (report, folder) = finish(&mut test, job(config, small_arena(), &output));
    assert_eq!(folder, output);
    let Report::Arena(arena) = &*report else { panic!("another experiment: {report:?}") };
    let result = &arena.result;
    assert!(result.results.iter().all(|results| results.len() == 1 && results[0].seed == 8));
    assert!(result.results.iter().flatten().all(|trial| trial.test.is_some()), "the test part was not measured");
    let [hybrid, vanilla] = [HYBRID, SAME_STEPS].map(|index| &result.results[index][0]);
    assert_eq!((hybrid.num_steps, vanilla.num_steps), (120, 120));
    assert!(hybrid.example_backwards < vanilla.example_backwards, "the gate never opened");
    let Report::Arena(read) = check_folder(&folder, &["final", "loss"]) else { panic!("another experiment") };
    assert_eq!(read.conditions.title, "A small test");
}

#[test]
fn corrections_are_measured_and_written() {
    let (mut test, config) = workshop();
    let output = test.folder.path().join("corrections");
    let kind = ExperimentKind::Corrections { confidence_thresholds: vec![0.3, 0.1], horizons: vec![10], num_seeds: 1 };
    let mut stages = Vec::new();
    let id = start(&mut test, job(config, kind, &output));
    let report = test.wait(id, |kind| match kind {
        EventKind::Experimented { report, .. } => Some(report),
        EventKind::Progress(progress) => {
            stages.push(progress);
            None
        }
        _ => None,
    });
    // Progress is that of the whole: two trainings.
    let last = stages.last().unwrap();
    assert!(last.what.starts_with("stage 2 of 2: confidence 0.1, H 10"), "{last:?}");
    assert_eq!((last.done, last.total), (2_000, Some(2_000)));
    let Report::Corrections(corrections) = &*report else { panic!("another experiment: {report:?}") };
    let settings = &corrections.result.settings;
    assert_eq!(settings.iter().map(|setting| setting.confidence_threshold).collect::<Vec<_>>(), [0.3, 0.1]);
    for setting in settings {
        assert_eq!((setting.max_predict_steps, setting.results[0].seed), (10, 7));
        let figures = setting.figures();
        let found = figures.corrections.expect("no Correct step took place");
        assert_eq!(found.count, setting.results[0].corrections.len());
        assert!(found.cosine > 0.0 && found.error_before > 0.0 && figures.overhead_by_medians.is_some(), "{figures:?}");
        // A sample forward and backward, at each Correct step, on top of a full one.
        assert!(figures.overhead_by_counting.is_some_and(|overhead| overhead.mean > 0.0), "{figures:?}");
    }
    check_folder(&output, &["errors", "reduction", "reliability"]);
}

#[test]
fn tiers_take_turns_and_vanilla_is_among_them() {
    let (mut test, mut config) = workshop();
    config.num_steps = 20;
    let output = test.folder.path().join("tiers");
    let kind = ExperimentKind::Tiers { strategy: None, num_seeds: 2 };
    let (report, _) = finish(&mut test, job(config, kind, &output));
    let Report::Tiers(tiers) = &*report else { panic!("another experiment: {report:?}") };
    let figures = tiers.result.figures();
    let names: Vec<&str> = figures.iter().map(|tier| tier.name.as_str()).collect();
    assert_eq!(names, ["vanilla", "conservative", "balanced", "aggressive"]);
    assert!(figures.iter().all(|tier| tier.speed_up.is_some_and(|ratio| ratio.count == 2)), "{figures:?}");
    check_folder(&output, &["final", "loss"]);
}

#[test]
fn trainings_side_by_side_are_planned_for() {
    let (mut test, mut config) = workshop();
    let asked = Box::new(config.clone());
    let id = test.send(|id| Command::Plan(id, asked));
    let plan = test.wait(id, |kind| if let EventKind::Planned(planned) = kind { Some(planned.plan) } else { None });
    // Room for one training, not for four.
    config.memory_budget_bytes = plan.total_bytes();
    let output = test.folder.path().join("tiers");
    let kind = ExperimentKind::Tiers { strategy: None, num_seeds: 1 };
    let refused = refusal(&mut test, job(config, kind, &output)).plan.expect("the plan travels with the refusal");
    let weights = |plan: &foretrain_engine::memory::MemoryPlan| {
        plan.items.iter().find(|item| item.kind == PlanKind::Weights).unwrap().bytes
    };
    assert_eq!(weights(&refused), 4 * weights(&plan));
    assert!(!output.exists());
}

/// A ladder of two rungs on text.
fn ladder(test: &TestEngine, mut config: RunConfig) -> (RunConfig, ExperimentKind) {
    let path = test.sub("text").join("text.txt");
    std::fs::write(&path, "the quick brown fox jumps over the lazy dog. ".repeat(200)).unwrap();
    config.data = DatasetSpec::Text { path, tokenizer: TokenizerSpec::Char };
    config.num_steps = 3;
    config.batch_size = 4;
    config.sequence_length = 16;
    let sizes = vec![RungSize::P100K, RungSize::P1M];
    (config, ExperimentKind::Ladder { sizes, minutes_per_rung: 10.0, loss_tolerance: 0.5 })
}

#[test]
fn a_ladder_is_climbed() {
    let (mut test, config) = workshop();
    let (config, kind) = ladder(&test, config);
    let output = test.folder.path().join("ladder");
    let (report, _) = finish(&mut test, job(config, kind, &output));
    let Report::Ladder(ladder) = &*report else { panic!("another experiment: {report:?}") };
    for rung in &ladder.result.rungs {
        let RungOutcome::Trained { vanilla, hybrid } = &rung.outcome else { panic!("{rung:?}") };
        assert_eq!((vanilla.num_steps, hybrid.num_steps), (3, 3));
    }
    check_folder(&output, &["loss", "size"]);
}

#[test]
fn a_rung_without_memory_is_a_result() {
    let (mut test, config) = workshop();
    let (mut config, kind) = ladder(&test, config);
    config.memory_budget_bytes = 1 << 20;
    let output = test.folder.path().join("ladder");
    let (report, _) = finish(&mut test, job(config, kind, &output));
    let Report::Ladder(ladder) = &*report else { panic!("another experiment: {report:?}") };
    let [first, second] = ladder.result.rungs.as_slice() else { panic!("{report:?}") };
    // As many parts as there are sequences, and still not enough.
    assert!(matches!(first.outcome, RungOutcome::NoMemory { .. }) && first.num_micro_batches == 4, "{first:?}");
    assert!(matches!(second.outcome, RungOutcome::NotOpened), "{second:?}");
    check_folder(&output, &[]);
}

#[test]
fn a_ladder_of_images_is_refused() {
    let (mut test, config) = workshop();
    let kind = ExperimentKind::Ladder { sizes: vec![RungSize::P100K], minutes_per_rung: 1.0, loss_tolerance: 0.01 };
    let output = test.folder.path().join("ladder");
    let failure = refusal(&mut test, job(config, kind, &output));
    assert!(failure.blame == Blame::Request && failure.message.contains("text"), "{failure:?}");
}

/// A GPT-2 of two blocks, to be grown from one.
fn growing(test: &TestEngine, config: RunConfig) -> (RunConfig, ExperimentKind) {
    let (mut config, _) = ladder(test, config);
    config.num_steps = 40;
    config.model = RungSize::P100K.config(30).unwrap();
    let kind = ExperimentKind::Growth {
        share: 0.65,
        orders: BlockOrder::ALL.to_vec(),
        rate_factors: vec![1.0, 2.0],
        num_seeds: 2,
    };
    (config, kind)
}

#[test]
fn growth_is_measured_and_written() {
    let (mut test, config) = workshop();
    let (config, kind) = growing(&test, config);
    let output = test.folder.path().join("growth");
    let (report, _) = finish(&mut test, job(config, kind, &output));
    let Report::Growth(growth) = &*report else { panic!("another experiment: {report:?}") };
    let result = &growth.result;
    assert!(!result.plan.recipe.hybrid.strategy.predicts(), "the recipe's own tier predicts; here every step is full");
    for (tuned, results) in result.tuned.iter().zip(&result.results) {
        assert_eq!(tuned.tried.len(), 2);
        let steps = tuned.contender.recipe.num_steps;
        for (trial, seed) in results.iter().zip([8, 9]) {
            assert_eq!((trial.seed, trial.num_steps, trial.has_diverged), (seed, steps, false));
        }
    }
    let grown = &result.results[GrowthResult::GROWN][0];
    assert!(grown.events.iter().any(|(step, why)| *step == 26 && why.contains("from 1 to 2 blocks")), "{grown:?}");
    let flops = &result.flops;
    assert!(flops[GrowthResult::GROWN] < flops[GrowthResult::FULL_SAME_STEPS], "{flops:?}");
    let summary = result.summary();
    assert!(summary.controls().iter().all(|ratio| ratio.is_some_and(|ratio| ratio.count == 2)), "{summary:?}");
    let Report::Growth(_) = check_folder(&output, &["final", "loss"]) else { panic!("another experiment") };
}

#[test]
fn what_cannot_grow_is_refused() {
    let (mut test, config) = workshop();
    let output = test.folder.path().join("growth");
    // A network of images.
    let (_, kind) = growing(&test, config.clone());
    let failure = refusal(&mut test, job(config.clone(), kind.clone(), &output));
    assert!(failure.message.contains("transformer with an even number of blocks"), "{failure:?}");
    // Five blocks.
    let (mut odd, _) = growing(&test, config);
    odd.model = RungSize::P1M.config(30).unwrap();
    let failure = refusal(&mut test, job(odd, kind, &output));
    assert!(failure.message.contains("found 5 blocks"), "{failure:?}");
    assert!(!output.exists());
}

#[test]
fn quantization_is_measured_and_written() {
    let (mut test, mut config) = workshop();
    config.num_steps = 60;
    let output = test.folder.path().join("quantization");
    let kind = ExperimentKind::Quantization {
        trainings: vec![QatConfig::new(QuantScheme::Ternary)],
        calibration_samples: 64,
        num_seeds: 2,
    };
    let (report, _) = finish(&mut test, job(config, kind, &output));
    let Report::Quantization(quantization) = &*report else { panic!("another experiment: {report:?}") };
    let result = &quantization.result;
    assert!(result.trained.iter().flatten().all(|trial| trial.num_steps == 60 && trial.test.is_some()));
    // Before the switch both are one training.
    let first_loss = |contender: usize| result.trained[contender][0].curve[0].loss;
    assert_eq!(first_loss(0), first_loss(1));
    assert_ne!(result.trained[0][0].validation.loss, result.trained[1][0].validation.loss);
    let figures = result.figures();
    let loss = |name: &str| figures.iter().find(|figures| figures.name == name).unwrap().loss.unwrap().mean;
    let full = loss("full precision");
    assert!((loss("int8, after training") - full).abs() < 0.02, "{figures:?}");
    assert!(loss("ternary, after training") > full, "{figures:?}");
    assert!(figures.iter().all(|figures| figures.lost.is_some_and(|lost| lost.count == 2)), "{figures:?}");
    assert!(figures.iter().all(|figures| figures.bits_per_weight <= 32.0));
    check_folder(&output, &["loss", "quality"]);
}

#[test]
fn a_cancelled_experiment_leaves_nothing() {
    let (mut test, mut config) = workshop();
    config.num_steps = 1_000_000;
    let reports = test.sub("reports");
    let id = start(&mut test, job(config, small_arena(), &reports.join("arena")));
    wait_for_training(&test, id);
    test.send(|_| Command::Stop);
    test.wait(id, |kind| matches!(kind, EventKind::Cancelled).then_some(()));
    assert_eq!(std::fs::read_dir(&reports).unwrap().count(), 0);
}

#[test]
fn a_place_that_is_taken_is_refused_before_anything_is_read() {
    let (mut test, mut config) = workshop();
    let taken = test.sub("taken");
    std::fs::write(taken.join("precious.txt"), "mine").unwrap();
    // Whoever looked at the data first would complain of this.
    config.data = DatasetSpec::Idx { path: test.folder.path().join("nowhere") };
    let failure = refusal(&mut test, job(config, small_arena(), &taken));
    assert!(failure.message.contains("expected a name that is free") && failure.blame == Blame::Request, "{failure:?}");
    assert_eq!(files(&taken), [("precious.txt".to_owned(), b"mine".to_vec())]);
}

#[test]
fn runs_and_experiments_exclude_each_other() {
    let (mut test, mut config) = workshop();
    config.num_steps = 1_000_000;
    let run = Box::new(config.clone());
    let output = test.folder.path().join("arena");
    let experiment = start(&mut test, job(config.clone(), small_arena(), &output));
    wait_for_training(&test, experiment);
    let id = test.send(|id| Command::Start(id, run.clone()));
    let failure = test.wait(id, |kind| if let EventKind::Rejected(failure) = kind { Some(failure) } else { None });
    assert!(failure.message.contains("already"), "{failure:?}");
    test.send(|_| Command::Stop);
    test.wait(experiment, |kind| matches!(kind, EventKind::Cancelled).then_some(()));

    let id = test.send(|id| Command::Start(id, run));
    test.wait(id, |kind| matches!(kind, EventKind::Started { .. }).then_some(()));
    let failure = refusal(&mut test, job(config, small_arena(), &output));
    assert!(failure.message.contains("already"), "{failure:?}");
    test.send(|_| Command::Stop);
    test.wait(id, |kind| matches!(kind, EventKind::Ended(_)).then_some(()));
}
