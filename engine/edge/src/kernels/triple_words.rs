//! Ternary rows in triples for processors that look up 32 words of 16 bits at once. As in [`triples`](super::triples) three
//! weights of a row, a third of it apart, are a digit, here from 0 to 26 in five bits, and a digit's table holds the sums of
//! three inputs themselves: one lookup and one addition for three weights of 32 rows.
//!
//! A group of 32 rows is a run of blocks, each with 16 digits of every row: five times a word of each row, with a digit in
//! the bits from 0, 5 and 10 on; the five bits from 15 on are the last digit, lowest first. Columns behind the last are 0.
//! That is 1.67 bits a weight.
#![forbid(unsafe_code)]

use super::triples::{GROUP_ROWS, digits_of, put_thirds};
#[cfg(test)]
use super::{
    TripleKernels,
    triples::{for_triples, unpack_by_row},
};

/// Digits of a row in a block.
pub(super) const BLOCK_DIGITS: usize = 16;
/// Words of a row in a block.
pub(super) const BLOCK_WORDS: usize = 5;
/// Bytes of a word of each row.
pub(super) const WORDS_BYTES: usize = 2 * GROUP_ROWS;
/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = BLOCK_WORDS * WORDS_BYTES;
/// Bytes of a digit's table: 32 sums of 16 bits, of which 27 are looked up.
pub(super) const TABLE_BYTES: usize = 2 * 32;
/// Bytes of the tables of a block.
pub(super) const BLOCK_TABLE_BYTES: usize = BLOCK_DIGITS * TABLE_BYTES;
/// The digit of three zeros.
const ZEROS: u16 = 13;

/// `TRITS[i][digit]` is weight i of a digit; 0 for the five that are none.
pub(super) const TRITS: [[i16; 32]; 3] = {
    let mut trits = [[0; 32]; 3];
    let mut digit = 0;
    while digit < 27 {
        trits[0][digit] = (digit / 9) as i16 - 1;
        trits[1][digit] = (digit / 3 % 3) as i16 - 1;
        trits[2][digit] = (digit % 3) as i16 - 1;
        digit += 1;
    }
    trits
};

/// Blocks of a group of rows of `cols` weights, at least one.
fn num_blocks(cols: usize) -> usize {
    cols.div_ceil(3 * BLOCK_DIGITS).max(1)
}

/// Digits of rows of `cols` weights.
pub(super) fn third(cols: usize) -> usize {
    BLOCK_DIGITS * num_blocks(cols)
}

pub(super) fn group_bytes(cols: usize) -> usize {
    num_blocks(cols) * BLOCK_BYTES
}

pub(super) fn table_bytes(cols: usize) -> usize {
    num_blocks(cols) * BLOCK_TABLE_BYTES
}

pub(super) fn pack_group(rows: &[i8], cols: usize, group: &mut [u8]) {
    let third = third(cols);
    let digits = digits_of(rows, cols, third);
    for (number, block) in group.as_chunks_mut::<BLOCK_BYTES>().0.iter_mut().enumerate() {
        for (row, digits) in digits.chunks_exact(third).enumerate() {
            let (digits, last) = digits[BLOCK_DIGITS * number..][..BLOCK_DIGITS].split_at(BLOCK_DIGITS - 1);
            for (word, digits) in digits.as_chunks::<3>().0.iter().enumerate() {
                let [a, b, c] = digits.map(|digit| ZEROS.wrapping_add_signed(digit.into()));
                let last = ZEROS.wrapping_add_signed(last[0].into());
                let packed = a | b << 5 | c << 10 | (last >> word & 1) << 15;
                block[word * WORDS_BYTES + 2 * row..][..2].copy_from_slice(&packed.to_le_bytes());
            }
        }
    }
}

/// The digits of one row of a block.
fn digits(block: &[u8; BLOCK_BYTES], row: usize) -> [usize; BLOCK_DIGITS] {
    let mut digits = [0; BLOCK_DIGITS];
    for word in 0..BLOCK_WORDS {
        let at = word * WORDS_BYTES + 2 * row;
        let packed = usize::from(u16::from_le_bytes([block[at], block[at + 1]]));
        for (number, digit) in digits[3 * word..][..3].iter_mut().enumerate() {
            *digit = packed >> (5 * number) & 31;
        }
        digits[BLOCK_DIGITS - 1] |= packed >> 15 << word;
    }
    digits
}

pub(super) fn unpack_row(group: &[u8], row: usize, codes: &mut [u8]) {
    let third = third(codes.len());
    let blocks = group.as_chunks::<BLOCK_BYTES>().0;
    for (number, block) in blocks.iter().take(third / BLOCK_DIGITS).enumerate() {
        let mut unpacked = [[0_u8; BLOCK_DIGITS]; 3];
        for (at, digit) in digits(block, row % GROUP_ROWS).into_iter().enumerate() {
            for (unpacked, trits) in unpacked.iter_mut().zip(&TRITS) {
                unpacked[at] = (trits[digit] + 1) as u8;
            }
        }
        put_thirds(codes, third, BLOCK_DIGITS * number, &unpacked);
    }
}

/// What does not depend on the processor, with the reference's functions.
#[cfg(test)]
pub(super) const REFERENCE: TripleKernels = TripleKernels {
    groups_at_once: 1,
    group_bytes,
    pack_group,
    unpack_row,
    unpack_group: |group, cols, codes| unpack_by_row(cols, codes, |row, codes| unpack_row(group, row, codes)),
    most_inputs: 1,
    table_bytes,
    fill_tables,
    rows,
};

#[cfg(test)]
fn fill_tables(x: &[i8], tables: &mut [u8]) {
    for_triples(x, third(x.len()), tables, |x, table: &mut [u8; TABLE_BYTES]| {
        for (digit, sum) in table.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *sum = (0..3).map(|i| TRITS[i][digit] * i16::from(x[i])).sum::<i16>().to_le_bytes();
        }
    });
}

#[cfg(test)]
fn rows(groups: &[u8], tables: &[u8], out: &mut [i32]) {
    let sums = tables.as_chunks::<2>().0;
    let group_bytes = tables.len() / BLOCK_TABLE_BYTES * BLOCK_BYTES;
    for (row, out) in out.iter_mut().enumerate() {
        let group = groups.chunks_exact(group_bytes).nth(row / GROUP_ROWS).unwrap_or_default();
        let blocks = group.as_chunks::<BLOCK_BYTES>().0.iter();
        let digits = blocks.flat_map(|block| digits(block, row % GROUP_ROWS));
        *out = digits
            .zip(sums.chunks_exact(TABLE_BYTES / 2))
            .map(|(digit, sums)| i32::from(i16::from_le_bytes(sums[digit])))
            .sum();
    }
}
