//! What one example leaves between forward and backward, and how much it computes, layer by layer.
//!
//! The figures follow the operations in `models`: a fused operation keeps its output and what it
//! saves, a composed one keeps every intermediate result, because the graph holds them all. On the way
//! back candle holds for each input its gradient, a cleared buffer, and their sum.

use super::scratch::{Convolution, Convolutions, Scratch, Sequences};
use crate::models::ops::Kept;
use crate::models::{CnnConfig, Gpt2Config, LlamaConfig, MlpConfig, ModelConfig, ResNetConfig};

/// Numbers that one task of the last norm's backward pass goes through (`models::ops::buffers`).
const TASK_NUMBERS: u64 = 16 * 1024;

/// Numbers and operations of one example: an image, or a sequence of `t` tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Example {
    /// The example itself and its targets. Those of the whole batch stay, however it is cut.
    pub(super) input: u64,
    /// Numbers kept for the backward pass, logits apart.
    pub(super) kept: u64,
    /// Most numbers that the backward pass holds besides, while it goes through one layer.
    pub(super) on_the_way_back: u64,
    /// Most numbers that a pass without a graph holds, logits apart: what goes into a layer and what it makes.
    pub(super) in_a_layer: u64,
    /// Logits.
    pub(super) logits: u64,
    /// Floating-point operations of a forward pass (a multiplication with its addition is two).
    pub(super) flops: u64,
    /// What operations work with besides, however many examples there are.
    pub(super) scratch: Scratch,
}

/// What one layer adds.
struct Layer {
    kept: u64,
    on_the_way_back: u64,
    in_a_layer: u64,
    flops: u64,
}

impl Example {
    fn add(&mut self, layer: &Layer) {
        self.kept = self.kept.saturating_add(layer.kept);
        self.on_the_way_back = self.on_the_way_back.max(layer.on_the_way_back);
        self.in_a_layer = self.in_a_layer.max(layer.in_a_layer);
        self.flops = self.flops.saturating_add(layer.flops);
    }
}

/// Product that stays at the largest number instead of overflowing.
pub(super) fn times(factors: &[usize]) -> u64 {
    factors.iter().fold(1, |product: u64, &factor| product.saturating_mul(factor as u64))
}

/// Sum that stays at the largest number instead of overflowing.
pub(super) fn plus(terms: &[u64]) -> u64 {
    terms.iter().fold(0, |sum: u64, &term| sum.saturating_add(term))
}

/// One example of `config`, whose transformer layers keep so much; `t`: tokens per sequence, unused for images.
pub(super) fn example(config: &ModelConfig, kept: Kept, t: usize) -> Example {
    match config {
        ModelConfig::Mlp(config) => mlp(config),
        ModelConfig::Cnn(config) => cnn(config),
        ModelConfig::ResNet(config) => resnet(config),
        ModelConfig::Gpt2(config) => gpt2(config).example(kept, t),
        ModelConfig::Llama(config) => llama(config).example(kept, t),
    }
}

/// Numbers that one layer of a language model takes, all of the f32 type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SequenceLayer {
    /// What it saves of one sequence for the way back.
    pub(crate) saved: u64,
    /// What a thread works with on the way forward.
    pub(crate) forward: u64,
    /// And on the way back.
    pub(crate) backward: u64,
    /// Its weights.
    pub(crate) weights: u64,
    /// Factors of its weight gradients that one sequence leaves.
    pub(crate) factors: u64,
    /// Sequences whose factors are there together.
    pub(crate) group: u64,
    /// Weights that are packed for products.
    pub(crate) packed: u64,
}

/// One layer of `config` on sequences of `t` tokens, `num_sequences` at once; `None` for models of images.
pub(crate) fn sequence_layer(
    config: &ModelConfig,
    t: usize,
    num_sequences: u64,
    num_threads: u64,
) -> Option<SequenceLayer> {
    let num_layers = match config {
        ModelConfig::Gpt2(config) => config.n_layer,
        ModelConfig::Llama(config) => config.num_hidden_layers,
        ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => return None,
    };
    let Scratch::Sequences(all) = example(config, Kept::Activations, t).scratch else { return None };
    Some(SequenceLayer {
        saved: all.saved / (num_layers as u64).max(1),
        forward: all.forward,
        backward: all.backward,
        weights: all.weights,
        factors: all.factors,
        group: all.group(num_sequences),
        packed: all.packed(num_sequences, num_threads),
    })
}

/// An image with its class, before any layer.
fn image(channels: usize, (height, width): (usize, usize), num_classes: usize) -> Example {
    let input = times(&[channels, height, width]).saturating_add(1);
    Example { input, logits: num_classes as u64, ..Example::default() }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Nonlinearity {
    Present,
    Absent,
}

/// Product, sum with the bias, nonlinearity if any: each a result of its own.
fn linear(inputs: usize, outputs: usize, nonlinearity: Nonlinearity) -> Layer {
    let num_results = if nonlinearity == Nonlinearity::Present { 3 } else { 2 };
    // Back through the nonlinearity: masks and products. Through the product: the gradient and its copy, three of the
    // input, which candle computes even where nobody wants it.
    let through_product = plus(&[times(&[2, outputs]), times(&[3, inputs])]);
    Layer {
        kept: times(&[num_results, outputs]),
        on_the_way_back: times(&[7, outputs]).max(through_product),
        in_a_layer: plus(&[inputs as u64, times(&[2, outputs])]),
        flops: times(&[2, inputs, outputs]),
    }
}

fn mlp(config: &MlpConfig) -> Example {
    let mut example = image(config.in_channels, config.image_size, config.num_classes);
    let mut inputs = usize::try_from(example.input.saturating_sub(1)).unwrap_or(usize::MAX);
    for &outputs in &config.hidden_sizes {
        example.add(&linear(inputs, outputs, Nonlinearity::Present));
        inputs = outputs;
    }
    example.add(&linear(inputs, config.num_classes, Nonlinearity::Absent));
    example
}

fn cnn(config: &CnnConfig) -> Example {
    let mut example = image(config.in_channels, config.image_size, config.num_classes);
    let mut convolutions = Convolutions::default();
    let mut input = [config.in_channels, config.image_size.0, config.image_size.1];
    for &channels in &config.channels {
        let [_, height, width] = input;
        let convolution = Convolution { input, output: [channels, height, width], kernel: 3 };
        convolutions.add(&convolution);
        let output = [channels, height / 2, width / 2];
        let pooled = times(&output);
        // Convolution, ReLU and pooling in one: the pooled output, and a byte for each number of it.
        let kept = pooled.saturating_add(pooled / 4);
        example.add(&Layer {
            kept,
            on_the_way_back: plus(&[pooled, times(&input).saturating_mul(3)]),
            in_a_layer: plus(&[times(&input), kept]),
            flops: convolution.flops(),
        });
        input = output;
    }
    let features = usize::try_from(times(&input)).unwrap_or(usize::MAX);
    example.add(&linear(features, config.hidden_size, Nonlinearity::Present));
    example.add(&linear(config.hidden_size, config.num_classes, Nonlinearity::Absent));
    Example { scratch: Scratch::Convolutions(convolutions), ..example }
}

fn resnet(config: &ResNetConfig) -> Example {
    let mut example = image(config.num_channels, config.image_size, config.num_classes);
    let mut convolutions = Convolutions::default();
    let (height, width) = config.image_size;
    let mut input = [config.embedding_size, height, width];
    let stem = Convolution { input: [config.num_channels, height, width], output: input, kernel: 3 };
    convolutions.add(&stem);
    // The output of the convolution, and what batch norm and ReLU make of it; nobody wants the gradient of the image.
    let both = times(&input).saturating_mul(2);
    let in_a_layer = both.saturating_add(times(&stem.input));
    example.add(&Layer { kept: both, on_the_way_back: both, in_a_layer, flops: stem.flops() });
    for (stage, (&channels, &depth)) in config.hidden_sizes.iter().zip(&config.depths).enumerate() {
        for layer in 0..depth {
            let is_halved = stage > 0 && layer == 0;
            let output = if is_halved {
                [channels, input[1].div_ceil(2), input[2].div_ceil(2)]
            } else {
                [channels, input[1], input[2]]
            };
            example.add(&basic_block(input, output, is_halved, &mut convolutions));
            input = output;
        }
    }
    example.add(&linear(input[0], config.num_classes, Nonlinearity::Absent));
    Example { scratch: Scratch::Convolutions(convolutions), ..example }
}

/// Two convolutions with their norms around a shortcut, as one function.
fn basic_block(input: [usize; 3], output: [usize; 3], is_halved: bool, convolutions: &mut Convolutions) -> Layer {
    let has_shortcut = input[0] != output[0] || is_halved;
    let first = Convolution { input, output, kernel: 3 };
    let second = Convolution { input: output, output, kernel: 3 };
    let shortcut = has_shortcut.then_some(Convolution { input, output, kernel: 1 });
    let mut flops = 0_u64;
    for convolution in [Some(first), Some(second), shortcut].iter().flatten() {
        convolutions.add(convolution);
        flops = flops.saturating_add(convolution.flops());
    }
    let (before, size) = (times(&input), times(&output));
    // Outputs of both convolutions, the middle of the block, its output; the convolution of the shortcut.
    let kept = size.saturating_mul(4 + u64::from(has_shortcut));
    Layer {
        kept,
        // Inside: gradients of the output, of the sum, of the middle, of the input. Outside: of output and input.
        on_the_way_back: plus(&[size.saturating_mul(3), before]).max(plus(&[size, before.saturating_mul(3)])),
        // The normalized shortcut is there only while it is added.
        in_a_layer: plus(&[before, kept, if has_shortcut { size } else { 0 }]),
        flops,
    }
}

/// A fused transformer, as far as its families differ.
struct Transformer {
    /// Width.
    c: usize,
    layers: usize,
    vocab_size: usize,
    /// Numbers per token that a layer saves beside its output.
    saved: u64,
    /// Weights of a layer, of which `matrices` are multiplied with every token.
    weights: u64,
    matrices: u64,
    /// Widest of what a layer makes of a token on the way, forward and backward.
    widest: u64,
    widest_back: u64,
    /// What the matrices read and the gradients of what they give, but for the last one's.
    factors: u64,
    /// Vectors in the norm before the head.
    norm_vectors: usize,
}

impl Transformer {
    fn example(&self, kept: Kept, t: usize) -> Example {
        let &Self { c, layers, .. } = self;
        // Scores of the block of query rows that is handled together.
        let scores = times(&[t.min(64)]);
        let tokens = times(&[t]);
        let saved = tokens.saturating_mul(self.saved);
        let forward = tokens.saturating_mul(plus(&[c as u64, self.widest.max(scores)]));
        let backward = tokens.saturating_mul(plus(&[c as u64, self.widest_back.max(scores.saturating_mul(2))]));
        let factors = tokens.saturating_mul(self.factors);
        let (saved_by_all, weights) = (saved.saturating_mul(layers as u64), self.weights);
        let sequences = match kept {
            Kept::Activations => Sequences { saved: saved_by_all, forward, backward, factors, weights },
            // What a layer saves is there for one sequence of each thread, on both ways; back there is its output, too.
            Kept::Input => Sequences {
                saved: 0,
                forward: plus(&[forward, saved]),
                backward: plus(&[backward, forward, saved, times(&[t, c])]),
                factors,
                weights,
            },
        };
        let in_matrices = times(&[2, t]).saturating_mul(self.matrices);
        let layer_flops = in_matrices.saturating_add(causal_attention(t, c));
        Example {
            // Tokens and their successors.
            input: times(&[2, t]),
            // That of each layer with its output; token embedding, final norm; ids and losses.
            kept: plus(&[sequences.saved, times(&[layers, t, c]), times(&[2, t, c]), times(&[4, t])]),
            // Gradients of output and input; in the last norm, those of its vectors by tasks.
            on_the_way_back: plus(&[times(&[4, t, c]), times(&[self.norm_vectors, t, c, c]) / TASK_NUMBERS]),
            in_a_layer: times(&[2, t, c]),
            logits: times(&[t, self.vocab_size]),
            flops: plus(&[times(&[layers]).saturating_mul(layer_flops), times(&[2, c, self.vocab_size, t])]),
            scratch: Scratch::Sequences(sequences),
        }
    }
}

fn gpt2(config: &Gpt2Config) -> Transformer {
    let (c, heads) = (config.n_embd, config.n_head);
    let matrices = times(&[12, c, c]);
    Transformer {
        c,
        layers: config.n_layer,
        vocab_size: config.vocab_size,
        // Queries, keys and values 3c, attention c and its log-sums, the middle c, feed-forward 4c.
        saved: plus(&[times(&[9, c]), heads as u64]),
        weights: plus(&[matrices, times(&[13, c])]),
        matrices,
        widest: times(&[4, c]),
        widest_back: 0,
        // Four inputs, 3c + 4c wide; gradients of queries, keys and values 3c, the middle c, feed-forward 4c.
        factors: times(&[15, c]),
        norm_vectors: 2,
    }
}

fn llama(config: &LlamaConfig) -> Transformer {
    let (c, hidden, heads) = (config.hidden_size, config.intermediate_size, config.num_attention_heads);
    let kv_width = config.num_key_value_heads.saturating_mul(c / heads.max(1));
    let row = c.saturating_add(kv_width.saturating_mul(2));
    let matrices = plus(&[times(&[c, row]), times(&[c, c]), times(&[3, c, hidden])]);
    Transformer {
        c,
        layers: config.num_hidden_layers,
        vocab_size: config.vocab_size,
        // Queries, keys and values, attention c and its log-sums, the middle c, gate and up.
        saved: plus(&[row as u64, times(&[2, c]), heads as u64, times(&[2, hidden])]),
        weights: plus(&[matrices, times(&[2, c]), if config.sub_norms { plus(&[c as u64, hidden as u64]) } else { 0 }]),
        matrices,
        widest: hidden as u64,
        widest_back: hidden as u64,
        // Four inputs; gradients of queries, keys and values, the middle c, gate and up.
        factors: plus(&[times(&[4, c]), row as u64, times(&[3, hidden])]),
        norm_vectors: 1,
    }
}

/// Scores and weighted values of all heads; half of the pairs are masked and never computed.
fn causal_attention(t: usize, c: usize) -> u64 {
    times(&[2 * 2, t, t, c]) / 2
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::models::{DataShape, ModelPreset, Network};

    const DIGITS: DataShape = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };
    const PHOTOS: DataShape = DataShape::Images { channels: 3, height: 32, width: 32, num_classes: 10 };

    fn of(preset: ModelPreset, data: DataShape, t: usize) -> Example {
        example(&preset.config(data).unwrap(), Kept::Activations, t)
    }

    #[test]
    fn a_recomputed_layer_keeps_its_output_alone() {
        let config = ModelPreset::Gpt2_11M.config(DataShape::Text { vocab_size: 65 }).unwrap();
        let (all, inputs) = (example(&config, Kept::Activations, 256), example(&config, Kept::Input, 256));
        // Of 10 numbers for each of 384 channels of a token, one is left.
        assert!(inputs.kept < all.kept / 7, "{} of {}", inputs.kept, all.kept);
        assert_eq!((inputs.flops, inputs.logits, inputs.input), (all.flops, all.logits, all.input));
        let (Scratch::Sequences(all), Scratch::Sequences(again)) = (all.scratch, inputs.scratch) else {
            panic!("expected sequences")
        };
        assert_eq!(again.saved, 0);
        // A thread works with what a layer of one sequence saves.
        assert_eq!(again.forward - all.forward, all.saved / 6);
    }

    #[test]
    fn operations_are_those_of_the_papers() {
        // 784·256 + 256·128 + 128·10 multiplications.
        assert_eq!(of(ModelPreset::Mlp, DIGITS, 0).flops, 2 * (784 * 256 + 256 * 128 + 1280));
        let cnn = 28 * 28 * 9 * 16 + 14 * 14 * 9 * 16 * 32 + 7 * 7 * 32 * 64 + 640;
        assert_eq!(of(ModelPreset::MnistCnn, DIGITS, 0).flops, 2 * cnn);
        // He et al. 2015 and its many reimplementations: ResNet-20 has 41M multiplications, ResNet-18 at 32x32 has 0.56G.
        let millions = |preset| of(preset, PHOTOS, 0).flops as f64 / 2e6;
        assert!((40.5..41.8).contains(&millions(ModelPreset::ResNet20)), "{}", millions(ModelPreset::ResNet20));
        assert!((550.0..560.0).contains(&millions(ModelPreset::ResNet18)), "{}", millions(ModelPreset::ResNet18));
        // Kaplan et al. 2020, arXiv 2001.08361: 2·parameters (without embeddings) a token, plus attention.
        let gpt2 = of(ModelPreset::Gpt2_124M, DataShape::Text { vocab_size: 50257 }, 1024);
        let (matrices, head) = (12.0 * 12.0 * 768.0 * 768.0, 768.0 * 50257.0);
        let attention = 12.0 * 1024.0 * 768.0;
        let expected = 2.0 * 1024.0 * (matrices + head + attention);
        assert!((gpt2.flops as f64 / expected - 1.0).abs() < 0.01, "{} against {expected}", gpt2.flops);
    }

    #[test]
    fn a_gpt2_is_the_sum_by_hand() {
        let (t, c, vocab_size) = (256, 128, 65);
        let gpt2 = of(ModelPreset::Gpt2Char, DataShape::Text { vocab_size: 65 }, 256);
        assert_eq!(gpt2.kept, t * (4 * (10 * c + 4) + 2 * c + 4));
        assert_eq!(gpt2.on_the_way_back, 4 * t * c + 2 * t * c * c / 16_384);
        assert_eq!((gpt2.input, gpt2.logits), (2 * t, t * vocab_size));
        let Scratch::Sequences(sequences) = gpt2.scratch else { panic!("expected sequences: {gpt2:?}") };
        assert_eq!(sequences.saved, 4 * t * (9 * c + 4));
        assert_eq!((sequences.forward, sequences.backward), (t * (c + 4 * c), t * (c + 2 * 64)));
        assert_eq!(sequences.factors, t * 15 * c);
        assert_eq!(sequences.weights, 12 * c * c + 13 * c);
    }

    #[test]
    fn a_llama_is_the_sum_by_hand() {
        let (t, c, hidden, row) = (1024, 384, 1280, 384 + 2 * 128);
        let llama = of(ModelPreset::Llama11M, DataShape::Text { vocab_size: 65 }, 1024);
        assert_eq!(llama.kept, t * (6 * (row + 3 * c + 6 + 2 * hidden) + 2 * c + 4));
        assert_eq!(llama.on_the_way_back, 4 * t * c + t * c * c / 16_384);
        let Scratch::Sequences(sequences) = llama.scratch else { panic!("expected sequences: {llama:?}") };
        assert_eq!((sequences.forward, sequences.backward), (t * (c + hidden), t * (c + hidden)));
        assert_eq!(sequences.factors, t * (4 * c + row + 3 * hidden));
        assert_eq!(sequences.weights, c * row + c * c + 3 * c * hidden + 2 * c);
    }

    #[test]
    fn a_weight_counts_as_often_as_the_network_has_it() {
        // What one layer is said to weigh is what a network with one more of it has more.
        for preset in [ModelPreset::Gpt2Char, ModelPreset::Llama11M] {
            let mut config = preset.config(DataShape::Text { vocab_size: 65 }).unwrap();
            let Scratch::Sequences(sequences) = example(&config, Kept::Activations, 8).scratch else {
                panic!("expected sequences")
            };
            let before = Network::new(&config).unwrap().num_params();
            match &mut config {
                ModelConfig::Gpt2(config) => config.n_layer += 1,
                ModelConfig::Llama(config) => config.num_hidden_layers += 1,
                other => panic!("expected a language model, found {other:?}"),
            }
            let after = Network::new(&config).unwrap().num_params();
            assert_eq!(sequences.weights, (after - before) as u64, "{}", preset.label());
        }
    }

    #[test]
    fn a_cnn_is_the_sum_by_hand() {
        let cnn = of(ModelPreset::MnistCnn, DIGITS, 0);
        let (first, second) = (16 * 14 * 14, 32 * 7 * 7);
        assert_eq!(cnn.kept, first + first / 4 + second + second / 4 + 3 * 64 + 2 * 10);
        assert_eq!(cnn.on_the_way_back, second + 3 * first);
        assert_eq!((cnn.input, cnn.logits), (28 * 28 + 1, 10));
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let mut config = ModelPreset::Llama7B.config(DataShape::Text { vocab_size: usize::MAX }).unwrap();
        assert_eq!(example(&config, Kept::Activations, usize::MAX).flops, u64::MAX);
        if let ModelConfig::Llama(config) = &mut config {
            (config.hidden_size, config.num_key_value_heads, config.num_attention_heads) = (usize::MAX, usize::MAX, 0);
        }
        assert_eq!(example(&config, Kept::Activations, 1).kept, u64::MAX);
    }
}
