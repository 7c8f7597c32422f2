//! Products of f32 matrices by multiply-adds of AVX-512, 14 rows by 32 columns at a time.
//!
//! The left factor is read where it lies, number by number; the right one is packed into panels of 32 columns, once for all
//! products of one thread each that share it, or read where it lies for so few rows that packing would not pay. Threads that
//! multiply together take parts of rows and columns, and pack what they need. `gemm`, which multiplies elsewhere, packs both
//! factors for each product: 15 % of a training step of a small GPT-2.
//!
//! Invariant: each sum has one order, a function of the inner size alone.
//! Source: Van Zee and van de Geijn 2015, "BLIS", ACM TOMS 41(3): the loops around a micro-kernel.

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
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use nowhere::{MIN_SHARED_WORK, Packed, gains, is_available, multiply, packed_bytes};
#[cfg(target_arch = "x86_64")]
pub(super) use packed::Packed;
#[cfg(target_arch = "x86_64")]
pub(super) use product::{MIN_SHARED_WORK, gains, is_available, multiply, packed_bytes};
