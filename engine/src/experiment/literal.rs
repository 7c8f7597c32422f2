//! Small results written by hand, for tests of what is made of them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use super::*;
use crate::data::{self, Augmentation, Dataset, DatasetSpec, TokenizerSpec};
use crate::evaluation::Evaluation;
use crate::hybrid::forecast::ReliabilityPoint;
use crate::hybrid::{Correction, HybridConfig, Recovery, TierPreset};
use crate::models::ops::Precision;
use crate::models::{BlockOrder, Gpt2Config, Growth, ModelConfig, NewBlocks};
use crate::optim::{OptimizerConfig, OptimizerKind, Schedule, StatePlace, StatePrecision};
use crate::quant::{QatConfig, QuantScheme};
use crate::unwatched;

fn tier(name: &str) -> HybridConfig {
    TierPreset::named(name).unwrap().config()
}

/// 40 steps of two sequences of 8 tokens, conservative.
pub(super) fn recipe() -> TrialRecipe {
    TrialRecipe {
        hybrid: tier("conservative"),
        optimizer: OptimizerConfig {
            kind: OptimizerKind::AdamW,
            learning_rate: 1e-3,
            adam_learning_rate: 1e-3,
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
        schedule: Schedule::Cosine { warmup_fraction: 0.05, final_fraction: 0.02 },
        qat: None,
        num_steps: 40,
        batch_size: 2,
        num_micro_batches: 1,
        precision: Precision::F32,
        sequence_length: 8,
        augmentation: Augmentation::default(),
    }
}

/// A few words, character by character.
pub(super) fn text() -> Arc<Dataset> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("words.txt");
    std::fs::write(&path, "the quick brown fox jumps over the lazy dog. ".repeat(20)).unwrap();
    let spec = DatasetSpec::Text { path, tokenizer: TokenizerSpec::Char };
    Arc::new(data::load(&spec, folder.path(), unwatched!()).unwrap())
}

/// A training of 40 steps that took 10 s and ended at `loss`, an accuracy of 90% and no correction.
pub(super) fn result(seed: u64, loss: f64) -> TrialResult {
    let point = |step, seconds, loss| CurvePoint { step, seconds, cost: step as f64, loss };
    let full = PhaseShare { num_steps: 40, seconds: 10.0, median_step_seconds: Some(0.25), example_cost: 80.0 };
    TrialResult {
        seed,
        num_steps: 40,
        seconds: 10.0,
        decision_seconds: 0.1,
        example_cost: 80.0,
        example_backwards: 80,
        examples_per_unit: 1,
        validation: Evaluation { loss, accuracy: Some(0.9), num_examples: 100, loss_error: 0.01 },
        test: None,
        curve: vec![point(20, 5.0, 2.0 * loss), point(40, 10.0, loss)],
        phases: [PhaseShare::default(), full, PhaseShare::default(), PhaseShare::default()],
        corrections: Vec::new(),
        reliability: Reliability::default(),
        divergences: Vec::new(),
        events: Vec::new(),
        costs: None,
        has_diverged: false,
    }
}

/// The same in half the time, with half of the backward passes and two corrections, which took away half of the error.
fn predicting(seed: u64, loss: f64) -> TrialResult {
    let correction = |predicted_loss, corrected_loss, cosine| Correction {
        cosine,
        predicted_loss,
        corrected_loss,
        actual_loss: 1.0,
        slice_fraction: 0.25,
        bias: None,
    };
    let share = |num_steps, seconds, median, example_cost| PhaseShare {
        num_steps,
        seconds,
        median_step_seconds: Some(median),
        example_cost,
    };
    let points = [(0.5, 0.45), (0.9, 0.95)].map(|(nominal, observed)| ReliabilityPoint { nominal, observed });
    TrialResult {
        seconds: 5.0,
        example_backwards: 40,
        example_cost: 45.75,
        phases: [
            PhaseShare::default(),
            share(8, 2.0, 0.25, 16.0),
            share(30, 2.4, 0.08, 25.0),
            share(2, 0.6, 0.28, 4.75),
        ],
        corrections: vec![(20, correction(1.5, 1.125, 0.75)), (36, correction(0.75, 1.125, 0.875))],
        reliability: Reliability { num_forecasts: 32, curve: points.to_vec() },
        ..result(seed, loss)
    }
}

/// What the guard ended: its figures are not numbers.
fn diverged(seed: u64) -> TrialResult {
    let mut result = predicting(seed, f64::NAN);
    result.validation = Evaluation { loss: f64::NAN, accuracy: None, num_examples: 0, loss_error: f64::NAN };
    result.divergences = vec![(30, Recovery::Stop)];
    result.has_diverged = true;
    result
}

fn contender(name: &str, recipe: TrialRecipe) -> Contender {
    Contender { name: name.to_owned(), what: format!("{name}, in words"), recipe, begins: None }
}

pub(super) fn arena() -> ArenaResult {
    let plan = ArenaPlan {
        recipe: recipe(),
        vanilla: tier("vanilla"),
        rate_factors: vec![1.0, 2.0],
        batch_divisors: vec![1],
        seeds: vec![1, 2],
        tuning_seed: 0,
    };
    let tuned = |name: &str| Tuned {
        contender: contender(name, recipe()),
        tried: vec![tried(1e-3, Some(0.5)), tried(2e-3, None)],
        seed: 0,
        best: 0,
        is_at_edge: true,
    };
    ArenaResult {
        plan,
        tuned: ["hybrid", "vanilla, same steps", "vanilla, same time", "frozen"].map(tuned).to_vec(),
        results: vec![
            vec![predicting(1, 0.11), predicting(2, 0.22)],
            vec![result(1, 0.1), result(2, 0.2)],
            vec![result(1, 0.12), result(2, 0.21)],
            vec![result(1, 0.3), diverged(2)],
        ],
    }
}

pub(super) fn corrections() -> CorrectionsResult {
    let plan = CorrectionsPlan {
        recipe: recipe(),
        confidence_thresholds: vec![0.65, 0.55],
        horizons: vec![30, 50],
        seeds: vec![1],
    };
    let setting = |confidence_threshold, max_predict_steps| SettingResult {
        confidence_threshold,
        max_predict_steps,
        results: vec![predicting(1, 0.1)],
    };
    let settings = vec![setting(0.65, 30), setting(0.65, 50), setting(0.55, 30), setting(0.55, 50)];
    CorrectionsResult { plan, settings }
}

pub(super) fn tiers() -> TiersResult {
    let contender = |name: &str| contender(name, TrialRecipe { hybrid: tier(name), ..recipe() });
    let plan =
        TiersPlan { tiers: ["vanilla", "conservative", "aggressive"].map(contender).to_vec(), seeds: vec![1, 2] };
    TiersResult {
        plan,
        results: vec![
            vec![result(1, 0.1), result(2, 0.2)],
            vec![predicting(1, 0.11), predicting(2, 0.22)],
            vec![predicting(1, 0.125), diverged(2)],
        ],
    }
}

pub(super) fn ladder() -> LadderResult {
    let plan = LadderPlan {
        sizes: vec![RungSize::P100K, RungSize::P1M, RungSize::P11M],
        recipe: recipe(),
        vanilla: tier("vanilla"),
        seconds_per_rung: 60.0,
        loss_tolerance: 0.01,
        max_examples: 4,
        seed: 1,
    };
    let trained = |vanilla: TrialResult, hybrid: TrialResult| RungOutcome::Trained {
        vanilla: Box::new(vanilla),
        hybrid: Box::new(hybrid),
    };
    let cut = |result: TrialResult| TrialResult { num_steps: 12, ..result };
    let rung = |size, num_params, outcome| RungResult { size, num_params, num_micro_batches: 1, outcome };
    let rungs = vec![
        rung(RungSize::P100K, 118_000, trained(result(1, 1.0), predicting(1, 1.005))),
        rung(RungSize::P1M, 1_030_000, trained(cut(result(1, 1.0)), cut(predicting(1, 1.05)))),
        rung(RungSize::P11M, 10_800_000, RungOutcome::NotOpened),
    ];
    LadderResult { plan, rungs }
}

/// A GPT-2 for [`text`], as small as can be.
pub(super) fn gpt2(vocab_size: usize, n_layer: usize) -> ModelConfig {
    ModelConfig::Gpt2(Gpt2Config {
        vocab_size,
        n_positions: 8,
        n_embd: 16,
        n_layer,
        n_head: 2,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.02,
    })
}

pub(super) fn growth_plan(model: ModelConfig) -> GrowthPlan {
    GrowthPlan {
        recipe: TrialRecipe { hybrid: tier("vanilla"), ..recipe() },
        model,
        share: 0.65,
        orders: BlockOrder::ALL.to_vec(),
        rate_factors: vec![1.0, 2.0],
        seeds: vec![1, 2],
        tuning_seed: 0,
    }
}

/// Of the second seed everything is twice that of the first.
pub(super) fn growth() -> GrowthResult {
    let plan = growth_plan(gpt2(30, 4));
    let model = plan.half().unwrap();
    let grows = |new_blocks| Some((plan.half_steps(), Growth { order: BlockOrder::Interleaved, new_blocks }));
    let begins = [
        Some(Beginning { model: model.clone(), grows: grows(NewBlocks::Copied) }),
        None,
        None,
        Some(Beginning { model: model.clone(), grows: None }),
        Some(Beginning { model, grows: grows(NewBlocks::Random) }),
    ];
    let names = ["grown", "full depth, same steps", "full depth, same time", "half depth, same time", "grown, random"];
    let tuned = names.into_iter().zip(begins).map(|(name, begins)| Tuned {
        contender: Contender { begins, ..contender(name, plan.recipe.clone()) },
        tried: vec![tried(1e-3, Some(0.5)), tried(2e-3, None)],
        seed: 0,
        best: 0,
        is_at_edge: true,
    });
    let tuned: Vec<Tuned> = tuned.collect();
    let flops = tuned.iter().map(|tuned| plan.flops(&tuned.contender, 40)).collect();
    let seeds = |seconds, loss| [1, 2].map(|seed| TrialResult { seconds, ..result(seed, loss * seed as f64) }).to_vec();
    GrowthResult {
        pace: Pace { full_step_seconds: 0.25, half_step_seconds: 0.125 },
        flops,
        results: vec![seeds(5.0, 0.1), seeds(10.0, 0.08), seeds(5.0, 0.125), seeds(5.0, 0.15625), seeds(5.0, 0.2)],
        tuned,
        plan,
    }
}

fn tried(rate: f64, validation_loss: Option<f64>) -> Tried {
    Tried {
        setting: format!("learning rate {rate}"),
        learning_rate: rate,
        batch_size: 2,
        num_steps: 40,
        validation_loss,
        seconds: 10.0,
    }
}

/// Images: full precision is right in 98% and 96%; each way to fewer bits costs the same accuracy with both seeds, but for
/// the training.
pub(super) fn quantization() -> QuantizationResult {
    let recipe = TrialRecipe { hybrid: tier("vanilla"), ..recipe() };
    let plan = QuantizationPlan::new(&recipe, &[QatConfig::new(QuantScheme::Ternary)], 16, vec![1, 2]);
    let figures = |loss, accuracy| Evaluation { loss, accuracy: Some(accuracy), num_examples: 100, loss_error: 0.01 };
    let trained = |accuracies: [f64; 2], more: f64| {
        let of = |(seed, accuracy): (u64, f64)| TrialResult {
            validation: figures(0.1 * seed as f64 + more, accuracy),
            ..result(seed, 0.0)
        };
        [1, 2].into_iter().zip(accuracies).map(of).collect::<Vec<_>>()
    };
    let stored = |form: Form, lost: f64| StoredForm {
        form,
        bits_per_weight: 4.5,
        results: [0.98, 0.96].map(|full| Some(HeldOut { validation: figures(0.5, full - lost), test: None })).to_vec(),
    };
    let forms = QuantizationPlan::FORMS.into_iter().zip([0.001, 0.05, 0.04, 0.3, 0.2]);
    QuantizationResult {
        plan,
        bits_per_weight: vec![32.0, 2.2],
        trained: vec![trained([0.98, 0.96], 0.0), trained([0.975, 0.945], 0.03)],
        stored: forms.map(|(form, lost)| stored(form, lost)).collect(),
    }
}

/// Plain training and two features with two seeds: one that changes nothing, one that ends a tenth higher in half again the
/// time.
pub(super) fn features() -> FeaturesResult {
    let features = vec![MemoryFeature::ActivationCheckpointing, MemoryFeature::EightBitStates];
    let recipe = TrialRecipe { hybrid: tier("vanilla"), ..recipe() };
    let run = |seed: u64, factor: f64, has_plain_weights| {
        let TrialResult { seconds, curve, validation, .. } = result(seed, 0.1 * seed as f64);
        FeatureRun { seed, seconds: factor * seconds, curve, loss: factor * validation.loss, has_plain_weights }
    };
    let of = |feature, factor: f64, is_equal, planned_bytes| {
        let runs = [1, 2].map(|seed| run(seed, factor, is_equal)).to_vec();
        FeatureResult { feature, planned_bytes, runs }
    };
    let results = vec![
        of(None, 1.0, true, 400 << 20),
        of(Some(features[0]), 1.0, true, 300 << 20),
        of(Some(features[1]), 1.1, false, 200 << 20),
    ];
    FeaturesResult { plan: FeaturesPlan::new(recipe, features, vec![1, 2], 64), results }
}
