//! The engine through its public face: runs, pauses, stops, refusals, history on disk.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use foretrain_engine::data::DatasetSpec;
use foretrain_engine::hybrid::Phase;
use foretrain_engine::models::ModelPreset;
use foretrain_engine::session::{Command, EventKind, LogKind, RunStatus, StopReason, list_runs, open_run};
use foretrain_tests::{TestEngine, small_config, write_idx};

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
    assert!(run.samples.is_some());

    let loaded = open_run(&folder).unwrap();
    assert_eq!(loaded.history.len(), 120);
    assert_eq!(loaded.validations.len(), run.validations.len());
    assert_eq!(loaded.savings.backward_examples, run.savings.backward_examples);
    let summary = list_runs(&runs).unwrap().pop().unwrap();
    assert_eq!(summary.ended, Some(StopReason::Finished));
    assert!(!summary.is_resumable);
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
    let data = DatasetSpec::Text { path: text, tokenizer: foretrain_engine::data::TokenizerSpec::Char };
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
