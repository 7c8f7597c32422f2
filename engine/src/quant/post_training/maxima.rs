//! The largest magnitude of each input of each layer, over a calibration set.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor};

use crate::models::{InputObserver, LayerInput};

/// Gathers maxima of all layers during forward passes: by input of a matrix, by channel of a convolution.
#[derive(Debug, Default)]
pub(super) struct MaximaObserver(RefCell<BTreeMap<String, Vec<f32>>>);

impl MaximaObserver {
    /// By the weights' names.
    pub fn into_maxima(self) -> BTreeMap<String, Vec<f32>> {
        self.0.into_inner()
    }
}

impl InputObserver for MaximaObserver {
    fn observe(&self, weight: &str, input: LayerInput<'_>) -> Result<()> {
        let rows: Tensor = match input {
            LayerInput::Rows(x) => x.reshape(((), x.dim(candle_core::D::Minus1)?))?,
            LayerInput::Images { x, .. } => {
                let channels = x.dim(1)?;
                x.permute((0, 2, 3, 1))?.contiguous()?.reshape(((), channels))?
            }
        };
        let found = rows.detach().abs()?.max(0)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let mut maxima = self.0.borrow_mut();
        let known = maxima.entry(weight.to_owned()).or_insert_with(|| vec![0.0; found.len()]);
        known.iter_mut().zip(found).for_each(|(known, found)| *known = known.max(found));
        Ok(())
    }
}
