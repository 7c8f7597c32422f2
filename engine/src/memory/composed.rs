//! What one example leaves on a GPU, where layers are composed of candle's operations: each of them keeps its result,
//! because the graph holds them all.
//!
//! `kept` is counted operation by operation and compared by tests with the graph itself. What the backward pass and
//! convolutions hold for a moment is an estimate from candle's sources; neither was measured on a GPU.

use super::layers::{Example, plus, times};
use crate::models::ops::Activations;
use crate::models::{CnnConfig, GateActivation, Gpt2Config, LlamaConfig, MlpConfig, ModelConfig, ResNetConfig};

/// Results of a layer norm that are as wide as its input: centered, squared, divided, scaled, shifted.
const LAYER_NORM: usize = 5;
/// Of an RMS norm: squared, divided, scaled.
const RMS_NORM: usize = 3;
/// Of a batch norm: centered twice, squared, scaled, shifted.
const BATCH_NORM: usize = 5;
/// Results of attention as large as the scores: products, scaled, masked, less the largest, exponentials, probabilities.
const SCORES: usize = 6;
/// Gradients that are there at once for the largest result of a layer: its own, and what two operations make of it.
const GRADIENTS: u64 = 3;

/// One example of `config` on a GPU, beside `fused`, the same on the processor, whose operations and inputs it shares;
/// `t`: tokens per sequence, unused for images; `activations`: how matrices read their inputs.
pub(super) fn composed(config: &ModelConfig, t: usize, fused: Example, activations: Activations) -> Example {
    // Beside what is read: what rounding changes, and the sum of both.
    let read = match activations {
        Activations::Floats => 0,
        Activations::Int8 => 2,
    };
    let numbers = match config {
        ModelConfig::Mlp(config) => mlp(config, read),
        ModelConfig::Cnn(config) => cnn(config, read),
        ModelConfig::ResNet(config) => resnet(config, read),
        ModelConfig::Gpt2(config) => gpt2(config, t, read),
        ModelConfig::Llama(config) => llama(config, t, read),
    };
    Example {
        // Logits are counted apart.
        kept: numbers.kept.saturating_sub(fused.logits),
        on_the_way_back: numbers.widest.saturating_mul(GRADIENTS).saturating_add(numbers.transient),
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
    /// The largest one.
    widest: u64,
    /// Most that one operation works with besides.
    transient: u64,
    /// The most that one layer keeps: what a pass without a graph holds at most.
    in_a_layer: u64,
}

impl Numbers {
    /// A layer with results of these sizes, none of them larger than `widest`.
    fn layer(&mut self, widest: u64, results: &[u64]) {
        self.layers(1, widest, results);
    }

    /// `count` of them.
    fn layers(&mut self, count: usize, widest: u64, results: &[u64]) {
        let sum = plus(results);
        self.kept = self.kept.saturating_add(sum.saturating_mul(count as u64));
        self.widest = self.widest.max(widest);
        self.in_a_layer = self.in_a_layer.max(sum);
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

/// Attention behind the product that makes its `row` of queries, keys and values: they are cut apart and put in order,
/// keys and values repeated for grouped queries, keys transposed; scores; the result, and its heads side by side.
fn attention(t: usize, heads: usize, (row, c): (usize, usize), is_grouped: bool) -> [u64; 4] {
    let repeated = if is_grouped { times(&[2, t, c]) } else { 0 };
    let in_order = times(&[2, t, row]);
    let scores = times(&[SCORES, heads, t, t]).saturating_add(times(&[3, heads, t]));
    [in_order, repeated.saturating_add(times(&[t, c])), scores, times(&[2, t, c])]
}

fn gpt2(config: &Gpt2Config, t: usize, read: usize) -> Numbers {
    let (c, heads) = (config.n_embd, config.n_head);
    let widest = times(&[heads, t, t]).max(times(&[4, t, c]));
    let mut numbers = Numbers::default();
    numbers.layer(widest, &[times(&[2, t, c])]);
    let mut results = attention(t, heads, (c.saturating_mul(3), c), false).to_vec();
    results.extend([
        times(&[2 * LAYER_NORM, t, c]).saturating_add(times(&[2 * 6, t])),
        // Products and sums with the bias: queries, keys and values; the way out; up; down.
        times(&[2 * (3 + 1 + 4 + 1), t, c]),
        // GELU, and the residual stream twice.
        times(&[4 + 2, t, c]),
        // What four matrices read.
        times(&[read, 3 + 4, t, c]),
    ]);
    numbers.layers(config.n_layer, widest, &results);
    let norm = times(&[LAYER_NORM, t, c]).saturating_add(times(&[6, t]));
    numbers.layer(widest, &[norm, times(&[t, config.vocab_size])]);
    numbers
}

fn llama(config: &LlamaConfig, t: usize, read: usize) -> Numbers {
    let (c, hidden, heads) = (config.hidden_size, config.intermediate_size, config.num_attention_heads);
    let kv = config.num_key_value_heads.saturating_mul(c / heads.max(1));
    let row = c.saturating_add(kv.saturating_mul(2));
    let widest = times(&[heads, t, t]).max(times(&[t, hidden]));
    let mut numbers = Numbers::default();
    numbers.layer(widest, &[times(&[t, c])]);
    let mut results = attention(t, heads, (row, c), config.num_key_value_heads != heads).to_vec();
    // Those of a BitNet are as wide as the layer and as its feed-forward part.
    let sub_norms = if config.sub_norms { times(&[RMS_NORM, t, c.saturating_add(hidden)]) } else { 0 };
    let num_norms = if config.sub_norms { 4 } else { 2 };
    // Gate and up, what the gate goes through, their product.
    let gated = match config.hidden_act {
        GateActivation::Silu => 4,
        GateActivation::Relu2 => 5,
    };
    results.extend([
        times(&[2 * RMS_NORM, t, c]).saturating_add(sub_norms).saturating_add(times(&[num_norms * 4, t])),
        // A rotation: four products of half the width, two sums, and both halves together.
        times(&[4, t, c.saturating_add(kv)]),
        // Queries, keys and values, and the same side by side; the way out and down, each with its sum.
        times(&[2, t, row]),
        times(&[4, t, c]),
        times(&[gated, t, hidden]),
        // What matrices read: those of queries, keys and values the same, as gate and up do.
        times(&[read, t, hidden.saturating_add(c.saturating_mul(3))]),
    ]);
    numbers.layers(config.num_hidden_layers, widest, &results);
    let norm = times(&[RMS_NORM + read, t, c]).saturating_add(times(&[4, t]));
    numbers.layer(widest, &[norm, times(&[t, config.vocab_size])]);
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
    use crate::models::{Activation, DataShape, Forward, Mode, ModelPreset, Network, ParamStore, initial_params};

    /// Numbers in the storages that the graph of one example's logits holds, weights apart, when the matrices called
    /// `rounded` read rounded inputs.
    fn held(config: &ModelConfig, input: &Tensor, rounded: &[String]) -> u64 {
        let network = Network::new(config).unwrap();
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
                storages.insert(at, len as u64 / input.dim(0).unwrap() as u64);
            }
        }
        storages.values().sum()
    }

    #[track_caller]
    fn check(config: &ModelConfig, t: usize, input: &Tensor) {
        let fused = example(config, Kept::Activations, t);
        let counted = composed(config, t, fused, Activations::Floats).kept + fused.logits;
        let floats = held(config, input, &[]);
        let ratio = counted as f64 / floats as f64;
        assert!((0.99..1.03).contains(&ratio), "counted {counted}, the graph holds {floats}: {config:?}");
        // All that may read rounded inputs: not the layer that reads pixels.
        let specs = Network::new(config).unwrap().specs();
        let names = specs.into_iter().map(|spec| spec.name).filter(|name| name != "layers.0.weight");
        let sums = held(config, input, &names.collect::<Vec<_>>()) - floats;
        // Beside each sum the graph holds what rounding changed, which no gradient goes through.
        let counted = composed(config, t, fused, Activations::Int8).kept + fused.logits - counted;
        assert_eq!(counted, 2 * sums, "{config:?}");
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
