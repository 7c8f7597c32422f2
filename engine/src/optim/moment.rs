//! Moments of weights: AdamW's two, Muon's momentum.

use candle_core::{DType, Device, Tensor};

use super::buffer::Buffer;
use super::coded::Coded;
use super::{OptimError, StatePrecision, state};
use crate::models::Params;
use crate::models::ops::codes::GROUP;
use crate::models::ops::has_kernels;

/// A number for each of a weight's.
#[derive(Debug)]
pub(super) enum Moment {
    /// Where the weight is, or in the machine's memory.
    F32(Buffer),
    /// In the machine's memory.
    EightBit(Coded),
}

impl Moment {
    /// Zeros for a weight that is moved where it is. Errors: [`OptimError::NoEightBitStates`].
    pub(super) fn zeros(weight: &Tensor, precision: StatePrecision) -> Result<Self, OptimError> {
        match precision {
            StatePrecision::F32 => Ok(Self::F32(Buffer::zeros(weight)?)),
            StatePrecision::EightBit => {
                let zeros = Self::EightBit(Coded::zeros(weight.elem_count()));
                zeros.is_where(weight).then_some(zeros).ok_or(OptimError::NoEightBitStates)
            }
        }
    }

    fn is_where(&self, weight: &Tensor) -> bool {
        matches!(self, Self::F32(_)) || has_kernels(weight.device())
    }

    /// Brings a moment that was loaded from a file to where `weight`, or its copy, is moved. Errors: [`OptimError::NoEightBitStates`].
    pub(super) fn follow(&mut self, weight: &Tensor) -> Result<(), OptimError> {
        match self {
            Self::F32(buffer) => Ok(buffer.follow(weight)?),
            Self::EightBit(_) if self.is_where(weight) => Ok(()),
            Self::EightBit(_) => Err(OptimError::NoEightBitStates),
        }
    }

    /// Adds a copy in the machine's memory to `saved`: `KIND.NAME`, and `KIND_scales.NAME` where those are codes.
    pub(super) fn save(
        &self,
        (kind, name): (&str, &str),
        shape: &[usize],
        saved: &mut Params,
    ) -> Result<(), OptimError> {
        match self {
            Self::F32(buffer) => saved.insert(numbers_name(kind, name), buffer.save(shape)?),
            Self::EightBit(Coded { codes, scales }) => {
                saved.insert(numbers_name(kind, name), Tensor::from_slice(codes, shape, &Device::Cpu)?);
                saved.insert(scales_name(kind, name), Tensor::from_slice(scales, scales.len(), &Device::Cpu)?);
            }
        }
        Ok(())
    }

    /// A copy of what [`Self::save`] added.
    /// Errors: [`OptimError::MissingState`], [`OptimError::Shape`], [`OptimError::StatePrecision`].
    pub(super) fn load(
        saved: &Params,
        (kind, name): (&str, &str),
        shape: &[usize],
        precision: StatePrecision,
    ) -> Result<Self, OptimError> {
        let numbers = state::tensor(saved, &numbers_name(kind, name), shape)?;
        match (precision, numbers.dtype()) {
            (StatePrecision::F32, DType::F32) => Ok(Self::F32(Buffer::load(numbers)?)),
            (StatePrecision::EightBit, DType::U8) => {
                let num_scales = numbers.elem_count().div_ceil(GROUP);
                let scales = state::tensor(saved, &scales_name(kind, name), &[num_scales])?;
                Ok(Self::EightBit(Coded { codes: numbers.flatten_all()?.to_vec1()?, scales: scales.to_vec1()? }))
            }
            (expected, found) => Err(OptimError::StatePrecision { name: numbers_name(kind, name), expected, found }),
        }
    }
}

fn numbers_name(kind: &str, name: &str) -> String {
    format!("{kind}.{name}")
}

fn scales_name(kind: &str, name: &str) -> String {
    format!("{kind}_scales.{name}")
}
