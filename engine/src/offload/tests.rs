//! Streamed training against training in memory, and everything that can happen to a folder. Longer than other files,
//! because all of it shares two small models and their batches.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use half::bf16;

use super::files::Version;
use super::state::Weights;
use super::*;
use crate::data::Batch;
use crate::device::{CancelFlag, GpuBudget};
use crate::hybrid::{even_weights, weights_of_rows};
use crate::memory::PlanKind;
use crate::models::ops;
use crate::models::{
    DataShape, Forward, GateActivation, Gpt2Config, LlamaConfig, Mode, ModelConfig, ModelPreset, Network, ParamStore,
    Params, initial_params,
};
use crate::optim::{Gradients, Optimizer, OptimizerConfig, OptimizerKind, StatePlace, StatePrecision};
use crate::unwatched;

pub(super) const SEED: u64 = 5;

pub(super) fn gpt2() -> ModelConfig {
    ModelConfig::Gpt2(Gpt2Config {
        vocab_size: 61,
        n_positions: 24,
        n_embd: 32,
        n_layer: 3,
        n_head: 4,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.1,
    })
}

pub(super) fn llama(tied: bool) -> ModelConfig {
    ModelConfig::Llama(LlamaConfig {
        vocab_size: 61,
        max_position_embeddings: 24,
        hidden_size: 32,
        intermediate_size: 72,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        rms_norm_eps: 1e-5,
        rope_theta: 100.0,
        tie_word_embeddings: tied,
        initializer_range: 0.1,
        hidden_act: GateActivation::Silu,
        sub_norms: false,
    })
}

pub(super) fn optimizer() -> OptimizerConfig {
    OptimizerConfig {
        kind: OptimizerKind::AdamW,
        learning_rate: 3e-3,
        adam_learning_rate: 3e-3,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        momentum: 0.9,
        newton_schulz_steps: 5,
        clip_norm: None,
        states: StatePrecision::F32,
        state_place: StatePlace::WithWeights,
    }
}

pub(super) fn settings(folder: &Path, precision: Precision, commit: Commit) -> OffloadSettings {
    OffloadSettings {
        folder: folder.to_owned(),
        precision,
        commit: Some(commit),
        seed: SEED,
        data: "waves".to_owned(),
        start: None,
    }
}

pub(super) fn network(config: &ModelConfig) -> Arc<Network> {
    Arc::new(Network::new(config).unwrap())
}

pub(super) fn opened(config: &ModelConfig, settings: &OffloadSettings) -> Result<OffloadTrainer, OffloadError> {
    OffloadTrainer::open(network(config), &optimizer(), settings, None, unwatched!())
}

/// Three sequences of 12 tokens that can be learned.
pub(super) fn batch(step: u64) -> Batch {
    let ids = |shift: u64| {
        let id = |i: u64| ((i % 12 + shift) * 5 + i / 12 * 3 + step % 4) % 61;
        let ids: Vec<u32> = (0..36).map(|i| id(i) as u32).collect();
        Tensor::from_vec(ids, (3, 12), &Device::Cpu).unwrap()
    };
    Batch { inputs: ids(0), targets: ids(1) }
}

fn stepped(trainer: &mut OffloadTrainer) -> StreamedStep {
    trainer.step(&batch(trainer.num_steps()), 1.0, unwatched!()).unwrap()
}

/// Losses, gradient norms and weights of the same training in memory, under one graph.
fn in_memory(config: &ModelConfig, products: ops::Precision, num_steps: u64) -> (Vec<f64>, Vec<f64>, Params) {
    let network = network(config);
    let (weights, buffers) = initial_params(&network, SEED, &Device::Cpu).unwrap();
    let store = ParamStore::new(weights, buffers, &Device::Cpu).unwrap();
    let mut optimizer = Optimizer::new(&optimizer(), &network.specs()).unwrap();
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 0..num_steps {
        let batch = batch(step);
        let params = store.tracked();
        let targets = batch.targets.flatten_all().unwrap();
        let weights = weights_of_rows(&even_weights(3, 3), 12);
        let goal = ops::HeadTargets {
            targets: &targets,
            weights: &weights,
            error_norms: None,
            max_logits: crate::models::MAX_LOGITS,
        };
        let pass = Forward::new(&params, Mode::Train).in_precision(products).measured_by(goal);
        let loss = network.forward(&pass, &batch.inputs).unwrap();
        losses.push(f64::from(loss.to_scalar::<f32>().unwrap()));
        let gradients = Gradients::from_backward(&ops::backward(&loss).unwrap(), &store).unwrap();
        norms.push(gradients.norm().unwrap());
        optimizer.step(&store, &gradients, 1.0).unwrap();
    }
    (losses, norms, store.snapshot().unwrap())
}

/// The largest difference of two sets of weights, in the same places.
pub(super) fn difference(a: &Params, b: &Params) -> f32 {
    assert_eq!(a.len(), b.len());
    let of = |(name, a): (&str, &Tensor)| {
        let difference = (a - b.get(name).unwrap()).unwrap().abs().unwrap();
        difference.flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
    };
    a.iter().map(of).fold(0.0, f32::max)
}

pub(super) fn bits(params: &Params) -> Vec<u32> {
    let values = |(_, tensor): (&str, &Tensor)| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    params.iter().flat_map(values).map(f32::to_bits).collect()
}

#[test]
fn a_streamed_step_is_one_in_memory() {
    let products = ops::Precision::ALL.into_iter().filter(|products| products.missing().is_none());
    let cases = products.flat_map(|products| [gpt2(), llama(false), llama(true)].map(|config| (config, products)));
    for (config, products) in cases {
        let folder = tempfile::tempdir().unwrap();
        let trainer = opened(&config, &settings(folder.path(), Precision::Full, Commit::Step)).unwrap();
        let mut trainer = trainer.with_products(products);
        let (losses, norms, expected) = in_memory(&config, products, 3);
        for (loss, norm) in losses.iter().zip(norms) {
            let report = stepped(&mut trainer);
            assert!((report.loss - loss).abs() < 2e-6, "{} {loss}", report.loss);
            let found = report.grad_norm.unwrap();
            assert!((found / norm - 1.0).abs() < 1e-5, "{found} {norm}");
        }
        let difference = difference(&trainer.params().unwrap(), &expected);
        assert_eq!(difference, 0.0, "the same bits");
    }
}

#[test]
fn first_weights_are_those_of_a_network_in_memory() {
    for config in [gpt2(), llama(false)] {
        let folder = tempfile::tempdir().unwrap();
        let trainer = opened(&config, &settings(folder.path(), Precision::Full, Commit::Block)).unwrap();
        let (expected, _) = initial_params(&network(&config), SEED, &Device::Cpu).unwrap();
        assert_eq!(bits(&trainer.params().unwrap()), bits(&expected));
    }
}

#[test]
fn weights_of_others_are_taken_over_once() {
    let folder = tempfile::tempdir().unwrap();
    let from = settings(folder.path(), Precision::Full, Commit::Block);
    let from = OffloadSettings { start: Some("llama".into()), ..from };
    let mut asked = 0;
    let mut first = |spec: &crate::models::TensorSpec| {
        asked += 1;
        Ok((0..spec.num_elements()).map(|i| (i % 7) as f32 + spec.shape.len() as f32).collect())
    };
    let open = |first| OffloadTrainer::open(network(&llama(false)), &optimizer(), &from, first, unwatched!());
    let trainer = open(Some(&mut first)).unwrap();
    let specs = network(&llama(false)).specs();
    for spec in &specs {
        let found = trainer.params().unwrap().get(&spec.name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = |i: usize| (i % 7) as f32 + spec.shape.len() as f32;
        assert!(found.iter().enumerate().all(|(i, x)| *x == expected(i)), "{}", spec.name);
    }
    drop(trainer);
    let mut none = |_: &crate::models::TensorSpec| panic!("they are there");
    open(Some(&mut none)).unwrap();
    assert_eq!(asked, specs.len());
    let drawn = OffloadSettings { start: None, ..from };
    assert!(matches!(opened(&llama(false), &drawn), Err(OffloadError::Other { what: "model to start from", .. })));
}

#[test]
fn logits_in_parts_give_the_same_step() {
    for config in [gpt2(), llama(false)] {
        let weights = [1 << 20, 61 * 7].map(|max_logits| {
            let folder = tempfile::tempdir().unwrap();
            // With so large an epsilon an update is nearly proportional to the gradient, rounding errors and all.
            let optimizer = OptimizerConfig { epsilon: 1.0, weight_decay: 0.0, ..optimizer() };
            let settings = settings(folder.path(), Precision::Full, Commit::Step);
            let mut trainer =
                OffloadTrainer::open(network(&config), &optimizer, &settings, None, unwatched!()).unwrap();
            trainer.set_max_logits(max_logits);
            let loss = stepped(&mut trainer).loss;
            (loss, trainer.params().unwrap())
        });
        assert!((weights[0].0 - weights[1].0).abs() < 1e-6);
        let (start, _) = initial_params(&network(&config), SEED, &Device::Cpu).unwrap();
        assert!(difference(&weights[0].1, &start) > 1e-6, "nothing moved");
        assert!(difference(&weights[0].1, &weights[1].1) < 3e-8);
    }
}

#[test]
fn the_gradient_of_a_block_agrees_with_central_differences() {
    for config in [gpt2(), llama(false)] {
        let network = network(&config);
        let block = network.blocks()[2].as_ref();
        let wave = ops::check::wave;
        let of =
            |spec: &crate::models::TensorSpec| (spec.name.clone(), (wave(&spec.shape, 0.5).unwrap() + 0.2).unwrap());
        let mut values: Vec<(String, Tensor)> = block.specs().iter().map(of).collect();
        values.push(("input".to_owned(), wave(&[2, 5, 32], 1.0).unwrap()));
        let grad = wave(&[2, 5, 32], 0.7).unwrap();
        let split = |values: &[(String, Tensor)]| {
            let vars = values.iter().map(|(name, value)| (name.clone(), Var::from_tensor(value).unwrap()));
            let mut vars: Vec<passes::NamedVar> = vars.collect();
            let input = vars.pop().unwrap().1;
            (vars, input)
        };
        let loss = |values: &[(String, Tensor)]| -> f64 {
            let params: Params = values.iter().cloned().collect();
            let output = passes::forward(block, ops::Precision::F32, &params, &values.last().unwrap().1).unwrap();
            (output * &grad).unwrap().sum_all().unwrap().to_scalar().unwrap()
        };
        let (vars, input) = split(&values);
        let found =
            passes::backward(block, ops::Precision::F32, &vars, (input.as_tensor(), &grad), Vec::new()).unwrap();
        let gradients: Vec<Tensor> = found.vars.into_iter().chain(found.input).collect();
        for (index, gradient) in gradients.iter().enumerate() {
            let gradient: Vec<f64> = gradient.flatten_all().unwrap().to_vec1().unwrap();
            let scale = gradient.iter().fold(1.0_f64, |largest, g| largest.max(g.abs()));
            for element in (0..gradient.len()).step_by((gradient.len() / 11).max(1)) {
                let at = |delta: f64| {
                    let mut moved = values.clone();
                    let (_, tensor) = &mut moved[index];
                    let mut numbers: Vec<f64> = tensor.flatten_all().unwrap().to_vec1().unwrap();
                    numbers[element] += delta;
                    *tensor = Tensor::from_vec(numbers, tensor.shape(), &Device::Cpu).unwrap();
                    loss(&moved)
                };
                let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
                let error = (gradient[element] - expected).abs() / scale;
                assert!(error < 1e-6, "{} {element}: {error}", values[index].0);
            }
        }
    }
}

#[test]
fn compact_numbers_learn_as_full_ones_do() {
    for config in [gpt2(), llama(false)] {
        let [full, compact] = [Precision::Full, Precision::Compact].map(|precision| {
            let folder = tempfile::tempdir().unwrap();
            let mut trainer = opened(&config, &settings(folder.path(), precision, Commit::Block)).unwrap();
            let mut losses: Vec<f64> = (0..60).map(|_| stepped(&mut trainer).loss).collect();
            let last = losses.split_off(52);
            (losses[0], last.iter().sum::<f64>() / last.len() as f64)
        });
        assert!((full.0 - compact.0).abs() < 0.02, "{full:?} {compact:?}");
        assert!(full.1 < full.0 - 1.0 && (full.1 - compact.1).abs() < 0.1 * full.1 + 0.05, "{full:?} {compact:?}");
    }
}

#[test]
fn a_training_that_goes_on_equals_an_unbroken_one() {
    for (precision, commit) in [(Precision::Compact, Commit::Step), (Precision::Full, Commit::Block)] {
        let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut trainer = opened(&gpt2(), &settings(whole.path(), precision, commit)).unwrap();
        for _ in 0..4 {
            stepped(&mut trainer);
        }
        for until in [1, 3, 4] {
            let mut part = opened(&gpt2(), &settings(broken.path(), precision, commit)).unwrap();
            while part.num_steps() < until {
                stepped(&mut part);
            }
        }
        let again = opened(&gpt2(), &settings(broken.path(), precision, commit)).unwrap();
        assert_eq!((again.num_steps(), again.describe().as_str()), (4, "Step 4 is saved"));
        assert_eq!(bits(&trainer.params().unwrap()), bits(&again.params().unwrap()));
    }
}

/// A folder in which block 1 cannot be written, because its temporary name is taken by a folder; returns that.
fn block_writing(trainer: &OffloadTrainer) -> std::path::PathBuf {
    let mut path = trainer.store.files.path(1, trainer.store.version()).into_os_string();
    path.push(".partial");
    std::fs::create_dir(&path).unwrap();
    path.into()
}

#[test]
fn a_step_that_is_committed_whole_is_done_or_undone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Compact, Commit::Step);
    let mut trainer = opened(&llama(false), &settings).unwrap();
    stepped(&mut trainer);
    let before = bits(&trainer.params().unwrap());
    let obstacle = block_writing(&trainer);
    let error = trainer.step(&batch(1), 1.0, unwatched!()).unwrap_err();
    assert!(matches!(&error, OffloadError::Write { state, .. } if state == "Step 1 is saved"), "{error}");
    // Three of five blocks were written, and do not count.
    assert!(trainer.store.files.path(4, Version::Next).exists());
    assert_eq!(bits(&trainer.params().unwrap()), before);
    std::fs::remove_dir(obstacle).unwrap();
    drop(trainer);
    let mut trainer = opened(&llama(false), &settings).unwrap();
    assert!(!trainer.store.files.path(4, Version::Next).exists());
    assert_eq!((trainer.num_steps(), bits(&trainer.params().unwrap()) == before), (1, true));
    stepped(&mut trainer);
    let unbroken = tempfile::tempdir().unwrap();
    let mut other = opened(&llama(false), &OffloadSettings { folder: unbroken.path().to_owned(), ..settings }).unwrap();
    for _ in 0..2 {
        stepped(&mut other);
    }
    assert_eq!(bits(&trainer.params().unwrap()), bits(&other.params().unwrap()));
}

#[test]
fn a_committed_step_survives_an_end_before_its_files_are_renamed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Compact, Commit::Step);
    let mut trainer = opened(&gpt2(), &settings).unwrap();
    let files = |trainer: &OffloadTrainer, block| trainer.store.files.path(block, Version::Current);
    let old: Vec<Vec<u8>> = (0..5).map(|block| std::fs::read(files(&trainer, block)).unwrap()).collect();
    stepped(&mut trainer);
    let after = bits(&trainer.params().unwrap());
    // As it was after the marker and two renames.
    for (block, old) in old.iter().enumerate().skip(2) {
        let current = files(&trainer, block);
        std::fs::rename(&current, trainer.store.files.path(block, Version::Next)).unwrap();
        std::fs::write(&current, old).unwrap();
    }
    drop(trainer);
    let trainer = opened(&gpt2(), &settings).unwrap();
    assert_eq!((trainer.num_steps(), bits(&trainer.params().unwrap()) == after), (1, true));
}

#[test]
fn a_step_that_is_committed_by_blocks_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Compact, Commit::Block);
    let mut trainer = opened(&llama(true), &settings).unwrap();
    stepped(&mut trainer);
    let obstacle = block_writing(&trainer);
    let error = trainer.step(&batch(1), 1.0, unwatched!()).unwrap_err();
    let expected = "Step 1 is saved, and 3 of 5 blocks have step 2; going on finishes it";
    assert!(matches!(&error, OffloadError::Write { state, .. } if state == expected), "{error}");
    std::fs::remove_dir(obstacle).unwrap();
    drop(trainer);
    let mut trainer = opened(&llama(true), &settings).unwrap();
    assert_eq!(trainer.describe(), expected);
    let before = trainer.params().unwrap();
    let report = stepped(&mut trainer);
    assert_eq!((report.step, report.num_kept, trainer.num_steps()), (2, 3, 2));
    let after = trainer.params().unwrap();
    let is_same = |name: &str| {
        bits(&[(name.to_owned(), before.get(name).unwrap().clone())].into_iter().collect())
            == bits(&[(name.to_owned(), after.get(name).unwrap().clone())].into_iter().collect())
    };
    assert!(is_same("model.norm.weight") && is_same("model.layers.1.mlp.up_proj.weight"), "moved twice");
    assert!(!is_same("model.layers.0.mlp.up_proj.weight") && !is_same("model.embed_tokens.weight"), "not moved");
    drop(trainer);
    assert_eq!(opened(&llama(true), &settings).unwrap().describe(), "Step 2 is saved");
}

#[test]
fn a_block_that_is_not_finite_is_named_and_nothing_is_lost() {
    for (number, name) in [(2, "model.layers.1"), (4, "model.norm")] {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), Precision::Compact, Commit::Block);
        let mut trainer = opened(&llama(false), &settings).unwrap();
        stepped(&mut trainer);
        let files = &trainer.store.files;
        let mut state = files.read(number).unwrap();
        let Weights::Compact(weights) = &mut state.weights else { panic!("expected bf16") };
        weights[40] = bf16::NAN;
        files.write(number, &state, Version::Current).unwrap();
        let before = bits(&trainer.params().unwrap());
        let error = trainer.step(&batch(1), 1.0, unwatched!()).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(&format!("of block {name} is NaN")) && message.contains("Step 1 is saved"),
            "{message}"
        );
        assert_eq!(bits(&trainer.params().unwrap()), before);
    }
}

#[test]
fn damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Compact, Commit::Step);
    let mut trainer = opened(&gpt2(), &settings).unwrap();
    let path = trainer.store.files.path(2, Version::Current);
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[5000] ^= 4;
    for (bytes, part) in [(flipped, "checksum"), (whole[..9000].to_vec(), "end"), (vec![b'{'; 5000], "header")] {
        std::fs::write(&path, bytes).unwrap();
        let message = trainer.step(&batch(0), 1.0, unwatched!()).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains("0002"), "{message}");
    }
    std::fs::remove_file(&path).unwrap();
    let message = trainer.step(&batch(0), 1.0, unwatched!()).unwrap_err().to_string();
    assert!(message.contains("disk still there"), "{message}");
    std::fs::write(&path, whole).unwrap();
    stepped(&mut trainer);
}

#[test]
fn folders_of_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mine = settings(folder.path(), Precision::Compact, Commit::Step);
    let trainer = opened(&gpt2(), &mine).unwrap();
    assert!(matches!(opened(&gpt2(), &mine), Err(OffloadError::Locked { .. })));
    drop(trainer);
    assert!(matches!(opened(&llama(true), &mine), Err(OffloadError::Other { what: "model", .. })));
    let other = OffloadSettings { data: "other".to_owned(), ..mine.clone() };
    assert!(matches!(opened(&gpt2(), &other), Err(OffloadError::Other { what: "data", .. })));
    let full = OffloadSettings { precision: Precision::Full, ..mine };
    assert!(matches!(opened(&gpt2(), &full), Err(OffloadError::Other { what: "precision", .. })));
    let taken = tempfile::tempdir().unwrap();
    std::fs::write(taken.path().join("thesis.txt"), "mine").unwrap();
    let there = settings(taken.path(), Precision::Compact, Commit::Step);
    assert!(matches!(opened(&gpt2(), &there), Err(OffloadError::Taken { .. })));
}

#[test]
fn a_folder_that_cannot_be_written_is_told_as_such() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("file"), "mine").unwrap();
    let below_a_file = root.path().join("file/blocks");
    let there = settings(&below_a_file, Precision::Compact, Commit::Step);
    let refused = opened(&gpt2(), &there).unwrap_err();
    assert!(matches!(&refused, OffloadError::Unwritable { path, .. } if *path == below_a_file), "{refused}");
    if cfg!(target_os = "linux") {
        // Not even root makes files there.
        let shape = StepShape {
            batch_size: 1,
            sequence_length: 8,
            products: ops::Precision::F32,
            precision: Precision::Compact,
            sampling: None,
        };
        let nowhere = Path::new("/proc/nowhere");
        let refused =
            Rates::measure((nowhere, &Device::Cpu), &network(&gpt2()), &optimizer(), shape, unwatched!()).unwrap_err();
        let message = refused.to_string();
        assert!(matches!(refused, OffloadError::Unwritable { path, .. } if path == nowhere), "{message}");
        assert!(message.contains("cannot be written") && message.contains("Choose another"), "{message}");
    }
}

#[test]
fn a_store_that_was_not_finished_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), Precision::Compact, Commit::Step);
    let cancel = CancelFlag::default();
    let tell = |progress: crate::device::Progress| {
        if progress.done > 2000 {
            cancel.set();
        }
    };
    let watch = crate::device::Watch::new(&cancel, &tell);
    let stopped = OffloadTrainer::open(network(&gpt2()), &optimizer(), &settings, None, watch);
    assert!(matches!(stopped, Err(OffloadError::Cancelled(_))));
    let trainer = opened(&gpt2(), &settings).unwrap();
    assert_eq!(trainer.num_steps(), 0);
}

#[test]
fn a_step_that_is_cancelled_leaves_the_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = opened(&gpt2(), &settings(folder.path(), Precision::Compact, Commit::Step)).unwrap();
    stepped(&mut trainer);
    let before = bits(&trainer.params().unwrap());
    let cancel = CancelFlag::default();
    let tell = |progress: crate::device::Progress| {
        if progress.what.contains("backward") && progress.done > 5 {
            cancel.set();
        }
    };
    let watch = crate::device::Watch::new(&cancel, &tell);
    assert!(matches!(trainer.step(&batch(1), 1.0, watch), Err(OffloadError::Cancelled(_))));
    assert_eq!(bits(&trainer.params().unwrap()), before);
    assert_eq!(stepped(&mut trainer).step, 2);
}

#[test]
fn models_of_images_and_muon_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let there = settings(folder.path(), Precision::Compact, Commit::Step);
    let images = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };
    let mlp = ModelPreset::Mlp.config(images).unwrap();
    assert!(matches!(opened(&mlp, &there), Err(OffloadError::Setting { .. })));
    let muon = OptimizerConfig { kind: OptimizerKind::Muon, ..optimizer() };
    let refused = OffloadTrainer::open(network(&gpt2()), &muon, &there, None, unwatched!());
    assert!(matches!(refused, Err(OffloadError::Setting { .. })));
}

pub(super) fn planned(
    config: &ModelConfig,
    batch_size: usize,
    sequence_length: usize,
    budget_bytes: u64,
) -> OffloadPlan {
    planned_on(None, config, (batch_size, sequence_length), budget_bytes)
}

/// The same where a GPU computes, if there is a budget of one.
pub(super) fn planned_on(
    gpu: Option<GpuBudget>,
    config: &ModelConfig,
    (batch_size, sequence_length): (usize, usize),
    budget_bytes: u64,
) -> OffloadPlan {
    let network = network(config);
    plan(&OffloadInput {
        network: &network,
        precision: Precision::Compact,
        products: ops::Precision::F32,
        batch_size,
        sequence_length,
        num_threads: 2,
        sampling: None,
        dataset_bytes: 0,
        budget_bytes,
        budget_source: "a test".to_owned(),
        gpu,
    })
    .unwrap()
}

#[test]
fn planned_traffic_is_the_steps() {
    for config in [gpt2(), llama(false), llama(true)] {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = opened(&config, &settings(folder.path(), Precision::Compact, Commit::Block)).unwrap();
        let report = stepped(&mut trainer);
        let plan = planned(&config, 3, 12, 1 << 30);
        assert_eq!(report.read_bytes, plan.read_bytes);
        // A header for each of the five blocks.
        assert_eq!(report.written_bytes, plan.written_bytes + 5 * 4096);
        let size = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().metadata().unwrap().len();
        let on_disk: u64 = std::fs::read_dir(trainer.store.files.folder()).unwrap().map(size).sum();
        assert_eq!(on_disk, report.written_bytes);
        assert!(on_disk < plan.disk_bytes_by_block && plan.disk_bytes_by_block < plan.disk_bytes_by_step);
    }
}

#[test]
fn seven_billion_weights_fit_sixteen_gigabytes() {
    const GIB: u64 = 1 << 30;
    let text = |preset: ModelPreset, vocab_size| preset.config(DataShape::Text { vocab_size }).unwrap();
    for (preset, vocab_size, budget) in [
        (ModelPreset::Gpt2_124M, 50_257, 4 * GIB),
        (ModelPreset::Gpt2_350M, 50_257, 8 * GIB),
        (ModelPreset::Llama1100M, 32_000, 12 * GIB),
        (ModelPreset::Llama7B, 32_000, 16 * GIB),
    ] {
        let plan = planned(&text(preset, vocab_size), 1, 128, budget);
        assert!(plan.memory.fits(), "{plan:?}");
        // A third of the smallest one is its embedding, whose gradient is there more than once.
        let gradients = plan.memory.items.iter().find(|item| item.kind == PlanKind::Gradients).unwrap();
        let limit = if preset == ModelPreset::Gpt2_124M { 6 } else { 4 };
        assert!(gradients.bytes < plan.num_params * limit, "{preset:?}: {plan:?}");
    }
    // 6,738,415,616 weights: two bytes and two moments of one, scales aside.
    let plan = planned(&text(ModelPreset::Llama7B, 32_000), 1, 128, GIB);
    assert_eq!(plan.num_params, 6_738_415_616);
    assert!((4.0..4.02).contains(&(plan.written_bytes as f64 / plan.num_params as f64)));
    assert!(!plan.memory.fits() && plan.memory.remedies.last().unwrap().what.starts_with("a memory budget of"));
}
