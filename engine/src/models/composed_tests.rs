//! Networks as a GPU computes them, composed of candle's operations, against those of our own kernels.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use rand::RngExt;

use super::ops::{cross_entropy, error_norms};
use super::*;
use crate::device::seed::{Stream, stream};
use crate::models::ops::without_kernels;

/// One network of each family, small but with every kind of layer and shape.
fn networks() -> Vec<ModelConfig> {
    let mlp = MlpConfig {
        in_channels: 1,
        image_size: (6, 6),
        hidden_sizes: vec![12, 9],
        num_classes: 4,
        activation: Activation::Gelu,
    };
    let cnn = CnnConfig { in_channels: 2, image_size: (10, 8), channels: vec![4, 6], hidden_size: 12, num_classes: 4 };
    let resnet = ResNetConfig {
        num_channels: 3,
        image_size: (9, 8),
        embedding_size: 4,
        hidden_sizes: vec![4, 8],
        depths: vec![1, 2],
        num_classes: 4,
    };
    let gpt2 = Gpt2Config {
        vocab_size: 11,
        n_positions: 12,
        n_embd: 16,
        n_layer: 2,
        n_head: 2,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.2,
    };
    let llama = LlamaConfig {
        vocab_size: 11,
        max_position_embeddings: 12,
        hidden_size: 16,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        rms_norm_eps: 1e-5,
        rope_theta: 100.0,
        tie_word_embeddings: true,
        initializer_range: 0.2,
        hidden_act: GateActivation::Silu,
        sub_norms: false,
    };
    let bitnet = LlamaConfig { hidden_act: GateActivation::Relu2, sub_norms: true, ..llama.clone() };
    vec![
        ModelConfig::Mlp(mlp),
        ModelConfig::Cnn(cnn),
        ModelConfig::ResNet(resnet),
        ModelConfig::Gpt2(gpt2),
        ModelConfig::Llama(llama),
        ModelConfig::Llama(bitnet),
    ]
}

/// Five examples that `config` reads, and their targets, flat.
fn examples(config: &ModelConfig) -> (Tensor, Tensor) {
    let mut rng = stream(3, Stream::Generate, 0);
    let mut ids = |count: usize, below: u32| (0..count).map(|_| rng.random_range(0..below)).collect::<Vec<u32>>();
    match config.data_shape() {
        DataShape::Images { channels, height, width, num_classes } => {
            let pixels = ids(5 * channels * height * width, 1000);
            let pixels: Vec<f32> = pixels.into_iter().map(|pixel| pixel as f32 / 250.0 - 2.0).collect();
            let targets = Tensor::from_vec(ids(5, num_classes as u32), 5, &Device::Cpu).unwrap();
            (Tensor::from_vec(pixels, (5, channels, height, width), &Device::Cpu).unwrap(), targets)
        }
        DataShape::Text { vocab_size } => {
            let inputs = Tensor::from_vec(ids(5 * 7, vocab_size as u32), (5, 7), &Device::Cpu).unwrap();
            (inputs, Tensor::from_vec(ids(5 * 7, vocab_size as u32), 35, &Device::Cpu).unwrap())
        }
    }
}

/// What a training step sees: losses, error norms, gradients, batch statistics.
struct Pass {
    losses: Vec<f32>,
    errors: Vec<f32>,
    tensors: BTreeMap<String, Tensor>,
}

fn pass(network: &Network, store: &ParamStore, (inputs, targets): &(Tensor, Tensor)) -> Pass {
    let params = store.tracked();
    let forward = Forward::new(&params, Mode::Train);
    let logits = network.forward(&forward, inputs).unwrap();
    let logits = logits.reshape((targets.dim(0).unwrap(), ())).unwrap();
    let losses = cross_entropy(&logits, targets).unwrap();
    let gradients = losses.mean_all().unwrap().backward().unwrap();
    let of_weight = |(name, var): (&str, &candle_core::Var)| (name.to_owned(), gradients.get(var).unwrap().clone());
    let mut tensors: BTreeMap<String, Tensor> = store.vars().map(of_weight).collect();
    for (name, statistic) in forward.into_stats() {
        tensors.insert(name, statistic.to_dtype(candle_core::DType::F32).unwrap());
    }
    Pass { losses: losses.to_vec1().unwrap(), errors: error_norms(&logits, targets).unwrap(), tensors }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the largest number or 1e-3.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let scale = a.iter().fold(1e-3_f32, |largest, number| largest.max(number.abs()));
    a.iter().zip(b).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs())) / scale
}

#[test]
fn losses_gradients_and_statistics_are_the_same() {
    for config in networks() {
        let network = Network::new(&config).unwrap();
        let (weights, buffers) = initial_params(&network, 5, &Device::Cpu).unwrap();
        let store = ParamStore::new(weights, buffers, &Device::Cpu).unwrap();
        let examples = examples(&config);
        let ours = pass(&network, &store, &examples);
        let composed = without_kernels(|| pass(&network, &store, &examples));
        assert!(difference(&ours.losses, &composed.losses) < 1e-5, "losses: {config:?}");
        assert!(difference(&ours.errors, &composed.errors) < 1e-4, "error norms: {config:?}");
        assert_eq!(ours.tensors.len(), composed.tensors.len());
        for (name, ours) in &ours.tensors {
            let difference = difference(&numbers(ours), &numbers(&composed.tensors[name]));
            assert!(difference < 1e-3, "{name} differs by {difference}: {config:?}");
        }
    }
}

/// The same on a GPU. Where there is none, this says so and passes, unless FORETRAIN_GPU asks for one; see
/// `packaging/cuda/check`.
#[test]
#[cfg(feature = "cuda")]
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
fn losses_gradients_and_statistics_are_the_same_on_a_gpu() {
    use crate::device::ComputeDevice;
    let gpu = match ComputeDevice::Cuda(0).open() {
        Ok(gpu) => gpu,
        Err(error) if std::env::var_os("FORETRAIN_GPU").is_none() => return eprintln!("not checked on a GPU: {error}"),
        Err(error) => panic!("{error}"),
    };
    for config in networks() {
        let network = Network::new(&config).unwrap();
        let (weights, buffers) = initial_params(&network, 5, &Device::Cpu).unwrap();
        let here = ParamStore::new(weights.clone(), buffers.clone(), &Device::Cpu).unwrap();
        let there = ParamStore::new(weights, buffers, &gpu).unwrap();
        let (inputs, targets) = examples(&config);
        let moved = (inputs.to_device(&gpu).unwrap(), targets.to_device(&gpu).unwrap());
        let (ours, theirs) = (pass(&network, &here, &(inputs, targets)), pass(&network, &there, &moved));
        assert!(difference(&ours.losses, &theirs.losses) < 1e-3, "losses: {config:?}");
        assert!(difference(&ours.errors, &theirs.errors) < 1e-3, "error norms: {config:?}");
        for (name, ours) in &ours.tensors {
            let difference = difference(&numbers(ours), &numbers(&theirs.tensors[name]));
            assert!(difference < 1e-2, "{name} differs by {difference}: {config:?}");
        }
    }
}

#[test]
fn evaluation_is_the_same() {
    for config in networks() {
        let network = Network::new(&config).unwrap();
        let (weights, buffers) = initial_params(&network, 5, &Device::Cpu).unwrap();
        let params = ParamStore::new(weights, buffers, &Device::Cpu).unwrap().detached();
        let (inputs, _) = examples(&config);
        let logits = || numbers(&network.forward(&Forward::new(&params, Mode::Eval), &inputs).unwrap());
        assert!(difference(&logits(), &without_kernels(logits)) < 1e-4, "{config:?}");
    }
}

#[test]
fn a_kernel_that_is_asked_for_is_refused() {
    let x = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let weight = Tensor::zeros((4, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let tracked = candle_core::Var::from_tensor(&x).unwrap();
    // Recorded by a kernel's forward pass; its backward pass is a kernel's, too.
    let loss = ops::linear(tracked.as_tensor(), &weight, ops::Precision::F32).unwrap().sum_all().unwrap();
    assert!(loss.backward().is_ok());
    let error = without_kernels(|| loss.backward()).unwrap_err();
    assert!(error.to_string().contains("kernel"), "{error}");
}
