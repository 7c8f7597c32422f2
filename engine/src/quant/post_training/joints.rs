//! Where a network's channels can be scaled without changing what it computes.

use crate::models::{Activation, CnnConfig, Gpt2Config, LlamaConfig, MlpConfig, ModelConfig, ResNetConfig};

/// Where channels lie in a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Name of the tensor.
    pub tensor: String,
    /// Axis of the channels.
    pub axis: usize,
    /// The channel of each index along it; `None` for what the joint leaves alone.
    pub channels: Vec<Option<usize>>,
}

impl Place {
    /// Channels along `axis` of `tensor`.
    pub fn new(tensor: String, axis: usize, channels: impl IntoIterator<Item = Option<usize>>) -> Self {
        Self { tensor, axis, channels: channels.into_iter().collect() }
    }

    /// Every index is a channel.
    fn all(tensor: String, axis: usize, num_channels: usize) -> Self {
        Self::new(tensor, axis, (0..num_channels).map(Some))
    }
}

/// Channels between two layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Joint {
    pub num_channels: usize,
    /// Where they come from, to be divided.
    pub leaves: Vec<Place>,
    /// Matrices that read them, to be multiplied.
    pub enters: Vec<Place>,
}

impl Joint {
    /// From vectors and matrices whose first axis is the channels', into matrices whose `axis` is.
    fn plain<const N: usize>(
        num_channels: usize,
        leaves: impl IntoIterator<Item = String>,
        enters: [String; N],
        axis: usize,
    ) -> Self {
        Self {
            num_channels,
            leaves: leaves.into_iter().map(|tensor| Place::all(tensor, 0, num_channels)).collect(),
            enters: enters.into_iter().map(|tensor| Place::all(tensor, axis, num_channels)).collect(),
        }
    }
}

/// The joints of a model.
pub(super) fn joints(config: &ModelConfig) -> Vec<Joint> {
    match config {
        ModelConfig::Mlp(config) => of_mlp(config),
        ModelConfig::Cnn(config) => of_cnn(config),
        ModelConfig::ResNet(config) => of_resnet(config),
        ModelConfig::Gpt2(config) => of_gpt2(config),
        ModelConfig::Llama(config) => of_llama(config),
    }
}

/// Hidden layers around a ReLU. GELU is no product.
fn of_mlp(config: &MlpConfig) -> Vec<Joint> {
    match config.activation {
        Activation::Gelu => Vec::new(),
        Activation::Relu => (config.hidden_sizes.iter().enumerate())
            .map(|(index, &size)| {
                let leaves = ["weight", "bias"].map(|part| format!("layers.{index}.{part}"));
                Joint::plain(size, leaves, [format!("layers.{}.weight", index + 1)], 1)
            })
            .collect(),
    }
}

/// Convolutions, and what follows them: ReLU and pooling keep a positive factor.
fn of_cnn(config: &CnnConfig) -> Vec<Joint> {
    let (mut height, mut width) = config.image_size;
    let last = config.channels.len();
    let convolutions = config.channels.iter().enumerate().map(|(index, &channels)| {
        (height, width) = (height / 2, width / 2);
        let leaves = ["weight", "bias"].map(|part| Place::all(format!("conv.{index}.{part}"), 0, channels));
        let enters = if index + 1 < last {
            Place::all(format!("conv.{}.weight", index + 1), 1, channels)
        } else {
            let plane = height * width;
            Place::new("fc.weight".to_owned(), 1, (0..channels * plane).map(|input| Some(input / plane.max(1))))
        };
        Joint { num_channels: channels, leaves: leaves.into(), enters: vec![enters] }
    });
    let hidden = ["fc.weight", "fc.bias"].map(str::to_owned);
    let head = Joint::plain(config.hidden_size, hidden, ["classifier.weight".to_owned()], 1);
    convolutions.collect::<Vec<_>>().into_iter().chain([head]).collect()
}

/// Within each block: the first norm, a ReLU, the second convolution.
fn of_resnet(config: &ResNetConfig) -> Vec<Joint> {
    let stages = config.hidden_sizes.iter().zip(&config.depths).enumerate();
    stages
        .flat_map(|(stage, (&channels, &depth))| {
            (0..depth).map(move |layer| {
                let name = format!("resnet.encoder.stages.{stage}.layers.{layer}.layer");
                let leaves = ["weight", "bias"].map(|part| format!("{name}.0.normalization.{part}"));
                Joint::plain(channels, leaves, [format!("{name}.1.convolution.weight")], 1)
            })
        })
        .collect()
}

/// Norms and the matrices behind them; values and the output projection. Matrices are (inputs, outputs).
fn of_gpt2(config: &Gpt2Config) -> Vec<Joint> {
    let c = config.n_embd;
    let layer = |index: usize| {
        let name = |part: &str| format!("transformer.h.{index}.{part}");
        let norm = |norm: &str| ["weight", "bias"].map(|part| name(&format!("{norm}.{part}")));
        let values =
            |tensor: &str, axis| Place::new(name(tensor), axis, (0..3 * c).map(|output| output.checked_sub(2 * c)));
        [
            Joint::plain(c, norm("ln_1"), [name("attn.c_attn.weight")], 0),
            Joint {
                num_channels: c,
                leaves: vec![values("attn.c_attn.weight", 1), values("attn.c_attn.bias", 0)],
                enters: vec![Place::all(name("attn.c_proj.weight"), 0, c)],
            },
            Joint::plain(c, norm("ln_2"), [name("mlp.c_fc.weight")], 0),
        ]
    };
    (0..config.n_layer).flat_map(layer).collect()
}

/// Norms and the matrices behind them; values and the output projection, where several query heads share a value head;
/// the linear half of the gated layer and the matrix behind it. Where a BitNet has a norm in between, the channels are its.
fn of_llama(config: &LlamaConfig) -> Vec<Joint> {
    let (c, hidden) = (config.hidden_size, config.intermediate_size);
    let size = c / config.num_attention_heads.max(1);
    let queries_per_value = (config.num_attention_heads / config.num_key_value_heads.max(1)).max(1);
    let value_of = move |input: usize| Some(input / size.max(1) / queries_per_value * size + input % size.max(1));
    let layer = |index: usize| {
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
        let values = config.num_key_value_heads * size;
        let (into_output, into_down) = if config.sub_norms {
            (
                Joint::plain(c, [name("self_attn.attn_sub_norm")], [name("self_attn.o_proj")], 1),
                Joint::plain(hidden, [name("mlp.ffn_sub_norm")], [name("mlp.down_proj")], 1),
            )
        } else {
            let output = Joint {
                num_channels: values,
                leaves: vec![Place::all(name("self_attn.v_proj"), 0, values)],
                enters: vec![Place::new(name("self_attn.o_proj"), 1, (0..c).map(value_of))],
            };
            (output, Joint::plain(hidden, [name("mlp.up_proj")], [name("mlp.down_proj")], 1))
        };
        [
            Joint::plain(
                c,
                [name("input_layernorm")],
                ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(name),
                1,
            ),
            into_output,
            Joint::plain(c, [name("post_attention_layernorm")], ["mlp.gate_proj", "mlp.up_proj"].map(name), 1),
            into_down,
        ]
    };
    (0..config.num_hidden_layers).flat_map(layer).collect()
}
