//! A streamed training under the hybrid trainer's lead, against the same in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use candle_core::{Device, Tensor};
use rand::RngExt;

use super::files::Version;
use super::tests::{SEED, bits, difference, gpt2, llama, network, opened, optimizer, planned, settings};
use super::*;
use crate::data::Batch;
use crate::device::seed::{Stream, stream};
use crate::hybrid::{
    GateRule, HybridConfig, HybridEvent, HybridTrainer, Phase, Pilot, Recovery, StepReport, Strategy, TrainerSetup,
};
use crate::models::{DataShape, ModelConfig, ModelPreset, ParamStore, initial_params, ops};
use crate::optim::{OptimizerConfig, Schedule};
use crate::unwatched;

const NUM_STEPS: u64 = 30;
const NUM_SEQUENCES: usize = 8;

/// Predicts soon, and corrects often.
fn hybrid(strategy: Strategy) -> HybridConfig {
    HybridConfig {
        strategy,
        gate: GateRule::Open,
        max_predict_steps: 8,
        confidence_threshold: 0.0,
        correction_interval: 3,
        divergence_sigma: 4.0,
        check_interval: 1,
        slice_fraction: 0.5,
        min_slice_fraction: 0.5,
        gate_cost: 0.9,
        gate_hold_steps: 2,
        warmup_fraction: 0.1,
    }
}

fn schedule() -> Schedule {
    Schedule::Cosine { warmup_fraction: 0.1, final_fraction: 0.1 }
}

fn pilot(strategy: Strategy) -> Pilot {
    Pilot::without_snapshots(hybrid(strategy), schedule(), NUM_STEPS, SEED).unwrap()
}

/// Eight sequences of 12 tokens that can be learned, some sooner than others.
fn batch(step: u64) -> Batch {
    let ids = |shift: u64| {
        let id = |i: u64| match i / 12 {
            0..4 => (i % 12 + shift) * 5 % 61,
            sequence => ((i % 12 + shift) * (sequence + step % 3) * 7 + sequence) % 61,
        };
        let ids: Vec<u32> = (0..12 * NUM_SEQUENCES as u64).map(|i| id(i) as u32).collect();
        Tensor::from_vec(ids, (NUM_SEQUENCES, 12), &Device::Cpu).unwrap()
    };
    Batch { inputs: ids(0), targets: ids(1) }
}

/// As many sequences that can be learned, the rest of them of tokens that nobody can foresee.
fn mixed(step: u64, num_learnable: u64) -> Batch {
    let mut random = stream(SEED, Stream::Data, step);
    let mut ids = |shift: u64| {
        let learnable = (0..12 * num_learnable).map(|i| ((i % 12 + shift) * 5 % 61) as u32).collect::<Vec<_>>();
        let others = (learnable.len()..12 * NUM_SEQUENCES).map(|_| random.random_range(0..61_u32));
        Tensor::from_vec(learnable.iter().copied().chain(others).collect(), (NUM_SEQUENCES, 12), &Device::Cpu).unwrap()
    };
    Batch { inputs: ids(0), targets: ids(1) }
}

fn led(config: &ModelConfig, settings: &OffloadSettings, strategy: Strategy) -> LedTrainer {
    LedTrainer::new(opened(config, settings).unwrap(), pilot(strategy)).unwrap()
}

fn stepped(trainer: &mut LedTrainer) -> StreamedStep {
    trainer.step(&batch(trainer.trainer().num_steps()), unwatched!()).unwrap()
}

fn report(step: &StreamedStep) -> &StepReport {
    step.hybrid.as_ref().unwrap()
}

/// The same training in memory.
fn in_memory(config: &ModelConfig, strategy: Strategy) -> (HybridTrainer, Vec<StepReport>) {
    let network = network(config);
    let (weights, buffers) = initial_params(&network, SEED, &Device::Cpu).unwrap();
    let setup = TrainerSetup {
        store: ParamStore::new(weights, buffers, &Device::Cpu).unwrap(),
        network,
        hybrid: hybrid(strategy),
        optimizer: optimizer(),
        schedule: schedule(),
        qat: None,
        num_steps: NUM_STEPS,
        num_micro_batches: 1,
        precision: ops::Precision::F32,
        seed: SEED,
    };
    let mut trainer = HybridTrainer::new(setup).unwrap();
    let reports = (0..NUM_STEPS).map(|step| trainer.step(&batch(step)).unwrap()).collect();
    (trainer, reports)
}

#[test]
fn a_led_training_decides_and_learns_as_one_in_memory() {
    for config in [gpt2(), llama(false)] {
        for strategy in [Strategy::None, Strategy::Importance, Strategy::Frozen] {
            let folder = tempfile::tempdir().unwrap();
            let mut streamed = led(&config, &settings(folder.path(), Precision::Full, Commit::Step), strategy);
            let (trainer, expected) = in_memory(&config, strategy);
            for expected in &expected {
                let step = stepped(&mut streamed);
                let found = report(&step);
                assert_eq!((found.step, found.phase), (expected.step, expected.phase), "{strategy:?}");
                assert_eq!(found.num_backward, expected.num_backward, "{strategy:?}, step {}", found.step);
                assert!((found.loss / expected.loss - 1.0).abs() < 1e-3, "{} {}", found.loss, expected.loss);
                assert_eq!(found.grad_norm.is_some(), expected.grad_norm.is_some());
                if let (Some(found), Some(expected)) = (found.correction, expected.correction) {
                    assert!((found.cosine - expected.cosine).abs() < 1e-3, "{found:?} {expected:?}");
                }
            }
            let num_predicted = expected.iter().filter(|report| report.phase == Phase::Predict).count();
            assert!((num_predicted >= 10) == strategy.predicts(), "{strategy:?}: {num_predicted}");
            let found = streamed.trainer().params().unwrap();
            let difference = difference(&found, &trainer.trained_params().unwrap());
            match strategy {
                // A block computed again for a sample has other shapes, and other rounding, than a pass over the sample.
                Strategy::Importance => assert!(difference < 1e-3, "{difference}"),
                _ => assert_eq!(difference, 0.0, "the same bits"),
            }
        }
    }
}

#[test]
fn a_sample_alone_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let config = llama(true);
    let mut trainer = led(&config, &settings(folder.path(), Precision::Full, Commit::Step), Strategy::Importance);
    let steps: Vec<StreamedStep> = (0..NUM_STEPS).map(|_| stepped(&mut trainer)).collect();
    let of = |phase: Phase| steps.iter().map(report).filter(move |report| report.phase == phase);
    let whole = 12 * NUM_SEQUENCES as u32;
    assert!([Phase::Full, Phase::Predict, Phase::Correct].iter().all(|&phase| of(phase).count() > 1));
    assert!(of(Phase::Full).all(|report| report.num_backward == whole && report.num_forward == 2 * whole));
    assert!(of(Phase::Predict).all(|report| report.num_backward < whole && report.num_forward < 2 * whole));
    // Both gradients, which point the same way on the whole.
    assert!(of(Phase::Correct).all(|report| report.num_backward > whole));
    let mut cosines = of(Phase::Correct).filter_map(|report| report.confidence);
    assert!(cosines.clone().count() > 0 && cosines.all(|cosine| (0.3..=1.0).contains(&cosine)));
}

fn copy_store(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_store(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The state files say: steps done, and updates that blocks had.
fn progress(folder: &Path) -> (u64, u64) {
    let text = std::fs::read(folder.join("progress.json")).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    (value["step"].as_u64().unwrap(), value["num_updates"].as_u64().unwrap())
}

#[test]
fn a_step_whose_loss_diverges_moves_nothing_until_the_training_ends() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Full, Commit::Step);
    let pilot = Pilot::without_snapshots(hybrid(Strategy::None), schedule(), 400, SEED).unwrap();
    let mut trainer = LedTrainer::new(opened(&gpt2(), &settings).unwrap(), pilot.clone()).unwrap();
    for step in 0..150 {
        trainer.step(&mixed(step, 4), unwatched!()).unwrap();
    }
    let mut answers = Vec::new();
    let mut num_skipped = 0;
    while !trainer.must_stop() {
        let before = bits(&trainer.trainer().params().unwrap());
        let step = trainer.step(&mixed(trainer.trainer().num_steps(), 0), unwatched!()).unwrap();
        let diverged = report(&step).events.iter().find_map(|event| match event {
            HybridEvent::Diverged { recovery, restored_step, .. } => Some((*recovery, *restored_step)),
            _ => None,
        });
        if let Some((recovery, restored_step)) = diverged {
            assert_eq!((restored_step, step.grad_norm, step.written_bytes), (None, None, 0), "{step:?}");
            assert_eq!(bits(&trainer.trainer().params().unwrap()), before);
            num_skipped += 1;
            answers.push(recovery);
        }
        assert!(step.step < 400, "{answers:?}");
    }
    use Recovery::{BackToFull, CutLearningRate, End};
    assert_eq!(answers, [BackToFull, CutLearningRate, CutLearningRate, End]);
    let (step, num_updates) = progress(folder.path());
    assert_eq!(step - num_updates, num_skipped);
    assert!(trainer.step(&batch(step), unwatched!()).is_err(), "it has ended");
    drop(trainer);
    // Opened at another rate that one holds, not a quarter of it.
    let slower = OptimizerConfig { learning_rate: 0.3 * optimizer().learning_rate, ..optimizer() };
    let copy = tempfile::tempdir().unwrap();
    copy_store(folder.path(), copy.path());
    let elsewhere = OffloadSettings { folder: copy.path().to_owned(), ..settings.clone() };
    let opened_at = OffloadTrainer::open(network(&gpt2()), &slower, &elsewhere, None, unwatched!()).unwrap();
    let mut slowed = LedTrainer::new(opened_at, pilot.clone()).unwrap();
    let planned = slower.learning_rate * schedule().factor(step + 1, 400);
    let found = f64::from(report(&stepped(&mut slowed)).learning_rate);
    assert!((found / planned - 1.0).abs() < 1e-6, "{found} {planned}");
    // Opened again it goes on, at a quarter of the rate.
    let mut again = LedTrainer::new(opened(&gpt2(), &settings).unwrap(), pilot).unwrap();
    assert!(!again.must_stop() && again.trainer().num_steps() == step);
    let next = stepped(&mut again);
    let planned = optimizer().learning_rate * schedule().factor(step + 1, 400);
    assert!((f64::from(report(&next).learning_rate) / planned - 0.25).abs() < 1e-6);
    assert!(report(&next).events.iter().any(|event| matches!(event, HybridEvent::Phase { to: Phase::Full, .. })));
    assert!(next.grad_norm.is_some());
}

#[test]
fn a_led_training_that_goes_on_equals_an_unbroken_one() {
    for (precision, commit) in [(Precision::Compact, Commit::Step), (Precision::Full, Commit::Block)] {
        let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut trainer = led(&gpt2(), &settings(whole.path(), precision, commit), Strategy::Importance);
        let unbroken: Vec<StepReport> = (0..NUM_STEPS).map(|_| report(&stepped(&mut trainer)).clone()).collect();
        let mut parts = Vec::new();
        for until in [1, 9, 14, 15, NUM_STEPS] {
            let mut part = led(&gpt2(), &settings(broken.path(), precision, commit), Strategy::Importance);
            while part.trainer().num_steps() < until {
                parts.push(report(&stepped(&mut part)).clone());
            }
        }
        let told = |reports: &[StepReport]| format!("{reports:?}");
        assert_eq!(told(&unbroken), told(&parts));
        let again = opened(&gpt2(), &settings(broken.path(), precision, commit)).unwrap();
        assert_eq!(bits(&trainer.trainer().params().unwrap()), bits(&again.params().unwrap()));
    }
}

#[test]
fn a_sampled_step_that_is_broken_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Compact, Commit::Block);
    let mut trainer = led(&llama(true), &settings, Strategy::Importance);
    // The first Predict step that is not the last of its kind.
    while report(&stepped(&mut trainer)).phase != Phase::Predict {}
    let mut path = trainer.trainer().store().files.path(1, Version::Current).into_os_string();
    path.push(".partial");
    std::fs::create_dir(&path).unwrap();
    let step = trainer.trainer().num_steps();
    let error = trainer.step(&batch(step), unwatched!()).unwrap_err();
    assert!(error.to_string().contains("going on finishes it"), "{error}");
    std::fs::remove_dir(&path).unwrap();
    drop(trainer);
    let mut trainer = led(&llama(true), &settings, Strategy::Importance);
    let next = stepped(&mut trainer);
    assert_eq!((next.step, next.num_kept, report(&next).phase), (step + 1, 3, Phase::Predict));
    drop(trainer);
    let updates = progress(folder.path()).1;
    let files = &opened(&llama(true), &settings).unwrap();
    let header = |block| files.store().files.header(block, Version::Current).unwrap().step;
    assert!((0..5).all(|block| header(block) == updates));
}

#[test]
fn a_folder_of_plain_steps_goes_on_under_a_lead() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Compact, Commit::Step);
    let mut plain = opened(&gpt2(), &settings).unwrap();
    for step in 0..4 {
        plain.step(&batch(step), 1.0, unwatched!()).unwrap();
    }
    drop(plain);
    // As versions without a lead wrote it.
    std::fs::write(folder.path().join("progress.json"), r#"{"step": 4}"#).unwrap();
    let mut trainer = led(&gpt2(), &settings, Strategy::Importance);
    let next = stepped(&mut trainer);
    // Warmup of three steps is over.
    assert_eq!((next.step, report(&next).phase), (5, Phase::Full));
    assert_eq!(progress(folder.path()), (5, 5));
}

#[test]
fn a_step_that_moves_nothing_reads_what_was_planned() {
    for config in [gpt2(), llama(false), llama(true)] {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = led(&config, &settings(folder.path(), Precision::Compact, Commit::Step), Strategy::Frozen);
        let step = loop {
            let step = stepped(&mut trainer);
            if report(&step).phase == Phase::Predict {
                break step;
            }
        };
        let plan = planned(&config, NUM_SEQUENCES, 12, 1 << 40);
        // One block is read ahead.
        let read = plan.forward_read_bytes..plan.read_bytes;
        assert!(read.contains(&step.read_bytes) && step.written_bytes == 0, "{read:?}: {step:?}");
    }
}

#[test]
fn a_predict_step_is_planned_below_a_full_one() {
    let planned = |sampling| {
        // Larger than what measuring the machine's rates takes.
        let shape = DataShape::Text { vocab_size: 50_257 };
        let network = network(&ModelPreset::Gpt2_124M.config(shape).unwrap());
        plan(&OffloadInput {
            network: &network,
            precision: Precision::Compact,
            products: ops::Precision::F32,
            batch_size: 16,
            sequence_length: 256,
            num_threads: 2,
            sampling,
            dataset_bytes: 0,
            budget_bytes: 1 << 40,
            budget_source: "a test".to_owned(),
        })
        .unwrap()
    };
    let (plain, sampled) = (planned(None), planned(Some(0.25)));
    let predict = sampled.predict.unwrap();
    assert_eq!((plain.predict, predict.num_sequences), (None, 4));
    assert!(predict.memory_bytes < plain.memory.total_bytes() && predict.flops < plain.flops);
    // A Correct step holds the gradients of both.
    assert!(sampled.memory.total_bytes() > plain.memory.total_bytes());
}

#[test]
fn another_tier_begins_in_full_and_one_that_needs_copies_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Compact, Commit::Step);
    let mut trainer = led(&gpt2(), &settings, Strategy::Importance);
    while report(&stepped(&mut trainer)).phase != Phase::Predict {}
    drop(trainer);
    let mut trainer = led(&gpt2(), &settings, Strategy::None);
    let next = stepped(&mut trainer);
    let told = report(&next).events.iter().any(
        |event| matches!(event, HybridEvent::Phase { to: Phase::Full, why, .. } if why.contains("other settings")),
    );
    assert!(told && report(&next).phase == Phase::Full, "{next:?}");
    let extrapolating = hybrid(Strategy::Extrapolate(crate::hybrid::Trajectory::Fitted));
    assert!(Pilot::without_snapshots(extrapolating, schedule(), NUM_STEPS, SEED).is_err());
}

#[test]
fn a_step_that_moves_nothing_forgets_one_that_was_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Compact, Commit::Step);
    let mut trainer = led(&gpt2(), &settings, Strategy::Frozen);
    while report(&stepped(&mut trainer)).phase != Phase::Predict {}
    drop(trainer);
    // Another lead moves blocks, and is cancelled when some are written.
    let cancel = crate::device::CancelFlag::default();
    let tell = |progress: crate::device::Progress| {
        if progress.what.contains("backward") && progress.done > 5 {
            cancel.set();
        }
    };
    let mut plain = led(&gpt2(), &settings, Strategy::None);
    let (step, before) = (plain.trainer().num_steps(), bits(&plain.trainer().params().unwrap()));
    let cancelled = plain.step(&batch(step), crate::device::Watch::new(&cancel, &tell));
    assert!(matches!(cancelled, Err(OffloadError::Cancelled(_))));
    assert!(plain.trainer().store().files.path(4, Version::Next).exists());
    drop(plain);
    let mut trainer = led(&gpt2(), &settings, Strategy::Frozen);
    assert_eq!(report(&stepped(&mut trainer)).grad_norm, None);
    assert_eq!(bits(&trainer.trainer().params().unwrap()), before);
    drop(trainer);
    let again = opened(&gpt2(), &settings).unwrap();
    assert_eq!((again.num_steps(), bits(&again.params().unwrap()) == before), (step + 1, true));
}
