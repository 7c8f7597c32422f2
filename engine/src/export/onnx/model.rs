//! An ONNX model in memory: composed, checked against the trainer's network, calibrated, quantized, sized.

use candle_core::{Device, Tensor};
use prost::Message;
use serde_json::json;

use super::compose::{FloatGraph, compose};
use super::evaluate::Evaluator;
use super::fold::Source;
use super::proto::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};
use super::qdq::{dequantized, quantize};
use super::ranges::{Grid, Ranges};
use super::{IR_VERSION, OPSET};
use crate::device::Watch;
use crate::export::read_back::{self, Input};
use crate::export::{Blocker, Checkpoint, ExportError, ModelCard, Preprocessing, StoredSize, TargetPreset};
use crate::models::{DataShape, Network};
use crate::quant::QuantScheme;

/// Most bytes of a file: protocol buffers end there.
const MAX_FILE_BYTES: u64 = (1 << 31) - 1;

/// A network as an ONNX model.
#[derive(Debug, Clone)]
pub struct OnnxModel {
    float: FloatGraph,
    integers: Option<Integers>,
    metadata: Vec<StringStringEntryProto>,
    version: String,
    /// Of the float graph's answers to random images to the trainer's.
    distance: f64,
}

/// The graph of 8-bit integers.
#[derive(Debug, Clone)]
struct Integers {
    graph: GraphProto,
    /// Relative L2 error of each weight and bias.
    errors: Vec<(String, f64)>,
    num_images: u64,
}

impl OnnxModel {
    /// The graph of floats of a checkpoint's network, which answers random images like the network itself.
    /// Errors: a language model; weights that are missing or no numbers; [`ExportError::ReadBack`] for other answers.
    pub fn new(checkpoint: &Checkpoint, watch: Watch<'_>) -> Result<Self, ExportError> {
        watch.step("composing the ONNX graph", 0, None)?;
        let card = &checkpoint.card;
        let float = compose(card, &Source::Weights(&checkpoint.weights))?;
        let mut model =
            Self { float, integers: None, metadata: metadata(card), version: card.version.clone(), distance: 0.0 };
        model.distance = model.distance_to(checkpoint, watch)?;
        let (what, reference) = ("answers of the ONNX graph", "the trainer's network");
        read_back::check(what, model.distance, reference, read_back::WEIGHTS_TOLERANCE)?;
        Ok(model)
    }

    /// The same in 8-bit integers; the ranges of what passes between operations are those that `images` show, each
    /// (n, channels, height, width), 0 to 1. Errors: those of `images`; none at all; NaN between two operations.
    pub fn quantized(
        &self,
        images: impl Iterator<Item = Result<Tensor, ExportError>>,
        watch: Watch<'_>,
    ) -> Result<Self, ExportError> {
        let evaluator = Evaluator::new(&self.float.graph)?;
        let mut ranges = Ranges::default();
        let mut num_images = 0;
        for images in images {
            watch.step("calibrating 8-bit activations", num_images, None)?;
            let images = images?;
            evaluator.run(&images, |name, values| {
                let is_point = self.float.points.iter().any(|point| point.range_of == name);
                if is_point { ranges.observe(name, values) } else { Ok(()) }
            })?;
            num_images += images.dim(0)? as u64;
        }
        let graph = quantize(&self.float, |tensor| ranges.grid(tensor))?;
        let errors = integer_errors(&evaluator, &self.float.graph, &Evaluator::new(&graph)?)?;
        Ok(Self { integers: Some(Integers { graph, errors, num_images }), ..self.clone() })
    }

    /// What computes the graph.
    pub fn evaluator(&self) -> Result<Evaluator<'_>, ExportError> {
        Evaluator::new(self.graph())
    }

    /// Its numbers: f32 or int8.
    #[must_use]
    pub fn scheme(&self) -> QuantScheme {
        if self.integers.is_some() { QuantScheme::Int8 } else { QuantScheme::F32 }
    }

    /// Images that it was calibrated on: 0 for floats.
    #[must_use]
    pub fn num_calibration_images(&self) -> u64 {
        self.integers.as_ref().map_or(0, |integers| integers.num_images)
    }

    /// Numbers and bytes of all constants, scales included.
    #[must_use]
    pub fn size(&self) -> StoredSize {
        let bytes = self.graph().initializer.iter().map(|tensor| tensor.raw_data.as_ref().map_or(0, Vec::len) as u64);
        let num_weights = self.float.graph.initializer.iter().map(|tensor| tensor.num_elements() as u64).sum();
        StoredSize { num_weights, bytes: bytes.sum() }
    }

    /// Relative L2 error of each weight and bias that is not stored as trained.
    #[must_use]
    pub fn tensor_errors(&self) -> &[(String, f64)] {
        self.integers.as_ref().map_or(&[], |integers| &integers.errors)
    }

    /// How far the float graph's answers to random images are from the trainer's.
    pub(super) fn distance(&self) -> f64 {
        self.distance
    }

    /// The file.
    pub(super) fn proto(&self) -> ModelProto {
        model_proto(self.graph().clone(), self.metadata.clone(), self.version.clone())
    }

    fn graph(&self) -> &GraphProto {
        self.integers.as_ref().map_or(&self.float.graph, |integers| &integers.graph)
    }

    /// ‖graph - network‖ / spread over answers to random images.
    fn distance_to(&self, checkpoint: &Checkpoint, watch: Watch<'_>) -> Result<f64, ExportError> {
        let network = Network::new(&checkpoint.card.model)?;
        let evaluator = self.evaluator()?;
        let (mut answers, mut expected) = (Vec::new(), Vec::new());
        for index in 0..read_back::NUM_INPUTS {
            watch.step("comparing the ONNX graph with the network", index, Some(read_back::NUM_INPUTS))?;
            let Input::Pixels { pixels, shape } = read_back::random_input(checkpoint, index) else { continue };
            let preprocessing = &checkpoint.card.preprocessing;
            expected.extend(read_back::image_logits(&network, &checkpoint.weights, preprocessing, &pixels, shape)?);
            let images = pixels_tensor(&[&pixels], shape)?;
            answers.extend(evaluator.logits(&images)?.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(read_back::relative_distance(&answers, &expected))
    }
}

/// Images of 0 to 255, each (channels, height, width), as a graph reads them: (n, channels, height, width), 0 to 1.
/// Errors: another number of pixels.
pub fn pixels_tensor(
    images: &[&[u8]],
    (channels, height, width): (usize, usize, usize),
) -> Result<Tensor, ExportError> {
    let values: Vec<f32> =
        images.iter().flat_map(|pixels| pixels.iter().map(|&pixel| f32::from(pixel) / 255.0)).collect();
    Ok(Tensor::from_vec(values, (images.len(), channels, height, width), &Device::Cpu)?)
}

/// True for the schemes that our graphs come in.
pub(in crate::export) fn holds(scheme: QuantScheme) -> bool {
    match scheme {
        QuantScheme::F32 | QuantScheme::Int8 => true,
        QuantScheme::F16
        | QuantScheme::Bf16
        | QuantScheme::Int4
        | QuantScheme::Int4K
        | QuantScheme::Ternary
        | QuantScheme::TernaryBase3 => false,
    }
}

/// Why `card`'s model has no ONNX package on `target`, but for its size.
pub(in crate::export) fn blockers(card: &ModelCard, target: &TargetPreset) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    if card.is_language_model() {
        blockers.push(Blocker {
            what: format!("ONNX packages hold models that read images, this {} reads text", card.family()),
            remedy: "Choose GGUF or safetensors".to_owned(),
        });
        return blockers;
    }
    if !holds(target.scheme) {
        blockers.push(Blocker {
            what: format!("ONNX packages are f32 or int8, not {}", target.scheme.label()),
            remedy: "Ask for one of them (--scheme), or for another format".to_owned(),
        });
    } else if predicted_bytes(card, target.scheme).is_ok_and(|bytes| bytes > MAX_FILE_BYTES) {
        blockers.push(Blocker {
            what: "An ONNX file holds at most 2 GiB, this model takes more".to_owned(),
            remedy: "Choose safetensors, or a smaller model".to_owned(),
        });
    }
    blockers
}

/// Size of the file before anything is computed, bytes.
/// Errors: a language model, or a config that builds no network.
pub(in crate::export) fn predicted_bytes(card: &ModelCard, scheme: QuantScheme) -> Result<u64, ExportError> {
    let network = Network::new(&card.model)?;
    let float = compose(card, &Source::Shapes(&network))?;
    let graph = match scheme {
        QuantScheme::Int8 => quantize(&float, |_| Ok(Grid { scale: 1.0, zero: 1 }))?,
        QuantScheme::F32
        | QuantScheme::F16
        | QuantScheme::Bf16
        | QuantScheme::Int4
        | QuantScheme::Int4K
        | QuantScheme::Ternary
        | QuantScheme::TernaryBase3 => float.graph,
    };
    let missing: u64 = graph
        .initializer
        .iter()
        .map(|tensor| {
            let whole = tensor.num_elements() * tensor.element_type().map_or(0, |kind| kind.num_bytes());
            let there = tensor.raw_data.as_ref().map_or(0, Vec::len);
            // Lengths of larger messages take a few bytes more.
            if whole > there { (whole - there + 4) as u64 } else { 0 }
        })
        .sum();
    let proto = model_proto(graph, metadata(card), card.version.clone());
    Ok(proto.encoded_len() as u64 + missing)
}

fn model_proto(graph: GraphProto, metadata_props: Vec<StringStringEntryProto>, producer_version: String) -> ModelProto {
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: "Foretrain".to_owned(),
        producer_version,
        graph: Some(graph),
        // Present though empty, as the standard asks for the default operators.
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: OPSET }],
        metadata_props,
    }
}

/// What a program needs to know to use the model, each value a JSON text.
fn metadata(card: &ModelCard) -> Vec<StringStringEntryProto> {
    let mut entries = vec![("name", json!(card.name)), ("step", json!(card.step)), ("data", json!(card.dataset_name))];
    if let Preprocessing::Images { mean, std, classes } = &card.preprocessing {
        let color = match card.model.data_shape() {
            DataShape::Images { channels: 1, .. } => "gray",
            DataShape::Images { .. } | DataShape::Text { .. } => "red, green, blue",
        };
        entries.extend([
            ("classes", json!(classes)),
            ("input", json!({ "layout": "NCHW", "color": color, "range": [0, 1] })),
            ("normalization", json!({ "mean": mean, "std": std, "where": "in the graph" })),
        ]);
    }
    let entry = |(key, value): (&str, serde_json::Value)| StringStringEntryProto {
        key: key.to_owned(),
        value: value.to_string(),
    };
    entries.into_iter().map(entry).collect()
}

/// ‖stored - folded‖₂ / ‖folded‖₂ of each constant that is stored as integers.
fn integer_errors(
    float: &Evaluator<'_>,
    graph: &GraphProto,
    integers: &Evaluator<'_>,
) -> Result<Vec<(String, f64)>, ExportError> {
    let mut errors = Vec::new();
    for tensor in &graph.initializer {
        let (Some(before), Some(after)) = (float.constant(&tensor.name), integers.constant(&dequantized(&tensor.name)))
        else {
            continue;
        };
        let [before, after] = [before, after].map(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
        let (before, after) = (before?, after?);
        let square = |value: f32| f64::from(value) * f64::from(value);
        let length: f64 = before.iter().map(|&value| square(value)).sum();
        let lost: f64 = before.iter().zip(&after).map(|(before, after)| square(before - after)).sum();
        errors.push((tensor.name.clone(), if length > 0.0 { (lost / length).sqrt() } else { 0.0 }));
    }
    Ok(errors)
}
