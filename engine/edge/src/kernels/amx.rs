//! Products of many rows with many inputs on the matrix unit of processors with AMX (Linux): 16 x 16 sums of 64 products
//! each at once. Everything else is the AVX-512 set's.
//!
//! The compiler's own functions for these instructions are not stable yet, hence assembly.
#![allow(unsafe_code, reason = "matrix instructions exist as assembly only; tiles are loaded from slices")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::quantize::{TILE_INPUTS, TILE_LEN};
use super::{CodeRows, Kernels, PANEL_ROWS, Quantized, amx_blocks, avx512, matrix_unit};

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Inputs of two tiles side by side: four tiles of sums use each tile that is loaded twice.
const INPUTS: usize = 2 * TILE_INPUTS;

/// The set, where it runs: the processor has it, and the kernel lets this process use it.
pub(super) fn available() -> Option<&'static Kernels> {
    let avx512 = avx512::available()?;
    let is_usable = matrix_unit::has_int8() && matrix_unit::request();
    is_usable.then(|| {
        static AMX: std::sync::OnceLock<Kernels> = std::sync::OnceLock::new();
        let q8_0_tiles = Some(amx_blocks::q8_0_tiles as super::BlockTilesKernel);
        AMX.get_or_init(|| Kernels { name: "amx-int8", multiply, q8_0_tiles, reads_tiles: true, ..*avx512 })
    })
}

fn multiply(codes: &CodeRows, x: &Quantized, out: &mut [i32]) {
    let (num_rows, num_inputs) = (codes.num_rows(), x.num_rows());
    let steps = x.padded_row(0).len() / TILE_LEN;
    let tile_bytes = TILE_INPUTS * TILE_LEN;
    let num_tiles = num_inputs.div_ceil(TILE_INPUTS);
    let is_fitting = steps > 0
        && x.tiles.len() == num_tiles * steps * tile_bytes
        && codes.codes().len() >= PANEL_ROWS * codes.stride()
        && codes.stride() >= steps * TILE_LEN
        && out.len() >= num_rows * num_inputs;
    if !is_fitting {
        // One input alone has no tiles.
        return avx512::multiply(codes, x, out);
    }
    let mut sums = [[0_i32; INPUTS]; PANEL_ROWS];
    let mut turned = [[0_i32; PANEL_ROWS]; INPUTS];
    // SAFETY: `available` asked for the unit.
    unsafe { matrix_unit::configure() };
    for first in (0..num_tiles).step_by(2) {
        // The last tile, when it has no neighbor, is multiplied twice.
        let second = (first + 1).min(num_tiles - 1);
        let rows = codes.codes().as_ptr();
        // SAFETY: rows: two tiles of 16 rows, `stride` apart, of `steps` times 64 bytes, all within the codes' 32 rows;
        // inputs: `steps` tiles of 1024 bytes from each of two tile rows within `x.tiles`; sums: 32 rows of 128 bytes. The
        // tile registers are configured; no compiled code uses them.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{rows} + {stride}*1]",
                "tileloadd tmm6, [{inputs} + {row}*1]",
                "tdpbusd tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{more_inputs} + {row}*1]",
                "tdpbusd tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{more_rows} + {stride}*1]",
                "tdpbusd tmm2, tmm5, tmm6",
                "tdpbusd tmm3, tmm5, tmm7",
                "add {rows}, 64",
                "add {more_rows}, 64",
                "add {inputs}, 1024",
                "add {more_inputs}, 1024",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {sums_stride}*1], tmm0",
                "tilestored [{sums} + {sums_stride}*1 + 64], tmm1",
                "tilestored [{more_sums} + {sums_stride}*1], tmm2",
                "tilestored [{more_sums} + {sums_stride}*1 + 64], tmm3",
                rows = inout(reg) rows => _,
                more_rows = inout(reg) rows.add(TILE_ROWS * codes.stride()) => _,
                inputs = inout(reg) x.tiles.as_ptr().add(first * steps * tile_bytes) => _,
                more_inputs = inout(reg) x.tiles.as_ptr().add(second * steps * tile_bytes) => _,
                steps = inout(reg) steps => _,
                stride = in(reg) codes.stride(),
                row = in(reg) TILE_LEN,
                sums = in(reg) sums.as_mut_ptr(),
                more_sums = in(reg) sums.as_mut_ptr().add(TILE_ROWS),
                sums_stride = in(reg) INPUTS * 4,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
        let start = first * TILE_INPUTS;
        let count = INPUTS.min(num_inputs - start);
        // SAFETY: the features were detected.
        unsafe { turn(&sums, &mut turned) };
        for (input, sums) in turned.iter().take(count).enumerate() {
            let at = (start + input) * num_rows;
            out[at..at + num_rows].copy_from_slice(&sums[..num_rows]);
        }
    }
    // SAFETY: the tiles' sums were stored.
    unsafe { matrix_unit::release() };
}

/// Rows become columns, 16 x 16 at a time.
#[target_feature(enable = "avx512f")]
fn turn(from: &[[i32; INPUTS]; PANEL_ROWS], to: &mut [[i32; PANEL_ROWS]; INPUTS]) {
    for (row, column) in [(0, 0), (0, 16), (16, 0), (16, 16)] {
        // SAFETY: 16 numbers from a multiple of 16 on lie within a row of 32; loads need no alignment.
        let rows: [__m512i; 16] =
            std::array::from_fn(|i| unsafe { _mm512_loadu_si512(from[row + i].as_ptr().add(column).cast()) });
        let pairs: [__m512i; 16] = std::array::from_fn(|i| {
            let (a, b) = (rows[i / 2 * 2], rows[i / 2 * 2 + 1]);
            if i % 2 == 0 { _mm512_unpacklo_epi32(a, b) } else { _mm512_unpackhi_epi32(a, b) }
        });
        // Lane l of number 4 · n + c: column 4 · l + c of rows 4 · n to 4 · n + 3.
        let quads: [__m512i; 16] = std::array::from_fn(|i| {
            let (a, b) = (pairs[i / 4 * 4 + i % 4 / 2], pairs[i / 4 * 4 + i % 4 / 2 + 2]);
            if i % 2 == 0 { _mm512_unpacklo_epi64(a, b) } else { _mm512_unpackhi_epi64(a, b) }
        });
        for c in 0..4 {
            let [a, b, d, e] = [quads[c], quads[4 + c], quads[8 + c], quads[12 + c]];
            let (low, high) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(d, e));
            let (more_low, more_high) = (_mm512_shuffle_i32x4::<0xee>(a, b), _mm512_shuffle_i32x4::<0xee>(d, e));
            let columns = [
                _mm512_shuffle_i32x4::<0x88>(low, high),
                _mm512_shuffle_i32x4::<0xdd>(low, high),
                _mm512_shuffle_i32x4::<0x88>(more_low, more_high),
                _mm512_shuffle_i32x4::<0xdd>(more_low, more_high),
            ];
            for (lane, numbers) in columns.into_iter().enumerate() {
                // SAFETY: as above.
                unsafe { _mm512_storeu_si512(to[column + 4 * lane + c].as_mut_ptr().add(row).cast(), numbers) };
            }
        }
    }
}
