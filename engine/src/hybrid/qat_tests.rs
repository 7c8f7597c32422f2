//! Quantization-aware training of the trainer: against the textbook, in all phases, over its switch and its rollbacks.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::trainer_tests::{CLASSES, SCHEDULE, bits, blobs, eager, extrapolating, optimizer, poisoned, train, weights};
use super::*;
use crate::models::ops::{Activations, Precision, cross_entropy, distillation_loss, without_kernels};
use crate::models::{Activation, Forward, MlpConfig, Mode, ModelConfig, Network, ParamStore, Params, initial_params};
use crate::optim::{Gradients, Optimizer, OptimizerKind};
use crate::quant::{Distillation, QatConfig, QuantScheme, quantize};

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
    let activations = Activations::Floats;
    let plain = QatConfig::fine_tuning(QuantScheme::Ternary);
    Some(QatConfig { start_fraction, ramp_fraction, activations, ..plain })
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

/// From the switch on the hidden matrix reads what foretrain-edge gives it; the first layer and the head, which stay
/// floats, read their inputs as they are.
#[test]
fn inputs_of_integer_matrices_are_rounded_from_the_switch_on() {
    let qat = ternary(0.5, 0.0).map(|qat| QatConfig { activations: Activations::Int8, ..qat });
    let (mut rounded, mut floats) = (trainer(eager(), qat, 1), trainer(eager(), ternary(0.5, 0.0), 1));
    train(&mut rounded, 1, 1..=100);
    train(&mut floats, 1, 1..=100);
    assert!(weights(&rounded) == weights(&floats), "rounded before the switch");
    let reads = |trainer: &HybridTrainer, name: &str| trainer.evaluation_params().unwrap().activations_of(name);
    assert_eq!(reads(&rounded, HIDDEN), Activations::Floats);
    train(&mut rounded, 1, 101..=160);
    train(&mut floats, 1, 101..=160);
    assert!(weights(&rounded) != weights(&floats), "not rounded after the switch");
    let others = ["layers.0.weight", "layers.2.weight"].map(|name| reads(&rounded, name));
    assert_eq!((reads(&rounded, HIDDEN), others), (Activations::Int8, [Activations::Floats; 2]));
    assert_eq!(reads(&floats, HIDDEN), Activations::Floats);
    // A checkpoint goes on bit for bit.
    let saved = rounded.state().unwrap();
    let mut restored = trainer(eager(), qat, 1);
    restored.restore(&saved).unwrap();
    train(&mut rounded, 1, 161..=180);
    train(&mut restored, 1, 161..=180);
    assert!(weights(&rounded) == weights(&restored));
}

fn taught(weight: f64) -> Option<QatConfig> {
    let distillation = Some(Distillation { weight, temperature: 2.0 });
    ternary(0.5, 0.0).map(|qat| QatConfig { distillation, ..qat })
}

/// Training that learns from a teacher alone comes closer to the teacher's answers than training on the data does.
#[test]
fn who_learns_from_a_teacher_answers_more_like_it() {
    let distance_to_teacher = |weight: f64, seed: u64| {
        let qat = if weight > 0.0 { taught(weight) } else { ternary(0.5, 0.0) };
        let mut trainer = trainer(TierPreset::named("vanilla").unwrap().config(), qat, seed);
        train(&mut trainer, seed, 1..=100);
        let teacher = trainer.trained_params().unwrap().map(|_, tensor| tensor.copy()).unwrap();
        let reports = train(&mut trainer, seed, 101..=200);
        assert!(divergences(&reports).is_empty());
        let answers = |params: &Params| {
            let batch = blobs(seed, 10_000);
            network().forward(&Forward::new(params, Mode::Eval), &batch.inputs).unwrap()
        };
        let (student, teacher) = (answers(&trainer.evaluation_params().unwrap()), answers(&teacher));
        let losses = distillation_loss(&student, &teacher, 1.0).unwrap();
        losses.mean_all().unwrap().to_scalar::<f32>().unwrap()
    };
    let mean = |weight: f64| (1..=4).map(|seed| distance_to_teacher(weight, seed)).sum::<f32>() / 4.0;
    let (data, teacher) = (mean(0.0), mean(1.0));
    assert!(teacher < 0.8 * data, "{teacher} from the teacher, {data} from the data");
}

#[test]
fn a_teacher_costs_a_forward_pass_for_each_example_that_learns() {
    let mut trainer = trainer(eager(), taught(0.5), 2);
    let before = train(&mut trainer, 2, 1..=100);
    assert!(before.iter().all(|report| report.distillation.is_none()));
    let reports = train(&mut trainer, 2, 101..=180);
    assert!(reports[0].events.iter().any(|event| matches!(event, HybridEvent::Note(what) if what.contains("teach"))));
    let mut phases = BTreeSet::new();
    for report in &reports {
        phases.insert(format!("{:?}", report.phase));
        let (n, forward, backward) = (report.num_examples, report.num_forward, report.num_backward);
        let expected = match report.phase {
            Phase::Warmup | Phase::Full => 2 * n,
            // Everything is looked at once; the sample goes again, and once through the teacher.
            Phase::Predict if backward < n => n + 2 * backward,
            Phase::Predict | Phase::Correct => 2 * backward,
        };
        assert_eq!(forward, expected, "{report:?}");
        if report.phase != Phase::Predict {
            assert!(report.distillation.is_some_and(|loss| loss >= 0.0), "{report:?}");
        }
    }
    assert!(["Full", "Predict", "Correct"].iter().all(|phase| phases.contains(*phase)), "{phases:?}");
    // The losses that are told stay those of the data: what the network computes at once after the switch differs from
    // what it computed before by the quantization alone.
    let mut alone = self::trainer(eager(), ternary(0.5, 0.0), 2);
    train(&mut alone, 2, 1..=100);
    assert_eq!(alone.step(&blobs(2, 101)).unwrap().loss, reports[0].loss);
}

#[test]
fn a_taught_trainer_goes_on_bit_for_bit_and_keeps_its_teacher() {
    let mut unbroken = trainer(eager(), taught(0.5), 4);
    train(&mut unbroken, 4, 1..=150);
    for cut in [60, 100, 101, 120] {
        let mut first_half = trainer(eager(), taught(0.5), 4);
        train(&mut first_half, 4, 1..=cut);
        let saved = first_half.state().unwrap();
        assert_eq!(
            saved.tensors.iter().any(|(name, _)| name.starts_with("teacher.")),
            cut > 100,
            "cut after step {cut}"
        );
        let mut second_half = trainer(eager(), taught(0.5), 4);
        second_half.restore(&saved).unwrap();
        train(&mut second_half, 4, cut + 1..=150);
        assert!(weights(&second_half) == weights(&unbroken), "cut after step {cut}");
    }
}

/// As on a GPU, which has none of our kernels: with rounded inputs, a teacher, and a state that comes from the processor.
#[test]
fn it_trains_alike_without_kernels() {
    let qat = taught(0.5).map(|qat| QatConfig { activations: Activations::Int8, ..qat });
    let losses = |trainer: &mut HybridTrainer, steps| -> Vec<f32> {
        train(trainer, 3, steps).iter().map(|report| report.loss).collect()
    };
    let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
    let mut ours = trainer(eager(), qat, 3);
    let before = losses(&mut ours, 1..=120);
    let state = ours.state().unwrap();
    let after = losses(&mut ours, 121..=200);
    let (composed_before, moved_after) = without_kernels(|| {
        let mut moved = trainer(eager(), qat, 3);
        let before = losses(&mut moved, 1..=120);
        moved.restore(&state).unwrap();
        (before, losses(&mut moved, 121..=200))
    });
    // Warmup, before rounding may tip a decision of the gate; and the first step of the state that moved.
    let close = |ours: &[f32], composed: &[f32], count: usize| {
        ours.iter().zip(composed).take(count).all(|(ours, composed)| (ours - composed).abs() < 2e-3)
    };
    assert!(close(&before, &composed_before, 10), "{before:?} and {composed_before:?}");
    assert!(close(&after, &moved_after, 1), "{after:?} and {moved_after:?}");
    for (ours, composed) in [(&before[100..], &composed_before[100..]), (&after[60..], &moved_after[60..])] {
        assert!(mean(composed) < 1.5 * mean(ours) + 0.05, "{} and {}", mean(composed), mean(ours));
    }
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
