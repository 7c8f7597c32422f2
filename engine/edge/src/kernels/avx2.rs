//! The kernels for processors with AVX2, FMA and F16C: 256-bit vectors.
//!
//! Each public function is safe: it is reached only after the features were detected (`super::has_avx2`), and reads
//! only inside its slices: vector loads cover whole chunks, the scalar kernel finishes the rest.
#![allow(unsafe_code, reason = "vector loads from slices, and calls into functions compiled for detected features")]

use std::arch::x86_64::*;

use foretrain_ternary::{BLOCK_BYTES, GROUP_BYTES, GROUP_LEN};
use half::f16;

use super::scalar;
use crate::gguf::{Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN};

/// Floats in a vector.
const WIDTH: usize = 8;
/// Signed bytes in a vector.
const BYTES: usize = 32;
/// Groups whose 16-bit sums cannot overflow: each adds at most 4 · 2 · 3 · 127 = 3048 to a lane.
const GROUPS_PER_FLUSH: usize = 8;

pub(super) fn dot_f32(weights: &[u8], x: &[f32]) -> f32 {
    // SAFETY: the caller detected the features.
    unsafe { dot_f32_avx2(weights, x) }
}

pub(super) fn dot_f16(weights: &[u8], x: &[f32]) -> f32 {
    // SAFETY: the caller detected the features.
    unsafe { dot_f16_avx2(weights, x) }
}

pub(super) fn dot_bf16(weights: &[u8], x: &[f32]) -> f32 {
    // SAFETY: the caller detected the features.
    unsafe { dot_bf16_avx2(weights, x) }
}

pub(super) fn dot_i8(weights: &[u8], x: &[i8]) -> i32 {
    // SAFETY: the caller detected the features.
    unsafe { dot_i8_avx2(weights, x) }
}

pub(super) fn dot_q8_0(blocks: &[u8], x: &[i8]) -> f32 {
    // SAFETY: the caller detected the features.
    unsafe { dot_q8_0_avx2(blocks, x) }
}

pub(super) fn dot_tq2_0(blocks: &[u8], first_group: usize, x: &[i8]) -> i32 {
    let num_groups = x.len() / GROUP_LEN;
    let last = first_group.saturating_add(num_groups).saturating_sub(1);
    let end = (last / 2).saturating_mul(BLOCK_BYTES).saturating_add(last % 2 * GROUP_BYTES + GROUP_BYTES);
    if num_groups == 0 || end > blocks.len() {
        return scalar::dot_tq2_0(blocks, first_group, x);
    }
    // SAFETY: the caller detected the features; all `num_groups` groups lie within `blocks`.
    unsafe { dot_tq2_0_avx2(blocks, first_group, x) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn sum_floats(sums: [__m256; 4]) -> f32 {
    let [a, b, c, d] = sums;
    let sum = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
    let half = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
    let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn sum_ints(sum: __m256i) -> i32 {
    let half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
    _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32::<0b10_11_00_01>(quarter)))
}

/// Defines a float kernel: `$load` turns a pointer to 8 weights of `$size` bytes into a vector of floats.
macro_rules! float_kernel {
    ($name:ident, $size:literal, $scalar:path, $load:expr) => {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $name(weights: &[u8], x: &[f32]) -> f32 {
            let len = (weights.len() / $size).min(x.len());
            let mut sums = [_mm256_setzero_ps(); 4];
            let mut i = 0;
            while i + 4 * WIDTH <= len {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let at = i + lane * WIDTH;
                    // SAFETY: at + 8 <= len, so both loads stay inside their slices; they need no alignment.
                    let (w, x) =
                        unsafe { ($load(weights.as_ptr().add(at * $size)), _mm256_loadu_ps(x.as_ptr().add(at))) };
                    *sum = _mm256_fmadd_ps(w, x, *sum);
                }
                i += 4 * WIDTH;
            }
            while i + WIDTH <= len {
                // SAFETY: i + 8 <= len, so both loads stay inside their slices; they need no alignment.
                let (w, x) = unsafe { ($load(weights.as_ptr().add(i * $size)), _mm256_loadu_ps(x.as_ptr().add(i))) };
                sums[0] = _mm256_fmadd_ps(w, x, sums[0]);
                i += WIDTH;
            }
            sum_floats(sums) + $scalar(&weights[i * $size..], &x[i..])
        }
    };
}

float_kernel!(dot_f32_avx2, 4, scalar::dot_f32, |p: *const u8| _mm256_loadu_ps(p.cast()));
float_kernel!(dot_f16_avx2, 2, scalar::dot_f16, |p: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(p.cast())));
float_kernel!(dot_bf16_avx2, 2, scalar::dot_bf16, |p: *const u8| {
    let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
});

/// Eight 32-bit partial sums of 32 products. |w| <= 128 and |x| <= 127, so a 16-bit pair sum (at most 32512) fits.
#[target_feature(enable = "avx2,fma,f16c")]
fn products_i8(w: __m256i, x: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_i8_avx2(weights: &[u8], x: &[i8]) -> i32 {
    let len = weights.len().min(x.len());
    let mut sum = _mm256_setzero_si256();
    let mut i = 0;
    while i + BYTES <= len {
        // SAFETY: i + 32 <= len, so both loads stay inside their slices; they need no alignment.
        let (w, x) = unsafe {
            (_mm256_loadu_si256(weights.as_ptr().add(i).cast()), _mm256_loadu_si256(x.as_ptr().add(i).cast()))
        };
        sum = _mm256_add_epi32(sum, products_i8(w, x));
        i += BYTES;
    }
    sum_ints(sum) + scalar::dot_i8(&weights[i..], &x[i..])
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_q8_0_avx2(blocks: &[u8], x: &[i8]) -> f32 {
    let mut sum = _mm256_setzero_ps();
    let pairs = blocks.as_chunks::<Q8_0_BLOCK_BYTES>().0.iter().zip(x.as_chunks::<Q8_0_BLOCK_LEN>().0);
    for (block, x) in pairs {
        // SAFETY: a block is 34 bytes, of which 32 follow the scale; x is 32 bytes; no alignment needed.
        let (w, x) =
            unsafe { (_mm256_loadu_si256(block.as_ptr().add(2).cast()), _mm256_loadu_si256(x.as_ptr().cast())) };
        let scale = _mm256_set1_ps(f16::from_le_bytes([block[0], block[1]]).to_f32());
        sum = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(products_i8(w, x)), sum);
    }
    let zero = _mm256_setzero_ps();
    sum_floats([sum, zero, zero, zero])
}

/// # Safety
/// Groups `first_group .. first_group + x.len() / 128` must lie within `blocks`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot_tq2_0_avx2(blocks: &[u8], first_group: usize, x: &[i8]) -> i32 {
    let mask = _mm256_set1_epi8(3);
    let ones = _mm256_set1_epi16(1);
    let mut sum = _mm256_setzero_si256();
    let mut group = first_group;
    for run in x.chunks(GROUPS_PER_FLUSH * GROUP_LEN) {
        let mut sum16 = _mm256_setzero_si256();
        for x in run.as_chunks::<GROUP_LEN>().0 {
            let at = group / 2 * BLOCK_BYTES + group % 2 * GROUP_BYTES;
            // SAFETY: the group's 32 bytes lie within `blocks` by this function's contract.
            let codes = unsafe { _mm256_loadu_si256(blocks.as_ptr().add(at).cast()) };
            let planes =
                [codes, _mm256_srli_epi16::<2>(codes), _mm256_srli_epi16::<4>(codes), _mm256_srli_epi16::<6>(codes)];
            for (plane, x) in planes.into_iter().zip(x.as_chunks::<BYTES>().0) {
                // SAFETY: x is 32 bytes; no alignment needed.
                let x = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
                sum16 = _mm256_add_epi16(sum16, _mm256_maddubs_epi16(_mm256_and_si256(plane, mask), x));
            }
            group += 1;
        }
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(sum16, ones));
    }
    sum_ints(sum)
}
