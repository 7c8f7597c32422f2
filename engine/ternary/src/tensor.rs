//! Whole tensors as a run of blocks, in either packing.
//!
//! A tensor is flattened row-major and cut into blocks of 256; only the last block is padded, with zeros.
//! One scale for the tensor, repeated in every block.

use half::f16;

use crate::tq2_0::codes_are_trits;
use crate::{BLOCK_BYTES, BLOCK_LEN, CODE_BYTES, TernaryError, block_scale, decode_block, encode_block, tq1_0};

/// How the trits of a block become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Two bits per trit: 66 bytes per block, fast to unpack. llama.cpp's TQ2_0.
    Tq2_0,
    /// Five trits per byte: 54 bytes per block. llama.cpp's TQ1_0.
    Tq1_0,
}

/// Trits of a tensor with the scale of each block of 256.
#[derive(Debug, Clone, PartialEq)]
pub struct Unpacked {
    /// One value in {-1, 0, 1} per weight.
    pub trits: Vec<i8>,
    /// One scale per block, in weight units.
    pub block_scales: Vec<f32>,
}

impl Packing {
    /// Bytes of a block of 256 trits and its scale.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Tq2_0 => BLOCK_BYTES,
            Self::Tq1_0 => tq1_0::BLOCK_BYTES,
        }
    }

    /// Bytes that `num_weights` trits take; `None` when the number overflows.
    #[must_use]
    pub fn packed_len(self, num_weights: usize) -> Option<usize> {
        num_weights.div_ceil(BLOCK_LEN).checked_mul(self.block_bytes())
    }

    /// Packs a flattened tensor: a block per started 256 trits, `scale` (rounded to half precision) in each.
    ///
    /// Errors: [`TernaryError::NotATrit`]; [`TernaryError::Scale`] for a scale that is negative, NaN or above 65504.
    pub fn pack(self, trits: &[i8], scale: f32) -> Result<Vec<u8>, TernaryError> {
        let half_scale = f16::from_f32(scale);
        if !half_scale.is_finite() || scale < 0.0 {
            return Err(TernaryError::Scale { scale });
        }
        let mut packed = Vec::with_capacity(trits.len().div_ceil(BLOCK_LEN) * self.block_bytes());
        for (number, chunk) in trits.chunks(BLOCK_LEN).enumerate() {
            let mut padded = [0_i8; BLOCK_LEN];
            padded[..chunk.len()].copy_from_slice(chunk);
            match self {
                Self::Tq2_0 => encode_block(&padded, half_scale).map(|block| packed.extend_from_slice(&block)),
                Self::Tq1_0 => tq1_0::encode_block(&padded, half_scale).map(|block| packed.extend_from_slice(&block)),
            }
            .map_err(|error| at_block(error, number))?;
        }
        Ok(packed)
    }

    /// Unpacks the first `num_weights` trits of `bytes`, which must be exactly the blocks that many trits take.
    ///
    /// Errors: [`TernaryError::Length`]; [`TernaryError::Code`] for a code of 3 in TQ2_0.
    pub fn unpack(self, bytes: &[u8], num_weights: usize) -> Result<Unpacked, TernaryError> {
        let num_blocks = self.check_len(bytes, num_weights)?;
        let mut trits = Vec::with_capacity(num_blocks * BLOCK_LEN);
        let mut block_scales = Vec::with_capacity(num_blocks);
        let mut buffer = [0_i8; BLOCK_LEN];
        match self {
            Self::Tq2_0 => {
                for (number, block) in bytes.as_chunks::<BLOCK_BYTES>().0.iter().enumerate() {
                    let scale = decode_block(block, &mut buffer).map_err(|error| at_block(error, number))?;
                    trits.extend_from_slice(&buffer);
                    block_scales.push(scale.to_f32());
                }
            }
            Self::Tq1_0 => {
                for block in bytes.as_chunks::<{ tq1_0::BLOCK_BYTES }>().0 {
                    let scale = tq1_0::decode_block(block, &mut buffer);
                    trits.extend_from_slice(&buffer);
                    block_scales.push(scale.to_f32());
                }
            }
        }
        trits.truncate(num_weights);
        Ok(Unpacked { trits, block_scales })
    }

    /// Checks packed blocks without unpacking them: length, codes and scales. Returns the scale when all blocks share
    /// one (0 when there are no blocks), `None` when they differ.
    ///
    /// Errors: [`TernaryError::Length`]; [`TernaryError::Code`] for a code of 3 in TQ2_0; [`TernaryError::Scale`] for a
    /// scale that is negative, NaN or infinite.
    pub fn uniform_scale(self, bytes: &[u8], num_weights: usize) -> Result<Option<f32>, TernaryError> {
        self.check_len(bytes, num_weights)?;
        let (tq2_0, tq1_0) = match self {
            Self::Tq2_0 => (bytes.as_chunks::<BLOCK_BYTES>().0, &[][..]),
            Self::Tq1_0 => (&[][..], bytes.as_chunks::<{ tq1_0::BLOCK_BYTES }>().0),
        };
        if let Some(block) = tq2_0.iter().position(|block| !codes_are_trits(&block[..CODE_BYTES])) {
            return Err(TernaryError::Code { block });
        }
        let mut scales = tq2_0.iter().map(block_scale).chain(tq1_0.iter().map(tq1_0::block_scale));
        if let Some(bad) = scales.clone().find(|scale| !scale.is_finite() || *scale < f16::ZERO) {
            return Err(TernaryError::Scale { scale: bad.to_f32() });
        }
        let first = scales.next().unwrap_or(f16::ZERO);
        Ok(scales.all(|scale| scale == first).then(|| first.to_f32()))
    }

    /// The number of blocks, once `bytes` is known to hold exactly `num_weights` trits.
    fn check_len(self, bytes: &[u8], num_weights: usize) -> Result<usize, TernaryError> {
        let expected = self.packed_len(num_weights).unwrap_or(usize::MAX);
        if bytes.len() == expected {
            Ok(expected / self.block_bytes())
        } else {
            Err(TernaryError::Length { num_weights, expected, found: bytes.len() })
        }
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

    const PACKINGS: [Packing; 2] = [Packing::Tq2_0, Packing::Tq1_0];

    #[test]
    fn pads_only_the_end_with_zeros() {
        let packed = Packing::Tq2_0.pack(&[1; 257], 0.5).unwrap();
        assert_eq!(packed.len(), 2 * BLOCK_BYTES);
        // Second block: element 0 is +1 (code 2), everything else 0 (code 1).
        assert_eq!(packed[BLOCK_BYTES], 0b01_01_01_10);
        assert!(packed[BLOCK_BYTES + 1..BLOCK_BYTES + CODE_BYTES].iter().all(|&byte| byte == 0b01_01_01_01));
        let packed = Packing::Tq1_0.pack(&[1; 257], 0.5).unwrap();
        assert_eq!(packed.len(), 2 * 54);
        let padding = Packing::Tq1_0.unpack(&packed, 512).unwrap().trits.split_off(257);
        assert!(padding.iter().all(|trit| *trit == 0));
    }

    #[test]
    fn errors_name_the_place() {
        let mut trits = vec![0_i8; 600];
        trits[513] = -2;
        for packing in PACKINGS {
            assert_eq!(packing.pack(&trits, 1.0), Err(TernaryError::NotATrit { index: 513, value: -2 }));
            assert!(matches!(packing.pack(&[1], f32::NAN), Err(TernaryError::Scale { .. })));
            assert!(matches!(packing.pack(&[1], -1.0), Err(TernaryError::Scale { .. })));
            assert!(matches!(packing.pack(&[1], 1e6), Err(TernaryError::Scale { .. })));
            assert!(matches!(packing.unpack(&[0; 132], usize::MAX), Err(TernaryError::Length { .. })));
            let mut packed = packing.pack(&[0; 512], 1.0).unwrap();
            let last = packed.len() - 1;
            packed[last] = 0xfc;
            assert!(matches!(packing.uniform_scale(&packed, 512), Err(TernaryError::Scale { .. })));
        }
        let mut packed = Packing::Tq2_0.pack(&[0; 512], 1.0).unwrap();
        packed[BLOCK_BYTES + 3] = 0xff;
        assert_eq!(Packing::Tq2_0.unpack(&packed, 512), Err(TernaryError::Code { block: 1 }));
        assert_eq!(Packing::Tq2_0.uniform_scale(&packed, 512), Err(TernaryError::Code { block: 1 }));
        let short = Packing::Tq2_0.unpack(&packed, 513);
        assert!(matches!(short, Err(TernaryError::Length { expected: 198, found: 132, .. })));
    }

    proptest! {
        #[test]
        fn unpack_undoes_pack(trits in prop::collection::vec(-1_i8..=1, 0..1500), scale in 0.0_f32..100.0) {
            for packing in PACKINGS {
                let packed = packing.pack(&trits, scale).unwrap();
                prop_assert_eq!(Some(packed.len()), packing.packed_len(trits.len()));
                let stored = f16::from_f32(scale).to_f32();
                let unpacked = packing.unpack(&packed, trits.len()).unwrap();
                prop_assert_eq!(&unpacked.trits, &trits);
                prop_assert!(unpacked.block_scales.iter().all(|&s| s == stored));
                if !trits.is_empty() {
                    prop_assert_eq!(packing.uniform_scale(&packed, trits.len()).unwrap(), Some(stored));
                }
            }
        }

        #[test]
        fn any_bytes_unpack_or_err(bytes in prop::collection::vec(any::<u8>(), 0..300), num_weights: usize) {
            for packing in PACKINGS {
                let _ = packing.unpack(&bytes, num_weights);
                let _ = packing.uniform_scale(&bytes, num_weights);
                let _ = packing.unpack(&bytes, bytes.len() / packing.block_bytes() * BLOCK_LEN);
            }
        }
    }
}
