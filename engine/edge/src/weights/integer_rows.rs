//! Rows of small integers with scales: int8, Q8_0 and ternary.

use foretrain_ternary::{BLOCK_BYTES, BLOCK_LEN, GROUP_LEN, Packing, block_scale, group_codes, unpack_group};

use super::tensor::{Format, Tensor};
use crate::bytes::Bytes;
use crate::gguf::{Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN, decode_q8_0};
use crate::kernels::{self, MAX_INT8_LEN, MAX_TERNARY_LEN, Quantized};

/// Integer rows of `cols` numbers. Indices are in range by construction; a slice that were not there would count as
/// empty, so that no file can cause a panic here.
#[derive(Debug)]
pub(super) enum IntegerRows {
    /// Signed bytes with one scale per row.
    Int8 { values: Bytes, scales: Vec<f32>, cols: usize },
    /// Q8_0 blocks; rows are whole blocks.
    Q8_0 { blocks: Bytes, cols: usize },
    /// Packed trits with one scale; rows are whole groups of 128.
    PackedTrits { blocks: Bytes, scale: f32, cols: usize },
    /// Packed trits with a scale per block; rows are whole blocks of 256.
    TritBlocks { blocks: Bytes, cols: usize },
    /// Trits as signed bytes with one scale; rows of any length.
    Trits { values: Bytes, scale: f32, cols: usize },
}

impl IntegerRows {
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
            Format::Tq2_0 => match Packing::Tq2_0.uniform_scale(&bytes, rows * cols) {
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
            // The last three were widened before.
            Format::F32 | Format::F16 | Format::Bf16 | Format::Q4_0 | Format::Q4K | Format::Tq1_0 => {
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
            Self::PackedTrits { blocks, scale, cols } => {
                let groups_per_row = cols / GROUP_LEN;
                let mut trits = [0_i8; GROUP_LEN];
                let mut numbers = Vec::with_capacity(*cols);
                for group in row * groups_per_row..(row + 1) * groups_per_row {
                    unpack_group(group_codes(blocks, group).unwrap_or_default(), &mut trits);
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
                        unpack_group(group_codes(block, group).unwrap_or_default(), &mut trits);
                        numbers.extend(trits.iter().map(|&trit| f32::from(trit) * scale));
                    }
                }
                numbers
            }
        }
    }

    /// Row `row` times `x`.
    pub(super) fn product(&self, row: usize, x: &Quantized) -> f32 {
        let unscaled = match self {
            Self::Int8 { values, scales, cols } => {
                let scale = scales.get(row).copied().unwrap_or_default();
                kernels::dot_i8(row_of(values, row, *cols), &x.values) as f32 * scale
            }
            Self::Trits { values, scale, cols } => {
                kernels::dot_i8(row_of(values, row, *cols), &x.values) as f32 * scale
            }
            Self::Q8_0 { blocks, cols } => kernels::dot_q8_0(row_of(blocks, row, q8_0_row_bytes(*cols)), &x.values),
            Self::PackedTrits { blocks, scale, cols } => {
                let codes = kernels::dot_tq2_0(blocks, row * (cols / GROUP_LEN), &x.values);
                (codes - x.sum) as f32 * scale
            }
            Self::TritBlocks { blocks, cols } => {
                let blocks = row_of(blocks, row, trit_row_bytes(*cols)).as_chunks::<BLOCK_BYTES>().0;
                let sums = blocks.iter().zip(x.values.chunks_exact(BLOCK_LEN)).map(|(block, x)| {
                    let sum: i32 = x.iter().map(|&x| i32::from(x)).sum();
                    (kernels::dot_tq2_0(block, 0, x) - sum) as f32 * block_scale(block).to_f32()
                });
                sums.sum()
            }
        };
        unscaled * x.scale
    }
}

fn row_of(bytes: &[u8], row: usize, row_bytes: usize) -> &[u8] {
    bytes.get(row * row_bytes..(row + 1) * row_bytes).unwrap_or_default()
}

fn q8_0_row_bytes(cols: usize) -> usize {
    cols / Q8_0_BLOCK_LEN * Q8_0_BLOCK_BYTES
}

fn trit_row_bytes(cols: usize) -> usize {
    Packing::Tq2_0.packed_len(cols).unwrap_or_default()
}
