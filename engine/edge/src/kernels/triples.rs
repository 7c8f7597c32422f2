//! Ternary rows whose products are looked up: three weights of a row, a third of it apart, are a digit from -13 to 13, kept
//! as four bits of magnitude and one of sign, and the sums of three inputs that a magnitude stands for are a table of 16.
//! 32 rows read a table at once, one in each byte of a vector. Source: the "TL2" of Wang et al. 2025, arXiv 2502.11880;
//! layout and arithmetic are our own.
//!
//! A group of 32 rows is, for each row, the number of its negative digits (u16, little-endian), then its octets of
//! digits: four times 32 bytes with the magnitudes of one digit in the low and the next in the high bits, and 32 bytes
//! with the eight signs, the first digit's highest. Columns behind the last are 0. That is 1.67 bits a weight.
//!
//! A table holds sums of up to 3 · 127 as `low + BASE · high`, 16 bytes of each, so small that a byte adds up eight of
//! them. A negative digit flips the bits of both, which is `-x - 1`: [`NEGATIVE`] makes up for it.
#![forbid(unsafe_code)]

use super::CodeRows;

/// One way to keep ternary rows in triples, with the functions that read it. Sets of kernels may have different ones, so
/// rows are read only with what they were packed with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TripleKernels {
    /// Groups that are read side by side, where there are as many.
    pub(crate) groups_at_once: usize,
    /// Bytes of a group of [`GROUP_ROWS`] rows of `cols` weights.
    pub(crate) group_bytes: fn(cols: usize) -> usize,
    /// Fills `group` with up to [`GROUP_ROWS`] rows of `cols` trits; rows that are not there are zeros.
    pub(crate) pack_group: fn(rows: &[i8], cols: usize, group: &mut [u8]),
    /// Fills `codes` (trit + 1) with those of one row of a group of rows as long; rows are counted modulo [`GROUP_ROWS`].
    pub(crate) unpack_row: fn(group: &[u8], row: usize, codes: &mut [u8]),
    /// Fills the first `cols` codes (trit + 1) of each row of `codes`, from a group.
    pub(crate) unpack_group: fn(group: &[u8], cols: usize, codes: &mut CodeRows),
    /// Inputs that are looked up one after the other, at most; more are multiplied by rows that are unpacked once for all.
    pub(crate) most_inputs: usize,
    /// Bytes of the tables for an input of `cols` numbers, a multiple of 4.
    pub(crate) table_bytes: fn(cols: usize) -> usize,
    /// Fills the tables for an input.
    pub(crate) fill_tables: fn(x: &[i8], tables: &mut [u8]),
    /// Σ tritᵢxᵢ per row of groups, from the tables for x; 0 for a group that is not there. Exact up to
    /// [`MAX_TRIPLES_LEN`] weights.
    pub(crate) rows: fn(groups: &[u8], tables: &[u8], out: &mut [i32]),
}

/// [`TripleKernels::unpack_group`] by [`TripleKernels::unpack_row`].
pub(super) fn unpack_by_row(cols: usize, codes: &mut CodeRows, unpack_row: impl Fn(usize, &mut [u8])) {
    for row in 0..codes.num_rows() {
        let codes = codes.row_mut(row);
        let len = codes.len().min(cols);
        unpack_row(row, &mut codes[..len]);
    }
}

/// The reference, and the layout of vectors of bytes.
pub(super) const KERNELS: TripleKernels = TripleKernels {
    groups_at_once: 1,
    group_bytes,
    pack_group,
    unpack_row,
    unpack_group: |group, cols, codes| unpack_by_row(cols, codes, |row, codes| unpack_row(group, row, codes)),
    most_inputs: 32,
    table_bytes,
    fill_tables: triple_tables,
    rows: triple_rows,
};

/// Rows of a group.
pub(crate) const GROUP_ROWS: usize = 32;
/// Bytes of a group before its octets.
pub(super) const HEAD_BYTES: usize = 2 * GROUP_ROWS;
/// Bytes of eight digits of a group.
pub(super) const OCTET_BYTES: usize = (8 / 2 + 1) * GROUP_ROWS;
/// Where an octet's signs start.
pub(super) const SIGNS: usize = OCTET_BYTES - GROUP_ROWS;
/// Bytes of a digit's table: 16 low parts, 16 high ones.
pub(super) const TABLE_BYTES: usize = 32;
/// Bytes of the tables of an octet.
pub(super) const OCTET_TABLE_BYTES: usize = 8 * TABLE_BYTES;
/// What a high part counts: low and high parts are at most 14, of a sum of up to 381.
pub(super) const BASE: i32 = 28;
/// 2¹⁵ / [`BASE`]: a sum times this, rounded in its 15 lowest bits, is its high part.
pub(super) const INVERSE_BASE: i16 = 1170;
/// Octets whose 16-bit sums cannot overflow: each adds at most 8 · 435, 435 being 15 · 28 + 15.
pub(super) const OCTETS_PER_FLUSH: usize = 8;
/// What a negative digit's flipped bits lack, low and high part together.
pub(super) const NEGATIVE: i32 = 1 + BASE;
/// Most columns: a row's negative digits fit 16 bits.
pub(crate) const MAX_TRIPLES_LEN: usize = u16::MAX as usize / 8 * 8 * 3;

/// `TRITS[i][magnitude]` is weight i of a digit; 0 for the two magnitudes that no digit has.
pub(super) const TRITS: [[i8; 16]; 3] = {
    let mut trits = [[0; 16]; 3];
    let mut magnitude = 0;
    while magnitude <= 13 {
        // Balanced: 13 more has the digits 0 to 2 of an ordinary number.
        let digits = magnitude + 13;
        trits[0][magnitude] = (digits / 9) as i8 - 1;
        trits[1][magnitude] = (digits / 3 % 3) as i8 - 1;
        trits[2][magnitude] = (digits % 3) as i8 - 1;
        magnitude += 1;
    }
    trits
};

/// The codes (trit + 1) of two digits, first weights, second ones, third ones, by `signs << 8 | magnitudes`: the first
/// digit has the low bits of the magnitudes and the high one of the signs.
static CODES: [[[u8; 2]; 3]; 1 << 10] = {
    let mut codes = [[[0; 2]; 3]; 1 << 10];
    let mut number = 0;
    while number < codes.len() {
        let mut at = 0;
        while at < 6 {
            let (third, digit) = (at / 2, at % 2);
            let trit = TRITS[third][number >> (4 * digit) & 15];
            let is_negative = number >> (9 - digit) & 1 == 1;
            codes[number][third][digit] = if is_negative { 1 - trit } else { 1 + trit }.cast_unsigned();
            at += 1;
        }
        number += 1;
    }
    codes
};

/// Octets of rows of `cols` weights.
fn num_octets(cols: usize) -> usize {
    cols.div_ceil(8 * 3)
}

/// Digits of rows of `cols` weights.
pub(super) fn third(cols: usize) -> usize {
    8 * num_octets(cols)
}

fn group_bytes(cols: usize) -> usize {
    HEAD_BYTES + num_octets(cols) * OCTET_BYTES
}

fn table_bytes(cols: usize) -> usize {
    num_octets(cols) * OCTET_TABLE_BYTES
}

/// The digits of [`GROUP_ROWS`] rows, `third` each: nine times a weight and three times another and a third, all a third apart.
/// Rows that are not there are zeros.
pub(super) fn digits_of(rows: &[i8], cols: usize, third: usize) -> Vec<i8> {
    let mut digits = vec![0_i8; GROUP_ROWS * third];
    for (row, digits) in rows.chunks_exact(cols.max(1)).zip(digits.chunks_exact_mut(third.max(1))) {
        for (weights, factor) in row.chunks(third).zip([9, 3, 1]) {
            for (digit, weight) in digits.iter_mut().zip(weights) {
                *digit += factor * weight;
            }
        }
    }
    digits
}

/// Puts the codes of `N` digits from number `at` on into their places; those past the end are dropped.
pub(super) fn put_thirds<const N: usize>(codes: &mut [u8], third: usize, at: usize, unpacked: &[[u8; N]; 3]) {
    for (codes, unpacked) in codes.chunks_mut(third).zip(unpacked) {
        let codes = codes.get_mut(at..).unwrap_or_default();
        let len = codes.len().min(N);
        codes[..len].copy_from_slice(&unpacked[..len]);
    }
}

fn pack_group(rows: &[i8], cols: usize, group: &mut [u8]) {
    let third = third(cols);
    let digits = digits_of(rows, cols, third);
    let (head, octets) = group.split_at_mut(HEAD_BYTES.min(group.len()));
    let mut num_negative = [0_u16; GROUP_ROWS];
    for (number, octet) in octets.as_chunks_mut::<OCTET_BYTES>().0.iter_mut().enumerate() {
        let mut columns = [[0; GROUP_ROWS]; 8];
        for (row, digits) in digits.chunks_exact(third).enumerate() {
            for (column, digit) in columns.iter_mut().zip(&digits[8 * number..][..8]) {
                column[row] = *digit;
            }
        }
        octet.fill(0);
        let (magnitudes, signs) = octet.split_at_mut(SIGNS);
        for (number, digits) in columns.iter().enumerate() {
            let magnitudes = &mut magnitudes[number / 2 * GROUP_ROWS..][..GROUP_ROWS];
            for (row, digit) in digits.iter().enumerate() {
                magnitudes[row] |= digit.unsigned_abs() << (4 * (number % 2));
                // A negative digit's highest bit is set.
                signs[row] |= (digit.cast_unsigned() & 0x80) >> number;
            }
        }
        for (count, signs) in num_negative.iter_mut().zip(signs) {
            *count += signs.count_ones() as u16;
        }
    }
    for (place, count) in head.as_chunks_mut::<2>().0.iter_mut().zip(num_negative) {
        *place = count.to_le_bytes();
    }
}

fn unpack_row(group: &[u8], row: usize, codes: &mut [u8]) {
    let octets = group.get(HEAD_BYTES..).unwrap_or_default().as_chunks::<OCTET_BYTES>().0;
    let (row, third) = (row % GROUP_ROWS, third(codes.len()));
    for (number, octet) in octets.iter().take(third / 8).enumerate() {
        let signs = usize::from(octet[SIGNS + row]);
        let mut unpacked = [[0; 8]; 3];
        for pair in 0..4 {
            let magnitudes = usize::from(octet[pair * GROUP_ROWS + row]);
            let codes = CODES[(signs >> (6 - 2 * pair) & 3) << 8 | magnitudes];
            for (unpacked, codes) in unpacked.iter_mut().zip(codes) {
                unpacked[2 * pair..][..2].copy_from_slice(&codes);
            }
        }
        put_thirds(codes, third, 8 * number, &unpacked);
    }
}

fn triple_tables(x: &[i8], tables: &mut [u8]) {
    for_triples(x, third(x.len()), tables, |x, table: &mut [u8; TABLE_BYTES]| {
        let (lows, highs) = table.split_at_mut(TABLE_BYTES / 2);
        for (magnitude, (low, high)) in lows.iter_mut().zip(highs).enumerate() {
            let sum: i32 = (0..3).map(|i| i32::from(TRITS[i][magnitude]) * i32::from(x[i])).sum();
            let quotient = (sum * i32::from(INVERSE_BASE) + (1 << 14)) >> 15;
            *low = (sum - BASE * quotient) as u8;
            *high = quotient as u8;
        }
    });
}

/// Calls `fill` with each three inputs, `third` apart, that weights of a digit are multiplied with, and the place for their
/// table.
#[inline(always)]
pub(super) fn for_triples<const TABLE: usize>(
    x: &[i8],
    third: usize,
    tables: &mut [u8],
    fill: impl Fn([i8; 3], &mut [u8; TABLE]),
) {
    let mut padded = vec![0; 3 * third];
    padded[..x.len()].copy_from_slice(x);
    let (a, rest) = padded.split_at(third);
    let (b, c) = rest.split_at(third);
    for (table, ((a, b), c)) in tables.as_chunks_mut::<TABLE>().0.iter_mut().zip(a.iter().zip(b).zip(c)) {
        fill([*a, *b, *c], table);
    }
}

fn triple_rows(groups: &[u8], tables: &[u8], out: &mut [i32]) {
    let tables = tables.as_chunks::<OCTET_TABLE_BYTES>().0;
    for_groups(groups, tables.len(), out, |group, out| {
        let octets = group[HEAD_BYTES..].as_chunks::<OCTET_BYTES>().0;
        for (row, out) in out.iter_mut().enumerate() {
            let products = octets.iter().zip(tables).flat_map(|(octet, tables)| {
                (0..8).map(move |number| {
                    let magnitude = octet[number / 2 * GROUP_ROWS + row] >> (4 * (number % 2)) & 15;
                    let at = number * TABLE_BYTES + usize::from(magnitude);
                    let part = |at: usize| i32::from(tables[at].cast_signed());
                    let sum = part(at) + BASE * part(at + TABLE_BYTES / 2);
                    if octet[SIGNS + row] << number & 0x80 == 0 { sum } else { -sum }
                })
            });
            *out = products.sum();
        }
    });
}

/// Calls `fill` with each group of rows of `num_octets` and its places of `out`; a group that is not there gives 0.
pub(super) fn for_groups(groups: &[u8], num_octets: usize, out: &mut [i32], mut fill: impl FnMut(&[u8], &mut [i32])) {
    let group_bytes = HEAD_BYTES + num_octets * OCTET_BYTES;
    let mut groups = groups.chunks_exact(group_bytes);
    for out in out.chunks_mut(GROUP_ROWS) {
        match groups.next() {
            Some(group) => fill(group, out),
            None => out.fill(0),
        }
    }
}

/// What the negative digits of row `row` of a group add to sums of flipped bits.
pub(super) fn correction(group: &[u8], row: usize) -> i32 {
    let count = group.as_chunks::<2>().0.get(row).copied().unwrap_or_default();
    NEGATIVE * i32::from(u16::from_le_bytes(count))
}

/// Calls `add` with up to `GROUPS` groups at a time, which are all there, and the places for their sums.
#[cfg(target_arch = "x86_64")]
pub(super) fn for_runs<const GROUPS: usize>(
    groups: &[u8],
    group_bytes: usize,
    out: &mut [i32],
    add: impl Fn(&[u8], &mut [[i32; GROUP_ROWS]; GROUPS]),
) {
    let mut runs = groups.chunks(GROUPS * group_bytes);
    for out in out.chunks_mut(GROUPS * GROUP_ROWS) {
        let run = runs.next().unwrap_or_default();
        let num_groups = (run.len() / group_bytes).min(out.len().div_ceil(GROUP_ROWS));
        // Of a group that is not there: 0.
        let mut sums = [[0; GROUP_ROWS]; GROUPS];
        add(&run[..num_groups * group_bytes], &mut sums);
        for (out, sum) in out.iter_mut().zip(sums.as_flattened()) {
            *out = *sum;
        }
    }
}
