//! What a model spends its time in: products of packed weight rows with input vectors, attention, rounding.
//!
//! A [`Kernels`] is one set of functions; [`active`] is the fastest that this processor runs, found out once, unless
//! [`choose_kernels`] took another. `scalar` is the reference and runs everywhere. Weight rows are little-endian bytes
//! without alignment, so that they can be used where they lie in a mapped file.
//!
//! Invariants: all sets compute the same integers bit for bit; float sums differ by rounding order only, and only between
//! sets. Within one, an input gives the same floats bit for bit however many others share the call, so that no text
//! depends on what is computed beside it.
//!
//! Integer kernels read inputs quantized by [`Quantized`]: signed bytes in -127..=127 with one scale per vector.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx_blocks;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_triples;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_blocks;
#[cfg(target_arch = "x86_64")]
mod avx512_triples;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod matrix_unit;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_triples;
mod pointwise;
mod quantize;
mod scalar;
mod streams;
#[cfg(test)]
pub(crate) mod tests;
mod tile;
#[cfg(any(target_arch = "x86_64", test))]
mod triple_words;
mod triples;
#[cfg(target_arch = "x86_64")]
mod x86_floats;

use std::sync::OnceLock;

use crate::EdgeError;
use crate::runtime::Runs;
pub(crate) use quantize::Quantized;
pub(crate) use streams::follows_runs;
pub(crate) use tile::{CodeRows, PANEL_ROWS};
pub(crate) use triples::{GROUP_ROWS, MAX_TRIPLES_LEN, TripleKernels};

/// Consecutive ternary rows: packed groups of 128 codes, and where the first row starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TernaryRows<'a> {
    /// TQ2_0 blocks.
    pub(crate) blocks: &'a [u8],
    /// Number of the first row's first group within `blocks`, two to a block.
    pub(crate) first_group: usize,
}

/// Rows of floats times `x`, as many as `out` has places.
pub(crate) type FloatRowsKernel = fn(rows: &[u8], runs: Runs, x: &[f32], out: &mut [f32]);
/// Rows of signed bytes times `x`, as many as `out` has places.
pub(crate) type Int8RowsKernel = fn(values: &[u8], runs: Runs, x: &[i8], out: &mut [i32]);
/// Rows of blocks of 32 weights times `x`, as many as `out` has places.
pub(crate) type ScaledRowsKernel = fn(blocks: &[u8], runs: Runs, x: &[i8], out: &mut [f32]);
/// Rows of ternary groups times `x`, as many as `out` has places.
pub(crate) type TernaryRowsKernel = fn(rows: TernaryRows<'_>, runs: Runs, x: &[i8], out: &mut [i32]);
/// Adds rows of floats, as many as there are `weights`, to `y`.
pub(crate) type MixKernel = fn(rows: &[u8], weights: &[f32], y: &mut [f32]);

/// Rows of blocks times every input, without the inputs' own scales: `out` (inputs, rows). The rows must all be there.
pub(crate) type BlockTilesKernel = fn(blocks: &[u8], x: &Quantized, out: &mut [f32]);

/// Rows of blocks times `x`, with the sums of each block of `x`, as many as `out` has places.
pub(crate) type BlockRowsKernel = fn(blocks: &[u8], runs: Runs, x: &[i8], block_sums: &[i32], out: &mut [f32]);
/// Numbers of whole blocks, as many blocks as both sides have; the same floats bit for bit in every set.
pub(crate) type UnpackFloatsKernel = fn(blocks: &[u8], out: &mut [f32]);
/// Integer sums as floats.
pub(crate) type RescaleKernel = fn(sums: &[i32], excess: i32, scales: &[f32], input_scale: f32, out: &mut [f32]);

/// One set of kernels. Rows lie in `runs` from the first byte on, with [`Runs::ONE`] one after the other; `out` says how
/// many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels {
    /// The processor features it is for.
    pub(crate) name: &'static str,
    /// Runs of rows that the row kernels read side by side.
    pub(crate) num_runs: usize,
    /// Σ wᵢxᵢ per row of `x.len()` f32s.
    pub(crate) f32_rows: FloatRowsKernel,
    /// Σ wᵢxᵢ per row of `x.len()` f16s.
    pub(crate) f16_rows: FloatRowsKernel,
    /// Σ wᵢxᵢ per row of `x.len()` bfloat16s.
    pub(crate) bf16_rows: FloatRowsKernel,
    /// y ← y + Σ aᵢ · rowᵢ with rows of `y.len()` f32s.
    pub(crate) mix_f32: MixKernel,
    /// y ← y + Σ aᵢ · rowᵢ with rows of `y.len()` f16s.
    pub(crate) mix_f16: MixKernel,
    /// Σ qᵢxᵢ per row of `x.len()` signed bytes. Exact up to [`MAX_INT8_LEN`] weights.
    pub(crate) int8_rows: Int8RowsKernel,
    /// Σ over blocks of scale · Σ qᵢxᵢ per row of Q8_0 blocks; `x`: a multiple of 32 long.
    pub(crate) q8_0_rows: ScaledRowsKernel,
    /// The same of Q4_0 blocks, with the floats of [`Kernels::q8_0_rows`] on the same numbers bit for bit.
    pub(crate) q4_0_rows: ScaledRowsKernel,
    /// [`Kernels::q8_0_rows`] for several inputs at once, the same floats bit for bit; `None` where it is as fast for each
    /// of them.
    pub(crate) q8_0_tiles: Option<BlockTilesKernel>,
    /// Σ codeᵢxᵢ per row, with codes = trit + 1 (subtract Σ xᵢ for the trits' sum); `x`: a multiple of 128 long.
    /// Exact up to [`MAX_TERNARY_LEN`] weights.
    pub(crate) ternary_rows: TernaryRowsKernel,
    /// Σ over blocks of scale · (Σ codeᵢxᵢ - Σ xᵢ) per row of TQ2_0 blocks; `x`: a multiple of 256 long, with the sum of
    /// each 256 in `block_sums`.
    pub(crate) ternary_block_rows: BlockRowsKernel,
    /// How ternary rows in triples are kept and multiplied.
    pub(crate) triples: &'static TripleKernels,
    /// Σ codeᵢxᵢ of every row of `codes` with every input: `out` (inputs, rows). Exact as `ternary_rows` or `int8_rows`.
    pub(crate) multiply: fn(codes: &CodeRows, x: &Quantized, out: &mut [i32]),
    /// True when `multiply` reads [`Quantized::tiles`].
    pub(crate) reads_tiles: bool,
    /// Codes of packed groups of 32 bytes, 128 of them each.
    pub(crate) unpack: fn(group: &[u8], codes: &mut [u8]),
    /// Rounds to signed bytes: `(x · inverse)`, half to even; returns their sum.
    pub(crate) round: fn(x: &[f32], inverse: f32, out: &mut [i8]) -> i32,
    /// max |x| by its bits: NaN counts as larger than infinity.
    pub(crate) largest_magnitude: fn(x: &[f32]) -> f32,
    /// Σ xᵢ².
    pub(crate) sum_of_squares: fn(x: &[f32]) -> f32,
    /// x ← exp(x - shift); returns the sum.
    pub(crate) exp_shifted: fn(x: &mut [f32], shift: f32) -> f32,
    /// XOR of all whole 64-bit words: reads memory as fast as it comes, to measure that.
    pub(crate) read_all: fn(bytes: &[u8]) -> u64,
    /// The largest number, -∞ for none; NaN counts as none.
    pub(crate) largest: fn(x: &[f32]) -> f32,
    /// outᵢ ← (sumᵢ - excess) · scaleᵢ · input scale; the difference wraps around.
    pub(crate) rescale: RescaleKernel,
    /// The numbers of whole Q3_K blocks.
    pub(crate) q3_k_floats: UnpackFloatsKernel,
    /// The numbers of whole Q4_K blocks.
    pub(crate) q4_k_floats: UnpackFloatsKernel,
    /// gate ← silu(gate) · up.
    pub(crate) silu_mul: fn(gate: &mut [f32], up: &[f32]),
}

/// Longest row whose int8 products (127 · 128 each) fit an i32 sum.
pub(crate) const MAX_INT8_LEN: usize = (i32::MAX / (127 * 128)) as usize;
/// Longest row whose TQ2_0 products fit the i32 lanes of every kernel: per block of 256, the AVX-512 kernel adds
/// 2 · 4 products of up to 64 · 3 · 127 to a lane.
pub(crate) const MAX_TERNARY_LEN: usize = (i32::MAX / (2 * 4 * 64 * 3 * 127)) as usize * 256;

/// The set in use, from its first use on.
static ACTIVE: OnceLock<&'static Kernels> = OnceLock::new();

/// The set in use: the one that was chosen, else the fastest for this processor.
pub(crate) fn active() -> &'static Kernels {
    #[cfg(test)]
    if let Some(kernels) = tests::chosen() {
        return kernels;
    }
    ACTIVE.get_or_init(|| available().last().copied().unwrap_or(&scalar::KERNELS))
}

/// Names of the sets of kernels that this processor runs, slowest first. The last is used unless [`choose_kernels`] says
/// otherwise.
#[must_use]
pub fn kernel_sets() -> Vec<&'static str> {
    available().iter().map(|kernels| kernels.name).collect()
}

/// Computes with the set of kernels called `name` for the rest of this process, to compare sets with each other: all
/// compute the same integers, and floats that differ by the order of sums.
///
/// Errors: [`EdgeError::Input`] for a name that is none of [`kernel_sets`], and when another set is in use already.
pub fn choose_kernels(name: &str) -> Result<(), EdgeError> {
    let tried = "choosing kernels";
    let Some(chosen) = available().into_iter().find(|kernels| kernels.name == name) else {
        let expected = format!("one that this processor runs ({})", kernel_sets().join(", "));
        return Err(EdgeError::input(tried, expected, format!("{name:?}")));
    };
    let used = ACTIVE.get_or_init(|| chosen);
    if used.name == chosen.name {
        return Ok(());
    }
    Err(EdgeError::input(tried, "a choice before anything is computed", format!("{:?} in use already", used.name)))
}

/// All sets that run here, slowest first.
pub(crate) fn available() -> Vec<&'static Kernels> {
    let mut sets = vec![&scalar::KERNELS];
    #[cfg(target_arch = "x86_64")]
    {
        sets.extend(avx2::available());
        sets.extend(avx512::available());
        #[cfg(target_os = "linux")]
        sets.extend(amx::available());
    }
    #[cfg(target_arch = "aarch64")]
    sets.extend(neon::available());
    sets
}
