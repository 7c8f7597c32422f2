//! Products of rows of Q8_0 blocks with many inputs by AVX-512 VNNI: two blocks at a time, a scale for each half of a
//! vector.
#![allow(unsafe_code, reason = "vector loads from slices, and calls into functions compiled for detected features")]

use std::arch::x86_64::*;

use super::Quantized;
use super::avx2::short_vnni::q8_0_rows;
use super::tile::blocks_in_tiles;
use crate::gguf::{Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN};

/// Rows and inputs of a tile: its sums fill 16 of 32 registers.
const ROWS: usize = 4;
const INPUTS: usize = 4;
/// Numbers of two blocks.
const PAIR_LEN: usize = 2 * Q8_0_BLOCK_LEN;
const PAIR_BYTES: usize = 2 * Q8_0_BLOCK_BYTES;
/// Lanes of the second block.
const UPPER_HALF: u16 = 0xff00;

/// See [`super::Kernels::q8_0_tiles`].
pub(super) fn q8_0_tiles(blocks: &[u8], x: &Quantized, out: &mut [f32]) {
    blocks_in_tiles::<ROWS, INPUTS>(
        blocks,
        x,
        out,
        // SAFETY: `blocks_in_tiles` keeps the contract; the features were detected.
        |rows, row_bytes, x, scales| unsafe { tile(rows, row_bytes, x, scales) },
        q8_0_rows,
    );
}

/// The products of [`ROWS`] rows with each of `x`, by row.
///
/// # Safety
/// `rows` must have `row_bytes` for each row, a block for each of `scales`; each of `x` must have as many times 32 numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile(rows: &[u8], row_bytes: usize, x: [&[i8]; INPUTS], scales: &[[f32; ROWS]]) -> [[f32; INPUTS]; ROWS] {
    // The instruction multiplies unsigned with signed bytes: x + 128 with w, less 128 · w.
    let offset = _mm512_set1_epi8(i8::MIN);
    let zero = _mm512_setzero_si512();
    let mut sums = [[_mm512_setzero_ps(); INPUTS]; ROWS];
    for (pair, pair_scales) in scales.chunks(2).enumerate() {
        // Of a last block without a neighbor the second half is zeros.
        let (first, second) = (&pair_scales[0], pair_scales.last().unwrap_or(&pair_scales[0]));
        let is_whole = pair_scales.len() == 2;
        let mask = if is_whole { u64::MAX } else { u64::MAX >> Q8_0_BLOCK_LEN };
        let mut weights = [zero; ROWS];
        let mut starts = [zero; ROWS];
        let mut weight_scales = [_mm512_setzero_ps(); ROWS];
        for r in 0..ROWS {
            // SAFETY: the blocks' 32 codes follow their scales, by this function's contract; nothing needs alignment.
            let (low, high) = unsafe {
                let block = rows.as_ptr().add(r * row_bytes + pair * PAIR_BYTES);
                let low = _mm256_loadu_si256(block.add(2).cast());
                (
                    low,
                    if is_whole {
                        _mm256_loadu_si256(block.add(Q8_0_BLOCK_BYTES + 2).cast())
                    } else {
                        _mm256_setzero_si256()
                    },
                )
            };
            weights[r] = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            starts[r] = _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, offset, weights[r]));
            weight_scales[r] = _mm512_mask_blend_ps(UPPER_HALF, _mm512_set1_ps(first[r]), _mm512_set1_ps(second[r]));
        }
        for t in 0..INPUTS {
            // SAFETY: the numbers that are not masked lie within x by this function's contract.
            let inputs = unsafe { _mm512_maskz_loadu_epi8(mask, x[t].as_ptr().add(pair * PAIR_LEN)) };
            let inputs = _mm512_xor_si512(inputs, offset);
            for r in 0..ROWS {
                let products = _mm512_dpbusd_epi32(starts[r], inputs, weights[r]);
                sums[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), weight_scales[r], sums[r][t]);
            }
        }
    }
    sums.map(|sums| sums.map(|sum| _mm512_reduce_add_ps(sum)))
}
