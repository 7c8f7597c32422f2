//! In what numbers the matrix products of training are computed.

use candle_core::DType;

use super::{bf16, panels};

/// What an error about a missing kernel says.
pub(super) const MISSING: &str = "bf16 products need a processor with AMX-BF16 (Intel Xeon since Sapphire Rapids; on Linux, \
    which must allow it) or AVX-512 BF16 (AMD since Zen 4), and this one offers neither. Train in f32";

/// The same about fp16.
pub(super) const NO_F16: &str = "fp16 products are computed on GPUs alone (`--device cuda:0`). Train in bf16 where the \
    processor has it, or in f32";

/// Precision of the factors of matrix products in forward and backward passes, and on a GPU of their results. Weights, sums
/// within a product, activations, norms, losses and the optimizer are f32 in any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Precision {
    /// f32, all of their bits.
    #[default]
    F32,
    /// Rounded to bf16, which has the range of f32 and 8 bits of precision: several times as fast where the processor
    /// multiplies such numbers.
    Bf16,
    /// Rounded to fp16, with three bits more and a range so small that losses are scaled up before their gradients are
    /// computed: on GPUs.
    F16,
}

impl Precision {
    /// All.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// True for f32.
    #[must_use]
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub fn is_full(&self) -> bool {
        *self == Self::F32
    }

    /// As on the command line.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "fp16",
        }
    }

    /// Bytes that a number of a factor takes while it is packed for the kernel; 0 where factors are read as they are.
    #[must_use]
    pub fn packed_bytes(self) -> u64 {
        match self {
            Self::F32 => bf16::exact().map_or_else(panels::packed_bytes, bf16::Kernel::packed_bytes),
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// Name of the kernel of bf16 parts that this machine multiplies with; none where f32 are multiplied as such.
    #[must_use]
    pub fn kernel(self) -> Option<&'static str> {
        match self {
            Self::F32 => bf16::exact().map(bf16::Kernel::name),
            Self::Bf16 => bf16::available().map(bf16::Kernel::name),
            Self::F16 => None,
        }
    }

    /// What f32 are rounded to; `None` for f32.
    pub(super) fn rounded(self) -> Option<DType> {
        match self {
            Self::F32 => None,
            Self::Bf16 => Some(DType::BF16),
            Self::F16 => Some(DType::F16),
        }
    }

    /// What this machine lacks to compute so on its processor; `None` when nothing.
    #[must_use]
    pub fn missing(self) -> Option<&'static str> {
        match self {
            Self::F32 => None,
            Self::Bf16 => bf16::available().is_none().then_some(MISSING),
            Self::F16 => Some(NO_F16),
        }
    }
}
