//! The kernels for processors with AVX-512 VNNI: 512-bit vectors whose 32-bit lanes add four products of bytes at once.
//!
//! Each public function is safe: it is reached only after the features were detected ([`available`]), and reads only
//! inside its slices, whose lengths it checks first.
#![allow(unsafe_code, reason = "vector loads from slices, and calls into functions compiled for detected features")]

use std::arch::x86_64::*;

use foretrain_ternary::{BLOCK_BYTES, BLOCK_LEN, GROUP_BYTES};
use half::f16;

use super::pointwise::compile_for;
use super::streams::{ahead, fill_rows, rows_there};
use super::tile::{multiply_in_tiles, whole_blocks};
use super::x86_floats::float_kernels;
use super::{CodeRows, Kernels, Quantized, TernaryRows, avx2, avx512_blocks, avx512_triples};
use crate::runtime::Runs;

/// Bytes in a vector.
const BYTES: usize = 64;
/// Rows that share an input while it is in registers.
const ROWS: usize = 4;
/// Inputs of a tile of `multiply`; with four rows its sums fill 24 of 32 registers.
const INPUTS: usize = 6;

compile_for!("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c");

static KERNELS: Kernels = Kernels {
    name: "avx512-vnni",
    num_runs: ROWS,
    f32_rows,
    f16_rows,
    bf16_rows,
    mix_f32,
    mix_f16,
    int8_rows,
    q8_0_rows: avx2::short_vnni::q8_0_rows,
    q4_0_rows: avx2::short_vnni::q4_0_rows,
    q8_0_tiles: Some(avx512_blocks::q8_0_tiles),
    ternary_rows,
    ternary_block_rows,
    triples: &avx512_triples::KERNELS,
    multiply,
    reads_tiles: false,
    unpack,
    round,
    largest_magnitude,
    sum_of_squares,
    exp_shifted,
    largest,
    rescale,
    q3_k_floats,
    q4_k_floats,
    silu_mul,
    read_all,
};

/// The set, where it runs.
pub(super) fn available() -> Option<&'static Kernels> {
    let has_all = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    has_all.then_some(&KERNELS)
}

float_kernels! {
    features: "avx512f,avx512bw",
    vector: __m512,
    width: 16,
    zero: _mm512_setzero_ps,
    load: _mm512_loadu_ps,
    store: _mm512_storeu_ps,
    multiply_add: _mm512_fmadd_ps,
    repeat: _mm512_set1_ps,
    sum: _mm512_reduce_add_ps,
    load_f16: |p: *const u8| _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())),
    load_bf16: |p: *const u8| {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    },
}

fn int8_rows(values: &[u8], runs: Runs, x: &[i8], out: &mut [i32]) {
    /// # Safety
    /// `R` rows of `x.len()` bytes, `apart` bytes from start to start, must be readable from `rows` on.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn dot<const R: usize>(rows: *const u8, apart: usize, x: &[i8]) -> [i32; R] {
        let ahead = ahead();
        // The instruction multiplies unsigned with signed bytes: x + 128 with w, less 128 · w. Sums may wrap around; the
        // difference is exact.
        let offset = _mm512_set1_epi8(i8::MIN);
        let mut sums = [_mm512_setzero_si512(); R];
        let mut excess = [_mm512_setzero_si512(); R];
        for (number, part) in x.chunks(BYTES).enumerate() {
            let mask = u64::MAX >> (BYTES - part.len());
            // SAFETY: masked bytes are not read, and the others lie within `part`.
            let inputs = unsafe { _mm512_maskz_loadu_epi8(mask, part.as_ptr()) };
            let inputs = _mm512_xor_si512(inputs, offset);
            for (r, (sum, excess)) in sums.iter_mut().zip(&mut excess).enumerate() {
                let at = r * apart + number * BYTES;
                // SAFETY: by this function's contract for the bytes not masked; a prefetch may name any address.
                let weights = unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(rows.wrapping_add(at + ahead).cast());
                    _mm512_maskz_loadu_epi8(mask, rows.add(at).cast())
                };
                *sum = _mm512_dpbusd_epi32(*sum, inputs, weights);
                *excess = _mm512_dpbusd_epi32(*excess, offset, weights);
            }
        }
        std::array::from_fn(|r| _mm512_reduce_add_epi32(_mm512_sub_epi32(sums[r], excess[r])))
    }
    if x.is_empty() {
        out.fill(0);
        return;
    }
    let num_rows = rows_there(values, x.len(), runs, out.len());
    let start = |row: usize| values.as_ptr().wrapping_add(row * x.len());
    // SAFETY: the `num_rows` rows lie within `values`; the features were detected.
    let many = |first, apart| unsafe { dot::<ROWS>(start(first), apart * x.len(), x) };
    // SAFETY: as above.
    let one = |row| unsafe { dot::<1>(start(row), 0, x)[0] };
    fill_rows(runs, &mut out[..num_rows], many, one);
}

/// The codes of a group in both halves of a vector.
///
/// # Safety
/// 32 bytes must be readable from `group` on.
#[target_feature(enable = "avx512f")]
unsafe fn twice(group: *const u8) -> __m512i {
    // SAFETY: by this function's contract.
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(group.cast()) })
}

fn ternary_rows(rows: TernaryRows<'_>, runs: Runs, x: &[i8], out: &mut [i32]) {
    /// Products with rows of whole blocks.
    ///
    /// Codes stay where they are in their bytes: the second plane counts four times, the third 16 times, the fourth 64
    /// times, each in lanes of its own, so that one shift at the end does for all.
    ///
    /// # Safety
    /// `R` rows of `x.len() / 256` blocks, `apart` bytes from start to start, must be readable from `rows` on.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn dot<const R: usize>(rows: *const u8, apart: usize, x: &[i8]) -> [i32; R] {
        let ahead = ahead();
        let halves = |low: i8, high: i8| _mm512_inserti64x4::<1>(_mm512_set1_epi8(low), _mm256_set1_epi8(high));
        let (first, second) = (halves(0x03, 0x0c), halves(0x30, 0xc0_u8.cast_signed()));
        let mut low = [_mm512_setzero_si512(); R];
        let mut high = [_mm512_setzero_si512(); R];
        for (block, x) in x.as_chunks::<BLOCK_LEN>().0.iter().enumerate() {
            // SAFETY: a block of x is 256 bytes.
            let x: [__m512i; 4] =
                std::array::from_fn(|i| unsafe { _mm512_loadu_si512(x.as_ptr().add(i * BYTES).cast()) });
            for r in 0..R {
                // SAFETY: by this function's contract; a prefetch may name any address.
                let (a, b) = unsafe {
                    let codes = rows.add(r * apart + block * BLOCK_BYTES);
                    _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(ahead).cast());
                    (twice(codes), twice(codes.add(GROUP_BYTES)))
                };
                low[r] = _mm512_dpbusd_epi32(low[r], _mm512_and_si512(a, first), x[0]);
                high[r] = _mm512_dpbusd_epi32(high[r], _mm512_and_si512(a, second), x[1]);
                low[r] = _mm512_dpbusd_epi32(low[r], _mm512_and_si512(b, first), x[2]);
                high[r] = _mm512_dpbusd_epi32(high[r], _mm512_and_si512(b, second), x[3]);
            }
        }
        let shift = |low: i32, high: i32| _mm512_inserti64x4::<1>(_mm512_set1_epi32(low), _mm256_set1_epi32(high));
        let (first, second) = (shift(0, 2), shift(4, 6));
        std::array::from_fn(|r| {
            let sums = _mm512_add_epi32(_mm512_srav_epi32(low[r], first), _mm512_srav_epi32(high[r], second));
            _mm512_reduce_add_epi32(sums)
        })
    }
    let Some(blocks) = whole_blocks(rows, runs, x.len(), out.len()) else {
        return avx2::ternary_groups(rows, runs, x, out);
    };
    let row_bytes = x.len() / BLOCK_LEN * BLOCK_BYTES;
    let start = |row: usize| blocks.as_ptr().wrapping_add(row * row_bytes);
    // SAFETY: all `out.len()` rows lie within `blocks`; the features were detected.
    let many = |first, apart| unsafe { dot::<ROWS>(start(first), apart * row_bytes, x) };
    // SAFETY: as above.
    let one = |row| unsafe { dot::<1>(start(row), 0, x)[0] };
    fill_rows(runs, out, many, one);
}

fn ternary_block_rows(blocks: &[u8], runs: Runs, x: &[i8], block_sums: &[i32], out: &mut [f32]) {
    /// # Safety
    /// `R` rows of `x.len() / 256` blocks, `apart` bytes from start to start, must be readable from `rows` on.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vl")]
    unsafe fn dot<const R: usize>(rows: *const u8, apart: usize, x: &[i8], block_sums: &[i32]) -> [f32; R] {
        let ahead = ahead();
        let mask = _mm512_set1_epi8(0x03);
        let halves = |low: i16, high: i16| _mm512_inserti64x4::<1>(_mm512_set1_epi16(low), _mm256_set1_epi16(high));
        let (first, second) = (halves(0, 2), halves(4, 6));
        let mut sums = [_mm512_setzero_ps(); R];
        let mut corrections = [0.0_f32; R];
        for ((block, x), block_sum) in x.as_chunks::<BLOCK_LEN>().0.iter().enumerate().zip(block_sums) {
            // SAFETY: a block of x is 256 bytes.
            let x: [__m512i; 4] =
                std::array::from_fn(|i| unsafe { _mm512_loadu_si512(x.as_ptr().add(i * BYTES).cast()) });
            let block_sum = *block_sum as f32;
            for r in 0..R {
                // SAFETY: by this function's contract; a prefetch may name any address.
                let (a, b, scale) = unsafe {
                    let codes = rows.add(r * apart + block * BLOCK_BYTES);
                    _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(ahead).cast());
                    let scale = codes.add(2 * GROUP_BYTES).cast::<[u8; 2]>().read();
                    (twice(codes), twice(codes.add(GROUP_BYTES)), f16::from_le_bytes(scale))
                };
                let plane = |codes, shift| _mm512_and_si512(_mm512_srlv_epi16(codes, shift), mask);
                let dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), plane(a, first), x[0]);
                let dot = _mm512_dpbusd_epi32(dot, plane(a, second), x[1]);
                let other = _mm512_dpbusd_epi32(_mm512_setzero_si512(), plane(b, first), x[2]);
                let other = _mm512_dpbusd_epi32(other, plane(b, second), x[3]);
                let scale = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(scale.to_bits())));
                let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(dot, other));
                sums[r] = _mm512_fmadd_ps(dot, _mm512_broadcastss_ps(scale), sums[r]);
                corrections[r] += block_sum * _mm_cvtss_f32(scale);
            }
        }
        std::array::from_fn(|r| _mm512_reduce_add_ps(sums[r]) - corrections[r])
    }
    let row_bytes = x.len() / BLOCK_LEN * BLOCK_BYTES;
    if row_bytes == 0 {
        out.fill(0.0);
        return;
    }
    let num_rows = rows_there(blocks, row_bytes, runs, out.len());
    let start = |row: usize| blocks.as_ptr().wrapping_add(row * row_bytes);
    // SAFETY: the `num_rows` rows lie within `blocks`; the features were detected.
    let many = |first, apart| unsafe { dot::<ROWS>(start(first), apart * row_bytes, x, block_sums) };
    // SAFETY: as above.
    let one = |row| unsafe { dot::<1>(start(row), 0, x, block_sums)[0] };
    fill_rows(runs, &mut out[..num_rows], many, one);
}

pub(super) fn multiply(codes: &CodeRows, x: &Quantized, out: &mut [i32]) {
    /// # Safety
    /// `R` rows of `len` bytes, `stride` apart, must be readable from `codes` on; each of `x` must be `len` long, a
    /// multiple of 64.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn tile<const R: usize, const T: usize>(codes: *const u8, stride: usize, x: [&[i8]; T]) -> [[i32; T]; R] {
        let mut sums = [[_mm512_setzero_si512(); T]; R];
        for at in (0..x[0].len()).step_by(BYTES) {
            // SAFETY: by this function's contract.
            let weights: [__m512i; R] =
                std::array::from_fn(|r| unsafe { _mm512_loadu_si512(codes.add(r * stride + at).cast()) });
            for t in 0..T {
                // SAFETY: by this function's contract.
                let inputs = unsafe { _mm512_loadu_si512(x[t].as_ptr().add(at).cast()) };
                for r in 0..R {
                    sums[r][t] = _mm512_dpbusd_epi32(sums[r][t], weights[r], inputs);
                }
            }
        }
        sums.map(|sums| sums.map(|sum| _mm512_reduce_add_epi32(sum)))
    }
    multiply_in_tiles::<ROWS, INPUTS>(
        codes,
        x,
        out,
        // SAFETY: `multiply_in_tiles` keeps the contract; the features were detected.
        |codes, stride, x| unsafe { tile::<ROWS, INPUTS>(codes, stride, x) },
        // SAFETY: as above.
        |codes, stride, x| unsafe { tile::<1, 1>(codes, stride, [x])[0][0] },
    );
}
