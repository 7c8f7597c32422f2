//! Rows of small integers with scales: int8, Q8_0, Q4_0 and ternary.

use std::cell::RefCell;

use foretrain_ternary::{
    BLOCK_BYTES, BLOCK_LEN, GROUP_BYTES, GROUP_LEN, Packing, TernaryError, block_scale, group_codes,
    unpack_group as unpack_trits,
};
use rayon::prelude::*;

use super::tensor::{Format, Tensor};
use super::triple_rows::TripleRows;
use crate::bytes::Bytes;
use crate::gguf::{
    Q4_0_BLOCK_BYTES, Q4_0_BLOCK_LEN, Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN, decode_q4_0, decode_q8_0, q8_0_from_q4_0,
};
use crate::kernels::{self, CodeRows, MAX_INT8_LEN, MAX_TERNARY_LEN, Quantized, TernaryRows};
use crate::runtime::{Panel, Runs};

/// What turns signed bytes into the unsigned codes of [`CodeRows`].
const INT8_OFFSET: u8 = 128;
/// A trit is its code less this.
const TRIT_OFFSET: u8 = 1;
/// TQ2_0 blocks that one thread checks at a time: 2 MiB of them.
const CHECKED_BLOCKS: usize = 1 << 15;
/// The largest code of two bits.
const LARGEST_TRIT_CODE: u8 = 3;

/// Integer rows of `cols` numbers. Indices are in range by construction; a slice that were not there would count as
/// empty, so that no file can cause a panic here.
#[derive(Debug)]
pub(super) enum IntegerRows {
    /// Signed bytes with one scale per row.
    Int8 { values: Bytes, scales: Vec<f32>, cols: usize },
    /// Q8_0 blocks; rows are whole blocks.
    Q8_0 { blocks: Bytes, cols: usize },
    /// Q4_0 blocks; rows are whole blocks.
    Q4_0 { blocks: Bytes, cols: usize },
    /// Packed trits with one scale; rows are whole groups of 128.
    PackedTrits { blocks: Bytes, scale: f32, cols: usize },
    /// Packed trits with a scale per block; rows are whole blocks of 256.
    TritBlocks { blocks: Bytes, cols: usize },
    /// Trits in triples with a scale per row.
    Triples(TripleRows),
    /// Trits as signed bytes with one scale; rows of any length.
    Trits { values: Bytes, scale: f32, cols: usize },
}

impl IntegerRows {
    /// True where every set of kernels with several runs reads a single one as so many pieces.
    pub(super) fn is_cut_by_kernels(&self) -> bool {
        match self {
            Self::Q8_0 { .. } | Self::Q4_0 { .. } | Self::PackedTrits { .. } => true,
            // Some read row after row.
            Self::Int8 { .. } | Self::TritBlocks { .. } | Self::Triples(_) | Self::Trits { .. } => false,
        }
    }

    /// Errors: (expected, found) for content that the kernels cannot take. The caller has checked the total length.
    pub(super) fn new(tensor: &Tensor, rows: usize, cols: usize) -> Result<Self, (String, String)> {
        let refuse = |expected: String, found: String| Err((expected, found));
        let bytes = tensor.bytes.clone();
        let longest = if tensor.format == Format::Tq2_0 { MAX_TERNARY_LEN } else { MAX_INT8_LEN };
        if cols > longest {
            return refuse(format!("{} rows of at most {longest}", tensor.format.label()), format!("rows of {cols}"));
        }
        match tensor.format {
            Format::Int8 if tensor.scales.len() != rows => {
                refuse(format!("{rows} scales"), tensor.scales.len().to_string())
            }
            Format::Int8 => Ok(Self::Int8 { values: bytes, scales: tensor.scales.clone(), cols }),
            Format::Q8_0 => Ok(Self::Q8_0 { blocks: bytes, cols }),
            Format::Q4_0 if cols.is_multiple_of(Q4_0_BLOCK_LEN) => Ok(Self::Q4_0 { blocks: bytes, cols }),
            Format::Tq2_0 => match uniform_scale(&bytes, CHECKED_BLOCKS) {
                Ok(Some(scale)) if cols.is_multiple_of(GROUP_LEN) => {
                    Ok(Self::PackedTrits { blocks: bytes, scale, cols })
                }
                Ok(Some(scale)) => {
                    let unpacked = Packing::Tq2_0.unpack(&bytes, rows * cols);
                    let trits = unpacked.map_err(|error| ("trits".to_owned(), error.to_string()))?.trits;
                    let values: Vec<u8> = trits.into_iter().map(i8::cast_unsigned).collect();
                    Ok(Self::Trits { values: values.into(), scale, cols })
                }
                Ok(None) if cols.is_multiple_of(BLOCK_LEN) => Ok(Self::TritBlocks { blocks: bytes, cols }),
                Ok(None) => refuse(
                    "one scale per ternary tensor, or rows of whole blocks of 256".to_owned(),
                    format!("rows of {cols} with several scales"),
                ),
                Err(error) => refuse("TQ2_0 blocks".to_owned(), error.to_string()),
            },
            // The last ones were widened before, of Q4_0 the rows of other lengths, or are rows of their own.
            Format::F32 | Format::F16 | Format::Bf16 | Format::Q4_0 | Format::Tq1_0 | Format::Q3K | Format::Q4K => {
                refuse("an integer format".to_owned(), tensor.format.label().to_owned())
            }
        }
    }

    /// Row `row`, dequantized.
    pub(super) fn row(&self, row: usize) -> Vec<f32> {
        let scaled = |bytes: &[u8], scale: f32| bytes.iter().map(|q| f32::from(q.cast_signed()) * scale).collect();
        match self {
            Self::Int8 { values, scales, cols } => {
                scaled(row_of(values, row, *cols), scales.get(row).copied().unwrap_or_default())
            }
            Self::Trits { values, scale, cols } => scaled(row_of(values, row, *cols), *scale),
            Self::Q8_0 { blocks, cols } => decode_q8_0(row_of(blocks, row, q8_0_row_bytes(*cols))),
            Self::Q4_0 { blocks, cols } => decode_q4_0(row_of(blocks, row, q4_0_row_bytes(*cols))),
            Self::PackedTrits { blocks, scale, cols } => {
                let groups_per_row = cols / GROUP_LEN;
                let mut trits = [0_i8; GROUP_LEN];
                let mut numbers = Vec::with_capacity(*cols);
                for group in row * groups_per_row..(row + 1) * groups_per_row {
                    unpack_trits(group_codes(blocks, group).unwrap_or_default(), &mut trits);
                    numbers.extend(trits.iter().map(|&trit| f32::from(trit) * scale));
                }
                numbers
            }
            Self::TritBlocks { blocks, cols } => {
                let blocks = row_of(blocks, row, trit_row_bytes(*cols)).as_chunks::<BLOCK_BYTES>().0;
                let mut trits = [0_i8; GROUP_LEN];
                let mut numbers = Vec::with_capacity(*cols);
                for block in blocks {
                    let scale = block_scale(block).to_f32();
                    for group in 0..2 {
                        unpack_trits(group_codes(block, group).unwrap_or_default(), &mut trits);
                        numbers.extend(trits.iter().map(|&trit| f32::from(trit) * scale));
                    }
                }
                numbers
            }
            Self::Triples(rows) => rows.row(row),
        }
    }

    /// All rows, as they are read.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Int8 { values: bytes, .. }
            | Self::Trits { values: bytes, .. }
            | Self::Q8_0 { blocks: bytes, .. }
            | Self::Q4_0 { blocks: bytes, .. }
            | Self::PackedTrits { blocks: bytes, .. }
            | Self::TritBlocks { blocks: bytes, .. } => bytes,
            Self::Triples(rows) => rows.groups(),
        }
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        match self {
            Self::Int8 { cols, .. } | Self::Trits { cols, .. } => *cols,
            Self::Q8_0 { cols, .. } => q8_0_row_bytes(*cols),
            Self::Q4_0 { cols, .. } => q4_0_row_bytes(*cols),
            // Groups of two rows may share a block.
            Self::PackedTrits { cols, .. } => cols / GROUP_LEN * (BLOCK_BYTES / 2),
            Self::TritBlocks { cols, .. } => trit_row_bytes(*cols),
            Self::Triples(rows) => rows.row_bytes(),
        }
    }

    /// The products of the rows in `panel` with each row of `x`.
    pub(super) fn fill(&self, x: &Quantized, panel: &mut Panel<'_>) {
        SCRATCH.with_borrow_mut(|scratch| match self {
            Self::Int8 { values, scales, cols } => {
                scratch.take_scales(scales, panel);
                fill_int8(values, *cols, x, panel, scratch);
            }
            Self::Trits { values, scale, cols } => {
                scratch.repeat_scale(*scale, panel);
                fill_int8(values, *cols, x, panel, scratch);
            }
            Self::PackedTrits { blocks, scale, cols } => {
                scratch.repeat_scale(*scale, panel);
                fill_trits(blocks, *cols, x, panel, scratch);
            }
            Self::Q8_0 { blocks, cols } => {
                fill_q8_0(rows_from(blocks, panel.columns().start, q8_0_row_bytes(*cols)), x, panel, scratch);
            }
            Self::Q4_0 { blocks, cols } => {
                let row_bytes = q4_0_row_bytes(*cols);
                let rows = rows_from(blocks, panel.columns().start, row_bytes);
                if x.num_rows() == 1 {
                    let multiply = kernels::active().q4_0_rows;
                    return fill_scaled(x, panel, scratch, |input, runs, out| multiply(rows, runs, x.row(input), out));
                }
                // Unpacked once for all inputs.
                let mut wider = std::mem::take(&mut scratch.wider);
                q8_0_from_q4_0(rows.get(..panel.columns().len() * row_bytes).unwrap_or(rows), &mut wider);
                fill_q8_0(&wider, x, panel, scratch);
                scratch.wider = wider;
            }
            Self::TritBlocks { blocks, cols } => {
                let rows = rows_from(blocks, panel.columns().start, trit_row_bytes(*cols));
                fill_scaled(x, panel, scratch, |input, runs, out| {
                    (kernels::active().ternary_block_rows)(rows, runs, x.row(input), &x.block_sums(input), out);
                });
            }
            Self::Triples(rows) => {
                scratch.take_scales(rows.scales(), panel);
                fill_triples(rows, x, panel, scratch);
            }
        });
    }
}

/// Checks whole TQ2_0 blocks on all threads, `part` at a time, which reads them; as [`Packing::uniform_scale`].
fn uniform_scale(blocks: &[u8], part: usize) -> Result<Option<f32>, TernaryError> {
    let scale_of = |(number, blocks): (usize, &[u8])| {
        let scale = Packing::Tq2_0.uniform_scale(blocks, blocks.len() / BLOCK_BYTES * BLOCK_LEN);
        scale.map_err(|error| match error {
            TernaryError::Code { block } => TernaryError::Code { block: number * part + block },
            other => other,
        })
    };
    let parts: Vec<Result<_, _>> = blocks.par_chunks(part * BLOCK_BYTES).enumerate().map(scale_of).collect();
    // Of several errors the first, however threads came along.
    let scales = parts.into_iter().collect::<Result<Vec<Option<f32>>, _>>()?;
    let first = scales.first().copied().unwrap_or(Some(0.0));
    Ok(if scales.iter().all(|scale| *scale == first) { first } else { None })
}

thread_local! {
    /// Working memory of products: it stays in this thread's cache.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    codes: CodeRows,
    sums: Vec<i32>,
    products: Vec<f32>,
    /// Q4_0 blocks as Q8_0.
    wider: Vec<u8>,
    /// Of the panel's rows.
    scales: Vec<f32>,
}

impl Scratch {
    fn repeat_scale(&mut self, scale: f32, panel: &Panel<'_>) {
        self.scales.clear();
        self.scales.resize(panel.len(), scale);
    }

    fn take_scales(&mut self, scales: &[f32], panel: &Panel<'_>) {
        self.scales.clear();
        for run in 0..panel.runs().num {
            let (start, columns) = (run * panel.runs().apart, panel.columns());
            let own = scales.get(start + columns.start..start + columns.end);
            self.scales.extend_from_slice(own.unwrap_or_default());
        }
    }
}

/// Products that come with the weights' scales from `product`, for one input at a time.
fn fill_scaled(x: &Quantized, panel: &mut Panel<'_>, scratch: &mut Scratch, product: impl Fn(usize, Runs, &mut [f32])) {
    scratch.products.resize(panel.len(), 0.0);
    for (input, scale) in x.scales.iter().enumerate() {
        product(input, panel.runs(), &mut scratch.products);
        for (run, products) in scratch.products.chunks_exact(panel.columns().len().max(1)).enumerate() {
            for (out, product) in panel.run_mut(input, run).iter_mut().zip(products) {
                *out = product * scale;
            }
        }
    }
}

/// Q8_0 rows from the panel's first on.
fn fill_q8_0(rows: &[u8], x: &Quantized, panel: &mut Panel<'_>, scratch: &mut Scratch) {
    let kernels = kernels::active();
    match kernels.q8_0_tiles.filter(|_| x.num_rows() > 1) {
        Some(multiply) => fill_blocks(rows, x, panel, scratch, multiply),
        None => fill_scaled(x, panel, scratch, |input, runs, out| (kernels.q8_0_rows)(rows, runs, x.row(input), out)),
    }
}

/// Rows of blocks from the panel's first on, with all inputs at once.
fn fill_blocks(
    rows: &[u8],
    x: &Quantized,
    panel: &mut Panel<'_>,
    scratch: &mut Scratch,
    multiply: kernels::BlockTilesKernel,
) {
    let num_rows = panel.columns().len();
    scratch.products.resize(num_rows * x.num_rows(), 0.0);
    multiply(rows, x, &mut scratch.products);
    let per_input = scratch.products.chunks_exact(num_rows.max(1)).zip(&x.scales);
    for (input, (products, scale)) in per_input.enumerate() {
        for (out, product) in panel.row_mut(input).iter_mut().zip(products) {
            *out = product * scale;
        }
    }
}

/// Signed bytes, row-major, with a scale per row.
fn fill_int8(values: &[u8], cols: usize, x: &Quantized, panel: &mut Panel<'_>, scratch: &mut Scratch) {
    let columns = panel.columns();
    scratch.sums.resize(panel.len() * x.num_rows(), 0);
    if x.num_rows() == 1 {
        let rows = rows_from(values, columns.start, cols);
        (kernels::active().int8_rows)(rows, panel.runs(), x.row(0), &mut scratch.sums);
        return store(&scratch.sums, &scratch.scales, 0, x, panel);
    }
    scratch.codes.resize(columns.len(), cols, u8::MAX);
    for (number, row) in columns.enumerate() {
        for (code, value) in scratch.codes.row_mut(number).iter_mut().zip(row_of(values, row, cols)) {
            // Signed + 128.
            *code = value ^ INT8_OFFSET;
        }
    }
    (kernels::active().multiply)(&scratch.codes, x, &mut scratch.sums);
    store(&scratch.sums, &scratch.scales, INT8_OFFSET, x, panel);
}

/// Packed trits with one scale; rows are whole groups.
fn fill_trits(blocks: &[u8], cols: usize, x: &Quantized, panel: &mut Panel<'_>, scratch: &mut Scratch) {
    let kernels = kernels::active();
    let columns = panel.columns();
    let groups_per_row = cols / GROUP_LEN;
    scratch.sums.resize(panel.len() * x.num_rows(), 0);
    if x.num_rows() == 1 {
        let rows = TernaryRows { blocks, first_group: columns.start * groups_per_row };
        (kernels.ternary_rows)(rows, panel.runs(), x.row(0), &mut scratch.sums);
    } else {
        scratch.codes.resize(columns.len(), cols, LARGEST_TRIT_CODE);
        for (number, row) in columns.enumerate() {
            let mut codes = scratch.codes.row_mut(number);
            let mut group = row * groups_per_row;
            let end = group + groups_per_row;
            while group < end {
                // Groups that share a block follow each other.
                let count = if group.is_multiple_of(2) && group + 1 < end { 2 } else { 1 };
                let packed = group_codes_of_block(blocks, group, count);
                let (unpacked, rest) = codes.split_at_mut(codes.len().min(count * GROUP_LEN));
                (kernels.unpack)(packed, unpacked);
                (codes, group) = (rest, group + count);
            }
        }
        (kernels.multiply)(&scratch.codes, x, &mut scratch.sums);
    }
    store(&scratch.sums, &scratch.scales, TRIT_OFFSET, x, panel);
}

/// Trits in triples: looked up for few inputs, unpacked for many; the panel starts with a group, and is at most one where
/// inputs are several.
fn fill_triples(rows: &TripleRows, x: &Quantized, panel: &mut Panel<'_>, scratch: &mut Scratch) {
    let groups = rows.groups_from(panel.columns().start);
    scratch.sums.resize(panel.columns().len() * x.num_rows(), 0);
    if x.tables(0).is_some() {
        for (input, sums) in scratch.sums.chunks_exact_mut(panel.columns().len().max(1)).enumerate() {
            (rows.kernels().rows)(groups, x.tables(input).unwrap_or_default(), sums);
        }
        return store(&scratch.sums, &scratch.scales, 0, x, panel);
    }
    scratch.codes.resize(panel.columns().len(), rows.cols(), LARGEST_TRIT_CODE);
    (rows.kernels().unpack_group)(groups, rows.cols(), &mut scratch.codes);
    (kernels::active().multiply)(&scratch.codes, x, &mut scratch.sums);
    store(&scratch.sums, &scratch.scales, TRIT_OFFSET, x, panel);
}

/// The bytes of `count` groups of one block from group `first` on.
fn group_codes_of_block(blocks: &[u8], first: usize, count: usize) -> &[u8] {
    let start = first / 2 * BLOCK_BYTES + first % 2 * GROUP_BYTES;
    blocks.get(start..start + count * GROUP_BYTES).unwrap_or_default()
}

/// Writes the sums (inputs, rows) of codes that are `offset` more than the weights; `scales` of the panel's rows.
fn store(sums: &[i32], scales: &[f32], offset: u8, x: &Quantized, panel: &mut Panel<'_>) {
    let per_input = sums.chunks_exact(scales.len().max(1)).zip(x.scales.iter().zip(&x.sums));
    let len = panel.columns().len().max(1);
    for (input, (sums, (scale, sum))) in per_input.enumerate() {
        let excess = sum.wrapping_mul(i32::from(offset));
        for (run, (sums, scales)) in sums.chunks_exact(len).zip(scales.chunks_exact(len)).enumerate() {
            (kernels::active().rescale)(sums, excess, scales, *scale, panel.run_mut(input, run));
        }
    }
}

fn rows_from(bytes: &[u8], first_row: usize, row_bytes: usize) -> &[u8] {
    bytes.get(first_row * row_bytes..).unwrap_or_default()
}

fn row_of(bytes: &[u8], row: usize, row_bytes: usize) -> &[u8] {
    bytes.get(row * row_bytes..(row + 1) * row_bytes).unwrap_or_default()
}

fn q8_0_row_bytes(cols: usize) -> usize {
    cols / Q8_0_BLOCK_LEN * Q8_0_BLOCK_BYTES
}

fn q4_0_row_bytes(cols: usize) -> usize {
    cols / Q4_0_BLOCK_LEN * Q4_0_BLOCK_BYTES
}

fn trit_row_bytes(cols: usize) -> usize {
    Packing::Tq2_0.packed_len(cols).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_checked_in_parts_as_in_one() {
        let pack = |scale| Packing::Tq2_0.pack(&[1; BLOCK_LEN], scale).unwrap();
        let equal = pack(0.5).repeat(7);
        assert_eq!(uniform_scale(&equal, 2), Ok(Some(0.5)));
        assert_eq!(uniform_scale(&[], 2), Ok(Some(0.0)));
        for at in 0..7 {
            let with = |block: &[u8]| [&equal[..at * BLOCK_BYTES], block, &equal[(at + 1) * BLOCK_BYTES..]].concat();
            assert_eq!(uniform_scale(&with(&pack(0.25)), 2), Ok(None), "{at}");
            let mut bad = pack(0.5);
            bad[0] = 0xff;
            assert_eq!(uniform_scale(&with(&bad), 2), Err(TernaryError::Code { block: at }));
        }
    }
}
