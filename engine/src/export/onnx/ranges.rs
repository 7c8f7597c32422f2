//! What numbers pass between the operations of a graph, and the 8-bit scale of each place.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::export::ExportError;
use crate::quant::QuantError;

/// Largest code of an unsigned byte.
const MAX_CODE: f64 = 255.0;

/// Smallest and largest number seen of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    pub min: f32,
    pub max: f32,
}

/// Scale and zero point of a tensor of unsigned bytes: x = (code - zero) · scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    pub scale: f32,
    pub zero: u8,
}

impl Range {
    /// The grid that reaches from the smallest to the largest number, and on which 0 lies exactly: convolutions pad with
    /// it, and a ReLU ends there.
    pub(super) fn grid(self) -> Grid {
        let (min, max) = (f64::from(self.min.min(0.0)), f64::from(self.max.max(0.0)));
        let scale = ((max - min) / MAX_CODE) as f32;
        if scale < f32::MIN_POSITIVE {
            // Nothing but zeros was seen, or as good as.
            return Grid { scale: 1.0, zero: 0 };
        }
        let zero = (-min / f64::from(scale)).round_ties_even().clamp(0.0, MAX_CODE) as u8;
        Grid { scale, zero }
    }
}

/// The ranges of tensors, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranges(BTreeMap<String, Range>);

impl Ranges {
    /// Widens the range of `tensor` to all of `values`. Errors: a number that is none.
    pub(super) fn observe(&mut self, tensor: &str, values: &Tensor) -> Result<(), ExportError> {
        let values = values.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let seen = self.0.entry(tensor.to_owned()).or_insert(Range { min: f32::INFINITY, max: f32::NEG_INFINITY });
        for (index, &found) in values.iter().enumerate() {
            if !found.is_finite() {
                return Err(QuantError::NotFinite { tensor: tensor.to_owned(), found, index }.into());
            }
            seen.min = seen.min.min(found);
            seen.max = seen.max.max(found);
        }
        Ok(())
    }

    /// The grid of `tensor`. Errors: nothing of it was seen.
    pub(super) fn grid(&self, tensor: &str) -> Result<Grid, ExportError> {
        let seen = self.0.get(tensor).filter(|range| range.min <= range.max);
        seen.map(|range| range.grid()).ok_or_else(|| ExportError::Runtime {
            tried: "calibrating 8-bit activations",
            what: format!("nothing was seen of {tensor:?}. Is the training part empty?"),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn after_a_relu_all_codes_are_for_what_is_above_zero() {
        let grid = Range { min: 0.0, max: 51.0 }.grid();
        assert_eq!(grid, Grid { scale: 0.2, zero: 0 });
        let grid = Range { min: 3.0, max: 51.0 }.grid();
        assert_eq!(grid.zero, 0, "zero is on the grid though it was not seen");
        assert_eq!(Range { min: -51.0, max: -3.0 }.grid(), Grid { scale: 0.2, zero: 255 });
        assert_eq!(Range { min: 0.0, max: 0.0 }.grid(), Grid { scale: 1.0, zero: 0 });
    }

    #[test]
    fn what_is_no_number_is_named_and_what_was_not_seen_too() {
        let mut ranges = Ranges::default();
        let tensor = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
        ranges.observe("a", &tensor([1.0, -2.0])).unwrap();
        ranges.observe("a", &tensor([0.5, 3.0])).unwrap();
        assert_eq!(ranges.0["a"], Range { min: -2.0, max: 3.0 });
        let error = ranges.observe("b", &tensor([0.0, f32::NAN])).unwrap_err().to_string();
        assert!(error.contains("\"b\"") && error.contains("NaN at index 1"), "{error}");
        assert!(ranges.grid("c").unwrap_err().to_string().contains("\"c\""));
    }

    proptest! {
        /// Every number of the range is within one step of its code, the largest steps being at the ends.
        #[test]
        fn the_grid_covers_the_range(a in -1e6_f32..1e6, b in -1e6_f32..1e6, share in 0_f64..=1.0) {
            let range = Range { min: a.min(b), max: a.max(b) };
            let grid = range.grid();
            let x = f64::from(range.min) + share * (f64::from(range.max) - f64::from(range.min));
            let code = (x / f64::from(grid.scale)).round_ties_even() + f64::from(grid.zero);
            let back = (code.clamp(0.0, 255.0) - f64::from(grid.zero)) * f64::from(grid.scale);
            prop_assert!((back - x).abs() <= f64::from(grid.scale) * 1.001, "{x} became {back} on {grid:?}");
        }
    }
}
