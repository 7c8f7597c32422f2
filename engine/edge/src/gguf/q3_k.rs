//! Q3_K: blocks of 256 3-bit codes in 16 groups of 16, each with a 6-bit scale of either sign; 3.4375 bits per weight.
//!
//! w = code · (scale · d), with d in half precision per block and codes in -4..=3. The scale of a group is a least-squares
//! fit in which each weight counts by its square, improved code by code.
//! Source: `block_q3_K`, `quantize_row_q3_K_ref` and `make_q3_quants` of llama.cpp, type 11 of GGUF.

use half::f16;

use super::blocks;
use crate::EdgeError;

/// Weights in a block.
pub const Q3_K_BLOCK_LEN: usize = 256;
/// Bytes of a block: 32 bytes of the codes' high bits, 64 of their low two, 12 of 6-bit scales, d (f16, little-endian).
pub const Q3_K_BLOCK_BYTES: usize = D_AT + 2;
const LOW_AT: usize = Q3_K_BLOCK_LEN / 8;
const SCALES_AT: usize = LOW_AT + Q3_K_BLOCK_LEN / 4;
const D_AT: usize = SCALES_AT + SCALE_BYTES;
const SCALE_BYTES: usize = 12;
/// Weights that share a scale.
const GROUP_LEN: usize = 16;
const NUM_GROUPS: usize = Q3_K_BLOCK_LEN / GROUP_LEN;
/// Weights that are neighbors in a byte are so far from each other.
const PLANE_LEN: usize = 32;
/// Codes that share their bytes of low bits: four planes.
const HALF_LEN: usize = 4 * PLANE_LEN;
/// What is added to a code, -4..=3, and to a scale's, -32..=31, before they are stored.
const CODE_OFFSET: u8 = 4;
const SCALE_OFFSET: u8 = 32;
/// Magnitudes below this count as zero.
const LEAST_MAGNITUDE: f32 = 1e-15;
/// Most rounds of improvement of a group's codes.
const NUM_ROUNDS: usize = 5;

/// Quantizes `values` (any shape flattened row-major, rows a multiple of 256).
///
/// Errors: [`EdgeError::Write`] for a length that is no multiple of 256, or a block with a value that is NaN, infinite
/// or too large for half-precision scales.
pub fn encode_q3_k(values: &[f32]) -> Result<Vec<u8>, EdgeError> {
    let blocks = blocks::checked::<Q3_K_BLOCK_LEN>("Q3_K", values)?;
    let mut bytes = Vec::with_capacity(blocks.len() * Q3_K_BLOCK_BYTES);
    for block in blocks {
        encode_block(block, &mut bytes)?;
    }
    Ok(bytes)
}

/// The values of Q3_K blocks; bytes beyond the last whole block are ignored.
#[must_use]
pub fn decode_q3_k(blocks: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; blocks.len() / Q3_K_BLOCK_BYTES * Q3_K_BLOCK_LEN];
    q3_k_floats(blocks, &mut values);
    values
}

/// [`decode_q3_k`] into as many whole blocks as `values` has places for: a plain loop, which each set of kernels compiles
/// for its own vectors.
#[inline(always)]
pub(crate) fn q3_k_floats(blocks: &[u8], values: &mut [f32]) {
    let blocks = blocks.as_chunks::<Q3_K_BLOCK_BYTES>().0.iter();
    for (block, values) in blocks.zip(values.as_chunks_mut::<Q3_K_BLOCK_LEN>().0) {
        let d = f16::from_le_bytes([block[D_AT], block[D_AT + 1]]).to_f32();
        let scales = unpacked_scales(&block[SCALES_AT..D_AT]).map(|scale| d * f32::from(scale));
        let (high_bits, low_bits) = (&block[..LOW_AT], &block[LOW_AT..SCALES_AT]);
        for (number, group) in values.as_chunks_mut::<GROUP_LEN>().0.iter_mut().enumerate() {
            // Two groups fill a plane.
            let (plane, first) = (number / 2, number % 2 * GROUP_LEN);
            let (half, shift) = (plane / 4, plane % 4 * 2);
            let low_bits = &low_bits[half * PLANE_LEN + first..][..GROUP_LEN];
            let high_bits = &high_bits[first..][..GROUP_LEN];
            let scale = scales[number];
            for ((value, low), high) in group.iter_mut().zip(low_bits).zip(high_bits) {
                let code = ((low >> shift) & 3) | (((high >> plane) & 1) << 2);
                *value = scale * (f32::from(code) - f32::from(CODE_OFFSET));
            }
        }
    }
}

fn encode_block(block: &[f32; Q3_K_BLOCK_LEN], bytes: &mut Vec<u8>) -> Result<(), EdgeError> {
    let groups = block.as_chunks::<GROUP_LEN>().0;
    let fits: Vec<Fit> = groups.iter().map(fit).collect();
    let mut widest = 0.0_f32;
    for fit in &fits {
        if !fit.scale.is_finite() {
            blocks::half_scale("Q3_K", fit.scale)?;
        }
        if fit.scale.abs() > widest.abs() {
            widest = fit.scale;
        }
    }
    let inverse = if widest == 0.0 { 0.0 } else { -f32::from(SCALE_OFFSET) / widest };
    let d = if widest == 0.0 { f16::ZERO } else { blocks::half_scale("Q3_K", 1.0 / inverse)? };
    let mut scales = [0_i8; NUM_GROUPS];
    for (scale, fit) in scales.iter_mut().zip(&fits) {
        *scale = (inverse * fit.scale).round_ties_even().clamp(-32.0, 31.0) as i8;
    }
    // Without a scale, stored scales are zero bits, which stand for -32 and mean nothing.
    let packed = if widest == 0.0 { [0; SCALE_BYTES] } else { packed_scales(&scales) };
    // Codes once more, by the scales as they are stored.
    let mut codes = [0_u8; Q3_K_BLOCK_LEN];
    for (((group, fit), codes), scale) in groups.iter().zip(&fits).zip(codes.chunks_exact_mut(GROUP_LEN)).zip(scales) {
        let scale = d.to_f32() * f32::from(scale);
        if scale == 0.0 {
            codes.copy_from_slice(&fit.codes);
            continue;
        }
        for (code, w) in codes.iter_mut().zip(group) {
            *code = stored_code(code_of(w / scale));
        }
    }
    let mut high_bits = [0_u8; LOW_AT];
    for (plane, codes) in codes.chunks_exact(PLANE_LEN).enumerate() {
        high_bits.iter_mut().zip(codes).for_each(|(bits, code)| *bits |= (code >> 2) << plane);
    }
    bytes.extend_from_slice(&high_bits);
    for half in codes.chunks_exact(HALF_LEN) {
        bytes.extend((0..PLANE_LEN).map(|at| {
            let planes = half.iter().skip(at).step_by(PLANE_LEN).zip([0, 2, 4, 6]);
            planes.fold(0, |byte, (code, shift)| byte | (code & 3) << shift)
        }));
    }
    bytes.extend_from_slice(&packed);
    bytes.extend_from_slice(&d.to_le_bytes());
    Ok(())
}

fn code_of(value: f32) -> i8 {
    value.round_ties_even().clamp(-4.0, 3.0) as i8
}

fn stored_code(code: i8) -> u8 {
    code.wrapping_add(CODE_OFFSET.cast_signed()).cast_unsigned()
}

/// A group's scale, of either sign, with codes as they are stored.
struct Fit {
    scale: f32,
    codes: [u8; GROUP_LEN],
}

/// Codes from the largest magnitude down, with the scale of least weighted error; then one code after the other moves
/// where that makes the best scale's error smaller.
fn fit(group: &[f32; GROUP_LEN]) -> Fit {
    let widest = group.iter().fold(0.0_f32, |most, w| if w.abs() > most.abs() { *w } else { most });
    if widest.abs() < LEAST_MAGNITUDE {
        return Fit { scale: 0.0, codes: [0; GROUP_LEN] };
    }
    let inverse = -f32::from(CODE_OFFSET) / widest;
    let mut codes = group.map(|w| code_of(inverse * w));
    // Σ w²·w·code and Σ w²·code²: their quotient is the best scale, and the first's square over the second what it explains.
    let (mut product, mut square) = (0.0_f32, 0.0_f32);
    for (w, code) in group.iter().zip(codes) {
        let (weight, code) = (w * w, f32::from(code));
        product += weight * w * code;
        square += weight * code * code;
    }
    for _ in 0..NUM_ROUNDS {
        let mut has_changed = false;
        for (w, code) in group.iter().zip(&mut codes) {
            let weight = w * w;
            let old = f32::from(*code);
            let other_product = product - weight * w * old;
            if other_product <= 0.0 || other_product.is_nan() {
                continue;
            }
            let other_square = square - weight * old * old;
            let tried = code_of(w * other_square / other_product);
            if tried == *code {
                continue;
            }
            let new = f32::from(tried);
            let new_product = other_product + weight * w * new;
            let new_square = other_square + weight * new * new;
            if new_square > 0.0 && new_product * new_product * square > product * product * new_square {
                (*code, product, square, has_changed) = (tried, new_product, new_square, true);
            }
        }
        if !has_changed {
            break;
        }
    }
    let scale = if square > 0.0 { product / square } else { 0.0 };
    // Numbers whose squares are too large are told by a scale that is none.
    let scale = if square.is_finite() { scale } else { f32::INFINITY };
    Fit { scale, codes: codes.map(stored_code) }
}

/// 16 scales of 6 bits in 12 bytes: the low four bits of the first eight in the low halves of bytes 0 to 7, of the others in
/// their high halves; the high two of scale i in byte 8 + i mod 4, from bit 2 · (i / 4) on.
fn packed_scales(scales: &[i8; NUM_GROUPS]) -> [u8; SCALE_BYTES] {
    let mut packed = [0_u8; SCALE_BYTES];
    for (number, scale) in scales.iter().enumerate() {
        let stored = scale.wrapping_add(SCALE_OFFSET.cast_signed()).cast_unsigned() & 63;
        packed[number % 8] |= (stored & 15) << (number / 8 * 4);
        packed[8 + number % 4] |= (stored >> 4) << (number / 4 * 2);
    }
    packed
}

/// What [`packed_scales`] packed; `packed`: 12 bytes.
#[inline(always)]
fn unpacked_scales(packed: &[u8]) -> [i8; NUM_GROUPS] {
    let byte = |at: usize| packed.get(at).copied().unwrap_or_default();
    std::array::from_fn(|number| {
        let low = (byte(number % 8) >> (number / 8 * 4)) & 15;
        let high = (byte(8 + number % 4) >> (number / 4 * 2)) & 3;
        (low | high << 4).wrapping_sub(SCALE_OFFSET).cast_signed()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_llama_cpps() {
        // All codes are 0 at first, which their offset makes -4, and all scales 0, which theirs makes -32.
        let mut block = [0_u8; Q3_K_BLOCK_BYTES];
        block[D_AT..].copy_from_slice(&[0x00, 0x38]); // d = 0.5
        // Group 0: scale 3; group 13: scale -5, in the high half of byte 5 and bits 6 and 7 of byte 9.
        block[SCALES_AT] = 35 & 15;
        block[SCALES_AT + 8] = 35 >> 4;
        block[SCALES_AT + 5] = (27 & 15) << 4;
        block[SCALES_AT + 9] = (27 >> 4) << 6;
        // Weight 1: low bits 3, high bit set, code 3. Weight 13 · 16 + 2 is 210, in plane 6, at 18 there: code -2.
        (block[1], block[LOW_AT + 1]) = (1, 3);
        block[LOW_AT + PLANE_LEN + 18] = 2 << 4;
        let values = decode_q3_k(&block);
        assert_eq!((values[0], values[1]), (0.5 * 3.0 * -4.0, 0.5 * 3.0 * 3.0));
        assert_eq!((values[208], values[210]), (0.5 * -5.0 * -4.0, 0.5 * -5.0 * -2.0));
        assert_eq!(values[16..32], [0.5 * -32.0 * -4.0; 16]);
    }

    #[test]
    fn refuses_ragged_not_finite_and_too_large() {
        assert!(encode_q3_k(&[1.0; 255]).unwrap_err().to_string().contains("multiple of 256"));
        assert!(encode_q3_k(&[f32::NAN; 256]).unwrap_err().to_string().contains("finite"));
        for value in [1e9, 1e13, 1e19, 1e30, -3e38] {
            assert!(encode_q3_k(&[value; 256]).unwrap_err().to_string().contains("half precision"), "{value}");
        }
        assert_eq!(decode_q3_k(&encode_q3_k(&[0.0; 512]).unwrap()), [0.0; 512]);
        assert_eq!(decode_q3_k(&encode_q3_k(&[1e-30; 256]).unwrap()), [0.0; 256]);
    }

    #[test]
    fn what_the_format_can_say_comes_back() {
        // All codes, with scales that are whole parts of the block's.
        let values: Vec<f32> = (0..256).map(|at| (at % 8 - 4) as f32 * (at / 16 + 1) as f32 / 32.0).collect();
        let back = decode_q3_k(&encode_q3_k(&values).unwrap());
        let most = values.iter().zip(back).map(|(w, back)| (w - back).abs()).fold(0.0, f32::max);
        assert!(most < 0.02, "{most}");
    }

    proptest! {
        #[test]
        fn scales_come_back(codes in prop::collection::vec(-32_i8..32, NUM_GROUPS)) {
            let codes: [i8; NUM_GROUPS] = codes.try_into().unwrap();
            prop_assert_eq!(unpacked_scales(&packed_scales(&codes)), codes);
        }

        #[test]
        fn error_is_within_a_step(values in prop::collection::vec(-5.0_f32..5.0, 256)) {
            let bytes = encode_q3_k(&values).unwrap();
            prop_assert_eq!(bytes.len(), Q3_K_BLOCK_BYTES);
            let back = decode_q3_k(&bytes);
            // A magnitude of 5 in 4 steps on one side and 3 on the other, and what rounding scales to 6 bits adds.
            prop_assert!(values.iter().zip(&back).all(|(v, b)| (v - b).abs() < 5.0 / 2.0), "{back:?}");
            let (mut error, mut norm) = (0.0, 0.0);
            for (v, b) in values.iter().zip(&back) {
                error += (v - b) * (v - b);
                norm += v * v;
            }
            prop_assert!((error / norm).sqrt() < 0.25, "{}", (error / norm).sqrt());
        }

        #[test]
        fn any_bytes_decode(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(decode_q3_k(&bytes).len(), bytes.len() / Q3_K_BLOCK_BYTES * 256);
        }
    }
}
