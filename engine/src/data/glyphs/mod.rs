//! The built-in digits: drawn from stroke fonts of our own, bent, shaken, blurred.
//!
//! Invariant: image `i` is a function of `i` alone and the same on every machine; only exact floating-point steps are
//! used. Hard enough that a linear model stays under 93%.

mod fonts;
mod generate;
mod pen;

pub(super) use generate::load;
