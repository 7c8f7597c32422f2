//! Products of rows of Q8_0 blocks with many inputs by AVX-512 VNNI. Each lane of a vector belongs to a row, so that a
//! block's 32 products end up in one sum, which is scaled and added to those of the blocks before it: the floats of
//! [`super::Kernels::q8_0_rows`], bit for bit.
#![allow(unsafe_code, reason = "vector loads from slices, and calls into functions compiled for detected features")]

use std::arch::x86_64::*;
use std::cell::RefCell;

use super::Quantized;
use super::avx2::short_vnni::q8_0_rows;
use super::tile::rows_left_over;
use crate::gguf::{Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN};

/// Rows of a tile, one to a lane.
const ROWS: usize = 16;
/// Most inputs of a tile: with sums of integers and of floats for each, 24 of 32 registers.
const INPUTS: usize = 12;
/// Steps of four numbers, which the instruction multiplies and adds at once.
const STEPS: usize = Q8_0_BLOCK_LEN / 4;

/// The same block of 16 rows, a lane to a row.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Turned {
    /// Four neighboring codes of each row, step by step.
    codes: [[i32; ROWS]; STEPS],
    /// The instruction multiplies unsigned with signed bytes: inputs + 128 with codes. This is what makes up for it.
    starts: [i32; ROWS],
    scales: [f32; ROWS],
}

thread_local! {
    /// Working memory: it stays in this thread's cache.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    /// All blocks of 16 rows, then those of the next.
    rows: Vec<Turned>,
    /// The inputs of a tile + 128.
    inputs: Vec<u8>,
}

/// See [`super::Kernels::q8_0_tiles`].
pub(super) fn q8_0_tiles(blocks: &[u8], x: &Quantized, out: &mut [f32]) {
    let num_rows = out.len() / x.num_rows().max(1);
    let blocks_per_row = x.row(0).len() / Q8_0_BLOCK_LEN;
    let row_bytes = blocks_per_row * Q8_0_BLOCK_BYTES;
    let is_fitting = blocks_per_row > 0 && blocks.len() >= num_rows * row_bytes;
    let tiled_rows = if is_fitting { num_rows / ROWS * ROWS } else { 0 };
    let (tiled, others) = blocks.split_at(tiled_rows * row_bytes);
    // SAFETY: this set of kernels is handed out only where its features were detected.
    SCRATCH.with_borrow_mut(|scratch| unsafe { fill(tiled, row_bytes, x, out, scratch) });
    rows_left_over(others, x, out, tiled_rows, q8_0_rows);
}

/// Fills `out` (inputs, rows) for the rows of `blocks`, a multiple of 16 of them, of `row_bytes` each.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vl,avx2,f16c")]
fn fill(blocks: &[u8], row_bytes: usize, x: &Quantized, out: &mut [f32], scratch: &mut Scratch) {
    let num_rows = out.len() / x.num_rows().max(1);
    scratch.rows.clear();
    for rows in blocks.chunks_exact((ROWS * row_bytes).max(1)) {
        for block in (0..row_bytes).step_by(Q8_0_BLOCK_BYTES) {
            // SAFETY: a block from here on lies within each of the 16 rows.
            scratch.rows.push(unsafe { turn(rows.as_ptr().add(block), row_bytes) });
        }
    }
    for first in (0..x.num_rows()).step_by(INPUTS) {
        let count = INPUTS.min(x.num_rows() - first);
        scratch.inputs.clear();
        for input in first..first + count {
            scratch.inputs.extend(x.row(input).iter().map(|value| value.cast_unsigned() ^ 0x80));
        }
        let tiles = scratch.rows.chunks_exact((row_bytes / Q8_0_BLOCK_BYTES).max(1));
        for (number, rows) in tiles.enumerate() {
            let mut done = 0;
            while done < count {
                let inputs = &scratch.inputs[done * x.row(0).len()..];
                let out = &mut out[(first + done) * num_rows + number * ROWS..];
                // SAFETY: as many inputs as a tile takes are left; each has 32 numbers for every block.
                done += unsafe {
                    match count - done {
                        INPUTS.. => tile::<INPUTS>(rows, inputs, out, num_rows),
                        8.. => tile::<8>(rows, inputs, out, num_rows),
                        4.. => tile::<4>(rows, inputs, out, num_rows),
                        2.. => tile::<2>(rows, inputs, out, num_rows),
                        _ => tile::<1>(rows, inputs, out, num_rows),
                    }
                };
            }
        }
    }
}

/// A block of each of 16 rows, `row_bytes` apart.
///
/// # Safety
/// A block must be readable from `first` on, and every `row_bytes` behind it in the other rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vl,avx2,f16c")]
unsafe fn turn(first: *const u8, row_bytes: usize) -> Turned {
    // SAFETY: by this function's contract, of a block of a scale and 32 codes; loads need no alignment.
    let codes = |row: usize| unsafe { _mm256_loadu_si256(first.add(row * row_bytes + 2).cast()) };
    let scales: [u16; ROWS] = std::array::from_fn(|row| {
        // The same block of the next 16 rows. A prefetch needs no valid address.
        _mm_prefetch::<_MM_HINT_T1>(first.wrapping_add((ROWS + row) * row_bytes).cast());
        // SAFETY: as above.
        u16::from_le_bytes(unsafe { first.add(row * row_bytes).cast::<[u8; 2]>().read() })
    });
    // In each half of a vector a row's eight steps: of rows 0 to 3 and 4 to 7, then of 8 to 11 and 12 to 15.
    let pair = |row: usize| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(codes(row)), codes(row + 4));
    let [low, high] = [0, 8].map(|row| {
        let rows = [pair(row), pair(row + 1), pair(row + 2), pair(row + 3)];
        let low = [_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpacklo_epi32(rows[2], rows[3])];
        let high = [_mm512_unpackhi_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[2], rows[3])];
        // Number n has steps n and n + 4, in turns, of four rows each.
        [
            _mm512_unpacklo_epi64(low[0], low[1]),
            _mm512_unpackhi_epi64(low[0], low[1]),
            _mm512_unpacklo_epi64(high[0], high[1]),
            _mm512_unpackhi_epi64(high[0], high[1]),
        ]
    });
    let (offset, zero) = (_mm512_set1_epi8(i8::MIN), _mm512_setzero_si512());
    let mut excess = zero;
    let mut turned = Turned { codes: [[0; ROWS]; STEPS], starts: [0; ROWS], scales: [0.0; ROWS] };
    for (step, (low, high)) in low.into_iter().zip(high).enumerate() {
        let steps = [_mm512_shuffle_i32x4::<0x88>(low, high), _mm512_shuffle_i32x4::<0xdd>(low, high)];
        for (codes, target) in steps.into_iter().zip([step, step + STEPS / 2]) {
            excess = _mm512_dpbusd_epi32(excess, offset, codes);
            // SAFETY: 16 numbers have room for a vector; nothing needs alignment.
            unsafe { _mm512_storeu_si512(turned.codes[target].as_mut_ptr().cast(), codes) };
        }
    }
    // SAFETY: as above, and 16 scales are read.
    unsafe {
        _mm512_storeu_si512(turned.starts.as_mut_ptr().cast(), _mm512_sub_epi32(zero, excess));
        _mm512_storeu_ps(turned.scales.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(scales.as_ptr().cast())));
    }
    turned
}

/// Writes the products of 16 rows with each of `T` inputs (+ 128) to `out`, from one input's to the next's `num_rows`
/// apart; returns `T`.
///
/// # Safety
/// `inputs` must have 32 numbers for each of `T` times all of `blocks`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vl,avx2,f16c")]
unsafe fn tile<const T: usize>(blocks: &[Turned], inputs: &[u8], out: &mut [f32], num_rows: usize) -> usize {
    let len = blocks.len() * Q8_0_BLOCK_LEN;
    let mut sums = [_mm512_setzero_ps(); T];
    for (number, block) in blocks.iter().enumerate() {
        // SAFETY: 16 numbers are a vector; nothing needs alignment.
        let load = |numbers: &[i32; ROWS]| unsafe { _mm512_loadu_si512(numbers.as_ptr().cast()) };
        let mut products = [load(&block.starts); T];
        for (step, codes) in block.codes.iter().enumerate() {
            let codes = load(codes);
            for (t, products) in products.iter_mut().enumerate() {
                let at = t * len + number * Q8_0_BLOCK_LEN + 4 * step;
                // SAFETY: by this function's contract.
                let four = unsafe { inputs.as_ptr().add(at).cast::<i32>().read_unaligned() };
                *products = _mm512_dpbusd_epi32(*products, _mm512_set1_epi32(four), codes);
            }
        }
        // SAFETY: as above.
        let scales = unsafe { _mm512_loadu_ps(block.scales.as_ptr()) };
        for (sum, products) in sums.iter_mut().zip(products) {
            *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scales, *sum);
        }
    }
    for (t, sum) in sums.into_iter().enumerate() {
        let out = &mut out[t * num_rows..][..ROWS];
        // SAFETY: room for 16 floats; nothing needs alignment.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
    }
    T
}
