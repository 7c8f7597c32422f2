//! Streamed training as a GPU computes it, composed of candle's operations, against that of our own kernels. With
//! FORETRAIN_GPU=required the first GPU computes, where tests of bits do not ask for more than it gives; else the processor
//! stands in for one (`packaging/cuda/check`).
#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::Device;

use super::led_tests::{self, led};
use super::tests::{batch, bits, difference, gpt2, llama, network, opened, optimizer, planned_on, settings};
use super::*;
use crate::data::Batch;
use crate::device::{CancelFlag, GpuBudget, Progress, Watch};
use crate::hybrid::composed_tests::on_gpu;
use crate::hybrid::{Phase, Strategy};
use crate::memory::{CUDA_BYTES, PlanKind};
use crate::models::ops::{self, on_processor, without_kernels};
use crate::models::{DataShape, ModelConfig, ModelPreset};
use crate::optim::OptimizerConfig;
use crate::unwatched;

fn moved(batch: Batch, device: &Device) -> Batch {
    Batch { inputs: batch.inputs.to_device(device).unwrap(), targets: batch.targets.to_device(device).unwrap() }
}

fn stepped(trainer: &mut OffloadTrainer, device: &Device) -> StreamedStep {
    trainer.step(&moved(batch(trainer.num_steps()), device), 1.0, unwatched!()).unwrap()
}

#[test]
fn a_step_is_that_of_kernels() {
    // With so large an epsilon an update is nearly proportional to the gradient, rounding errors and all.
    let optimizer = OptimizerConfig { epsilon: 1.0, weight_decay: 0.0, learning_rate: 0.3, ..optimizer() };
    for config in [gpt2(), llama(false), llama(true)] {
        let train = |device: &Device| {
            let folder = tempfile::tempdir().unwrap();
            let settings = settings(folder.path(), Precision::Full, Commit::Step);
            let trainer = OffloadTrainer::open(network(&config), &optimizer, &settings, None, unwatched!()).unwrap();
            let mut trainer = trainer.computing_on(device.clone());
            let before = trainer.params().unwrap();
            let steps: Vec<StreamedStep> = (0..6).map(|_| stepped(&mut trainer, device)).collect();
            let after = trainer.params().unwrap();
            assert!(difference(&before, &after) > 1e-2, "nothing moved");
            (steps, after)
        };
        let ((ours, ours_after), (theirs, theirs_after)) = (train(&Device::Cpu), on_gpu(train));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!((ours.loss - theirs.loss).abs() < 1e-4, "{} {}", ours.loss, theirs.loss);
            let (ours, theirs) = (ours.grad_norm.unwrap(), theirs.grad_norm.unwrap());
            assert!((ours / theirs - 1.0).abs() < 1e-3, "{ours} {theirs}");
        }
        let difference = difference(&ours_after, &theirs_after);
        assert!(difference < 1e-4, "{difference}");
    }
}

#[test]
fn compact_numbers_learn_as_with_kernels() {
    for config in [gpt2(), llama(false)] {
        let train = |device: &Device| {
            let folder = tempfile::tempdir().unwrap();
            let trainer = opened(&config, &settings(folder.path(), Precision::Compact, Commit::Block)).unwrap();
            let mut trainer = trainer.computing_on(device.clone());
            let losses: Vec<f64> = (0..40).map(|_| stepped(&mut trainer, device).loss).collect();
            (losses[0], losses[32..].iter().sum::<f64>() / 8.0)
        };
        let (ours, theirs) = (train(&Device::Cpu), on_gpu(train));
        assert!((ours.0 - theirs.0).abs() < 1e-4, "{ours:?} {theirs:?}");
        assert!(theirs.1 < theirs.0 - 1.0 && (ours.1 - theirs.1).abs() < 0.1 * ours.1 + 0.05, "{ours:?} {theirs:?}");
    }
}

#[test]
fn a_led_training_goes_through_the_same_phases() {
    for config in [gpt2(), llama(true)] {
        for strategy in [Strategy::None, Strategy::Importance] {
            let train = |device: &Device| {
                let folder = tempfile::tempdir().unwrap();
                let settings = settings(folder.path(), Precision::Full, Commit::Step);
                let mut trainer = led(&config, &settings, strategy).computing_on(device.clone());
                let step = |step| {
                    let batch = moved(led_tests::batch(step), device);
                    trainer.step(&batch, unwatched!()).unwrap().hybrid.unwrap()
                };
                (0..led_tests::NUM_STEPS).map(step).collect::<Vec<_>>()
            };
            let (ours, theirs) = (train(&Device::Cpu), on_gpu(train));
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_eq!((ours.step, ours.phase), (theirs.step, theirs.phase), "{strategy:?}");
                assert!((theirs.loss / ours.loss - 1.0).abs() < 2e-2, "{} {} {strategy:?}", ours.loss, theirs.loss);
                if let (Some(ours), Some(theirs)) = (ours.correction, theirs.correction) {
                    assert!((ours.cosine - theirs.cosine).abs() < 2e-2, "{ours:?} {theirs:?}");
                }
            }
            let has = |phase| theirs.iter().any(|report| report.phase == phase);
            assert_eq!((has(Phase::Predict), has(Phase::Correct)), (strategy.predicts(), strategy.predicts()));
        }
    }
}

#[test]
fn logits_in_parts_give_the_same_step() {
    let optimizer = OptimizerConfig { epsilon: 1.0, weight_decay: 0.0, learning_rate: 0.3, ..optimizer() };
    for config in [gpt2(), llama(false)] {
        let [whole, parts] = [1 << 20, 61 * 7].map(|max_logits| {
            on_gpu(|device| {
                let folder = tempfile::tempdir().unwrap();
                let settings = settings(folder.path(), Precision::Full, Commit::Step);
                let open = OffloadTrainer::open(network(&config), &optimizer, &settings, None, unwatched!());
                let mut trainer = open.unwrap().computing_on(device.clone());
                trainer.set_max_logits(max_logits);
                let losses = [(); 2].map(|()| stepped(&mut trainer, device).loss);
                let batches = [Ok(moved(batch(9), device))].into_iter();
                (losses, trainer.evaluate(batches, unwatched!()).unwrap().loss, trainer.params().unwrap())
            })
        });
        for (whole, parts) in whole.0.iter().chain([&whole.1]).zip(parts.0.iter().chain([&parts.1])) {
            assert!((whole - parts).abs() < 1e-5, "{whole} {parts}");
        }
        let difference = difference(&whole.2, &parts.2);
        assert!(difference < 1e-5, "{difference}");
    }
}

#[test]
fn held_out_texts_are_measured_alike() {
    for config in [gpt2(), llama(true)] {
        let measure = |device: &Device| {
            let folder = tempfile::tempdir().unwrap();
            let trainer = opened(&config, &settings(folder.path(), Precision::Compact, Commit::Step)).unwrap();
            let trainer = trainer.computing_on(device.clone());
            let batches = (0..7).map(|step| Ok(moved(batch(step), device)));
            trainer.evaluate(batches, unwatched!()).unwrap().loss
        };
        let (ours, theirs) = (measure(&Device::Cpu), on_gpu(measure));
        assert!((ours - theirs).abs() < 1e-4, "{ours} {theirs}");
    }
}

#[test]
fn a_folder_goes_on_on_any_device() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = |folder: &tempfile::TempDir| {
        opened(&llama(true), &settings(folder.path(), Precision::Full, Commit::Step)).unwrap()
    };
    let expected: Vec<f64> = {
        let mut trainer = open(&here);
        (0..6).map(|_| stepped(&mut trainer, &Device::Cpu).loss).collect()
    };
    let mut found = Vec::new();
    while found.len() < 6 {
        // Two steps on the processor, two on the GPU, two on the processor.
        let mut part = |device: &Device| {
            let mut trainer = open(&there).computing_on(device.clone());
            found.extend((0..2).map(|_| stepped(&mut trainer, device).loss));
        };
        part(&Device::Cpu);
        on_gpu(&mut part);
        part(&Device::Cpu);
    }
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-3, "{found} {expected}");
    }
    assert_eq!(open(&there).describe(), "Step 6 is saved");
}

#[test]
fn a_training_that_goes_on_equals_an_unbroken_one() {
    for (precision, commit) in [(Precision::Compact, Commit::Step), (Precision::Full, Commit::Block)] {
        without_kernels(|| {
            let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let mut unbroken = opened(&gpt2(), &settings(whole.path(), precision, commit)).unwrap();
            (0..4).for_each(|_| drop(stepped(&mut unbroken, &Device::Cpu)));
            for until in [1, 3, 4] {
                let mut part = opened(&gpt2(), &settings(broken.path(), precision, commit)).unwrap();
                while part.num_steps() < until {
                    stepped(&mut part, &Device::Cpu);
                }
            }
            let again = opened(&gpt2(), &settings(broken.path(), precision, commit)).unwrap();
            assert_eq!(bits(&unbroken.params().unwrap()), bits(&again.params().unwrap()));
        });
    }
}

/// A device that vanishes when three of five blocks have moved, as CUDA's bindings tell it.
fn vanish(progress: Progress) {
    assert!(!progress.what.contains("backward") || progress.done < 7, "CUDA_ERROR_DEVICE_UNAVAILABLE");
}

#[test]
fn a_gpu_that_fails_leaves_whole_blocks_and_says_what_to_do() {
    for (commit, saved) in [
        (Commit::Step, "Step 1 is saved"),
        (Commit::Block, "Step 1 is saved, and 3 of 5 blocks have step 2; going on finishes it"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let there = settings(folder.path(), Precision::Compact, commit);
        let cancel = CancelFlag::default();
        let watch = Watch::new(&cancel, &vanish);
        without_kernels(|| {
            let mut trainer = opened(&llama(false), &there).unwrap();
            stepped(&mut trainer, &Device::Cpu);
            let before = bits(&trainer.params().unwrap());
            let error = trainer.step(&batch(1), 1.0, watch).unwrap_err();
            assert!(matches!(&error, OffloadError::Gpu { state, .. } if state == saved), "{error}");
            let message = error.to_string();
            for part in ["computing step 2 on the GPU", "CUDA_ERROR_DEVICE_UNAVAILABLE", saved, "--device cpu"] {
                assert!(message.contains(part), "expected {part:?} in {message:?}");
            }
            assert_eq!(bits(&trainer.params().unwrap()) == before, commit == Commit::Step);
        });
        // The processor goes on.
        let mut trainer = opened(&llama(false), &there).unwrap();
        assert_eq!(trainer.describe(), saved);
        let step = stepped(&mut trainer, &Device::Cpu);
        assert_eq!((step.step, step.num_kept), (2, if commit == Commit::Step { 0 } else { 3 }));
        assert_eq!(trainer.describe(), "Step 2 is saved");
    }
}

#[test]
fn an_error_of_a_gpu_is_told_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let trainer = opened(&gpt2(), &settings(folder.path(), Precision::Compact, Commit::Step)).unwrap();
    let fail = || {
        let error = candle_core::Error::Msg("CUDA_ERROR_OUT_OF_MEMORY".to_owned());
        trainer.computed::<()>("computing step 1", || Err(error.into())).unwrap_err()
    };
    assert!(matches!(fail(), OffloadError::Tensor(_)), "the processor's own");
    let message = without_kernels(fail).to_string();
    for part in ["computing step 1 on the GPU: CUDA_ERROR_OUT_OF_MEMORY", "Step 0 is saved", "smaller batches"] {
        assert!(message.contains(part), "expected {part:?} in {message:?}");
    }
    // What is no device's stays what it is.
    let other = || trainer.computed::<()>("computing step 1", || Err(OffloadError::Thread { what: "reads" }));
    assert!(matches!(without_kernels(other), Err(OffloadError::Thread { .. })));
}

#[test]
fn a_rehearsal_is_on_the_device_that_trains() {
    let folder = tempfile::tempdir().unwrap();
    let shape = StepShape {
        batch_size: 2,
        sequence_length: 8,
        products: ops::Precision::F32,
        precision: Precision::Compact,
        sampling: Some(0.5),
    };
    let measure =
        |device: &Device| Rates::measure((folder.path(), device), &network(&gpt2()), &optimizer(), shape, unwatched!());
    let rates = on_gpu(measure).unwrap();
    // What a sample costs is lost among so few tokens.
    assert!(rates.flops > 0.0 && rates.streamed_weights.unwrap() > 0.0, "{rates:?}");
}

#[test]
fn updates_have_kernels_beside_a_gpu() {
    let folder = tempfile::tempdir().unwrap();
    let there = settings(folder.path(), Precision::Compact, Commit::Step);
    without_kernels(|| {
        let mut trainer = opened(&llama(true), &there).unwrap();
        assert!(!ops::has_kernels(&Device::Cpu) && on_processor(|| ops::has_kernels(&Device::Cpu)));
        assert!(stepped(&mut trainer, &Device::Cpu).grad_norm.unwrap() > 0.0);
        assert!(!ops::has_kernels(&Device::Cpu), "put back");
    });
}

fn gpu(bytes: u64) -> Option<GpuBudget> {
    Some(GpuBudget { bytes, source: "what is free of a GPU".to_owned() })
}

fn preset(preset: ModelPreset, vocab_size: usize) -> ModelConfig {
    preset.config(DataShape::Text { vocab_size }).unwrap()
}

#[test]
fn seven_billion_weights_take_a_few_gigabytes_of_a_gpu() {
    const GIB: u64 = 1 << 30;
    let config = preset(ModelPreset::Llama7B, 32_000);
    let here = planned_on(None, &config, (1, 128), 16 * GIB);
    let plan = planned_on(gpu(6 * GIB), &config, (1, 128), 16 * GIB);
    let there = plan.gpu.as_ref().unwrap();
    assert!(here.gpu.is_none() && here.fits() && plan.fits(), "{plan:?}");
    let of = |plan: &crate::memory::MemoryPlan, kind| {
        plan.items.iter().find(|item| item.kind == kind).map_or(0, |item| item.bytes)
    };
    // At the embedding: its table, and that gradient three times.
    let table = 4096 * 32_000_u64;
    assert_eq!(of(there, PlanKind::Weights), 4 * table);
    assert_eq!(of(there, PlanKind::Gradients), 4 * 3 * table);
    assert_eq!(of(there, PlanKind::Logits), 0);
    assert_eq!(of(there, PlanKind::Runtime), CUDA_BYTES);
    assert!(there.total_bytes() < 3 * GIB && plan.memory.total_bytes() < here.memory.total_bytes(), "{plan:?}");
    // What is activations there is none here.
    assert_eq!((of(&plan.memory, PlanKind::Activations), of(&plan.memory, PlanKind::Logits)), (0, 0));
    assert!(of(&plan.memory, PlanKind::Weights) < of(&here.memory, PlanKind::Weights));
    // Files are the same.
    assert_eq!((plan.read_bytes, plan.written_bytes), (here.read_bytes, here.written_bytes));
}

#[test]
fn a_gpu_s_share_that_does_not_fit_says_what_would() {
    const GIB: u64 = 1 << 30;
    let config = preset(ModelPreset::Gpt2_124M, 50_257);
    let ample = planned_on(gpu(u64::MAX), &config, (16, 1024), 64 * GIB);
    let needs = ample.gpu.as_ref().unwrap().total_bytes();
    let tight = planned_on(gpu(needs - 1), &config, (16, 1024), 64 * GIB);
    assert!(tight.memory.fits() && !tight.fits() && tight.over() == tight.gpu.as_ref());
    let words: Vec<String> = tight.gpu.unwrap().remedies.iter().map(ToString::to_string).collect();
    assert!(words[0].starts_with("batches of 8") && words[1].contains("sequences of 512"), "{words:?}");
    assert!(words[2].contains("or the processor"), "{words:?}");
    // Logits are there for a part of the tokens at a time: 32 Mi of them, three times in all.
    let logits = ample.gpu.as_ref().unwrap().items.iter().find(|item| item.kind == PlanKind::Logits);
    assert!(logits.is_none_or(|item| item.bytes <= 3 * 4 * crate::models::MAX_LOGITS as u64), "{logits:?}");
    // Halved, it is as planned for that by itself.
    let half = planned_on(gpu(u64::MAX), &config, (8, 1024), 64 * GIB).gpu.unwrap().total_bytes();
    assert!(words[0].contains(&crate::memory::format_bytes(half)) && half < needs);
    // The machine's own budget is told first.
    let none = planned_on(gpu(0), &config, (1, 128), 0);
    assert_eq!(none.over(), Some(&none.memory));
}
