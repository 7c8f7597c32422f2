//! Ternarization: floats into trits and a scale, by the mean magnitude or by a threshold.

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

/// How a slice becomes trits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TernaryRule {
    /// `scale = mean |w|`, `trit = clamp(round(w / scale), -1, 1)`: b1.58.
    /// Source: Ma et al. 2024, arXiv 2402.17764, section 2.
    #[default]
    AbsMean,
    /// Zero below 0.7 · mean |w|; the scale is the mean magnitude of the rest, which is the best for these trits in the
    /// least-squares sense. Source: Li et al. 2016, arXiv 1605.04711, section 2.3.
    Threshold,
}

/// A threshold over the mean magnitude.
const THRESHOLD: f64 = 0.7;

/// Where trits begin, and what they are worth: all that is needed to ternarize.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TernaryGrid {
    /// Magnitudes from here on become 1 or -1; infinite for a scale of 0, so that all become 0.
    pub threshold: f32,
    /// In weight units, at least 0, representable in half precision.
    pub scale: f32,
}

impl TernaryGrid {
    /// The grid of trits worth `scale` each, which is rounded to half precision: a weight goes to the nearest.
    /// Errors: [`TernaryError::Scale`] for a scale that is negative, NaN or above 65504.
    pub fn nearest(scale: f64) -> Result<Self, TernaryError> {
        let scale = stored_scale(scale)?;
        Ok(Self { threshold: if scale > 0.0 { 0.5 * scale } else { f32::INFINITY }, scale })
    }

    /// The trit of `weight`.
    #[must_use]
    pub fn trit(self, weight: f32) -> i8 {
        i8::from(weight >= self.threshold) - i8::from(weight <= -self.threshold)
    }
}

impl TernaryRule {
    /// The grid for weights of which `total` is the sum of magnitudes and `len` the number; `above` gives the sum and
    /// the number of the magnitudes from a threshold on.
    ///
    /// Errors: [`TernaryError::Scale`] above 65504.
    pub fn grid(
        self,
        total: f64,
        len: usize,
        above: impl FnOnce(f32) -> (f64, u64),
    ) -> Result<TernaryGrid, TernaryError> {
        if len == 0 {
            return TernaryGrid::nearest(0.0);
        }
        let mean = total / len as f64;
        match self {
            Self::AbsMean => TernaryGrid::nearest(mean),
            Self::Threshold => {
                let threshold = (THRESHOLD * mean) as f32;
                let (sum, count) = above(threshold);
                let scale = stored_scale(if count > 0 { sum / count as f64 } else { 0.0 })?;
                Ok(TernaryGrid { threshold: if scale > 0.0 { threshold } else { f32::INFINITY }, scale })
            }
        }
    }

    /// The grid for `weights` (any shape, flattened): their own where they are ternary already, see [`own_grid`].
    ///
    /// Errors: [`TernaryError::NotFinite`] on NaN or infinity; [`TernaryError::Scale`] above 65504.
    pub fn grid_of(self, weights: &[f32]) -> Result<TernaryGrid, TernaryError> {
        if let Some(grid) = own_grid(weights) {
            return Ok(grid);
        }
        self.grid(magnitude_sum(weights)?, weights.len(), |threshold| magnitudes_above(weights, threshold))
    }
}

/// The grid of weights that are ternary already, all of them 0 or of one magnitude that half precision holds, so that
/// they come back exactly: their mean magnitude counts the zeros, too. `None` for all others, and for nothing but zeros.
#[must_use]
pub fn own_grid(weights: &[f32]) -> Option<TernaryGrid> {
    let scale = weights.iter().find(|w| **w != 0.0)?.abs();
    let is_held = scale.is_finite() && f16::from_f32(scale).to_f32() == scale;
    let is_own = is_held && weights.iter().all(|w| *w == 0.0 || w.abs() == scale);
    is_own.then_some(TernaryGrid { threshold: 0.5 * scale, scale })
}

fn stored_scale(scale: f64) -> Result<f32, TernaryError> {
    let half = f16::from_f32(scale as f32);
    let is_storable = half.is_finite() && scale >= 0.0;
    if is_storable { Ok(half.to_f32()) } else { Err(TernaryError::Scale { scale: scale as f32 }) }
}

/// Σ |w|; 0 for an empty slice. Short runs are summed in f32, all of them in f64.
///
/// Errors: [`TernaryError::NotFinite`] on NaN or infinity.
pub fn magnitude_sum(weights: &[f32]) -> Result<f64, TernaryError> {
    let mut total = 0.0;
    for (run, weights) in weights.chunks(RUN).enumerate() {
        let sum = f64::from(run_sum(weights, f32::abs));
        if !sum.is_finite() {
            // A sum that overflows is no proof.
            if let Some((at, &value)) = weights.iter().enumerate().find(|(_, w)| !w.is_finite()) {
                return Err(TernaryError::NotFinite { index: run * RUN + at, value });
            }
            total += weights.iter().map(|w| f64::from(w.abs())).sum::<f64>();
            continue;
        }
        total += sum;
    }
    Ok(total)
}

/// Sum and number of the magnitudes from `threshold` on.
#[must_use]
pub fn magnitudes_above(weights: &[f32], threshold: f32) -> (f64, u64) {
    let (mut total, mut count) = (0.0, 0);
    for weights in weights.chunks(RUN) {
        total += f64::from(run_sum(weights, |w| if w.abs() >= threshold { w.abs() } else { 0.0 }));
        count += weights.iter().map(|w| u32::from(w.abs() >= threshold)).sum::<u32>();
    }
    (total, u64::from(count))
}

/// Weights that are summed in f32 before the sum goes on in f64.
const RUN: usize = 1024;
/// Partial sums side by side: what vector registers hold.
const LANES: usize = 32;

/// Σ f(w) over a run.
#[inline]
fn run_sum(weights: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (whole, rest) = weights.as_chunks::<LANES>();
    for chunk in whole {
        for (sum, &w) in sums.iter_mut().zip(chunk) {
            *sum += f(w);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|&w| f(w)).sum::<f32>()
}

/// The mean magnitude of `weights` rounded to half precision, in weight units; 0 for an empty slice.
///
/// Errors: [`TernaryError::NotFinite`] on NaN or infinity; [`TernaryError::Scale`] above 65504.
pub fn absmean_scale(weights: &[f32]) -> Result<f32, TernaryError> {
    Ok(TernaryRule::AbsMean.grid(magnitude_sum(weights)?, weights.len(), |_| (0.0, 0))?.scale)
}

/// Ternarizes `weights` (any shape, flattened) with one scale, by the mean magnitude. A scale of 0 gives all zeros.
///
/// Weights that are ternary already, all of them 0 or of one magnitude that half precision holds, come back exactly:
/// their scale is that magnitude, not the mean over the zeros too. Ternarizing twice is ternarizing once.
///
/// Errors: [`TernaryError::NotFinite`] on NaN or infinity; [`TernaryError::Scale`] above 65504.
/// Source: Ma et al. 2024, arXiv 2402.17764, section 2.
pub fn ternarize(weights: &[f32]) -> Result<Ternary, TernaryError> {
    ternarize_by(TernaryRule::AbsMean, weights)
}

/// Ternarizes `weights` (any shape, flattened) with one scale. A group of weights with a scale of its own is a slice.
///
/// Errors: [`TernaryError::NotFinite`] on NaN or infinity; [`TernaryError::Scale`] above 65504.
pub fn ternarize_by(rule: TernaryRule, weights: &[f32]) -> Result<Ternary, TernaryError> {
    let grid = rule.grid_of(weights)?;
    Ok(Ternary { trits: weights.iter().map(|&w| grid.trit(w)).collect(), scale: grid.scale })
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
    fn the_threshold_keeps_what_is_large_at_its_mean() {
        // mean |w| = 1, so 0.7 and more is kept: 2.0 and 1.5, mean 1.75; 0.5 is not.
        let ternary = ternarize_by(TernaryRule::Threshold, &[0.5, -0.0, -2.0, 1.5]).unwrap();
        assert_eq!(ternary, Ternary { trits: vec![0, 0, -1, 1], scale: 1.75 });
    }

    #[test]
    fn zeros_and_nothing_have_scale_zero() {
        for rule in [TernaryRule::AbsMean, TernaryRule::Threshold] {
            assert_eq!(ternarize_by(rule, &[0.0; 3]).unwrap(), Ternary { trits: vec![0; 3], scale: 0.0 });
            assert_eq!(ternarize_by(rule, &[]).unwrap(), Ternary { trits: vec![], scale: 0.0 });
        }
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
        let mut weights = vec![0.5; 5000];
        weights[4321] = f32::NAN;
        assert!(matches!(ternarize(&weights), Err(TernaryError::NotFinite { index: 4321, .. })));
        // Finite, though the f32 sum of a run is not.
        assert!(matches!(ternarize(&[3e38; 64]), Err(TernaryError::Scale { .. })));
    }

    proptest! {
        #[test]
        fn twice_is_once(weights in prop::collection::vec(-3.0_f32..3.0, 1..300), by_threshold: bool) {
            let rule = if by_threshold { TernaryRule::Threshold } else { TernaryRule::AbsMean };
            let once = ternarize_by(rule, &weights).unwrap();
            let values: Vec<f32> = once.trits.iter().map(|&trit| f32::from(trit) * once.scale).collect();
            let twice = ternarize_by(rule, &values).unwrap();
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

        #[test]
        fn a_comparison_is_the_rounded_quotient(bits in any::<u32>(), scale_bits in 1_u16..0x7c00) {
            let (w, scale) = (f32::from_bits(bits), f16::from_bits(scale_bits).to_f32());
            prop_assume!(w.is_finite());
            let grid = TernaryGrid::nearest(f64::from(scale)).unwrap();
            for w in [w, 0.5 * scale, (0.5 * scale).next_down(), -(0.5 * scale).next_up()] {
                prop_assert_eq!(grid.trit(w), (w / scale).round().clamp(-1.0, 1.0) as i8);
            }
        }

        #[test]
        fn sums_are_those_of_f64(weights in prop::collection::vec(-3.0_f32..3.0, 0..5000)) {
            let exact: f64 = weights.iter().map(|w| f64::from(w.abs())).sum();
            prop_assert!((magnitude_sum(&weights).unwrap() - exact).abs() <= 1e-5 * exact);
            let (sum, count) = magnitudes_above(&weights, 1.0);
            let above: Vec<f64> = weights.iter().map(|w| f64::from(w.abs())).filter(|w| *w >= 1.0).collect();
            prop_assert_eq!(count, above.len() as u64);
            prop_assert!((sum - above.iter().sum::<f64>()).abs() <= 1e-5 * sum);
        }

        #[test]
        fn the_threshold_scale_is_the_least_squares_one(weights in prop::collection::vec(-3.0_f32..3.0, 1..300)) {
            let Ternary { trits, scale } = ternarize_by(TernaryRule::Threshold, &weights).unwrap();
            let error = |scale: f64| -> f64 {
                let square = |(w, t): (&f32, &i8)| (f64::from(*w) - f64::from(*t) * scale).powi(2);
                weights.iter().zip(&trits).map(square).sum()
            };
            let scale = f64::from(scale);
            // Half precision moves the best scale by a part in 2048 at most.
            prop_assert!(error(scale) <= error(scale * 1.002) + 1e-9);
            prop_assert!(error(scale) <= error(scale * 0.998) + 1e-9);
        }
    }
}
