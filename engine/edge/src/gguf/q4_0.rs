//! Q4_0: blocks of 32 4-bit codes behind one half-precision scale; 4.5 bits per weight.
//!
//! w = (code - 8) · scale. The weight of the largest magnitude gets code 0, so that the scale has the opposite sign of
//! it: of the 16 codes, none is wasted. Byte i of a block holds weight i in its low four bits and weight i + 16 in the
//! high ones. Source: `block_q4_0` and `quantize_row_q4_0_ref` of llama.cpp, type 2 of GGUF.

use half::f16;

use super::{Q8_0_BLOCK_BYTES, blocks};
use crate::EdgeError;

/// Weights in a block.
pub const Q4_0_BLOCK_LEN: usize = 32;
/// Bytes of a block: scale (f16, little-endian), then 16 bytes of codes.
pub const Q4_0_BLOCK_BYTES: usize = 2 + Q4_0_BLOCK_LEN / 2;
/// The code that stands for 0.
pub(crate) const Q4_0_ZERO_CODE: u8 = 8;

/// Quantizes `values` (any shape flattened row-major, rows a multiple of 32).
///
/// Errors: [`EdgeError::Write`] for a length that is no multiple of 32, or a block with a value that is NaN, infinite
/// or too large for a half-precision scale.
pub fn encode_q4_0(values: &[f32]) -> Result<Vec<u8>, EdgeError> {
    let blocks = blocks::checked::<Q4_0_BLOCK_LEN>("Q4_0", values)?;
    let mut bytes = Vec::with_capacity(blocks.len() * Q4_0_BLOCK_BYTES);
    for block in blocks {
        // The first of equally large ones.
        let largest = block.iter().fold(0.0_f32, |largest, w| if w.abs() > largest.abs() { *w } else { largest });
        let scale = largest / -8.0;
        let inverse = blocks::inverse(scale);
        // 8.5 is the code of 0 and a half, which makes the cut a rounding.
        let code = |w: f32| ((w * inverse + 8.5) as u8).min(15);
        let codes = block.map(|w| code(w).cast_signed() - Q4_0_ZERO_CODE.cast_signed());
        bytes.extend_from_slice(&pack_q4_0(blocks::half_scale("Q4_0", scale)?, &codes));
    }
    Ok(bytes)
}

/// A block of these codes, -8 to 7, each worth `scale`; others lose their upper bits.
#[must_use]
pub fn pack_q4_0(scale: f16, codes: &[i8; Q4_0_BLOCK_LEN]) -> [u8; Q4_0_BLOCK_BYTES] {
    let mut bytes = [0; Q4_0_BLOCK_BYTES];
    let (scale_bytes, packed) = bytes.split_at_mut(2);
    scale_bytes.copy_from_slice(&scale.to_le_bytes());
    let code = |code: i8| code.wrapping_add(Q4_0_ZERO_CODE.cast_signed()).cast_unsigned() & 15;
    let (low, high) = codes.split_at(Q4_0_BLOCK_LEN / 2);
    packed.iter_mut().zip(low.iter().zip(high)).for_each(|(byte, (low, high))| *byte = code(*low) | code(*high) << 4);
    bytes
}

/// The values of Q4_0 blocks; bytes beyond the last whole block are ignored.
#[must_use]
pub fn decode_q4_0(blocks: &[u8]) -> Vec<f32> {
    let blocks = blocks.as_chunks::<Q4_0_BLOCK_BYTES>().0;
    let values = blocks.iter().flat_map(|block| {
        let scale = scale_of(block).to_f32();
        signed_codes(block).map(move |code| f32::from(code) * scale)
    });
    values.collect()
}

/// Fills `wider` with the same numbers as Q8_0 blocks, for kernels that read those: codes become signed bytes, scales stay.
pub(crate) fn q8_0_from_q4_0(blocks: &[u8], wider: &mut Vec<u8>) {
    let blocks = blocks.as_chunks::<Q4_0_BLOCK_BYTES>().0;
    wider.resize(blocks.len() * Q8_0_BLOCK_BYTES, 0);
    for (block, wider) in blocks.iter().zip(wider.as_chunks_mut::<Q8_0_BLOCK_BYTES>().0) {
        let (scale, codes) = wider.split_at_mut(2);
        scale.copy_from_slice(&block[..2]);
        let (low, high) = codes.split_at_mut(Q4_0_BLOCK_LEN / 2);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(&block[2..]) {
            *low = (byte & 15).wrapping_sub(Q4_0_ZERO_CODE);
            *high = (byte >> 4).wrapping_sub(Q4_0_ZERO_CODE);
        }
    }
}

fn scale_of(block: &[u8; Q4_0_BLOCK_BYTES]) -> f16 {
    f16::from_le_bytes([block[0], block[1]])
}

/// Codes less that of 0, in the order of the weights: -8 to 7.
fn signed_codes(block: &[u8; Q4_0_BLOCK_BYTES]) -> impl Iterator<Item = i8> + use<'_> {
    let codes = &block[2..];
    let nibbles = codes.iter().map(|byte| byte & 15).chain(codes.iter().map(|byte| byte >> 4));
    nibbles.map(|code| (code.wrapping_sub(Q4_0_ZERO_CODE)).cast_signed())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::decode_q8_0;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_llama_cpps() {
        let mut values = [0.0_f32; 32];
        // The largest magnitude is -2: the scale is 0.25, and -2 gets code 0.
        (values[0], values[1], values[16], values[31]) = (-2.0, 1.75, 0.25, -0.5);
        let mut expected = [0x88_u8; Q4_0_BLOCK_BYTES];
        (expected[0], expected[1]) = (0x00, 0x34);
        (expected[2], expected[3], expected[17]) = (0x90, 0x8f, 0x68);
        assert_eq!(encode_q4_0(&values).unwrap(), expected);
        assert_eq!(decode_q4_0(&expected), values);
    }

    #[test]
    fn refuses_ragged_and_not_finite() {
        assert!(encode_q4_0(&[1.0; 31]).unwrap_err().to_string().contains("multiple of 32"));
        assert!(encode_q4_0(&[f32::INFINITY; 32]).unwrap_err().to_string().contains("finite"));
        assert!(encode_q4_0(&[1e30; 32]).unwrap_err().to_string().contains("half precision"));
        assert_eq!(decode_q4_0(&encode_q4_0(&[0.0; 64]).unwrap()), [0.0; 64]);
        assert_eq!(decode_q4_0(&encode_q4_0(&[1e-42; 32]).unwrap()), [0.0; 32]);
    }

    proptest! {
        #[test]
        fn error_is_within_half_a_step_but_at_the_far_end(values in prop::collection::vec(-5.0_f32..5.0, 64)) {
            let bytes = encode_q4_0(&values).unwrap();
            prop_assert_eq!(bytes.len(), 2 * Q4_0_BLOCK_BYTES);
            for (block, back) in values.chunks(32).zip(decode_q4_0(&bytes).chunks(32)) {
                let largest = block.iter().fold(0.0_f32, |m, v| if v.abs() > m.abs() { *v } else { m });
                let step = largest.abs() / 8.0;
                for (v, b) in block.iter().zip(back) {
                    // The codes reach 8 steps on the side of the largest, 7 on the other.
                    // The step is a half-precision number: 7 of them are off by 7/2048 of a step.
                    let missed = (-(v * largest.signum()) - 7.5 * step).max(0.0);
                    prop_assert!((v - b).abs() <= step * 0.504 + missed + 1e-6, "{v} became {b}");
                }
            }
        }

        #[test]
        fn as_q8_0_the_numbers_are_the_same(bytes in prop::collection::vec(any::<u8>(), 5 * Q4_0_BLOCK_BYTES)) {
            // What is there from before is overwritten.
            let mut wider = vec![7; 900];
            q8_0_from_q4_0(&bytes, &mut wider);
            prop_assert_eq!(wider.len(), 5 * Q8_0_BLOCK_BYTES);
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let has_nan = decode_q4_0(&bytes).iter().any(|value| value.is_nan());
            prop_assert!(has_nan || bits(decode_q4_0(&bytes)) == bits(decode_q8_0(&wider)));
        }
    }
}
