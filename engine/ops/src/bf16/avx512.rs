//! Sums of products of tiles by AVX-512 BF16.
#![allow(unsafe_code, reason = "loads and stores of vectors at the pointers that the caller vouches for")]

use std::arch::x86_64::*;

use super::kernel::{Kernel, SIDE, Sums};
use super::pack;

/// Rows computed at once: with two vectors each, 16 sums hide the latency of one.
const ROWS: usize = 8;

static KERNEL: Kernel = Kernel { name: "avx512-bf16", parts: 1, begin: nothing, sums, end: nothing };

/// The kernel, where the processor has it and gains by it: Intel's take twice as long for this instruction as for one
/// of f32, so that products in f32 are faster there.
pub(super) fn available() -> Option<&'static Kernel> {
    supported().filter(|_| !is_intel())
}

/// The kernel, wherever it runs.
pub(super) fn supported() -> Option<&'static Kernel> {
    pack::is_supported().then_some(&KERNEL)
}

fn is_intel() -> bool {
    let leaf = __cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}

unsafe fn nothing() {}

/// Safety: as [`Sums`].
unsafe fn sums(at: &Sums) {
    for first in (0..SIDE).step_by(ROWS) {
        // SAFETY: `available` detected the features; the rest is the caller's promise.
        unsafe { rows(at, first) };
    }
}

/// Rows `first` to `first + ROWS`. Safety: as [`Sums`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows(at: &Sums, first: usize) {
    // SAFETY: a tile of a is 16 lines of 16 pairs, one of b 16 pairs of 16 lines; there are `steps` of each; the sums
    // are the caller's promise.
    unsafe {
        let mut a = at.a.add(first / 16).cast::<i32>().add(first % 16 * 16);
        let mut b = at.b.cast::<__m512bh>();
        let c = at.c.add(first * at.c_stride);
        let mut left = [_mm512_setzero_ps(); ROWS];
        let mut right = left;
        if at.keep {
            for row in 0..ROWS {
                left[row] = _mm512_loadu_ps(c.add(row * at.c_stride));
                right[row] = _mm512_loadu_ps(c.add(row * at.c_stride + 16));
            }
        }
        for _ in 0..at.steps {
            for pair in 0..16 {
                let (b, b1) = (*b.add(pair), *b.add(16 + pair));
                for row in 0..ROWS {
                    let a = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(*a.add(row * 16 + pair)));
                    left[row] = _mm512_dpbf16_ps(left[row], a, b);
                    right[row] = _mm512_dpbf16_ps(right[row], a, b1);
                }
            }
            (a, b) = (a.add(512), b.add(32));
        }
        for row in 0..ROWS {
            _mm512_storeu_ps(c.add(row * at.c_stride), left[row]);
            _mm512_storeu_ps(c.add(row * at.c_stride + 16), right[row]);
        }
    }
}
