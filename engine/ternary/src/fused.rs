//! Floats straight into packed trits: nothing in between is stored.

use half::f16;

use crate::{BLOCK_BYTES, BLOCK_LEN, CODE_BYTES, GROUP_BYTES, GROUP_LEN, TernaryGrid};

/// Ternarizes `weights` by `grid` into TQ2_0 blocks: 66 bytes per started 256 weights, padded with zeros (code 1).
/// Equal to packing the trits. Blocks beyond the weights, and weights beyond the blocks, are left alone; NaN is 0.
pub fn pack_weights(weights: &[f32], grid: TernaryGrid, blocks: &mut [u8]) {
    let scale = f16::from_f32(grid.scale).to_le_bytes();
    for (weights, block) in weights.chunks(BLOCK_LEN).zip(blocks.as_chunks_mut::<BLOCK_BYTES>().0) {
        let (codes, scale_bytes) = block.split_at_mut(CODE_BYTES);
        scale_bytes.copy_from_slice(&scale);
        match weights.as_array::<BLOCK_LEN>() {
            Some(whole) => pack_block(whole, grid.threshold, codes),
            None => {
                let mut padded = [0.0; BLOCK_LEN];
                padded[..weights.len()].copy_from_slice(weights);
                pack_block(&padded, grid.threshold, codes);
            }
        }
    }
}

/// The codes of 256 weights. Planes are combined as 32-bit integers, as wide as the comparisons, so that the compiler
/// keeps to vector registers until the last step.
#[inline]
fn pack_block(weights: &[f32; BLOCK_LEN], threshold: f32, codes: &mut [u8]) {
    let groups = weights.as_chunks::<GROUP_LEN>().0.iter();
    for (weights, codes) in groups.zip(codes.as_chunks_mut::<GROUP_BYTES>().0) {
        let planes = weights.as_chunks::<GROUP_BYTES>().0;
        let mut bytes = [0_i32; GROUP_BYTES];
        for (plane, weights) in planes.iter().enumerate() {
            for (byte, &w) in bytes.iter_mut().zip(weights) {
                let code = 1 + i32::from(w >= threshold) - i32::from(w <= -threshold);
                *byte |= code << (2 * plane);
            }
        }
        for (code, byte) in codes.iter_mut().zip(bytes) {
            *code = byte as u8;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{Packing, TernaryRule, ternarize_by};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_packing_the_trits(weights in prop::collection::vec(-2.0_f32..2.0, 0..1500), by_threshold: bool) {
            let rule = if by_threshold { TernaryRule::Threshold } else { TernaryRule::AbsMean };
            let ternary = ternarize_by(rule, &weights).unwrap();
            let mut blocks = vec![0xff; Packing::Tq2_0.packed_len(weights.len()).unwrap()];
            pack_weights(&weights, rule.grid_of(&weights).unwrap(), &mut blocks);
            prop_assert_eq!(blocks, Packing::Tq2_0.pack(&ternary.trits, ternary.scale).unwrap());
        }
    }

    #[test]
    fn too_few_blocks_or_weights_break_nothing() {
        let grid = TernaryGrid::nearest(1.0).unwrap();
        let mut blocks = [7_u8; BLOCK_BYTES];
        pack_weights(&[1.0; 600], grid, &mut blocks);
        assert_eq!(blocks[0], 0b10_10_10_10);
        let mut blocks = [7_u8; 2 * BLOCK_BYTES + 5];
        pack_weights(&[f32::NAN; 3], grid, &mut blocks);
        assert_eq!((blocks[0], blocks[BLOCK_BYTES]), (0b01_01_01_01, 7));
    }
}
