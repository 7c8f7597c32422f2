//! The reference kernels: plain loops, for every processor.
#![forbid(unsafe_code)]

use foretrain_ternary::{BLOCK_BYTES, BLOCK_LEN, GROUP_BYTES, GROUP_LEN, block_scale, group_codes};
use half::{bf16, f16};

use super::streams::each_row;
use super::{CodeRows, Kernels, Quantized, TernaryRows, pointwise, triples};
use crate::gguf::{Q4_0_BLOCK_BYTES, Q4_0_BLOCK_LEN, Q4_0_ZERO_CODE, Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN};
use crate::runtime::Runs;

/// Partial sums, so that the compiler may use vector registers.
const LANES: usize = 8;

pub(super) static KERNELS: Kernels = Kernels {
    name: "scalar",
    num_runs: 1,
    f32_rows,
    f16_rows,
    bf16_rows,
    mix_f32,
    mix_f16,
    int8_rows,
    q8_0_rows,
    q4_0_rows,
    q8_0_tiles: None,
    ternary_rows,
    ternary_block_rows,
    triples: &triples::KERNELS,
    multiply,
    reads_tiles: false,
    unpack: |groups, codes| pointwise::unpack(groups, codes),
    round: |x, inverse, out| pointwise::round(x, inverse, out),
    largest_magnitude: |x| pointwise::largest_magnitude(x),
    sum_of_squares: |x| pointwise::sum_of_squares(x),
    exp_shifted: |x, shift| pointwise::exp_shifted(x, shift),
    largest: |x| pointwise::largest(x),
    rescale: |sums, excess, scales, input_scale, out| pointwise::rescale(sums, excess, scales, input_scale, out),
    q3_k_floats: |blocks, out| pointwise::q3_k_floats(blocks, out),
    q4_k_floats: |blocks, out| pointwise::q4_k_floats(blocks, out),
    silu_mul: |gate, up| pointwise::silu_mul(gate, up),
    read_all,
};

fn dot_floats<const N: usize>(weights: &[u8], x: &[f32], read: impl Fn([u8; N]) -> f32) -> f32 {
    let weights = weights.as_chunks::<N>().0;
    let mut sums = [0.0_f32; LANES];
    let (weight_lanes, x_lanes) = (weights.chunks_exact(LANES), x.chunks_exact(LANES));
    let len = weights.len().min(x.len()) / LANES * LANES;
    for (w, x) in weight_lanes.zip(x_lanes) {
        for ((sum, &w), x) in sums.iter_mut().zip(w).zip(x) {
            *sum += read(w) * x;
        }
    }
    let rest = weights.iter().zip(x).skip(len).map(|(&w, x)| read(w) * x);
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

pub(super) fn f32_rows(rows: &[u8], runs: Runs, x: &[f32], out: &mut [f32]) {
    each_row(rows, 4 * x.len(), runs, out, |row| dot_floats(row, x, f32::from_le_bytes));
}

pub(super) fn f16_rows(rows: &[u8], runs: Runs, x: &[f32], out: &mut [f32]) {
    each_row(rows, 2 * x.len(), runs, out, |row| dot_floats(row, x, |bytes| f16::from_le_bytes(bytes).to_f32()));
}

pub(super) fn bf16_rows(rows: &[u8], runs: Runs, x: &[f32], out: &mut [f32]) {
    each_row(rows, 2 * x.len(), runs, out, |row| dot_floats(row, x, |bytes| bf16::from_le_bytes(bytes).to_f32()));
}

fn mix_floats<const N: usize>(rows: &[u8], weights: &[f32], y: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    for (row, weight) in rows.chunks_exact((N * y.len()).max(1)).zip(weights) {
        for (y, &x) in y.iter_mut().zip(row.as_chunks::<N>().0) {
            *y += weight * read(x);
        }
    }
}

pub(super) fn mix_f32(rows: &[u8], weights: &[f32], y: &mut [f32]) {
    mix_floats(rows, weights, y, f32::from_le_bytes);
}

pub(super) fn mix_f16(rows: &[u8], weights: &[f32], y: &mut [f32]) {
    mix_floats(rows, weights, y, |bytes| f16::from_le_bytes(bytes).to_f32());
}

pub(super) fn int8_rows(values: &[u8], runs: Runs, x: &[i8], out: &mut [i32]) {
    let dot = |row: &[u8]| row.iter().zip(x).map(|(w, &x)| i32::from(w.cast_signed()) * i32::from(x)).sum();
    each_row(values, x.len(), runs, out, dot);
}

pub(super) fn q8_0_rows(blocks: &[u8], runs: Runs, x: &[i8], out: &mut [f32]) {
    block_rows::<Q8_0_BLOCK_BYTES>(blocks, runs, x, out, |codes, x| {
        codes.iter().zip(x).map(|(w, &x)| i32::from(w.cast_signed()) * i32::from(x)).sum()
    });
}

fn q4_0_rows(blocks: &[u8], runs: Runs, x: &[i8], out: &mut [f32]) {
    let weight = |code: u8| i32::from(code) - i32::from(Q4_0_ZERO_CODE);
    block_rows::<Q4_0_BLOCK_BYTES>(blocks, runs, x, out, |codes, x| {
        let (low, high) = x.split_at(Q4_0_BLOCK_LEN / 2);
        let products = codes
            .iter()
            .zip(low.iter().zip(high))
            .map(|(byte, (&low, &high))| weight(byte & 15) * i32::from(low) + weight(byte >> 4) * i32::from(high));
        products.sum()
    });
}

/// Rows of blocks of 32 weights in `BYTES` bytes, a scale and codes; `dot` multiplies a block's codes with inputs.
fn block_rows<const BYTES: usize>(
    blocks: &[u8],
    runs: Runs,
    x: &[i8],
    out: &mut [f32],
    dot: impl Fn(&[u8], &[i8]) -> i32,
) {
    each_row(blocks, x.len() / Q8_0_BLOCK_LEN * BYTES, runs, out, |row| {
        let blocks = row.as_chunks::<BYTES>().0.iter().zip(x.as_chunks::<Q8_0_BLOCK_LEN>().0);
        let products =
            blocks.map(|(block, x)| f16::from_le_bytes([block[0], block[1]]).to_f32() * dot(&block[2..], x) as f32);
        products.sum()
    });
}

/// Σ codeᵢxᵢ of `x` (a multiple of 128 long) with the groups from `first_group` on; groups that are not there count as 0.
fn dot_ternary(blocks: &[u8], first_group: usize, x: &[i8]) -> i32 {
    let mut sum = 0;
    for (number, x) in x.chunks_exact(GROUP_LEN).enumerate() {
        let Some(codes) = group_codes(blocks, first_group + number) else { break };
        for (plane, x) in x.chunks_exact(GROUP_BYTES).enumerate() {
            let products = codes.iter().zip(x).map(|(&byte, &x)| i32::from((byte >> (2 * plane)) & 3) * i32::from(x));
            sum += products.sum::<i32>();
        }
    }
    sum
}

pub(super) fn ternary_rows(rows: TernaryRows<'_>, runs: Runs, x: &[i8], out: &mut [i32]) {
    let len = out.len() / runs.num;
    for (index, out) in out.iter_mut().enumerate() {
        *out = dot_ternary(rows.blocks, rows.first_group + runs.place(index, len) * (x.len() / GROUP_LEN), x);
    }
}

pub(super) fn ternary_block_rows(blocks: &[u8], runs: Runs, x: &[i8], block_sums: &[i32], out: &mut [f32]) {
    each_row(blocks, x.len() / BLOCK_LEN * BLOCK_BYTES, runs, out, |row| {
        let blocks = row.as_chunks::<BLOCK_BYTES>().0.iter().zip(x.as_chunks::<BLOCK_LEN>().0);
        let products = blocks
            .zip(block_sums)
            .map(|((block, x), sum)| (dot_ternary(block, 0, x) - sum) as f32 * block_scale(block).to_f32());
        products.sum()
    });
}

pub(super) fn multiply(codes: &CodeRows, x: &Quantized, out: &mut [i32]) {
    for (input, out) in out.chunks_exact_mut(codes.num_rows().max(1)).take(x.num_rows()).enumerate() {
        for (row, out) in out.iter_mut().enumerate() {
            let products = codes.row(row).iter().zip(x.row(input)).map(|(&code, &x)| i32::from(code) * i32::from(x));
            *out = products.fold(0, i32::wrapping_add);
        }
    }
}

pub(super) fn read_all(bytes: &[u8]) -> u64 {
    bytes.as_chunks::<8>().0.iter().fold(0, |all, &word| all ^ u64::from_le_bytes(word))
}
