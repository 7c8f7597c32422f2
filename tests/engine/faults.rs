//! Faults put into small real trainings: what the divergence guard sees, what it does about it, and whether the run ends
//! with a usable model. Healthy trainings beside them, in which it must see nothing. One file, because a fault and
//! its control share a training.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use candle_core::{DType, Device, Tensor};
use foretrain_engine::data::{Augmentation, Batch, BatchSource, Dataset, DatasetSpec, SplitPart, load};
use foretrain_engine::evaluation::evaluate;
use foretrain_engine::experiment::TrialRecipe;
use foretrain_engine::hybrid::{
    Divergence, DivergenceKind, GateRule, HybridConfig, HybridError, HybridEvent, HybridTrainer, Phase, Recovery,
    StepReport, TierPreset,
};
use foretrain_engine::models::ops::Precision;
use foretrain_engine::models::{Activation, Gpt2Config, MlpConfig, ModelConfig, Network};
use foretrain_engine::optim::{OptimizerConfig, OptimizerKind, Schedule, StatePlace, StatePrecision};
use foretrain_engine::session::{Command, EventKind, LogEntry, LogKind, StopReason, list_runs, open_run};
use foretrain_engine::unwatched;
use foretrain_tests::{TestEngine, small_config, write_idx};

const KINDS: [OptimizerKind; 2] = [OptimizerKind::AdamW, OptimizerKind::Muon];

/// Steps of a training with a fault, and the step after which its state is marked good.
const NUM_STEPS: u64 = 300;
const GOOD_STEP: u64 = 120;

/// Kept between runs of the tests: drawing the digits takes seconds.
static GLYPHS: LazyLock<Arc<Dataset>> = LazyLock::new(|| loaded(&DatasetSpec::Glyphs));
static GRAMMAR: LazyLock<Arc<Dataset>> = LazyLock::new(|| loaded(&DatasetSpec::Grammar));

fn loaded(spec: &DatasetSpec) -> Arc<Dataset> {
    Arc::new(load(spec, Path::new(env!("CARGO_TARGET_TMPDIR")), unwatched!()).unwrap())
}

fn tier(name: &str) -> HybridConfig {
    TierPreset::named(name).unwrap().config()
}

/// Predicts whenever the forecast is trusted, so that faults meet every phase.
fn open() -> HybridConfig {
    HybridConfig { gate: GateRule::Open, ..tier("conservative") }
}

fn perceptron(image_size: (usize, usize)) -> Arc<Network> {
    let config =
        MlpConfig { in_channels: 1, image_size, hidden_sizes: vec![32], num_classes: 10, activation: Activation::Relu };
    Arc::new(Network::new(&ModelConfig::Mlp(config)).unwrap())
}

fn recipe(hybrid: HybridConfig, kind: OptimizerKind, num_steps: u64) -> TrialRecipe {
    // Those of the recipes for digits.
    let learning_rate = match kind {
        OptimizerKind::AdamW => 2e-3,
        OptimizerKind::Muon => 4e-3,
    };
    TrialRecipe {
        hybrid,
        optimizer: OptimizerConfig {
            kind,
            learning_rate,
            adam_learning_rate: learning_rate,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.01,
            momentum: 0.9,
            newton_schulz_steps: 3,
            clip_norm: Some(1.0),
            states: StatePrecision::F32,
            state_place: StatePlace::WithWeights,
        },
        schedule: Schedule::ConstantEma { warmup_fraction: 0.05, ema_decay: 0.98 },
        qat: None,
        num_steps,
        batch_size: 64,
        num_micro_batches: 1,
        precision: Precision::F32,
        sequence_length: 0,
        augmentation: Augmentation::default(),
    }
}

/// Tensors by name, as bits: equal means equal, and NaN is no exception.
type Bits = BTreeMap<String, Vec<u32>>;

/// A training of digits, step by step.
struct Lab {
    network: Arc<Network>,
    trainer: HybridTrainer,
    batches: BatchSource,
    reports: Vec<StepReport>,
}

impl Lab {
    fn new(kind: OptimizerKind) -> Self {
        let network = perceptron((28, 28));
        let (trainer, batches) = recipe(open(), kind, NUM_STEPS).begin(&network, &GLYPHS, 1, Device::Cpu).unwrap();
        Self { network, trainer, batches, reports: Vec::new() }
    }

    /// Trained to [`GOOD_STEP`], with the state there marked good; and that state.
    fn with_good_state(kind: OptimizerKind) -> (Self, Bits) {
        let mut lab = Self::new(kind);
        lab.train_to(GOOD_STEP);
        assert!(lab.trainer.mark_good().unwrap());
        let good = lab.bits();
        (lab, good)
    }

    /// The batch of the next step.
    fn batch(&self) -> Batch {
        self.batches.train_batch(self.trainer.num_steps_done()).unwrap()
    }

    fn step_on(&mut self, batch: &Batch) -> StepReport {
        let report = self.trainer.step(batch).unwrap();
        self.reports.push(report.clone());
        report
    }

    fn train_to(&mut self, step: u64) {
        while self.trainer.num_steps_done() < step {
            self.step_on(&self.batch());
        }
    }

    /// A step on a batch that holds `value` only.
    fn step_on_poison(&mut self, value: f64) -> StepReport {
        let batch = self.batch();
        let inputs = (batch.inputs.ones_like().unwrap() * value).unwrap();
        self.step_on(&Batch { inputs, ..batch })
    }

    /// Steps with `change` made to each batch, until the end or the guard's.
    fn finish_with(&mut self, change: impl Fn(Batch) -> Batch) {
        while self.trainer.num_steps_done() < NUM_STEPS {
            if self.step_on(&change(self.batch())).must_stop {
                break;
            }
        }
    }

    /// All tensors that decide the steps to come: weights, optimizer, average.
    fn bits(&self) -> Bits {
        let bits = |tensor: Tensor| -> Vec<u32> {
            let values = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        };
        self.trainer.state().unwrap().tensors.into_iter().map(|(name, tensor)| (name, bits(tensor))).collect()
    }

    /// Share of right answers on digits that were not trained on.
    fn accuracy(&self) -> f64 {
        let params = self.trainer.evaluation_params().unwrap();
        let batches = self.batches.evaluation_batches(SplitPart::Validation, 1000);
        evaluate(&self.network, &params, batches, unwatched!()).unwrap().accuracy.unwrap()
    }

    /// Every divergence with its answer: step, what, answer, step whose weights came back.
    fn divergences(&self) -> Vec<(u64, DivergenceKind, Recovery, Option<u64>)> {
        let told = self.reports.iter().flat_map(|report| report.events.iter().map(|event| (report.step, event)));
        told.filter_map(|(step, event)| match event {
            HybridEvent::Diverged { divergence: Divergence { kind, .. }, recovery, restored_step } => {
                Some((step, *kind, *recovery, *restored_step))
            }
            HybridEvent::Phase { .. } | HybridEvent::Note(_) => None,
        })
        .collect()
    }

    fn recoveries(&self) -> Vec<Recovery> {
        self.divergences().into_iter().map(|(_, _, recovery, _)| recovery).collect()
    }

    /// Makes the learning rate `factor` times what it is, as an error in a schedule would: the trainer's state names it.
    fn scale_learning_rate(&mut self, factor: f64) {
        let mut state = self.trainer.state().unwrap();
        let mut control: serde_json::Value = serde_json::from_str(&state.control).unwrap();
        let rate: f64 = control["learning_rate_cut"].as_str().unwrap().parse().unwrap();
        control["learning_rate_cut"] = format!("{:?}", rate * factor).into();
        state.control = control.to_string();
        self.trainer.restore(&state).unwrap();
    }

    /// Writes NaN into one number of the weight called `name`.
    fn poison_weight(&self, name: &str) {
        let (_, var) = self.trainer.store().vars().find(|(found, _)| *found == name).unwrap();
        let mut values = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values[3] = f32::NAN;
        var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap()).unwrap();
    }
}

/// The same training without a fault.
struct Healthy {
    reports: Vec<StepReport>,
    accuracy: f64,
}

static HEALTHY: LazyLock<[Healthy; 2]> = LazyLock::new(|| {
    KINDS.map(|kind| {
        let mut lab = Lab::new(kind);
        lab.train_to(NUM_STEPS);
        assert_eq!(lab.divergences(), [], "{kind:?}");
        Healthy { accuracy: lab.accuracy(), reports: lab.reports }
    })
});

fn healthy(kind: OptimizerKind) -> &'static Healthy {
    match kind {
        OptimizerKind::AdamW => &HEALTHY[0],
        OptimizerKind::Muon => &HEALTHY[1],
    }
}

/// Learning rate of the run's `step` over that of the healthy one's.
fn rate_share(lab: &Lab, kind: OptimizerKind, step: u64) -> f32 {
    lab.reports[step as usize - 1].learning_rate / healthy(kind).reports[step as usize - 1].learning_rate
}

/// The step before the first, from `from` on, that predicts and is followed by two that predict.
fn before_prediction(kind: OptimizerKind, from: u64) -> u64 {
    let reports = &healthy(kind).reports;
    let predicts = |report: &StepReport| report.phase == Phase::Predict;
    let at = (from as usize..reports.len() - 2).find(|&at| reports[at..at + 3].iter().all(predicts));
    at.expect("a healthy run predicts") as u64
}

#[test]
fn a_poisoned_batch_moves_nothing_and_ends_prediction() {
    for kind in KINDS {
        let before = before_prediction(kind, 150);
        for value in [f64::NAN, f64::INFINITY] {
            let mut lab = Lab::new(kind);
            lab.train_to(before);
            let state = lab.bits();
            let report = lab.step_on_poison(value);
            assert_eq!(report.phase, Phase::Predict);
            assert!(report.grad_norm.is_none() && !report.must_stop);
            assert_eq!(
                lab.divergences(),
                [(before + 1, DivergenceKind::NotFinite, Recovery::BackToFull, None)],
                "{kind:?} {value}"
            );
            assert!(lab.bits() == state, "{kind:?} {value}: nothing moves");
            // Where the healthy run goes on predicting.
            let next = lab.step_on(&lab.batch());
            assert_eq!(next.phase, Phase::Full, "{kind:?} {value}");
            lab.train_to(NUM_STEPS);
            assert_eq!(lab.divergences().len(), 1, "{kind:?} {value}: {:?}", lab.divergences());
            let later = &lab.reports[before as usize + 1..];
            assert!(later.iter().any(|report| report.phase == Phase::Predict), "{kind:?} {value}: it comes back");
            assert_eq!(rate_share(&lab, kind, NUM_STEPS), 1.0, "{kind:?} {value}");
            let (found, expected) = (lab.accuracy(), healthy(kind).accuracy);
            assert!(found > expected - 0.03, "{kind:?} {value}: accuracy {found}, healthy {expected}");
        }
    }
}

#[test]
fn every_rung_is_told_and_carried_out() {
    for kind in KINDS {
        let (mut lab, good) = Lab::with_good_state(kind);
        lab.train_to(150);
        let moved = lab.bits();

        let first = lab.step_on_poison(f64::NAN);
        assert!(lab.bits() == moved && !first.must_stop);
        let second = lab.step_on_poison(f64::NAN);
        assert_eq!(second.phase, Phase::Full);
        assert_eq!(rate_share(&lab, kind, 152), 1.0, "the first rung leaves the learning rate");

        lab.step_on(&lab.batch());
        assert_eq!(rate_share(&lab, kind, 153), 0.5, "the second halves it");
        assert!(lab.bits() != good && lab.bits() != moved, "training goes on from where it was");

        lab.step_on_poison(f64::NAN);
        assert!(lab.bits() == good, "{kind:?}: the third brings back weights, optimizer and average, bit for bit");
        lab.step_on(&lab.batch());
        assert_eq!(rate_share(&lab, kind, 155), 0.125, "and quarters the learning rate");
        lab.train_to(165);
        assert!(lab.bits() != good);

        let last = lab.step_on_poison(f64::NAN);
        assert!(last.must_stop);
        assert!(lab.bits() == good, "{kind:?}: the last ends the run with the good weights");
        assert!(matches!(lab.trainer.step(&lab.batch()), Err(HybridError::Stopped { step: 167 })));
        let not_finite = |step, recovery, restored| (step, DivergenceKind::NotFinite, recovery, restored);
        assert_eq!(
            lab.divergences(),
            [
                not_finite(151, Recovery::BackToFull, None),
                not_finite(152, Recovery::CutLearningRate, None),
                not_finite(154, Recovery::Restore, Some(GOOD_STEP)),
                not_finite(166, Recovery::Stop, Some(GOOD_STEP)),
            ]
        );
    }
}

#[test]
fn a_learning_rate_thirty_times_too_high_is_survived() {
    for kind in KINDS {
        let (mut lab, _) = Lab::with_good_state(kind);
        let good_accuracy = lab.accuracy();
        lab.train_to(150);
        lab.scale_learning_rate(30.0);
        lab.finish_with(|batch| batch);
        let told = lab.divergences();
        assert!(told[0].0 <= 165 && told[0].2 == Recovery::BackToFull, "{kind:?}: seen soon: {told:?}");
        let recoveries = lab.recoveries();
        assert!(recoveries.contains(&Recovery::CutLearningRate), "{kind:?}: {told:?}");
        let (found, expected) = (lab.accuracy(), healthy(kind).accuracy);
        assert!(
            found > expected - 0.05,
            "{kind:?}: accuracy {found}, healthy {expected}, good {good_accuracy}: {told:?}"
        );
    }
}

/// Every digit gets the label of another.
fn flipped(batch: Batch) -> Batch {
    let targets: Vec<u32> = batch.targets.to_vec1::<u32>().unwrap().iter().map(|label| 9 - label).collect();
    let count = targets.len();
    Batch { targets: Tensor::from_vec(targets, count, &Device::Cpu).unwrap(), ..batch }
}

#[test]
fn labels_that_change_for_good_end_the_run_with_what_was_learned_before() {
    for kind in KINDS {
        let (mut lab, good) = Lab::with_good_state(kind);
        let accuracy = lab.accuracy();
        lab.train_to(150);
        lab.step_on(&flipped(lab.batch()));
        assert!(!lab.trainer.mark_good().unwrap(), "{kind:?}: what the wrong labels taught is nothing to go back to");
        lab.finish_with(flipped);
        let told = lab.divergences();
        let ladder = [Recovery::BackToFull, Recovery::CutLearningRate, Recovery::Restore, Recovery::Stop];
        assert_eq!(lab.recoveries(), ladder, "{kind:?}: {told:?}");
        assert!(told[0].0 <= 165 && told.iter().all(|(_, kind, ..)| *kind != DivergenceKind::NotFinite), "{told:?}");
        assert!(lab.reports.last().unwrap().must_stop);
        // Nothing of the wrong labels is left in it.
        assert!(lab.bits() == good, "{kind:?}");
        assert_eq!(lab.accuracy(), accuracy, "{kind:?}");
    }
}

#[test]
fn a_weight_that_becomes_nan_is_found_in_every_layer_and_restored() {
    for kind in KINDS {
        let names: Vec<String> = Lab::new(kind).trainer.store().vars().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names.len(), 4);
        for (index, name) in names.iter().enumerate() {
            let (mut lab, good) = Lab::with_good_state(kind);
            lab.train_to(150);
            lab.poison_weight(name);
            assert!(!lab.trainer.mark_good().unwrap(), "{name}: NaN is nothing to go back to");
            assert_eq!(lab.trainer.good_step(), GOOD_STEP);
            let found = (0..2).find_map(|_| {
                let report = lab.step_on(&lab.batch());
                lab.divergences().first().map(|found| (*found, report))
            });
            let ((step, ..), report) =
                found.unwrap_or_else(|| panic!("{kind:?} {name}: found within a check's interval"));
            let expected = (step, DivergenceKind::WeightsNotFinite, Recovery::RestoreWeights, Some(GOOD_STEP));
            assert_eq!(lab.divergences(), [expected], "{kind:?} {name}");
            // A rectifier makes 0 of NaN, so that the loss does not show what its layer holds.
            assert_eq!(report.loss.is_finite(), index < 2, "{kind:?} {name}: {}", report.loss);
            assert!(lab.bits() == good, "{kind:?} {name}");
            let next = lab.step_on(&lab.batch());
            assert_eq!((next.phase, rate_share(&lab, kind, next.step)), (Phase::Full, 1.0), "{kind:?} {name}");
            lab.train_to(NUM_STEPS);
            assert_eq!(lab.divergences().len(), 1, "{kind:?} {name}: {:?}", lab.divergences());
            let (found, expected) = (lab.accuracy(), healthy(kind).accuracy);
            assert!(found > expected - 0.03, "{kind:?} {name}: accuracy {found}, healthy {expected}");
        }
    }
}

#[test]
fn weights_that_become_nan_again_and_again_end_the_run_with_good_ones() {
    for kind in KINDS {
        let (mut lab, good) = Lab::with_good_state(kind);
        let name = lab.trainer.store().vars().next().unwrap().0.to_owned();
        let mut after = Vec::new();
        while lab.trainer.num_steps_done() < GOOD_STEP + 12 && !lab.reports.last().unwrap().must_stop {
            lab.poison_weight(&name);
            let before = lab.recoveries().len();
            lab.step_on(&lab.batch());
            if lab.recoveries().len() > before {
                after.push(lab.bits() == good);
            }
        }
        assert_eq!(lab.recoveries(), [Recovery::RestoreWeights, Recovery::Restore, Recovery::Stop], "{kind:?}");
        assert_eq!(after, [true; 3], "{kind:?}: each brought the good weights back");
    }
}

/// A divergence's answer and the step whose weights came back, from a run's log.
fn answer(entry: &LogEntry) -> Option<(Recovery, Option<u64>)> {
    match entry.kind {
        LogKind::Hybrid(HybridEvent::Diverged { recovery, restored_step, .. }) => Some((recovery, restored_step)),
        _ => None,
    }
}

#[test]
fn a_run_whose_data_goes_bad_tells_of_each_divergence_and_saves_its_good_weights() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 2_000, 200);
    let mut config = small_config(&data, &runs);
    // More steps than it will do, the first 40 of them to warm up.
    config.num_steps = 1_000_000;
    config.hybrid.warmup_fraction = 4e-5;
    config.schedule = Schedule::ConstantEma { warmup_fraction: 4e-5, ema_decay: 0.98 };
    let job = test.send(|job| Command::Start(job, Box::new(config)));
    for _ in 0..8 {
        test.wait(job, |kind| matches!(kind, EventKind::Saved(_)).then_some(()));
    }
    test.send(|_| Command::Stop);
    test.wait(job, |kind| matches!(kind, EventKind::Ended(StopReason::User)).then_some(()));
    let healthy = list_runs(&runs).unwrap().pop().unwrap();
    assert_eq!(healthy.num_divergences, 0);

    // Other labels; and the run's record is one of a version that could not tell that these are other data.
    let labels = data.join("train-labels-idx1-ubyte");
    let mut bytes = std::fs::read(&labels).unwrap();
    bytes.iter_mut().skip(8).for_each(|label| *label = 9 - *label);
    std::fs::write(labels, bytes).unwrap();
    let record = healthy.folder.join("data.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    json.as_object_mut().unwrap().remove("fingerprint").unwrap();
    std::fs::write(record, json.to_string()).unwrap();
    let job = test.send(|job| Command::ResumeRun(job, healthy.folder.clone()));
    let reason = test.wait(job, |kind| if let EventKind::Ended(reason) = kind { Some(reason) } else { None });
    assert_eq!(reason, StopReason::Diverged);

    let log = open_run(&healthy.folder).unwrap().log;
    let answers: Vec<_> = log.iter().filter_map(answer).collect();
    let ladder = [Recovery::BackToFull, Recovery::CutLearningRate, Recovery::Restore, Recovery::Stop];
    assert_eq!(answers.iter().map(|(recovery, _)| *recovery).collect::<Vec<_>>(), ladder, "{log:#?}");
    let summary = list_runs(&runs).unwrap().pop().unwrap();
    assert_eq!((summary.num_divergences, test.engine.snapshot().unwrap().num_divergences()), (4, 4));
    // What it is saved with is what was good before, not what the wrong labels taught.
    let good_step = answers[3].1.unwrap();
    assert!(good_step <= healthy.step && summary.guard_end.unwrap().restored_step == Some(good_step));
    let model = |step: u64| -> Vec<u8> {
        let checkpoint: PathBuf = ["checkpoints", &format!("step-{step:08}"), "model.safetensors"].iter().collect();
        std::fs::read(healthy.folder.join(checkpoint)).unwrap()
    };
    assert!(model(summary.step) == model(good_step), "steps {} and {good_step}", summary.step);
}

/// Trains `num_steps` and tells of every divergence; the phases that it saw.
fn check_healthy(
    recipe: &TrialRecipe,
    network: &Arc<Network>,
    dataset: &Arc<Dataset>,
    what: &str,
) -> BTreeSet<&'static str> {
    let mut phases = BTreeSet::new();
    let mut told = Vec::new();
    for seed in 0..20 {
        let (mut trainer, batches) = recipe.begin(network, dataset, seed, Device::Cpu).unwrap();
        for step in 0..recipe.num_steps {
            let report = trainer.step(&batches.train_batch(step).unwrap()).unwrap();
            phases.insert(match report.phase {
                Phase::Warmup => "Warmup",
                Phase::Full => "Full",
                Phase::Predict => "Predict",
                Phase::Correct => "Correct",
            });
            let diverged = report.events.iter().find(|event| matches!(event, HybridEvent::Diverged { .. }));
            told.extend(diverged.map(|event| format!("{what}, seed {seed}, step {}: {event:?}", report.step)));
            // After each check, where nothing is amiss.
            let is_measured = report.signals.relative_error.is_some();
            assert!(is_measured || report.step < recipe.num_steps, "{what}, seed {seed}: {:?}", report.signals);
        }
    }
    assert!(told.is_empty(), "{told:#?}");
    phases
}

#[test]
fn healthy_runs_on_digits_trigger_nothing() {
    for kind in KINDS {
        for name in ["conservative", "aggressive"] {
            let what = format!("digits, {kind:?}, {name}");
            check_healthy(&recipe(tier(name), kind, 120), &perceptron((28, 28)), &GLYPHS, &what);
        }
    }
}

/// On patterns that are learned within a hundred steps: most of the run predicts, at losses near 0.
#[test]
fn healthy_runs_that_predict_trigger_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write_idx(folder.path(), 2_000, 200);
    let patterns = loaded(&DatasetSpec::Idx { path: folder.path().to_owned() });
    for kind in KINDS {
        for name in ["conservative", "aggressive"] {
            let what = format!("patterns, {kind:?}, {name}");
            let phases = check_healthy(&recipe(tier(name), kind, 250), &perceptron((8, 8)), &patterns, &what);
            assert_eq!(phases.len(), 4, "{what}: {phases:?}");
        }
    }
}

#[test]
fn healthy_runs_on_text_trigger_nothing() {
    let Dataset::Text(text) = &**GRAMMAR else { panic!("the grammar is text") };
    let config = Gpt2Config {
        vocab_size: text.vocab_size,
        n_positions: 32,
        n_embd: 32,
        n_layer: 1,
        n_head: 2,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.02,
    };
    let network = Arc::new(Network::new(&ModelConfig::Gpt2(config)).unwrap());
    for kind in KINDS {
        for name in ["conservative", "aggressive"] {
            let mut recipe = TrialRecipe { sequence_length: 32, batch_size: 16, ..recipe(tier(name), kind, 120) };
            if kind == OptimizerKind::Muon {
                // As the recipe for text has them.
                (recipe.optimizer.learning_rate, recipe.optimizer.adam_learning_rate) = (1.5e-2, 3e-3);
            }
            check_healthy(&recipe, &network, &GRAMMAR, &format!("text, {kind:?}, {name}"));
        }
    }
}
