//! What one example leaves between forward and backward, and how much it computes, layer by layer.
//!
//! The figures follow the operations in `models`: a fused operation keeps its output and what it
//! saves, a composed one keeps every intermediate result, because the graph holds them all.

use crate::models::{CnnConfig, Gpt2Config, LlamaConfig, MlpConfig, ModelConfig, ResNetConfig};

/// Numbers and operations of one example: an image, or a sequence of `t` tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Example {
    /// Numbers kept for the backward pass, logits apart.
    pub(super) kept: u64,
    /// Most numbers that the backward pass holds besides, while it goes through one layer.
    pub(super) on_the_way_back: u64,
    /// Numbers that each thread works with while a fused layer runs, whatever the batch.
    pub(super) thread_scratch: u64,
    /// Weights of one fused layer, whose gradients are summed in several parts at once; 0 without such a layer.
    pub(super) layer_weights: u64,
    /// Logits.
    pub(super) logits: u64,
    /// Floating-point operations of a forward pass (a multiplication with its addition is two).
    pub(super) flops: u64,
}

impl Example {
    /// Adds a layer that keeps `kept` numbers and takes `flops` operations; its backward pass holds
    /// the gradients of its output and input.
    fn add(&mut self, kept: u64, flops: u64, output_and_input: u64) {
        self.kept = self.kept.saturating_add(kept);
        self.flops = self.flops.saturating_add(flops);
        self.on_the_way_back = self.on_the_way_back.max(output_and_input);
    }
}

/// Product that stays at the largest number instead of overflowing.
pub(super) fn times(factors: &[usize]) -> u64 {
    factors.iter().fold(1, |product: u64, &factor| product.saturating_mul(factor as u64))
}

/// One example of `config`; `t`: tokens per sequence, unused for images.
pub(super) fn example(config: &ModelConfig, t: usize) -> Example {
    match config {
        ModelConfig::Mlp(config) => mlp(config),
        ModelConfig::Cnn(config) => cnn(config),
        ModelConfig::ResNet(config) => resnet(config),
        ModelConfig::Gpt2(config) => gpt2(config, t),
        ModelConfig::Llama(config) => llama(config, t),
    }
}

/// Product, sum with the bias, nonlinearity: three results.
fn linear(example: &mut Example, inputs: usize, outputs: usize) {
    example.add(times(&[3, outputs]), times(&[2, inputs, outputs]), times(&[2, outputs]) + inputs as u64);
}

fn mlp(config: &MlpConfig) -> Example {
    let pixels = times(&[config.in_channels, config.image_size.0, config.image_size.1]);
    let mut example = Example { kept: pixels, logits: config.num_classes as u64, ..Example::default() };
    let mut inputs = usize::try_from(pixels).unwrap_or(usize::MAX);
    for &outputs in config.hidden_sizes.iter().chain([&config.num_classes]) {
        linear(&mut example, inputs, outputs);
        inputs = outputs;
    }
    example
}

fn cnn(config: &CnnConfig) -> Example {
    let (mut height, mut width) = config.image_size;
    let mut channels = config.in_channels;
    let mut example =
        Example { kept: times(&[channels, height, width]), logits: config.num_classes as u64, ..Example::default() };
    for &outputs in &config.channels {
        let input = times(&[channels, height, width]);
        let flops = times(&[2 * 9, channels, outputs, height, width]);
        (height, width) = (height / 2, width / 2);
        let pooled = times(&[outputs, height, width]);
        // Convolution, ReLU and pooling in one: the pooled output, and a byte for each number of it.
        example.add(pooled.saturating_add(pooled / 4), flops, input.saturating_add(pooled));
        channels = outputs;
    }
    let features = usize::try_from(times(&[channels, height, width])).unwrap_or(usize::MAX);
    linear(&mut example, features, config.hidden_size);
    linear(&mut example, config.hidden_size, config.num_classes);
    example
}

fn resnet(config: &ResNetConfig) -> Example {
    let (mut height, mut width) = config.image_size;
    let mut example = Example {
        kept: times(&[config.num_channels, height, width]),
        logits: config.num_classes as u64,
        ..Example::default()
    };
    let convolution = |kernel: usize, inputs: usize, outputs: usize, pixels: (usize, usize)| {
        times(&[2, kernel, kernel, inputs, outputs, pixels.0, pixels.1])
    };
    let mut channels = config.embedding_size;
    // The output of the convolution, and what batch norm and ReLU make of it.
    let stem = times(&[channels, height, width]);
    let flops = convolution(3, config.num_channels, channels, (height, width));
    example.add(stem.saturating_mul(2), flops, stem.saturating_mul(2));
    for (stage, (&outputs, &depth)) in config.hidden_sizes.iter().zip(&config.depths).enumerate() {
        for layer in 0..depth {
            let input = times(&[channels, height, width]);
            let is_halved = stage > 0 && layer == 0;
            if is_halved {
                (height, width) = (height.div_ceil(2), width.div_ceil(2));
            }
            let pixels = (height, width);
            let size = times(&[outputs, height, width]);
            let has_shortcut = channels != outputs || is_halved;
            // Both convolutions, the middle of the block, its output; the convolution of the shortcut.
            let kept = size.saturating_mul(4 + u64::from(has_shortcut));
            let shortcut = if has_shortcut { convolution(1, channels, outputs, pixels) } else { 0 };
            let flops = convolution(3, channels, outputs, pixels)
                .saturating_add(convolution(3, outputs, outputs, pixels))
                .saturating_add(shortcut);
            // Gradients of the output, of the sum, of the middle, of the input.
            example.add(kept, flops, size.saturating_mul(3).saturating_add(input));
            channels = outputs;
        }
    }
    linear(&mut example, channels, config.num_classes);
    example
}

fn gpt2(config: &Gpt2Config, t: usize) -> Example {
    let (c, heads, layers) = (config.n_embd, config.n_head, config.n_layer);
    let mut example = Example {
        logits: times(&[t, config.vocab_size]),
        // Backward: 8c for the feed-forward part, 3c of rows.
        thread_scratch: times(&[11, t, c]),
        layer_weights: times(&[12, c, c]),
        ..Example::default()
    };
    // Token embedding, positions, their sum; final norm.
    example.add(times(&[4, t, c]), 0, times(&[2, t, c]));
    // Queries, keys and values 3c, attention c and its log-sums, the middle c, feed-forward 4c, output c.
    let kept = times(&[layers, t]).saturating_mul(times(&[10, c]).saturating_add(heads as u64));
    let matrices = times(&[2 * 12, c, c, t]);
    let layer = matrices.saturating_add(causal_attention(t, c));
    example.add(kept, times(&[layers]).saturating_mul(layer), times(&[2, t, c]));
    example.add(0, times(&[2, c, config.vocab_size, t]), 0);
    example
}

fn llama(config: &LlamaConfig, t: usize) -> Example {
    let (c, hidden, layers) = (config.hidden_size, config.intermediate_size, config.num_hidden_layers);
    let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
    let kv_width = kv_heads.saturating_mul(c / heads.max(1));
    let row = c.saturating_add(kv_width.saturating_mul(2));
    let weights = times(&[c, row]).saturating_add(times(&[c, c])).saturating_add(times(&[3, c, hidden]));
    let mut example = Example {
        logits: times(&[t, config.vocab_size]),
        thread_scratch: times(&[3, t, c]).saturating_add(times(&[3, t, hidden])).saturating_add(times(&[t, row])),
        layer_weights: weights,
        ..Example::default()
    };
    // Token embedding; final norm.
    example.add(times(&[2, t, c]), 0, times(&[2, t, c]));
    // Queries, keys and values, attention c and its log-sums, the middle c, gate and up, output c.
    let per_token = row.saturating_add(3usize.saturating_mul(c)).saturating_add(heads);
    let kept = times(&[layers, t]).saturating_mul((per_token as u64).saturating_add(times(&[2, hidden])));
    let layer = times(&[2, t]).saturating_mul(weights).saturating_add(causal_attention(t, c));
    example.add(kept, times(&[layers]).saturating_mul(layer), times(&[2, t, c]));
    example.add(0, times(&[2, c, config.vocab_size, t]), 0);
    example
}

/// Scores and weighted values of all heads; half of the pairs are masked and never computed.
fn causal_attention(t: usize, c: usize) -> u64 {
    times(&[2 * 2, t, t, c]) / 2
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::models::{DataShape, ModelPreset};

    const DIGITS: DataShape = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };
    const PHOTOS: DataShape = DataShape::Images { channels: 3, height: 32, width: 32, num_classes: 10 };

    fn of(preset: ModelPreset, data: DataShape, t: usize) -> Example {
        example(&preset.config(data).unwrap(), t)
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
    fn absurd_sizes_do_not_overflow() {
        let mut config = ModelPreset::Llama7B.config(DataShape::Text { vocab_size: usize::MAX }).unwrap();
        assert_eq!(example(&config, usize::MAX).flops, u64::MAX);
        if let ModelConfig::Llama(config) = &mut config {
            (config.hidden_size, config.num_key_value_heads, config.num_attention_heads) = (usize::MAX, usize::MAX, 0);
        }
        assert_eq!(example(&config, 1).kept, u64::MAX);
    }
}
