//! A tensor as it lies in a file.

use foretrain_ternary::Packing;
use half::{bf16, f16};

use crate::bytes::Bytes;
use crate::gguf::{
    Q3_K_BLOCK_BYTES, Q3_K_BLOCK_LEN, Q4_0_BLOCK_BYTES, Q4_0_BLOCK_LEN, Q4_K_BLOCK_BYTES, Q4_K_BLOCK_LEN,
    Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN,
};

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
    /// Blocks of 32 4-bit codes with their scales; each row starts a block.
    Q4_0,
    /// Blocks of 256 3-bit codes with scales.
    Q3K,
    /// Blocks of 256 4-bit codes with scales and minimums.
    Q4K,
    /// Blocks of 256 trits with their scales, five to a byte.
    Tq1_0,
    /// Blocks of 256 trits with their scales, four to a byte.
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
            Self::Q4_0 => "Q4_0",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Tq1_0 => "TQ1_0",
            Self::Tq2_0 => "TQ2_0",
        }
    }

    /// Bytes of `rows` rows of `cols` weights, scales within blocks included; `None` when rows fill no whole blocks of a
    /// format that needs them to, or the size overflows. Ternary blocks run over the flattened tensor.
    pub(crate) fn num_bytes(self, rows: usize, cols: usize) -> Option<usize> {
        let len = rows.checked_mul(cols)?;
        let whole = |block_len, block_bytes| {
            if cols.is_multiple_of(block_len) { (len / block_len).checked_mul(block_bytes) } else { None }
        };
        match self {
            Self::F32 => len.checked_mul(4),
            Self::F16 | Self::Bf16 => len.checked_mul(2),
            Self::Int8 => Some(len),
            Self::Q8_0 => whole(Q8_0_BLOCK_LEN, Q8_0_BLOCK_BYTES),
            Self::Q4_0 => rows.checked_mul(cols.div_ceil(Q4_0_BLOCK_LEN))?.checked_mul(Q4_0_BLOCK_BYTES),
            Self::Q3K => whole(Q3_K_BLOCK_LEN, Q3_K_BLOCK_BYTES),
            Self::Q4K => whole(Q4_K_BLOCK_LEN, Q4_K_BLOCK_BYTES),
            Self::Tq1_0 => Packing::Tq1_0.packed_len(len),
            Self::Tq2_0 => Packing::Tq2_0.packed_len(len),
        }
    }

    pub(crate) fn is_float(self) -> bool {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => true,
            Self::Int8 | Self::Q8_0 | Self::Q4_0 | Self::Q3K | Self::Q4K | Self::Tq1_0 | Self::Tq2_0 => false,
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
        Format::Int8 | Format::Q8_0 | Format::Q4_0 | Format::Q3K | Format::Q4K | Format::Tq1_0 | Format::Tq2_0 => {
            Vec::new()
        }
    }
}
