//! Ternary rows in triples for processors with AVX-512: a row in each word of a vector.
#![allow(unsafe_code, reason = "vector loads from slices, and calls into functions compiled for detected features")]

use std::arch::x86_64::*;

use super::streams::follows_runs;
use super::triple_words::{
    BLOCK_BYTES, BLOCK_DIGITS, BLOCK_TABLE_BYTES, BLOCK_WORDS, TABLE_BYTES, TRITS, WORDS_BYTES, group_bytes,
    pack_group, table_bytes, third, unpack_row,
};
use super::triples::{GROUP_ROWS, for_runs, for_triples};
use super::{CodeRows, TripleKernels};

pub(super) const KERNELS: TripleKernels = TripleKernels {
    groups_at_once: GROUPS,
    group_bytes,
    pack_group,
    unpack_row,
    unpack_group,
    most_inputs: 8,
    table_bytes,
    fill_tables,
    rows,
};

/// Groups read side by side: as many long runs, as [`streams`](super::streams) says, and each table is fetched once for all.
const GROUPS: usize = 8;
/// Blocks whose 16-bit sums cannot overflow: a digit adds at most 3 · 127.
const BLOCKS_PER_FLUSH: usize = i16::MAX as usize / (BLOCK_DIGITS * 3 * 127);
/// How far ahead of what is read lines are fetched, bytes, where the processor does not do that by itself.
const AHEAD: usize = 1024;

fn fill_tables(x: &[i8], tables: &mut [u8]) {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn fill(x: &[i8], tables: &mut [u8]) {
        // SAFETY: each is 64 bytes; loads need no alignment.
        let trits = TRITS.map(|trits| unsafe { _mm512_loadu_si512(trits.as_ptr().cast()) });
        for_triples(x, third(x.len()), tables, |x, place: &mut [u8; TABLE_BYTES]| {
            let [a, b, c] = std::array::from_fn(|i| _mm512_mullo_epi16(_mm512_set1_epi16(x[i].into()), trits[i]));
            let sums = _mm512_add_epi16(_mm512_add_epi16(a, b), c);
            // SAFETY: the place is 64 bytes; stores need no alignment.
            unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), sums) };
        });
    }
    // SAFETY: this set of kernels is handed out only where its features were detected.
    unsafe { fill(x, tables) }
}

fn rows(groups: &[u8], tables: &[u8], out: &mut [i32]) {
    let tables = tables.as_chunks::<BLOCK_TABLE_BYTES>().0;
    let group_bytes = tables.len().max(1) * BLOCK_BYTES;
    for_runs::<GROUPS>(groups, group_bytes, out, |groups, sums| {
        let start = groups.as_ptr();
        // SAFETY: so many groups of as many blocks as there are tables for lie within `groups`; the features were detected.
        unsafe {
            match groups.len() / group_bytes {
                0 => {}
                1 => add::<1>(start, group_bytes, tables, sums),
                2 => add::<2>(start, group_bytes, tables, sums),
                3 => add::<3>(start, group_bytes, tables, sums),
                4 => add::<4>(start, group_bytes, tables, sums),
                5 => add::<5>(start, group_bytes, tables, sums),
                6 => add::<6>(start, group_bytes, tables, sums),
                7 => add::<7>(start, group_bytes, tables, sums),
                _ => add::<GROUPS>(start, group_bytes, tables, sums),
            }
        }
    });
}

/// Adds the sums of `G` groups to the first of `sums`.
///
/// # Safety
/// `G` groups of `tables.len()` blocks, `group_bytes` apart, must be readable from `groups` on; the processor must have
/// AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn add<const G: usize>(
    groups: *const u8,
    group_bytes: usize,
    tables: &[[u8; BLOCK_TABLE_BYTES]],
    sums: &mut [[i32; GROUP_ROWS]; GROUPS],
) {
    let near = if follows_runs() { 0 } else { AHEAD };
    for (run, tables) in tables.chunks(BLOCKS_PER_FLUSH).enumerate() {
        let mut narrow = [_mm512_setzero_si512(); G];
        for (number, tables) in tables.iter().enumerate() {
            let at = (run * BLOCKS_PER_FLUSH + number) * BLOCK_BYTES;
            let block = groups.wrapping_add(at);
            // Behind the end of a group, the run goes on with the group that is read after it.
            let ahead = if at + near < group_bytes { near } else { near + (G - 1) * group_bytes };
            // SAFETY: a table is 64 bytes; loads need no alignment.
            let table = |digit: usize| unsafe { _mm512_loadu_si512(tables.as_ptr().add(digit * TABLE_BYTES).cast()) };
            let mut last = [_mm512_setzero_si512(); G];
            for word in 0..BLOCK_WORDS {
                let tables: [__m512i; 3] = std::array::from_fn(|i| table(3 * word + i));
                for (group, (narrow, last)) in narrow.iter_mut().zip(&mut last).enumerate() {
                    // SAFETY: by this function's contract, of a group's block; a prefetch needs no valid address.
                    let words = unsafe {
                        let words = block.add(group * group_bytes + word * WORDS_BYTES);
                        _mm_prefetch::<_MM_HINT_T0>(words.wrapping_add(ahead).cast());
                        _mm512_loadu_si512(words.cast())
                    };
                    // Of an index, bits above the five lowest do not count.
                    let a = _mm512_permutexvar_epi16(words, tables[0]);
                    let b = _mm512_permutexvar_epi16(_mm512_srli_epi16::<5>(words), tables[1]);
                    let c = _mm512_permutexvar_epi16(_mm512_srli_epi16::<10>(words), tables[2]);
                    *narrow = _mm512_add_epi16(_mm512_add_epi16(*narrow, a), _mm512_add_epi16(b, c));
                    *last = add_bit(*last, words, word);
                }
            }
            let table = table(BLOCK_DIGITS - 1);
            for (narrow, last) in narrow.iter_mut().zip(last) {
                *narrow = _mm512_add_epi16(*narrow, _mm512_permutexvar_epi16(last, table));
            }
        }
        for (sums, narrow) in sums.iter_mut().zip(narrow) {
            let halves = [_mm512_castsi512_si256(narrow), _mm512_extracti64x4_epi64::<1>(narrow)];
            for (sums, half) in sums.as_chunks_mut::<16>().0.iter_mut().zip(halves) {
                // SAFETY: the place is 64 bytes; nothing needs alignment.
                unsafe {
                    let place = sums.as_mut_ptr().cast();
                    let sum = _mm512_add_epi32(_mm512_loadu_si512(place), _mm512_cvtepi16_epi32(half));
                    _mm512_storeu_si512(place, sum);
                }
            }
        }
    }
}

/// The last digit of each row of a block.
#[target_feature(enable = "avx512f,avx512bw")]
fn last_digit(words: [__m512i; BLOCK_WORDS]) -> __m512i {
    words.into_iter().enumerate().fold(_mm512_setzero_si512(), |last, (word, words)| add_bit(last, words, word))
}

/// `last` with the highest bit of `words` as its bit number `word`.
#[target_feature(enable = "avx512f,avx512bw")]
fn add_bit(last: __m512i, words: __m512i, word: usize) -> __m512i {
    let (shift, bit) = (_mm512_set1_epi16(15 - word as i16), _mm512_set1_epi16(1 << word));
    // last | (words >> shift & bit)
    _mm512_ternarylogic_epi32::<0xf8>(last, _mm512_srlv_epi16(words, shift), bit)
}

fn unpack_group(group: &[u8], cols: usize, codes: &mut CodeRows) {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn unpack(group: &[u8], cols: usize, codes: &mut CodeRows) {
        // SAFETY: each is 64 bytes; loads need no alignment.
        let trits = TRITS.map(|trits| unsafe { _mm512_loadu_si512(trits.as_ptr().cast()) });
        let codes_of = trits.map(|trits| _mm512_add_epi16(trits, _mm512_set1_epi16(1)));
        let third = third(cols);
        for (number, block) in group.as_chunks::<BLOCK_BYTES>().0.iter().take(third / BLOCK_DIGITS).enumerate() {
            let words: [__m512i; BLOCK_WORDS] =
                // SAFETY: a block has so many times 64 bytes.
                std::array::from_fn(|word| unsafe { _mm512_loadu_si512(block.as_ptr().add(word * WORDS_BYTES).cast()) });
            let last = last_digit(words);
            let digits: [__m512i; BLOCK_DIGITS] = std::array::from_fn(|at| match (at, at % 3) {
                (15, _) => last,
                (_, 0) => words[at / 3],
                (_, 1) => _mm512_srli_epi16::<5>(words[at / 3]),
                _ => _mm512_srli_epi16::<10>(words[at / 3]),
            });
            for (part, codes_of) in codes_of.into_iter().enumerate() {
                let start = part * third + number * BLOCK_DIGITS;
                if start >= cols {
                    break;
                }
                // The codes of two digits in each word.
                let pairs = std::array::from_fn(|i| {
                    let [a, b] = [digits[2 * i], digits[2 * i + 1]].map(|at| _mm512_permutexvar_epi16(at, codes_of));
                    _mm512_or_si512(a, _mm512_slli_epi16::<8>(b))
                });
                for (row, vector) in transposed(pairs).into_iter().enumerate() {
                    let mut rows = [[0_u8; BLOCK_DIGITS]; 4];
                    // SAFETY: the place is 64 bytes; stores need no alignment.
                    unsafe { _mm512_storeu_si512(rows.as_mut_ptr().cast(), vector) };
                    for (lane, unpacked) in rows.into_iter().enumerate() {
                        codes.put(8 * lane + row, start, unpacked);
                    }
                }
            }
        }
        for row in 0..codes.num_rows() {
            codes.row_mut(row)[cols..].fill(0);
        }
    }
    // SAFETY: this set of kernels is handed out only where its features were detected.
    unsafe { unpack(group, cols, codes) }
}

/// In each quarter, row r of the result has word r of each of `columns`.
#[target_feature(enable = "avx512f,avx512bw")]
fn transposed(columns: [__m512i; 8]) -> [__m512i; 8] {
    let [a, b, c, d, e, f, g, h] = columns;
    let (ab, cd, ef, gh) = (
        [_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b)],
        [_mm512_unpacklo_epi16(c, d), _mm512_unpackhi_epi16(c, d)],
        [_mm512_unpacklo_epi16(e, f), _mm512_unpackhi_epi16(e, f)],
        [_mm512_unpacklo_epi16(g, h), _mm512_unpackhi_epi16(g, h)],
    );
    let mut rows = [_mm512_setzero_si512(); 8];
    for (half, rows) in rows.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let (first, second) = ([ab[half], cd[half]], [ef[half], gh[half]]);
        let low = [first, second].map(|[x, y]| _mm512_unpacklo_epi32(x, y));
        let high = [first, second].map(|[x, y]| _mm512_unpackhi_epi32(x, y));
        *rows = [
            _mm512_unpacklo_epi64(low[0], low[1]),
            _mm512_unpackhi_epi64(low[0], low[1]),
            _mm512_unpacklo_epi64(high[0], high[1]),
            _mm512_unpackhi_epi64(high[0], high[1]),
        ];
    }
    rows
}
