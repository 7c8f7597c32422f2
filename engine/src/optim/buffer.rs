//! State buffers as large as a weight.

use candle_core::{DType, Device, Result, Tensor};

use super::kernels::with_f32;
use crate::models::host_copy;
use crate::models::ops::has_kernels;

/// Numbers of f32: plain ones in the machine's memory, where kernels of ours move them; else a tensor.
#[derive(Debug)]
pub(super) enum Buffer {
    /// In the machine's memory.
    Cpu(Vec<f32>),
    /// On another device.
    Device(Tensor),
}

impl Buffer {
    /// Zeros, where `weight` is.
    pub(super) fn zeros(weight: &Tensor) -> Result<Self> {
        if has_kernels(weight.device()) {
            Ok(Self::Cpu(vec![0.0; weight.elem_count()]))
        } else {
            Ok(Self::Device(Tensor::zeros(weight.dims(), DType::F32, weight.device())?))
        }
    }

    /// A copy of a saved tensor.
    pub(super) fn load(saved: &Tensor) -> Result<Self> {
        let saved = saved.to_dtype(DType::F32)?;
        if has_kernels(saved.device()) {
            Ok(Self::Cpu(with_f32(&saved, <[f32]>::to_vec)?))
        } else {
            Ok(Self::Device(saved.force_contiguous()?.copy()?))
        }
    }

    /// Where the numbers are.
    pub(super) fn device(&self) -> &Device {
        match self {
            Self::Cpu(_) => &Device::Cpu,
            Self::Device(tensor) => tensor.device(),
        }
    }

    /// As a tensor of this shape, to be read where the numbers are.
    pub(super) fn read(&self, shape: &[usize]) -> Result<Tensor> {
        match self {
            Self::Cpu(data) => Tensor::from_slice(data, shape, &Device::Cpu),
            Self::Device(tensor) => Ok(tensor.clone()),
        }
    }

    /// A copy as a tensor of this shape, in the machine's memory.
    pub(super) fn save(&self, shape: &[usize]) -> Result<Tensor> {
        match self {
            Self::Cpu(data) => Tensor::from_slice(data, shape, &Device::Cpu),
            Self::Device(tensor) => host_copy(tensor),
        }
    }

    /// Brings a buffer that was loaded from a file to where `weight` is.
    pub(super) fn follow(&mut self, weight: &Tensor) -> Result<()> {
        let (device, takes_kernels) = (weight.device(), has_kernels(weight.device()));
        let moved = match &*self {
            Self::Cpu(_) if takes_kernels => return Ok(()),
            Self::Device(tensor) if takes_kernels => Self::load(&tensor.to_device(device)?)?,
            Self::Device(tensor) => Self::Device(tensor.to_device(device)?),
            Self::Cpu(data) => Self::Device(Tensor::from_slice(data, weight.dims(), device)?),
        };
        *self = moved;
        Ok(())
    }
}
