//! What one example leaves on a GPU, where layers are composed of candle's operations.
//!
//! Transformer layers are made of functions whose graph holds their inputs and results alone; of images, each operation keeps
//! its result. `kept` is counted operation by operation and compared by tests with the graph itself. What the backward pass
//! and convolutions hold for a moment is an estimate from the operations' sources; neither was measured on a GPU, but
//! `examples/memory_check.rs` compares both with the same operations on the processor.

use super::layers::{Example, plus, times};
use crate::models::ops::{Activations, Kept, MAX_COMPOSED_SCORES};
use crate::models::{CnnConfig, Gpt2Config, LlamaConfig, MlpConfig, ModelConfig, ResNetConfig};

/// Results of a batch norm: centered twice, squared, scaled, shifted.
const BATCH_NORM: usize = 5;
/// Gradients that are there at once for the largest result of a layer of images: its own, and what two operations make of it.
const GRADIENTS: u64 = 3;
/// What the gradient of an activation function holds at once, of the function's width: the function's argument and the
/// gradients before and after it, and three numbers on the way.
const ACTIVATION_GRADIENT: usize = 6;
/// What the gradient of attention holds of a block of scores at once.
const SCORES: u64 = 4;

/// How a network computes on a GPU.
#[derive(Debug, Clone, Copy)]
pub(super) struct Composition {
    /// What transformer layers keep.
    pub(super) kept: Kept,
    /// How matrices read their inputs.
    pub(super) activations: Activations,
    /// Examples that are in the graph together.
    pub(super) micro_batch: u64,
}

/// One example of `config` on a GPU, beside `fused`, the same on the processor, whose operations and inputs it shares;
/// `t`: tokens per sequence, unused for images.
pub(super) fn composed(config: &ModelConfig, t: usize, fused: Example, how: Composition) -> Example {
    // Beside what is read: the same, rounded.
    let read = match how.activations {
        Activations::Floats => 0,
        Activations::Int8 => 1,
    };
    let numbers = match config {
        ModelConfig::Mlp(config) => mlp(config, read),
        ModelConfig::Cnn(config) => cnn(config, read),
        ModelConfig::ResNet(config) => resnet(config, read),
        ModelConfig::Gpt2(config) => gpt2(config, t, read, how),
        ModelConfig::Llama(config) => llama(config, t, read, how),
    };
    Example {
        // Logits are counted apart.
        kept: numbers.kept.saturating_sub(fused.logits),
        on_the_way_back: numbers.on_the_way_back.saturating_add(numbers.transient),
        in_a_layer: numbers.in_a_layer.saturating_add(numbers.transient),
        scratch: super::scratch::Scratch::None,
        ..fused
    }
}

/// Sums over layers.
#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    /// Results that the graph holds.
    kept: u64,
    /// Most that the backward pass holds besides.
    on_the_way_back: u64,
    /// Most that one operation works with besides.
    transient: u64,
    /// The most that one layer keeps: what a pass without a graph holds at most.
    in_a_layer: u64,
}

impl Numbers {
    /// A layer of images with results of these sizes, none of them larger than `widest`.
    fn layer(&mut self, widest: u64, results: &[u64]) {
        self.add(plus(results), plus(results), widest.saturating_mul(GRADIENTS));
    }

    /// A layer that keeps so many numbers of those in its results.
    fn add(&mut self, kept: u64, in_a_layer: u64, on_the_way_back: u64) {
        self.kept = self.kept.saturating_add(kept);
        self.in_a_layer = self.in_a_layer.max(in_a_layer);
        self.on_the_way_back = self.on_the_way_back.max(on_the_way_back);
    }

    /// `count` transformer layers whose results have so many numbers, of which `output` are what the next one reads.
    fn transformer_layers(&mut self, count: usize, kept: Kept, (results, output): (u64, u64), on_the_way_back: u64) {
        let (kept, again) = match kept {
            Kept::Activations => (results, 0),
            // One layer at a time is there once more, with its input.
            Kept::Input => (output, plus(&[results, output])),
        };
        self.add(kept.saturating_mul(count as u64), results, plus(&[again, on_the_way_back]));
    }

    /// A convolution's unrolled windows, and its result before and after its dimensions change places.
    fn windows(&mut self, (in_channels, kernel): (usize, usize), output: [usize; 3]) {
        let [_, height, width] = output;
        let unrolled = times(&[in_channels, kernel, kernel, height, width]);
        self.transient = self.transient.max(plus(&[unrolled, times(&output)]));
    }
}

fn mlp(config: &MlpConfig, read: usize) -> Numbers {
    let mut numbers = Numbers::default();
    for &outputs in &config.hidden_sizes {
        // The next layer reads what this one makes.
        numbers.layer(outputs as u64, &[times(&[3 + read, outputs])]);
    }
    numbers.layer(config.num_classes as u64, &[config.num_classes as u64; 2]);
    numbers
}

fn cnn(config: &CnnConfig, read: usize) -> Numbers {
    let mut numbers = Numbers::default();
    let (mut in_channels, (mut height, mut width)) = (config.in_channels, config.image_size);
    for &channels in &config.channels {
        let output = [channels, height, width];
        numbers.windows((in_channels, 3), output);
        (height, width, in_channels) = (height / 2, width / 2, channels);
        // Convolved, shifted, through the ReLU; pooled along rows, then along columns.
        let (size, pooled) = (times(&output), times(&[channels, height, width]));
        numbers.layer(size, &[size, size, size, pooled.saturating_mul(2), pooled]);
    }
    let inputs = times(&[read, in_channels, height, width]);
    numbers.layer(config.hidden_size as u64, &[inputs, times(&[3 + read, config.hidden_size])]);
    numbers.layer(config.num_classes as u64, &[config.num_classes as u64; 2]);
    numbers
}

/// Of its layers only the last reads rounded inputs.
fn resnet(config: &ResNetConfig, read: usize) -> Numbers {
    let mut numbers = Numbers::default();
    let (mut height, mut width) = config.image_size;
    // Convolved, normalized, and through a ReLU where there is one.
    let conv_norm = |numbers: &mut Numbers, input: (usize, usize), output: [usize; 3], num_after: usize| {
        numbers.windows(input, output);
        vec![times(&output); 1 + BATCH_NORM + num_after]
    };
    let stem = [config.embedding_size, height, width];
    let results = conv_norm(&mut numbers, (config.num_channels, 3), stem, 1);
    numbers.layer(times(&stem), &results);
    let mut in_channels = config.embedding_size;
    for (stage, (&channels, &depth)) in config.hidden_sizes.iter().zip(&config.depths).enumerate() {
        for layer in 0..depth {
            let is_halved = stage > 0 && layer == 0;
            if is_halved {
                (height, width) = (height.div_ceil(2), width.div_ceil(2));
            }
            let output = [channels, height, width];
            let mut results = conv_norm(&mut numbers, (in_channels, 3), output, 1);
            results.extend(conv_norm(&mut numbers, (channels, 3), output, 0));
            if is_halved || in_channels != channels {
                results.extend(conv_norm(&mut numbers, (in_channels, 1), output, 0));
            }
            // The sum with the shortcut, and its ReLU.
            results.extend([times(&output); 2]);
            numbers.layer(times(&output), &results);
            in_channels = channels;
        }
    }
    numbers.layer(in_channels as u64, &[times(&[2 + read, in_channels]), times(&[2, config.num_classes])]);
    numbers
}

/// What the gradient of attention holds at most, for one example: blocks of scores, the parts of a row cut apart with their
/// gradients, and those of its result.
fn attention_gradient(t: usize, heads: usize, (row, c): (usize, usize), micro_batch: u64) -> u64 {
    let all = times(&[heads, t, t]);
    let scores = all.min((MAX_COMPOSED_SCORES as u64).div_ceil(micro_batch.max(1)));
    plus(&[scores.saturating_mul(SCORES), times(&[3, t, row]), times(&[3, t, c])])
}

fn gpt2(config: &Gpt2Config, t: usize, read: usize, how: Composition) -> Numbers {
    let (c, heads) = (config.n_embd, config.n_head);
    let output = times(&[t, c]);
    let mut numbers = Numbers::default();
    // Rows of both tables, added.
    numbers.add(times(&[2, t, c]), times(&[2, t, c]), 0);
    // Two norms; queries, keys and values; attention; the way out onto the residual stream, twice; up, and through GELU. What
    // four matrices read.
    let results = times(&[2 + 3 + 1 + 2 + 8 + read * (3 + 4), t, c]);
    let attention = attention_gradient(t, heads, (c.saturating_mul(3), c), how.micro_batch);
    let gelu = times(&[ACTIVATION_GRADIENT, 4, t, c]);
    // The gradient of the residual stream waits meanwhile.
    let on_the_way_back = plus(&[attention.max(gelu), output]);
    numbers.transformer_layers(config.n_layer, how.kept, (results, output), on_the_way_back);
    numbers.add(plus(&[output, times(&[t, config.vocab_size])]), output, 0);
    numbers
}

fn llama(config: &LlamaConfig, t: usize, read: usize, how: Composition) -> Numbers {
    let (c, hidden, heads) = (config.hidden_size, config.intermediate_size, config.num_attention_heads);
    let kv = config.num_key_value_heads.saturating_mul(c / heads.max(1));
    let row = c.saturating_add(kv.saturating_mul(2));
    let output = times(&[t, c]);
    let mut numbers = Numbers::default();
    numbers.add(output, output, 0);
    // Those of a BitNet are as wide as the layer and as its feed-forward part.
    let sub_norms = if config.sub_norms { times(&[t, c.saturating_add(hidden)]) } else { 0 };
    let results = plus(&[
        // Two norms, attention, the way out onto the residual stream, twice.
        times(&[5, t, c]),
        sub_norms,
        times(&[t, row]),
        // Gate and up, and what they make.
        times(&[3, t, hidden]),
        // What matrices read: those of queries, keys and values the same, as gate and up do.
        times(&[read, t, hidden.saturating_add(c.saturating_mul(3))]),
    ]);
    let attention = attention_gradient(t, heads, (row, c), how.micro_batch);
    // Both halves have a gradient.
    let gate = times(&[ACTIVATION_GRADIENT + 2, t, hidden]);
    let on_the_way_back = plus(&[attention.max(gate), output]);
    numbers.transformer_layers(config.num_hidden_layers, how.kept, (results, output), on_the_way_back);
    numbers.add(plus(&[times(&[1 + read, t, c]), times(&[t, config.vocab_size])]), output, 0);
    numbers
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use candle_core::{CpuStorage, DType, Device, Storage, Tensor};

    use super::*;
    use crate::memory::layers::example;
    use crate::models::ops::{Kept, without_kernels};
    use crate::models::{
        Activation, DataShape, Forward, GateActivation, Mode, ModelPreset, Network, ParamStore, initial_params,
    };

    /// Numbers in the storages that the graph of one example's logits holds, weights apart, when the matrices called
    /// `rounded` read rounded inputs. Links between a function and its weights, of one number, are left out.
    fn held((config, kept): (&ModelConfig, Kept), input: &Tensor, rounded: &[String]) -> u64 {
        let network = Network::keeping(config, kept).unwrap();
        let (weights, buffers) = initial_params(&network, 1, &Device::Cpu).unwrap();
        let store = ParamStore::new(weights, buffers, &Device::Cpu).unwrap();
        let params = store.tracked().with_rounded_inputs(Arc::new(rounded.iter().cloned().collect()));
        let logits = without_kernels(|| network.forward(&Forward::new(&params, Mode::Train), input)).unwrap();
        let mut storages = BTreeMap::new();
        let address = |tensor: &Tensor| std::ptr::from_ref(&*tensor.storage_and_layout().0).addr();
        let of_weights: Vec<usize> = store.vars().map(|(_, var)| address(var.as_tensor())).collect();
        for node in logits.sorted_nodes() {
            let at = address(node);
            if !of_weights.contains(&at) {
                // What is there, not what a view shows of it: one that repeats numbers shows more, a part less.
                let len = match &*node.storage_and_layout().0 {
                    Storage::Cpu(CpuStorage::F32(numbers)) => numbers.len(),
                    other => panic!("expected f32 on the processor, found {:?}", other.dtype()),
                };
                if len > 1 {
                    storages.insert(at, len as u64 / input.dim(0).unwrap() as u64);
                }
            }
        }
        storages.values().sum()
    }

    #[track_caller]
    fn check(config: &ModelConfig, t: usize, input: &Tensor) {
        let all = if t > 0 { vec![Kept::Activations, Kept::Input] } else { vec![Kept::Activations] };
        all.into_iter().for_each(|kept| check_keeping(config, kept, t, input));
    }

    #[track_caller]
    fn check_keeping(config: &ModelConfig, kept: Kept, t: usize, input: &Tensor) {
        let fused = example(config, Kept::Activations, t);
        let count = |activations| {
            composed(config, t, fused, Composition { kept, activations, micro_batch: 1 }).kept + fused.logits
        };
        let counted = count(Activations::Floats);
        let floats = held((config, kept), input, &[]);
        let ratio = counted as f64 / floats as f64;
        assert!((0.99..1.03).contains(&ratio), "counted {counted}, the graph holds {floats}: {config:?}");
        // All that may read rounded inputs: not the layer that reads pixels.
        let specs = Network::new(config).unwrap().specs();
        let names = specs.into_iter().map(|spec| spec.name).filter(|name| name != "layers.0.weight");
        let rounded = held((config, kept), input, &names.collect::<Vec<_>>()) - floats;
        assert_eq!(count(Activations::Int8) - counted, rounded, "{config:?}");
    }

    #[test]
    fn language_models_keep_what_their_graph_holds() {
        for (preset, t) in [(ModelPreset::Gpt2Char, 32), (ModelPreset::Llama11M, 48)] {
            let mut config = preset.config(DataShape::Text { vocab_size: 65 }).unwrap();
            match &mut config {
                ModelConfig::Gpt2(config) => config.n_layer = 2,
                ModelConfig::Llama(config) => config.num_hidden_layers = 2,
                other => panic!("expected a language model, found {other:?}"),
            }
            check(&config, t, &Tensor::zeros((1, t), DType::U32, &Device::Cpu).unwrap());
        }
    }

    #[test]
    fn bitnets_keep_what_their_graph_holds() {
        let bitnet = ModelPreset::BitNet11M.config(DataShape::Text { vocab_size: 65 }).unwrap();
        for act in GateActivation::ALL {
            let mut config = bitnet.clone();
            let ModelConfig::Llama(layers) = &mut config else { panic!("expected a BitNet, found {config:?}") };
            (layers.num_hidden_layers, layers.hidden_act) = (2, act);
            check(&config, 48, &Tensor::zeros((1, 48), DType::U32, &Device::Cpu).unwrap());
        }
    }

    #[test]
    fn image_models_keep_what_their_graph_holds() {
        let digits = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };
        let photos = DataShape::Images { channels: 3, height: 32, width: 32, num_classes: 10 };
        // Two images, so that what a batch has once counts for little.
        let noise = |shape: (usize, usize, usize, usize)| Tensor::randn(0_f32, 1.0, shape, &Device::Cpu).unwrap();
        check(&ModelPreset::MnistCnn.config(digits).unwrap(), 0, &noise((2, 1, 28, 28)));
        check(&ModelPreset::ResNet20.config(photos).unwrap(), 0, &noise((2, 3, 32, 32)));
        let mlp = MlpConfig {
            in_channels: 1,
            image_size: (28, 28),
            hidden_sizes: vec![256, 128],
            num_classes: 10,
            activation: Activation::Relu,
        };
        check(&ModelConfig::Mlp(mlp), 0, &noise((2, 1, 28, 28)));
    }
}
