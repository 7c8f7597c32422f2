//! Training as on a GPU, without kernels of ours, against training with them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::trainer_tests::{
    SCHEDULE, bits, blobs, eager, extrapolating, optimizer, poisoned, restored_step, store_on, trainer, trainer_with,
};
use super::*;
use crate::data::Batch;
use crate::device::ComputeDevice;
use crate::models::ops::{Kept, Precision, without_kernels};
use crate::models::{Gpt2Config, ModelConfig, Network};
use crate::optim::{OptimizerConfig, OptimizerKind, StatePlace};

/// `work` with the first GPU where FORETRAIN_GPU asks for one (`packaging/cuda/check`), or with what stands in for one.
pub(crate) fn on_gpu<R>(work: impl FnOnce(&Device) -> R) -> R {
    if std::env::var_os("FORETRAIN_GPU").is_some() {
        return work(&ComputeDevice::Cuda(0).open().unwrap());
    }
    without_kernels(|| work(&Device::Cpu))
}

/// Losses of `num_steps` steps, each reported over the whole batch.
fn losses(trainer: &mut HybridTrainer, num_steps: u64) -> Vec<f32> {
    losses_from(trainer, 1..=num_steps)
}

fn losses_from(trainer: &mut HybridTrainer, steps: std::ops::RangeInclusive<u64>) -> Vec<f32> {
    steps.map(|step| trainer.step(&blobs(2, step)).unwrap().loss).collect()
}

/// Moments with the weights, and in the machine's memory.
const PLACES: [StatePlace; 2] = [StatePlace::WithWeights, StatePlace::HostMemory];

fn configs() -> Vec<(HybridConfig, OptimizerKind)> {
    let strategies = [eager(), extrapolating(Trajectory::Momentum), extrapolating(Trajectory::Fitted)];
    let with = |hybrid: &HybridConfig| [OptimizerKind::AdamW, OptimizerKind::Muon].map(|kind| (hybrid.clone(), kind));
    strategies.iter().flat_map(with).collect()
}

/// A trainer whose optimizer keeps its state at `place`.
fn keeping(place: StatePlace, hybrid: &HybridConfig, kind: OptimizerKind) -> HybridTrainer {
    let optimizer = OptimizerConfig { state_place: place, ..optimizer(kind) };
    trainer_with(hybrid.clone(), optimizer, (2, 2))
}

#[test]
fn every_strategy_and_optimizer_trains_alike() {
    for ((hybrid, kind), place) in configs().into_iter().flat_map(|config| PLACES.map(|place| (config.clone(), place)))
    {
        let ours = losses(&mut trainer(hybrid.clone(), kind, 2), 60);
        let composed = without_kernels(|| losses(&mut keeping(place, &hybrid, kind), 60));
        let context = format!("{:?} with {kind:?}, states {place:?}", hybrid.strategy);
        // Warmup, before rounding may tip a decision of the gate.
        for (step, (ours, composed)) in ours.iter().zip(&composed).take(10).enumerate() {
            assert!((ours - composed).abs() < 1e-3, "step {}: {ours} and {composed}, {context}", step + 1);
        }
        let end = |losses: &[f32]| losses[50..].iter().sum::<f32>() / 10.0;
        assert!(composed.iter().all(|loss| loss.is_finite()), "{context}");
        assert!(end(&composed) < 1.5 * end(&ours) + 0.05, "{} against {}, {context}", end(&composed), end(&ours));
    }
}

#[test]
fn a_state_goes_on_bit_for_bit() {
    for ((hybrid, kind), place) in configs().into_iter().flat_map(|config| PLACES.map(|place| (config.clone(), place)))
    {
        without_kernels(|| {
            let mut unbroken = keeping(place, &hybrid, kind);
            losses(&mut unbroken, 30);
            let mut resumed = keeping(place, &hybrid, kind);
            resumed.restore(&unbroken.state().unwrap()).unwrap();
            for step in 31..=45 {
                let (a, b) = (unbroken.step(&blobs(2, step)).unwrap(), resumed.step(&blobs(2, step)).unwrap());
                assert_eq!((a.loss.to_bits(), a.phase), (b.loss.to_bits(), b.phase), "step {step}, {kind:?}");
            }
            let (a, b) = (unbroken.evaluation_params().unwrap(), resumed.evaluation_params().unwrap());
            assert!(bits(&a) == bits(&b), "{kind:?}");
        });
    }
}

/// A small language model, whose text is a rule: each token follows from the one before.
fn text_trainer(device: &Device, kept: Kept, precision: Precision) -> HybridTrainer {
    let config = ModelConfig::Gpt2(Gpt2Config {
        vocab_size: 11,
        n_positions: 12,
        n_embd: 16,
        n_layer: 2,
        n_head: 2,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.1,
    });
    let network = Network::keeping(&config, kept).unwrap();
    let setup = TrainerSetup {
        store: store_on(device, &network, 4),
        network: Arc::new(network),
        hybrid: eager(),
        optimizer: OptimizerConfig { learning_rate: 0.01, ..optimizer(OptimizerKind::AdamW) },
        schedule: SCHEDULE,
        qat: None,
        num_steps: 200,
        num_micro_batches: 2,
        precision,
        seed: 4,
    };
    HybridTrainer::new(setup).unwrap()
}

fn text(device: &Device, step: u64) -> Batch {
    let next = |token: u32| (3 * token + 1) % 11;
    let sequence =
        |index: u32| std::iter::successors(Some((step as u32 * 7 + index) % 11), move |&token| Some(next(token)));
    let tokens = |skip: usize| {
        let all: Vec<u32> = (0..6).flat_map(|index| sequence(index).skip(skip).take(12)).collect();
        Tensor::from_vec(all, (6, 12), device).unwrap()
    };
    Batch { inputs: tokens(0), targets: tokens(1) }
}

fn text_losses(device: &Device, kept: Kept, precision: Precision) -> Vec<f32> {
    let mut trainer = text_trainer(device, kept, precision);
    (1..=60).map(|step| trainer.step(&text(device, step)).unwrap().loss).collect()
}

#[test]
fn products_of_sixteen_bits_train_alike() {
    let losses = |precision| on_gpu(|device| text_losses(device, Kept::Input, precision));
    let full = losses(Precision::F32);
    assert!(full[0] > 2.0 && full[59] < 0.7 * full[0], "{} to {}", full[0], full[59]);
    for (precision, tolerance) in [(Precision::Bf16, 0.05), (Precision::F16, 0.01)] {
        let rounded = losses(precision);
        assert_ne!(rounded, full, "{precision:?} rounds");
        let far = full.iter().zip(&rounded).take(20).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < tolerance && rounded[59] < 0.7 * full[0], "{precision:?}: {far}, {}", rounded[59]);
    }
}

#[test]
fn layers_that_are_computed_again_train_to_the_same_bits() {
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let [plain, again] =
            [Kept::Activations, Kept::Input].map(|kept| without_kernels(|| text_losses(&Device::Cpu, kept, precision)));
        assert_eq!(plain, again, "{precision:?}");
    }
}

#[test]
fn a_state_in_fp16_goes_on_bit_for_bit() {
    let device = &Device::Cpu;
    without_kernels(|| {
        let mut unbroken = text_trainer(device, Kept::Input, Precision::F16);
        (1..=20).for_each(|step| drop(unbroken.step(&text(device, step)).unwrap()));
        // Not where a trainer begins, and about to double.
        let mut saved = unbroken.state().unwrap();
        let mut control: serde_json::Value = serde_json::from_str(&saved.control).unwrap();
        control["loss_scale"] = serde_json::json!({"scale": 512.0, "num_finite": 1995});
        saved.control = control.to_string();
        unbroken.restore(&saved).unwrap();
        let mut resumed = text_trainer(device, Kept::Input, Precision::F16);
        resumed.restore(&saved).unwrap();
        for step in 21..=30 {
            let batch = text(device, step);
            let (a, b) = (unbroken.step(&batch).unwrap(), resumed.step(&batch).unwrap());
            assert_eq!((a.loss.to_bits(), a.phase), (b.loss.to_bits(), b.phase), "step {step}");
            let [a, b] = [&unbroken, &resumed].map(|trainer| trainer.state().unwrap().control);
            assert_eq!(a, b, "step {step}");
        }
        let control: serde_json::Value = serde_json::from_str(&resumed.state().unwrap().control).unwrap();
        assert_eq!(control["loss_scale"]["scale"], 1024.0);
    });
}

/// A run that began on the processor goes on where there are no kernels, as it does on a GPU.
#[test]
fn a_state_of_kernels_goes_on_without_them() {
    for (hybrid, kind) in configs() {
        let mut ours = trainer(hybrid.clone(), kind, 2);
        losses(&mut ours, 12);
        let state = ours.state().unwrap();
        assert!(state.tensors.iter().all(|(_, tensor)| matches!(tensor.device(), Device::Cpu)));
        let next = ours.step(&blobs(2, 13)).unwrap().loss;
        for place in PLACES {
            let moved = without_kernels(|| {
                let mut moved = keeping(place, &hybrid, kind);
                moved.restore(&state).unwrap();
                moved.step(&blobs(2, 13)).unwrap().loss
            });
            assert!((next - moved).abs() < 1e-3, "{next} and {moved}, {kind:?}, states {place:?}");
        }
    }
}

/// Back on the processor, or on a GPU with the setting changed.
#[test]
fn a_state_of_host_memory_goes_on_elsewhere() {
    for (hybrid, kind) in configs() {
        let (state, next) = without_kernels(|| {
            let mut offloaded = keeping(StatePlace::HostMemory, &hybrid, kind);
            losses(&mut offloaded, 12);
            (offloaded.state().unwrap(), losses_from(&mut offloaded, 13..=15))
        });
        let mut here = trainer(hybrid.clone(), kind, 2);
        here.restore(&state).unwrap();
        let on_processor = losses_from(&mut here, 13..=15);
        let on_gpu = without_kernels(|| {
            let mut with_weights = keeping(StatePlace::WithWeights, &hybrid, kind);
            with_weights.restore(&state).unwrap();
            losses_from(&mut with_weights, 13..=15)
        });
        for ((next, on_processor), on_gpu) in next.into_iter().zip(on_processor).zip(on_gpu) {
            let far = (next - on_processor).abs().max((next - on_gpu).abs());
            assert!(far < 1e-3, "{next}, {on_processor} and {on_gpu}, {kind:?}");
        }
    }
}

/// What a recovery goes back to is in the machine's memory: the state comes back to the device as it was.
#[test]
fn a_recovery_brings_states_back() {
    for (place, kind) in
        PLACES.into_iter().flat_map(|place| [OptimizerKind::AdamW, OptimizerKind::Muon].map(|kind| (place, kind)))
    {
        without_kernels(|| {
            let mut trainer = keeping(place, &eager(), kind);
            losses(&mut trainer, 30);
            assert!(trainer.mark_good().unwrap());
            let good = trainer.state().unwrap();
            losses_from(&mut trainer, 31..=35);
            let reports: Vec<_> = (36..=38).map(|step| trainer.step(&poisoned(2, step)).unwrap()).collect();
            assert_eq!(restored_step(&reports[2]), Some(30), "{place:?}, {kind:?}");
            let back = trainer.state().unwrap();
            let optimizer = |state: &TrainerState| {
                let names = |(name, tensor): (&str, &Tensor)| {
                    let is_moment = name.starts_with("optimizer.") && !name.ends_with("step");
                    is_moment.then(|| (name.to_owned(), tensor.clone()))
                };
                bits(&state.tensors.iter().filter_map(names).collect())
            };
            assert!(bits(&good.weights()) == bits(&back.weights()), "{place:?}, {kind:?}");
            assert!(optimizer(&good) == optimizer(&back), "{place:?}, {kind:?}");
        });
    }
}
