//! Dot products of one packed weight row with one input vector: everything a model spends its time in.
//!
//! `scalar` is the reference and runs everywhere; `avx2` is chosen at run time on processors that have it. Both
//! compute the same integers bit for bit; float sums differ by rounding order only. Weight rows are little-endian
//! bytes without alignment, so that they can be used where they lie in a mapped file.
//!
//! Integer kernels read inputs quantized by [`quantize`]: signed bytes in -127..=127 with one scale per vector.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod quantize;
mod scalar;
#[cfg(test)]
mod tests;

pub(crate) use quantize::{Quantized, quantize};

/// True when the AVX2 kernels can run here.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Defines a kernel that runs the AVX2 form where it can and the scalar form elsewhere.
macro_rules! dispatch {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $out:ty) => {
        $(#[$doc])*
        #[must_use]
        pub(crate) fn $name($($arg: $type),*) -> $out {
            #[cfg(target_arch = "x86_64")]
            if has_avx2() {
                return avx2::$name($($arg),*);
            }
            scalar::$name($($arg),*)
        }
    };
}

dispatch!(
    /// Σ wᵢxᵢ; `weights`: f32 bytes. A shorter side ends the sum, here and below.
    dot_f32(weights: &[u8], x: &[f32]) -> f32
);
dispatch!(
    /// Σ wᵢxᵢ; `weights`: f16 bytes.
    dot_f16(weights: &[u8], x: &[f32]) -> f32
);
dispatch!(
    /// Σ wᵢxᵢ; `weights`: bfloat16 bytes.
    dot_bf16(weights: &[u8], x: &[f32]) -> f32
);
dispatch!(
    /// Σ qᵢxᵢ; `weights`: signed bytes. Exact up to [`MAX_INT8_LEN`] weights.
    dot_i8(weights: &[u8], x: &[i8]) -> i32
);
dispatch!(
    /// Σ over blocks of scale · Σ qᵢxᵢ; `blocks`: Q8_0 blocks.
    dot_q8_0(blocks: &[u8], x: &[i8]) -> f32
);
dispatch!(
    /// Σ codeᵢxᵢ with codes = trit + 1 (subtract Σ xᵢ for the trits' sum); `blocks`: TQ2_0 blocks, read from group
    /// `first_group` of 128 on; `x`: a multiple of 128 long.
    dot_tq2_0(blocks: &[u8], first_group: usize, x: &[i8]) -> i32
);

/// Longest row whose int8 products (127 · 128 each) fit an i32 sum.
pub(crate) const MAX_INT8_LEN: usize = (i32::MAX / (127 * 128)) as usize;
/// Longest row whose TQ2_0 products (3 · 127 each) fit an i32 sum.
pub(crate) const MAX_TERNARY_LEN: usize = (i32::MAX / (3 * 127)) as usize;

/// y ← y + a·x, up to the shorter length.
pub(crate) fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}
