//! Ternary rows in triples for processors with AVX2: a row in each byte of a vector.
#![allow(unsafe_code, reason = "vector loads from slices, and calls into functions compiled for detected features")]

use std::arch::x86_64::*;

use super::TripleKernels;
use super::triples::{
    self, BASE, GROUP_ROWS, HEAD_BYTES, INVERSE_BASE, OCTET_BYTES, OCTET_TABLE_BYTES, OCTETS_PER_FLUSH, SIGNS,
    TABLE_BYTES, TRITS, correction, for_runs, for_triples, third,
};

pub(super) const KERNELS: TripleKernels =
    TripleKernels { groups_at_once: GROUPS, fill_tables, rows, ..triples::KERNELS };

/// Groups read side by side: long runs, as [`streams`](super::streams) says.
const GROUPS: usize = 4;
/// How far ahead of what is read lines are fetched, bytes. Tables take the room of a longer way.
const AHEAD: usize = 1024;

fn fill_tables(x: &[i8], tables: &mut [u8]) {
    #[target_feature(enable = "avx2")]
    fn fill(x: &[i8], tables: &mut [u8]) {
        // SAFETY: each is 16 bytes; loads need no alignment.
        let trits = TRITS.map(|trits| unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(trits.as_ptr().cast())) });
        let (inverse, base) = (_mm256_set1_epi16(INVERSE_BASE), _mm256_set1_epi16(BASE as i16));
        for_triples(x, third(x.len()), tables, |x, place: &mut [u8; TABLE_BYTES]| {
            let [a, b, c] = std::array::from_fn(|i| _mm256_sign_epi16(_mm256_set1_epi16(x[i].into()), trits[i]));
            let sums = _mm256_add_epi16(_mm256_add_epi16(a, b), c);
            let high = _mm256_mulhrs_epi16(sums, inverse);
            let low = _mm256_sub_epi16(sums, _mm256_mullo_epi16(high, base));
            let parts = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(low, high));
            // SAFETY: the place is 32 bytes; stores need no alignment.
            unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), parts) };
        });
    }
    // SAFETY: this set of kernels is handed out only where its features were detected.
    unsafe { fill(x, tables) }
}

fn rows(groups: &[u8], tables: &[u8], out: &mut [i32]) {
    let tables = tables.as_chunks::<OCTET_TABLE_BYTES>().0;
    let group_bytes = HEAD_BYTES + tables.len() * OCTET_BYTES;
    for_runs::<GROUPS>(groups, group_bytes, out, |groups, sums| {
        let start = groups.as_ptr();
        // SAFETY: so many groups of as many octets as there are tables for lie within `groups`; the features were detected.
        unsafe {
            match groups.len() / group_bytes {
                0 => {}
                1 => add::<1>(start, group_bytes, tables, sums),
                2 => add::<2>(start, group_bytes, tables, sums),
                3 => add::<3>(start, group_bytes, tables, sums),
                _ => add::<GROUPS>(start, group_bytes, tables, sums),
            }
        }
        for (group, sums) in groups.chunks_exact(group_bytes).zip(sums) {
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum += correction(group, row);
            }
        }
    });
}

/// Adds the sums of flipped bits of `G` groups to the first of `sums`.
///
/// # Safety
/// `G` groups of `tables.len()` octets, `group_bytes` apart, must be readable from `groups` on; the processor must have AVX2.
#[target_feature(enable = "avx2")]
unsafe fn add<const G: usize>(
    groups: *const u8,
    group_bytes: usize,
    tables: &[[u8; OCTET_TABLE_BYTES]],
    sums: &mut [[i32; GROUP_ROWS]; GROUPS],
) {
    let zero = _mm256_setzero_si256();
    for (run, tables) in tables.chunks(OCTETS_PER_FLUSH).enumerate() {
        let mut wide = [[zero; 2]; G];
        for (number, tables) in tables.iter().enumerate() {
            let at = HEAD_BYTES + (run * OCTETS_PER_FLUSH + number) * OCTET_BYTES;
            for (group, wide) in wide.iter_mut().enumerate() {
                // SAFETY: by this function's contract, of a group's octet.
                let octet = unsafe { groups.add(group * group_bytes + at) };
                // SAFETY: as above.
                let [even, odd] = unsafe { octet_sums(octet, tables) };
                *wide = [_mm256_add_epi16(wide[0], even), _mm256_add_epi16(wide[1], odd)];
            }
        }
        for (sums, [even, odd]) in sums.iter_mut().zip(wide) {
            // Of each half of 16 rows, one vector has the first eight and the other the rest.
            let parts = [
                _mm256_castsi256_si128(even),
                _mm256_castsi256_si128(odd),
                _mm256_extracti128_si256::<1>(even),
                _mm256_extracti128_si256::<1>(odd),
            ];
            for (sums, part) in sums.as_chunks_mut::<8>().0.iter_mut().zip(parts) {
                // SAFETY: the place is 32 bytes; nothing needs alignment.
                unsafe {
                    let place = sums.as_mut_ptr().cast();
                    let sum = _mm256_add_epi32(_mm256_loadu_si256(place), _mm256_cvtepi16_epi32(part));
                    _mm256_storeu_si256(place, sum);
                }
            }
        }
    }
}

/// Sums of an octet as 16-bit numbers: rows 0 to 7 and 16 to 23, then the others.
///
/// # Safety
/// An octet must be readable from `octet` on; the processor must have AVX2.
#[target_feature(enable = "avx2")]
unsafe fn octet_sums(octet: *const u8, tables: &[u8; OCTET_TABLE_BYTES]) -> [__m256i; 2] {
    let (zero, mask) = (_mm256_setzero_si256(), _mm256_set1_epi8(15));
    for line in 0..OCTET_BYTES.div_ceil(64) {
        // A prefetch needs no valid address.
        _mm_prefetch::<_MM_HINT_T0>(octet.wrapping_add(AHEAD + 64 * line).cast());
    }
    // SAFETY: by this function's contract; loads need no alignment.
    let mut signs = unsafe { _mm256_loadu_si256(octet.add(SIGNS).cast()) };
    let (mut low, mut high) = (zero, zero);
    for (pair, tables) in tables.as_chunks::<{ 2 * TABLE_BYTES }>().0.iter().enumerate() {
        // SAFETY: as above.
        let magnitudes = unsafe { _mm256_loadu_si256(octet.add(pair * GROUP_ROWS).cast()) };
        let magnitudes = [magnitudes, _mm256_srli_epi16::<4>(magnitudes)];
        for (magnitudes, table) in magnitudes.into_iter().zip(tables.as_chunks::<TABLE_BYTES>().0) {
            let magnitudes = _mm256_and_si256(magnitudes, mask);
            let flip = _mm256_cmpgt_epi8(zero, signs);
            signs = _mm256_add_epi8(signs, signs);
            let look_up = |at: usize| {
                // SAFETY: the 16 bytes from 0 or 16 on lie within the 32; loads need no alignment.
                let table = unsafe { _mm_loadu_si128(table.as_ptr().add(at).cast()) };
                _mm256_xor_si256(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), magnitudes), flip)
            };
            low = _mm256_add_epi8(low, look_up(0));
            high = _mm256_add_epi8(high, look_up(TABLE_BYTES / 2));
        }
    }
    // Low parts once, high ones `BASE` times.
    let weights = _mm256_set1_epi16((BASE << 8 | 1) as i16);
    [_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)].map(|parts| _mm256_maddubs_epi16(weights, parts))
}
