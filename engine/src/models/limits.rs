//! What a config must keep to before a network is built from it: it may come from a file, which can hold any numbers.

use super::{ModelConfig, ModelError, TensorSpec};

/// Most layers of a network, about ten times those of the deepest published models. Each is a block in memory.
const MAX_LAYERS: usize = 4096;

/// Largest width, height, vocabulary and the like: a few times such a size, or a product of two, stays within 64 bits.
const MAX_SIZE: usize = u32::MAX as usize;

/// Most numbers in all tensors together: their bytes can be counted, whatever the type.
const MAX_NUMBERS: usize = isize::MAX as usize / 8;

/// Checks all that building a network computes with. Whether sizes are positive and fit together, each family checks.
/// Errors: [`ModelError::Config`] for too many layers, a size beyond 32 bits, an image beyond all memory, a number
/// out of its range.
pub(super) fn check_config(config: &ModelConfig) -> Result<(), ModelError> {
    let num_layers = num_layers(config);
    if num_layers > MAX_LAYERS {
        return refuse(format!("expected at most {MAX_LAYERS} layers, found {num_layers}"));
    }
    if let Some((name, size)) = sizes(config).into_iter().find(|&(_, size)| size > MAX_SIZE) {
        return refuse(format!("expected `{name}` of at most {MAX_SIZE}, found {size}"));
    }
    if let Some((channels, height, width)) = widest_image(config)
        && [channels, height, width].iter().try_fold(1_usize, |product, &size| product.checked_mul(size)).is_none()
    {
        return refuse(format!("{width}x{height} pixels in {channels} channels are more than can be addressed"));
    }
    match numbers(config).into_iter().find(|(_, value, least)| !(value.is_finite() && least.admits(*value))) {
        Some((name, value, Least::Zero)) => refuse(format!("expected `{name}` of at least 0, found {value}")),
        Some((name, value, Least::AboveZero)) => refuse(format!("expected `{name}` above 0, found {value}")),
        None => Ok(()),
    }
}

/// Checks that the numbers in all tensors can be counted, so that sums over them need no care.
/// Errors: [`ModelError::Config`].
pub(super) fn check_tensors(specs: &[TensorSpec]) -> Result<(), ModelError> {
    let count = |spec: &TensorSpec| spec.shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    let total = specs.iter().try_fold(0_usize, |sum, spec| sum.checked_add(count(spec)?));
    match total {
        Some(total) if total <= MAX_NUMBERS => Ok(()),
        Some(_) | None => {
            refuse("its tensors hold more numbers than can be addressed; choose smaller sizes".to_owned())
        }
    }
}

/// Checks that each size, given with the name of its key, is positive. Errors: [`ModelError::Config`].
pub(super) fn check_positive(sizes: &[(&str, usize)]) -> Result<(), ModelError> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, _)) => refuse(format!("expected `{name}` of at least 1, found 0")),
        None => Ok(()),
    }
}

fn refuse(what: String) -> Result<(), ModelError> {
    Err(ModelError::Config { what })
}

fn num_layers(config: &ModelConfig) -> usize {
    match config {
        ModelConfig::Mlp(c) => c.hidden_sizes.len(),
        ModelConfig::Cnn(c) => c.channels.len(),
        ModelConfig::ResNet(c) => c.depths.iter().fold(c.hidden_sizes.len(), |sum, &depth| sum.saturating_add(depth)),
        ModelConfig::Gpt2(c) => c.n_layer,
        ModelConfig::Llama(c) => c.num_hidden_layers,
    }
}

/// Every size with the name of its key.
fn sizes(config: &ModelConfig) -> Vec<(&'static str, usize)> {
    let image = |name, channels, (height, width): (usize, usize), num_classes| {
        vec![(name, channels), ("image_size", height), ("image_size", width), ("num_classes", num_classes)]
    };
    let each = |name, sizes: &[usize]| sizes.iter().map(|&size| (name, size)).collect::<Vec<_>>();
    match config {
        ModelConfig::Mlp(c) => {
            let ends = image("in_channels", c.in_channels, c.image_size, c.num_classes);
            [ends, each("hidden_sizes", &c.hidden_sizes)].concat()
        }
        ModelConfig::Cnn(c) => {
            let ends = image("in_channels", c.in_channels, c.image_size, c.num_classes);
            [ends, each("channels", &c.channels), vec![("hidden_size", c.hidden_size)]].concat()
        }
        ModelConfig::ResNet(c) => {
            let ends = image("num_channels", c.num_channels, c.image_size, c.num_classes);
            [ends, each("hidden_sizes", &c.hidden_sizes), vec![("embedding_size", c.embedding_size)]].concat()
        }
        ModelConfig::Gpt2(c) => vec![
            ("vocab_size", c.vocab_size),
            ("n_positions", c.n_positions),
            ("n_embd", c.n_embd),
            ("n_head", c.n_head),
        ],
        ModelConfig::Llama(c) => vec![
            ("vocab_size", c.vocab_size),
            ("max_position_embeddings", c.max_position_embeddings),
            ("hidden_size", c.hidden_size),
            ("intermediate_size", c.intermediate_size),
            ("num_attention_heads", c.num_attention_heads),
            ("num_key_value_heads", c.num_key_value_heads),
        ],
    }
}

/// (channels, height, width) at least as large as the output of every layer; `None` for text.
fn widest_image(config: &ModelConfig) -> Option<(usize, usize, usize)> {
    let with = |channels: usize, more: &[usize], (height, width): (usize, usize)| {
        (more.iter().copied().fold(channels, usize::max), height, width)
    };
    match config {
        ModelConfig::Mlp(c) => Some(with(c.in_channels, &[], c.image_size)),
        ModelConfig::Cnn(c) => Some(with(c.in_channels, &c.channels, c.image_size)),
        ModelConfig::ResNet(c) => Some(with(c.num_channels.max(c.embedding_size), &c.hidden_sizes, c.image_size)),
        ModelConfig::Gpt2(_) | ModelConfig::Llama(_) => None,
    }
}

/// The smallest value that a number may have.
#[derive(Debug, Clone, Copy)]
enum Least {
    Zero,
    AboveZero,
}

impl Least {
    fn admits(self, value: f64) -> bool {
        match self {
            Self::Zero => value >= 0.0,
            Self::AboveZero => value > 0.0,
        }
    }
}

/// Every number that is no size, with the name of its key.
fn numbers(config: &ModelConfig) -> Vec<(&'static str, f64, Least)> {
    match config {
        ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => Vec::new(),
        ModelConfig::Gpt2(c) => vec![
            ("layer_norm_epsilon", c.layer_norm_epsilon, Least::AboveZero),
            ("initializer_range", c.initializer_range, Least::Zero),
        ],
        ModelConfig::Llama(c) => vec![
            ("rms_norm_eps", c.rms_norm_eps, Least::AboveZero),
            ("rope_theta", c.rope_theta, Least::AboveZero),
            ("initializer_range", c.initializer_range, Least::Zero),
        ],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::models::{DataShape, ModelPreset, Network};

    const HUGE: usize = 4_000_000_000;

    fn text(preset: ModelPreset) -> ModelConfig {
        preset.config(DataShape::Text { vocab_size: 65 }).unwrap()
    }

    fn image(preset: ModelPreset) -> ModelConfig {
        preset.config(DataShape::Images { channels: 3, height: 32, width: 32, num_classes: 10 }).unwrap()
    }

    /// `config`, changed, is refused with a message that has `part` in it.
    #[track_caller]
    fn check(mut config: ModelConfig, change: impl FnOnce(&mut ModelConfig), part: &str) {
        assert!(Network::new(&config).is_ok(), "the config is fine before it is changed");
        change(&mut config);
        let message = Network::new(&config).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }

    #[track_caller]
    fn check_gpt2(change: impl FnOnce(&mut crate::models::Gpt2Config), part: &str) {
        let change = |config: &mut ModelConfig| match config {
            ModelConfig::Gpt2(config) => change(config),
            other => panic!("expected a gpt2, found {other:?}"),
        };
        check(text(ModelPreset::Gpt2Char), change, part);
    }

    #[track_caller]
    fn check_llama(change: impl FnOnce(&mut crate::models::LlamaConfig), part: &str) {
        let change = |config: &mut ModelConfig| match config {
            ModelConfig::Llama(config) => change(config),
            other => panic!("expected a llama, found {other:?}"),
        };
        check(text(ModelPreset::Llama11M), change, part);
    }

    #[test]
    fn as_many_layers_as_a_file_says_are_not_built() {
        check_gpt2(|c| c.n_layer = HUGE, "4096 layers");
        check_llama(|c| c.num_hidden_layers = HUGE, "4096 layers");
        let resnet = |config: &mut ModelConfig| match config {
            ModelConfig::ResNet(config) => config.depths = vec![3, usize::MAX, 3],
            other => panic!("expected a resnet, found {other:?}"),
        };
        check(image(ModelPreset::ResNet20), resnet, "4096 layers");
        let mlp = |config: &mut ModelConfig| match config {
            ModelConfig::Mlp(config) => config.hidden_sizes = vec![1; 5000],
            other => panic!("expected an mlp, found {other:?}"),
        };
        check(image(ModelPreset::Mlp), mlp, "4096 layers");
    }

    #[test]
    fn sizes_that_overflow_are_named() {
        check_gpt2(|c| c.vocab_size = usize::MAX, "`vocab_size`");
        check_gpt2(|c| c.n_embd = 1 << 40, "`n_embd`");
        check_llama(|c| c.intermediate_size = 1 << 40, "`intermediate_size`");
        // Each fits, their product does not.
        check_gpt2(|c| (c.n_embd, c.n_head) = (HUGE, 1), "more numbers");
        check_llama(|c| c.hidden_size = HUGE / 12 * 12, "more numbers");
        for preset in [ModelPreset::Mlp, ModelPreset::MnistCnn, ModelPreset::ResNet20] {
            let enlarge = |config: &mut ModelConfig| match config {
                ModelConfig::Mlp(config) => config.image_size = (HUGE, HUGE),
                ModelConfig::Cnn(config) => config.image_size = (HUGE, HUGE),
                ModelConfig::ResNet(config) => config.image_size = (HUGE, HUGE),
                other => panic!("expected an image model, found {other:?}"),
            };
            check(image(preset), enlarge, "pixels");
        }
    }

    #[test]
    fn what_would_divide_by_zero_is_refused() {
        check_gpt2(|c| c.n_head = 0, "expected `n_head` of at least 1, found 0");
        check_gpt2(|c| c.n_embd = 0, "`n_embd`");
        check_gpt2(|c| c.n_head = 3, "must divide");
        check_llama(|c| c.num_attention_heads = 0, "`num_attention_heads`");
        check_llama(|c| c.num_key_value_heads = 0, "`num_key_value_heads`");
        check_llama(|c| c.num_key_value_heads = 4, "must divide");
        check_llama(|c| c.hidden_size = 383, "even heads");
    }

    #[test]
    fn numbers_that_make_every_answer_nan_are_refused() {
        check_gpt2(|c| c.layer_norm_epsilon = f64::NAN, "`layer_norm_epsilon`");
        check_gpt2(|c| c.initializer_range = -1.0, "at least 0");
        check_llama(|c| c.rope_theta = 0.0, "above 0");
        check_llama(|c| c.rms_norm_eps = f64::INFINITY, "`rms_norm_eps`");
    }
}
