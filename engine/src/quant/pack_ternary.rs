//! Floats straight into packed trits, on all threads: the weights are read twice and nothing in between is stored.

use foretrain_ternary::{
    BLOCK_LEN, Packing, TernaryError, TernaryGrid, TernaryRule, magnitude_sum, magnitudes_above, own_grid, pack_weights,
};
use rayon::prelude::*;

use super::TernaryScales;

/// Weights that a thread takes at a time: 256 KiB, which stay in its cache. A multiple of a block, and the same for any
/// number of threads, so that sums have one order.
const CHUNK: usize = 1 << 16;

/// Ternarizes `weights`, (rows, `row_len`) row-major, into blocks of `packing`, one per started 256 weights.
///
/// Scales per row and per block need rows of whole blocks: see [`TernaryScales::fitting`].
/// Errors: [`TernaryError::NotFinite`] on NaN or infinity; [`TernaryError::Scale`] above 65504.
pub fn pack_ternary(
    weights: &[f32],
    row_len: usize,
    (scales, rule): (TernaryScales, TernaryRule),
    packing: Packing,
) -> Result<Vec<u8>, TernaryError> {
    // Every weight is in memory already, so that the number cannot overflow.
    let mut blocks = vec![0_u8; packing.packed_len(weights.len()).unwrap_or_default()];
    let group = match scales.fitting(row_len) {
        TernaryScales::Tensor => {
            let grid = grid(weights, rule)?;
            let chunks = blocks.par_chunks_mut(CHUNK / BLOCK_LEN * packing.block_bytes());
            chunks
                .zip(weights.par_chunks(CHUNK))
                .try_for_each(|(blocks, weights)| pack(weights, grid, packing, blocks))?;
            return Ok(blocks);
        }
        TernaryScales::Row => row_len,
        TernaryScales::Block => BLOCK_LEN,
    };
    let groups = blocks.par_chunks_mut(group / BLOCK_LEN * packing.block_bytes()).zip(weights.par_chunks(group));
    groups.enumerate().try_for_each(|(number, (blocks, weights))| {
        let grid = rule.grid_of(weights).map_err(|error| at_offset(error, number * group))?;
        pack(weights, grid, packing, blocks)
    })?;
    Ok(blocks)
}

/// Weights of one grid into as many blocks as they take.
fn pack(weights: &[f32], grid: TernaryGrid, packing: Packing, blocks: &mut [u8]) -> Result<(), TernaryError> {
    match packing {
        Packing::Tq2_0 => pack_weights(weights, grid, blocks),
        Packing::Tq1_0 => {
            let trits: Vec<i8> = weights.iter().map(|&weight| grid.trit(weight)).collect();
            blocks.iter_mut().zip(packing.pack(&trits, grid.scale)?).for_each(|(to, byte)| *to = byte);
        }
    }
    Ok(())
}

/// The grid of all weights: [`TernaryRule::grid_of`], on all threads.
fn grid(weights: &[f32], rule: TernaryRule) -> Result<TernaryGrid, TernaryError> {
    if let Some(grid) = own_grid(weights) {
        return Ok(grid);
    }
    let sum =
        |(number, weights): (usize, &[f32])| magnitude_sum(weights).map_err(|error| at_offset(error, number * CHUNK));
    let sums = weights.par_chunks(CHUNK).enumerate().map(sum).collect::<Vec<_>>();
    let total = sums.into_iter().sum::<Result<f64, TernaryError>>()?;
    rule.grid(total, weights.len(), |threshold| {
        let sums: Vec<_> = weights.par_chunks(CHUNK).map(|weights| magnitudes_above(weights, threshold)).collect();
        sums.into_iter().fold((0.0, 0), |(sum, count), (of_chunk, in_chunk)| (sum + of_chunk, count + in_chunk))
    })
}

/// The error of a part of a tensor, told in terms of the tensor.
fn at_offset(error: TernaryError, offset: usize) -> TernaryError {
    match error {
        TernaryError::NotFinite { index, value } => TernaryError::NotFinite { index: offset + index, value },
        other @ (TernaryError::Scale { .. }
        | TernaryError::NotATrit { .. }
        | TernaryError::Code { .. }
        | TernaryError::Length { .. }) => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use foretrain_ternary::{BLOCK_BYTES, ternarize_by};
    use proptest::prelude::*;

    use super::*;

    fn weights(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.37).sin() * (1.0 + (i / 256) as f32)).collect()
    }

    #[test]
    fn many_chunks_equal_one_slice() {
        for rule in [TernaryRule::AbsMean, TernaryRule::Threshold] {
            let weights = weights(3 * CHUNK + 77);
            let ternary = ternarize_by(rule, &weights).unwrap();
            for packing in [Packing::Tq2_0, Packing::Tq1_0] {
                let packed = pack_ternary(&weights, 100, (TernaryScales::Row, rule), packing).unwrap();
                assert_eq!(packed, packing.pack(&ternary.trits, ternary.scale).unwrap(), "{rule:?} {packing:?}");
            }
        }
    }

    #[test]
    fn finer_scales_lie_nearer() {
        let weights = weights(8 * 512);
        let error = |scales| {
            let packed = pack_ternary(&weights, 512, (scales, TernaryRule::AbsMean), Packing::Tq1_0).unwrap();
            let unpacked = Packing::Tq1_0.unpack(&packed, weights.len()).unwrap();
            let distance = |(at, w): (usize, &f32)| {
                let stored = f32::from(unpacked.trits[at]) * unpacked.block_scales[at / BLOCK_LEN];
                f64::from(w - stored).powi(2)
            };
            weights.iter().enumerate().map(distance).sum::<f64>()
        };
        let errors = TernaryScales::ALL.map(error);
        assert!(errors[0] > 1.3 * errors[1] && errors[1] > errors[2], "{errors:?}");
    }

    #[test]
    fn the_place_of_what_is_not_finite_is_told() {
        for (scales, row_len) in [(TernaryScales::Tensor, 1), (TernaryScales::Block, 256)] {
            let mut weights = weights(2 * CHUNK);
            weights[CHUNK + 5] = f32::NAN;
            let refused = pack_ternary(&weights, row_len, (scales, TernaryRule::AbsMean), Packing::Tq2_0);
            assert!(matches!(refused, Err(TernaryError::NotFinite { index, .. }) if index == CHUNK + 5));
        }
    }

    proptest! {
        #[test]
        fn blocks_are_slices(values in prop::collection::vec(-2.0_f32..2.0, 512)) {
            let packed = pack_ternary(&values, 256, (TernaryScales::Block, TernaryRule::Threshold), Packing::Tq2_0).unwrap();
            for (block, values) in packed.chunks(BLOCK_BYTES).zip(values.chunks(256)) {
                let ternary = ternarize_by(TernaryRule::Threshold, values).unwrap();
                prop_assert_eq!(block, Packing::Tq2_0.pack(&ternary.trits, ternary.scale).unwrap());
            }
        }
    }
}
