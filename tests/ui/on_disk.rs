//! A run whose weights lie on disk: the form, what it needs, its start, and how far its step is.

use std::path::PathBuf;

use egui_kittest::kittest::Queryable;
use foretrain::state::DataKind;
use foretrain::theme::ThemeChoice;
use foretrain_engine::device::{ComputeDevice, Progress};
use foretrain_engine::hybrid::{Divergence, DivergenceKind, HybridEvent, Recovery};
use foretrain_engine::memory::{MemoryPlan, Remedy};
use foretrain_engine::models::{ModelPreset, ops};
use foretrain_engine::offload::{Commit, DiskRoom, OffloadInput, Precision, plan};
use foretrain_engine::session::{
    Command, EventKind, JobId, LogEntry, LogKind, OffloadForecast, OffloadJob, PlanReport, Rehearsal, RunSnapshot,
    RunStatus, StopReason,
};

use crate::scene::{self, Window, click, tell};

/// A window whose form is about text, with weights on disk or in memory.
fn form(is_on_disk: bool) -> Window {
    let mut harness = scene::window(ThemeChoice::Dark);
    let draft = harness.state_mut().saved_mut().draft.as_mut().unwrap();
    draft.data.kind = DataKind::Grammar;
    draft.set_model(ModelPreset::Gpt2Char);
    draft.config.sequence_length = 64;
    draft.streaming.is_on = is_on_disk;
    harness.run_steps(8);
    harness
}

fn asked(harness: &mut Window) -> Vec<(JobId, OffloadJob, Rehearsal)> {
    let pending = harness.state_mut().take_pending().into_iter();
    let asked = pending.filter_map(|command| match command {
        Command::PlanOffload(job, asked, rehearsal) => Some((job, *asked, rehearsal)),
        _ => None,
    });
    asked.collect()
}

fn forecast(job: &OffloadJob, num_steps: u64, seconds: Option<f64>) -> OffloadForecast {
    let config = &job.config;
    let network = config.network().unwrap();
    let plan = plan(&OffloadInput {
        network: &network,
        precision: Precision::Compact,
        products: ops::Precision::F32,
        batch_size: config.batch_size,
        sequence_length: config.sequence_length,
        num_threads: 2,
        sampling: None,
        dataset_bytes: 0,
        budget_bytes: 16 << 30,
        budget_source: "a test".to_owned(),
        gpu: None,
    });
    OffloadForecast {
        plan: plan.unwrap(),
        device: ComputeDevice::Cpu,
        why_there: None,
        disk: DiskRoom {
            commit: Commit::Step,
            keeps_snapshot: true,
            needed_bytes: 1 << 30,
            free_bytes: Some(5 << 30),
            held_bytes: 0,
            num_steps,
            peak_learning_rate: None,
            folder: job.folder.clone(),
        },
        model_bytes: 1 << 29,
        num_steps_left: config.num_steps - num_steps,
        rates: None,
        step_seconds: seconds,
        predict_seconds: None,
        costs: Vec::new(),
    }
}

#[test]
fn a_form_for_weights_on_disk_says_what_they_take_and_starts() {
    let mut harness = form(true);
    let plans = asked(&mut harness);
    let [(job, wanted, Rehearsal::None)] = plans.as_slice() else { panic!("expected one plan, found {plans:?}") };
    assert_eq!(wanted.folder, PathBuf::from("/runs/streamed/glyphs-cnn"));
    tell(&mut harness, *job, EventKind::OffloadPlanned(Box::new(forecast(wanted, 300, None))));
    harness.run_steps(3);
    for text in ["1.00 GiB of 5.00 GiB free", "after step 300", "900 steps left"] {
        assert!(harness.query_all_by_label_contains(text).next().is_some(), "expected {text:?}");
    }
    // Steps are timed when that is asked for, since it writes.
    harness.get_by_label("Rehearse a step").scroll_to_me();
    harness.run_steps(3);
    click(&mut harness, "Rehearse a step");
    let rehearsals = asked(&mut harness);
    let [(job, again, Rehearsal::OfSteps)] = rehearsals.as_slice() else {
        panic!("expected a rehearsal, found {rehearsals:?}")
    };
    assert_eq!(again, wanted);
    tell(&mut harness, *job, EventKind::OffloadPlanned(Box::new(forecast(wanted, 300, Some(12.0)))));
    harness.run_steps(3);
    harness.get_by_label("about 12 s");
    assert!(harness.query_by_label("Rehearse a step").is_none());
    click(&mut harness, "Go on after step 300");
    let sent = harness.state_mut().take_pending();
    let started = sent.iter().find_map(|command| if let Command::Offload(_, job) = command { Some(job) } else { None });
    assert_eq!(started.map(|job| &**job), Some(wanted), "{sent:?}");
}

#[test]
fn a_gpu_that_computes_is_named_with_its_share() {
    let mut harness = form(true);
    harness.state_mut().saved_mut().settings.device = ComputeDevice::Cuda(1);
    harness.run_steps(8);
    let plans = asked(&mut harness);
    let Some((job, wanted, Rehearsal::None)) = plans.last() else { panic!("expected a plan, found {plans:?}") };
    assert_eq!(wanted.config.device, ComputeDevice::Cuda(1));
    let mut answer = forecast(wanted, 0, None);
    let gpu = MemoryPlan { budget_bytes: 1 << 20, ..answer.plan.memory.clone() };
    (answer.device, answer.plan.gpu) = (ComputeDevice::Cuda(1), Some(gpu));
    answer.why_there = Some("Computing on GPU 1 (Model): the run needs little.".to_owned());
    tell(&mut harness, *job, EventKind::OffloadPlanned(Box::new(answer)));
    harness.run_steps(3);
    for text in ["GPU memory at its peak", "Computes on", "Computing on GPU 1 (Model)", "more than the budget allows"] {
        assert!(harness.query_all_by_label_contains(text).next().is_some(), "expected {text:?}");
    }
}

#[test]
fn a_model_that_does_not_fit_is_put_on_disk_by_a_button() {
    let mut harness = form(false);
    let pending = harness.state_mut().take_pending();
    let job = pending.iter().find_map(|command| if let Command::Plan(job, _) = command { Some(*job) } else { None });
    let mut plan = scene::plan();
    plan.budget_bytes = 1 << 20;
    plan.remedies =
        vec![Remedy { streamed_batch: Some(2), ..Remedy::in_words("blocks streamed from a disk: 0.9 MiB") }];
    let report = PlanReport {
        num_params: 7_000_000_000,
        plan,
        full_step_ms: None,
        remedy_step_ms: None,
        vanilla_seconds: None,
        warnings: Vec::new(),
    };
    tell(&mut harness, job.unwrap(), EventKind::Planned(Box::new(report)));
    harness.run_steps(3);
    // The recipe's rate is one for small models.
    for button in ["Put the weights on disk", "Take 1.2e-4"] {
        harness.get_by_label(button).scroll_to_me();
        harness.run_steps(3);
    }
    click(&mut harness, "Put the weights on disk");
    let draft = harness.state().saved().draft.as_ref().unwrap();
    assert!(draft.is_streamed());
    assert_eq!(draft.config.batch_size, 2);
}

#[test]
fn a_long_step_shows_how_far_it_is() {
    let mut run = scene::snapshot(300, RunStatus::Training);
    run.in_step = Some(Progress { what: "step 301: backward".to_owned(), done: 12, total: Some(25) });
    let harness = scene::window_with(run, ThemeChoice::Dark);
    assert!(harness.query_all_by_label_contains("Step 300 of 1,200, now step 301: backward").next().is_some());
}

#[test]
fn a_training_without_snapshots_is_not_said_to_have_good_weights() {
    let run = scene::snapshot(300, RunStatus::Ended(StopReason::Diverged));
    let divergence = Divergence { kind: DivergenceKind::AboveStart, value: 9000.0, limit: 2.0 };
    let recovery = Recovery::End;
    let kind = LogKind::Hybrid(HybridEvent::Diverged { divergence, recovery, restored_step: None });
    let log = run.log.iter().cloned().chain([LogEntry { step: 300, unix_ms: 0, kind }]).collect();
    let harness = scene::window_with(RunSnapshot { log, ..run }, ThemeChoice::Dark);
    assert!(harness.query_all_by_label_contains("there is no snapshot").next().is_some());
    assert!(harness.query_all_by_label_contains("last good weights").next().is_none());
}
