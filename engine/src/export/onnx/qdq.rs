//! A graph of floats as one of 8-bit integers, in the QDQ form: every tensor between operations, and every weight, goes
//! through QuantizeLinear and DequantizeLinear. A runtime fuses them with the operation between into integer kernels;
//! one that does not computes the same in floats.
//!
//! - Weights: symmetric, a scale per output channel, as unsigned bytes with the zero point 128. By signed ones onnxruntime
//!   multiplies, where the processor has AVX2 and no VNNI, with pairs of products that saturate at 16 bits: an MNIST CNN
//!   lost 2.6 points of accuracy there.
//! - Tensors between operations: unsigned bytes with a zero point, one scale each.
//! - Biases: 32-bit integers with the product of both scales, so that they add to the sums as they are.
//! - Logits and the normalization of pixels: floats.
//!
//! Source: Jacob et al. 2017, arXiv 1712.05877; ONNX's QuantizeLinear and DequantizeLinear, opset 13.

use std::collections::{HashMap, HashSet};

use super::compose::FloatGraph;
use super::proto::{GraphProto, NodeProto, TensorProto};
use super::ranges::Grid;
use crate::export::ExportError;

/// Largest magnitude of a weight's code: symmetric, so that a zero point of 0 loses nothing.
const MAX_CODE: f32 = 127.0;
/// What is stored for a weight of 0.
const WEIGHT_ZERO: u8 = 128;
/// Largest magnitude of a bias's code, half of what 32 bits hold: the rest is for the sums it is added to.
const MAX_BIAS_CODE: f64 = (1_u32 << 30) as f64;

/// A weight, or a bias, after its DequantizeLinear.
pub(super) fn dequantized(name: &str) -> String {
    format!("{name}.dequantized")
}

/// The graph with 8-bit weights, and 8-bit tensors at its points, whose grids `grid_of` gives.
/// Errors: those of `grid_of`.
pub(super) fn quantize(
    float: &FloatGraph,
    grid_of: impl Fn(&str) -> Result<Grid, ExportError>,
) -> Result<GraphProto, ExportError> {
    let mut grids = HashMap::new();
    for point in &float.points {
        grids.insert(point.tensor.as_str(), grid_of(&point.range_of)?);
    }
    let constants = float.graph.constants();
    let mut quantizer = Quantizer { grids, constants, replaced: HashSet::new(), graph: GraphProto::default() };
    quantizer.graph.name.clone_from(&float.graph.name);
    quantizer.graph.input.clone_from(&float.graph.input);
    quantizer.graph.output.clone_from(&float.graph.output);
    for node in &float.graph.node {
        quantizer.node(node);
    }
    let Quantizer { graph: mut quantized, replaced, .. } = quantizer;
    let kept = float.graph.initializer.iter().filter(|tensor| !replaced.contains(&tensor.name));
    quantized.initializer = kept.cloned().chain(std::mem::take(&mut quantized.initializer)).collect();
    Ok(quantized)
}

struct Quantizer<'a> {
    grids: HashMap<&'a str, Grid>,
    constants: HashMap<&'a str, &'a TensorProto>,
    /// Constants that are stored as integers instead.
    replaced: HashSet<String>,
    graph: GraphProto,
}

impl<'a> Quantizer<'a> {
    fn node(&mut self, node: &'a NodeProto) {
        let mut node = node.clone();
        if let ("Conv" | "Gemm", [input, weight, bias]) = (node.op_type.as_str(), node.input.as_slice())
            && let Some(grid) = self.grids.get(input.as_str()).copied()
        {
            self.layer(weight, bias, grid);
        }
        for input in &mut node.input {
            if self.grids.contains_key(input.as_str()) || self.replaced.contains(input) {
                *input = dequantized(input);
            }
        }
        let output = node.result().to_owned();
        self.graph.node.push(node);
        if let Some(grid) = self.grids.get(output.as_str()).copied() {
            self.round_trip(&output, grid);
        }
    }

    /// QuantizeLinear and DequantizeLinear after the tensor `name`.
    fn round_trip(&mut self, name: &str, grid: Grid) {
        let [scale, zero, codes] = ["scale", "zero", "quantized"].map(|part| format!("{name}.{part}"));
        self.graph.initializer.push(TensorProto::floats(&scale, &[], &[grid.scale]));
        self.graph.initializer.push(TensorProto::uint8(&zero, &[], &[grid.zero]));
        self.graph.node.push(NodeProto::new("QuantizeLinear", &[name, &scale, &zero], &codes));
        self.graph.node.push(NodeProto::new("DequantizeLinear", &[&codes, &scale, &zero], &dequantized(name)));
    }

    /// The weight (out, ...) and the bias (out) of a layer whose input is on `grid`, as integers.
    fn layer(&mut self, weight_name: &str, bias_name: &str, grid: Grid) {
        let find = |name: &str| self.constants.get(name).copied();
        let (Some(weight), Some(bias)) = (find(weight_name), find(bias_name)) else { return };
        let layer = IntegerLayer::new(weight, bias, grid);
        let codes: Vec<u8> = layer.weights.iter().map(|code| code.cast_unsigned().wrapping_add(WEIGHT_ZERO)).collect();
        let weights = |name: &str| TensorProto::uint8(name, &weight.shape(), &codes);
        self.store(weight_name, weights, &layer.scales, Some(WEIGHT_ZERO));
        self.store(bias_name, |name| TensorProto::int32(name, &bias.shape(), &layer.biases), &layer.bias_scales, None);
    }

    /// Codes, scales and, if given, the zero point of a constant, and the DequantizeLinear that gives it back.
    fn store(&mut self, name: &str, codes: impl Fn(&str) -> TensorProto, scales: &[f32], zero_point: Option<u8>) {
        let [quantized, scale, zero] = ["quantized", "scale", "zero"].map(|part| format!("{name}.{part}"));
        let mut inputs = vec![quantized.as_str(), &scale];
        self.graph.initializer.push(codes(&quantized));
        self.graph.initializer.push(TensorProto::floats(&scale, &[scales.len()], scales));
        if let Some(zero_point) = zero_point {
            self.graph.initializer.push(TensorProto::uint8(&zero, &[scales.len()], &vec![zero_point; scales.len()]));
            inputs.push(&zero);
        }
        let node = NodeProto::new("DequantizeLinear", &inputs, &dequantized(name)).with_int("axis", 0);
        self.graph.node.push(node);
        self.replaced.insert(name.to_owned());
    }
}

/// A layer's numbers as integers.
#[derive(Debug, PartialEq)]
struct IntegerLayer {
    weights: Vec<i8>,
    scales: Vec<f32>,
    biases: Vec<i32>,
    bias_scales: Vec<f32>,
}

impl IntegerLayer {
    /// Rounds each row by its own scale, the smallest that holds both its largest weight and its bias.
    fn new(weight: &TensorProto, bias: &TensorProto, grid: Grid) -> Self {
        let num_rows = weight.shape().first().copied().unwrap_or(0);
        let row_len = weight.num_elements() / num_rows.max(1);
        // Composed from shapes alone, both are empty, and so are the rows.
        let (weights, biases) = (weight.values(), bias.values());
        let mut layer = Self { weights: Vec::new(), scales: Vec::new(), biases: Vec::new(), bias_scales: Vec::new() };
        for row in 0..num_rows {
            let values = weights.get(row * row_len..(row + 1) * row_len).unwrap_or_default();
            let bias = biases.get(row).copied().unwrap_or(0.0);
            let largest = values.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
            // The product of both scales must be a number, too.
            let least = f64::from(f32::MIN_POSITIVE).max(f64::from(f32::MIN_POSITIVE) / f64::from(grid.scale));
            let for_bias = bias.abs() / (MAX_BIAS_CODE * f64::from(grid.scale));
            let needed = (largest / f64::from(MAX_CODE)).max(for_bias).max(least) as f32;
            // A row of zeros may have any scale.
            let scale = if largest == 0.0 && bias == 0.0 { 1.0 } else { needed };
            let bias_scale = grid.scale * scale;
            let code = |value: f64| (value / f64::from(scale)).round_ties_even();
            layer.weights.extend(values.iter().map(|&value| code(value).clamp(-127.0, 127.0) as i8));
            layer.scales.push(scale);
            // `as` keeps within 32 bits.
            if !biases.is_empty() {
                layer.biases.push((bias / f64::from(bias_scale)).round_ties_even() as i32);
            }
            layer.bias_scales.push(bias_scale);
        }
        layer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_have_scales_of_their_own_and_biases_add_as_they_are() {
        let weight = TensorProto::floats("w", &[3, 2], &[1.27, -0.5, 0.0, 0.0, -254.0, 2.0]);
        let bias = TensorProto::floats("b", &[3], &[0.3, -5.0, 0.0]);
        let layer = IntegerLayer::new(&weight, &bias, Grid { scale: 0.5, zero: 3 });
        assert_eq!(layer.weights, [127, -50, 0, 0, -127, 1]);
        assert_eq!((layer.scales[0], layer.scales[2]), (0.01, 2.0));
        assert_eq!((layer.biases[0], layer.biases[2]), (60, 0));
        // A row without weights keeps its bias.
        let kept = f64::from(layer.biases[1]) * f64::from(layer.bias_scales[1]);
        assert!((kept + 5.0).abs() < 1e-6, "{kept}");
    }

    proptest! {
        /// Each weight is within half a step, and each bias within half of its own, however different their sizes.
        #[test]
        fn integers_are_near(
            weights in prop::collection::vec(-1e3_f32..1e3, 8),
            shrink in prop::collection::vec(0_i32..24, 2),
            biases in prop::collection::vec(-1e4_f32..1e4, 2),
            scale in 1e-6_f32..10.0,
        ) {
            let weights: Vec<f32> = weights.iter().zip(0..).map(|(w, i)| w * 0.5_f32.powi(shrink[i / 4])).collect();
            let weight = TensorProto::floats("w", &[2, 4], &weights);
            let bias = TensorProto::floats("b", &[2], &biases);
            let layer = IntegerLayer::new(&weight, &bias, Grid { scale, zero: 0 });
            for (i, (&weight, &code)) in weights.iter().zip(&layer.weights).enumerate() {
                let step = f64::from(layer.scales[i / 4]);
                prop_assert!((f64::from(code) * step - f64::from(weight)).abs() <= step * 0.5001);
            }
            for (i, (&bias, &code)) in biases.iter().zip(&layer.biases).enumerate() {
                let step = f64::from(layer.bias_scales[i]);
                prop_assert!((f64::from(code) * step - f64::from(bias)).abs() <= step * 0.5001 + f64::from(bias.abs()) * 1e-6);
            }
        }
    }
}
