//! Computes a graph of the operations that we write, as the standard defines them, in floats: to calibrate, to measure
//! what a file is worth, and to check it. Integer kernels of other runtimes give the same sums without rounding.

use std::collections::HashMap;

use candle_core::{Device, Tensor, bail};
use rayon::prelude::*;

use super::compose::{INPUT, OUTPUT};
use super::proto::{GraphProto, NodeProto, TensorProto};
use crate::export::ExportError;
use crate::models::ops::conv2d::Conv2dConfig;
use crate::models::ops::{self, Epilogue};

/// A graph whose constants are tensors.
#[derive(Debug)]
pub struct Evaluator<'a> {
    constants: HashMap<&'a str, Tensor>,
    /// Nodes that depend on the input, in order.
    nodes: Vec<&'a NodeProto>,
}

impl<'a> Evaluator<'a> {
    /// Reads the constants of `graph`, and gives back what integers stand for.
    /// Errors: [`ExportError::Tensor`] for shapes that do not fit.
    pub(super) fn new(graph: &'a GraphProto) -> Result<Self, ExportError> {
        let stored = graph.constants();
        let mut constants = HashMap::new();
        let mut nodes = Vec::new();
        for node in &graph.node {
            let inputs: Vec<&TensorProto> =
                node.input.iter().filter_map(|name| stored.get(name.as_str()).copied()).collect();
            if node.op_type == "DequantizeLinear" && inputs.len() == node.input.len() {
                constants.insert(node.result(), dequantized_constant(&inputs)?);
            } else {
                nodes.push(node);
            }
        }
        for (name, tensor) in stored {
            constants.insert(name, tensor_of(tensor, tensor.values().into_iter().map(|value| value as f32).collect())?);
        }
        Ok(Self { constants, nodes })
    }

    /// Logits (n, classes) of `images` (n, channels, height, width), 0 to 1.
    ///
    /// Errors: [`ExportError::Tensor`] for images of another shape.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor, ExportError> {
        self.run(images, |_, _| Ok(()))
    }

    /// [`Self::logits`] with each tensor between two operations shown to `look`, by name.
    pub(super) fn run(
        &self,
        images: &Tensor,
        mut look: impl FnMut(&str, &Tensor) -> Result<(), ExportError>,
    ) -> Result<Tensor, ExportError> {
        let mut values = HashMap::from([(INPUT, images.clone())]);
        for node in &self.nodes {
            let find = |name: &String| {
                let found = values.get(name.as_str()).or_else(|| self.constants.get(name.as_str()));
                found.cloned().ok_or_else(|| graph_error(format!("{} reads {name:?}, which nothing gives", node.name)))
            };
            let inputs = node.input.iter().map(find).collect::<Result<Vec<_>, _>>()?;
            let output = apply(node, &inputs)?;
            look(node.result(), &output)?;
            values.insert(node.result(), output);
        }
        values.remove(OUTPUT).ok_or_else(|| graph_error(format!("nothing gives {OUTPUT:?}")))
    }

    /// The constant called `name`, as floats.
    pub(super) fn constant(&self, name: &str) -> Option<&Tensor> {
        self.constants.get(name)
    }
}

fn graph_error(what: String) -> ExportError {
    ExportError::Runtime { tried: "computing an ONNX graph", what }
}

fn tensor_of(tensor: &TensorProto, values: Vec<f32>) -> Result<Tensor, ExportError> {
    Ok(Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?)
}

/// Codes times the scale of their row: (codes, scales, zero points), of which the last are zeros or absent.
fn dequantized_constant(inputs: &[&TensorProto]) -> Result<Tensor, ExportError> {
    let (Some(codes), Some(scales)) = (inputs.first(), inputs.get(1)) else {
        return Err(graph_error("DequantizeLinear without codes or scales".to_owned()));
    };
    let scales = scales.values();
    let zeros = inputs.get(2).map_or_else(|| vec![0.0; scales.len()], |zeros| zeros.values());
    let row_len = (codes.num_elements() / scales.len().max(1)).max(1);
    let values = codes.values();
    let rows = values.chunks(row_len).zip(scales.iter().zip(zeros));
    let dequantized = rows.flat_map(|(row, (scale, zero))| row.iter().map(move |code| ((code - zero) * scale) as f32));
    tensor_of(codes, dequantized.collect())
}

fn apply(node: &NodeProto, inputs: &[Tensor]) -> Result<Tensor, ExportError> {
    Ok(match (node.op_type.as_str(), inputs) {
        ("Add", [a, b]) => a.broadcast_add(b)?,
        ("Sub", [a, b]) => a.broadcast_sub(b)?,
        ("Mul", [a, b]) => a.broadcast_mul(b)?,
        ("Div", [a, b]) => a.broadcast_div(b)?,
        ("Relu", [x]) => x.relu()?,
        ("Tanh", [x]) => x.tanh()?,
        ("Flatten", [x]) => x.flatten_from(1)?,
        ("Gemm", [x, weight, bias]) => x.matmul(&weight.t()?)?.broadcast_add(bias)?,
        ("Conv", [x, weight, bias]) => {
            let config = Conv2dConfig {
                stride: first_of(node, "strides")?,
                padding: first_of(node, "pads")?,
                epilogue: Epilogue::Identity,
            };
            ops::conv2d(x, weight, Some(bias), config)?
        }
        ("MaxPool", [x]) => ops::max_pool2d(x)?,
        ("GlobalAveragePool", [x]) => ops::global_avg_pool(x)?.unsqueeze(2)?.unsqueeze(3)?,
        ("QuantizeLinear", [x, scale, zero]) => {
            let (scale, zero) = (scalar(scale)?, scalar(zero)?);
            mapped(x, |x| ((x / scale).round_ties_even() + zero).clamp(0.0, 255.0))?
        }
        ("DequantizeLinear", [codes, scale, zero]) => {
            let (scale, zero) = (scalar(scale)?, scalar(zero)?);
            mapped(codes, |code| (code - zero) * scale)?
        }
        (op, inputs) => return Err(graph_error(format!("{op} of {} inputs is none of what we write", inputs.len()))),
    })
}

fn first_of(node: &NodeProto, attribute: &str) -> Result<usize, ExportError> {
    let first = node.ints(attribute).first().and_then(|&value| usize::try_from(value).ok());
    first.ok_or_else(|| graph_error(format!("{} has no {attribute}", node.name)))
}

fn scalar(tensor: &Tensor) -> candle_core::Result<f32> {
    match tensor.flatten_all()?.to_vec1::<f32>()?.as_slice() {
        [value] => Ok(*value),
        several => bail!("expected one scale, found {}", several.len()),
    }
}

fn mapped(x: &Tensor, f: impl Fn(f32) -> f32 + Sync + Send) -> candle_core::Result<Tensor> {
    let mut values = x.flatten_all()?.to_vec1::<f32>()?;
    values.par_chunks_mut(1 << 14).for_each(|chunk| chunk.iter_mut().for_each(|value| *value = f(*value)));
    Tensor::from_vec(values, x.shape(), &Device::Cpu)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Ties go to even codes, and what is outside stays at the ends.
    #[test]
    fn rounding_is_the_standards() {
        let x = Tensor::new(&[-9.0_f32, -0.25, 0.25, 0.75, 1.25, 200.0], &Device::Cpu).unwrap();
        let constant = |value: f32| Tensor::new(value, &Device::Cpu).unwrap();
        let node = |op: &str| NodeProto::new(op, &["x", "scale", "zero"], "y");
        let codes = apply(&node("QuantizeLinear"), &[x, constant(0.5), constant(4.0)]).unwrap();
        assert_eq!(codes.to_vec1::<f32>().unwrap(), [0.0, 4.0, 4.0, 6.0, 6.0, 255.0]);
        let back = apply(&node("DequantizeLinear"), &[codes, constant(0.5), constant(4.0)]).unwrap();
        assert_eq!(back.to_vec1::<f32>().unwrap(), [-2.0, 0.0, 0.0, 1.0, 1.0, 125.5]);
    }

    #[test]
    fn rows_of_a_constant_have_their_own_scales() {
        let codes = TensorProto::uint8("w", &[2, 2], &[11, 8, 23, 24]);
        let (scales, zeros) = (TensorProto::floats("s", &[2], &[0.5, 2.0]), TensorProto::uint8("z", &[2], &[10, 20]));
        let rows = |inputs: &[&TensorProto]| dequantized_constant(inputs).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows(&[&codes, &scales, &zeros]), [[0.5, -1.0], [6.0, 8.0]]);
        assert_eq!(rows(&[&codes, &scales]), [[5.5, 4.0], [46.0, 48.0]]);
    }

    #[test]
    fn an_operation_that_we_do_not_write_is_refused() {
        let graph = GraphProto { node: vec![NodeProto::new("Softmax", &[INPUT], OUTPUT)], ..GraphProto::default() };
        let images = Tensor::new(&[[1_f32]], &Device::Cpu).unwrap();
        let error = Evaluator::new(&graph).unwrap().logits(&images).unwrap_err().to_string();
        assert!(error.contains("Softmax"), "{error}");
        let empty = GraphProto::default();
        assert!(Evaluator::new(&empty).unwrap().logits(&images).unwrap_err().to_string().contains(OUTPUT));
    }
}
