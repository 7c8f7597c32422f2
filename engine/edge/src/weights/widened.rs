//! Formats without a kernel of their own, turned at loading into one that has: exactly the same numbers in more bytes.

use foretrain_ternary::{BLOCK_LEN, Packing, encode_block};
use half::f16;

use super::tensor::{Format, Tensor};
use crate::gguf::{Q4_0_BLOCK_LEN, decode_q4_0};

/// `tensor` (rows of `cols` weights, its length checked) in a format that kernels read; `None` when it is one already.
///
/// Q4_0 becomes floats where rows fill no blocks; TQ1_0 that is not read in triples becomes TQ2_0.
/// Errors: (expected, found) for trits that cannot be unpacked.
pub(super) fn widened(tensor: &Tensor, cols: usize) -> Result<Option<Tensor>, (String, String)> {
    let stored_as = |format, bytes: Vec<u8>| Tensor { format, bytes: bytes.into(), ..tensor.clone() };
    Ok(match tensor.format {
        Format::Q4_0 if cols.is_multiple_of(Q4_0_BLOCK_LEN) => None,
        Format::Q4_0 => Some(stored_as(Format::F32, unpadded(&decode_q4_0(&tensor.bytes), cols))),
        Format::Tq1_0 => Some(stored_as(Format::Tq2_0, two_bit_trits(&tensor.bytes)?)),
        Format::F32 | Format::F16 | Format::Bf16 | Format::Int8 | Format::Q8_0 => None,
        Format::Q3K | Format::Q4K | Format::Tq2_0 => None,
    })
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Rows of `cols`, from rows that end with a block.
fn unpadded(values: &[f32], cols: usize) -> Vec<u8> {
    let rows = values.chunks_exact(cols.next_multiple_of(Q4_0_BLOCK_LEN).max(1));
    rows.flat_map(|row| little_endian(row.get(..cols).unwrap_or_default())).collect()
}

fn two_bit_trits(blocks: &[u8]) -> Result<Vec<u8>, (String, String)> {
    let refuse = |error: foretrain_ternary::TernaryError| ("TQ1_0 blocks".to_owned(), error.to_string());
    let num_weights = blocks.len() / Packing::Tq1_0.block_bytes() * BLOCK_LEN;
    let unpacked = Packing::Tq1_0.unpack(blocks, num_weights).map_err(refuse)?;
    let mut packed = Vec::with_capacity(Packing::Tq2_0.packed_len(num_weights).unwrap_or_default());
    for (trits, scale) in unpacked.trits.as_chunks::<BLOCK_LEN>().0.iter().zip(unpacked.block_scales) {
        packed.extend_from_slice(&encode_block(trits, f16::from_f32(scale)).map_err(refuse)?);
    }
    Ok(packed)
}
