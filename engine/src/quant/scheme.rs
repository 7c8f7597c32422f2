//! Which quantization.

use serde::{Deserialize, Serialize};

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QuantScheme {
    /// 32-bit floats, as trained.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit integers with a scale per output row.
    Int8,
    /// Ternary {-1, 0, 1} by the mean magnitude, 2 bits packed (TQ2_0 blocks), scale per tensor.
    Ternary,
}

impl QuantScheme {
    /// All schemes, most precise first.
    pub const ALL: [Self; 5] = [Self::F32, Self::Bf16, Self::F16, Self::Int8, Self::Ternary];

    /// The name to show and to type.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Ternary => "ternary",
        }
    }

    /// The scheme called `label`.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| scheme.label() == label)
    }
}
