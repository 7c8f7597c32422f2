//! One tensor: floats in, codes and scales out, and back.

use candle_core::{DType, Device, Tensor};
use foretrain_edge::gguf;
use foretrain_ternary::Packing;
use half::f16;
use rayon::prelude::*;

use super::pack_ternary::pack_ternary;
use super::plan::{Storage, TensorPlan};
use super::{PostTraining, QuantError, QuantScheme};
use crate::models::TensorKind;

/// Stored numbers of one tensor.
#[derive(Debug, Clone)]
pub enum TensorData {
    /// F32, F16 or BF16, in the checkpoint's own layout.
    Float(Tensor),
    /// Output-major codes and one scale per output row: w = code · scale.
    Int8 {
        /// Codes in -127..=127.
        codes: Vec<i8>,
        /// Scales in weight units, at least 0.
        scales: Vec<f32>,
    },
    /// Output-major Q8_0 blocks: a little-endian half-precision scale, then 32 codes.
    Q8 {
        /// 34 bytes per 32 weights.
        blocks: Vec<u8>,
    },
    /// Output-major Q4_0 blocks: a little-endian half-precision scale, then 32 codes.
    Q4 {
        /// 18 bytes per started 32 weights of a row.
        blocks: Vec<u8>,
    },
    /// Output-major Q3_K blocks.
    Q3K {
        /// 110 bytes per 256 weights.
        blocks: Vec<u8>,
    },
    /// Output-major Q4_K blocks.
    Q4K {
        /// 144 bytes per 256 weights.
        blocks: Vec<u8>,
    },
    /// Output-major trits, four rows to a byte: w = trit · scale.
    Bitnet {
        /// A byte per four weights of a column.
        codes: Vec<u8>,
        /// In weight units.
        scale: f32,
    },
    /// Output-major blocks of trits, each with its scale; often all with the same.
    Ternary {
        /// Of `packing`, for each started 256 weights.
        blocks: Vec<u8>,
        /// TQ2_0 or TQ1_0.
        packing: Packing,
    },
}

/// One tensor as it will be stored.
#[derive(Debug, Clone)]
pub struct QuantizedTensor {
    /// Name, shape, storage.
    pub plan: TensorPlan,
    /// The numbers.
    pub data: TensorData,
    /// ‖stored - trained‖₂ / ‖trained‖₂; 0 for a tensor of zeros.
    pub relative_error: f64,
}

impl QuantizedTensor {
    /// `data` as what `original` is stored as. Errors: the tensor library's.
    pub(super) fn new(plan: TensorPlan, data: TensorData, original: &Tensor) -> Result<Self, QuantError> {
        let mut quantized = Self { plan, data, relative_error: 0.0 };
        let original = original.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        quantized.relative_error = relative_error(&tensor_of(&quantized, &original)?, &original)?;
        Ok(quantized)
    }

    /// Bytes, scales included.
    #[must_use]
    pub fn num_bytes(&self) -> u64 {
        match &self.data {
            TensorData::Float(tensor) => (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64,
            TensorData::Int8 { codes, scales } => (codes.len() + scales.len() * 4) as u64,
            TensorData::Q8 { blocks }
            | TensorData::Q4 { blocks }
            | TensorData::Q3K { blocks }
            | TensorData::Q4K { blocks }
            | TensorData::Ternary { blocks, .. } => blocks.len() as u64,
            TensorData::Bitnet { codes, .. } => codes.len() as u64 + 4,
        }
    }

    /// What a runtime computes with: f32, in the checkpoint's layout, on the CPU.
    pub fn dequantized(&self) -> Result<Tensor, QuantError> {
        if let TensorData::Float(tensor) = &self.data {
            return Ok(tensor.to_dtype(DType::F32)?);
        }
        let (num_rows, row_len) = self.plan.rows();
        let mut values = self.output_major_values()?;
        if self.plan.is_input_major {
            values = transposed(&values, num_rows, row_len);
        }
        Ok(Tensor::from_vec(values, self.plan.shape.as_slice(), &Device::Cpu)?)
    }

    /// Share of the stored numbers that are 0.
    pub fn zero_share(&self) -> Result<f64, QuantError> {
        let values = self.output_major_values()?;
        let num_zeros = values.iter().filter(|value| **value == 0.0).count();
        Ok(num_zeros as f64 / values.len().max(1) as f64)
    }

    /// Dequantized numbers, (out, in...) row-major.
    pub fn output_major_values(&self) -> Result<Vec<f32>, QuantError> {
        let row_len = self.plan.rows().1;
        Ok(match &self.data {
            TensorData::Float(tensor) => {
                output_major(&self.plan, tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?)
            }
            TensorData::Int8 { codes, scales } => codes
                .chunks(row_len.max(1))
                .zip(scales)
                .flat_map(|(row, scale)| row.iter().map(move |&code| f32::from(code) * scale))
                .collect(),
            TensorData::Q8 { blocks } => gguf::decode_q8_0(blocks),
            TensorData::Q4 { blocks } => without_padding(gguf::decode_q4_0(blocks), row_len),
            TensorData::Q3K { blocks } => gguf::decode_q3_k(blocks),
            TensorData::Q4K { blocks } => gguf::decode_q4_k(blocks),
            TensorData::Bitnet { codes, scale } => foretrain_ternary::unpack_rows(codes)
                .map_err(|source| QuantError::Ternary { tensor: self.plan.name.clone(), source })?
                .into_iter()
                .map(|trit| f32::from(trit) * scale)
                .collect(),
            TensorData::Ternary { blocks, packing } => {
                let unpacked = packing
                    .unpack(blocks, self.plan.num_weights())
                    .map_err(|source| QuantError::Ternary { tensor: self.plan.name.clone(), source })?;
                let blocks = unpacked.trits.chunks(foretrain_ternary::BLOCK_LEN).zip(unpacked.block_scales);
                blocks.flat_map(|(trits, scale)| trits.iter().map(move |&trit| f32::from(trit) * scale)).collect()
            }
        })
    }
}

/// Stores `tensor` (any float type, shape as planned) as `plan` says, each number by itself.
/// Errors: [`QuantError::NotFinite`], [`QuantError::Range`], a shape other than the plan's.
pub(super) fn quantize_tensor(
    plan: TensorPlan,
    tensor: &Tensor,
    options: &PostTraining,
) -> Result<QuantizedTensor, QuantError> {
    if tensor.dims() != plan.shape {
        let (name, expected, found) = (plan.name, plan.shape, tensor.dims().to_vec());
        return Err(crate::models::ModelError::Shape { name, expected, found }.into());
    }
    let tensor = tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    check_finite(&plan.name, &values)?;
    let data = match plan.storage {
        Storage::F32 => TensorData::Float(tensor.clone()),
        Storage::F16 => {
            check_range(&plan, &values, QuantScheme::F16, f16::MAX.to_f32())?;
            TensorData::Float(tensor.to_dtype(DType::F16)?)
        }
        Storage::Bf16 => {
            check_range(&plan, &values, QuantScheme::Bf16, half::bf16::MAX.to_f32())?;
            TensorData::Float(tensor.to_dtype(DType::BF16)?)
        }
        Storage::Int8Rows => int8_rows(&kept(&plan, values, options), plan.rows().1),
        Storage::Q8Blocks => {
            let blocks = encoded(&kept(&plan, values, options), gguf::encode_q8_0);
            TensorData::Q8 { blocks: blocks.map_err(|cause| blocks_error(&plan, &cause))? }
        }
        Storage::Q4Blocks => {
            let blocks = encoded(&padded_rows(kept(&plan, values, options), plan.rows().1), gguf::encode_q4_0);
            TensorData::Q4 { blocks: blocks.map_err(|cause| blocks_error(&plan, &cause))? }
        }
        Storage::Q3KBlocks => {
            let blocks = encoded(&kept(&plan, values, options), gguf::encode_q3_k);
            TensorData::Q3K { blocks: blocks.map_err(|cause| blocks_error(&plan, &cause))? }
        }
        Storage::Q4KBlocks => {
            let blocks = encoded(&kept(&plan, values, options), gguf::encode_q4_k);
            TensorData::Q4K { blocks: blocks.map_err(|cause| blocks_error(&plan, &cause))? }
        }
        Storage::Ternary => ternary(&plan, &kept(&plan, values, options), Packing::Tq2_0, options)?,
        Storage::TernaryBase3 => ternary(&plan, &kept(&plan, values, options), Packing::Tq1_0, options)?,
        Storage::BitnetRows => bitnet(&plan, &kept(&plan, values, options), options)?,
    };
    QuantizedTensor::new(plan, data, &tensor)
}

/// What a runtime computes with when `values`, in the checkpoint's layout, are stored as `plan` says:
/// [`quantize_tensor`] and [`QuantizedTensor::dequantized`] in one, bit for bit, without packing anything.
///
/// Numbers that the storage cannot hold stay as they are, so that a loss computed from them shows it: unlike an export,
/// a training step has a guard for that.
pub(super) fn restored(plan: &TensorPlan, values: Vec<f32>) -> Vec<f32> {
    let in_layout = |values: Vec<f32>| {
        let (num_rows, row_len) = plan.rows();
        if plan.is_input_major { transposed(&values, num_rows, row_len) } else { values }
    };
    if !values.iter().all(|value| value.is_finite()) {
        return values;
    }
    match plan.storage {
        Storage::F32 => values,
        Storage::F16 => values.into_iter().map(|value| f16::from_f32(value).to_f32()).collect(),
        Storage::Bf16 => values.into_iter().map(|value| half::bf16::from_f32(value).to_f32()).collect(),
        Storage::Int8Rows => {
            let mut values = output_major(plan, values);
            values.par_chunks_mut(plan.rows().1.max(1)).for_each(|row| {
                let scale = max_magnitude(row) / 127.0;
                row.iter_mut().for_each(|value| *value = f32::from(code_at(*value, scale)) * scale);
            });
            in_layout(values)
        }
        Storage::Q8Blocks => {
            in_layout(through_blocks(output_major(plan, values), gguf::encode_q8_0, gguf::decode_q8_0))
        }
        Storage::Q3KBlocks => {
            in_layout(through_blocks(output_major(plan, values), gguf::encode_q3_k, gguf::decode_q3_k))
        }
        Storage::Q4KBlocks => {
            in_layout(through_blocks(output_major(plan, values), gguf::encode_q4_k, gguf::decode_q4_k))
        }
        Storage::Q4Blocks => {
            let row_len = plan.rows().1;
            let rows = padded_rows(output_major(plan, values), row_len);
            let rows = through_blocks(rows, gguf::encode_q4_0, gguf::decode_q4_0);
            in_layout(without_padding(rows, row_len))
        }
        Storage::Ternary | Storage::TernaryBase3 | Storage::BitnetRows => {
            let values = output_major(plan, values);
            in_layout(match foretrain_ternary::ternarize(&values) {
                Ok(ternary) => ternary.trits.into_iter().map(|trit| f32::from(trit) * ternary.scale).collect(),
                Err(_) => values,
            })
        }
    }
}

/// Output-major numbers, those set to zero that `options` gives up.
fn kept(plan: &TensorPlan, values: Vec<f32>, options: &PostTraining) -> Vec<f32> {
    let mut values = output_major(plan, values);
    // A row of an embedding is looked up and added to nothing, so that no other weight makes up for a missing one.
    let is_multiplied = plan.kind != TensorKind::Embedding;
    let Some(sparsity) = options.sparsity.filter(|_| is_multiplied) else { return values };
    let weights: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
    let mask = sparsity.mask(&weights, plan.rows().1, &[]);
    values.iter_mut().zip(mask).filter(|(_, is_zero)| *is_zero).for_each(|(value, _)| *value = 0.0);
    values
}

/// Errors: [`QuantError::NotFinite`] naming the tensor and the first number that is none.
pub(super) fn check_finite(tensor: &str, values: &[f32]) -> Result<(), QuantError> {
    match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        Some((index, &found)) => Err(QuantError::NotFinite { tensor: tensor.to_owned(), found, index }),
        None => Ok(()),
    }
}

/// Output-major numbers as trits.
fn ternary(
    plan: &TensorPlan,
    values: &[f32],
    packing: Packing,
    options: &PostTraining,
) -> Result<TensorData, QuantError> {
    let (scales, rule) = (options.ternary_scales, options.ternary_rule);
    let blocks = pack_ternary(values, plan.rows().1, (scales, rule), packing);
    let blocks = blocks.map_err(|source| QuantError::Ternary { tensor: plan.name.clone(), source })?;
    Ok(TensorData::Ternary { blocks, packing })
}

/// Output-major numbers as trits with one scale, the only one that this layout has.
fn bitnet(plan: &TensorPlan, values: &[f32], options: &PostTraining) -> Result<TensorData, QuantError> {
    let named = |source| QuantError::Ternary { tensor: plan.name.clone(), source };
    let ternary = foretrain_ternary::ternarize_by(options.ternary_rule, values).map_err(named)?;
    let codes = foretrain_ternary::pack_rows(&ternary.trits).map_err(named)?;
    Ok(TensorData::Bitnet { codes, scale: ternary.scale })
}

fn blocks_error(plan: &TensorPlan, cause: &foretrain_edge::EdgeError) -> QuantError {
    QuantError::Blocks { tensor: plan.name.clone(), what: cause.to_string() }
}

/// Rows of `row_len`, each followed by zeros to whole blocks of Q4_0.
fn padded_rows(values: Vec<f32>, row_len: usize) -> Vec<f32> {
    if row_len.is_multiple_of(gguf::Q4_0_BLOCK_LEN) {
        return values;
    }
    let padding = row_len.next_multiple_of(gguf::Q4_0_BLOCK_LEN) - row_len;
    let rows = values.chunks(row_len.max(1));
    rows.flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, padding))).collect()
}

/// The reverse of [`padded_rows`].
fn without_padding(values: Vec<f32>, row_len: usize) -> Vec<f32> {
    let padded_len = row_len.next_multiple_of(gguf::Q4_0_BLOCK_LEN);
    if padded_len == row_len {
        return values;
    }
    values.chunks_exact(padded_len.max(1)).flat_map(|row| row.iter().take(row_len)).copied().collect()
}

/// `values` encoded and decoded; as they are where the encoder refuses them.
fn through_blocks(
    values: Vec<f32>,
    encode: fn(&[f32]) -> Result<Vec<u8>, foretrain_edge::EdgeError>,
    decode: fn(&[u8]) -> Vec<f32>,
) -> Vec<f32> {
    encoded(&values, encode).map_or(values, |blocks| decode(&blocks))
}

/// `encode` on all threads: blocks know nothing of each other.
fn encoded(
    values: &[f32],
    encode: fn(&[f32]) -> Result<Vec<u8>, foretrain_edge::EdgeError>,
) -> Result<Vec<u8>, foretrain_edge::EdgeError> {
    /// A multiple of every block's length.
    const PART_LEN: usize = 1 << 16;
    let parts = values.par_chunks(PART_LEN).map(encode).collect::<Result<Vec<_>, _>>()?;
    Ok(parts.concat())
}

fn tensor_of(quantized: &QuantizedTensor, original: &Tensor) -> Result<Tensor, QuantError> {
    // F32 keeps every bit, so there is nothing to convert.
    if quantized.plan.storage == Storage::F32 { Ok(original.clone()) } else { quantized.dequantized() }
}

/// ‖a - b‖₂ / ‖b‖₂, summed in f64.
fn relative_error(stored: &Tensor, trained: &Tensor) -> Result<f64, QuantError> {
    let stored = stored.flatten_all()?.to_vec1::<f32>()?;
    let trained = trained.flatten_all()?.to_vec1::<f32>()?;
    let squares = |(error, norm): (f64, f64), (a, b): (&f32, &f32)| {
        let (a, b) = (f64::from(*a), f64::from(*b));
        (error + (a - b) * (a - b), norm + b * b)
    };
    let (error, norm) = stored.iter().zip(&trained).fold((0.0, 0.0), squares);
    Ok(if norm > 0.0 { (error / norm).sqrt() } else { 0.0 })
}

fn check_range(plan: &TensorPlan, values: &[f32], scheme: QuantScheme, limit: f32) -> Result<(), QuantError> {
    match values.iter().find(|value| value.abs() > limit) {
        None => Ok(()),
        Some(&found) => Err(QuantError::Range { tensor: plan.name.clone(), scheme: scheme.label(), limit, found }),
    }
}

/// (num_rows, num_columns) to (num_columns, num_rows), both row-major.
fn transposed(values: &[f32], num_rows: usize, num_columns: usize) -> Vec<f32> {
    debug_assert_eq!(values.len(), num_rows * num_columns);
    let column = |c: usize| values.iter().skip(c).step_by(num_columns.max(1)).copied();
    (0..num_columns).flat_map(column).collect()
}

/// The checkpoint's numbers with the outputs first.
pub(super) fn output_major(plan: &TensorPlan, values: Vec<f32>) -> Vec<f32> {
    let (num_rows, row_len) = plan.rows();
    if plan.is_input_major { transposed(&values, row_len, num_rows) } else { values }
}

/// Symmetric: scale = max |w| / 127 per row.
fn int8_rows(values: &[f32], row_len: usize) -> TensorData {
    let rows: Vec<(f32, Vec<i8>)> = values
        .par_chunks(row_len.max(1))
        .map(|row| {
            let scale = max_magnitude(row) / 127.0;
            (scale, codes_at(row, scale))
        })
        .collect();
    let scales = rows.iter().map(|(scale, _)| *scale).collect();
    TensorData::Int8 { codes: rows.into_iter().flat_map(|(_, codes)| codes).collect(), scales }
}

fn max_magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0_f32, |most, value| most.max(value.abs()))
}

/// Codes in -127..=127; all 0 for a scale of 0 (a row of zeros, or of numbers too small for a scale).
fn codes_at(values: &[f32], scale: f32) -> Vec<i8> {
    values.iter().map(|value| code_at(*value, scale)).collect()
}

fn code_at(value: f32, scale: f32) -> i8 {
    if scale == 0.0 { 0 } else { (value / scale).round().clamp(-127.0, 127.0) as i8 }
}
