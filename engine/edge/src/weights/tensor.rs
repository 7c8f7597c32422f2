//! A tensor as it lies in a file.

use half::{bf16, f16};

use crate::bytes::Bytes;

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Format {
    F32,
    F16,
    Bf16,
    /// Signed bytes, one f32 scale per row in a second tensor.
    Int8,
    /// Blocks of 32 with their scales.
    Q8_0,
    /// Blocks of 256 trits with their scales.
    Tq2_0,
}

impl Format {
    /// The name to show.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Int8 => "INT8",
            Self::Q8_0 => "Q8_0",
            Self::Tq2_0 => "TQ2_0",
        }
    }

    pub(crate) fn is_float(self) -> bool {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => true,
            Self::Int8 | Self::Q8_0 | Self::Tq2_0 => false,
        }
    }
}

/// A tensor: stored bytes with their meaning.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) format: Format,
    /// Logical shape, row-major. Quantized tensors are output-major.
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Bytes,
    /// One per row, for [`Format::Int8`] only.
    pub(crate) scales: Vec<f32>,
}

/// Numbers of float bytes in `format`; empty for formats that are not floats.
pub(crate) fn floats(format: Format, bytes: &[u8]) -> Vec<f32> {
    let halves = bytes.as_chunks::<2>().0;
    match format {
        Format::F32 => bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Format::F16 => halves.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        Format::Bf16 => halves.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        Format::Int8 | Format::Q8_0 | Format::Tq2_0 => Vec::new(),
    }
}
