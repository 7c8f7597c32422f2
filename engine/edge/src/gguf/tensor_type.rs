//! The tensor types that we read and write.

use foretrain_ternary::{BLOCK_BYTES, BLOCK_LEN};

use super::{Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN};

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
    /// Blocks of 256 trits: 64 bytes of 2-bit codes, then f16 scale.
    Tq2_0,
}

impl TensorType {
    /// All types.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Tq2_0];

    /// The number that stands for this type in a file (`ggml_type`).
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::Bf16 => 30,
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
            Self::Tq2_0 => "TQ2_0",
        }
    }

    /// Numbers per block; a row (the innermost dimension) must be a multiple of it.
    #[must_use]
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 => Q8_0_BLOCK_LEN,
            Self::Tq2_0 => BLOCK_LEN,
        }
    }

    /// Bytes per block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => Q8_0_BLOCK_BYTES,
            Self::Tq2_0 => BLOCK_BYTES,
        }
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
