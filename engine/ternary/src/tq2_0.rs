//! One TQ2_0 block: 256 trits at 2 bits each, then one half-precision scale; 2.0625 bits per weight.
//!
//! The 64 code bytes are two halves of 32 bytes; each half holds a *group* of 128 consecutive trits: byte `l` of a
//! half holds the group's elements `l`, `l + 32`, `l + 64`, `l + 96` at bit offsets 0, 2, 4, 6. A code is `trit + 1`.
//! Source: `block_tq2_0` of llama.cpp, type 35 of GGUF.

use half::f16;

use crate::TernaryError;

/// Trits in a block.
pub const BLOCK_LEN: usize = 256;
/// Bytes of a block's codes.
pub const CODE_BYTES: usize = 64;
/// Bytes of a block: codes, then the scale (f16, little-endian).
pub const BLOCK_BYTES: usize = CODE_BYTES + 2;
/// Consecutive trits whose codes share the same bytes.
pub const GROUP_LEN: usize = 128;
/// Bytes of a group's codes.
pub const GROUP_BYTES: usize = 32;

/// Packs 256 trits with `scale`.
///
/// Errors: [`TernaryError::NotATrit`] for a value outside {-1, 0, 1}.
pub fn encode_block(trits: &[i8; BLOCK_LEN], scale: f16) -> Result<[u8; BLOCK_BYTES], TernaryError> {
    let mut block = [0_u8; BLOCK_BYTES];
    let (codes, scale_bytes) = block.split_at_mut(CODE_BYTES);
    for (index, &value) in trits.iter().enumerate() {
        if !(-1..=1).contains(&value) {
            return Err(TernaryError::NotATrit { index, value });
        }
        let (group, element) = (index / GROUP_LEN, index % GROUP_LEN);
        let shift = 2 * (element / GROUP_BYTES);
        codes[group * GROUP_BYTES + element % GROUP_BYTES] |= (value + 1).cast_unsigned() << shift;
    }
    scale_bytes.copy_from_slice(&scale.to_le_bytes());
    Ok(block)
}

/// Unpacks a block into 256 trits and returns its scale.
///
/// Errors: [`TernaryError::Code`] for a code of 3 (`block: 0`; a caller that knows better replaces the number).
pub fn decode_block(block: &[u8; BLOCK_BYTES], trits: &mut [i8; BLOCK_LEN]) -> Result<f16, TernaryError> {
    for (codes, group) in block[..CODE_BYTES].chunks_exact(GROUP_BYTES).zip(trits.chunks_exact_mut(GROUP_LEN)) {
        if !codes_are_trits(codes) {
            return Err(TernaryError::Code { block: 0 });
        }
        unpack_group(codes, group);
    }
    Ok(block_scale(block))
}

/// The scale of a block, in weight units.
#[must_use]
pub fn block_scale(block: &[u8; BLOCK_BYTES]) -> f16 {
    f16::from_le_bytes([block[CODE_BYTES], block[CODE_BYTES + 1]])
}

/// The 32 code bytes of group `group` (128 trits; two groups per block) within packed blocks; `None` past the end.
#[must_use]
pub fn group_codes(blocks: &[u8], group: usize) -> Option<&[u8]> {
    let start = (group / 2).checked_mul(BLOCK_BYTES)?.checked_add(group % 2 * GROUP_BYTES)?;
    blocks.get(start..start.checked_add(GROUP_BYTES)?)
}

/// Unpacks the code bytes of one group (32) into its trits (128). A code of 3 becomes 2; shorter slices end early.
pub fn unpack_group(codes: &[u8], trits: &mut [i8]) {
    for (plane, out) in trits.chunks_mut(GROUP_BYTES).enumerate() {
        let shift = 2 * plane.min(3);
        for (&byte, trit) in codes.iter().zip(out) {
            *trit = ((byte >> shift) & 3).cast_signed() - 1;
        }
    }
}

/// True when no 2-bit code is 3.
pub(crate) fn codes_are_trits(codes: &[u8]) -> bool {
    codes.iter().fold(0, |bad, byte| bad | (byte & (byte >> 1) & 0x55)) == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_llama_cpps() {
        let mut trits = [0_i8; BLOCK_LEN];
        // Element 33 is byte 1, second plane; element 128 + 96 is byte 32, fourth plane.
        (trits[33], trits[224]) = (1, -1);
        let block = encode_block(&trits, f16::from_f32(1.0)).unwrap();
        let mut expected = [0b01_01_01_01_u8; BLOCK_BYTES];
        (expected[1], expected[32]) = (0b01_01_10_01, 0b00_01_01_01);
        (expected[64], expected[65]) = (0x00, 0x3c);
        assert_eq!(block, expected);
    }

    #[test]
    fn refuses_what_is_no_trit() {
        let mut trits = [0_i8; BLOCK_LEN];
        trits[200] = 2;
        assert_eq!(encode_block(&trits, f16::ZERO), Err(TernaryError::NotATrit { index: 200, value: 2 }));
        let mut block = [0_u8; BLOCK_BYTES];
        block[40] = 0b1100;
        assert_eq!(decode_block(&block, &mut [0; BLOCK_LEN]), Err(TernaryError::Code { block: 0 }));
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(trits in prop::collection::vec(-1_i8..=1, BLOCK_LEN), scale: u16) {
            let trits: [i8; BLOCK_LEN] = trits.try_into().unwrap();
            let block = encode_block(&trits, f16::from_bits(scale)).unwrap();
            let mut back = [0; BLOCK_LEN];
            prop_assert_eq!(decode_block(&block, &mut back).unwrap().to_bits(), scale);
            prop_assert_eq!(back, trits);
        }

        #[test]
        fn a_block_of_any_bytes_decodes_or_errs(bytes in prop::collection::vec(any::<u8>(), BLOCK_BYTES)) {
            let block: [u8; BLOCK_BYTES] = bytes.try_into().unwrap();
            let mut trits = [0; BLOCK_LEN];
            if let Ok(scale) = decode_block(&block, &mut trits) {
                prop_assert_eq!(encode_block(&trits, scale).unwrap(), block);
            }
        }
    }
}
