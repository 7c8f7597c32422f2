//! All weights of a package.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::activations::Activations;
use super::matrix::Matrix;
use super::safetensors_file;
use super::tensor::{Format, Tensor, floats};
use crate::EdgeError;
use crate::bytes::Bytes;
use crate::gguf::{GgufFile, TensorType, hugging_face_name};

/// What each pair's rotary frequency is divided by, where llama.cpp's converter has written it.
pub(crate) const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// How a float matrix lies in a checkpoint. Quantized ones are always output-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// (out, in…), as `Linear` and convolutions.
    OutputMajor,
    /// (in, out), as the `Conv1D` of GPT-2.
    InputMajor,
}

/// Tensors by Hugging Face name, each checked to lie within its file.
#[derive(Debug)]
pub(crate) struct Weights {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    is_gguf: bool,
    activations: Activations,
}

impl Weights {
    /// Reads the safetensors file at `first`, and the other shards of the same model.
    ///
    /// Errors: [`EdgeError::Format`] for a tensor in two of them; those of a single file.
    pub(crate) fn open_safetensors(first: &Path, others: &[PathBuf]) -> Result<Self, EdgeError> {
        let mut weights = Self::from_safetensors(&Bytes::map(first)?, first)?;
        for path in others {
            for (name, tensor) in Self::from_safetensors(&Bytes::map(path)?, path)?.tensors {
                if weights.tensors.contains_key(&name) {
                    return Err(EdgeError::format(path, "every tensor in one file", format!("{name:?} in two")));
                }
                weights.tensors.insert(name, tensor);
            }
        }
        Ok(weights)
    }

    pub(crate) fn from_safetensors(bytes: &Bytes, path: &Path) -> Result<Self, EdgeError> {
        let tensors = safetensors_file::read(bytes, path)?;
        Ok(Self { path: path.to_owned(), tensors, is_gguf: false, activations: Activations::default() })
    }

    /// Reads the GGUF file at `path`, which must hold one of `architectures`.
    pub(crate) fn open_gguf(path: &Path, architectures: &[&str]) -> Result<Self, EdgeError> {
        let file = GgufFile::open(path)?;
        let found = file.metadata().get("general.architecture").and_then(|value| value.as_str());
        let Some(architecture) = architectures.iter().find(|architecture| found == Some(architecture)) else {
            let names: Vec<String> = architectures.iter().map(|name| format!("{name:?}")).collect();
            let expected = format!("general.architecture {}, as config.json says", names.join(" or "));
            let found = found.map_or_else(|| "none".to_owned(), |found| format!("{found:?}"));
            return Err(EdgeError::format(path, expected, found));
        };
        Self::from_gguf(&file, path, architecture)
    }

    /// The weights in `file`, which holds `architecture`.
    pub(crate) fn from_gguf(file: &GgufFile, path: &Path, architecture: &str) -> Result<Self, EdgeError> {
        let mut tensors = BTreeMap::new();
        for (name, info) in file.tensors() {
            // What llama.cpp's converter adds for Llama 3 has no name in transformers.
            let other_name =
                (name == ROPE_DIVISORS).then(|| name.clone()).or_else(|| hugging_face_name(architecture, name));
            let Some((name, bytes)) = other_name.zip(file.shared_data(name)) else {
                continue;
            };
            let format = match info.kind {
                TensorType::F32 => Format::F32,
                TensorType::F16 => Format::F16,
                TensorType::Bf16 => Format::Bf16,
                TensorType::Q8_0 => Format::Q8_0,
                TensorType::Q4_0 => Format::Q4_0,
                TensorType::Q3K => Format::Q3K,
                TensorType::Q4K => Format::Q4K,
                TensorType::Tq1_0 => Format::Tq1_0,
                TensorType::Tq2_0 => Format::Tq2_0,
            };
            tensors.insert(name, Tensor { format, shape: info.shape.clone(), bytes, scales: Vec::new() });
        }
        Ok(Self { path: path.to_owned(), tensors, is_gguf: true, activations: Activations::default() })
    }

    /// The same weights; integer matrices made from now on multiply with these.
    pub(crate) fn with_activations(self, activations: Activations) -> Self {
        Self { activations, ..self }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// True when the weights came from GGUF: everything output-major, and llama.cpp's order of query and key rows.
    pub(crate) fn is_gguf(&self) -> bool {
        self.is_gguf
    }

    /// Bytes of all tensors by format, scales included.
    pub(crate) fn bytes_by_format(&self) -> Vec<(&'static str, u64)> {
        let mut sums = BTreeMap::new();
        for tensor in self.tensors.values() {
            *sums.entry(tensor.format).or_default() += (tensor.bytes.len() + tensor.scales.len() * 4) as u64;
        }
        sums.into_iter().map(|(format, bytes): (Format, u64)| (format.label(), bytes)).collect()
    }

    /// Hands out names, shapes and evenly spaced samples of all tensors: enough to tell models apart, without reading them
    /// whole.
    pub(crate) fn sample(&self, take: &mut dyn FnMut(&[u8])) {
        const SAMPLES: usize = 32;
        const SAMPLE_BYTES: usize = 64;
        take(format!("{:?}", self.activations).as_bytes());
        for (name, tensor) in &self.tensors {
            let (bytes, scales): (&[u8], &[u8]) = (&tensor.bytes, bytemuck::cast_slice(&tensor.scales));
            take(format!("{name} {} {:?} {} ", tensor.format.label(), tensor.shape, bytes.len()).as_bytes());
            for part in [bytes, scales] {
                for number in 0..SAMPLES {
                    let start = part.len() / SAMPLES * number;
                    take(part.get(start..(start + SAMPLE_BYTES).min(part.len())).unwrap_or_default());
                }
                take(part.get(part.len().saturating_sub(SAMPLE_BYTES)..).unwrap_or_default());
            }
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Matrix `name` with `rows` outputs; `input` is the shape of one row ([in], or [in, height, width] for a
    /// convolution).
    ///
    /// Errors: [`EdgeError::MissingTensor`]; [`EdgeError::Tensor`] for another shape or unusable content.
    pub(crate) fn matrix(&self, name: &str, rows: usize, input: &[usize], layout: Layout) -> Result<Matrix, EdgeError> {
        let tensor = self.tensor(name)?;
        let is_transposed = layout == Layout::InputMajor && tensor.format.is_float() && !self.is_gguf;
        let mut expected = vec![rows];
        expected.extend_from_slice(input);
        if is_transposed {
            expected.reverse();
        }
        self.check_shape(name, tensor, &expected)?;
        let cols = input.iter().fold(1_usize, |product, &dim| product.saturating_mul(dim));
        let matrix = if is_transposed {
            Matrix::from_tensor(&transposed(tensor, rows, cols), rows, cols, self.activations)
        } else {
            Matrix::from_tensor(tensor, rows, cols, self.activations)
        };
        matrix.map_err(|(expected, found)| self.refuse(name, expected, found))
    }

    /// Float vector `name` of `len` numbers.
    ///
    /// Errors: [`EdgeError::MissingTensor`]; [`EdgeError::Tensor`] for another shape, a quantized tensor, or numbers
    /// that are not finite.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EdgeError> {
        let tensor = self.tensor(name)?;
        self.check_shape(name, tensor, &[len])?;
        if !tensor.format.is_float() {
            return Err(self.refuse(name, "a float vector".to_owned(), tensor.format.label().to_owned()));
        }
        let numbers = floats(tensor.format, &tensor.bytes);
        match numbers.iter().find(|number| !number.is_finite()) {
            Some(bad) => Err(self.refuse(name, "finite numbers".to_owned(), bad.to_string())),
            None => Ok(numbers),
        }
    }

    fn tensor(&self, name: &str) -> Result<&Tensor, EdgeError> {
        let missing = || EdgeError::MissingTensor { name: name.to_owned(), path: self.path.clone() };
        self.tensors.get(name).ok_or_else(missing)
    }

    fn check_shape(&self, name: &str, tensor: &Tensor, expected: &[usize]) -> Result<(), EdgeError> {
        if tensor.shape == expected {
            return Ok(());
        }
        Err(self.refuse(name, format!("shape {expected:?}"), format!("shape {:?}", tensor.shape)))
    }

    fn refuse(&self, name: &str, expected: String, found: String) -> EdgeError {
        EdgeError::Tensor { name: name.to_owned(), expected, found, path: self.path.clone() }
    }
}

/// A float tensor of shape (cols, rows) as (rows, cols): a copy, so that rows can be read in one piece.
fn transposed(tensor: &Tensor, rows: usize, cols: usize) -> Tensor {
    let size = if tensor.format == Format::F32 { 4 } else { 2 };
    let mut bytes = vec![0_u8; tensor.bytes.len()];
    for (col, line) in tensor.bytes.chunks_exact(rows.saturating_mul(size).max(1)).enumerate() {
        for (row, number) in line.chunks_exact(size).enumerate() {
            let at = (row * cols + col) * size;
            if let Some(target) = bytes.get_mut(at..at + size) {
                target.copy_from_slice(number);
            }
        }
    }
    Tensor { format: tensor.format, shape: vec![rows, cols], bytes: bytes.into(), scales: Vec::new() }
}
