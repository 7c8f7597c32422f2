//! Q4_K: blocks of 256 4-bit codes in 8 groups of 32, each with a 6-bit scale and a 6-bit minimum; 4.5 bits per weight.
//!
//! w = code · (scale · d) - minimum · dmin, with d and dmin in half precision per block: where Q4_0 spends its levels
//! evenly around 0, this spends them between a group's ends. The scale and minimum of a group are the best of 22 by a
//! weighted least-squares fit, in which larger weights count more.
//! Source: `block_q4_K`, `quantize_row_q4_K_ref` and `make_qkx2_quants` of llama.cpp, type 12 of GGUF.

use half::f16;

use super::blocks;
use crate::EdgeError;

/// Weights in a block.
pub const Q4_K_BLOCK_LEN: usize = 256;
/// Bytes of a block: d and dmin (f16, little-endian), 12 bytes of 6-bit scales and minimums, 128 bytes of codes.
pub const Q4_K_BLOCK_BYTES: usize = CODES_AT + Q4_K_BLOCK_LEN / 2;
const SCALES_AT: usize = 4;
const CODES_AT: usize = SCALES_AT + 12;
/// Weights that share a scale.
const GROUP_LEN: usize = 32;
const NUM_GROUPS: usize = Q4_K_BLOCK_LEN / GROUP_LEN;
/// Largest code of a weight.
const MAX_CODE: f32 = 15.0;
/// Largest code of a scale or minimum.
const MAX_SCALE_CODE: f32 = 63.0;
/// Tried ends of a group's range: the plain one, and these steps around it, in codes.
const NUM_TRIES: u8 = 21;
const FIRST_TRY: f32 = -1.0;
const TRY_STEP: f32 = 0.1;

/// Quantizes `values` (any shape flattened row-major, rows a multiple of 256).
///
/// Errors: [`EdgeError::Write`] for a length that is no multiple of 256, or a block with a value that is NaN, infinite
/// or too large for half-precision scales.
pub fn encode_q4_k(values: &[f32]) -> Result<Vec<u8>, EdgeError> {
    let blocks = blocks::checked::<Q4_K_BLOCK_LEN>("Q4_K", values)?;
    let mut bytes = Vec::with_capacity(blocks.len() * Q4_K_BLOCK_BYTES);
    for block in blocks {
        encode_block(block, &mut bytes)?;
    }
    Ok(bytes)
}

/// The values of Q4_K blocks; bytes beyond the last whole block are ignored.
#[must_use]
pub fn decode_q4_k(blocks: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; blocks.len() / Q4_K_BLOCK_BYTES * Q4_K_BLOCK_LEN];
    q4_k_floats(blocks, &mut values);
    values
}

/// [`decode_q4_k`] into as many whole blocks as `values` has places for: a plain loop, which each set of kernels compiles
/// for its own vectors.
#[inline(always)]
pub(crate) fn q4_k_floats(blocks: &[u8], values: &mut [f32]) {
    let blocks = blocks.as_chunks::<Q4_K_BLOCK_BYTES>().0.iter();
    for (block, values) in blocks.zip(values.as_chunks_mut::<Q4_K_BLOCK_LEN>().0) {
        let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
        let dmin = f16::from_le_bytes([block[2], block[3]]).to_f32();
        let scales = unpacked_scales(&block[SCALES_AT..CODES_AT]);
        // Two groups share their bytes: the first has the low four bits, the second the high ones.
        for (number, (group, (scale, minimum))) in
            values.as_chunks_mut::<GROUP_LEN>().0.iter_mut().zip(scales).enumerate()
        {
            let (scale, minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
            let (codes, shift) = (&block[CODES_AT + number / 2 * GROUP_LEN..][..GROUP_LEN], number % 2 * 4);
            for (value, byte) in group.iter_mut().zip(codes) {
                *value = scale * f32::from((byte >> shift) & 15) - minimum;
            }
        }
    }
}

fn encode_block(block: &[f32; Q4_K_BLOCK_LEN], bytes: &mut Vec<u8>) -> Result<(), EdgeError> {
    let groups = block.as_chunks::<GROUP_LEN>().0;
    let fits: Vec<Fit> = groups.iter().map(fit).collect();
    let max_scale = fits.iter().fold(0.0_f32, |most, fit| most.max(fit.scale));
    let max_minimum = fits.iter().fold(0.0_f32, |most, fit| most.max(fit.minimum));
    let inverse = |most: f32| if most > 0.0 { MAX_SCALE_CODE / most } else { 0.0 };
    let (inverse_scale, inverse_minimum) = (inverse(max_scale), inverse(max_minimum));
    let code = |value: f32| value.round_ties_even().min(MAX_SCALE_CODE) as u8;
    let mut scales = [(0_u8, 0_u8); NUM_GROUPS];
    for (codes, fit) in scales.iter_mut().zip(&fits) {
        *codes = (code(inverse_scale * fit.scale), code(inverse_minimum * fit.minimum));
    }
    let d = blocks::half_scale("Q4_K", max_scale / MAX_SCALE_CODE)?;
    let dmin = blocks::half_scale("Q4_K", max_minimum / MAX_SCALE_CODE)?;
    bytes.extend_from_slice(&d.to_le_bytes());
    bytes.extend_from_slice(&dmin.to_le_bytes());
    bytes.extend_from_slice(&packed_scales(&scales));
    // Codes once more, by the scales as they are stored.
    let mut codes = [0_u8; Q4_K_BLOCK_LEN];
    for (((group, fit), codes), (scale, minimum)) in
        groups.iter().zip(&fits).zip(codes.chunks_exact_mut(GROUP_LEN)).zip(scales)
    {
        let (scale, minimum) = (d.to_f32() * f32::from(scale), dmin.to_f32() * f32::from(minimum));
        if scale == 0.0 {
            codes.copy_from_slice(&fit.codes);
            continue;
        }
        for (code, w) in codes.iter_mut().zip(group) {
            *code = code_of((w + minimum) / scale);
        }
    }
    for pair in codes.chunks_exact(2 * GROUP_LEN) {
        let (low, high) = pair.split_at(GROUP_LEN);
        bytes.extend(low.iter().zip(high).map(|(low, high)| low | high << 4));
    }
    Ok(())
}

fn code_of(value: f32) -> u8 {
    value.round_ties_even().clamp(0.0, MAX_CODE) as u8
}

/// A group's line: w ≈ code · scale - minimum.
struct Fit {
    scale: f32,
    /// At least 0.
    minimum: f32,
    codes: [u8; GROUP_LEN],
}

/// The best of several lines through a group, by squared error weighted with each weight's magnitude plus the group's
/// root mean square.
fn fit(group: &[f32; GROUP_LEN]) -> Fit {
    let rms = (group.iter().map(|w| w * w).sum::<f32>() / GROUP_LEN as f32).sqrt();
    let weights = group.map(|w| rms + w.abs());
    let low = group.iter().fold(0.0_f32, |low, w| low.min(*w));
    let high = group.iter().fold(f32::NEG_INFINITY, |high, w| high.max(*w));
    if high <= low {
        return Fit { scale: 0.0, minimum: -low, codes: [0; GROUP_LEN] };
    }
    let codes_at = |inverse: f32, low: f32| group.map(|w| code_of(inverse * (w - low)));
    let error = |scale: f32, low: f32, codes: &[u8; GROUP_LEN]| {
        let terms = group.iter().zip(&weights).zip(codes).map(|((w, weight), code)| {
            let difference = scale * f32::from(*code) + low - w;
            weight * (difference * difference)
        });
        terms.sum::<f32>()
    };
    let inverse = MAX_CODE / (high - low);
    let mut best = Fit { scale: 1.0 / inverse, minimum: -low, codes: codes_at(inverse, low) };
    let mut best_error = error(best.scale, low, &best.codes);
    let sum_w: f32 = weights.iter().sum();
    let sum_x: f32 = group.iter().zip(&weights).map(|(w, weight)| weight * w).sum();
    for step in 0..NUM_TRIES {
        // Each try starts from the best line so far.
        let low = -best.minimum;
        let codes = codes_at((FIRST_TRY + TRY_STEP * f32::from(step) + MAX_CODE) / (high - low), low);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0_f32, 0.0_f32, 0.0_f32);
        for ((w, weight), code) in group.iter().zip(&weights).zip(&codes) {
            let code = f32::from(*code);
            sum_l += weight * code;
            sum_l2 += weight * code * code;
            sum_xl += weight * code * w;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant <= 0.0 || !determinant.is_finite() {
            continue;
        }
        let mut scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let mut offset = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        if offset > 0.0 {
            // The format has no minimum above 0.
            (scale, offset) = (sum_xl / sum_l2, 0.0);
        }
        let found = error(scale, offset, &codes);
        if found < best_error {
            best_error = found;
            best = Fit { scale, minimum: -offset, codes };
        }
    }
    best
}

/// 8 scales and 8 minimums of 6 bits in 12 bytes: those of the first four groups in the low bits of bytes 0 to 7; of the
/// others the low four bits in bytes 8 to 11, the high two in the free bits of the first eight.
fn packed_scales(scales: &[(u8, u8); NUM_GROUPS]) -> [u8; 12] {
    let mut packed = [0_u8; 12];
    let (first, second) = scales.split_at(NUM_GROUPS / 2);
    for (group, ((scale, minimum), (later_scale, later_minimum))) in first.iter().zip(second).enumerate() {
        packed[group] = scale | (later_scale >> 4) << 6;
        packed[group + 4] = minimum | (later_minimum >> 4) << 6;
        packed[group + 8] = (later_scale & 15) | (later_minimum & 15) << 4;
    }
    packed
}

/// What [`packed_scales`] packed; `packed`: 12 bytes.
#[inline(always)]
fn unpacked_scales(packed: &[u8]) -> [(u8, u8); NUM_GROUPS] {
    let mut scales = [(0_u8, 0_u8); NUM_GROUPS];
    let (first, second) = scales.split_at_mut(NUM_GROUPS / 2);
    for (group, (early, late)) in first.iter_mut().zip(second).enumerate() {
        let [scale, minimum, low] = [0, 4, 8].map(|at| packed.get(at + group).copied().unwrap_or_default());
        *early = (scale & 63, minimum & 63);
        *late = ((low & 15) | (scale >> 6) << 4, (low >> 4) | (minimum >> 6) << 4);
    }
    scales
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_llama_cpps() {
        let mut block = [0_u8; Q4_K_BLOCK_BYTES];
        // d = 1, dmin = 0.5; group 0: scale 3, minimum 2; group 5: scale 0x21, minimum 0x12.
        block[..4].copy_from_slice(&[0x00, 0x3c, 0x00, 0x38]);
        (block[4], block[8]) = (3, 2);
        (block[5], block[9], block[13]) = (2 << 6, 1 << 6, 0x21);
        // Weight 1 is byte 1, low bits; weight 5 · 32 + 2 is byte 64 + 2, high bits.
        (block[17], block[16 + 64 + 2]) = (0x07, 0xf0);
        let values = decode_q4_k(&block);
        assert_eq!((values[0], values[1]), (-1.0, 3.0 * 7.0 - 1.0));
        assert_eq!((values[160], values[162]), (-9.0, 33.0 * 15.0 - 9.0));
        assert_eq!(values[32..160], [0.0; 128]);
    }

    #[test]
    fn refuses_ragged_and_not_finite() {
        assert!(encode_q4_k(&[1.0; 255]).unwrap_err().to_string().contains("multiple of 256"));
        assert!(encode_q4_k(&[f32::NAN; 256]).unwrap_err().to_string().contains("finite"));
        assert!(encode_q4_k(&[1e30; 256]).unwrap_err().to_string().contains("half precision"));
        assert_eq!(decode_q4_k(&encode_q4_k(&[0.0; 512]).unwrap()), [0.0; 512]);
    }

    #[test]
    fn what_the_format_can_say_comes_back() {
        // All codes of a scale of 0.5 and a minimum of 2, in every group.
        let values: Vec<f32> = (0..256).map(|index| (index % 16) as f32 * 0.5 - 2.0).collect();
        let back = decode_q4_k(&encode_q4_k(&values).unwrap());
        assert!(values.iter().zip(back).all(|(w, back)| (w - back).abs() < 2e-3));
    }

    #[test]
    fn beats_q4_0_on_weights_to_one_side() {
        use super::super::{decode_q4_0, encode_q4_0};
        let values: Vec<f32> = (0..256).map(|index| 1.0 + (index * 37 % 101) as f32 / 101.0).collect();
        let error = |back: Vec<f32>| values.iter().zip(back).map(|(w, back)| (w - back) * (w - back)).sum::<f32>();
        let plain = error(decode_q4_0(&encode_q4_0(&values).unwrap()));
        let fitted = error(decode_q4_k(&encode_q4_k(&values).unwrap()));
        assert!(fitted < plain, "{fitted} {plain}");
    }

    proptest! {
        #[test]
        fn scales_come_back(codes in prop::collection::vec((0_u8..64, 0_u8..64), NUM_GROUPS)) {
            let codes: [(u8, u8); NUM_GROUPS] = codes.try_into().unwrap();
            prop_assert_eq!(unpacked_scales(&packed_scales(&codes)), codes);
        }

        #[test]
        fn error_is_within_a_step(values in prop::collection::vec(-5.0_f32..5.0, 256)) {
            let bytes = encode_q4_k(&values).unwrap();
            prop_assert_eq!(bytes.len(), Q4_K_BLOCK_BYTES);
            let back = decode_q4_k(&bytes);
            // A range of 10 in 15 steps, and what rounding scales and minimums to 6 bits adds.
            prop_assert!(values.iter().zip(&back).all(|(v, b)| (v - b).abs() < 10.0 / 15.0), "{back:?}");
            let (mut error, mut norm) = (0.0, 0.0);
            for (v, b) in values.iter().zip(&back) {
                error += (v - b) * (v - b);
                norm += v * v;
            }
            prop_assert!((error / norm).sqrt() < 0.1, "{}", (error / norm).sqrt());
        }

        #[test]
        fn any_bytes_decode(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(decode_q4_k(&bytes).len(), bytes.len() / Q4_K_BLOCK_BYTES * 256);
        }
    }
}
