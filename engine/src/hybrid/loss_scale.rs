//! Dynamic loss scaling, for products in fp16.
//!
//! Most gradients of a network are below the smallest numbers of fp16, so that losses are multiplied before the backward
//! pass and gradients divided after it. A pass whose gradients left the range of fp16 is made again at half the scale, so
//! that no step is lost; after many that did not, the scale doubles.
//! Source: Micikevicius et al. 2018, arXiv 1710.03740, section 3.2; the numbers are those of PyTorch's `GradScaler`.

use std::cell::Cell;

use serde::{Deserialize, Serialize};

use super::HybridError;
use crate::optim::Gradients;

const FIRST: f32 = 65536.0;
/// Below it nothing is gained: what is not finite here is not finite in f32 either.
const LEAST: f32 = 1.0;
const MOST: f32 = 16_777_216.0;
/// Passes in a row with finite gradients, after which the scale doubles.
const GROWTH_INTERVAL: u32 = 2000;

/// What losses are multiplied by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LossScale {
    scale: Cell<f32>,
    num_finite: Cell<u32>,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { scale: Cell::new(FIRST), num_finite: Cell::new(0) }
    }
}

impl LossScale {
    /// The gradients that `pass` computes of a loss times the scale it is given, as they are without it; from as many
    /// passes as it takes until they are finite. `pass` also tells whether its loss was: where that was not, a smaller
    /// scale is of no use.
    pub(super) fn compute<S>(
        &self,
        mut pass: impl FnMut(f32) -> Result<(S, bool, Gradients), HybridError>,
    ) -> Result<(S, Gradients), HybridError> {
        loop {
            let scale = self.scale.get();
            let (seen, is_finite, mut gradients) = pass(scale)?;
            let fits = gradients.norm()?.is_finite();
            if fits || !is_finite || scale <= LEAST {
                self.note(fits);
                gradients.scale(1.0 / f64::from(scale))?;
                return Ok((seen, gradients));
            }
            self.scale.set(scale / 2.0);
            self.num_finite.set(0);
        }
    }

    fn note(&self, is_finite: bool) {
        let count = if is_finite { self.num_finite.get() + 1 } else { 0 };
        if count < GROWTH_INTERVAL {
            self.num_finite.set(count);
        } else {
            self.num_finite.set(0);
            self.scale.set((self.scale.get() * 2.0).min(MOST));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    /// A gradient of 0.5 by fp16, whose largest number is 65504, behind a factor.
    fn pass(factor: f32) -> impl FnMut(f32) -> Result<(f32, bool, Gradients), HybridError> {
        move |scale| {
            let number = half::f16::from_f32(0.5 * scale * factor).to_f32() / factor;
            let tensor = Tensor::new(&[number], &Device::Cpu).unwrap();
            Ok((scale, true, Gradients::from_tensors([("weight".to_owned(), tensor)]).unwrap()))
        }
    }

    fn number(gradients: &Gradients) -> f32 {
        gradients.iter().next().unwrap().1.to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn a_pass_that_overflows_is_made_again_at_half_the_scale() {
        let scale = LossScale::default();
        let (at, gradients) = scale.compute(pass(10.0)).unwrap();
        // 0.5 · 8192 · 10 is the first below 65504.
        assert_eq!((at, number(&gradients)), (8192.0, 0.5));
        assert_eq!(scale.compute(pass(10.0)).unwrap().0, 8192.0, "the scale stays");
    }

    #[test]
    fn the_scale_grows_after_many_finite_passes() {
        let scale = LossScale { scale: Cell::new(1024.0), num_finite: Cell::new(GROWTH_INTERVAL - 2) };
        let scales: Vec<f32> = (0..3).map(|_| scale.compute(pass(1.0)).unwrap().0).collect();
        assert_eq!(scales, [1024.0, 1024.0, 2048.0]);
        let saved = serde_json::to_string(&scale).unwrap();
        assert_eq!(serde_json::from_str::<LossScale>(&saved).unwrap(), scale);
    }

    #[test]
    fn what_is_not_finite_without_a_scale_is_told_as_it_is() {
        let scale = LossScale::default();
        let not_finite = |_: f32| {
            let tensor = Tensor::new(&[f32::NAN], &Device::Cpu).unwrap();
            Ok(((), true, Gradients::from_tensors([("weight".to_owned(), tensor)]).unwrap()))
        };
        assert!(number(&scale.compute(not_finite).unwrap().1).is_nan());
        assert_eq!(scale.scale.get(), LEAST);
        let mut calls = 0;
        let nan_loss = |_: f32| {
            calls += 1;
            let tensor = Tensor::new(&[f32::NAN], &Device::Cpu).unwrap();
            Ok(((), false, Gradients::from_tensors([("weight".to_owned(), tensor)]).unwrap()))
        };
        LossScale::default().compute(nan_loss).unwrap();
        assert_eq!(calls, 1, "a loss that is not finite is not tried again");
    }
}
