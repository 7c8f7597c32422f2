//! Inputs of integer kernels.

/// A float vector as signed bytes: `x ≈ values · scale`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Quantized {
    /// In -127..=127.
    pub(crate) values: Vec<i8>,
    /// max |x| / 127; NaN when the input held NaN or infinity, so that the trouble stays visible.
    pub(crate) scale: f32,
    /// Σ values.
    pub(crate) sum: i32,
}

/// Quantizes `x` with one scale, its largest magnitude over 127; rounds half to even.
/// Source: the per-token activation quantization of Ma et al. 2024, arXiv 2402.17764, section 2.
pub(crate) fn quantize(x: &[f32]) -> Quantized {
    // As integers, magnitudes order like the floats, with NaN above infinity above everything.
    let largest_bits = x.iter().map(|x| x.to_bits() & 0x7fff_ffff).fold(0, u32::max);
    let largest = f32::from_bits(largest_bits);
    if !largest.is_finite() {
        return Quantized { values: vec![0; x.len()], scale: f32::NAN, sum: 0 };
    }
    let inverse = 127.0 / largest;
    if !inverse.is_finite() {
        // Zero, or so small that it may as well be.
        return Quantized { values: vec![0; x.len()], scale: 0.0, sum: 0 };
    }
    // Adding 1.5 · 2²³ leaves the rounded integer in the low bits of the mantissa: much faster than `round`.
    let values: Vec<i8> = x.iter().map(|x| (x * inverse + 12_582_912.0).to_bits() as i8).collect();
    let sum = values.iter().map(|&q| i32::from(q)).sum();
    Quantized { values, scale: largest / 127.0, sum }
}
