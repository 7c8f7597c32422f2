//! Whole image networks: sizes, names, modes, learning, repeatability.
#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::{DType, Device, IndexOp, Tensor};
use rand::RngExt;

use super::*;
use crate::device::seed::{Stream, stream};

const MNIST: DataShape = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };
const CIFAR: DataShape = DataShape::Images { channels: 3, height: 32, width: 32, num_classes: 10 };

fn network(preset: ModelPreset, data: DataShape) -> Network {
    Network::new(&preset.config(data).unwrap()).unwrap()
}

/// A batch of noise in which every class has a bright corner of its own: (n, c, h, w) and (n).
fn batch(n: usize, (c, h, w): (usize, usize, usize), num_classes: usize) -> (Tensor, Tensor) {
    let mut rng = stream(7, Stream::Generate, n as u64);
    let mut pixels = Vec::with_capacity(n * c * h * w);
    let targets: Vec<u32> = (0..n).map(|i| (i % num_classes) as u32).collect();
    for &target in &targets {
        for at in 0..c * h * w {
            let (y, x) = (at / w % h, at % w);
            let corner = (y * 2 / h) * 2 + x * 2 / w;
            let light = if corner == target as usize { 1.0 } else { 0.0 };
            pixels.push(light + rng.random::<f32>() - 0.5);
        }
    }
    let x = Tensor::from_vec(pixels, (n, c, h, w), &Device::Cpu).unwrap();
    (x, Tensor::from_vec(targets, n, &Device::Cpu).unwrap())
}

fn loss(logits: &Tensor, targets: &Tensor) -> Tensor {
    candle_nn::loss::cross_entropy(logits, targets).unwrap()
}

fn store(network: &Network) -> ParamStore {
    let (weights, buffers) = initial_params(network, 3, &Device::Cpu).unwrap();
    ParamStore::new(weights, buffers, &Device::Cpu).unwrap()
}

/// One step of plain gradient descent; returns the loss.
fn sgd_step(network: &Network, store: &mut ParamStore, (x, targets): &(Tensor, Tensor), rate: f64) -> f32 {
    let params = store.tracked();
    let pass = Forward::new(&params, Mode::Train);
    let loss = loss(&network.forward(&pass, x).unwrap(), targets);
    let grads = loss.backward().unwrap();
    for (_, var) in store.vars() {
        let moved = (var.as_detached_tensor() - (grads.get(var).unwrap() * rate).unwrap()).unwrap();
        var.set(&moved).unwrap();
    }
    let stats = pass.into_stats();
    let buffers = updated_running_stats(store.buffers(), &stats, BATCH_NORM_MOMENTUM).unwrap();
    store.update_buffers(buffers);
    loss.to_scalar().unwrap()
}

fn tiny_cnn() -> Network {
    let config =
        CnnConfig { in_channels: 1, image_size: (8, 8), channels: vec![4, 8], hidden_size: 16, num_classes: 4 };
    Network::new(&ModelConfig::Cnn(config)).unwrap()
}

fn tiny_resnet() -> Network {
    let config = ResNetConfig {
        num_channels: 3,
        image_size: (8, 8),
        embedding_size: 4,
        hidden_sizes: vec![4, 8],
        depths: vec![1, 2],
        num_classes: 4,
    };
    Network::new(&ModelConfig::ResNet(config)).unwrap()
}

fn max_difference(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn presets_have_the_published_sizes() {
    assert_eq!(network(ModelPreset::MnistCnn, MNIST).num_params(), 105_866);
    // 269,722 (He et al. 2015, table 6: 0.27M) and 2,752 for the projection shortcuts.
    assert_eq!(network(ModelPreset::ResNet20, CIFAR).num_params(), 272_474);
    // torchvision's resnet18 has 11,689,512: less 7,680 of the 7x7 stem, less 507,870 of the 1000-class head.
    assert_eq!(network(ModelPreset::ResNet18, CIFAR).num_params(), 11_689_512 - 7_680 - 507_870);
    assert_eq!(network(ModelPreset::Mlp, MNIST).num_params(), 784 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10);
}

#[test]
fn names_are_those_of_a_checkpoint() {
    let names = |network: &Network| network.specs().into_iter().map(|spec| spec.name).collect::<Vec<_>>();
    let cnn = names(&network(ModelPreset::MnistCnn, MNIST));
    let parts = ["conv.0", "conv.1", "fc", "classifier"];
    let expected: Vec<_> = parts.iter().flat_map(|p| [format!("{p}.weight"), format!("{p}.bias")]).collect();
    assert_eq!(cnn, expected);

    let resnet = names(&network(ModelPreset::ResNet20, CIFAR));
    for name in [
        "resnet.embedder.embedder.convolution.weight",
        "resnet.embedder.embedder.normalization.running_mean",
        "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight",
        "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight",
        "resnet.encoder.stages.1.layers.0.shortcut.normalization.bias",
        "resnet.encoder.stages.2.layers.2.layer.1.normalization.running_var",
        "classifier.1.weight",
        "classifier.1.bias",
    ] {
        assert!(resnet.iter().any(|found| found == name), "{name} is missing");
    }
    assert!(!resnet.iter().any(|name| name.starts_with("resnet.encoder.stages.0.layers.0.shortcut")));
    // 1 stem, 9 blocks of 2, 2 shortcuts: 5 tensors each; the head has 2.
    assert_eq!(resnet.len(), (1 + 18 + 2) * 5 + 2);
    assert_eq!(network(ModelPreset::ResNet20, CIFAR).blocks().len(), 1 + 9 + 1);
}

#[test]
fn logits_have_one_row_per_image() {
    for (network, shape) in [(tiny_cnn(), (1, 8, 8)), (tiny_resnet(), (3, 8, 8))] {
        let params = store(&network).detached();
        let (x, _) = batch(5, shape, 4);
        let logits = network.forward(&Forward::new(&params, Mode::Eval), &x).unwrap();
        assert_eq!(logits.dims(), [5, 4]);
        assert_eq!(logits.dtype(), DType::F32);
    }
}

#[test]
fn impossible_configs_say_why() {
    let check = |config: ModelConfig, part: &str| {
        let message = Network::new(&config).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    };
    let cnn = CnnConfig { in_channels: 1, image_size: (8, 8), channels: vec![4; 4], hidden_size: 8, num_classes: 4 };
    check(ModelConfig::Cnn(cnn.clone()), "fewer entries");
    check(ModelConfig::Cnn(CnnConfig { hidden_size: 0, ..cnn }), "`hidden_size` of at least 1");
    let resnet = ResNetConfig {
        num_channels: 3,
        image_size: (8, 8),
        embedding_size: 4,
        hidden_sizes: vec![4, 8],
        depths: vec![1],
        num_classes: 4,
    };
    check(ModelConfig::ResNet(resnet), "one entry per stage");
}

#[test]
fn sampled_mode_uses_the_statistics_of_the_whole_batch() {
    let network = tiny_resnet();
    let params = store(&network).detached();
    let (x, _) = batch(8, (3, 8, 8), 4);
    let pass = Forward::new(&params, Mode::Train);
    let whole = network.forward(&pass, &x).unwrap();
    let stats = pass.into_stats();
    let few = x.i((2..5, .., .., ..)).unwrap().contiguous().unwrap();
    let sampled = network.forward(&Forward::new(&params, Mode::Sampled(&stats)), &few).unwrap();
    assert!(max_difference(&sampled, &whole.i((2..5, ..)).unwrap()) < 1e-4);
}

#[test]
fn evaluation_agrees_with_training_once_the_running_statistics_are_the_batch() {
    let network = tiny_resnet();
    let mut store = store(&network);
    let (x, _) = batch(8, (3, 8, 8), 4);
    let params = store.detached();
    let pass = Forward::new(&params, Mode::Train);
    let trained = network.forward(&pass, &x).unwrap();
    let mut stats = pass.into_stats();
    let counts: Vec<_> = stats.iter().filter(|(name, _)| name.ends_with(".count")).map(|(n, _)| n.to_owned()).collect();
    assert_eq!(counts.len(), network.specs().iter().filter(|s| s.name.ends_with("running_mean")).count());
    // A huge count leaves the biased variance of the batch as it is.
    for name in counts {
        stats.insert(name, Tensor::new(1e18, &Device::Cpu).unwrap());
    }
    let buffers = updated_running_stats(store.buffers(), &stats, 1.0).unwrap();
    store.update_buffers(buffers);
    let params = store.detached();
    let evaluated = network.forward(&Forward::new(&params, Mode::Eval), &x).unwrap();
    assert!(max_difference(&evaluated, &trained) < 1e-4);
}

#[test]
fn running_statistics_move_by_the_momentum() {
    let tensor = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
    let buffers: Params = [("a.running_mean", [1.0, 2.0]), ("a.running_var", [4.0, 8.0])]
        .into_iter()
        .map(|(name, values)| (name.to_owned(), tensor(values)))
        .collect();
    let mut stats = BatchStats::default();
    stats.insert("a.mean", tensor([3.0, 0.0]));
    stats.insert("a.var", tensor([9.0, 18.0]));
    stats.insert("a.count", Tensor::new(10.0, &Device::Cpu).unwrap());
    let updated = updated_running_stats(&buffers, &stats, 0.1).unwrap();
    let read = |name: &str| updated.get(name).unwrap().to_vec1::<f32>().unwrap();
    for (found, expected) in [(read("a.running_mean"), [1.2, 1.8]), (read("a.running_var"), [4.6, 9.2])] {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {expected:?}");
    }
}

#[test]
fn thirty_steps_lower_the_loss() {
    for (network, shape, rate) in [(tiny_cnn(), (1, 8, 8), 0.2), (tiny_resnet(), (3, 8, 8), 0.2)] {
        let mut store = store(&network);
        let data = batch(32, shape, 4);
        let first = sgd_step(&network, &mut store, &data, rate);
        let last = (0..30).map(|_| sgd_step(&network, &mut store, &data, rate)).last().unwrap();
        assert!(last < 0.7 * first, "{first} -> {last}");
    }
}

#[test]
fn a_step_repeats_bit_for_bit() {
    for (network, shape) in [(tiny_cnn(), (1, 8, 8)), (tiny_resnet(), (3, 8, 8))] {
        let run = || {
            let mut store = store(&network);
            let data = batch(19, shape, 4);
            for _ in 0..3 {
                sgd_step(&network, &mut store, &data, 0.05);
            }
            store.snapshot().unwrap()
        };
        let (first, second) = (run(), run());
        for (name, tensor) in first.iter() {
            let bits = |t: &Tensor| -> Vec<u32> {
                t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
            };
            assert_eq!(bits(tensor), bits(second.get(name).unwrap()), "{name}");
        }
    }
}
