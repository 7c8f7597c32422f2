//! Whole tensors as a run of TQ2_0 blocks.
//!
//! A tensor is flattened row-major and cut into blocks of 256; only the last block is padded, with zeros (code 1).
//! One scale for the tensor, repeated in every block.

use half::f16;

use crate::tq2_0::codes_are_trits;
use crate::{BLOCK_BYTES, BLOCK_LEN, CODE_BYTES, TernaryError, block_scale, decode_block, encode_block};

/// Trits of a tensor with the scale of each block of 256.
#[derive(Debug, Clone, PartialEq)]
pub struct Unpacked {
    /// One value in {-1, 0, 1} per weight.
    pub trits: Vec<i8>,
    /// One scale per block, in weight units.
    pub block_scales: Vec<f32>,
}

/// Bytes that `num_weights` trits take; `None` when the number overflows.
#[must_use]
pub fn packed_len(num_weights: usize) -> Option<usize> {
    num_weights.div_ceil(BLOCK_LEN).checked_mul(BLOCK_BYTES)
}

/// Packs a flattened tensor: 66 bytes per started 256 trits, `scale` (rounded to half precision) in each block.
///
/// Errors: [`TernaryError::NotATrit`]; [`TernaryError::Scale`] for a scale that is negative, NaN or above 65504.
pub fn pack(trits: &[i8], scale: f32) -> Result<Vec<u8>, TernaryError> {
    let half_scale = f16::from_f32(scale);
    if !half_scale.is_finite() || scale < 0.0 {
        return Err(TernaryError::Scale { scale });
    }
    let mut packed = Vec::with_capacity(trits.len().div_ceil(BLOCK_LEN) * BLOCK_BYTES);
    for (number, chunk) in trits.chunks(BLOCK_LEN).enumerate() {
        let mut padded = [0_i8; BLOCK_LEN];
        padded[..chunk.len()].copy_from_slice(chunk);
        let block = encode_block(&padded, half_scale).map_err(|error| at_block(error, number))?;
        packed.extend_from_slice(&block);
    }
    Ok(packed)
}

/// Unpacks the first `num_weights` trits of `bytes`, which must be exactly the blocks that many trits take.
///
/// Errors: [`TernaryError::Length`]; [`TernaryError::Code`] for a code of 3.
pub fn unpack(bytes: &[u8], num_weights: usize) -> Result<Unpacked, TernaryError> {
    let mut trits = Vec::with_capacity(check_len(bytes, num_weights)? * BLOCK_LEN);
    let mut block_scales = Vec::with_capacity(bytes.len() / BLOCK_BYTES);
    let mut buffer = [0_i8; BLOCK_LEN];
    for (number, block) in bytes.as_chunks::<BLOCK_BYTES>().0.iter().enumerate() {
        let scale = decode_block(block, &mut buffer).map_err(|error| at_block(error, number))?;
        trits.extend_from_slice(&buffer);
        block_scales.push(scale.to_f32());
    }
    trits.truncate(num_weights);
    Ok(Unpacked { trits, block_scales })
}

/// Checks packed blocks without unpacking them: length and codes. Returns the scale when all blocks share one
/// (0 when there are no blocks), `None` when they differ.
///
/// Errors: [`TernaryError::Length`]; [`TernaryError::Code`] for a code of 3; [`TernaryError::Scale`] for a scale that
/// is negative, NaN or infinite.
pub fn uniform_scale(bytes: &[u8], num_weights: usize) -> Result<Option<f32>, TernaryError> {
    check_len(bytes, num_weights)?;
    let mut first = None;
    let mut is_uniform = true;
    for (number, block) in bytes.as_chunks::<BLOCK_BYTES>().0.iter().enumerate() {
        if !codes_are_trits(&block[..CODE_BYTES]) {
            return Err(TernaryError::Code { block: number });
        }
        let scale = block_scale(block);
        if !scale.is_finite() || scale < f16::ZERO {
            return Err(TernaryError::Scale { scale: scale.to_f32() });
        }
        is_uniform &= *first.get_or_insert(scale) == scale;
    }
    Ok(is_uniform.then(|| first.unwrap_or(f16::ZERO).to_f32()))
}

/// The number of blocks, once `bytes` is known to hold exactly `num_weights` trits.
fn check_len(bytes: &[u8], num_weights: usize) -> Result<usize, TernaryError> {
    let expected = packed_len(num_weights).unwrap_or(usize::MAX);
    if bytes.len() == expected {
        Ok(expected / BLOCK_BYTES)
    } else {
        Err(TernaryError::Length { num_weights, expected, found: bytes.len() })
    }
}

/// The error of one block, told in terms of the tensor.
fn at_block(error: TernaryError, number: usize) -> TernaryError {
    match error {
        TernaryError::Code { .. } => TernaryError::Code { block: number },
        TernaryError::NotATrit { index, value } => TernaryError::NotATrit { index: number * BLOCK_LEN + index, value },
        other @ (TernaryError::NotFinite { .. } | TernaryError::Scale { .. } | TernaryError::Length { .. }) => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pads_only_the_end_with_zeros() {
        let packed = pack(&[1; 257], 0.5).unwrap();
        assert_eq!(packed.len(), 2 * BLOCK_BYTES);
        // Second block: element 0 is +1 (code 2), everything else 0 (code 1).
        assert_eq!(packed[BLOCK_BYTES], 0b01_01_01_10);
        assert!(packed[BLOCK_BYTES + 1..BLOCK_BYTES + CODE_BYTES].iter().all(|&byte| byte == 0b01_01_01_01));
    }

    #[test]
    fn errors_name_the_place() {
        let mut trits = vec![0_i8; 600];
        trits[513] = -2;
        assert_eq!(pack(&trits, 1.0), Err(TernaryError::NotATrit { index: 513, value: -2 }));
        assert!(matches!(pack(&[1], f32::NAN), Err(TernaryError::Scale { .. })));
        assert!(matches!(pack(&[1], -1.0), Err(TernaryError::Scale { .. })));
        assert!(matches!(pack(&[1], 1e6), Err(TernaryError::Scale { .. })));
        let mut packed = pack(&[0; 512], 1.0).unwrap();
        packed[BLOCK_BYTES + 3] = 0xff;
        assert_eq!(unpack(&packed, 512), Err(TernaryError::Code { block: 1 }));
        assert_eq!(uniform_scale(&packed, 512), Err(TernaryError::Code { block: 1 }));
        assert!(matches!(unpack(&packed, 513), Err(TernaryError::Length { expected: 198, found: 132, .. })));
        assert!(matches!(unpack(&packed, usize::MAX), Err(TernaryError::Length { .. })));
    }

    proptest! {
        #[test]
        fn unpack_undoes_pack(trits in prop::collection::vec(-1_i8..=1, 0..1500), scale in 0.0_f32..100.0) {
            let packed = pack(&trits, scale).unwrap();
            prop_assert_eq!(Some(packed.len()), packed_len(trits.len()));
            let stored = f16::from_f32(scale).to_f32();
            let unpacked = unpack(&packed, trits.len()).unwrap();
            prop_assert_eq!(unpacked.trits, trits.clone());
            prop_assert!(unpacked.block_scales.iter().all(|&s| s == stored));
            if !trits.is_empty() {
                prop_assert_eq!(uniform_scale(&packed, trits.len()).unwrap(), Some(stored));
            }
        }

        #[test]
        fn any_bytes_unpack_or_err(bytes in prop::collection::vec(any::<u8>(), 0..300), num_weights: usize) {
            let _ = unpack(&bytes, num_weights);
            let _ = uniform_scale(&bytes, num_weights);
            let _ = unpack(&bytes, bytes.len() / BLOCK_BYTES * BLOCK_LEN);
        }
    }
}
