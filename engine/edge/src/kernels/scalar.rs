//! The reference kernels: plain loops, for every processor.

use foretrain_ternary::{GROUP_BYTES, GROUP_LEN, group_codes};
use half::{bf16, f16};

use crate::gguf::{Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN};

/// Partial sums, so that the compiler may use vector registers.
const LANES: usize = 8;

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

pub(super) fn dot_f32(weights: &[u8], x: &[f32]) -> f32 {
    dot_floats(weights, x, f32::from_le_bytes)
}

pub(super) fn dot_f16(weights: &[u8], x: &[f32]) -> f32 {
    dot_floats(weights, x, |bytes| f16::from_le_bytes(bytes).to_f32())
}

pub(super) fn dot_bf16(weights: &[u8], x: &[f32]) -> f32 {
    dot_floats(weights, x, |bytes| bf16::from_le_bytes(bytes).to_f32())
}

pub(super) fn dot_i8(weights: &[u8], x: &[i8]) -> i32 {
    weights.iter().zip(x).map(|(w, &x)| i32::from(w.cast_signed()) * i32::from(x)).sum()
}

pub(super) fn dot_q8_0(blocks: &[u8], x: &[i8]) -> f32 {
    let blocks = blocks.as_chunks::<Q8_0_BLOCK_BYTES>().0.iter().zip(x.chunks_exact(Q8_0_BLOCK_LEN));
    blocks.map(|(block, x)| f16::from_le_bytes([block[0], block[1]]).to_f32() * dot_i8(&block[2..], x) as f32).sum()
}

pub(super) fn dot_tq2_0(blocks: &[u8], first_group: usize, x: &[i8]) -> i32 {
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
