//! The matrix unit of x86-64 processors with AMX, and Linux's leave to use it.
//!
//! Tile registers belong to whoever configures them on a thread until they are released: no compiled code uses them.
#![allow(unsafe_code, reason = "the unit is reached by assembly and a system call only")]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

/// Bits of EDX in leaf 7 of CPUID.
const BF16: u32 = 1 << 22;
const TILE: u32 = 1 << 24;
const INT8: u32 = 1 << 25;

/// Does the processor multiply tiles of bytes?
#[must_use]
pub fn has_int8() -> bool {
    has(TILE | INT8)
}

/// Does the processor multiply tiles of bf16?
#[must_use]
pub fn has_bf16() -> bool {
    has(TILE | BF16)
}

fn has(bits: u32) -> bool {
    __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & bits == bits
}

/// Asks Linux for the tile registers, whose state threads have only on request; true when granted. Threads started
/// later have it, too. Source: Documentation/arch/x86/xstate.rst of Linux.
#[must_use]
pub fn request() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: this system call takes two numbers and touches no memory of ours; it overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// The shapes of the eight tile registers.
#[repr(C, align(64))]
pub(super) struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    /// Each register with its rows and bytes of a row; (0, 0) for those not in use.
    pub(super) const fn new(shapes: [(u8, u16); 8]) -> Self {
        let mut config = Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut register = 0;
        while register < shapes.len() {
            (config.rows[register], config.row_bytes[register]) = shapes[register];
            register += 1;
        }
        config
    }
}

static WHOLE: TileConfig = TileConfig::new([(16, 64); 8]);

/// Gives this thread eight tiles of 16 rows of 64 bytes, all zero.
///
/// # Safety
/// The processor has the unit and [`request`] was granted.
pub unsafe fn configure() {
    // SAFETY: the caller's promise.
    unsafe { configure_as(&WHOLE) };
}

/// Gives this thread tiles of these shapes, all zero.
///
/// # Safety
/// As for [`configure`].
pub(super) unsafe fn configure_as(config: &TileConfig) {
    // SAFETY: the configuration is 64 bytes as the instruction reads; the caller vouches for the unit.
    unsafe { asm!("ldtilecfg [{}]", in(reg) std::ptr::from_ref(config), options(nostack, readonly)) };
}

/// Gives the registers' state back, so that switching threads saves none of it.
///
/// # Safety
/// After [`configure`] on this thread; what the tiles held is lost.
pub unsafe fn release() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}
