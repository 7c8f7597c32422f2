//! Sixteen vectors of sixteen numbers, rows and columns exchanged; and masks of some of them.

use std::arch::x86_64::*;

/// The mask of the first lanes of a vector, as many as `count` but 16 at most.
#[inline]
pub(super) fn mask(count: usize) -> u16 {
    if count >= 16 { u16::MAX } else { (1 << count) - 1 }
}

/// Lanes become vectors.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = rows;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Lane l of number 4 · n + c: column 4 · l + c of rows 4 · n to 4 · n + 3.
    let mut quads = pairs;
    for n in 0..4 {
        let [a, b, c, d] = [pairs[4 * n], pairs[4 * n + 1], pairs[4 * n + 2], pairs[4 * n + 3]];
        quads[4 * n] = _mm512_unpacklo_epi64(a, c);
        quads[4 * n + 1] = _mm512_unpackhi_epi64(a, c);
        quads[4 * n + 2] = _mm512_unpacklo_epi64(b, d);
        quads[4 * n + 3] = _mm512_unpackhi_epi64(b, d);
    }
    let mut columns = quads;
    for c in 0..4 {
        let [a, b, d, e] = [quads[c], quads[4 + c], quads[8 + c], quads[12 + c]];
        let (low, high) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(d, e));
        let (more_low, more_high) = (_mm512_shuffle_i32x4::<0xee>(a, b), _mm512_shuffle_i32x4::<0xee>(d, e));
        columns[c] = _mm512_shuffle_i32x4::<0x88>(low, high);
        columns[4 + c] = _mm512_shuffle_i32x4::<0xdd>(low, high);
        columns[8 + c] = _mm512_shuffle_i32x4::<0x88>(more_low, more_high);
        columns[12 + c] = _mm512_shuffle_i32x4::<0xdd>(more_low, more_high);
    }
    columns
}
