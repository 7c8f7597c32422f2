//! Products of rows of Q8_0 blocks with many inputs on the matrix unit: 16 x 16 sums of a block's 32 products at once,
//! scaled and added up as floats, as each block has a scale of its own. Blocks are read where they lie.
#![allow(unsafe_code, reason = "matrix instructions exist as assembly only; tiles are loaded from slices")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::Quantized;
use super::avx2::short_vnni::q8_0_rows;
use super::matrix_unit::{TileConfig, configure_as, release};
use super::quantize::{TILE_INPUTS, TILE_LEN};
use super::tile::{rows_left_over, scales_of_rows};
use crate::gguf::{Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN};

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Bytes of 16 inputs' numbers for one block.
const INPUT_BYTES: usize = TILE_INPUTS * Q8_0_BLOCK_LEN;
/// Sums; a block of each row; 16 inputs' numbers for it, four of each in a row.
static CONFIG: TileConfig = TileConfig::new([(16, 64), (16, 32), (8, 64), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)]);

/// Sums of two blocks, so that one can be computed while the other is added up.
#[repr(align(64))]
struct Sums([[i32; TILE_ROWS * TILE_INPUTS]; 2]);

/// See [`super::Kernels::q8_0_tiles`].
pub(super) fn q8_0_tiles(blocks: &[u8], x: &Quantized, out: &mut [f32]) {
    let num_inputs = x.num_rows();
    let num_rows = out.len() / num_inputs.max(1);
    let blocks_per_row = x.row(0).len() / Q8_0_BLOCK_LEN;
    let row_bytes = blocks_per_row * Q8_0_BLOCK_BYTES;
    let steps = x.padded_row(0).len() / TILE_LEN;
    let num_tiles = num_inputs.div_ceil(TILE_INPUTS);
    let tile_bytes = steps * TILE_INPUTS * TILE_LEN;
    let is_fitting =
        blocks_per_row > 0 && x.tiles.len() == num_tiles * tile_bytes && blocks.len() >= num_rows * row_bytes;
    let tiled_rows = if is_fitting { num_rows / TILE_ROWS * TILE_ROWS } else { 0 };
    let mut scales = vec![[0.0_f32; TILE_ROWS]; blocks_per_row];
    // SAFETY: `amx::available` asked for the unit.
    unsafe { configure_as(&CONFIG) };
    for first_row in (0..tiled_rows).step_by(TILE_ROWS) {
        let rows = &blocks[first_row * row_bytes..(first_row + TILE_ROWS) * row_bytes];
        scales_of_rows(rows, row_bytes, &mut scales);
        for (tile, inputs) in x.tiles.chunks_exact(tile_bytes).enumerate() {
            // SAFETY: 16 rows of as many blocks as there are scales; of the inputs, 64 numbers each for every two blocks; the
            // tile registers are configured; the features were detected.
            let sums = unsafe { scaled_sums(rows.as_ptr(), row_bytes, inputs.as_ptr(), &scales) };
            let first = tile * TILE_INPUTS;
            for t in 0..TILE_INPUTS.min(num_inputs - first) {
                let out = &mut out[(first + t) * num_rows + first_row..][..TILE_ROWS];
                for (out, sums) in out.iter_mut().zip(&sums) {
                    *out = sums[t];
                }
            }
        }
    }
    // SAFETY: the tiles' sums were stored.
    unsafe { release() };
    rows_left_over(blocks.get(tiled_rows * row_bytes..).unwrap_or_default(), x, out, tiled_rows, q8_0_rows);
}

/// The products of 16 rows with 16 inputs, by row.
///
/// # Safety
/// 16 rows of `scales.len()` blocks, `row_bytes` apart, must be readable from `rows` on, and 512 bytes for each block from
/// `inputs` on; the tile registers must have the shapes of [`CONFIG`].
#[target_feature(enable = "avx512f")]
unsafe fn scaled_sums(
    rows: *const u8,
    row_bytes: usize,
    inputs: *const i8,
    scales: &[[f32; TILE_ROWS]],
) -> [[f32; TILE_INPUTS]; TILE_ROWS] {
    let mut sums = [_mm512_setzero_ps(); TILE_ROWS];
    let mut products = Sums([[0; TILE_ROWS * TILE_INPUTS]; 2]);
    let products = products.0.as_mut_ptr();
    let multiply = |block: usize| {
        // SAFETY: the block's 32 codes follow its scale in each row; its inputs are 512 bytes; sums have room for 16 rows of
        // 64 bytes. No compiled code uses the tile registers.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm1, [{codes} + {row_bytes}*1]",
                "tileloadd tmm2, [{inputs} + {line}*1]",
                "tdpbssd tmm0, tmm1, tmm2",
                "tilestored [{products} + {line}*1], tmm0",
                codes = in(reg) rows.add(block * Q8_0_BLOCK_BYTES + 2),
                row_bytes = in(reg) row_bytes,
                inputs = in(reg) inputs.add(block * INPUT_BYTES),
                line = in(reg) TILE_LEN,
                products = in(reg) products.add(block % 2),
                out("tmm0") _, out("tmm1") _, out("tmm2") _,
                options(nostack),
            );
        }
    };
    if !scales.is_empty() {
        multiply(0);
    }
    for (block, block_scales) in scales.iter().enumerate() {
        if block + 1 < scales.len() {
            multiply(block + 1);
        }
        for (r, (sum, scale)) in sums.iter_mut().zip(block_scales).enumerate() {
            // SAFETY: 16 sums of row r, which the assembly wrote a step before.
            let products = unsafe { _mm512_loadu_si512(products.add(block % 2).cast::<__m512i>().add(r)) };
            *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_set1_ps(*scale), *sum);
        }
    }
    sums.map(|sum| {
        let mut numbers = [0.0; TILE_INPUTS];
        // SAFETY: room for 16 floats; nothing needs alignment.
        unsafe { _mm512_storeu_ps(numbers.as_mut_ptr(), sum) };
        numbers
    })
}
