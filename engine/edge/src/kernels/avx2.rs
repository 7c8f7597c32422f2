//! The kernels for processors with AVX2, FMA and F16C: 256-bit vectors; and, with AVX-VNNI besides, those of its lanes
//! that add four products of bytes at once.
//!
//! Each public function is safe: it is reached only after the features were detected ([`available`]), and reads only
//! inside its slices, whose lengths it checks first.
#![allow(unsafe_code, reason = "vector loads from slices, and calls into functions compiled for detected features")]

use std::arch::x86_64::*;

use super::pointwise::compile_for;
use super::streams::{ahead, each_row, fill_rows, rows_there};
use super::tile::{multiply_in_tiles, whole_blocks};
use super::x86_floats::float_kernels;
use super::{CodeRows, Kernels, Quantized, TernaryRows, avx2_triples, scalar};
use crate::gguf::{Q4_0_BLOCK_BYTES, Q4_0_ZERO_CODE, Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN};
use crate::runtime::Runs;
use foretrain_ternary::{BLOCK_BYTES, BLOCK_LEN, GROUP_BYTES, GROUP_LEN, block_scale};

/// Signed bytes in a vector.
const BYTES: usize = 32;
/// Groups whose 16-bit sums cannot overflow: each adds at most 2 · 2 · 12 · 127 = 6096 to a lane.
const GROUPS_PER_FLUSH: usize = 4;
/// Rows that share an input while it is in registers: their sums fill most of the 16.
const ROWS: usize = 2;
/// The same, with sums of 16 bits.
const PLAIN_ROWS: usize = 4;
/// Largest code whose 16-bit sums cannot overflow in 32 steps: 32 · 2 · 3 · 127 = 24384.
const SMALL_CODE: u8 = 3;
/// Steps of 32 bytes between two flushes of such sums.
const STEPS_PER_FLUSH: usize = 32;

compile_for!("avx2,fma,f16c");

static AVX2: Kernels = Kernels {
    name: "avx2",
    num_runs: 4,
    f32_rows,
    f16_rows,
    bf16_rows,
    mix_f32,
    mix_f16,
    int8_rows: plain::int8_rows,
    q8_0_rows: plain::q8_0_rows,
    q4_0_rows: plain::q4_0_rows,
    q8_0_tiles: None,
    ternary_rows: ternary_groups,
    ternary_block_rows: plain::ternary_block_rows,
    triples: &avx2_triples::KERNELS,
    multiply: multiply_16_bit,
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

static AVX_VNNI: Kernels = Kernels {
    name: "avx-vnni",
    int8_rows: vnni::int8_rows,
    q8_0_rows: vnni::q8_0_rows,
    q4_0_rows: vnni::q4_0_rows,
    ternary_rows: tiled_vnni::ternary_rows,
    ternary_block_rows: vnni::ternary_block_rows,
    multiply: tiled_vnni::multiply,
    ..AVX2
};

/// The sets that run here, slower first.
pub(super) fn available() -> Vec<&'static Kernels> {
    let has_avx2 =
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let has_vnni = has_avx2 && is_x86_feature_detected!("avxvnni");
    [has_avx2.then_some(&AVX2), has_vnni.then_some(&AVX_VNNI)].into_iter().flatten().collect()
}

#[target_feature(enable = "avx2,fma,f16c")]
fn sum_floats(sum: __m256) -> f32 {
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

float_kernels! {
    features: "avx2,fma,f16c",
    vector: __m256,
    width: 8,
    zero: _mm256_setzero_ps,
    load: _mm256_loadu_ps,
    store: _mm256_storeu_ps,
    multiply_add: _mm256_fmadd_ps,
    repeat: _mm256_set1_ps,
    sum: sum_floats,
    load_f16: |p: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
    load_bf16: |p: *const u8| {
        let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
    },
}

/// The 32 codes of a Q4_0 block, whose 16 bytes of them start at `packed`.
///
/// # Safety
/// 16 bytes must be readable from `packed` on.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q4_0_codes(packed: *const u8) -> __m256i {
    // SAFETY: by this function's contract; loads need no alignment.
    let packed = unsafe { _mm_loadu_si128(packed.cast()) };
    _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed), _mm256_set1_epi8(0x0f))
}

/// Defines the kernels that need no more than sums of four products per 32-bit lane, in a module of their own: `$dot` adds
/// to `sum` the products of unsigned with signed bytes, of which no two neighbors together exceed 16 bits.
macro_rules! byte_kernels {
    ($module:ident, $features:literal, $dot:expr) => {
        #[allow(dead_code, reason = "the AVX-512 set takes one of them")]
        pub(super) mod $module {
            use super::*;

            /// Eight 32-bit partial sums of 32 products. |w| <= 128 and |x| <= 127, so two (at most 32512) fit 16 bits.
            #[target_feature(enable = $features)]
            fn add_products(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
                $dot(sum, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
            }

            pub(in super::super) fn int8_rows(values: &[u8], runs: Runs, x: &[i8], out: &mut [i32]) {
                #[target_feature(enable = $features)]
                fn dot(weights: &[u8], x: &[i8]) -> i32 {
                    let ahead = ahead();
                    let mut sums = [_mm256_setzero_si256(); 2];
                    let mut i = 0;
                    while i + 2 * BYTES <= x.len().min(weights.len()) {
                        for (half, sum) in sums.iter_mut().enumerate() {
                            // SAFETY: i + 64 is within both slices; loads need no alignment, a prefetch no valid address.
                            let (w, x) = unsafe {
                                let w = weights.as_ptr().add(i + half * BYTES);
                                _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(ahead).cast());
                                let x = x.as_ptr().add(i + half * BYTES);
                                (_mm256_loadu_si256(w.cast()), _mm256_loadu_si256(x.cast()))
                            };
                            *sum = add_products(*sum, w, x);
                        }
                        i += 2 * BYTES;
                    }
                    let mut rest = [0];
                    if i < x.len() {
                        scalar::int8_rows(&weights[i..], Runs::ONE, &x[i..], &mut rest);
                    }
                    sum_ints(_mm256_add_epi32(sums[0], sums[1])) + rest[0]
                }
                // SAFETY: this set of kernels is handed out only where its features were detected.
                each_row(values, x.len(), runs, out, |row| unsafe { dot(row, x) });
            }

            pub(in super::super) fn q8_0_rows(blocks: &[u8], runs: Runs, x: &[i8], out: &mut [f32]) {
                block_rows::<Q8_0_BLOCK_BYTES>(blocks, runs, x, out);
            }

            pub(in super::super) fn q4_0_rows(blocks: &[u8], runs: Runs, x: &[i8], out: &mut [f32]) {
                block_rows::<Q4_0_BLOCK_BYTES>(blocks, runs, x, out);
            }

            /// Four sums, of the lanes of each of `parts`.
            #[target_feature(enable = $features)]
            fn sums_of_lanes(parts: [__m256i; 4]) -> __m128i {
                let pair = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
                let (first, second) = (pair(parts[0], parts[1]), pair(parts[2], parts[3]));
                let halves =
                    _mm256_add_epi32(_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second));
                _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
            }

            /// Rows of blocks of 32 weights in `FORM_BYTES` bytes, which tell Q8_0 from Q4_0. A block's products are one
            /// exact sum, and blocks are added up in their order: tiles of rows and inputs do the same.
            fn block_rows<const FORM_BYTES: usize>(blocks: &[u8], runs: Runs, x: &[i8], out: &mut [f32]) {
                /// # Safety
                /// Four rows of `x.len() / 32` blocks, `apart` bytes from start to start, must be readable from `rows` on.
                #[target_feature(enable = $features)]
                unsafe fn dot<const FORM_BYTES: usize>(rows: *const u8, apart: usize, x: &[i8]) -> [f32; 4] {
                    let ahead = ahead();
                    let zero = _mm256_setzero_si256();
                    let mut sums = _mm_setzero_ps();
                    for (number, x) in x.as_chunks::<Q8_0_BLOCK_LEN>().0.iter().enumerate() {
                        // SAFETY: x is 32 bytes; loads need no alignment.
                        let x = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
                        // What codes of 4 bits give more than the weights.
                        let excess = $dot(zero, _mm256_set1_epi8(Q4_0_ZERO_CODE.cast_signed()), x);
                        let mut products = [zero; 4];
                        let mut scales = 0_u64;
                        for r in 0..4 {
                            // SAFETY: by this function's contract, of a block of a scale and 32 or 16 bytes of codes;
                            // loads need no alignment, a prefetch no valid address.
                            unsafe {
                                let block = rows.add(r * apart + number * FORM_BYTES);
                                _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(ahead).cast());
                                let codes = block.add(2);
                                products[r] = if FORM_BYTES == Q4_0_BLOCK_BYTES {
                                    $dot(_mm256_sub_epi32(zero, excess), q4_0_codes(codes), x)
                                } else {
                                    add_products(zero, _mm256_loadu_si256(codes.cast()), x)
                                };
                                scales |= u64::from(u16::from_le_bytes(block.cast::<[u8; 2]>().read())) << (16 * r);
                            }
                        }
                        let scales = _mm_cvtph_ps(_mm_cvtsi64_si128(scales.cast_signed()));
                        sums = _mm_fmadd_ps(scales, _mm_cvtepi32_ps(sums_of_lanes(products)), sums);
                    }
                    let mut out = [0.0; 4];
                    // SAFETY: room for four floats; nothing needs alignment.
                    unsafe { _mm_storeu_ps(out.as_mut_ptr(), sums) };
                    out
                }
                let row_bytes = x.len() / Q8_0_BLOCK_LEN * FORM_BYTES;
                if row_bytes == 0 {
                    out.fill(0.0);
                    return;
                }
                let num_rows = rows_there(blocks, row_bytes, runs, out.len());
                let start = |row: usize| blocks.as_ptr().wrapping_add(row * row_bytes);
                // SAFETY: the `num_rows` rows lie within `blocks`; the features were detected.
                let many = |first, apart| unsafe { dot::<FORM_BYTES>(start(first), apart * row_bytes, x) };
                // SAFETY: as above: the same row four times.
                let one = |row| unsafe { dot::<FORM_BYTES>(start(row), 0, x)[0] };
                fill_rows(runs, &mut out[..num_rows], many, one);
            }

            pub(in super::super) fn ternary_block_rows(
                blocks: &[u8],
                runs: Runs,
                x: &[i8],
                block_sums: &[i32],
                out: &mut [f32],
            ) {
                #[target_feature(enable = $features)]
                fn dot(blocks: &[u8], x: &[i8], block_sums: &[i32]) -> f32 {
                    let ahead = ahead();
                    let mask = _mm256_set1_epi8(3);
                    let mut sum = _mm256_setzero_ps();
                    let mut correction = 0.0;
                    let pairs = blocks.as_chunks::<BLOCK_BYTES>().0.iter().zip(x.as_chunks::<BLOCK_LEN>().0);
                    for ((block, x), block_sum) in pairs.zip(block_sums) {
                        let mut products = _mm256_setzero_si256();
                        // A prefetch needs no valid address.
                        _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().wrapping_add(ahead).cast());
                        for (codes, x) in block.as_chunks::<GROUP_BYTES>().0.iter().zip(x.as_chunks::<GROUP_LEN>().0) {
                            // SAFETY: codes are 32 bytes, x is 128; loads need no alignment.
                            let codes = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
                            let planes = [
                                codes,
                                _mm256_srli_epi16::<2>(codes),
                                _mm256_srli_epi16::<4>(codes),
                                _mm256_srli_epi16::<6>(codes),
                            ];
                            for (plane, x) in planes.into_iter().zip(x.as_chunks::<BYTES>().0) {
                                // SAFETY: x is 32 bytes; loads need no alignment.
                                let x = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
                                products = $dot(products, _mm256_and_si256(plane, mask), x);
                            }
                        }
                        let scale = block_scale(block);
                        let scale = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(scale.to_bits())));
                        sum = _mm256_fmadd_ps(_mm256_broadcastss_ps(scale), _mm256_cvtepi32_ps(products), sum);
                        correction += *block_sum as f32 * _mm_cvtss_f32(scale);
                    }
                    sum_floats(sum) - correction
                }
                let row_bytes = x.len() / BLOCK_LEN * BLOCK_BYTES;
                // SAFETY: this set of kernels is handed out only where its features were detected.
                each_row(blocks, row_bytes, runs, out, |row| unsafe { dot(row, x, block_sums) });
            }
        }
    };
}

byte_kernels!(plain, "avx2,fma,f16c", |sum, unsigned, signed| {
    _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned, signed), _mm256_set1_epi16(1)))
});
byte_kernels!(vnni, "avx2,fma,f16c,avxvnni", |sum, unsigned, signed| {
    _mm256_dpbusd_avx_epi32(sum, unsigned, signed)
});
// The same instruction in the encoding of AVX-512.
byte_kernels!(short_vnni, "avx2,fma,f16c,avx512f,avx512vl,avx512vnni", |sum, unsigned, signed| {
    _mm256_dpbusd_epi32(sum, unsigned, signed)
});

/// Products with rows of whole blocks, several rows at a time; others row by row, group by group.
pub(super) fn ternary_groups(rows: TernaryRows<'_>, runs: Runs, x: &[i8], out: &mut [i32]) {
    /// Products of `R` rows, `apart` bytes from start to start, whose codes of group `g` start `offset(g)` bytes after a row's.
    ///
    /// # Safety
    /// Those 32 bytes must be readable from `rows + r · apart` on for the `x.len() / 128` groups of each row.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn dot<const R: usize>(
        rows: *const u8,
        apart: usize,
        offset: impl Fn(usize) -> usize,
        x: &[i8],
    ) -> [i32; R] {
        let ahead = ahead();
        let (first, second) = (_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0c));
        let (zero, ones) = (_mm256_setzero_si256(), _mm256_set1_epi16(1));
        let mut sums = [zero; R];
        let mut group = 0;
        for run in x.chunks(GROUPS_PER_FLUSH * GROUP_LEN) {
            // Odd planes stay where they are in their bytes and count four times.
            let mut planes = [[zero; 2]; R];
            for x in run.as_chunks::<GROUP_LEN>().0 {
                let mut codes: [__m256i; R] = std::array::from_fn(|r| {
                    // SAFETY: by this function's contract; loads need no alignment, a prefetch no valid address.
                    unsafe {
                        let codes = rows.add(r * apart + offset(group));
                        _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(ahead).cast());
                        _mm256_loadu_si256(codes.cast())
                    }
                });
                for x in x.as_chunks::<{ 2 * BYTES }>().0 {
                    // SAFETY: x is 64 bytes; loads need no alignment.
                    let x = [0, BYTES].map(|at| unsafe { _mm256_loadu_si256(x.as_ptr().add(at).cast()) });
                    for (codes, [even, odd]) in codes.iter_mut().zip(&mut planes) {
                        let add = |sum: __m256i, mask, x| {
                            _mm256_add_epi16(sum, _mm256_maddubs_epi16(_mm256_and_si256(*codes, mask), x))
                        };
                        *even = add(*even, first, x[0]);
                        *odd = add(*odd, second, x[1]);
                        *codes = _mm256_srli_epi16::<4>(*codes);
                    }
                }
                group += 1;
            }
            for (sum, [even, odd]) in sums.iter_mut().zip(planes) {
                let odd = _mm256_srai_epi32::<2>(_mm256_madd_epi16(odd, ones));
                *sum = _mm256_add_epi32(*sum, _mm256_add_epi32(_mm256_madd_epi16(even, ones), odd));
            }
        }
        sums.map(|sum| sum_ints(sum))
    }
    let place = |group: usize| group / 2 * BLOCK_BYTES + group % 2 * GROUP_BYTES;
    if let Some(blocks) = whole_blocks(rows, runs, x.len(), out.len()) {
        let row_bytes = x.len() / BLOCK_LEN * BLOCK_BYTES;
        let start = |row: usize| blocks.as_ptr().wrapping_add(row * row_bytes);
        // SAFETY: all `out.len()` rows lie within `blocks`; the features were detected.
        let many = |first, apart| unsafe { dot::<PLAIN_ROWS>(start(first), apart * row_bytes, place, x) };
        // SAFETY: as above.
        let one = |row| unsafe { dot::<1>(start(row), 0, place, x)[0] };
        fill_rows(runs, out, many, one);
        return;
    }
    let (groups_per_row, run_len) = (x.len() / GROUP_LEN, out.len() / runs.num);
    for (index, out) in out.iter_mut().enumerate() {
        let first_group = rows.first_group + runs.place(index, run_len) * groups_per_row;
        let last = first_group.saturating_add(groups_per_row).saturating_sub(1);
        let end = (last / 2).saturating_mul(BLOCK_BYTES).saturating_add(last % 2 * GROUP_BYTES + GROUP_BYTES);
        if groups_per_row == 0 || end > rows.blocks.len() {
            let mut single = [0];
            scalar::ternary_rows(TernaryRows { first_group, ..rows }, Runs::ONE, x, &mut single);
            *out = single[0];
        } else {
            // SAFETY: all groups of the row lie within the blocks; the features were detected.
            [*out] = unsafe { dot::<1>(rows.blocks.as_ptr(), 0, |group| place(first_group + group), x) };
        }
    }
}

mod tiled_vnni {
    use super::*;

    pub(in super::super) fn ternary_rows(rows: TernaryRows<'_>, runs: Runs, x: &[i8], out: &mut [i32]) {
        /// Products with rows of whole blocks. Codes stay where they are in their bytes: each plane has sums of its own, which count 1, 4, 16 and 64 times.
        ///
        /// # Safety
        /// `R` rows of `x.len() / 256` blocks, `apart` bytes from start to start, must be readable from `rows` on.
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        unsafe fn dot<const R: usize>(rows: *const u8, apart: usize, x: &[i8]) -> [i32; R] {
            let ahead = ahead();
            let masks: [__m256i; 4] =
                std::array::from_fn(|plane| _mm256_set1_epi8((3_u8 << (2 * plane)).cast_signed()));
            let mut sums = [[_mm256_setzero_si256(); 4]; R];
            for (group, x) in x.as_chunks::<GROUP_LEN>().0.iter().enumerate() {
                let at = group / 2 * BLOCK_BYTES + group % 2 * GROUP_BYTES;
                let codes: [__m256i; R] = std::array::from_fn(|r| {
                    // SAFETY: by this function's contract; a prefetch may name any address.
                    unsafe {
                        let codes = rows.add(r * apart + at);
                        _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(ahead).cast());
                        _mm256_loadu_si256(codes.cast())
                    }
                });
                for (plane, x) in x.as_chunks::<BYTES>().0.iter().enumerate() {
                    // SAFETY: x is 32 bytes; loads need no alignment.
                    let x = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
                    for r in 0..R {
                        let codes = _mm256_and_si256(codes[r], masks[plane]);
                        sums[r][plane] = _mm256_dpbusd_avx_epi32(sums[r][plane], codes, x);
                    }
                }
            }
            sums.map(|[a, b, c, d]| {
                let (b, c) = (_mm256_srai_epi32::<2>(b), _mm256_srai_epi32::<4>(c));
                let d = _mm256_srai_epi32::<6>(d);
                sum_ints(_mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)))
            })
        }
        let Some(blocks) = whole_blocks(rows, runs, x.len(), out.len()) else {
            return ternary_groups(rows, runs, x, out);
        };
        let row_bytes = x.len() / BLOCK_LEN * BLOCK_BYTES;
        let start = |row: usize| blocks.as_ptr().wrapping_add(row * row_bytes);
        // SAFETY: all `out.len()` rows lie within `blocks`; the features were detected.
        let many = |first, apart| unsafe { dot::<ROWS>(start(first), apart * row_bytes, x) };
        // SAFETY: as above.
        let one = |row| unsafe { dot::<1>(start(row), 0, x)[0] };
        fill_rows(runs, out, many, one);
    }

    pub(in super::super) fn multiply(codes: &CodeRows, x: &Quantized, out: &mut [i32]) {
        /// # Safety
        /// `R` rows of `x[0].len()` bytes, `stride` apart, must be readable from `codes` on; all of `x` must be as long, a
        /// multiple of 32.
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        unsafe fn tile<const R: usize, const T: usize>(
            codes: *const u8,
            stride: usize,
            x: [&[i8]; T],
        ) -> [[i32; T]; R] {
            let mut sums = [[_mm256_setzero_si256(); T]; R];
            for at in (0..x[0].len()).step_by(BYTES) {
                let weights: [__m256i; R] = std::array::from_fn(|r| {
                    // SAFETY: by this function's contract.
                    unsafe { _mm256_loadu_si256(codes.add(r * stride + at).cast()) }
                });
                for t in 0..T {
                    // SAFETY: by this function's contract.
                    let inputs = unsafe { _mm256_loadu_si256(x[t].as_ptr().add(at).cast()) };
                    for r in 0..R {
                        sums[r][t] = _mm256_dpbusd_avx_epi32(sums[r][t], weights[r], inputs);
                    }
                }
            }
            sums.map(|sums| sums.map(|sum| sum_ints(sum)))
        }
        multiply_in_tiles::<3, 3>(
            codes,
            x,
            out,
            // SAFETY: `multiply_in_tiles` keeps the contract; the features were detected.
            |codes, stride, x| unsafe { tile::<3, 3>(codes, stride, x) },
            // SAFETY: as above.
            |codes, stride, x| unsafe { tile::<1, 1>(codes, stride, [x])[0][0] },
        );
    }
}

fn multiply_16_bit(codes: &CodeRows, x: &Quantized, out: &mut [i32]) {
    /// Codes up to 3: pairs of products are summed in 16 bits.
    ///
    /// # Safety
    /// `R` rows of `x[0].len()` bytes, `stride` apart, must be readable from `codes` on; all of `x` must be as long, a
    /// multiple of 32.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn small<const R: usize, const T: usize>(codes: *const u8, stride: usize, x: [&[i8]; T]) -> [[i32; T]; R] {
        let ones = _mm256_set1_epi16(1);
        let mut sums = [[_mm256_setzero_si256(); T]; R];
        let len = x[0].len();
        for start in (0..len).step_by(STEPS_PER_FLUSH * BYTES) {
            let mut pairs = [[_mm256_setzero_si256(); T]; R];
            for at in (start..len.min(start + STEPS_PER_FLUSH * BYTES)).step_by(BYTES) {
                let weights: [__m256i; R] = std::array::from_fn(|r| {
                    // SAFETY: by this function's contract.
                    unsafe { _mm256_loadu_si256(codes.add(r * stride + at).cast()) }
                });
                for t in 0..T {
                    // SAFETY: by this function's contract.
                    let inputs = unsafe { _mm256_loadu_si256(x[t].as_ptr().add(at).cast()) };
                    for r in 0..R {
                        pairs[r][t] = _mm256_add_epi16(pairs[r][t], _mm256_maddubs_epi16(weights[r], inputs));
                    }
                }
            }
            for r in 0..R {
                for t in 0..T {
                    sums[r][t] = _mm256_add_epi32(sums[r][t], _mm256_madd_epi16(pairs[r][t], ones));
                }
            }
        }
        sums.map(|sums| sums.map(|sum| sum_ints(sum)))
    }
    /// Any codes: both sides are widened to 16 bits.
    ///
    /// # Safety
    /// As `small`.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn wide<const R: usize, const T: usize>(codes: *const u8, stride: usize, x: [&[i8]; T]) -> [[i32; T]; R] {
        let mut sums = [[_mm256_setzero_si256(); T]; R];
        for at in (0..x[0].len()).step_by(BYTES / 2) {
            let weights: [__m256i; R] = std::array::from_fn(|r| {
                // SAFETY: by this function's contract.
                _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(codes.add(r * stride + at).cast()) })
            });
            for t in 0..T {
                // SAFETY: by this function's contract.
                let inputs = _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(x[t].as_ptr().add(at).cast()) });
                for r in 0..R {
                    sums[r][t] = _mm256_add_epi32(sums[r][t], _mm256_madd_epi16(weights[r], inputs));
                }
            }
        }
        sums.map(|sums| sums.map(|sum| sum_ints(sum)))
    }
    let is_small = codes.largest <= SMALL_CODE;
    multiply_in_tiles::<2, 3>(
        codes,
        x,
        out,
        // SAFETY: `multiply_in_tiles` keeps the contract; the features were detected.
        |codes, stride, x| unsafe {
            if is_small { small::<2, 3>(codes, stride, x) } else { wide::<2, 3>(codes, stride, x) }
        },
        // SAFETY: as above.
        |codes, stride, x| unsafe {
            if is_small { small::<1, 1>(codes, stride, [x])[0][0] } else { wide::<1, 1>(codes, stride, [x])[0][0] }
        },
    );
}
