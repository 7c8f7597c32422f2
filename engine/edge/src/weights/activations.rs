//! What integer weights are multiplied with.

use crate::kernels::{self, Quantized};

/// What integer weights are multiplied with. Packages are run with [`Activations::Bytes`]; the others are for checking
/// one: they decode each row and multiply floats, slowly, so that a difference can be laid to its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activations {
    /// Inputs rounded to signed bytes, through the integer kernels.
    #[default]
    Bytes,
    /// The same rounded inputs as floats: equal to `Bytes` but for the order of sums, unless a kernel is wrong.
    RoundedFloats,
    /// Inputs as they are: what the stored weights mean.
    Floats,
}

impl Activations {
    /// `x` as the float forms multiply it.
    pub(super) fn floats(self, x: &[f32]) -> Vec<f32> {
        match self {
            Self::Floats => x.to_vec(),
            Self::Bytes | Self::RoundedFloats => {
                let rounded = Quantized::new(x, x.len(), kernels::active());
                // A scale of NaN says that the input was not finite.
                let scale = rounded.scales.first().copied().unwrap_or_default();
                rounded.row(0).iter().map(|&value| f32::from(value) * scale).collect()
            }
        }
    }
}
