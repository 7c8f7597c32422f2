//! Ternarization by the mean magnitude.

use half::f16;

use crate::TernaryError;

/// A ternarized slice: `weight ≈ trit · scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ternary {
    /// One value in {-1, 0, 1} per weight, in the order of the weights.
    pub trits: Vec<i8>,
    /// In weight units, at least 0. Representable in half precision, so that packing loses nothing.
    pub scale: f32,
}

/// The mean magnitude of `weights` rounded to half precision, in weight units; 0 for an empty slice.
///
/// Errors: [`TernaryError::NotFinite`] on NaN or infinity; [`TernaryError::Scale`] above 65504.
pub fn absmean_scale(weights: &[f32]) -> Result<f32, TernaryError> {
    if let Some((index, &value)) = weights.iter().enumerate().find(|(_, w)| !w.is_finite()) {
        return Err(TernaryError::NotFinite { index, value });
    }
    if weights.is_empty() {
        return Ok(0.0);
    }
    let sum: f64 = weights.iter().map(|w| f64::from(w.abs())).sum();
    let mean = (sum / weights.len() as f64) as f32;
    let scale = f16::from_f32(mean);
    if scale.is_finite() { Ok(scale.to_f32()) } else { Err(TernaryError::Scale { scale: mean }) }
}

/// Ternarizes `weights` (any shape, flattened) with one scale:
/// `scale = mean |w|`, `trit = clamp(round(w / scale), -1, 1)`. A scale of 0 gives all zeros.
///
/// Weights that are ternary already, all of them 0 or of one magnitude that half precision holds, come back exactly:
/// their scale is that magnitude, not the mean over the zeros too. Ternarizing twice is ternarizing once.
///
/// Errors: [`TernaryError::NotFinite`] on NaN or infinity; [`TernaryError::Scale`] above 65504.
/// Source: Ma et al. 2024, arXiv 2402.17764, section 2.
pub fn ternarize(weights: &[f32]) -> Result<Ternary, TernaryError> {
    let scale = match own_scale(weights) {
        Some(scale) => scale,
        None => absmean_scale(weights)?,
    };
    let trits = if scale > 0.0 {
        weights.iter().map(|w| (w / scale).round().clamp(-1.0, 1.0) as i8).collect()
    } else {
        vec![0; weights.len()]
    };
    Ok(Ternary { trits, scale })
}

/// The magnitude of all weights that are not 0, where they share one that half precision holds.
fn own_scale(weights: &[f32]) -> Option<f32> {
    let scale = weights.iter().find(|w| **w != 0.0)?.abs();
    let is_held = scale.is_finite() && f16::from_f32(scale).to_f32() == scale;
    (is_held && weights.iter().all(|w| *w == 0.0 || w.abs() == scale)).then_some(scale)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rounds_by_the_mean_magnitude() {
        // mean |w| = (0.5 + 0.1 + 2.0 + 1.4) / 4 = 1.0
        let ternary = ternarize(&[0.5, -0.1, -2.0, 1.4]).unwrap();
        assert_eq!(ternary, Ternary { trits: vec![1, 0, -1, 1], scale: 1.0 });
    }

    #[test]
    fn zeros_and_nothing_have_scale_zero() {
        assert_eq!(ternarize(&[0.0; 3]).unwrap(), Ternary { trits: vec![0; 3], scale: 0.0 });
        assert_eq!(ternarize(&[]).unwrap(), Ternary { trits: vec![], scale: 0.0 });
    }

    #[test]
    fn what_is_ternary_already_comes_back_exactly() {
        let ternary = ternarize(&[0.0, -0.375, 0.0, 0.375, 0.0]).unwrap();
        assert_eq!(ternary, Ternary { trits: vec![0, -1, 0, 1, 0], scale: 0.375 });
        // 0.1 is not held in half precision: the mean it is.
        assert_eq!(ternarize(&[0.0, 0.1]).unwrap().scale, f16::from_f32(0.05).to_f32());
    }

    #[test]
    fn refuses_what_is_not_finite_or_too_large() {
        assert!(matches!(ternarize(&[1.0, f32::NAN]), Err(TernaryError::NotFinite { index: 1, .. })));
        assert!(matches!(ternarize(&[f32::NEG_INFINITY]), Err(TernaryError::NotFinite { index: 0, .. })));
        assert!(matches!(ternarize(&[1e9, 1e9]), Err(TernaryError::Scale { .. })));
    }

    proptest! {
        #[test]
        fn twice_is_once(weights in prop::collection::vec(-3.0_f32..3.0, 1..300)) {
            let once = ternarize(&weights).unwrap();
            let values: Vec<f32> = once.trits.iter().map(|&trit| f32::from(trit) * once.scale).collect();
            let twice = ternarize(&values).unwrap();
            prop_assert_eq!(&twice.trits, &once.trits);
            prop_assert!(twice.scale == once.scale || once.trits.iter().all(|&trit| trit == 0));
        }

        #[test]
        fn never_farther_than_one_scale_or_the_excess(weights in prop::collection::vec(-3.0_f32..3.0, 1..300)) {
            let ternary = ternarize(&weights).unwrap();
            for (&w, &trit) in weights.iter().zip(&ternary.trits) {
                let error = (w - f32::from(trit) * ternary.scale).abs();
                let allowed = (0.5 * ternary.scale).max(w.abs() - ternary.scale) + 1e-5;
                prop_assert!(error <= allowed, "{w} became {trit} at scale {}", ternary.scale);
            }
        }
    }
}
