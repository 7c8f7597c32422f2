//! Plain loops that each set of kernels compiles for its own vector registers. Inlined into a function that enables a
//! processor feature, they use it.

pub(super) use crate::gguf::{q3_k_floats, q4_k_floats};

/// Partial sums, so that the compiler may use vector registers.
const LANES: usize = 16;

#[inline(always)]
pub(super) fn largest_magnitude(x: &[f32]) -> f32 {
    // As integers, magnitudes order like the floats, with NaN above infinity above everything.
    f32::from_bits(x.iter().map(|x| x.to_bits() & 0x7fff_ffff).fold(0, u32::max))
}

#[inline(always)]
pub(super) fn round(x: &[f32], inverse: f32, out: &mut [i8]) -> i32 {
    let mut sum = 0;
    for (x, out) in x.iter().zip(out) {
        // Adding 1.5 · 2²³ leaves the rounded integer in the low bits of the mantissa: much faster than `round`.
        *out = (x * inverse + 12_582_912.0).to_bits() as i8;
        sum += i32::from(*out);
    }
    sum
}

#[inline(always)]
pub(super) fn sum_of_squares(x: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += x * x;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>()
}

/// eˣ to about 2 units in the last place; 0 below -87, infinity above 88.7; NaN stays.
///
/// Splits x = n·ln 2 + r and takes a polynomial of r (Cody and Waite 1980, chapter 6; coefficients of the Taylor series).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const ROUND: f32 = 12_582_912.0;
    // The comparisons leave NaN as it is.
    let bounded = if x < -87.0 { -87.0 } else { x };
    let bounded = if bounded > 88.7 { 88.7 } else { bounded };
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = bounded - n * LN_2_HIGH - n * LN_2_LOW;
    let tail = 1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0))));
    let polynomial = 1.0 + r * (1.0 + r * (0.5 + r * tail));
    // 2ⁿ in two factors: n may be 128, which has no exponent of its own.
    let whole = shifted.to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
    let half = whole >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23).cast_unsigned());
    let value = polynomial * power(half.clamp(-126, 127)) * power((whole - half).clamp(-126, 127));
    if x < -87.0 {
        0.0
    } else if x > 88.7 {
        f32::INFINITY
    } else {
        value
    }
}

#[inline(always)]
pub(super) fn exp_shifted(x: &mut [f32], shift: f32) -> f32 {
    for x in x.iter_mut() {
        *x = exp(*x - shift);
    }
    let mut sums = [0.0_f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += x;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// The largest number, -∞ for none; NaN counts as none.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for (lane, &x) in lanes.iter_mut().zip(x) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Sums of codes that are more than the weights, as products of the weights: (sum - excess) · scale · input scale. Sums of
/// large codes may have wrapped around; the difference is exact.
#[inline(always)]
pub(super) fn rescale(sums: &[i32], excess: i32, scales: &[f32], input_scale: f32, out: &mut [f32]) {
    for ((out, sum), scale) in out.iter_mut().zip(sums).zip(scales) {
        *out = sum.wrapping_sub(excess) as f32 * scale * input_scale;
    }
}

#[inline(always)]
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate *= up / (1.0 + exp(-*gate));
    }
}

/// Codes of groups of 32 bytes: byte l holds elements l, l + 32, l + 64, l + 96 of its group.
#[inline(always)]
pub(super) fn unpack(groups: &[u8], codes: &mut [u8]) {
    for (bytes, codes) in groups.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<128>().0) {
        let mut shift = 0;
        for plane in codes.as_chunks_mut::<32>().0 {
            for (byte, code) in bytes.iter().zip(plane) {
                *code = (byte >> shift) & 3;
            }
            shift += 2;
        }
    }
}

/// Defines the functions above again, compiled for `$features`, each behind a safe function of its own name: the file
/// that uses this hands them out only after it has detected the features.
#[cfg(target_arch = "x86_64")]
macro_rules! compile_for {
    ($features:literal) => {
        compile_for!(@one $features, largest_magnitude(x: &[f32]) -> f32);
        compile_for!(@one $features, round(x: &[f32], inverse: f32, out: &mut [i8]) -> i32);
        compile_for!(@one $features, sum_of_squares(x: &[f32]) -> f32);
        compile_for!(@one $features, exp_shifted(x: &mut [f32], shift: f32) -> f32);
        compile_for!(@one $features, largest(x: &[f32]) -> f32);
        compile_for!(@one $features, rescale(
            sums: &[i32], excess: i32, scales: &[f32], input_scale: f32, out: &mut [f32]) -> ());
        compile_for!(@one $features, silu_mul(gate: &mut [f32], up: &[f32]) -> ());
        compile_for!(@one $features, q3_k_floats(blocks: &[u8], out: &mut [f32]) -> ());
        compile_for!(@one $features, q4_k_floats(blocks: &[u8], out: &mut [f32]) -> ());
        compile_for!(@one $features, unpack(groups: &[u8], codes: &mut [u8]) -> ());
    };
    (@one $features:literal, $name:ident($($arg:ident: $type:ty),*) -> $out:ty) => {
        fn $name($($arg: $type),*) -> $out {
            #[target_feature(enable = $features)]
            fn inner($($arg: $type),*) -> $out {
                $crate::kernels::pointwise::$name($($arg),*)
            }
            // SAFETY: this set of kernels is handed out only where its features were detected.
            unsafe { inner($($arg),*) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub(super) use compile_for;
