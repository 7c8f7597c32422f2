//! The trainer on a network small enough to run by the hundred steps: blobs of points, a two-layer perceptron.
//! One file, because every phase is tried on the same network.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rand::{Rng, RngExt};

use super::passes::{Errors, Passes};
use super::*;
use crate::data::Batch;
use crate::device::CancelFlag;
use crate::device::seed::{Stream, stream};
use crate::models::ops::{Precision, cross_entropy};
use crate::models::{
    Activation, Forward, MlpConfig, Mode, ModelConfig, Network, ParamStore, Params, ResNetConfig, initial_params,
};
use crate::optim::{
    Gradients, Optimizer, OptimizerConfig, OptimizerKind, Schedule, StatePlace, StatePrecision, WeightAverage,
};

pub(super) const CLASSES: usize = 4;
const PIXELS: usize = 9;

fn normal(rng: &mut impl Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    radius * (std::f32::consts::TAU * rng.random::<f32>()).cos()
}

/// 64 points of 4 overlapping blobs in 9 dimensions: most are easy, some are hard.
pub(super) fn blobs(seed: u64, step: u64) -> Batch {
    let mut place = stream(seed, Stream::Generate, 0);
    let centers: Vec<f32> = (0..CLASSES * PIXELS).map(|_| 1.3 * normal(&mut place)).collect();
    let mut rng = stream(seed, Stream::Generate, step);
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    for _ in 0..64 {
        let class = rng.random_range(0..CLASSES);
        inputs.extend(centers[class * PIXELS..][..PIXELS].iter().map(|center| center + normal(&mut rng)));
        targets.push(class as u32);
    }
    let inputs = Tensor::from_vec(inputs, (64, 1, 3, 3), &Device::Cpu).unwrap();
    Batch { inputs, targets: Tensor::from_vec(targets, 64, &Device::Cpu).unwrap() }
}

fn network() -> Network {
    let config = MlpConfig {
        in_channels: 1,
        image_size: (3, 3),
        hidden_sizes: vec![24],
        num_classes: CLASSES,
        activation: Activation::Relu,
    };
    Network::new(&ModelConfig::Mlp(config)).unwrap()
}

fn store(network: &Network, seed: u64) -> ParamStore {
    store_on(&Device::Cpu, network, seed)
}

pub(super) fn store_on(device: &Device, network: &Network, seed: u64) -> ParamStore {
    let (weights, buffers) = initial_params(network, seed, &Device::Cpu).unwrap();
    ParamStore::new(weights, buffers, device).unwrap()
}

pub(super) fn optimizer(kind: OptimizerKind) -> OptimizerConfig {
    OptimizerConfig {
        kind,
        learning_rate: 0.01,
        adam_learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.01,
        momentum: 0.9,
        newton_schulz_steps: 3,
        clip_norm: Some(1.0),
        states: StatePrecision::F32,
        state_place: StatePlace::WithWeights,
    }
}

pub(super) const SCHEDULE: Schedule = Schedule::ConstantEma { warmup_fraction: 0.05, ema_decay: 0.98 };

/// Short phases, so that a short test sees them all.
pub(super) fn eager() -> HybridConfig {
    HybridConfig {
        strategy: Strategy::Importance,
        gate: GateRule::ByCost,
        max_predict_steps: 12,
        confidence_threshold: 0.3,
        correction_interval: 4,
        divergence_sigma: 2.2,
        check_interval: 1,
        slice_fraction: 0.25,
        min_slice_fraction: 0.125,
        gate_cost: 1.0,
        gate_hold_steps: 4,
        warmup_fraction: 0.02,
    }
}

pub(super) fn trainer(hybrid: HybridConfig, kind: OptimizerKind, seed: u64) -> HybridTrainer {
    trainer_with(hybrid, optimizer(kind), (seed, seed))
}

fn trainer_from(hybrid: HybridConfig, kind: OptimizerKind, seed: u64, weight_seed: u64) -> HybridTrainer {
    trainer_with(hybrid, optimizer(kind), (seed, weight_seed))
}

pub(super) fn trainer_with(
    hybrid: HybridConfig,
    optimizer: OptimizerConfig,
    (seed, weight_seed): (u64, u64),
) -> HybridTrainer {
    let network = network();
    let store = store(&network, weight_seed);
    let setup = TrainerSetup {
        network: Arc::new(network),
        store,
        hybrid,
        optimizer,
        schedule: SCHEDULE,
        qat: None,
        num_steps: 200,
        num_micro_batches: 1,
        precision: Precision::F32,
        seed,
    };
    HybridTrainer::new(setup).unwrap()
}

/// Trains on steps `steps` of the blobs of `seed`.
pub(super) fn train(trainer: &mut HybridTrainer, seed: u64, steps: std::ops::RangeInclusive<u64>) -> Vec<StepReport> {
    steps.map(|step| trainer.step(&blobs(seed, step)).unwrap()).collect()
}

/// Names and numbers, as bits: equal means equal, and NaN is no exception.
pub(super) type Bits = Vec<(String, Vec<u32>)>;

pub(super) fn bits(params: &Params) -> Bits {
    let bits = |tensor: &Tensor| -> Vec<u32> {
        tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|value| value.to_bits()).collect()
    };
    params.iter().map(|(name, tensor)| (name.to_owned(), bits(tensor))).collect()
}

pub(super) fn weights(trainer: &HybridTrainer) -> Bits {
    bits(&trainer.store().detached())
}

/// A batch that gives NaN.
pub(super) fn poisoned(seed: u64, step: u64) -> Batch {
    let batch = blobs(seed, step);
    Batch { inputs: (batch.inputs * f64::NAN).unwrap(), targets: batch.targets }
}

/// After which step the weights were that a recovery in this step brought back.
pub(super) fn restored_step(report: &StepReport) -> Option<u64> {
    report.events.iter().find_map(|event| match event {
        HybridEvent::Diverged { restored_step, .. } => *restored_step,
        HybridEvent::Phase { .. } | HybridEvent::Note(_) => None,
    })
}

fn passes<'a>(network: &'a Network, store: &'a ParamStore, num_micro_batches: usize) -> Passes<'a> {
    Passes { network, store, num_micro_batches, precision: Precision::F32, loss_scale: None, teacher: None }
}

/// Mean loss on blobs that were never trained on.
fn held_out_loss(trainer: &HybridTrainer, seed: u64) -> f64 {
    let network = network();
    let passes = passes(&network, trainer.store(), 1);
    (10_000..10_008).map(|step| passes.look(&blobs(seed, step)).unwrap().mean_loss()).sum::<f64>() / 8.0
}

#[test]
fn vanilla_is_a_plain_loop_bit_for_bit() {
    let vanilla = TierPreset::named("vanilla").unwrap().config();
    let mut hybrid = trainer(vanilla, OptimizerKind::AdamW, 1);
    let reports = train(&mut hybrid, 1, 1..=60);
    assert!(reports.iter().all(|report| report.num_backward == 64 && report.rho.is_nan()));

    let network = network();
    let store = store(&network, 1);
    let mut optimizer = Optimizer::new(&optimizer(OptimizerKind::AdamW), &network.specs()).unwrap();
    let mut average = WeightAverage::new(&store, 0.98).unwrap();
    for step in 1..=60 {
        let batch = blobs(1, step);
        let params = store.tracked();
        let logits = network.forward(&Forward::new(&params, Mode::Train), &batch.inputs).unwrap();
        let loss = cross_entropy(&logits, &batch.targets).unwrap().mean_all().unwrap();
        let mut gradients = Gradients::from_backward(&loss.backward().unwrap(), &store).unwrap();
        gradients.clip(1.0).unwrap();
        optimizer.step(&store, &gradients, SCHEDULE.factor(step, 200)).unwrap();
        average.update(&store).unwrap();
    }
    assert!(reports.iter().all(|report| report.events.len() == usize::from(report.step == 11)), "only Warmup ends");
    assert!(weights(&hybrid) == bits(&store.detached()), "weights differ");
    assert!(bits(&hybrid.evaluation_params().unwrap()) == bits(&average.params(&store).unwrap()), "averages differ");
}

#[test]
fn all_phases_happen_and_prediction_learns() {
    let mut hybrid = trainer(eager(), OptimizerKind::AdamW, 2);
    let mut phases = BTreeSet::new();
    let mut frozen = None;
    for step in 1..=120 {
        let before = weights(&hybrid);
        let report = hybrid.step(&blobs(2, step)).unwrap();
        phases.insert(format!("{:?}", report.phase));
        assert!(report.loss.is_finite() && report.forecast.is_some() == report.phase.predicts());
        if report.phase == Phase::Predict {
            frozen.get_or_insert_with(|| held_out_loss_of(&before));
            assert!(report.num_backward < 32, "a slice, not the batch: {}", report.num_backward);
            assert_eq!(report.grad_norm.is_some(), report.num_backward > 0);
            assert_eq!(weights(&hybrid) != before, report.num_backward > 0, "step {step}: a sample moves the weights");
        }
        if let Some(correction) = report.correction {
            assert_eq!(report.phase, Phase::Correct);
            assert!(report.num_backward > 64 && correction.error_after() > 0.0);
            assert_eq!(correction.actual_loss, report.loss);
        }
    }
    assert_eq!(phases.len(), 4, "{phases:?}");
    // The control: weights frozen where the first Predict began.
    let (frozen, trained) = (frozen.unwrap(), held_out_loss(&hybrid, 2));
    assert!(trained < 0.8 * frozen, "training to {trained}, frozen weights {frozen}");
}

fn held_out_loss_of(saved: &Bits) -> f64 {
    let mut hybrid = trainer(eager(), OptimizerKind::AdamW, 2);
    let shapes = hybrid.store().detached();
    let tensors = saved.iter().map(|(name, bits)| {
        let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        let shape = shapes.get(name).unwrap().dims().to_vec();
        (name.clone(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    });
    let params: Params = tensors.collect();
    hybrid.store.restore(&params).unwrap();
    held_out_loss(&hybrid, 2)
}

#[test]
fn sampled_gradients_average_to_the_full_one() {
    let mut hybrid = trainer(eager(), OptimizerKind::AdamW, 3);
    train(&mut hybrid, 3, 1..=30);
    let network = network();
    let passes = passes(&network, hybrid.store(), 1);
    let batch = blobs(3, 31);
    let (seen, full) = passes.full(&batch, Errors::Measure).unwrap();
    let chances = sampler::probabilities(&seen.errors, 0.25);
    let draws = 300;
    let (mut mean, mut spread) = (full.copy().unwrap(), 0.0);
    mean.scale(0.0).unwrap();
    for draw in 0..draws {
        let sample = sampler::draw(&chances, &mut stream(3, Stream::Importance, draw));
        let Some(mut sampled) = passes.sampled(&batch, &seen.stats, &sample).unwrap() else { continue };
        mean.add_scaled(&sampled, 1.0 / draws as f64).unwrap();
        sampled.add_scaled(&full, -1.0).unwrap();
        spread += sampled.norm().unwrap().powi(2) / draws as f64;
    }
    mean.add_scaled(&full, -1.0).unwrap();
    let error = mean.norm().unwrap();
    let standard_error = (spread / draws as f64).sqrt();
    assert!(error < 2.0 * standard_error, "off by {error}, standard error {standard_error}");
    // The bias of an unweighted sample would show: the tolerance is far below the gradient itself.
    assert!(2.0 * standard_error < 0.2 * full.norm().unwrap());
}

#[test]
fn a_sample_of_everything_is_the_full_step() {
    // With f = 1 every unit is certain, so Predict does what Full does, to the last bit.
    let all = HybridConfig { slice_fraction: 1.0, min_slice_fraction: 1.0, gate: GateRule::Open, ..eager() };
    let mut predicting = trainer(all, OptimizerKind::AdamW, 3);
    let mut full = trainer(HybridConfig { strategy: Strategy::None, ..eager() }, OptimizerKind::AdamW, 3);
    let reports = train(&mut predicting, 3, 1..=60);
    train(&mut full, 3, 1..=60);
    assert!(reports.iter().any(|report| report.phase == Phase::Predict && report.num_backward == 64));
    assert_eq!(weights(&predicting), weights(&full));
}

#[test]
fn a_frozen_control_moves_nothing_in_predict() {
    let mut frozen = trainer(HybridConfig { strategy: Strategy::Frozen, ..eager() }, OptimizerKind::AdamW, 2);
    let mut num_predicted = 0;
    for step in 1..=80 {
        let before = (weights(&frozen), bits(&frozen.evaluation_params().unwrap()));
        let report = frozen.step(&blobs(2, step)).unwrap();
        let after = (weights(&frozen), bits(&frozen.evaluation_params().unwrap()));
        let is_predict = report.phase == Phase::Predict;
        assert_eq!(before == after, is_predict, "step {step}, {:?}", report.phase);
        assert_eq!(report.num_backward, if is_predict { 0 } else { 64 });
        num_predicted += u32::from(is_predict);
    }
    assert!(num_predicted > 30, "{num_predicted}");
}

/// Settings under which weights are extrapolated often.
pub(super) fn extrapolating(trajectory: Trajectory) -> HybridConfig {
    HybridConfig { strategy: Strategy::Extrapolate(trajectory), gate: GateRule::Open, ..eager() }
}

#[test]
fn extrapolation_moves_weights_without_a_backward_pass() {
    for trajectory in [Trajectory::Momentum, Trajectory::Fitted] {
        let mut hybrid = trainer(extrapolating(trajectory), OptimizerKind::AdamW, 2);
        let (mut num_moved, mut num_searched, mut num_notes) = (0, 0, 0);
        for step in 1..=200 {
            let before = weights(&hybrid);
            let report = hybrid.step(&blobs(2, step)).unwrap();
            if report.phase == Phase::Predict {
                assert_eq!(report.num_backward, 0);
                num_moved += u32::from(weights(&hybrid) != before);
                // A line search: one pass to measure, four lengths.
                num_searched += u32::from(report.num_forward == 5 * 64);
            }
            num_notes += report.events.iter().filter(|event| matches!(event, HybridEvent::Note(_))).count();
        }
        assert!(num_moved > 10 && num_searched > 3, "{trajectory:?}: {num_moved} moves, {num_searched} searches");
        // Not every prediction helps: some must be taken back, and told.
        assert!(num_notes > 0, "{trajectory:?}");
    }
}

#[test]
fn a_divergence_takes_predicted_moves_back() {
    let mut hybrid = trainer(extrapolating(Trajectory::Momentum), OptimizerKind::AdamW, 2);
    let mut anchor = None;
    for step in 1..=200 {
        let before = weights(&hybrid);
        // Two moves into a Predict phase the batch is poisoned.
        let is_second = anchor.as_ref().is_some_and(|anchor| *anchor != before);
        // Infinite rather than NaN: a ReLU swallows NaN, and without a backward pass only the loss could show it.
        let scale = if is_second { f64::INFINITY } else { 1.0 };
        let Batch { inputs, targets } = blobs(2, step);
        let batch = Batch { inputs: (inputs * scale).unwrap(), targets };
        let report = hybrid.step(&batch).unwrap();
        if is_second && report.phase == Phase::Predict {
            assert!(Some(weights(&hybrid)) == anchor, "back where Predict began: {:?}", report.events);
            return;
        }
        let has_begun = report.phase == Phase::Predict && anchor.is_none() && weights(&hybrid) != before;
        anchor = if has_begun { Some(before) } else { anchor.filter(|_| report.phase == Phase::Predict) };
    }
    panic!("no two predicted moves in a row");
}

#[test]
fn auto_predicts_only_where_the_measured_costs_say_so() {
    let auto = HybridConfig { strategy: Strategy::Auto, gate_cost: 0.9, ..eager() };
    let num_predicted = |costs: Option<StepCosts>| {
        let mut hybrid = trainer(auto.clone(), OptimizerKind::AdamW, 2);
        if let Some(costs) = costs {
            hybrid.set_step_costs(costs);
        }
        let reports = train(&mut hybrid, 2, 1..=120);
        let notes = reports.iter().flat_map(|report| &report.events).filter_map(|event| match event {
            HybridEvent::Note(what) => Some(what.clone()),
            HybridEvent::Phase { .. } | HybridEvent::Diverged { .. } => None,
        });
        let notes: Vec<String> = notes.collect();
        (reports.iter().filter(|report| report.phase == Phase::Predict).count(), notes)
    };
    let (by_counting, _) = num_predicted(None);
    let (cheap, _) = num_predicted(Some(StepCosts { forward: 0.2, slice: 1.0 }));
    let (dear, notes) = num_predicted(Some(StepCosts { forward: 0.9, slice: 1.5 }));
    assert!(by_counting > 20 && cheap >= by_counting, "{by_counting} by counting, {cheap} where it is cheap");
    assert_eq!(dear, 0);
    assert!(notes.iter().any(|note| note.contains("staying in Full") && note.contains("measured")), "{notes:?}");
}

#[test]
fn a_restored_trainer_goes_on_bit_for_bit_with_every_strategy() {
    for strategy in Strategy::ALL {
        let config = HybridConfig { strategy, gate: GateRule::Open, ..eager() };
        let mut unbroken = trainer(config.clone(), OptimizerKind::AdamW, 4);
        let phases: Vec<Phase> = train(&mut unbroken, 4, 1..=60).iter().map(|report| report.phase).collect();
        let cuts: Vec<u64> = [Phase::Warmup, Phase::Full, Phase::Predict, Phase::Correct]
            .into_iter()
            .filter_map(|wanted| phases.iter().position(|&phase| phase == wanted))
            .flat_map(|first| [first as u64 + 1, first as u64 + 2])
            .collect();
        assert!(cuts.len() >= if strategy.predicts() { 6 } else { 4 }, "{strategy:?}: {phases:?}");
        for cut in cuts {
            let mut first_half = trainer(config.clone(), OptimizerKind::AdamW, 4);
            train(&mut first_half, 4, 1..=cut);
            let saved = first_half.state().unwrap();
            train(&mut first_half, 99, 1..=3);
            let mut second_half = trainer_from(config.clone(), OptimizerKind::AdamW, 4, 5);
            second_half.restore(&saved).unwrap();
            train(&mut second_half, 4, cut + 1..=60);
            assert_eq!(weights(&second_half), weights(&unbroken), "{strategy:?} cut after step {cut}");
        }
    }
}

#[test]
fn measured_costs_leave_no_other_trace() {
    let mut measured = trainer(eager(), OptimizerKind::Muon, 6);
    let ticks = std::cell::Cell::new(0.0);
    // A clock on which a full step takes 4, a forward pass 1, a Predict step 2.
    let durations = [4.0, 1.0, 2.0, 0.0];
    let readings = std::cell::Cell::new(0);
    let clock = || {
        let reading = readings.replace(readings.get() + 1);
        if reading > 0 {
            ticks.set(ticks.get() + durations[(reading - 1) % 4]);
        }
        ticks.get()
    };
    let costs = measure_step_costs(&mut measured, &blobs(6, 1), &clock, &CancelFlag::default()).unwrap().unwrap();
    assert!((costs.forward - 0.25).abs() < 1e-12 && costs.slice > 0.25, "{costs:?}");
    train(&mut measured, 6, 1..=40);
    let mut untouched = trainer(eager(), OptimizerKind::Muon, 6);
    train(&mut untouched, 6, 1..=40);
    assert_eq!(weights(&measured), weights(&untouched));
    let cancelled = CancelFlag::default();
    cancelled.set();
    assert!(measure_step_costs(&mut measured, &blobs(6, 1), &clock, &cancelled).unwrap().is_none());
}

#[test]
fn a_restored_trainer_goes_on_bit_for_bit() {
    for kind in [OptimizerKind::AdamW, OptimizerKind::Muon] {
        let mut unbroken = trainer(eager(), kind, 4);
        let phases: Vec<Phase> = train(&mut unbroken, 4, 1..=60).iter().map(|report| report.phase).collect();
        let first = |wanted| phases.iter().position(|&phase| phase == wanted).unwrap() as u64 + 1;
        for cut in [20, first(Phase::Predict), first(Phase::Predict) + 1, first(Phase::Correct)] {
            let mut first_half = trainer(eager(), kind, 4);
            train(&mut first_half, 4, 1..=cut);
            let saved = first_half.state().unwrap();
            // What happens to the original afterwards must not reach the copy.
            train(&mut first_half, 99, 1..=3);
            let mut second_half = trainer_from(eager(), kind, 4, 5);
            second_half.restore(&saved).unwrap();
            train(&mut second_half, 4, cut + 1..=60);
            assert_eq!(weights(&second_half), weights(&unbroken), "{kind:?} cut after step {cut}");
            let average = |trainer: &HybridTrainer| bits(&trainer.evaluation_params().unwrap());
            assert_eq!(average(&second_half), average(&unbroken), "{kind:?} cut after step {cut}");
            assert_eq!(second_half.state().unwrap().control, unbroken.state().unwrap().control);
        }
    }
}

#[test]
fn the_vanilla_probe_leaves_no_trace() {
    let mut probed = trainer(eager(), OptimizerKind::Muon, 6);
    let before = probed.state().unwrap();
    (1..=3).for_each(|step| probed.vanilla_step(&blobs(6, step)).unwrap());
    probed.restore(&before).unwrap();
    train(&mut probed, 6, 1..=40);
    let mut untouched = trainer(eager(), OptimizerKind::Muon, 6);
    train(&mut untouched, 6, 1..=40);
    assert_eq!(weights(&probed), weights(&untouched));
}

#[test]
fn a_poisoned_batch_moves_nothing() {
    let mut hybrid = trainer(eager(), OptimizerKind::AdamW, 7);
    train(&mut hybrid, 7, 1..=40);
    let before = weights(&hybrid);
    let report = hybrid.step(&poisoned(7, 41)).unwrap();
    assert!(report.grad_norm.is_none() && !report.must_stop);
    let found = report.events.iter().find_map(|event| match event {
        HybridEvent::Diverged { divergence, recovery, .. } => Some((divergence.kind, *recovery)),
        HybridEvent::Phase { .. } | HybridEvent::Note(_) => None,
    });
    assert_eq!(found, Some((DivergenceKind::NotFinite, Recovery::BackToFull)));
    assert_eq!(weights(&hybrid), before);
    let loss = held_out_loss(&hybrid, 7);
    let after = train(&mut hybrid, 7, 42..=100);
    assert_eq!(after[0].phase, Phase::Full);
    assert!(after.iter().any(|report| report.phase == Phase::Predict), "prediction comes back");
    assert!(held_out_loss(&hybrid, 7) < loss);
}

#[test]
fn a_learning_rate_blow_up_is_survived() {
    let mut hybrid = trainer(eager(), OptimizerKind::AdamW, 8);
    hybrid.pilot.control.scale_learning_rate(4.0);
    train(&mut hybrid, 8, 1..=60);
    assert!(hybrid.mark_good().unwrap());
    let good_loss = held_out_loss(&hybrid, 8);
    hybrid.pilot.control.scale_learning_rate(30.0);
    let mut recoveries = Vec::new();
    for step in 61..=200 {
        let Ok(report) = hybrid.step(&blobs(8, step)) else { break };
        recoveries.extend(report.events.iter().filter_map(|event| match event {
            HybridEvent::Diverged { recovery, .. } => Some(*recovery),
            HybridEvent::Phase { .. } | HybridEvent::Note(_) => None,
        }));
    }
    let loss = held_out_loss(&hybrid, 8);
    assert!(recoveries.contains(&Recovery::Restore), "{recoveries:?}");
    assert!(loss < 1.5 * good_loss, "{recoveries:?}: {loss}, before the blow-up {good_loss}");
}

#[test]
fn the_last_rung_ends_the_run_with_good_weights() {
    let mut hybrid = trainer(eager(), OptimizerKind::AdamW, 9);
    train(&mut hybrid, 9, 1..=30);
    assert!(hybrid.mark_good().unwrap());
    let good = weights(&hybrid);
    train(&mut hybrid, 9, 31..=35);
    let reports: Vec<_> = (36..=39).map(|step| hybrid.step(&poisoned(9, step)).unwrap()).collect();
    assert!(reports[3].must_stop && !reports[2].must_stop);
    let restored: Vec<Option<u64>> = reports.iter().map(restored_step).collect();
    assert_eq!(restored, [None, None, Some(30), Some(30)]);
    assert_eq!(weights(&hybrid), good);
    assert!(matches!(hybrid.step(&blobs(9, 40)), Err(HybridError::Stopped { step: 40 })));
    assert!(!hybrid.mark_good().unwrap(), "shortly after a divergence nothing is good");
}

#[test]
fn a_run_that_the_guard_ended_goes_on_when_restored() {
    let mut hybrid = trainer(eager(), OptimizerKind::AdamW, 9);
    train(&mut hybrid, 9, 1..=30);
    assert!(hybrid.mark_good().unwrap());
    (31..=34).for_each(|step| drop(hybrid.step(&poisoned(9, step)).unwrap()));
    let (ended, loss) = (hybrid.state().unwrap(), held_out_loss(&hybrid, 9));

    let mut resumed = trainer(eager(), OptimizerKind::AdamW, 9);
    resumed.restore(&ended).unwrap();
    let reports = train(&mut resumed, 9, 35..=120);
    assert_eq!(reports[0].phase, Phase::Full);
    let told = |report: &StepReport| {
        report.events.iter().any(
            |event| matches!(event, HybridEvent::Phase { to: Phase::Full, why, .. } if why.contains("taken up again")),
        )
    };
    assert_eq!(reports.iter().filter(|report| told(report)).count(), 1);
    assert!(told(&reports[0]), "{:?}", reports[0].events);
    assert!((reports[0].learning_rate - 0.01 / 8.0).abs() < 1e-8, "the learning rate stays cut");
    assert!(held_out_loss(&resumed, 9) < loss);
}

#[test]
fn a_recovery_before_the_first_checkpoint_keeps_what_warmup_learned() {
    let long_warmup = HybridConfig { warmup_fraction: 0.1, ..eager() };
    let mut hybrid = trainer(long_warmup, OptimizerKind::AdamW, 9);
    assert_eq!(hybrid.good_step(), 0);
    train(&mut hybrid, 9, 1..=20);
    assert_eq!(hybrid.good_step(), 20);
    let after_warmup = weights(&hybrid);
    train(&mut hybrid, 9, 21..=25);
    let reports: Vec<_> = (26..=28).map(|step| hybrid.step(&poisoned(9, step)).unwrap()).collect();
    assert_eq!(restored_step(&reports[2]), Some(20));
    assert_eq!(weights(&hybrid), after_warmup);
}

#[test]
fn errors_are_measured_only_where_they_are_wanted() {
    let (network, batch) = (network(), blobs(1, 1));
    let store = store(&network, 1);
    let passes = passes(&network, &store, 1);
    // What a vanilla step does.
    let (seen, _) = passes.full(&batch, Errors::Skip).unwrap();
    assert!(seen.losses.len() == 64 && seen.errors.is_empty() && seen.rho().is_none());
    let (seen, _) = passes.full(&batch, Errors::Measure).unwrap();
    assert!(seen.errors.len() == 64 && seen.rho().is_some());
}

#[test]
fn healthy_runs_diverge_nowhere() {
    for seed in 0..20 {
        let mut hybrid = trainer(eager(), OptimizerKind::AdamW, seed);
        for report in train(&mut hybrid, seed, 1..=200) {
            let diverged = report.events.iter().find(|event| matches!(event, HybridEvent::Diverged { .. }));
            assert_eq!(diverged, None, "seed {seed}, step {}", report.step);
        }
    }
}

#[test]
fn micro_batches_add_up_to_the_batch() {
    let network = network();
    let store = store(&network, 10);
    let batch = blobs(10, 1);
    let parts = |num_micro_batches| passes(&network, &store, num_micro_batches);
    let (whole, full) = parts(1).full(&batch, Errors::Measure).unwrap();
    let (cut, full_cut) = parts(5).full(&batch, Errors::Measure).unwrap();
    assert_eq!(whole.losses.len(), cut.losses.len());
    assert!((whole.mean_loss() - cut.mean_loss()).abs() < 1e-6);
    let sample = sampler::draw(&sampler::probabilities(&whole.errors, 0.5), &mut stream(0, Stream::Importance, 1));
    let sampled = parts(1).sampled(&batch, &whole.stats, &sample).unwrap().unwrap();
    let sampled_cut = parts(5).sampled(&batch, &cut.stats, &sample).unwrap().unwrap();
    for (mut one, many) in [(full, full_cut), (sampled, sampled_cut)] {
        let norm = one.norm().unwrap();
        one.add_scaled(&many, -1.0).unwrap();
        assert!(one.norm().unwrap() < 1e-5 * norm);
    }
}

/// 64 images of 4 shades, which a convolution tells apart at once.
fn shades(seed: u64, step: u64) -> Batch {
    let mut rng = stream(seed, Stream::Generate, step);
    let targets: Vec<u32> = (0..64).map(|_| rng.random_range(0..CLASSES as u32)).collect();
    let pixel = |index: usize| 2.0 * targets[index / PIXELS] as f32 + 0.7 * normal(&mut rng);
    let inputs: Vec<f32> = (0..64 * PIXELS).map(pixel).collect();
    let inputs = Tensor::from_vec(inputs, (64, 1, 3, 3), &Device::Cpu).unwrap();
    Batch { inputs, targets: Tensor::from_vec(targets, 64, &Device::Cpu).unwrap() }
}

#[test]
fn batch_norm_learns_its_statistics_in_every_phase() {
    let config = ResNetConfig {
        num_channels: 1,
        image_size: (3, 3),
        embedding_size: 8,
        hidden_sizes: vec![8],
        depths: vec![1],
        num_classes: CLASSES,
    };
    let network = Network::new(&ModelConfig::ResNet(config)).unwrap();
    let setup = TrainerSetup {
        store: store(&network, 11),
        network: Arc::new(network),
        hybrid: HybridConfig { slice_fraction: 0.5, confidence_threshold: 0.0, ..eager() },
        optimizer: OptimizerConfig { learning_rate: 0.03, ..optimizer(OptimizerKind::AdamW) },
        schedule: SCHEDULE,
        qat: None,
        num_steps: 200,
        num_micro_batches: 2,
        precision: Precision::F32,
        seed: 11,
    };
    let mut hybrid = HybridTrainer::new(setup).unwrap();
    let mut phases = BTreeSet::new();
    let (mut losses, mut rhos) = (Vec::new(), Vec::new());
    for step in 1..=80 {
        let before = bits(hybrid.store().buffers());
        let report = hybrid.step(&shades(11, step)).unwrap();
        assert!(bits(hybrid.store().buffers()) != before, "step {step}, {:?}: statistics moved", report.phase);
        phases.insert(format!("{:?}", report.phase));
        losses.push(report.loss);
        rhos.push(report.rho);
    }
    assert_eq!(phases.len(), 4, "{phases:?}, rho {rhos:?}");
    assert!(losses[70..].iter().sum::<f32>() < 0.7 * losses[..10].iter().sum::<f32>(), "{losses:?}");
}

#[test]
fn a_batch_that_does_not_fit_together_is_refused() {
    let mut hybrid = trainer(eager(), OptimizerKind::AdamW, 1);
    let mut batch = blobs(1, 1);
    batch.targets = batch.targets.narrow(0, 0, 60).unwrap();
    assert!(matches!(hybrid.step(&batch), Err(HybridError::Batch { .. })));
    let empty =
        Batch { inputs: batch.inputs.narrow(0, 0, 0).unwrap(), targets: batch.targets.narrow(0, 0, 0).unwrap() };
    assert!(matches!(hybrid.step(&empty), Err(HybridError::Batch { .. })));
}

/// How many pairs of marks each of 60 steps made around error norms and memory, by phase.
fn marked_pairs(hybrid: HybridConfig) -> BTreeSet<(String, [usize; 2])> {
    let mut trainer = trainer(hybrid, OptimizerKind::AdamW, 1);
    let marked_step = |step| {
        let marks = std::cell::RefCell::new(Vec::new());
        let report = trainer.step_marked(&blobs(1, step), &|mark| marks.borrow_mut().push(mark)).unwrap();
        let marks = marks.into_inner();
        let pairs_of = |work| {
            let of_work = |mark: &&Mark| matches!(mark, Mark::Begins(w) | Mark::Ends(w) if *w == work);
            let marks: Vec<Mark> = marks.iter().filter(of_work).copied().collect();
            assert!(marks.chunks(2).all(|pair| pair == [Mark::Begins(work), Mark::Ends(work)]), "{marks:?}");
            marks.len() / 2
        };
        assert_eq!(pairs_of(StepPart::Decisions), 2, "before and after the passes");
        let pairs = StepPart::BEYOND_VANILLA.map(pairs_of);
        assert_eq!(pairs_of(StepPart::Update), 2, "norm, and optimizer");
        assert_eq!(pairs.iter().sum::<usize>() + 4, marks.len() / 2);
        (format!("{:?}", report.phase), pairs)
    };
    (1..=60).map(marked_step).collect()
}

#[test]
fn what_vanilla_would_not_do_is_marked_where_the_rest_is_vanilla() {
    let pairs = marked_pairs(eager());
    let expected = [("Warmup", [1, 1]), ("Full", [1, 1]), ("Predict", [0, 0]), ("Correct", [0, 0])];
    assert_eq!(pairs, expected.map(|(phase, pairs)| (phase.to_owned(), pairs)).into());
    let vanilla = marked_pairs(HybridConfig { strategy: Strategy::None, ..eager() });
    assert!(vanilla.iter().all(|(_, pairs)| *pairs == [0, 0]), "{vanilla:?}");
}
