//! One TQ1_0 block: 256 trits at five to a byte, then one half-precision scale; 1.6875 bits per weight.
//!
//! Five trits are digits 0 to 2 of a number below 3⁵ = 243, the first the most significant. The byte holds that number
//! as a fraction of 243 in 256 parts, rounded up, so that multiplying by 3 moves the next digit into the carry: unpacking
//! needs no division. The digits of a byte lie a stride apart: bytes 0 to 31 hold elements 0 to 159 at a stride of 32,
//! bytes 32 to 47 elements 160 to 239 at a stride of 16, and bytes 48 to 51 elements 240 to 255, four to a byte, at a
//! stride of 4. Source: `block_tq1_0` of llama.cpp, type 34 of GGUF.

use half::f16;

use crate::{BLOCK_LEN, TernaryError};

/// Bytes of a block: 52 of digits, then the scale (f16, little-endian).
pub(crate) const BLOCK_BYTES: usize = DIGIT_BYTES + 2;
const DIGIT_BYTES: usize = 52;

/// (first byte, bytes, first element, digits per byte): bytes of a part hold elements a stride of `bytes` apart.
const PARTS: [(usize, usize, usize, usize); 3] = [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)];
/// Digits that a byte has room for.
const DIGITS: usize = 5;

/// Packs 256 trits with `scale`.
///
/// Errors: [`TernaryError::NotATrit`] for a value outside {-1, 0, 1}.
pub(crate) fn encode_block(trits: &[i8; BLOCK_LEN], scale: f16) -> Result<[u8; BLOCK_BYTES], TernaryError> {
    if let Some((index, &value)) = trits.iter().enumerate().find(|(_, value)| !(-1..=1).contains(*value)) {
        return Err(TernaryError::NotATrit { index, value });
    }
    let mut block = [0_u8; BLOCK_BYTES];
    for (first_byte, num_bytes, first_element, num_digits) in PARTS {
        for byte in 0..num_bytes {
            // A byte with fewer digits has zeros in the lowest places.
            let digit = |place: usize| {
                let element = first_element + place * num_bytes + byte;
                if place < num_digits { u16::from((trits[element] + 1).cast_unsigned()) } else { 0 }
            };
            let number = (0..DIGITS).fold(0_u16, |number, place| number * 3 + digit(place));
            // At most ⌈242 · 256 / 243⌉ = 255.
            block[first_byte + byte] = (u32::from(number) * 256).div_ceil(243) as u8;
        }
    }
    block[DIGIT_BYTES..].copy_from_slice(&scale.to_le_bytes());
    Ok(block)
}

/// Unpacks a block into 256 trits and returns its scale. Every byte stands for some digits, so that nothing is refused.
pub(crate) fn decode_block(block: &[u8; BLOCK_BYTES], trits: &mut [i8; BLOCK_LEN]) -> f16 {
    for (first_byte, num_bytes, first_element, num_digits) in PARTS {
        for byte in 0..num_bytes {
            let mut rest = block[first_byte + byte];
            for place in 0..num_digits {
                let product = u16::from(rest) * 3;
                trits[first_element + place * num_bytes + byte] = (product >> 8) as i8 - 1;
                rest = product as u8;
            }
        }
    }
    block_scale(block)
}

/// The scale of a block, in weight units.
pub(crate) fn block_scale(block: &[u8; BLOCK_BYTES]) -> f16 {
    f16::from_le_bytes([block[DIGIT_BYTES], block[DIGIT_BYTES + 1]])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_llama_cpps() {
        let mut trits = [0_i8; BLOCK_LEN];
        // Element 33 is byte 1, second digit; 160 + 3 · 16 + 2 is byte 34, fourth; 240 + 4 + 3 is byte 51, second.
        (trits[33], trits[210], trits[247]) = (1, -1, 1);
        let block = encode_block(&trits, f16::from_f32(1.0)).unwrap();
        let byte = |number: u32| (number * 256).div_ceil(243) as u8;
        let mut expected = [byte(121); BLOCK_BYTES];
        (expected[1], expected[34]) = (byte(121 + 27), byte(121 - 3));
        expected[48..52].copy_from_slice(&[byte(120), byte(120), byte(120), byte(120 + 27)]);
        expected[52..].copy_from_slice(&[0x00, 0x3c]);
        assert_eq!(block, expected);
    }

    #[test]
    fn refuses_what_is_no_trit() {
        let mut trits = [0_i8; BLOCK_LEN];
        trits[250] = -2;
        assert_eq!(encode_block(&trits, f16::ZERO), Err(TernaryError::NotATrit { index: 250, value: -2 }));
    }

    #[test]
    fn every_number_of_five_digits_comes_back() {
        for number in 0..243_u16 {
            let mut trits = [0_i8; BLOCK_LEN];
            let mut rest = number;
            for place in (0..DIGITS).rev() {
                trits[place * 32] = (rest % 3) as i8 - 1;
                rest /= 3;
            }
            let mut back = [0; BLOCK_LEN];
            decode_block(&encode_block(&trits, f16::ZERO).unwrap(), &mut back);
            assert_eq!(back, trits, "{number}");
        }
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(trits in prop::collection::vec(-1_i8..=1, BLOCK_LEN), scale: u16) {
            let trits: [i8; BLOCK_LEN] = trits.try_into().unwrap();
            let block = encode_block(&trits, f16::from_bits(scale)).unwrap();
            let mut back = [0; BLOCK_LEN];
            prop_assert_eq!(decode_block(&block, &mut back).to_bits(), scale);
            prop_assert_eq!(back, trits);
        }

        #[test]
        fn a_block_of_any_bytes_is_trits(bytes in prop::collection::vec(any::<u8>(), BLOCK_BYTES)) {
            let block: [u8; BLOCK_BYTES] = bytes.try_into().unwrap();
            let mut trits = [9; BLOCK_LEN];
            decode_block(&block, &mut trits);
            prop_assert!(trits.iter().all(|trit| (-1..=1).contains(trit)));
        }
    }
}
