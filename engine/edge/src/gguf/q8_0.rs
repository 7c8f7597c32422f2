//! Q8_0: blocks of 32 signed bytes behind one half-precision scale; 8.5 bits per weight.
//! Source: `block_q8_0` of llama.cpp, type 8 of GGUF.

use half::f16;

use super::blocks;
use crate::EdgeError;

/// Weights in a block.
pub const Q8_0_BLOCK_LEN: usize = 32;
/// Bytes of a block: scale (f16, little-endian), then 32 signed bytes.
pub const Q8_0_BLOCK_BYTES: usize = 2 + Q8_0_BLOCK_LEN;

/// Quantizes `values` (any shape flattened row-major, rows a multiple of 32): scale = max |w| / 127 per block, stored in
/// half precision; codes are rounded by the scale before that, as llama.cpp's `quantize_row_q8_0_ref` does.
///
/// Errors: [`EdgeError::Write`] for a length that is no multiple of 32, or a block with a value that is NaN, infinite
/// or too large for a half-precision scale.
pub fn encode_q8_0(values: &[f32]) -> Result<Vec<u8>, EdgeError> {
    let blocks = blocks::checked::<Q8_0_BLOCK_LEN>("Q8_0", values)?;
    let mut bytes = Vec::with_capacity(blocks.len() * Q8_0_BLOCK_BYTES);
    for block in blocks {
        let scale = block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs())) / 127.0;
        bytes.extend_from_slice(&blocks::half_scale("Q8_0", scale)?.to_le_bytes());
        let inverse = blocks::inverse(scale);
        bytes.extend(block.iter().map(|w| ((w * inverse).round() as i8).cast_unsigned()));
    }
    Ok(bytes)
}

/// The values of Q8_0 blocks; bytes beyond the last whole block are ignored.
#[must_use]
pub fn decode_q8_0(blocks: &[u8]) -> Vec<f32> {
    let blocks = blocks.as_chunks::<Q8_0_BLOCK_BYTES>().0;
    let values = blocks.iter().flat_map(|block| {
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        block[2..].iter().map(move |q| f32::from(q.cast_signed()) * scale)
    });
    values.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_ragged_and_not_finite() {
        assert!(encode_q8_0(&[1.0; 33]).unwrap_err().to_string().contains("multiple of 32"));
        assert!(encode_q8_0(&[f32::NAN; 32]).unwrap_err().to_string().contains("finite"));
        assert!(encode_q8_0(&[1e30; 32]).unwrap_err().to_string().contains("half precision"));
        assert_eq!(decode_q8_0(&encode_q8_0(&[0.0; 64]).unwrap()), [0.0; 64]);
    }

    proptest! {
        #[test]
        fn error_is_within_half_a_step(values in prop::collection::vec(-5.0_f32..5.0, 64)) {
            let bytes = encode_q8_0(&values).unwrap();
            prop_assert_eq!(bytes.len(), 2 * Q8_0_BLOCK_BYTES);
            for (block, back) in values.chunks(32).zip(decode_q8_0(&bytes).chunks(32)) {
                let largest = block.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                for (v, b) in block.iter().zip(back) {
                    // Half a step, plus what rounding the scale to half precision can cost at full range.
                    prop_assert!((v - b).abs() <= largest / 127.0 * 0.5 + largest / 1000.0, "{v} became {b}");
                }
            }
        }
    }
}
