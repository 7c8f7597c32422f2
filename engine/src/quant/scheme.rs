//! Which quantization.

use serde::{Deserialize, Serialize};

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum QuantScheme {
    /// 32-bit floats, as trained.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit integers with a scale per output row.
    Int8,
    /// 4-bit integers in blocks of 32 with a scale each (Q4_0).
    Int4,
    /// 4-bit integers in blocks of 256, whose groups of 32 have a scale and a minimum (Q4_K).
    Int4K,
    /// Ternary {-1, 0, 1} by the mean magnitude, 2 bits packed (TQ2_0 blocks), scale per tensor.
    Ternary,
    /// The same numbers as [`Self::Ternary`], five to a byte (TQ1_0 blocks): smaller, repacked when foretrain-edge opens it.
    TernaryBase3,
}

impl QuantScheme {
    /// All schemes, most precise first.
    pub const ALL: [Self; 8] =
        [Self::F32, Self::Bf16, Self::F16, Self::Int8, Self::Int4K, Self::Int4, Self::Ternary, Self::TernaryBase3];

    /// The name to show and to type.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Int4K => "int4-k",
            Self::Ternary => "ternary",
            Self::TernaryBase3 => "ternary-base3",
        }
    }

    /// True for the float types.
    #[must_use]
    pub fn is_float(self) -> bool {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => true,
            Self::Int8 | Self::Int4 | Self::Int4K | Self::Ternary | Self::TernaryBase3 => false,
        }
    }

    /// The scheme called `label`.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| scheme.label() == label)
    }
}
