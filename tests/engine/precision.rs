//! Training with products in bf16: as good as in f32, repeatable bit for bit, refused where it cannot be had.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use candle_core::{DType, Device, Tensor};
use foretrain_engine::data::{Augmentation, BatchSource, Dataset, DatasetSpec, SplitPart, load};
use foretrain_engine::device::ComputeDevice;
use foretrain_engine::evaluation::evaluate;
use foretrain_engine::experiment::TrialRecipe;
use foretrain_engine::hybrid::{HybridTrainer, TierPreset};
use foretrain_engine::models::ops::Precision;
use foretrain_engine::models::{Gpt2Config, ModelConfig, Network};
use foretrain_engine::optim::{OptimizerConfig, OptimizerKind, Schedule};
use foretrain_engine::session::{Command, EventKind, RunConfig};
use foretrain_engine::unwatched;
use foretrain_tests::{TestEngine, small_config, write_idx};

/// Kept between runs of the tests.
static GRAMMAR: LazyLock<Arc<Dataset>> = LazyLock::new(|| {
    Arc::new(load(&DatasetSpec::Grammar, Path::new(env!("CARGO_TARGET_TMPDIR")), unwatched!()).unwrap())
});

const NUM_STEPS: u64 = 120;

fn network() -> Arc<Network> {
    let config = ModelConfig::Gpt2(Gpt2Config {
        vocab_size: 0,
        n_positions: 32,
        n_embd: 48,
        n_layer: 2,
        n_head: 3,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.05,
    });
    Arc::new(Network::new(&config.fitted_to(GRAMMAR.shape()).unwrap()).unwrap())
}

fn begin(network: &Arc<Network>, precision: Precision) -> (HybridTrainer, BatchSource) {
    let recipe = TrialRecipe {
        hybrid: TierPreset::named("vanilla").unwrap().config(),
        optimizer: OptimizerConfig {
            kind: OptimizerKind::AdamW,
            learning_rate: 3e-3,
            adam_learning_rate: 3e-3,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.01,
            momentum: 0.9,
            newton_schulz_steps: 3,
            clip_norm: Some(1.0),
        },
        schedule: Schedule::Cosine { warmup_fraction: 0.05, final_fraction: 0.1 },
        qat: None,
        num_steps: NUM_STEPS,
        batch_size: 16,
        num_micro_batches: 1,
        precision,
        sequence_length: 32,
        augmentation: Augmentation::default(),
    };
    recipe.begin(network, &GRAMMAR, 3, Device::Cpu).unwrap()
}

fn train_to(step: u64, trainer: &mut HybridTrainer, batches: &BatchSource) {
    while trainer.num_steps_done() < step {
        trainer.step(&batches.train_batch(trainer.num_steps_done()).unwrap()).unwrap();
    }
}

/// All tensors that decide the steps to come.
fn bits(trainer: &HybridTrainer) -> BTreeMap<String, Vec<u32>> {
    let bits = |tensor: Tensor| -> Vec<u32> {
        let values = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    trainer.state().unwrap().tensors.into_iter().map(|(name, tensor)| (name, bits(tensor))).collect()
}

#[test]
fn a_small_gpt_learns_as_much_and_a_resumed_run_equals_an_unbroken_one() {
    if Precision::Bf16.missing().is_some() {
        // What then happens is tested below.
        return;
    }
    let network = network();
    let loss = |trainer: &HybridTrainer, batches: &BatchSource| {
        let params = trainer.evaluation_params().unwrap();
        evaluate(&network, &params, batches.evaluation_batches(SplitPart::Validation, 200), unwatched!()).unwrap().loss
    };
    let [exact, rounded] = [Precision::F32, Precision::Bf16].map(|precision| {
        let (mut trainer, batches) = begin(&network, precision);
        let before = loss(&trainer, &batches);
        train_to(NUM_STEPS / 2, &mut trainer, &batches);
        let halfway = trainer.state().unwrap();
        train_to(NUM_STEPS, &mut trainer, &batches);
        let (after, unbroken) = (loss(&trainer, &batches), bits(&trainer));
        assert!(after < 0.7 * before, "{precision:?}: {before} to {after}");
        let (mut resumed, batches) = begin(&network, precision);
        resumed.restore(&halfway).unwrap();
        train_to(NUM_STEPS, &mut resumed, &batches);
        assert!(bits(&resumed) == unbroken, "{precision:?}");
        (after, unbroken)
    });
    assert!((exact.0 / rounded.0 - 1.0).abs() < 0.03, "validation loss {} in f32, {} in bf16", exact.0, rounded.0);
    assert!(exact.1 != rounded.1, "training in bf16 was in f32");
}

#[test]
fn what_cannot_train_in_bf16_is_refused() {
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 500, 100);
    let mut refusal = |change: &dyn Fn(&mut RunConfig)| {
        let mut config = RunConfig { precision: Precision::Bf16, ..small_config(&data, &runs) };
        change(&mut config);
        let job = test.send(|job| Command::Start(job, Box::new(config)));
        test.wait(job, |kind| if let EventKind::Rejected(failure) = kind { Some(failure.message) } else { None })
    };
    let of_images = refusal(&|_| {});
    let on_gpu = refusal(&|config| config.device = ComputeDevice::Cuda(0));
    match Precision::Bf16.missing() {
        Some(missing) => assert!(of_images.contains(missing) && on_gpu.contains(missing), "{of_images} {on_gpu}"),
        None => {
            assert!(of_images.contains("bf16") && of_images.contains("language model"), "{of_images}");
            assert!(on_gpu.contains("GPU"), "{on_gpu}");
        }
    }
}

#[test]
fn recipes_of_earlier_versions_are_in_f32() {
    let config = small_config(Path::new("data"), Path::new("runs"));
    let text = ron::to_string(&config).unwrap();
    assert!(!text.contains("precision"), "{text}");
    assert_eq!(ron::from_str::<RunConfig>(&text).unwrap().precision, Precision::F32);
    let text = ron::to_string(&RunConfig { precision: Precision::Bf16, ..config }).unwrap();
    assert_eq!(ron::from_str::<RunConfig>(&text).unwrap().precision, Precision::Bf16);
}
