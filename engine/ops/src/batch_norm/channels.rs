//! Normalization of planes: moments, output, gradients.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::op::{Moments, Statistics};
use crate::Epilogue;
use crate::buffers::{rows_per_task, unwritten};
use crate::profile::{self, Kind};
use crate::real::{Real, sum_of};
use crate::simd::kernel;

/// What one batch norm did to (n, channels, plane) numbers.
#[derive(Debug, Clone)]
pub(super) struct Channels {
    num_images: usize,
    plane: usize,
    mean: Vec<f64>,
    var: Vec<f64>,
    /// 1/√(var + eps)
    inv_std: Vec<f64>,
    is_batch: bool,
}

/// Per channel: the sums that all gradients are made of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GradientSums {
    /// Σ g
    sum: f64,
    /// Σ g·(x − mean)
    product: f64,
}

impl Channels {
    /// Takes the moments of `x`, or those that are given.
    pub fn of<T: Real>(
        x: &[T],
        num_channels: usize,
        plane: usize,
        statistics: Statistics<'_>,
        eps: f64,
    ) -> Result<Self> {
        let num_images = x.len() / (num_channels * plane).max(1);
        let (mean, var) = match statistics {
            Statistics::Batch => batch_moments(x, num_channels, plane),
            Statistics::Given { mean, var } => {
                let read = |t: &Tensor| t.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1::<f64>();
                (read(mean)?, read(var)?)
            }
        };
        if mean.len() != num_channels || var.len() != num_channels {
            candle_core::bail!("batch_norm: expected moments of {num_channels} channels, found {}", mean.len());
        }
        let inv_std = var.iter().map(|var| 1.0 / (var + eps).sqrt()).collect();
        Ok(Self { num_images, plane, mean, var, inv_std, is_batch: matches!(statistics, Statistics::Batch) })
    }

    fn num_channels(&self) -> usize {
        self.mean.len()
    }

    /// The moments to report: present when they were taken from the batch.
    pub fn moments<T: Real>(&self) -> Result<Option<Moments>> {
        let tensor = |values: &[f64]| {
            let values: Vec<T> = values.iter().map(|&value| T::from_f64(value)).collect();
            Tensor::from_vec(values, self.num_channels(), &Device::Cpu)
        };
        if !self.is_batch {
            return Ok(None);
        }
        let count = self.num_images * self.plane;
        Ok(Some(Moments { mean: tensor(&self.mean)?, var: tensor(&self.var)?, count }))
    }

    /// `(x − mean)·inv_std·weight + bias [+ residual]`, through the epilogue.
    pub fn normalize<T: Real>(
        &self,
        x: &[T],
        (weight, bias): (&[T], &[T]),
        residual: Option<&[T]>,
        epilogue: Epilogue,
    ) -> Vec<T> {
        let plane = self.plane;
        let mut y = unwritten::<T>(x.len());
        let planes = y.par_chunks_mut(plane).zip(x.par_chunks(plane)).enumerate().with_min_len(rows_per_task(plane));
        planes.for_each_init(timing, |_, (index, (y, x))| {
            let channel = index % self.num_channels();
            let line = Line {
                mean: T::from_f64(self.mean[channel]),
                scale: T::from_f64(self.inv_std[channel] * weight[channel].to_f64()),
                shift: bias[channel],
            };
            let residual = residual.map(|residual| &residual[index * plane..(index + 1) * plane]);
            normalize_plane(y, x, residual, line, epilogue);
        });
        y
    }

    /// Makes `g` the gradient before the epilogue (zero where the output `y` of a ReLU is not positive) and takes its
    /// sums per channel. `g` is first filled from `source` when there is one.
    pub fn gradient_sums<T: Real>(
        &self,
        g: &mut [T],
        source: Option<&[T]>,
        y: Option<&[T]>,
        x: &[T],
    ) -> Vec<GradientSums> {
        let plane = self.plane;
        let range = |index: usize| index * plane..(index + 1) * plane;
        let planes = g.par_chunks_mut(plane).zip(x.par_chunks(plane)).enumerate().with_min_len(rows_per_task(plane));
        let sums: Vec<(T, T)> = planes
            .map_init(timing, |_, (index, (g, x))| {
                if let Some(source) = source {
                    g.copy_from_slice(&source[range(index)]);
                }
                if let Some(y) = y {
                    mask_plane(g, &y[range(index)]);
                }
                sum_plane(g, x, T::from_f64(self.mean[index % self.num_channels()]))
            })
            .collect();
        let mut total = vec![GradientSums::default(); self.num_channels()];
        for image in sums.chunks_exact(self.num_channels()) {
            for (total, (sum, product)) in total.iter_mut().zip(image) {
                total.sum += sum.to_f64();
                total.product += product.to_f64();
            }
        }
        total
    }

    /// Gradients of weight and bias.
    pub fn affine_gradients<T: Real>(&self, sums: &[GradientSums]) -> (Vec<T>, Vec<T>) {
        let weight = sums.iter().zip(&self.inv_std).map(|(sums, inv_std)| T::from_f64(sums.product * inv_std));
        (weight.collect(), sums.iter().map(|sums| T::from_f64(sums.sum)).collect())
    }

    /// Writes the gradient of `x` to `dx`; all are whole images (images, channels, plane) of the same part of the
    /// batch, while `sums` are of all of it.
    pub fn input_gradient<T: Real>(&self, dx: &mut [T], g: &[T], x: &[T], weight: &[T], sums: &[GradientSums]) {
        let plane = self.plane;
        let count = (self.num_images * plane) as f64;
        let inputs = g.chunks_exact(plane).zip(x.chunks_exact(plane));
        for (index, (dx, (g, x))) in dx.chunks_exact_mut(plane).zip(inputs).enumerate() {
            let channel = index % self.num_channels();
            let scale = self.inv_std[channel] * weight[channel].to_f64();
            let through = if self.is_batch { scale / count } else { 0.0 };
            let GradientSums { sum, product } = sums[channel];
            let line = GradientLine {
                mean: T::from_f64(self.mean[channel]),
                scale: T::from_f64(scale),
                slope: T::from_f64(-through * product * self.inv_std[channel] * self.inv_std[channel]),
                shift: T::from_f64(-through * sum),
            };
            gradient_plane(dx, g, x, line);
        }
    }
}

/// Takes the time of some of the planes.
fn timing() -> profile::Timing {
    profile::time(Kind::Norm)
}

/// Mean and biased variance per channel: exact pooling of the moments of each plane.
fn batch_moments<T: Real>(x: &[T], num_channels: usize, plane: usize) -> (Vec<f64>, Vec<f64>) {
    let planes = x.par_chunks(plane).with_min_len(rows_per_task(plane));
    let planes: Vec<(T, T)> = planes.map_init(timing, |_, x| plane_moments(x)).collect();
    let num_images = (planes.len() / num_channels.max(1)).max(1) as f64;
    let mut mean = vec![0.0; num_channels];
    for image in planes.chunks_exact(num_channels) {
        mean.iter_mut().zip(image).for_each(|(mean, (m, _))| *mean += m.to_f64() / num_images);
    }
    let mut var = vec![0.0; num_channels];
    for image in planes.chunks_exact(num_channels) {
        for ((var, mean), (m, squares)) in var.iter_mut().zip(&mean).zip(image) {
            let off = m.to_f64() - mean;
            *var += (squares.to_f64() / plane as f64 + off * off) / num_images;
        }
    }
    (mean, var)
}

kernel! {
    /// Mean, and the sum of squared differences from it.
    fn plane_moments<T>(x: &[T]) -> (T, T) {
        let mean = sum_of(x.len(), |i| x[i]) / T::from_f64(x.len() as f64);
        (mean, sum_of(x.len(), |i| (x[i] - mean) * (x[i] - mean)))
    }
}

/// `(x − mean)·scale + shift`
#[derive(Clone, Copy)]
struct Line<T> {
    mean: T,
    scale: T,
    shift: T,
}

kernel! {
    fn normalize_plane<T>(y: &mut [T], x: &[T], residual: Option<&[T]>, line: Line<T>, epilogue: Epilogue) {
        let Line { mean, scale, shift } = line;
        // NaN stays NaN.
        let floor = |value: T| if value < T::zero() { T::zero() } else { value };
        match (residual, epilogue) {
            (None, Epilogue::Identity) => {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - mean) * scale + shift);
            }
            (None, Epilogue::Relu) => {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = floor((x - mean) * scale + shift));
            }
            (Some(residual), Epilogue::Identity) => {
                y.iter_mut().zip(x).zip(residual).for_each(|((y, &x), &r)| *y = (x - mean) * scale + shift + r);
            }
            (Some(residual), Epilogue::Relu) => {
                y.iter_mut().zip(x).zip(residual).for_each(|((y, &x), &r)| *y = floor((x - mean) * scale + shift + r));
            }
        }
    }
}

kernel! {
    /// g = 0 where y is not positive.
    fn mask_plane<T>(g: &mut [T], y: &[T]) {
        for (g, &y) in g.iter_mut().zip(y) {
            *g = if y > T::zero() { *g } else { T::zero() };
        }
    }
}

kernel! {
    /// Σ g and Σ g·(x − mean).
    fn sum_plane<T>(g: &[T], x: &[T], mean: T) -> (T, T) {
        let x = &x[..g.len()];
        (sum_of(g.len(), |i| g[i]), sum_of(g.len(), |i| g[i] * (x[i] - mean)))
    }
}

/// `g·scale + (x − mean)·slope + shift`
#[derive(Clone, Copy)]
struct GradientLine<T> {
    mean: T,
    scale: T,
    slope: T,
    shift: T,
}

kernel! {
    fn gradient_plane<T>(dx: &mut [T], g: &[T], x: &[T], line: GradientLine<T>) {
        let GradientLine { mean, scale, slope, shift } = line;
        for ((dx, &g), &x) in dx.iter_mut().zip(g).zip(x) {
            *dx = g * scale + (x - mean) * slope + shift;
        }
    }
}
