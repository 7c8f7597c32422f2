//! Products of f32 matrices by instructions that multiply bf16 and add in f32.
//!
//! Mixed-precision training rounds factors to bf16 on the way. Full precision splits each number into three of bf16, which
//! together hold its 24 bits, and adds the six products of parts that count: on a processor with AMX that is faster than
//! multiplying in f32, and no less accurate, which a test holds against the other way.
//!
//! Sums and everything outside the products stay f32, and so do the weights that the optimizer moves. A factor is rounded
//! while it is packed, which costs one pass over it whatever its strides; one that several products share, such as a weight
//! of a layer that goes through a batch, is packed for all of them (`packed`). Unsafe code is in the kernels (`amx`,
//! `avx512`), in packing (`pack`) and where threads share the destination (`product`).
//!
//! Invariants: each sum has one order, a function of the sizes and the kernel; what is not finite spreads along its row and
//! column, infinities as such where factors are rounded, as NaN where they are split. Denormal numbers count as zero.
//! Source: Micikevicius et al. 2018, arXiv 1710.03740; Kalamkar et al. 2019, arXiv 1905.12322; three parts and six
//! products: Henry, Tang and Heinecke 2019, arXiv 1904.06376.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(not(target_arch = "x86_64"))]
mod nowhere;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod packed;
#[cfg(target_arch = "x86_64")]
mod product;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests;

#[cfg(target_arch = "x86_64")]
pub(super) use kernel::{Kernel, available, exact};
#[cfg(not(target_arch = "x86_64"))]
pub(super) use nowhere::{Kernel, MIN_SHARED_WORK, Packed, available, exact, multiply, release_scratch};
#[cfg(target_arch = "x86_64")]
pub(super) use pack::release_scratch;
#[cfg(target_arch = "x86_64")]
pub(super) use packed::Packed;
#[cfg(target_arch = "x86_64")]
pub(super) use product::{MIN_SHARED_WORK, multiply};
