//! Codes and scales into the bytes of a storage.

use foretrain_edge::gguf::{Q4_0_BLOCK_LEN, Q8_0_BLOCK_LEN, pack_q4_0};
use foretrain_ternary::{BLOCK_LEN, Packing};
use half::f16;

use super::grid::Scales;
use crate::quant::plan::{Storage, TensorPlan};
use crate::quant::{QuantError, TensorData};

/// `codes`, output-major, with their scales, as `plan` stores them. Errors: codes that the packers refuse.
pub(super) fn packed(plan: &TensorPlan, codes: Vec<i8>, scales: &Scales) -> Result<TensorData, QuantError> {
    match plan.storage {
        Storage::Int8Rows => Ok(TensorData::Int8 { codes, scales: scales.values.clone() }),
        Storage::Q8Blocks => {
            // Rows are whole blocks, so that there is a scale for each block in turn.
            let blocks = codes.chunks(Q8_0_BLOCK_LEN).zip(&scales.values);
            let bytes = blocks.flat_map(|(codes, scale)| {
                let scale = f16::from_f32(*scale).to_le_bytes();
                scale.into_iter().chain(codes.iter().map(|code| code.cast_unsigned()))
            });
            Ok(TensorData::Q8 { blocks: bytes.collect() })
        }
        Storage::Q4Blocks => {
            let rows = codes.chunks(plan.rows().1.max(1));
            let blocks = rows.flat_map(|row| row.chunks(Q4_0_BLOCK_LEN)).zip(&scales.values);
            let bytes = blocks.flat_map(|(codes, scale)| {
                let mut padded = [0_i8; Q4_0_BLOCK_LEN];
                padded.iter_mut().zip(codes).for_each(|(to, code)| *to = *code);
                pack_q4_0(f16::from_f32(*scale), &padded)
            });
            Ok(TensorData::Q4 { blocks: bytes.collect() })
        }
        Storage::Ternary => trits(plan, &codes, scales, Packing::Tq2_0),
        Storage::TernaryBase3 => trits(plan, &codes, scales, Packing::Tq1_0),
        Storage::BitnetRows => {
            let named = |source| QuantError::Ternary { tensor: plan.name.clone(), source };
            let scale = scales.values.first().copied().unwrap_or_default();
            Ok(TensorData::Bitnet { codes: foretrain_ternary::pack_rows(&codes).map_err(named)?, scale })
        }
        Storage::F32 | Storage::F16 | Storage::Bf16 | Storage::Q3KBlocks | Storage::Q4KBlocks => {
            Err(QuantError::Blocks {
                tensor: plan.name.clone(),
                what: format!("{} takes no codes", plan.storage.label()),
            })
        }
    }
}

fn trits(plan: &TensorPlan, codes: &[i8], scales: &Scales, packing: Packing) -> Result<TensorData, QuantError> {
    let row_len = plan.rows().1.max(1);
    let mut blocks = Vec::new();
    for (number, codes) in codes.chunks(BLOCK_LEN).enumerate() {
        let first = number * BLOCK_LEN;
        let packed = packing.pack(codes, scales.at(first / row_len, first % row_len));
        blocks.extend(packed.map_err(|source| QuantError::Ternary { tensor: plan.name.clone(), source })?);
    }
    Ok(TensorData::Ternary { blocks, packing })
}
