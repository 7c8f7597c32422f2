//! Training as on a GPU, without kernels of ours, against training with them.
#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::Device;

use super::trainer_tests::{bits, blobs, eager, extrapolating, trainer};
use super::*;
use crate::models::ops::without_kernels;
use crate::optim::OptimizerKind;

/// Losses of `num_steps` steps, each reported over the whole batch.
fn losses(trainer: &mut HybridTrainer, num_steps: u64) -> Vec<f32> {
    (1..=num_steps).map(|step| trainer.step(&blobs(2, step)).unwrap().loss).collect()
}

fn configs() -> Vec<(HybridConfig, OptimizerKind)> {
    let strategies = [eager(), extrapolating(Trajectory::Momentum), extrapolating(Trajectory::Fitted)];
    let with = |hybrid: &HybridConfig| [OptimizerKind::AdamW, OptimizerKind::Muon].map(|kind| (hybrid.clone(), kind));
    strategies.iter().flat_map(with).collect()
}

#[test]
fn every_strategy_and_optimizer_trains_alike() {
    for (hybrid, kind) in configs() {
        let ours = losses(&mut trainer(hybrid.clone(), kind, 2), 60);
        let composed = without_kernels(|| losses(&mut trainer(hybrid.clone(), kind, 2), 60));
        let context = format!("{:?} with {kind:?}", hybrid.strategy);
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
    for (hybrid, kind) in configs() {
        without_kernels(|| {
            let mut unbroken = trainer(hybrid.clone(), kind, 2);
            losses(&mut unbroken, 30);
            let mut resumed = trainer(hybrid.clone(), kind, 2);
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

/// A run that began on the processor goes on where there are no kernels, as it does on a GPU.
#[test]
fn a_state_of_kernels_goes_on_without_them() {
    for (hybrid, kind) in configs() {
        let mut ours = trainer(hybrid.clone(), kind, 2);
        losses(&mut ours, 12);
        let state = ours.state().unwrap();
        assert!(state.tensors.iter().all(|(_, tensor)| matches!(tensor.device(), Device::Cpu)));
        let next = ours.step(&blobs(2, 13)).unwrap().loss;
        let moved = without_kernels(|| {
            let mut moved = trainer(hybrid.clone(), kind, 2);
            moved.restore(&state).unwrap();
            moved.step(&blobs(2, 13)).unwrap().loss
        });
        assert!((next - moved).abs() < 1e-3, "{next} and {moved}, {kind:?}");
    }
}
