//! The engine through its public face: runs, pauses, stops, refusals, history on disk.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use foretrain_engine::data::{DatasetSpec, TokenizerSpec};
use foretrain_engine::hybrid::{Phase, Strategy};
use foretrain_engine::models::{Gpt2Config, ModelConfig, ModelPreset};
use foretrain_engine::optim::OptimizerKind;
use foretrain_engine::session::chart::{Chart, CurvePanel, Panel, Series, Theme};
use foretrain_engine::session::{
    ChartFormat, ChartJob, Command, EventKind, JobId, LogKind, Naming, OffloadBatches, OffloadEnding, OffloadGoal,
    OffloadJob, Operation, Rehearsal, RunPart, RunStatus, RunTimes, StepMetrics, StopReason, list_runs, open_run,
    recipe, tier,
};
use foretrain_tests::{DEADLINE, TestEngine, small_config, write_idx};

#[test]
fn a_run_learns_saves_and_reports() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 2_000, 200);
    let folder = test.train(small_config(&data, &runs));

    let run = test.engine.snapshot().unwrap();
    assert_eq!(run.status, RunStatus::Ended(StopReason::Finished));
    assert_eq!((run.step, run.history.len()), (120, 120));
    let last = run.validations.last().unwrap();
    assert!(last.accuracy.unwrap() > 0.9, "validation accuracy {:?}", last.accuracy);
    assert!(run.history.iter().any(|row| row.phase == Phase::Predict), "the gate never opened");
    let saved = run.savings.backward_share_saved().unwrap();
    assert!(saved > 0.0, "{saved} of the example-backwards saved");
    assert!(run.savings.vanilla_step_ms.unwrap() > 0.0);
    assert!(run.history.iter().all(|row| row.gate_ms.is_some() != row.phase.predicts()));
    assert!(run.samples.is_some());
    let sampled: Vec<u64> = run.history.iter().filter(|row| row.operations.is_some()).map(|row| row.step).collect();
    assert_eq!(sampled, [11, 38, 45, 72, 99, 106], "one step of twenty, at another place each time");
    let times = RunTimes::of(&run.history, &run.validations);
    let shares = times.operations();
    assert!(shares.iter().any(|(operation, _)| *operation == Operation::Loss), "{shares:?}");
    assert!((shares.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-6, "{shares:?}");
    let parts = [RunPart::Steps(Phase::Predict), RunPart::Validation, RunPart::Between];
    assert!(parts.into_iter().all(|part| times.part_ms(part) > 0.0), "{times:?}");

    let loaded = open_run(&folder).unwrap();
    assert_eq!(loaded.history.len(), 120);
    let operations = RunTimes::of(&loaded.history, &loaded.validations).operations();
    for (found, measured) in operations.iter().zip(&shares) {
        assert!(found.0 == measured.0 && (found.1 - measured.1).abs() < 1e-4, "{operations:?} {shares:?}");
    }
    assert_eq!(loaded.validations.len(), run.validations.len());
    assert_eq!(loaded.savings.backward_examples, run.savings.backward_examples);
    let summary = list_runs(&runs).unwrap().pop().unwrap();
    assert_eq!(summary.ended, Some(StopReason::Finished));
    assert!(!summary.is_resumable);
}

/// A run that is all Warmup, whose steps vanilla training would do, but for measuring error norms.
#[test]
fn what_only_the_gate_needs_is_not_counted_as_vanillas() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 500, 100);
    let mut config = small_config(&data, &runs);
    config.hybrid.warmup_fraction = 1.0;
    let vanilla = {
        let mut config = config.clone();
        config.hybrid.strategy = Strategy::None;
        config
    };
    test.train(config);
    let run = test.engine.snapshot().unwrap();
    assert!(run.history.iter().all(|row| row.phase == Phase::Warmup));
    // The newest 100 steps: the probe's are older.
    let newest: Vec<_> = run.history.iter().rev().take(100).collect();
    let mean = |time: fn(&StepMetrics) -> f64| newest.iter().map(|row| time(row)).sum::<f64>() / 100.0;
    let gate_ms = mean(|row| row.gate_ms.unwrap().into());
    let expected = mean(|row| row.step_ms.into()) - gate_ms;
    let found = run.savings.vanilla_step_ms.unwrap();
    assert!(gate_ms > 0.0 && (found - expected).abs() < 1e-4 * expected, "{found} {expected} {gate_ms}");
    test.train(vanilla);
    let run = test.engine.snapshot().unwrap();
    assert!(run.history.iter().all(|row| row.gate_ms.is_none()));
}

#[test]
fn the_validation_curve_is_of_the_same_examples_to_its_end() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 2_000, 200);
    let mut config = small_config(&data, &runs);
    config.max_validation_examples = 40;
    let folder = test.train(config.clone());
    let points = test.engine.snapshot().unwrap().validations.clone();
    assert_eq!(points.iter().map(|point| point.num_examples).collect::<Vec<_>>(), [40; 4]);
    let (last, before) = points.split_last().unwrap();
    assert!(before.iter().all(|point| point.whole.is_none()));
    let whole = last.whole.unwrap();
    assert!(whole.num_examples > 40 && whole.loss.to_bits() != last.loss.to_bits(), "{last:?}");
    // What a run is worth is the figure on all, with its count.
    assert_eq!(last.figures(), whole);
    let summary = list_runs(&runs).unwrap().pop().unwrap();
    assert_eq!((summary.validation_loss, summary.last_validation), (Some(whole.loss), Some(*last)));
    let card = std::fs::read_to_string(folder.join("checkpoints/step-00000120/card.json")).unwrap();
    let card: serde_json::Value = serde_json::from_str(&card).unwrap();
    assert_eq!(card["validation_loss"], whole.loss);

    // A run of an older version: its last point is measured on all, and says nothing more.
    let text = std::fs::read_to_string(folder.join("validation.jsonl")).unwrap();
    let start = text.find(r#","whole":"#).unwrap();
    std::fs::write(folder.join("validation.jsonl"), format!("{}}}\n", &text[..start])).unwrap();
    let loaded = open_run(&folder).unwrap();
    let old = loaded.validations.last().unwrap();
    assert_eq!((loaded.validations.len(), old.whole), (4, None));
    assert_eq!(old.figures().num_examples, 40);
    assert_eq!(list_runs(&runs).unwrap().pop().unwrap().validation_loss, Some(old.loss));

    // Where the curve is on all, there is nothing to measure twice.
    config.max_validation_examples = 1_000_000;
    test.train(config);
    let points = test.engine.snapshot().unwrap().validations.clone();
    assert!(points.iter().all(|point| point.whole.is_none() && point.num_examples == whole.num_examples));
}

#[test]
fn a_stopped_run_can_be_resumed() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 500, 100);
    let mut config = small_config(&data, &runs);
    config.num_steps = 100_000;
    let job = test.send(|job| Command::Start(job, Box::new(config)));
    let saved = test.wait(job, |kind| if let EventKind::Saved(path) = kind { Some(path) } else { None });
    assert!(saved.join("COMPLETE").exists());
    test.send(|_| Command::Pause);
    test.send(|_| Command::Resume);
    test.send(|_| Command::Stop);
    let reason = test.wait(job, |kind| if let EventKind::Ended(reason) = kind { Some(reason) } else { None });
    assert_eq!(reason, StopReason::User);
    let summary = list_runs(&runs).unwrap().pop().unwrap();
    assert!(summary.is_resumable);

    let job = test.send(|job| Command::ResumeRun(job, summary.folder.clone()));
    test.wait(job, |kind| matches!(kind, EventKind::Started { .. }).then_some(()));
    test.send(|_| Command::Stop);
    test.wait(job, |kind| matches!(kind, EventKind::Ended(StopReason::User)).then_some(()));
    let log = open_run(&summary.folder).unwrap().log;
    assert!(log.iter().any(|entry| matches!(entry.kind, LogKind::Started { step } if step == summary.step)));
}

#[test]
fn a_second_run_is_refused_while_one_goes_on() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 500, 100);
    let mut config = small_config(&data, &runs);
    config.num_steps = 100_000;
    let second = config.clone();
    let first = test.send(|job| Command::Start(job, Box::new(config)));
    test.wait(first, |kind| matches!(kind, EventKind::Started { .. }).then_some(()));
    let job = test.send(|job| Command::Start(job, Box::new(second)));
    let message =
        test.wait(job, |kind| if let EventKind::Rejected(failure) = kind { Some(failure.message) } else { None });
    assert!(message.contains("already"), "{message}");
    test.send(|_| Command::Stop);
    test.wait(first, |kind| matches!(kind, EventKind::Ended(_)).then_some(()));
}

#[test]
fn seven_billion_parameters_are_refused_with_a_table() {
    let mut test = TestEngine::default();
    let runs = test.sub("runs");
    let text = test.sub("data").join("text.txt");
    std::fs::write(&text, "the quick brown fox jumps over the lazy dog. ".repeat(2_000)).unwrap();
    let data = DatasetSpec::Text { path: text, tokenizer: TokenizerSpec::Char };
    let mut config = small_config(&test.sub("unused"), &runs);
    config.model =
        ModelPreset::Llama7B.config(foretrain_engine::models::DataShape::Text { vocab_size: 32_000 }).unwrap();
    config.data = data;
    config.sequence_length = 512;
    config.memory_budget_bytes = 16 << 30;
    let job = test.send(|job| Command::Start(job, Box::new(config)));
    let failure = test.wait(job, |kind| if let EventKind::Rejected(failure) = kind { Some(failure) } else { None });
    let plan = failure.plan.expect("the plan travels with the refusal");
    assert!(!plan.fits());
    assert!(plan.total_bytes() > 60 << 30, "{}", plan.total_bytes());
    assert!(!plan.remedies.is_empty());
    assert!(list_runs(&runs).unwrap().is_empty(), "a refused run leaves no folder");
}

/// Waits until the current run's status is as `pick` wants.
fn wait_for_status(test: &TestEngine, pick: impl Fn(&RunStatus) -> bool) {
    let started = Instant::now();
    while !test.engine.snapshot().is_some_and(|run| pick(&run.status)) {
        assert!(started.elapsed() < DEADLINE, "the run is {:?}", test.engine.snapshot().map(|run| run.status.clone()));
        // Events wake the wait; the time only bounds it.
        let _ = test.engine.wait_event(Duration::from_millis(20));
    }
}

/// Starts a run that goes on and saves nothing by itself for a long time; returns its job and its folder.
fn start_unsaved_run(test: &mut TestEngine) -> (JobId, PathBuf) {
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 500, 100);
    let mut config = small_config(&data, &runs);
    config.num_steps = 100_000;
    config.checkpoint_interval = 100_000;
    config.validation_interval = 100_000;
    let job = test.send(|job| Command::Start(job, Box::new(config)));
    let folder = test.wait(job, |kind| if let EventKind::Started { folder } = kind { folder } else { None });
    (job, folder)
}

#[test]
fn a_run_whose_end_cannot_be_saved_waits_for_room() {
    let mut test = TestEngine::default();
    let (job, folder) = start_unsaved_run(&mut test);
    // A file where the folder should be fails every save, whoever asks.
    let (checkpoints, aside) = (folder.join("checkpoints"), folder.join("aside"));
    std::fs::rename(&checkpoints, &aside).unwrap();
    std::fs::write(&checkpoints, "").unwrap();
    test.send(|_| Command::Stop);
    wait_for_status(&test, |status| matches!(status, RunStatus::Unsaved { .. }));
    std::fs::remove_file(&checkpoints).unwrap();
    std::fs::rename(&aside, &checkpoints).unwrap();
    test.send(|_| Command::Save);
    let reason = test.wait(job, |kind| if let EventKind::Ended(reason) = kind { Some(reason) } else { None });
    assert_eq!(reason, StopReason::User);
    let summary = list_runs(&test.sub("runs")).unwrap().pop().unwrap();
    assert!(summary.is_resumable, "{summary:?}");
}

#[test]
fn giving_up_on_a_save_ends_the_run_with_its_error() {
    let mut test = TestEngine::default();
    let (job, folder) = start_unsaved_run(&mut test);
    std::fs::remove_dir_all(folder.join("checkpoints")).unwrap();
    std::fs::write(folder.join("checkpoints"), "").unwrap();
    test.send(|_| Command::Stop);
    wait_for_status(&test, |status| matches!(status, RunStatus::Unsaved { .. }));
    test.send(|_| Command::Stop);
    let reason = test.wait(job, |kind| if let EventKind::Ended(reason) = kind { Some(reason) } else { None });
    let StopReason::Failed(message) = reason else { panic!("expected a failure, found {reason:?}") };
    assert!(message.contains("checkpoints"), "{message}");
}

#[test]
fn stopping_while_the_run_prepares_is_no_failure() {
    let mut test = TestEngine::default();
    let runs = test.sub("runs");
    let mut config = small_config(&test.sub("unused"), &runs);
    // Generating it takes seconds.
    config.data = DatasetSpec::Glyphs;
    let job = test.send(|job| Command::Start(job, Box::new(config)));
    test.send(|_| Command::Stop);
    test.wait(job, |kind| matches!(kind, EventKind::Cancelled).then_some(()));
    assert!(list_runs(&runs).unwrap().is_empty());
}

#[test]
fn each_run_has_the_threads_that_it_names() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 500, 100);
    for num_threads in [1, 3, 0] {
        let mut config = small_config(&data, &runs);
        (config.num_threads, config.num_steps) = (num_threads, 5);
        let folder = test.train(config);
        let recorded = open_run(&folder).unwrap().config.num_threads;
        assert!(if num_threads == 0 { recorded > 0 } else { recorded == num_threads }, "{recorded}");
    }
}

#[test]
fn a_run_does_not_go_on_with_other_data() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 500, 100);
    let mut config = small_config(&data, &runs);
    config.num_steps = 100_000;
    let job = test.send(|job| Command::Start(job, Box::new(config)));
    test.wait(job, |kind| matches!(kind, EventKind::Saved(_)).then_some(()));
    test.send(|_| Command::Stop);
    test.wait(job, |kind| matches!(kind, EventKind::Ended(StopReason::User)).then_some(()));
    write_idx(&data, 600, 100);
    let folder = list_runs(&runs).unwrap().pop().unwrap().folder;
    let job = test.send(|job| Command::ResumeRun(job, folder));
    let message =
        test.wait(job, |kind| if let EventKind::Rejected(failure) = kind { Some(failure.message) } else { None });
    assert!(message.contains("Put the old files back"), "{message}");
}

#[test]
fn a_damaged_run_is_listed_with_its_reason_and_an_older_checkpoint_serves() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 500, 100);
    let mut config = small_config(&data, &runs);
    config.num_steps = 100_000;
    let job = test.send(|job| Command::Start(job, Box::new(config)));
    for _ in 0..3 {
        test.wait(job, |kind| matches!(kind, EventKind::Saved(_)).then_some(()));
    }
    test.send(|_| Command::Stop);
    test.wait(job, |kind| matches!(kind, EventKind::Ended(StopReason::User)).then_some(()));
    let folder = list_runs(&runs).unwrap().pop().unwrap().folder;
    let mut checkpoints: Vec<_> =
        std::fs::read_dir(folder.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    checkpoints.retain(|path| path.is_dir());
    checkpoints.sort();
    std::fs::write(checkpoints.last().unwrap().join("trainer.safetensors"), "damaged").unwrap();
    let job = test.send(|job| Command::ResumeRun(job, folder.clone()));
    test.wait(job, |kind| matches!(kind, EventKind::Started { .. }).then_some(()));
    test.send(|_| Command::Stop);
    test.wait(job, |kind| matches!(kind, EventKind::Ended(StopReason::User)).then_some(()));
    let log = open_run(&folder).unwrap().log;
    let warned =
        log.iter().any(|entry| matches!(&entry.kind, LogKind::Warning(text) if text.contains("cannot be read")));
    assert!(warned, "{log:?}");

    std::fs::write(folder.join("config.ron"), "(").unwrap();
    let problem = list_runs(&runs).unwrap().pop().unwrap().problem.unwrap();
    assert!(problem.contains("config.ron"), "{problem}");
}

#[test]
fn missing_data_is_refused_by_name() {
    let mut test = TestEngine::default();
    let runs = test.sub("runs");
    let config = small_config(&test.folder.path().join("nowhere"), &runs);
    let job = test.send(|job| Command::Start(job, Box::new(config)));
    let message =
        test.wait(job, |kind| if let EventKind::Rejected(failure) = kind { Some(failure.message) } else { None });
    assert!(message.contains("nowhere"), "{message}");
}

#[test]
fn a_chart_is_drawn_into_new_files_or_refused_with_its_reason() {
    let mut test = TestEngine::default();
    let output = test.sub("plots").join("loss");
    let series = vec![Series::line("Loss", 0, [(1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0)])];
    let panels = vec![Panel::Curves(CurvePanel { series, ..CurvePanel::default() })];
    let chart = Chart { title: "Loss".to_owned(), width: 400, height: 300, panels, ..Chart::default() };
    let formats = vec![ChartFormat::Png { scale: 1.0 }, ChartFormat::Svg];
    let job = ChartJob { chart, theme: Theme::Light, formats, output: output.clone(), naming: Naming::NextFree };
    for name in ["loss", "loss-2"] {
        let asked = test.send(|id| Command::DrawChart(id, Box::new(job.clone())));
        let paths = test.wait(asked, |kind| if let EventKind::ChartDrawn(paths) = kind { Some(paths) } else { None });
        let expected = ["png", "svg"].map(|ending| output.with_file_name(format!("{name}.{ending}")));
        assert_eq!(paths, expected);
        assert!(paths.iter().all(|path| path.exists()));
    }
    let empty = ChartJob { chart: Chart::default(), ..job };
    let asked = test.send(|id| Command::DrawChart(id, Box::new(empty)));
    let message =
        test.wait(asked, |kind| if let EventKind::Rejected(failure) = kind { Some(failure.message) } else { None });
    assert!(message.contains("no panel"), "{message}");
}

/// Words that follow each other, so that there is something to learn.
fn streamed(test: &TestEngine, num_steps: u64) -> OffloadJob {
    let text: String =
        (0..4_000).map(|i| ["one ", "wolf ", "saw ", "seven ", "goats. "][(i * i + i / 7) % 5]).collect();
    let path = test.sub("text").join("wolf.txt");
    std::fs::write(&path, text).unwrap();
    let data = DatasetSpec::Text { path, tokenizer: TokenizerSpec::Char };
    let mut config = recipe("shakespeare-gpt2-char").unwrap().run_config(&tier("vanilla").unwrap(), data).unwrap();
    config.model = ModelConfig::Gpt2(Gpt2Config {
        vocab_size: 32,
        n_positions: 32,
        n_embd: 32,
        n_layer: 2,
        n_head: 2,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.02,
    });
    config.optimizer.switch_to(OptimizerKind::AdamW);
    (config.num_steps, config.batch_size, config.sequence_length, config.num_threads) = (num_steps, 4, 16, 1);
    (config.validation_interval, config.max_validation_examples) = (10, 8);
    OffloadJob {
        config,
        folder: test.sub("blocks"),
        precision: foretrain_engine::offload::Precision::Full,
        commit: None,
        batches: OffloadBatches::Data,
        goal: OffloadGoal::Train,
        ending: OffloadEnding::Model,
    }
}

#[test]
fn a_streamed_training_is_shown_as_a_run_that_pauses_stops_and_goes_on() {
    let mut test = TestEngine::default();
    let asked = streamed(&test, 40);
    let ended = |kind| if let EventKind::Ended(reason) = kind { Some(reason) } else { None };
    let job = test.send(|job| Command::Offload(job, Box::new(asked.clone())));
    let seen = test.wait(job, |kind| if let EventKind::Streamed(step) = kind { Some(step.step) } else { None });
    assert_eq!(seen, 1);
    test.send(|_| Command::Pause);
    let started = Instant::now();
    while test.engine.snapshot().unwrap().status != RunStatus::Paused {
        assert!(started.elapsed() < DEADLINE, "it does not pause");
        std::thread::yield_now();
    }
    let paused = test.engine.snapshot().unwrap();
    assert!(paused.step >= 1 && paused.step < 40 && paused.history.len() as u64 == paused.step);
    assert_eq!(paused.folder.as_deref(), Some(asked.folder.as_path()));
    test.send(|_| Command::Save);
    let saved = LogKind::Saved(asked.folder.clone());
    while !test.engine.snapshot().unwrap().log.iter().any(|entry| entry.kind == saved) {
        assert!(started.elapsed() < DEADLINE, "it does not say that it is saved");
        std::thread::yield_now();
    }
    test.send(|_| Command::Stop);
    assert_eq!(test.wait(job, ended), StopReason::User);
    let run = test.engine.snapshot().unwrap();
    assert_eq!((run.status.clone(), run.step), (RunStatus::Ended(StopReason::User), paused.step));

    // Said before it goes on, with nothing rehearsed.
    let job = test.send(|job| Command::PlanOffload(job, Box::new(asked.clone()), Rehearsal::None));
    let forecast = test.wait(job, |kind| if let EventKind::OffloadPlanned(plan) = kind { Some(plan) } else { None });
    assert_eq!((forecast.disk.num_steps, forecast.num_steps_left), (paused.step, 40 - paused.step));
    assert!(forecast.step_seconds.is_none() && forecast.plan.memory.fits());

    let job = test.send(|job| Command::Offload(job, Box::new(asked.clone())));
    assert_eq!(test.wait(job, ended), StopReason::Finished);
    let run = test.engine.snapshot().unwrap();
    assert_eq!((run.status.clone(), run.step, run.history.len()), (RunStatus::Ended(StopReason::Finished), 40, 40));
    let steps: Vec<u64> = run.history.iter().map(|row| row.step).collect();
    assert_eq!(steps, (1..=40).collect::<Vec<_>>());
    assert!(run.history.iter().all(|row| row.gate_ms == Some(0.0) && row.step_ms > 0.0), "vanilla measures no gate");
    assert!(run.savings.vanilla_step_ms.unwrap() > 0.0 && run.savings.num_steps == 40);
    let measured: Vec<u64> = run.validations.iter().map(|point| point.step).collect();
    assert_eq!(measured, [10, 20, 30, 40], "also those of the process before");
    assert!(
        run.validations.iter().all(|point| point.num_examples == 8 * 16 && point.loss > 0.0),
        "{:?}",
        run.validations
    );
    let disk = run.disk.unwrap();
    assert!(disk.num_steps == 40 && disk.keeps_snapshot && disk.read_bytes > disk.written_bytes, "{disk:?}");
    let model = asked.folder.join("model");
    assert!(run.log.iter().any(|entry| entry.kind == LogKind::Saved(model.clone())), "{:?}", run.log);
    assert!(model.join("model.safetensors").exists());

    // Where it does not fit nothing is trained, and the refusal says what would.
    let mut tight = asked.clone();
    tight.config.memory_budget_bytes = 1 << 20;
    let job = test.send(|job| Command::Offload(job, Box::new(tight)));
    let failure = test.wait(job, |kind| if let EventKind::Rejected(failure) = kind { Some(failure) } else { None });
    assert!(failure.plan.is_some(), "{failure:?}");
}
