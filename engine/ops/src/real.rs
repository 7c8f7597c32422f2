//! Numbers that our kernels compute with: f32 to train, f64 to check gradients.

use candle_core::{CpuStorage, WithDType};

use super::buffers::Shelved;
use super::simd::LANES;

/// f32 or f64. The functions here are `#[inline(always)]` and, for f32, vectorizable.
pub(super) trait Real: WithDType + Shelved {
    /// e^x. f32: relative error at most 2e-7 for x in [-87, 88]; 0 < e^x < 1.3e-38 below, a finite
    /// number above 1e38 beyond. NaN stays NaN.
    fn exp(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;

    /// 1.5 · 2^(bits after the leading one): what is added to it is rounded to an integer.
    const ROUNDER: Self;

    /// The nearest integer, halves to the even one, of a number below 2^21 in magnitude.
    #[inline(always)]
    fn round_small(self) -> Self {
        (self + Self::ROUNDER) - Self::ROUNDER
    }

    /// 1 / (1 + e^-x)
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::one() / (Self::one() + (Self::zero() - self).exp())
    }

    /// These numbers where they are f32, which can be rounded to bf16.
    fn as_f32(values: &[Self]) -> Option<&[f32]>;
    /// As [`Self::as_f32`].
    fn as_f32_mut(values: &mut [Self]) -> Option<&mut [f32]>;

    /// What a tensor of these numbers holds.
    fn in_storage(storage: &mut CpuStorage) -> Option<&mut [Self]>;

    /// The larger of two; `self` when `other` is NaN.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
}

impl Real for f32 {
    const ROUNDER: Self = 12_582_912.0;

    fn in_storage(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F32(values) => Some(values),
            _ => None,
        }
    }

    /// Source: the argument reduction and polynomial of Cephes' `expf` (Moshier).
    #[inline(always)]
    fn exp(self) -> Self {
        // ln 2 in two parts, so that n * LN2_HIGH is exact.
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        let x = if self < -87.33 { -87.33 } else { self };
        let x = if x > 88.37 { 88.37 } else { x };
        // Rounds to the nearest integer and leaves it in the low bits.
        let shifted = x * std::f32::consts::LOG2_E + Self::ROUNDER;
        let n = shifted - Self::ROUNDER;
        let r = (x - n * LN2_HIGH) - n * LN2_LOW;
        let p = 1.987_569_1e-4_f32;
        let p = p * r + 1.398_199_9e-3;
        let p = p * r + 8.333_452e-3;
        let p = p * r + 4.166_579_6e-2;
        let p = p * r + 1.666_666_5e-1;
        let p = p * r + 0.5;
        let e = (p * r * r + r) + 1.0;
        e * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000))
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }

    #[inline(always)]
    fn ln(self) -> Self {
        f32::ln(self)
    }

    fn as_f32(values: &[Self]) -> Option<&[f32]> {
        Some(values)
    }

    fn as_f32_mut(values: &mut [Self]) -> Option<&mut [f32]> {
        Some(values)
    }
}

impl Real for f64 {
    const ROUNDER: Self = 6_755_399_441_055_744.0;

    fn in_storage(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F64(values) => Some(values),
            _ => None,
        }
    }

    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }

    #[inline(always)]
    fn ln(self) -> Self {
        f64::ln(self)
    }

    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }

    fn as_f32_mut(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
}

/// Σ f(a[i]), in [`LANES`] partial sums (always in the same order).
#[inline(always)]
pub(super) fn sum_map<T: Real>(a: &[T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let (chunks, rest) = a.as_chunks::<LANES>();
    for a in chunks {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane]);
        }
    }
    for (sum, &a) in lanes.iter_mut().zip(rest) {
        *sum += f(a);
    }
    add_lanes(lanes)
}

/// Σ f(a[i], b[i]) up to the shorter length, in [`LANES`] partial sums.
#[inline(always)]
pub(super) fn sum_map2<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let length = a.len().min(b.len());
    let ((a, a_rest), (b, b_rest)) = (a[..length].as_chunks::<LANES>(), b[..length].as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane], b[lane]);
        }
    }
    for (sum, (&a, &b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += f(a, b);
    }
    add_lanes(lanes)
}

/// Σ f(a[i], b[i], c[i]) up to the shortest length, in [`LANES`] partial sums.
#[inline(always)]
pub(super) fn sum_map3<T: Real>(a: &[T], b: &[T], c: &[T], f: impl Fn(T, T, T) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let length = a.len().min(b.len()).min(c.len());
    let ((a, a_rest), (b, b_rest)) = (a[..length].as_chunks::<LANES>(), b[..length].as_chunks::<LANES>());
    let (c, c_rest) = c[..length].as_chunks::<LANES>();
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane], b[lane], c[lane]);
        }
    }
    for (sum, ((&a, &b), &c)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest).zip(c_rest)) {
        *sum += f(a, b, c);
    }
    add_lanes(lanes)
}

/// The sum of the partial sums, pairwise.
#[inline(always)]
pub(super) fn add_lanes<T: Real>(mut lanes: [T; LANES]) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            let upper = lanes[lane + half];
            lanes[lane] += upper;
        }
        half /= 2;
    }
    lanes[0]
}

/// The largest element; NaN elements are passed over, -infinity when there is none.
#[inline(always)]
pub(super) fn max_of<T: Real>(row: &[T]) -> T {
    max_map(row, |x| x)
}

/// The largest f(row[i]), likewise.
#[inline(always)]
pub(super) fn max_map<T: Real>(row: &[T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::from_f64(f64::NEG_INFINITY); LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = lanes[lane].larger(f(chunk[lane]));
        }
    }
    for (best, &x) in lanes.iter_mut().zip(rest) {
        *best = best.larger(f(x));
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = lanes[lane].larger(lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::kernel;

    kernel! {
        fn exp_all<T>(values: &mut [T]) {
            for x in values {
                *x = x.exp();
            }
        }
    }

    #[test]
    fn exp_is_accurate_to_2e_7() {
        let mut x: Vec<f32> = (0..200_001).map(|i| -87.0 + i as f32 * (175.0 / 200_000.0)).collect();
        let exact: Vec<f64> = x.iter().map(|&x| f64::from(x).exp()).collect();
        exp_all(&mut x);
        let worst = x.iter().zip(&exact).map(|(&y, e)| (f64::from(y) / e - 1.0).abs()).fold(0.0, f64::max);
        assert!(worst <= 2e-7, "relative error {worst}");
    }

    #[test]
    fn halves_round_to_the_even_integer() {
        let numbers = [0.5_f64, 1.5, -0.5, -2.5, 126.5, 2.499_999, 2.500_001, -127.0, 0.0];
        for x in numbers {
            assert_eq!(x.round_small(), x.round_ties_even());
            assert_eq!((x as f32).round_small(), (x as f32).round_ties_even());
        }
    }

    #[test]
    fn exp_at_the_ends() {
        assert!(Real::exp(f32::NAN).is_nan());
        assert!(Real::exp(-1000.0_f32) < 1.3e-38 && Real::exp(f32::NEG_INFINITY) < 1.3e-38);
        assert!(Real::exp(1000.0_f32) > 1e38 && Real::exp(1000.0_f32).is_finite());
        assert_eq!(Real::exp(0.0_f32), 1.0);
    }

    #[test]
    fn sums_and_maxima_of_every_length() {
        for n in 0..100_usize {
            let values: Vec<f64> = (0..n).map(|i| ((i * 37) % 101) as f64).collect();
            let total = values.iter().sum::<f64>();
            assert_eq!(sum_map(&values, |x| x), total);
            assert_eq!(sum_map2(&values, &values, |x, y| 2.0 * x - y), total);
            assert_eq!(sum_map3(&values, &values, &values, |x, y, z| 2.0 * x + y - 2.0 * z), total);
            assert_eq!(max_of(&values), values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
    }
}
