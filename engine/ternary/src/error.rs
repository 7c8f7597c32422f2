//! What can go wrong with trits.

/// Errors of this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TernaryError {
    /// A weight is NaN or infinite.
    #[error("ternarizing weights: expected finite numbers, found {value} at index {index}. Did training diverge?")]
    NotFinite {
        /// Where, in the flattened slice.
        index: usize,
        /// The offending number.
        value: f32,
    },
    /// A scale that half precision cannot hold.
    #[error("packing trits: expected a scale from 0 to 65504 (half precision), found {scale}")]
    Scale {
        /// The offending scale.
        scale: f32,
    },
    /// A value outside {-1, 0, 1}.
    #[error("packing trits: expected -1, 0 or 1, found {value} at index {index}")]
    NotATrit {
        /// Where, in the flattened slice.
        index: usize,
        /// The offending value.
        value: i8,
    },
    /// A 2-bit code that stands for no trit.
    #[error("unpacking trits: expected codes 0 to 2, found 3 in block {block}. Is the file damaged?")]
    Code {
        /// Number of the block.
        block: usize,
    },
    /// Bytes that do not match the number of weights.
    #[error("unpacking {num_weights} trits: expected {expected} bytes of blocks, found {found}")]
    Length {
        /// How many trits were asked for.
        num_weights: usize,
        /// Bytes that many trits take.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
}
