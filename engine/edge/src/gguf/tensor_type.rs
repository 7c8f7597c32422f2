//! The tensor types that we read and write.

use foretrain_ternary::{BLOCK_LEN, Packing, TernaryError};
use half::{bf16, f16};

use super::{
    Q3_K_BLOCK_BYTES, Q3_K_BLOCK_LEN, Q4_0_BLOCK_BYTES, Q4_0_BLOCK_LEN, Q4_K_BLOCK_BYTES, Q4_K_BLOCK_LEN,
    Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN, decode_q3_k, decode_q4_0, decode_q4_k, decode_q8_0,
};

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Blocks of 32: f16 scale, then 32 signed bytes.
    Q8_0,
    /// Blocks of 32: f16 scale, then 4-bit codes.
    Q4_0,
    /// Blocks of 256: 3-bit codes, then scales of 16 groups.
    Q3K,
    /// Blocks of 256: scales and minimums of 8 groups, then 4-bit codes.
    Q4K,
    /// Blocks of 256 trits: 52 bytes of base-3 digits, then f16 scale.
    Tq1_0,
    /// Blocks of 256 trits: 64 bytes of 2-bit codes, then f16 scale.
    Tq2_0,
}

impl TensorType {
    /// All types.
    pub const ALL: [Self; 9] =
        [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4K, Self::Q3K, Self::Tq1_0, Self::Tq2_0];

    /// The number that stands for this type in a file (`ggml_type`).
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 8,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Bf16 => 30,
            Self::Tq1_0 => 34,
            Self::Tq2_0 => 35,
        }
    }

    /// The type that `code` stands for, if it is one of ours.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// llama.cpp's name of this type.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Tq1_0 => "TQ1_0",
            Self::Tq2_0 => "TQ2_0",
        }
    }

    /// Numbers per block; a row (the innermost dimension) must be a multiple of it.
    #[must_use]
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 => Q8_0_BLOCK_LEN,
            Self::Q4_0 => Q4_0_BLOCK_LEN,
            Self::Q3K => Q3_K_BLOCK_LEN,
            Self::Q4K => Q4_K_BLOCK_LEN,
            Self::Tq1_0 | Self::Tq2_0 => BLOCK_LEN,
        }
    }

    /// Bytes per block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => Q8_0_BLOCK_BYTES,
            Self::Q4_0 => Q4_0_BLOCK_BYTES,
            Self::Q3K => Q3_K_BLOCK_BYTES,
            Self::Q4K => Q4_K_BLOCK_BYTES,
            Self::Tq1_0 => Packing::Tq1_0.block_bytes(),
            Self::Tq2_0 => Packing::Tq2_0.block_bytes(),
        }
    }

    /// The numbers of stored `bytes`; those beyond the last whole block are ignored.
    ///
    /// Errors: [`TernaryError::Code`] for bits that are no trit.
    pub fn decode(self, bytes: &[u8]) -> Result<Vec<f32>, TernaryError> {
        let halves = bytes.as_chunks::<2>().0;
        Ok(match self {
            Self::F32 => bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Self::F16 => halves.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Self::Bf16 => halves.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            Self::Q8_0 => decode_q8_0(bytes),
            Self::Q4_0 => decode_q4_0(bytes),
            Self::Q3K => decode_q3_k(bytes),
            Self::Q4K => decode_q4_k(bytes),
            Self::Tq1_0 => decode_trits(Packing::Tq1_0, bytes)?,
            Self::Tq2_0 => decode_trits(Packing::Tq2_0, bytes)?,
        })
    }

    /// Bytes of a tensor of `shape` (row-major, outermost first); `None` when a row is no multiple of the block or
    /// the size overflows.
    #[must_use]
    pub fn byte_len(self, shape: &[usize]) -> Option<usize> {
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(self.block_len()) {
            return None;
        }
        let len = shape.iter().try_fold(1_usize, |len, &dim| len.checked_mul(dim))?;
        (len / self.block_len()).checked_mul(self.block_bytes())
    }
}

fn decode_trits(packing: Packing, bytes: &[u8]) -> Result<Vec<f32>, TernaryError> {
    let num_blocks = bytes.len() / packing.block_bytes();
    let whole = bytes.get(..num_blocks * packing.block_bytes()).unwrap_or_default();
    let unpacked = packing.unpack(whole, num_blocks * BLOCK_LEN)?;
    let blocks = unpacked.trits.chunks_exact(BLOCK_LEN).zip(unpacked.block_scales);
    Ok(blocks.flat_map(|(trits, scale)| trits.iter().map(move |&trit| f32::from(trit) * scale)).collect())
}
