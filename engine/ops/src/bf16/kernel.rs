//! What a kernel computes, and which one this processor has.

use std::sync::OnceLock;

#[cfg(target_os = "linux")]
use super::amx;
use super::avx512;
use super::pack::Tile;

/// Rows and columns of the sums that a kernel computes at once: two tiles each.
pub(super) const SIDE: usize = 32;

/// An instruction set that multiplies tiles.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As shown to the user.
    pub(super) name: &'static str,
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
}

/// 32 x 32 sums: c = [c +] a · b, over `steps` pairs of tiles from each pointer on.
///
/// Safety: all of a and b is readable, 32 rows of 32 numbers from `c` on, `c_stride` apart, are writable, and overlap
/// nothing; `steps` is not 0.
#[derive(Debug)]
pub(super) struct Sums {
    /// Tiles in [`super::pack::Order::Lines`].
    pub(super) a: *const Tile,
    /// Tiles in [`super::pack::Order::Pairs`].
    pub(super) b: *const Tile,
    /// Pairs of tiles.
    pub(super) steps: usize,
    /// Where the sums go.
    pub(super) c: *mut f32,
    /// From one row of sums to the next.
    pub(super) c_stride: usize,
    /// Whether the sums start from what is in c.
    pub(super) keep: bool,
}

/// The fastest kernel of this processor; none when it multiplies no bf16.
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
