//! Training with products in bf16: as good as in f32, repeatable bit for bit, refused where it cannot be had. Beside 8-bit
//! inputs, teachers and blocks on disk, too.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, LazyLock};

use candle_core::{DType, Device, Tensor};
use foretrain_engine::data::{Augmentation, BatchSource, Dataset, DatasetSpec, SplitPart, load};
use foretrain_engine::device::ComputeDevice;
use foretrain_engine::evaluation::evaluate;
use foretrain_engine::experiment::TrialRecipe;
use foretrain_engine::hybrid::{HybridTrainer, TierPreset};
use foretrain_engine::models::ops::Precision;
use foretrain_engine::models::{Gpt2Config, ModelConfig, Network};
use foretrain_engine::optim::{OptimizerConfig, OptimizerKind, Schedule, StatePlace, StatePrecision};
use foretrain_engine::quant::{Distillation, QatConfig, QuantScheme};
use foretrain_engine::session::{self, EventKind, RunConfig, open_run};
use foretrain_engine::unwatched;
use foretrain_tests::{TestEngine, small_config, write_idx};
use serde_json::Value;

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

fn begin(network: &Arc<Network>, qat: Option<QatConfig>, precision: Precision) -> (HybridTrainer, BatchSource) {
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
            states: StatePrecision::F32,
            state_place: StatePlace::WithWeights,
        },
        schedule: Schedule::Cosine { warmup_fraction: 0.05, final_fraction: 0.1 },
        qat,
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
    check_learning(None, 0.03);
}

#[test]
fn quantization_aware_training_with_a_teacher_does_so_too() {
    let qat = QatConfig {
        ramp_fraction: 0.1,
        distillation: Some(Distillation::DEFAULT),
        ..QatConfig::new(QuantScheme::Int8)
    };
    check_learning(Some(qat), 0.05);
}

/// Trains in both precisions, whose losses at the end may differ by `tolerance` of themselves; and again from halfway.
fn check_learning(qat: Option<QatConfig>, tolerance: f64) {
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
        let (mut trainer, batches) = begin(&network, qat, precision);
        let before = loss(&trainer, &batches);
        train_to(NUM_STEPS / 2, &mut trainer, &batches);
        let halfway = trainer.state().unwrap();
        train_to(NUM_STEPS, &mut trainer, &batches);
        let (after, unbroken) = (loss(&trainer, &batches), bits(&trainer));
        assert!(after < 0.7 * before, "{precision:?}: {before} to {after}");
        let (mut resumed, batches) = begin(&network, qat, precision);
        resumed.restore(&halfway).unwrap();
        train_to(NUM_STEPS, &mut resumed, &batches);
        assert!(bits(&resumed) == unbroken, "{precision:?}");
        (after, unbroken)
    });
    assert!((exact.0 / rounded.0 - 1.0).abs() < tolerance, "validation loss {} in f32, {} in bf16", exact.0, rounded.0);
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
        let job = test.send(|job| session::Command::Start(job, Box::new(config)));
        test.wait(job, |kind| if let EventKind::Rejected(failure) = kind { Some(failure.message) } else { None })
    };
    let of_images = refusal(&|_| {});
    let on_gpu = refusal(&|config| config.device = ComputeDevice::Cuda(0));
    // What a GPU computes needs nothing of the processor.
    assert!(on_gpu.contains("precision bf16") && on_gpu.contains("language model"), "{on_gpu}");
    let expected = Precision::Bf16.missing().unwrap_or("language model");
    assert!(of_images.contains("precision bf16") && of_images.contains(expected), "{of_images}");
    let fp16 = refusal(&|config| config.precision = Precision::F16);
    assert!(fp16.contains("precision fp16") && fp16.contains("GPUs alone"), "{fp16}");
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

/// The program, in its own home.
fn foretrain(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretrain-under-test"));
    command.current_dir(home).args(args).stdin(Stdio::null()).env("HOME", home);
    for variable in ["FORETRAIN_RUNS", "XDG_CACHE_HOME", "XDG_DATA_HOME", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command.output().unwrap()
}

/// The object on its last line; it must have succeeded.
#[track_caller]
fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    let text = std::str::from_utf8(&output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect(text)
}

/// Twelve steps of a small GPT on a short text.
const TRAIN: [&str; 23] = [
    "train",
    "--preset",
    "grammar-gpt2-char",
    "--data",
    "wolf.txt",
    "--tier",
    "vanilla",
    "--steps",
    "12",
    "--batch-size",
    "4",
    "--sequence-length",
    "32",
    "--checkpoint-interval",
    "5",
    "--threads",
    "1",
    "--seed",
    "3",
    "--json",
    "--runs",
    "runs",
    "--precision",
];

fn write_text(folder: &Path) {
    let words = ["one ", "wolf ", "saw ", "seven ", "goats ", "and ", "ran. "];
    let text: String = (0..3000).map(|i| words[(i * i + i / 7) % words.len()]).collect();
    std::fs::write(folder.join("wolf.txt"), text).unwrap();
}

fn train(home: &Path, precision: &str) -> PathBuf {
    let output = foretrain(home, &[&TRAIN[..], &[precision]].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(told.contains("matrix products in bf16 by "), precision == "bf16", "{told}");
    home.join(json_of(&output)["run"].as_str().unwrap())
}

#[test]
fn a_run_goes_on_bit_for_bit_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    write_text(home);
    if let Some(missing) = Precision::Bf16.missing() {
        let output = foretrain(home, &[&TRAIN[..], &["bf16"]].concat());
        assert!(!output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(missing), "{output:?}");
        return;
    }
    let [exact, rounded] = ["f32", "bf16"].map(|precision| train(home, precision));
    let recipe = |run: &Path| std::fs::read_to_string(run.join("config.ron")).unwrap();
    // Recipes in f32 are written as those of earlier versions were.
    assert!(!recipe(&exact).contains("precision"), "{}", recipe(&exact));
    assert_eq!(open_run(&exact).unwrap().config.precision, Precision::F32);
    assert_eq!(open_run(&rounded).unwrap().config.precision, Precision::Bf16);

    let last = |run: &Path| run.join("checkpoints/step-00000012");
    let read = |run: &Path| {
        ["model.safetensors", "trainer.safetensors"].map(|file| std::fs::read(last(run).join(file)).unwrap())
    };
    let unbroken = read(&rounded);
    assert!(unbroken != read(&exact), "training in bf16 was in f32");
    std::fs::remove_dir_all(last(&rounded)).unwrap();
    let resumed = foretrain(home, &["train", "--json", "--resume", rounded.to_str().unwrap()]);
    assert_eq!(json_of(&resumed)["steps"], 12);
    assert!(String::from_utf8_lossy(&resumed.stderr).contains("going on after step 10"), "{resumed:?}");
    assert!(read(&rounded) == unbroken, "a resumed run differs");
}

#[test]
fn blocks_on_disk_train_in_bf16() {
    if Precision::Bf16.missing().is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    write_text(home);
    let losses = ["f32", "bf16", "bf16"].map(|precision| {
        let blocks = tempfile::tempdir_in(home).unwrap();
        let mut args = vec!["train", "--preset", "grammar-gpt2-char", "--data", "wolf.txt", "--steps", "3"];
        args.extend(["--batch-size", "4", "--sequence-length", "32", "--threads", "1", "--seed", "3", "--json"]);
        args.extend(["--offload-precision", "full", "--blocks-only", "--precision", precision]);
        args.extend(["--offload", blocks.path().to_str().unwrap()]);
        let figures = json_of(&foretrain(home, &args));
        let losses = figures["offload"]["losses"].as_array().unwrap();
        losses.iter().map(|loss| loss.as_f64().unwrap()).collect::<Vec<f64>>()
    });
    let [exact, rounded, again] = losses;
    assert_eq!(rounded, again);
    for (exact, rounded) in exact.iter().zip(&rounded) {
        assert!(exact != rounded && (exact / rounded - 1.0).abs() < 0.01, "{exact} in f32, {rounded} in bf16");
    }
}
