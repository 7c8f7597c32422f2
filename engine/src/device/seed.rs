//! Seeds: one run seed, many independent streams.
//!
//! A stream is a pure function of `(run seed, stream, index)`, so that "where the generator stands"
//! is a step number and a resumed run draws what an unbroken run would have drawn.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Who draws. Each has numbers of its own, so that one more draw here moves nothing there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Initial weights; index: the tensor's number.
    Init = 1,
    /// Epoch order and text windows; index: epoch or step.
    Data = 2,
    /// Augmentation; index: step.
    Augment = 3,
    /// Which examples get a backward pass; index: step.
    Importance = 4,
    /// Generated datasets; index: example.
    Generate = 5,
    /// Text sampling; index: sample.
    Sample = 6,
    /// Train/validation splits.
    Split = 7,
    /// Forecaster weights.
    Forecaster = 8,
    /// Dropout masks; index: step.
    Dropout = 9,
    /// Stochastic rounding of weights; index: step.
    Rounding = 10,
}

/// The generator of `stream` at `index` for a run seeded with `seed`.
#[must_use]
pub fn stream(seed: u64, stream: Stream, index: u64) -> ChaCha8Rng {
    let mut key = [0_u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(stream as u64).to_le_bytes());
    key[16..24].copy_from_slice(&index.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}
