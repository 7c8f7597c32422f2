//! Ternary rows in triples for 64-bit ARM: a row in each byte of two vectors.
#![allow(unsafe_code, reason = "vector loads from slices, and calls into functions compiled for detected features")]

use std::arch::aarch64::*;

use super::TripleKernels;
use super::triples::{
    self, BASE, GROUP_ROWS, HEAD_BYTES, INVERSE_BASE, OCTET_BYTES, OCTET_TABLE_BYTES, OCTETS_PER_FLUSH, SIGNS,
    TABLE_BYTES, TRITS, correction, for_groups, for_triples, third,
};

pub(super) const KERNELS: TripleKernels = TripleKernels { fill_tables, rows, ..triples::KERNELS };

/// Bytes in a vector: half of a group's rows.
const BYTES: usize = 16;

fn fill_tables(x: &[i8], tables: &mut [u8]) {
    #[target_feature(enable = "neon")]
    fn fill(x: &[i8], tables: &mut [u8]) {
        // SAFETY: each is 16 bytes; loads need no alignment.
        let trits = TRITS.map(|trits| unsafe { vld1q_s8(trits.as_ptr()) });
        let halves = trits.map(|trits| [vmovl_s8(vget_low_s8(trits)), vmovl_high_s8(trits)]);
        let parts = |x: [i8; 3], half: usize| {
            let [a, b, c] = halves.map(|halves| halves[half]);
            let sums = vmulq_n_s16(a, x[0].into());
            let sums = vmlaq_n_s16(vmlaq_n_s16(sums, b, x[1].into()), c, x[2].into());
            let high = vqrdmulhq_n_s16(sums, INVERSE_BASE);
            [vmlsq_n_s16(sums, high, BASE as i16), high].map(|part| vmovn_s16(part))
        };
        for_triples(x, third(x.len()), tables, |x, place: &mut [u8; TABLE_BYTES]| {
            let (first, second) = (parts(x, 0), parts(x, 1));
            for (place, (first, second)) in
                place.as_chunks_mut::<BYTES>().0.iter_mut().zip(first.into_iter().zip(second))
            {
                // SAFETY: the place is 16 bytes; stores need no alignment.
                unsafe { vst1q_s8(place.as_mut_ptr().cast(), vcombine_s8(first, second)) };
            }
        });
    }
    // SAFETY: this set of kernels is handed out only where its features were detected.
    unsafe { fill(x, tables) }
}

fn rows(groups: &[u8], tables: &[u8], out: &mut [i32]) {
    let tables = tables.as_chunks::<OCTET_TABLE_BYTES>().0;
    for_groups(groups, tables.len(), out, |group, out| {
        let octets = group[HEAD_BYTES..].as_chunks::<OCTET_BYTES>().0;
        let mut sums = [0; GROUP_ROWS];
        for (half, sums) in sums.as_chunks_mut::<BYTES>().0.iter_mut().enumerate() {
            // SAFETY: this set of kernels is handed out only where its features were detected.
            unsafe { add(octets, half * BYTES, tables, sums) };
        }
        for (row, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
            *out = sum + correction(group, row);
        }
    });
}

/// Adds the sums of flipped bits of the 16 rows from `first` on to `sums`.
#[target_feature(enable = "neon")]
fn add(octets: &[[u8; OCTET_BYTES]], first: usize, tables: &[[u8; OCTET_TABLE_BYTES]], sums: &mut [i32; BYTES]) {
    for (octets, tables) in octets.chunks(OCTETS_PER_FLUSH).zip(tables.chunks(OCTETS_PER_FLUSH)) {
        let mut wide = [vdupq_n_s16(0); 2];
        for (octet, tables) in octets.iter().zip(tables) {
            let [low, high] = octet_parts(octet, first, tables);
            wide = [
                vmlal_s8(vaddw_s8(wide[0], vget_low_s8(low)), vget_low_s8(high), vdup_n_s8(BASE as i8)),
                vmlal_high_s8(vaddw_high_s8(wide[1], low), high, vdupq_n_s8(BASE as i8)),
            ];
        }
        let quarters = wide.map(|wide| [vmovl_s16(vget_low_s16(wide)), vmovl_high_s16(wide)]);
        for (sums, quarter) in sums.as_chunks_mut::<4>().0.iter_mut().zip(quarters.into_iter().flatten()) {
            // SAFETY: the place is four numbers; nothing needs alignment.
            unsafe { vst1q_s32(sums.as_mut_ptr(), vaddq_s32(vld1q_s32(sums.as_ptr()), quarter)) };
        }
    }
}

/// Low and high parts of the sums of 16 rows from `first`, 0 or 16, on.
#[target_feature(enable = "neon")]
fn octet_parts(octet: &[u8; OCTET_BYTES], first: usize, tables: &[u8; OCTET_TABLE_BYTES]) -> [int8x16_t; 2] {
    let load = |at: usize| {
        let bytes = &octet[at + first..][..BYTES];
        // SAFETY: they are 16 bytes; loads need no alignment.
        unsafe { vld1q_u8(bytes.as_ptr()) }
    };
    let mut signs = vreinterpretq_s8_u8(load(SIGNS));
    let mut parts = [vdupq_n_s8(0); 2];
    for (pair, tables) in tables.as_chunks::<{ 2 * TABLE_BYTES }>().0.iter().enumerate() {
        let magnitudes = load(pair * GROUP_ROWS);
        let magnitudes = [vandq_u8(magnitudes, vdupq_n_u8(15)), vshrq_n_u8::<4>(magnitudes)];
        for (magnitudes, table) in magnitudes.into_iter().zip(tables.as_chunks::<TABLE_BYTES>().0) {
            let flip = vshrq_n_s8::<7>(signs);
            signs = vshlq_n_s8::<1>(signs);
            for (part, table) in parts.iter_mut().zip(table.as_chunks::<BYTES>().0) {
                // SAFETY: the table is 16 bytes; loads need no alignment.
                let table = unsafe { vld1q_s8(table.as_ptr().cast()) };
                *part = vaddq_s8(*part, veorq_s8(vqtbl1q_s8(table, magnitudes), flip));
            }
        }
    }
    parts
}
