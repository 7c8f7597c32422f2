//! What a kernel computes, and which one this processor has.

use std::sync::OnceLock;

#[cfg(target_os = "linux")]
use super::amx;
use super::avx512;
use super::pack::Tile;

/// bf16 numbers whose sum is one of f32: three times 8 bits are its 24.
pub(super) const EXACT_PARTS: usize = 3;

/// Least sums and inner positions of a product in exact parts that is faster than one in f32.
const MIN_EXACT_SUMS: usize = 64 * 64;
const MIN_EXACT_DEPTH: usize = 32;

/// Rows and columns of the sums that a kernel computes at once: two tiles each.
pub(super) const SIDE: usize = 32;

/// An instruction set that multiplies tiles.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As shown to the user.
    pub(super) name: &'static str,
    /// How many bf16 numbers stand for one of a factor: 1 rounds it, [`EXACT_PARTS`] hold all of its bits.
    pub(super) parts: usize,
    /// Prepares this thread. Safety: the kernel came from [`available`].
    pub(super) begin: unsafe fn(),
    /// Computes. Safety: see [`Sums`]; between `begin` and `end` on this thread.
    pub(super) sums: unsafe fn(&Sums),
    /// Ends what `begin` prepared. Safety: after it on this thread.
    pub(super) end: unsafe fn(),
}

impl Kernel {
    /// As shown to the user.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Bytes that a number takes while it is packed.
    pub(crate) fn packed_bytes(&self) -> u64 {
        2 * self.parts as u64
    }

    /// Whether an (m, k) by (k, n) product gains by it: packing into three parts costs more than into one, and small
    /// products have little to set against that.
    pub(crate) fn gains(&self, (m, n, k): (usize, usize, usize)) -> bool {
        self.parts == 1 || (m * n >= MIN_EXACT_SUMS && k >= MIN_EXACT_DEPTH)
    }
}

/// 32 x 32 sums: c = [c +] a · b, over `steps` steps from each pointer on, each a pair of tiles per part.
///
/// Safety: all of a and b is readable, 32 rows of 32 numbers from `c` on, `c_stride` apart, are writable, and overlap
/// nothing; `steps` is not 0.
#[derive(Debug)]
pub(super) struct Sums {
    /// Tiles in [`super::pack::Order::Lines`].
    pub(super) a: *const Tile,
    /// Tiles in [`super::pack::Order::Pairs`].
    pub(super) b: *const Tile,
    /// Steps along the inner dimension.
    pub(super) steps: usize,
    /// Where the sums go.
    pub(super) c: *mut f32,
    /// From one row of sums to the next.
    pub(super) c_stride: usize,
    /// Whether the sums start from what is in c.
    pub(super) keep: bool,
}

/// The fastest kernel of this processor that rounds factors; none when it multiplies no bf16.
pub(crate) fn available() -> Option<&'static Kernel> {
    static BEST: OnceLock<Option<&'static Kernel>> = OnceLock::new();
    *BEST.get_or_init(|| {
        #[cfg(target_os = "linux")]
        if let Some(kernel) = amx::available() {
            return Some(kernel);
        }
        avx512::available()
    })
}

/// The kernel that keeps all bits of its factors, where it outruns multiplying them in f32.
pub(crate) fn exact() -> Option<&'static Kernel> {
    static EXACT: OnceLock<Option<&'static Kernel>> = OnceLock::new();
    *EXACT.get_or_init(|| {
        #[cfg(target_os = "linux")]
        return amx::exact();
        #[cfg(not(target_os = "linux"))]
        None
    })
}
