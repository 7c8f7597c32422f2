//! The kernels for 64-bit ARM: 128-bit vectors, with the instruction that adds four products of bytes per lane where the
//! processor has it (dotprod), with widening products elsewhere. Float loops are the reference's: every such processor
//! has the vector registers that the compiler gives them.
//!
//! Each public function is safe: it is reached only after the features were detected ([`available`]), and reads only
//! inside its slices, whose lengths it checks first.
#![allow(unsafe_code, reason = "vector loads from slices, and calls into functions compiled for detected features")]

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use foretrain_ternary::{BLOCK_BYTES, BLOCK_LEN, GROUP_BYTES, GROUP_LEN, block_scale};
use half::f16;

use super::streams::each_row;
use super::tile::{multiply_in_tiles, rows_left_over, scales_of_rows, whole_blocks};
use super::{CodeRows, Kernels, Quantized, ScaledRowsKernel, TernaryRows, neon_triples, scalar};
use crate::gguf::{Q4_0_BLOCK_BYTES, Q4_0_ZERO_CODE, Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN};
use crate::runtime::Runs;

/// Bytes in a vector.
const BYTES: usize = 16;
/// Codes from here on are negative as signed bytes.
const FIRST_NEGATIVE: u8 = 128;

static NEON: Kernels = Kernels {
    name: "neon",
    int8_rows: plain::int8_rows,
    q8_0_rows: plain::q8_0_rows,
    q4_0_rows: plain::q4_0_rows,
    q8_0_tiles: Some(plain::q8_0_tiles),
    ternary_rows: plain::ternary_rows,
    ternary_block_rows: plain::ternary_block_rows,
    triples: &neon_triples::KERNELS,
    multiply: plain::multiply,
    ..scalar::KERNELS
};

static DOTPROD: Kernels = Kernels {
    name: "neon-dotprod",
    int8_rows: dotprod::int8_rows,
    q8_0_rows: dotprod::q8_0_rows,
    q4_0_rows: dotprod::q4_0_rows,
    q8_0_tiles: Some(dotprod::q8_0_tiles),
    ternary_rows: dotprod::ternary_rows,
    ternary_block_rows: dotprod::ternary_block_rows,
    triples: &neon_triples::KERNELS,
    multiply: dotprod::multiply,
    ..scalar::KERNELS
};

/// The sets that run here, slower first.
pub(super) fn available() -> Vec<&'static Kernels> {
    let has_neon = is_aarch64_feature_detected!("neon");
    let has_dotprod = has_neon && is_aarch64_feature_detected!("dotprod");
    [has_neon.then_some(&NEON), has_dotprod.then_some(&DOTPROD)].into_iter().flatten().collect()
}

/// Products of rows of Q8_0 blocks with all of `x` into `out` (inputs, rows), by `tile` for `R` rows and `T` inputs at once and
/// `one`, for one input, for what is left. `tile` gets its rows, `row_bytes` apart, inputs as long, and the scales of each
/// block in all rows.
fn blocks_in_tiles<const R: usize, const T: usize>(
    blocks: &[u8],
    x: &Quantized,
    out: &mut [f32],
    tile: impl Fn(&[u8], usize, [&[i8]; T], &[[f32; R]]) -> [[f32; T]; R],
    one: ScaledRowsKernel,
) {
    let num_inputs = x.num_rows();
    let num_rows = out.len() / num_inputs.max(1);
    let blocks_per_row = x.row(0).len() / Q8_0_BLOCK_LEN;
    let row_bytes = blocks_per_row * Q8_0_BLOCK_BYTES;
    let tiled = if num_inputs > 1 { num_rows / R * R } else { 0 };
    let mut scales = vec![[0.0; R]; blocks_per_row];
    for first_row in (0..tiled).step_by(R) {
        let Some(rows) = blocks.get(first_row * row_bytes..(first_row + R) * row_bytes) else { return };
        scales_of_rows(rows, row_bytes, &mut scales);
        for first in (0..num_inputs).step_by(T) {
            let count = T.min(num_inputs - first);
            // A tile that is not full repeats its last input.
            let xs = std::array::from_fn(|t| x.row(first + t.min(count - 1)));
            let sums = tile(rows, row_bytes, xs, &scales);
            for t in 0..count {
                let out = &mut out[(first + t) * num_rows + first_row..][..R];
                for (out, sums) in out.iter_mut().zip(&sums) {
                    *out = sums[t];
                }
            }
        }
    }
    rows_left_over(blocks.get(tiled * row_bytes..).unwrap_or_default(), x, out, tiled, one);
}

/// Defines the kernels in a module of their own: `$add` adds to four 32-bit sums the products of signed bytes.
macro_rules! byte_kernels {
    ($module:ident, $features:literal, $add:expr) => {
        mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            fn add_products(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
                $add(sum, w, x)
            }

            /// The four planes of 16 code bytes.
            #[target_feature(enable = $features)]
            fn planes(codes: uint8x16_t) -> [int8x16_t; 4] {
                let mask = vdupq_n_u8(3);
                let planes = [
                    vandq_u8(codes, mask),
                    vandq_u8(vshrq_n_u8::<2>(codes), mask),
                    vandq_u8(vshrq_n_u8::<4>(codes), mask),
                    vshrq_n_u8::<6>(codes),
                ];
                planes.map(|plane| vreinterpretq_s8_u8(plane))
            }

            /// Adds the products of one group.
            #[target_feature(enable = $features)]
            fn add_group(sums: &mut [int32x4_t; 2], codes: &[u8; GROUP_BYTES], x: &[i8; GROUP_LEN]) {
                for (half, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: 16 bytes from 0 or 16 on lie within the 32.
                    let codes = unsafe { vld1q_u8(codes.as_ptr().add(half * BYTES)) };
                    for (plane, codes) in planes(codes).into_iter().enumerate() {
                        // SAFETY: plane · 32 + half · 16 + 16 is within the 128.
                        let x = unsafe { vld1q_s8(x.as_ptr().add(plane * GROUP_BYTES + half * BYTES)) };
                        *sum = add_products(*sum, codes, x);
                    }
                }
            }

            pub(super) fn int8_rows(values: &[u8], runs: Runs, x: &[i8], out: &mut [i32]) {
                #[target_feature(enable = $features)]
                fn dot(weights: &[u8], x: &[i8]) -> i32 {
                    let mut sum = vdupq_n_s32(0);
                    let (weights, rest_of_weights) = weights.as_chunks::<BYTES>();
                    let (inputs, rest) = x.as_chunks::<BYTES>();
                    for (weights, x) in weights.iter().zip(inputs) {
                        // SAFETY: both are 16 bytes; loads need no alignment.
                        let (w, x) = unsafe { (vld1q_s8(weights.as_ptr().cast()), vld1q_s8(x.as_ptr())) };
                        sum = add_products(sum, w, x);
                    }
                    let mut last = [0];
                    if !rest.is_empty() {
                        scalar::int8_rows(rest_of_weights, Runs::ONE, rest, &mut last);
                    }
                    vaddvq_s32(sum) + last[0]
                }
                // SAFETY: this set of kernels is handed out only where its features were detected.
                each_row(values, x.len(), runs, out, |row| unsafe { dot(row, x) });
            }

            pub(super) fn q8_0_rows(blocks: &[u8], runs: Runs, x: &[i8], out: &mut [f32]) {
                block_rows::<Q8_0_BLOCK_BYTES>(blocks, runs, x, out);
            }

            pub(super) fn q4_0_rows(blocks: &[u8], runs: Runs, x: &[i8], out: &mut [f32]) {
                block_rows::<Q4_0_BLOCK_BYTES>(blocks, runs, x, out);
            }

            /// Rows of blocks of 32 weights in `FORM_BYTES` bytes, which tell Q8_0 from Q4_0.
            fn block_rows<const FORM_BYTES: usize>(blocks: &[u8], runs: Runs, x: &[i8], out: &mut [f32]) {
                /// The weights of a block, without its scale.
                #[target_feature(enable = $features)]
                fn weights<const FORM_BYTES: usize>(block: &[u8; FORM_BYTES]) -> [int8x16_t; 2] {
                    let codes = block[2..].as_ptr();
                    if FORM_BYTES == Q4_0_BLOCK_BYTES {
                        // SAFETY: 16 bytes follow a block's scale; loads need no alignment.
                        let packed = unsafe { vld1q_u8(codes) };
                        let zero = vdupq_n_s8(Q4_0_ZERO_CODE.cast_signed());
                        let codes = [vandq_u8(packed, vdupq_n_u8(15)), vshrq_n_u8::<4>(packed)];
                        codes.map(|codes| vsubq_s8(vreinterpretq_s8_u8(codes), zero))
                    } else {
                        // SAFETY: 32 bytes follow a block's scale; loads need no alignment.
                        unsafe { [vld1q_s8(codes.cast()), vld1q_s8(codes.add(BYTES).cast())] }
                    }
                }
                #[target_feature(enable = $features)]
                fn dot<const FORM_BYTES: usize>(blocks: &[u8], x: &[i8]) -> f32 {
                    let mut sum = vdupq_n_f32(0.0);
                    let pairs = blocks.as_chunks::<FORM_BYTES>().0.iter().zip(x.as_chunks::<Q8_0_BLOCK_LEN>().0);
                    for (block, x) in pairs {
                        let mut products = vdupq_n_s32(0);
                        for (half, w) in weights(block).into_iter().enumerate() {
                            // SAFETY: x is 32 bytes; loads need no alignment.
                            let x = unsafe { vld1q_s8(x.as_ptr().add(half * BYTES)) };
                            products = add_products(products, w, x);
                        }
                        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                        sum = vfmaq_n_f32(sum, vcvtq_f32_s32(products), scale);
                    }
                    vaddvq_f32(sum)
                }
                let row_bytes = x.len() / Q8_0_BLOCK_LEN * FORM_BYTES;
                // SAFETY: this set of kernels is handed out only where its features were detected.
                each_row(blocks, row_bytes, runs, out, |row| unsafe { dot::<FORM_BYTES>(row, x) });
            }

            pub(super) fn q8_0_tiles(blocks: &[u8], x: &Quantized, out: &mut [f32]) {
                /// # Safety
                /// `rows` must have `row_bytes` for each of `R` rows, a block for each of `scales`; each of `x` must have as
                /// many times 32 numbers.
                #[target_feature(enable = $features)]
                unsafe fn tile<const R: usize, const T: usize>(
                    rows: &[u8],
                    row_bytes: usize,
                    x: [&[i8]; T],
                    scales: &[[f32; R]],
                ) -> [[f32; T]; R] {
                    let mut sums = [[vdupq_n_f32(0.0); T]; R];
                    for (block, scales) in scales.iter().enumerate() {
                        let weights: [[int8x16_t; 2]; R] = std::array::from_fn(|r| {
                            // SAFETY: the block's 32 codes follow its scale, by this function's contract.
                            unsafe {
                                let codes = rows.as_ptr().add(r * row_bytes + block * Q8_0_BLOCK_BYTES + 2);
                                [vld1q_s8(codes.cast()), vld1q_s8(codes.add(BYTES).cast())]
                            }
                        });
                        for t in 0..T {
                            // SAFETY: the block's 32 numbers lie within x, by this function's contract.
                            let inputs = unsafe {
                                let inputs = x[t].as_ptr().add(block * Q8_0_BLOCK_LEN);
                                [vld1q_s8(inputs), vld1q_s8(inputs.add(BYTES))]
                            };
                            for r in 0..R {
                                let products = add_products(vdupq_n_s32(0), weights[r][0], inputs[0]);
                                let products = vcvtq_f32_s32(add_products(products, weights[r][1], inputs[1]));
                                sums[r][t] = vfmaq_n_f32(sums[r][t], products, scales[r]);
                            }
                        }
                    }
                    sums.map(|sums| sums.map(|sum| vaddvq_f32(sum)))
                }
                blocks_in_tiles::<4, 4>(
                    blocks,
                    x,
                    out,
                    // SAFETY: `blocks_in_tiles` keeps the contract; the features were detected.
                    |rows, row_bytes, x, scales| unsafe { tile::<4, 4>(rows, row_bytes, x, scales) },
                    q8_0_rows,
                );
            }

            pub(super) fn ternary_rows(rows: TernaryRows<'_>, runs: Runs, x: &[i8], out: &mut [i32]) {
                #[target_feature(enable = $features)]
                fn dot(blocks: &[u8], x: &[i8]) -> i32 {
                    let mut sums = [vdupq_n_s32(0); 2];
                    let pairs = blocks.as_chunks::<BLOCK_BYTES>().0.iter().zip(x.as_chunks::<BLOCK_LEN>().0);
                    for (block, x) in pairs {
                        for (codes, x) in block.as_chunks::<GROUP_BYTES>().0.iter().zip(x.as_chunks::<GROUP_LEN>().0) {
                            add_group(&mut sums, codes, x);
                        }
                    }
                    vaddvq_s32(vaddq_s32(sums[0], sums[1]))
                }
                let Some(blocks) = whole_blocks(rows, runs, x.len(), out.len()) else {
                    return ternary_groups(rows, runs, x, out);
                };
                let row_bytes = x.len() / BLOCK_LEN * BLOCK_BYTES;
                // SAFETY: this set of kernels is handed out only where its features were detected.
                each_row(blocks, row_bytes, runs, out, |row| unsafe { dot(row, x) });
            }

            /// Rows of any start and length.
            fn ternary_groups(rows: TernaryRows<'_>, runs: Runs, x: &[i8], out: &mut [i32]) {
                #[target_feature(enable = $features)]
                fn dot(blocks: &[u8], first_group: usize, x: &[i8]) -> i32 {
                    let mut sums = [vdupq_n_s32(0); 2];
                    for (group, x) in (first_group..).zip(x.as_chunks::<GROUP_LEN>().0) {
                        let codes = foretrain_ternary::group_codes(blocks, group).and_then(<[u8]>::first_chunk);
                        let Some(codes) = codes else { break };
                        add_group(&mut sums, codes, x);
                    }
                    vaddvq_s32(vaddq_s32(sums[0], sums[1]))
                }
                let len = out.len() / runs.num;
                for (index, out) in out.iter_mut().enumerate() {
                    let first_group = rows.first_group + runs.place(index, len) * (x.len() / GROUP_LEN);
                    // SAFETY: this set of kernels is handed out only where its features were detected.
                    *out = unsafe { dot(rows.blocks, first_group, x) };
                }
            }

            pub(super) fn ternary_block_rows(blocks: &[u8], runs: Runs, x: &[i8], block_sums: &[i32], out: &mut [f32]) {
                #[target_feature(enable = $features)]
                fn dot(blocks: &[u8], x: &[i8], block_sums: &[i32]) -> f32 {
                    let mut sum = 0.0;
                    let pairs = blocks.as_chunks::<BLOCK_BYTES>().0.iter().zip(x.as_chunks::<BLOCK_LEN>().0);
                    for ((block, x), block_sum) in pairs.zip(block_sums) {
                        let mut sums = [vdupq_n_s32(0); 2];
                        for (codes, x) in block.as_chunks::<GROUP_BYTES>().0.iter().zip(x.as_chunks::<GROUP_LEN>().0) {
                            add_group(&mut sums, codes, x);
                        }
                        let products = vaddvq_s32(vaddq_s32(sums[0], sums[1])) - block_sum;
                        sum += products as f32 * block_scale(block).to_f32();
                    }
                    sum
                }
                let row_bytes = x.len() / BLOCK_LEN * BLOCK_BYTES;
                // SAFETY: this set of kernels is handed out only where its features were detected.
                each_row(blocks, row_bytes, runs, out, |row| unsafe { dot(row, x, block_sums) });
            }

            pub(super) fn multiply(codes: &CodeRows, x: &Quantized, out: &mut [i32]) {
                /// Products of signed bytes: `flip` turns codes into them.
                ///
                /// # Safety
                /// `R` rows of `x[0].len()` bytes, `stride` apart, must be readable from `codes` on; all of `x` must be as
                /// long, a multiple of 16.
                #[target_feature(enable = $features)]
                unsafe fn tile<const R: usize, const T: usize>(
                    codes: *const u8,
                    stride: usize,
                    x: [&[i8]; T],
                    flip: u8,
                ) -> [[i32; T]; R] {
                    let flip = vdupq_n_u8(flip);
                    let mut sums = [[vdupq_n_s32(0); T]; R];
                    for at in (0..x[0].len()).step_by(BYTES) {
                        let weights: [int8x16_t; R] = std::array::from_fn(|r| {
                            // SAFETY: by this function's contract.
                            let codes = unsafe { vld1q_u8(codes.add(r * stride + at)) };
                            vreinterpretq_s8_u8(veorq_u8(codes, flip))
                        });
                        for t in 0..T {
                            // SAFETY: by this function's contract.
                            let inputs = unsafe { vld1q_s8(x[t].as_ptr().add(at)) };
                            for r in 0..R {
                                sums[r][t] = add_products(sums[r][t], weights[r], inputs);
                            }
                        }
                    }
                    sums.map(|sums| sums.map(|sum| vaddvq_s32(sum)))
                }
                let flip = if codes.largest >= FIRST_NEGATIVE { FIRST_NEGATIVE } else { 0 };
                multiply_in_tiles::<4, 4>(
                    codes,
                    x,
                    out,
                    // SAFETY: `multiply_in_tiles` keeps the contract; the features were detected.
                    |codes, stride, x| unsafe { tile::<4, 4>(codes, stride, x, flip) },
                    // SAFETY: as above.
                    |codes, stride, x| unsafe { tile::<1, 1>(codes, stride, [x], flip)[0][0] },
                );
                // A flipped code is 128 less.
                for (input, sum) in out.chunks_exact_mut(codes.num_rows().max(1)).zip(&x.sums) {
                    for out in input {
                        *out = out.wrapping_add(sum.wrapping_mul(i32::from(flip)));
                    }
                }
            }
        }
    };
}

byte_kernels!(plain, "neon", |sum, w, x| {
    // A product is at most 128 · 127, so that it fits 16 bits.
    let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    vpadalq_s16(vpadalq_s16(sum, low), vmull_high_s8(w, x))
});
byte_kernels!(dotprod, "neon,dotprod", |sum: int32x4_t, w: int8x16_t, x: int8x16_t| {
    let mut sum = sum;
    // The compiler's own function for this instruction is not stable yet.
    // SAFETY: the instruction reads and writes registers only; the features were detected.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) w, in(vreg) x, options(pure, nomem, nostack));
    }
    sum
});
