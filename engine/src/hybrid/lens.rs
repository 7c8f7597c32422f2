//! How passes read the weights that the optimizer moves: as they are, or quantized as strongly as the step asks for.

use std::borrow::Cow;

use super::HybridError;
use crate::models::ParamStore;
use crate::quant::FakeQuantizer;

/// What stands between the trained weights and a forward pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lens<'a> {
    /// `None` without quantization-aware training.
    pub quantizer: Option<&'a FakeQuantizer>,
    /// Strength of the quantization, 0 to 1.
    pub strength: f64,
}

impl Lens<'_> {
    /// The weights that a forward pass computes with: `store` itself while nothing is quantized. A gradient with respect
    /// to them belongs to `store`'s weights of the same names.
    pub(super) fn read<'s>(&self, store: &'s ParamStore) -> Result<Cow<'s, ParamStore>, HybridError> {
        match self.quantizer.filter(|_| self.strength > 0.0) {
            Some(quantizer) => Ok(Cow::Owned(quantizer.view(store, self.strength)?)),
            None => Ok(Cow::Borrowed(store)),
        }
    }
}
