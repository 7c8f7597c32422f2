//! Sums of products of tiles on the matrix unit of processors with AMX-BF16 (Linux).
//!
//! The compiler's own functions for these instructions are not stable yet, hence assembly.
#![allow(unsafe_code, reason = "matrix instructions exist as assembly only")]

use std::arch::asm;

use foretrain_edge::matrix_unit;

use super::kernel::{EXACT_PARTS, Kernel, Sums};
use super::pack;

/// The kernel that rounds factors, where it runs: the processor has it, and Linux lets this process use it.
pub(super) fn available() -> Option<&'static Kernel> {
    static KERNEL: Kernel =
        Kernel { name: "amx-bf16", parts: 1, begin: matrix_unit::configure, sums, end: matrix_unit::release };
    (pack::is_supported() && matrix_unit::has_bf16() && matrix_unit::request()).then_some(&KERNEL)
}

/// The kernel that keeps all bits of factors, where [`available`] runs: six products of parts still take less time
/// than one in f32.
pub(super) fn exact() -> Option<&'static Kernel> {
    static KERNEL: Kernel = Kernel {
        name: "amx-bf16x3",
        parts: EXACT_PARTS,
        begin: matrix_unit::configure,
        sums: exact_sums,
        end: matrix_unit::release,
    };
    available().map(|_| &KERNEL)
}

/// Safety: as [`Sums`].
unsafe fn sums(at: &Sums) {
    // SAFETY: by the caller's promise the two factors are `steps` pairs of tiles of 1024 bytes and the sums 32 rows of
    // 128 bytes; `begin` has configured the tile registers; no compiled code uses them.
    unsafe {
        asm!(
            "test {keep}, {keep}",
            "jz 2f",
            "tileloadd tmm0, [{c} + {c_stride}*1]",
            "tileloadd tmm1, [{c} + {c_stride}*1 + 64]",
            "tileloadd tmm2, [{c1} + {c_stride}*1]",
            "tileloadd tmm3, [{c1} + {c_stride}*1 + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            ".p2align 4",
            "3:",
            "tileloadd tmm4, [{a} + {row}*1]",
            "tileloadd tmm6, [{b} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {row}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {row}*1 + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // The rows where the sums will go; a prefetch beyond the last one harms nothing.
            "prefetchw [{p}]",
            "prefetchw [{p} + 64]",
            "prefetchw [{p} + {c_stride}*1]",
            "prefetchw [{p} + {c_stride}*1 + 64]",
            "prefetchw [{p} + {c_stride}*2]",
            "prefetchw [{p} + {c_stride}*2 + 64]",
            "add {p}, {c_stride3}",
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 3b",
            "tilestored [{c} + {c_stride}*1], tmm0",
            "tilestored [{c} + {c_stride}*1 + 64], tmm1",
            "tilestored [{c1} + {c_stride}*1], tmm2",
            "tilestored [{c1} + {c_stride}*1 + 64], tmm3",
            a = inout(reg) at.a => _,
            b = inout(reg) at.b => _,
            steps = inout(reg) at.steps => _,
            p = inout(reg) at.c => _,
            c_stride3 = in(reg) 12 * at.c_stride,
            keep = in(reg) usize::from(at.keep),
            row = in(reg) 64_usize,
            c = in(reg) at.c,
            c1 = in(reg) at.c.add(16 * at.c_stride),
            c_stride = in(reg) 4 * at.c_stride,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// The six products of parts that reach the 24 bits of an f32: of the first with all three, of the second with the first
/// two, of the third with the first. What is left out is below 2^-25 of a product.
///
/// Safety: as [`Sums`].
unsafe fn exact_sums(at: &Sums) {
    // SAFETY: by the caller's promise the two factors are `steps` times three pairs of tiles of 1024 bytes and the sums
    // 32 rows of 128 bytes; `begin` has configured the tile registers; no compiled code uses them.
    unsafe {
        asm!(
            "test {keep}, {keep}",
            "jz 2f",
            "tileloadd tmm0, [{c} + {c_stride}*1]",
            "tileloadd tmm1, [{c} + {c_stride}*1 + 64]",
            "tileloadd tmm2, [{c1} + {c_stride}*1]",
            "tileloadd tmm3, [{c1} + {c_stride}*1 + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            ".p2align 4",
            "3:",
            // a0 b2
            "tileloadd tmm4, [{a} + {row}*1]",
            "tileloadd tmm6, [{b} + {row}*1 + 4096]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {row}*1 + 5120]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {row}*1 + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // a0 b1
            "tileloadd tmm6, [{b} + {row}*1 + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {row}*1 + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // a1 b1
            "tileloadd tmm4, [{a} + {row}*1 + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {row}*1 + 3072]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // a1 b0
            "tileloadd tmm6, [{b} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {row}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // a2 b0
            "tileloadd tmm4, [{a} + {row}*1 + 4096]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {row}*1 + 5120]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // a0 b0
            "tileloadd tmm4, [{a} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {row}*1 + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // The rows where the sums will go; a prefetch beyond the last one harms nothing.
            "prefetchw [{p}]",
            "prefetchw [{p} + 64]",
            "prefetchw [{p} + {c_stride}*1]",
            "prefetchw [{p} + {c_stride}*1 + 64]",
            "prefetchw [{p} + {c_stride}*2]",
            "prefetchw [{p} + {c_stride}*2 + 64]",
            "lea {p}, [{p} + {c_stride}*4]",
            "prefetchw [{p} + {c_stride}*1]",
            "prefetchw [{p} + {c_stride}*1 + 64]",
            "prefetchw [{p} + {c_stride}*2]",
            "prefetchw [{p} + {c_stride}*2 + 64]",
            "lea {p}, [{p} + {c_stride}*4]",
            "add {a}, 6144",
            "add {b}, 6144",
            "dec {steps}",
            "jnz 3b",
            "tilestored [{c} + {c_stride}*1], tmm0",
            "tilestored [{c} + {c_stride}*1 + 64], tmm1",
            "tilestored [{c1} + {c_stride}*1], tmm2",
            "tilestored [{c1} + {c_stride}*1 + 64], tmm3",
            a = inout(reg) at.a => _,
            b = inout(reg) at.b => _,
            steps = inout(reg) at.steps => _,
            p = inout(reg) at.c => _,
            keep = in(reg) usize::from(at.keep),
            row = in(reg) 64_usize,
            c = in(reg) at.c,
            c1 = in(reg) at.c.add(16 * at.c_stride),
            c_stride = in(reg) 4 * at.c_stride,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
