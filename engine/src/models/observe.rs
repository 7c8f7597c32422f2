//! What layers read, told to whoever calibrates a quantization.

use candle_core::{Result, Tensor};

/// What a layer with a matrix reads in one forward pass.
#[derive(Debug, Clone, Copy)]
pub enum LayerInput<'a> {
    /// Rows that a matrix multiplies: (..., inputs).
    Rows(&'a Tensor),
    /// Images that a convolution slides over: (n, channels, height, width).
    Images {
        /// The images.
        x: &'a Tensor,
        /// Height and width of the kernel.
        kernel: (usize, usize),
        /// Step between windows.
        stride: usize,
        /// Zeros on each side.
        padding: usize,
    },
}

/// Told what each linear map and convolution of a forward pass reads.
pub trait InputObserver: std::fmt::Debug {
    /// The layer whose weight is called `weight` reads `input`. A tied head is called by the embedding's name.
    /// Errors end the pass.
    fn observe(&self, weight: &str, input: LayerInput<'_>) -> Result<()>;
}
