//! An image network as an ONNX graph of 32-bit floats, batch norm folded into the convolutions.
//!
//! The graph reads pixels divided by 255: the training data's mean and deviation are its first two nodes. They cannot be
//! folded into the first convolution, because that one pads with zeros after them.

use super::fold::{Folded, Source, fold_norm};
use super::proto::{DimensionValue, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use crate::export::{ExportError, ModelCard, Preprocessing};
use crate::models::{Activation, CnnConfig, MlpConfig, ModelConfig, ResNetConfig};

/// What the graph reads: (batch, channels, height, width), 0 to 1.
pub(super) const INPUT: &str = "images";
/// What it answers: (batch, classes).
pub(super) const OUTPUT: &str = "logits";
/// Name of the dimension that the caller chooses.
const BATCH: &str = "batch";

/// A graph of floats, with what its quantization needs to know.
#[derive(Debug, Clone)]
pub(super) struct FloatGraph {
    pub graph: GraphProto,
    /// Tensors between operations that are stored in 8 bits when the graph is quantized, in order.
    pub points: Vec<Point>,
}

/// A tensor between two operations.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub tensor: String,
    /// The one whose range it shares, because only places of numbers change between them: often itself.
    pub range_of: String,
}

/// Composes the graph of `card`'s network out of the tensors of `source`.
/// Errors: a language model; a tensor that is missing or holds what is no number; a negative variance.
pub(super) fn compose(card: &ModelCard, source: &Source<'_>) -> Result<FloatGraph, ExportError> {
    let Preprocessing::Images { mean, std, .. } = &card.preprocessing else {
        return Err(no_image_model(card));
    };
    let mut composer = Composer { source, graph: GraphProto::default(), points: Vec::new() };
    let input = composer.normalize(mean, std);
    let (shape, num_classes) = match &card.model {
        ModelConfig::Mlp(config) => {
            composer.mlp(config, &input)?;
            ((config.in_channels, config.image_size), config.num_classes)
        }
        ModelConfig::Cnn(config) => {
            composer.cnn(config, &input)?;
            ((config.in_channels, config.image_size), config.num_classes)
        }
        ModelConfig::ResNet(config) => {
            composer.resnet(config, &input)?;
            ((config.num_channels, config.image_size), config.num_classes)
        }
        ModelConfig::Gpt2(_) | ModelConfig::Llama(_) => return Err(no_image_model(card)),
    };
    let (channels, (height, width)) = shape;
    let fixed = |size: usize| DimensionValue::Fixed(size as i64);
    let batch = || DimensionValue::Named(BATCH.to_owned());
    let image = vec![batch(), fixed(channels), fixed(height), fixed(width)];
    // The standard asks for a name.
    composer.graph.name = if card.name.is_empty() { "model".to_owned() } else { card.name.clone() };
    composer.graph.input.push(ValueInfoProto::floats(INPUT, image));
    composer.graph.output.push(ValueInfoProto::floats(OUTPUT, vec![batch(), fixed(num_classes)]));
    Ok(FloatGraph { graph: composer.graph, points: composer.points })
}

fn no_image_model(card: &ModelCard) -> ExportError {
    ExportError::Runtime {
        tried: "composing an ONNX graph",
        what: format!("expected a model that reads images, found a {}", card.family()),
    }
}

/// A convolution, with the names of its tensors.
struct Convolution<'a> {
    /// Name of its output.
    name: &'a str,
    kernel: usize,
    stride: usize,
}

impl<'a> Convolution<'a> {
    fn new(name: &'a str, kernel: usize, stride: usize) -> Self {
        Self { name, kernel, stride }
    }
}

/// What follows an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Relu,
    Nothing,
}

struct Composer<'a> {
    source: &'a Source<'a>,
    graph: GraphProto,
    points: Vec<Point>,
}

impl Composer<'_> {
    fn mlp(&mut self, config: &MlpConfig, input: &str) -> Result<(), ExportError> {
        let mut x = self.flatten(input);
        let num_layers = config.hidden_sizes.len() + 1;
        for index in 0..num_layers {
            let name = format!("layers.{index}");
            let is_last = index + 1 == num_layers;
            x = match config.activation {
                _ if is_last => self.linear(&name, &x, OUTPUT, Then::Nothing)?,
                Activation::Relu => self.linear(&name, &x, &name, Then::Relu)?,
                Activation::Gelu => {
                    let y = self.linear(&name, &x, &format!("{name}.linear"), Then::Nothing)?;
                    self.gelu(&y, &name)
                }
            };
        }
        Ok(())
    }

    fn cnn(&mut self, config: &CnnConfig, input: &str) -> Result<(), ExportError> {
        let mut x = input.to_owned();
        for index in 0..config.channels.len() {
            let name = format!("conv.{index}");
            let layer = Folded {
                weight: self.source.read(&format!("{name}.weight"))?,
                bias: self.source.read(&format!("{name}.bias"))?,
            };
            x = self.convolution(&Convolution::new(&name, 3, 1), &layer, &x, Then::Relu);
            x = self.max_pool(&x);
        }
        let x = self.flatten(&x);
        let x = self.linear("fc", &x, "fc", Then::Relu)?;
        self.linear("classifier", &x, OUTPUT, Then::Nothing)?;
        Ok(())
    }

    fn resnet(&mut self, config: &ResNetConfig, input: &str) -> Result<(), ExportError> {
        let mut x = self.folded(&Convolution::new("resnet.embedder.embedder", 3, 1), input, Then::Relu)?;
        let mut channels = config.embedding_size;
        for (stage, (&out_channels, &depth)) in config.hidden_sizes.iter().zip(&config.depths).enumerate() {
            for layer in 0..depth {
                let stride = if stage > 0 && layer == 0 { 2 } else { 1 };
                let name = format!("resnet.encoder.stages.{stage}.layers.{layer}");
                let middle = self.folded(&Convolution::new(&format!("{name}.layer.0"), 3, stride), &x, Then::Relu)?;
                let deep = self.folded(&Convolution::new(&format!("{name}.layer.1"), 3, 1), &middle, Then::Nothing)?;
                let shortcut = if channels != out_channels || stride != 1 {
                    self.folded(&Convolution::new(&format!("{name}.shortcut"), 1, stride), &x, Then::Nothing)?
                } else {
                    x
                };
                x = self.sum(&name, &deep, &shortcut);
                channels = out_channels;
            }
        }
        let pooled = self.node(NodeProto::new("GlobalAveragePool", &[&x], "resnet.pooler"));
        let x = self.point(pooled);
        let x = self.flatten(&x);
        self.linear("classifier.1", &x, OUTPUT, Then::Nothing)?;
        Ok(())
    }

    /// (pixel - mean) / std per channel, in the trainer's order of operations.
    fn normalize(&mut self, mean: &[f32], std: &[f32]) -> String {
        for (name, values) in [("image_mean", mean), ("image_std", std)] {
            self.graph.initializer.push(TensorProto::floats(name, &[1, values.len(), 1, 1], values));
        }
        let centered = self.node(NodeProto::new("Sub", &[INPUT, "image_mean"], "centered"));
        let normalized = self.node(NodeProto::new("Div", &[&centered, "image_std"], "normalized"));
        self.point(normalized)
    }

    /// The convolution whose batch norm is folded into it.
    fn folded(&mut self, layer: &Convolution<'_>, input: &str, then: Then) -> Result<String, ExportError> {
        let folded = fold_norm(self.source, layer.name)?;
        Ok(self.convolution(layer, &folded, input, then))
    }

    fn convolution(&mut self, layer: &Convolution<'_>, folded: &Folded, input: &str, then: Then) -> String {
        let Convolution { name, kernel, stride } = *layer;
        let weights = self.constants(name, folded);
        let padding = kernel / 2;
        let before = self.before(name, then);
        let node = NodeProto::new("Conv", &[input, &weights[0], &weights[1]], &before)
            .with_ints("kernel_shape", &[kernel; 2])
            .with_ints("strides", &[stride; 2])
            .with_ints("pads", &[padding; 4]);
        let output = self.node(node);
        self.then(&output, name, then)
    }

    /// y = x·Wᵀ + b, (n, in) to (n, out), into `output`.
    fn linear(&mut self, name: &str, input: &str, output: &str, then: Then) -> Result<String, ExportError> {
        let folded = Folded {
            weight: self.source.read(&format!("{name}.weight"))?,
            bias: self.source.read(&format!("{name}.bias"))?,
        };
        let weights = self.constants(name, &folded);
        let before = self.before(output, then);
        let gemm = NodeProto::new("Gemm", &[input, &weights[0], &weights[1]], &before).with_int("transB", 1);
        let y = self.node(gemm);
        if then == Then::Nothing {
            // Logits stay floats, and what an activation reads is no point by itself.
            return Ok(y);
        }
        Ok(self.then(&y, output, then))
    }

    /// Adds a layer's weight and bias; their names.
    fn constants(&mut self, name: &str, folded: &Folded) -> [String; 2] {
        let names = [format!("{name}.weight"), format!("{name}.bias")];
        for (name, tensor) in names.iter().zip([&folded.weight, &folded.bias]) {
            self.graph.initializer.push(TensorProto::floats(name, &tensor.shape, &tensor.values));
        }
        names
    }

    /// x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))): this opset has no operator for it.
    fn gelu(&mut self, x: &str, name: &str) -> String {
        let sqrt_2_over_pi = (2.0 / std::f64::consts::PI).sqrt() as f32;
        let scalars = [("half", 0.5), ("one", 1.0), ("cubic", 0.044_715), ("slope", sqrt_2_over_pi)];
        for (constant, value) in scalars {
            self.graph.initializer.push(TensorProto::floats(&format!("{name}.{constant}"), &[], &[value]));
        }
        let part = |part: &str| format!("{name}.{part}");
        let mut apply = |op: &str, a: &str, b: &str, output: &str| self.node(NodeProto::new(op, &[a, b], output));
        let square = apply("Mul", x, x, &part("square"));
        let cube = apply("Mul", &square, x, &part("cube"));
        let scaled = apply("Mul", &cube, &part("cubic"), &part("scaled_cube"));
        let inner = apply("Add", x, &scaled, &part("inner"));
        let steep = apply("Mul", &inner, &part("slope"), &part("steep"));
        let bent = self.node(NodeProto::new("Tanh", &[&steep], &part("bent")));
        let mut apply = |op: &str, a: &str, b: &str, output: &str| self.node(NodeProto::new(op, &[a, b], output));
        let raised = apply("Add", &bent, &part("one"), &part("raised"));
        let halved = apply("Mul", x, &part("half"), &part("halved"));
        let y = apply("Mul", &halved, &raised, name);
        self.point(y)
    }

    /// ReLU of the sum of two branches.
    fn sum(&mut self, name: &str, a: &str, b: &str) -> String {
        let before = self.before(name, Then::Relu);
        let sum = self.node(NodeProto::new("Add", &[a, b], &before));
        self.then(&sum, name, Then::Relu)
    }

    fn max_pool(&mut self, x: &str) -> String {
        let output = format!("{x}.pooled");
        let node = NodeProto::new("MaxPool", &[x], &output).with_ints("kernel_shape", &[2; 2]);
        let y = self.node(node.with_ints("strides", &[2; 2]));
        self.moved(y, x)
    }

    fn flatten(&mut self, x: &str) -> String {
        let y = self.node(NodeProto::new("Flatten", &[x], &format!("{x}.flat")).with_int("axis", 1));
        self.moved(y, x)
    }

    /// What an operation calls its output, so that `name` is the end of it and of what follows.
    fn before(&self, name: &str, then: Then) -> String {
        match then {
            Then::Relu => format!("{name}.before_relu"),
            Then::Nothing => name.to_owned(),
        }
    }

    fn then(&mut self, x: &str, name: &str, then: Then) -> String {
        let y = match then {
            Then::Relu => self.node(NodeProto::new("Relu", &[x], name)),
            Then::Nothing => x.to_owned(),
        };
        self.point(y)
    }

    fn node(&mut self, node: NodeProto) -> String {
        let output = node.result().to_owned();
        self.graph.node.push(node);
        output
    }

    /// A tensor with a range of its own.
    fn point(&mut self, tensor: String) -> String {
        self.points.push(Point { tensor: tensor.clone(), range_of: tensor.clone() });
        tensor
    }

    /// A tensor whose numbers are all among those of `from`.
    fn moved(&mut self, tensor: String, from: &str) -> String {
        let range_of = self.points.iter().find(|point| point.tensor == from).map(|point| point.range_of.clone());
        self.points.push(Point { tensor: tensor.clone(), range_of: range_of.unwrap_or_else(|| from.to_owned()) });
        tensor
    }
}
