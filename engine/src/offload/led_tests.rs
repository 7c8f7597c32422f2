//! A streamed training under the hybrid trainer's lead, against the same in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use candle_core::{Device, Tensor};
use rand::RngExt;

use super::files::Version;
use super::store::Blocks;
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

pub(super) const NUM_STEPS: u64 = 30;
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
pub(super) fn batch(step: u64) -> Batch {
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

pub(super) fn led(config: &ModelConfig, settings: &OffloadSettings, strategy: Strategy) -> LedTrainer {
    LedTrainer::new(opened(config, settings).unwrap(), pilot(strategy)).unwrap()
}

fn stepped(trainer: &mut LedTrainer) -> StreamedStep {
    trainer.step(&batch(trainer.trainer().num_steps()), unwatched!()).unwrap()
}

fn report(step: &StreamedStep) -> &StepReport {
    step.hybrid.as_ref().unwrap()
}

/// The same training in memory, of so many steps.
fn in_memory(config: &ModelConfig, strategy: Strategy, num_steps: u64) -> HybridTrainer {
    let network = network(config);
    let (weights, buffers) = initial_params(&network, SEED, &Device::Cpu).unwrap();
    let setup = TrainerSetup {
        store: ParamStore::new(weights, buffers, &Device::Cpu).unwrap(),
        network,
        hybrid: hybrid(strategy),
        optimizer: optimizer(),
        schedule: schedule(),
        qat: None,
        num_steps,
        num_micro_batches: 1,
        precision: ops::Precision::F32,
        seed: SEED,
    };
    HybridTrainer::new(setup).unwrap()
}

#[test]
fn a_led_training_decides_and_learns_as_one_in_memory() {
    for config in [gpt2(), llama(false)] {
        for strategy in [Strategy::None, Strategy::Importance, Strategy::Frozen] {
            let folder = tempfile::tempdir().unwrap();
            let mut streamed = led(&config, &settings(folder.path(), Precision::Full, Commit::Step), strategy);
            let mut trainer = in_memory(&config, strategy, NUM_STEPS);
            let expected: Vec<_> = (0..NUM_STEPS).map(|step| trainer.step(&batch(step)).unwrap()).collect();
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

/// The steps after which a divergence was answered, with the answers and where they went back to.
fn answers(reports: &[StepReport]) -> Vec<(u64, Recovery, Option<u64>)> {
    let of = |report: &StepReport| {
        let answer = report.events.iter().find_map(|event| match event {
            HybridEvent::Diverged { recovery, restored_step, .. } => Some((*recovery, *restored_step)),
            _ => None,
        });
        answer.map(|(recovery, restored)| (report.step, recovery, restored))
    };
    reports.iter().filter_map(of).collect()
}

#[test]
fn with_a_snapshot_it_goes_back_to_the_blocks_that_a_training_in_memory_goes_back_to() {
    for commit in [Commit::Step, Commit::Block] {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), Precision::Full, commit);
        let pilot = Pilot::without_snapshots(hybrid(Strategy::None), schedule(), 400, SEED).unwrap();
        let open = || LedTrainer::new(opened(&gpt2(), &settings).unwrap(), pilot.clone()).unwrap();
        let mut trainer = open().with_snapshots_every(50);
        let mut beside = in_memory(&gpt2(), Strategy::None, 400);
        // What is learned up to step 150 is of no use after it.
        let batch_of = |step: u64| mixed(step, if step < 150 { 4 } else { 0 });
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        while !trainer.must_stop() {
            let step = trainer.trainer().num_steps();
            found.push(report(&trainer.step(&batch_of(step), unwatched!()).unwrap()).clone());
            expected.push(beside.step(&batch_of(step)).unwrap());
            if (step + 1).is_multiple_of(50) {
                beside.mark_good().unwrap();
            }
            let (found, expected) = (found.last().unwrap(), expected.last().unwrap());
            assert_eq!(found.loss.to_bits(), expected.loss.to_bits(), "step {}", step + 1);
            if step == 152 {
                // It goes on elsewhere.
                drop(trainer);
                trainer = open().with_snapshots_every(50);
            }
        }
        assert!(beside.step(&batch(0)).is_err(), "it has ended, too");
        use Recovery::{BackToFull, CutLearningRate, Restore, Stop};
        let recoveries: Vec<_> = answers(&found).iter().map(|(_, recovery, _)| *recovery).collect();
        assert_eq!(recoveries, [BackToFull, CutLearningRate, Restore, Stop]);
        assert_eq!(answers(&found), answers(&expected));
        assert_eq!(answers(&found).last().unwrap().2, Some(150));
        let params = trainer.trainer().params().unwrap();
        assert_eq!(difference(&params, &beside.trained_params().unwrap()), 0.0, "the same bits");
        // Going back took no step away, and all blocks agree.
        let (step, num_updates) = progress(folder.path());
        assert_eq!((step, num_updates), (found.len() as u64, 150));
        drop(trainer);
        let again = opened(&gpt2(), &settings).unwrap();
        assert_eq!((again.num_steps(), again.store.num_updates()), (step, 150));
    }
}

#[test]
fn blocks_that_are_not_finite_are_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Compact, Commit::Block);
    let mut trainer = led(&llama(true), &settings, Strategy::None).with_snapshots_every(10);
    (0..12).for_each(|_| drop(stepped(&mut trainer)));
    let good = trainer.trainer.store.snapshot().unwrap().clone();
    assert_eq!((good.step, good.num_updates), (10, 10));
    trainer.trainer.optimizer.learning_rate = 1e30;
    let ruined = stepped(&mut trainer);
    assert!(ruined.loss.is_finite(), "the step before");
    trainer.trainer.optimizer.learning_rate = optimizer().learning_rate;
    // As in memory: what moved nothing may have been one bad batch; what repeats goes back.
    let mut reports = Vec::new();
    while answers(&reports).iter().all(|(.., restored)| restored.is_none()) {
        let step = stepped(&mut trainer);
        assert!(step.seconds > 0.0 && step.step < 30);
        // A line in a file that can be read again.
        let line = serde_json::to_string(&step).unwrap();
        assert_eq!(serde_json::from_str::<StreamedStep>(&line).unwrap().loss.is_nan(), step.loss.is_nan());
        reports.push(report(&step).clone());
    }
    assert!(reports.iter().any(|report| report.loss.is_nan()), "{reports:?}");
    let (step, _, restored) = answers(&reports).pop().unwrap();
    assert_eq!((restored, progress(folder.path())), (Some(10), (step, 10)));
    assert_eq!(trainer.trainer().describe(), format!("Step {step} is saved, with the blocks of step 10"));
    let next = stepped(&mut trainer);
    assert!(next.loss < 5.0 && next.step == step + 1, "{}", next.loss);
    // Without one the training ends, and says so.
    trainer.trainer.store.forbid_snapshots();
    trainer.trainer.optimizer.learning_rate = 1e30;
    let ended = (0..9).find_map(|_| {
        let step = trainer.trainer().num_steps();
        trainer.step(&batch(step), unwatched!()).err()
    });
    assert!(matches!(ended, Some(OffloadError::NotFinite { .. })), "{ended:?}");
}

#[test]
fn going_back_that_is_broken_off_is_finished_at_the_next_opening() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Compact, Commit::Step);
    let mut trainer = led(&gpt2(), &settings, Strategy::None).with_snapshots_every(5);
    (0..5).for_each(|_| drop(stepped(&mut trainer)));
    let good = bits(&trainer.trainer().params().unwrap());
    (0..3).for_each(|_| drop(stepped(&mut trainer)));
    drop(trainer);
    // One block is back, the others are not, and one is left half linked.
    let path = folder.path().join("progress.json");
    let mut progress: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    (progress["num_updates"], progress["is_going_back"]) = (5.into(), true.into());
    std::fs::write(&path, progress.to_string()).unwrap();
    let (blocks, kept) = (folder.path().join("blocks"), folder.path().join("snapshot"));
    std::fs::copy(kept.join("0001"), blocks.join("0001")).unwrap();
    std::fs::hard_link(kept.join("0002"), blocks.join("0002.partial")).unwrap();
    std::fs::write(blocks.join("0003.next"), "of a step that is no more").unwrap();
    let again = opened(&gpt2(), &settings).unwrap();
    assert_eq!((again.num_steps(), again.store.num_updates()), (8, 5));
    assert_eq!(bits(&again.params().unwrap()), good);
    assert!(std::fs::read_dir(&blocks).unwrap().all(|entry| entry.unwrap().path().extension().is_none()));
    drop(again);
    // A snapshot whose taking was broken off before it was whole is none; one that was whole is, whatever is left of the
    // one before, which goes in any order.
    let partial = folder.path().join("snapshot.partial");
    std::fs::rename(&kept, &partial).unwrap();
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("0001"), "torso").unwrap();
    let again = opened(&gpt2(), &settings).unwrap();
    assert_eq!(again.store.snapshot().unwrap().step, 5);
    // One that lacks a block, or has another's, is none: nothing goes back to it.
    std::fs::remove_file(kept.join("0003")).unwrap();
    assert!(again.store.snapshot().is_none());
    std::fs::hard_link(kept.join("0002"), kept.join("0003")).unwrap();
    assert!(again.store.snapshot().is_none());
    std::fs::remove_file(kept.join("0003")).unwrap();
    std::fs::hard_link(blocks.join("0003"), kept.join("0003")).unwrap();
    assert!(again.store.snapshot().is_some());
    drop(again);
    std::fs::rename(&kept, &partial).unwrap();
    std::fs::remove_file(partial.join("progress.json")).unwrap();
    let again = opened(&gpt2(), &settings).unwrap();
    assert!(again.store.snapshot().is_none() && !partial.exists());
}

#[test]
fn a_going_back_that_fails_is_finished_before_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Full, Commit::Step);
    let mut trainer = led(&gpt2(), &settings, Strategy::None).with_snapshots_every(5);
    (0..7).for_each(|_| drop(stepped(&mut trainer)));
    let state = trainer.trainer.store.pilot().unwrap().to_owned();
    // The name under which block 2 is linked is taken by a folder that is not empty of a file that cannot go.
    let lost = folder.path().join("snapshot/0002");
    let aside = folder.path().join("0002");
    std::fs::rename(&lost, &aside).unwrap();
    assert!(trainer.trainer.store.advance(Blocks::GoBack, Some(state), None).is_err());
    let step = trainer.trainer().num_steps();
    assert!(trainer.step(&batch(step), unwatched!()).is_err(), "blocks of two steps are no model");
    std::fs::rename(&aside, &lost).unwrap();
    trainer.step(&batch(step), unwatched!()).unwrap();
    assert_eq!(progress(folder.path()), (9, 6));
    let header = |block| trainer.trainer.store.files.header(block, Version::Current).unwrap().step;
    assert!((0..5).all(|block| header(block) == 6));
}

#[test]
fn a_damaged_snapshot_is_not_gone_back_to() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Full, Commit::Step);
    let pilot = Pilot::without_snapshots(hybrid(Strategy::None), schedule(), 400, SEED).unwrap();
    let mut trainer = LedTrainer::new(opened(&gpt2(), &settings).unwrap(), pilot).unwrap().with_snapshots_every(150);
    let batch_of = |step: u64| mixed(step, if step < 151 { 4 } else { 0 });
    for step in 0..151 {
        trainer.step(&batch_of(step), unwatched!()).unwrap();
    }
    // One bit, of a file of its own.
    let path = folder.path().join("snapshot/0002");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let mut reports = Vec::new();
    while !trainer.must_stop() {
        let step = trainer.trainer().num_steps();
        reports.push(report(&trainer.step(&batch_of(step), unwatched!()).unwrap()).clone());
    }
    assert!(answers(&reports).iter().all(|(.., restored)| restored.is_none()), "{:?}", answers(&reports));
    let is_told = |event: &HybridEvent| matches!(event, HybridEvent::Note(what) if what.contains("damaged"));
    assert!(reports.iter().any(|report| report.events.iter().any(is_told)));
    drop(trainer);
    assert!(opened(&gpt2(), &settings).unwrap().params().is_ok(), "blocks are whole");
}

#[test]
fn blocks_whose_progress_is_lost_are_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Compact, Commit::Step);
    let mut trainer = led(&gpt2(), &settings, Strategy::None);
    (0..3).for_each(|_| drop(stepped(&mut trainer)));
    let last = trainer.trainer().last_step().unwrap().clone();
    drop(trainer);
    let path = folder.path().join("progress.json");
    let text = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = opened(&gpt2(), &settings).unwrap_err();
    assert!(error.to_string().contains("progress.json beside blocks that have been trained"), "{error}");
    std::fs::write(&path, text).unwrap();
    let again = opened(&gpt2(), &settings).unwrap();
    assert_eq!((again.num_steps(), again.last_step().unwrap().step), (3, last.step));
}

#[test]
fn a_run_that_is_ruined_in_warmup_goes_back_to_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Full, Commit::Step);
    let ruinous = OptimizerConfig { learning_rate: 50.0, ..optimizer() };
    let opened_at = OffloadTrainer::open(network(&gpt2()), &ruinous, &settings, None, unwatched!()).unwrap();
    let first = bits(&opened_at.params().unwrap());
    // Warmup ends after ten steps.
    let pilot = Pilot::without_snapshots(hybrid(Strategy::None), schedule(), 100, SEED).unwrap();
    let mut trainer = LedTrainer::new(opened_at, pilot).unwrap().with_snapshots_every(4);
    let mut reports = Vec::new();
    while answers(&reports).iter().all(|(.., restored)| restored.is_none()) && reports.len() < 99 {
        let step = trainer.trainer().num_steps();
        reports.push(report(&trainer.step(&batch(step), unwatched!()).unwrap()).clone());
    }
    let (.., restored) = answers(&reports).pop().unwrap();
    assert_eq!(restored, Some(0), "{reports:?}");
    assert_eq!(bits(&trainer.trainer().params().unwrap()), first);
}

#[test]
fn without_room_no_snapshot_keeps_old_blocks_alive() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Compact, Commit::Block);
    let mut trainer = led(&gpt2(), &settings, Strategy::None);
    let generation: u64 = trainer.trainer.store.files.layouts.iter().map(|layout| layout.state_bytes() + 4096).sum();
    let room = || DiskRoom::of(&network(&gpt2()), &settings).unwrap();
    // A snapshot is taken at the end of Warmup: the same files until blocks move on.
    (0..3).for_each(|_| drop(stepped(&mut trainer)));
    assert_eq!((room().held_bytes, room().keeps_snapshot), (generation, true));
    assert_eq!(room().peak_learning_rate, Some(optimizer().learning_rate));
    stepped(&mut trainer);
    assert_eq!(room().held_bytes, 2 * generation);
    let plain = Commit::Block.disk_bytes(&trainer.trainer.store.files.layouts);
    assert_eq!(room().needed_bytes, plain + generation);
    trainer.discard_snapshot().unwrap();
    assert!(!folder.path().join("snapshot").exists());
    assert_eq!(room().held_bytes, generation);
}

#[test]
fn held_out_texts_are_measured_as_in_memory() {
    for config in [gpt2(), llama(true)] {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = led(&config, &settings(folder.path(), Precision::Full, Commit::Step), Strategy::None);
        (0..5).for_each(|_| drop(stepped(&mut trainer)));
        let trainer = trainer.trainer();
        // More batches than blocks, so that weights are read twice; the last one is shorter.
        let batches = |count: u64| {
            let whole = (100..100 + count).map(|step| Ok(mixed(step, 3)));
            let Batch { inputs, targets } = mixed(7, 3);
            whole.chain([Ok(Batch {
                inputs: inputs.narrow(0, 0, 5).unwrap(),
                targets: targets.narrow(0, 0, 5).unwrap(),
            })])
        };
        let found = trainer.evaluate(batches(7), unwatched!()).unwrap();
        let params = trainer.params().unwrap();
        let expected = crate::evaluation::evaluate(&network(&config), &params, batches(7), unwatched!()).unwrap();
        assert_eq!((found.num_examples, found.accuracy), (expected.num_examples, None));
        assert!((found.loss / expected.loss - 1.0).abs() < 1e-6, "{found:?} {expected:?}");
        assert!((found.loss_error / expected.loss_error - 1.0).abs() < 1e-4, "{found:?} {expected:?}");
        assert!(trainer.evaluate(std::iter::empty(), unwatched!()).is_err(), "nothing to measure");
        let cancel = crate::device::CancelFlag::default();
        cancel.set();
        let cancelled = trainer.evaluate(batches(1), crate::device::Watch::new(&cancel, &|_| {}));
        assert!(matches!(cancelled, Err(OffloadError::Cancelled(_))), "{cancelled:?}");
    }
}

/// The state files say: steps done, and updates that blocks had.
fn progress(folder: &Path) -> (u64, u64) {
    let text = std::fs::read(folder.join("progress.json")).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    (value["step"].as_u64().unwrap(), value["num_updates"].as_u64().unwrap())
}

#[test]
fn without_room_for_a_snapshot_a_step_whose_loss_diverges_moves_nothing_until_the_training_ends() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Full, Commit::Step);
    let pilot = Pilot::without_snapshots(hybrid(Strategy::None), schedule(), 400, SEED).unwrap();
    let without_snapshots = |pilot: &Pilot| {
        let mut trainer = opened(&gpt2(), &settings).unwrap();
        trainer.store.forbid_snapshots();
        LedTrainer::new(trainer, pilot.clone()).unwrap()
    };
    let mut trainer = without_snapshots(&pilot);
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
    let mut again = without_snapshots(&pilot);
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
    let mut path = trainer.trainer().store.files.path(1, Version::Current).into_os_string();
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
    let header = |block| files.store.files.header(block, Version::Current).unwrap().step;
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
            gpu: None,
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
    assert!(plain.trainer().store.files.path(4, Version::Next).exists());
    drop(plain);
    let mut trainer = led(&gpt2(), &settings, Strategy::Frozen);
    assert_eq!(report(&stepped(&mut trainer)).grad_norm, None);
    assert_eq!(bits(&trainer.trainer().params().unwrap()), before);
    drop(trainer);
    let again = opened(&gpt2(), &settings).unwrap();
    assert_eq!((again.num_steps(), bits(&again.params().unwrap()) == before), (step + 1, true));
}
