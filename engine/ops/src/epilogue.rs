//! What an operation does to its output on the way out.

/// Applied to each output of an operation, in the same pass over memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Epilogue {
    /// Nothing.
    #[default]
    Identity,
    /// max(0, x)
    Relu,
}
