//! Quantization-aware training of the trainer: against the textbook, in all phases, over its switch and its rollbacks.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::trainer_tests::{CLASSES, SCHEDULE, bits, blobs, eager, extrapolating, optimizer, poisoned, train, weights};
use super::*;
use crate::models::ops::{Precision, cross_entropy};
use crate::models::{Activation, Forward, MlpConfig, Mode, ModelConfig, Network, ParamStore, Params, initial_params};
use crate::optim::{Gradients, Optimizer, OptimizerKind};
use crate::quant::{QatConfig, QuantScheme, quantize};

/// Two hidden layers, the second of which is neither the first layer, which sees pixels, nor the head.
fn network() -> Network {
    Network::new(&ModelConfig::Mlp(MlpConfig {
        in_channels: 1,
        image_size: (3, 3),
        hidden_sizes: vec![24, 24],
        num_classes: CLASSES,
        activation: Activation::Relu,
    }))
    .unwrap()
}

/// The tensor that ternary takes.
const HIDDEN: &str = "layers.1.weight";

fn store(seed: u64) -> ParamStore {
    let (weights, buffers) = initial_params(&network(), seed, &Device::Cpu).unwrap();
    ParamStore::new(weights, buffers, &Device::Cpu).unwrap()
}

fn trainer(hybrid: HybridConfig, qat: Option<QatConfig>, seed: u64) -> HybridTrainer {
    let setup = TrainerSetup {
        network: Arc::new(network()),
        store: store(seed),
        hybrid,
        optimizer: optimizer(OptimizerKind::AdamW),
        schedule: SCHEDULE,
        qat,
        num_steps: 200,
        num_micro_batches: 1,
        precision: Precision::F32,
        seed,
    };
    HybridTrainer::new(setup).unwrap()
}

fn ternary(start_fraction: f64, ramp_fraction: f64) -> Option<QatConfig> {
    Some(QatConfig { scheme: QuantScheme::Ternary, start_fraction, ramp_fraction })
}

fn divergences(reports: &[StepReport]) -> Vec<&HybridEvent> {
    let events = reports.iter().flat_map(|report| &report.events);
    events.filter(|event| matches!(event, HybridEvent::Diverged { .. })).collect()
}

fn distance(a: &Params, b: &Params) -> f32 {
    let each = a.iter().map(|(name, tensor)| {
        let change = (tensor - b.get(name).unwrap()).unwrap().abs().unwrap();
        change.max_all().unwrap().to_scalar::<f32>().unwrap()
    });
    each.fold(0.0, f32::max)
}

#[test]
fn before_the_switch_training_is_what_it_would_be_without_bit_for_bit() {
    let mut aware = trainer(eager(), ternary(0.5, 0.2), 1);
    let mut plain = trainer(eager(), None, 1);
    let (with, without) = (train(&mut aware, 1, 1..=100), train(&mut plain, 1, 1..=100));
    assert!(weights(&aware) == weights(&plain), "weights differ");
    assert!(with.iter().all(|report| report.quantization == Some(0.0)));
    assert!(without.iter().all(|report| report.quantization.is_none()));
    assert!(with.iter().zip(&without).all(|(a, b)| (a.phase, a.loss, &a.events) == (b.phase, b.loss, &b.events)));
    let evaluated = bits(&aware.evaluation_params().unwrap());
    assert!(evaluated == bits(&plain.evaluation_params().unwrap()), "what ships is full precision still");
    let report = aware.step(&blobs(1, 101)).unwrap();
    assert!(report.quantization.is_some_and(|strength| (strength - 1.0 / 40.0).abs() < 1e-6));
    assert!(matches!(&report.events[..], [HybridEvent::Note(what), ..] if what.contains("ternary")));
}

/// The optimizer steps by the gradient of `w + (s · (q(w) - w)).detach()`, through candle's own graph.
#[test]
fn the_trainer_is_the_textbook() {
    let vanilla = TierPreset::named("vanilla").unwrap().config();
    let qat = ternary(0.05, 0.1);
    let mut aware = trainer(vanilla, qat, 2);
    let (network, store) = (network(), store(2));
    let mut optimizer = Optimizer::new(&optimizer(OptimizerKind::AdamW), &network.specs()).unwrap();
    for step in 1..=60 {
        let batch = blobs(2, step);
        let report = aware.step(&batch).unwrap();
        let stored =
            quantize(&network.specs(), &store.detached(), QuantScheme::Ternary).unwrap().dequantized().unwrap();
        let strength = qat.unwrap().strength(step, 200);
        let params = store.tracked().map(|name, weight| {
            let change = ((stored.get(name)? - weight.detach())? * strength)?;
            Ok::<Tensor, HybridError>((weight + change.detach())?)
        });
        let logits = network.forward(&Forward::new(&params.unwrap(), Mode::Train), &batch.inputs).unwrap();
        let loss = cross_entropy(&logits, &batch.targets).unwrap().mean_all().unwrap();
        let mut gradients = Gradients::from_backward(&loss.backward().unwrap(), &store).unwrap();
        gradients.clip(1.0).unwrap();
        optimizer.step(&store, &gradients, SCHEDULE.factor(step, 200)).unwrap();
        let loss = loss.to_scalar::<f32>().unwrap();
        assert!((report.loss - loss).abs() < 2e-3, "step {step}: {} against the textbook's {loss}", report.loss);
    }
    // Two ways to round the same sums; Adam makes a step of any gradient, so that a last bit can grow.
    let apart = distance(&aware.store().detached(), &store.detached());
    assert!(apart < 5e-3, "{apart}");
    let moved = distance(&aware.store().detached(), &self::store(2).detached());
    assert!(moved > 0.1, "{moved}");
}

#[test]
fn all_phases_happen_on_quantized_weights_and_nothing_diverges() {
    for (start, ramp) in [(0.0, 0.0), (0.2, 0.0), (0.1, 0.15)] {
        let mut aware = trainer(eager(), ternary(start, ramp), 2);
        let reports = train(&mut aware, 2, 1..=160);
        assert!(divergences(&reports).is_empty(), "{:?}", divergences(&reports));
        let settled = reports.iter().filter(|report| report.quantization == Some(1.0));
        let phases: BTreeSet<String> = settled.map(|report| format!("{:?}", report.phase)).collect();
        assert!(
            ["Full", "Predict", "Correct"].iter().all(|phase| phases.contains(*phase)),
            "{start} {ramp}: {phases:?}"
        );
        let ramping = reports.iter().filter(|report| report.quantization.is_some_and(|s| s > 0.0 && s < 1.0));
        assert!(ramping.clone().all(|report| !report.phase.predicts()), "{start} {ramp}");
        assert_eq!(ramping.count(), (ramp * 200.0) as usize - usize::from(ramp > 0.0));
        // What ships has three values, and the weights behind it have more.
        let values = |params: Params| -> BTreeSet<u32> {
            let values = params.get(HIDDEN).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values.iter().map(|value| value.abs().to_bits()).collect()
        };
        assert_eq!(values(aware.evaluation_params().unwrap()).len(), 2);
        assert!(values(aware.trained_params().unwrap()).len() > 100);
    }
}

#[test]
fn extrapolated_moves_are_of_the_latent_weights() {
    for trajectory in [Trajectory::Momentum, Trajectory::Fitted] {
        let mut aware = trainer(extrapolating(trajectory), ternary(0.0, 0.0), 2);
        let mut num_moved = 0;
        for step in 1..=200 {
            let before = weights(&aware);
            let report = aware.step(&blobs(2, step)).unwrap();
            num_moved += u32::from(report.phase == Phase::Predict && weights(&aware) != before);
        }
        assert!(num_moved > 5, "{trajectory:?}: {num_moved}");
        let latent = aware.store().detached().get(HIDDEN).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let distinct: BTreeSet<u32> = latent.iter().map(|value| value.to_bits()).collect();
        assert!(distinct.len() > 100, "{trajectory:?}: {}", distinct.len());
    }
}

#[test]
fn a_restored_trainer_goes_on_bit_for_bit_from_any_moment() {
    let qat = ternary(0.15, 0.1);
    let mut unbroken = trainer(eager(), qat, 4);
    train(&mut unbroken, 4, 1..=90);
    for cut in [20, 31, 40, 49, 50, 51, 70] {
        let mut first_half = trainer(eager(), qat, 4);
        train(&mut first_half, 4, 1..=cut);
        let saved = first_half.state().unwrap();
        let mut second_half = trainer(eager(), qat, 4);
        second_half.restore(&saved).unwrap();
        assert_eq!(second_half.quantization_strength(), first_half.quantization_strength());
        train(&mut second_half, 4, cut + 1..=90);
        assert!(weights(&second_half) == weights(&unbroken), "cut after step {cut}");
        let shipped = |trainer: &HybridTrainer| bits(&trainer.evaluation_params().unwrap());
        assert!(shipped(&second_half) == shipped(&unbroken), "cut after step {cut}");
    }
}

#[test]
fn a_rollback_over_the_switch_expects_nothing_of_the_losses_before_it() {
    // The good weights are those of the end of Warmup, in full precision.
    let mut aware = trainer(eager(), ternary(0.2, 0.0), 3);
    train(&mut aware, 3, 1..=50);
    assert!(aware.good_step() < 40);
    let poison: Vec<StepReport> = (51..=53).map(|step| aware.step(&poisoned(3, step)).unwrap()).collect();
    assert!(
        poison
            .iter()
            .flat_map(|report| &report.events)
            .any(|event| { matches!(event, HybridEvent::Diverged { restored_step: Some(step), .. } if *step < 40) })
    );
    let reports = train(&mut aware, 3, 54..=160);
    assert!(divergences(&reports).is_empty(), "{:?}", divergences(&reports));
    assert!(reports.iter().all(|report| report.quantization == Some(1.0)));
}

#[test]
fn settings_out_of_range_are_refused() {
    let setup = |qat| TrainerSetup {
        network: Arc::new(network()),
        store: store(1),
        hybrid: eager(),
        optimizer: optimizer(OptimizerKind::AdamW),
        schedule: SCHEDULE,
        qat,
        num_steps: 200,
        num_micro_batches: 1,
        precision: Precision::F32,
        seed: 1,
    };
    assert!(matches!(HybridTrainer::new(setup(ternary(1.5, 0.0))), Err(HybridError::Quant(_))));
    assert!(HybridTrainer::new(setup(ternary(0.5, 0.5))).is_ok());
}
