//! Codes and scales into the bytes of a storage.

use half::f16;

use super::grid::Scales;
use crate::quant::plan::{Storage, TensorPlan};
use crate::quant::{QuantError, TensorData};

/// `codes`, output-major, with their scales, as `plan` stores them. Errors: codes that the packers refuse.
pub(super) fn packed(plan: &TensorPlan, codes: Vec<i8>, scales: &Scales) -> Result<TensorData, QuantError> {
    let row_len = plan.rows().1.max(1);
    let scale_at = |index: usize| scales.at(index / row_len, index % row_len);
    Ok(match plan.storage {
        Storage::Int8Rows => TensorData::Int8 { codes, scales: scales.values.clone() },
        Storage::Q8Blocks => {
            let block = |(number, codes): (usize, &[i8])| {
                let scale = f16::from_f32(scale_at(number * 32)).to_le_bytes();
                scale.into_iter().chain(codes.iter().map(|code| code.cast_unsigned())).collect::<Vec<u8>>()
            };
            TensorData::Q8 { blocks: codes.chunks(32).enumerate().flat_map(block).collect() }
        }
        Storage::Ternary => {
            let named = |source| QuantError::Ternary { tensor: plan.name.clone(), source };
            let mut blocks = Vec::new();
            for (number, codes) in codes.chunks(foretrain_ternary::BLOCK_LEN).enumerate() {
                let scale = scale_at(number * foretrain_ternary::BLOCK_LEN);
                blocks.extend(foretrain_ternary::pack(codes, scale).map_err(named)?);
            }
            TensorData::Ternary { blocks }
        }
        Storage::F32 | Storage::F16 | Storage::Bf16 => {
            return Err(QuantError::Blocks {
                tensor: plan.name.clone(),
                what: format!("{} has no codes", plan.storage.label()),
            });
        }
    })
}
