//! Normalization of planes: moments, output, gradients.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::op::{Moments, Statistics};
use crate::Epilogue;
use crate::buffers::{rows_per_task, unwritten};
use crate::profile::{self, Kind};
use crate::real::{Real, add_lanes, sum_map};
use crate::simd::{LANES, kernel};

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

/// Of one channel of one image: mean, and the sum of squared differences from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlaneMoments<T> {
    mean: T,
    squares: T,
}

impl<T: Real> Default for PlaneMoments<T> {
    fn default() -> Self {
        Self { mean: T::zero(), squares: T::zero() }
    }
}

impl<T: Real> PlaneMoments<T> {
    pub fn of(plane: &[T]) -> Self {
        let (mean, squares) = plane_moments(plane);
        Self { mean, squares }
    }

    /// Those of all planes of `x`, on all threads; none where the moments are given.
    pub fn of_all(x: &[T], plane: usize, statistics: Statistics<'_>) -> Vec<Self> {
        match statistics {
            Statistics::Batch => {
                let planes = x.par_chunks(plane).with_min_len(rows_per_task(plane));
                planes.map_init(timing, |_, x| Self::of(x)).collect()
            }
            Statistics::Given { .. } => Vec::new(),
        }
    }
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
    /// Pools the moments of all planes, (n, channels), or takes those that are given.
    pub fn of<T: Real>(
        planes: &[PlaneMoments<T>],
        num_channels: usize,
        plane: usize,
        statistics: Statistics<'_>,
        eps: f64,
    ) -> Result<Self> {
        let num_images = planes.len() / num_channels.max(1);
        let (mean, var) = match statistics {
            Statistics::Batch => batch_moments(planes, num_channels, plane),
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
                let mean = T::from_f64(self.mean[index % self.num_channels()]);
                sum_plane(g, source.map(|source| &source[range(index)]), y.map(|y| &y[range(index)]), x, mean)
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
fn batch_moments<T: Real>(planes: &[PlaneMoments<T>], num_channels: usize, plane: usize) -> (Vec<f64>, Vec<f64>) {
    let num_images = (planes.len() / num_channels.max(1)).max(1) as f64;
    let mut mean = vec![0.0; num_channels];
    for image in planes.chunks_exact(num_channels) {
        mean.iter_mut().zip(image).for_each(|(mean, plane)| *mean += plane.mean.to_f64() / num_images);
    }
    let mut var = vec![0.0; num_channels];
    for image in planes.chunks_exact(num_channels) {
        for ((var, mean), moments) in var.iter_mut().zip(&mean).zip(image) {
            let off = moments.mean.to_f64() - mean;
            *var += (moments.squares.to_f64() / plane as f64 + off * off) / num_images;
        }
    }
    (mean, var)
}

kernel! {
    /// Mean, and the sum of squared differences from it.
    fn plane_moments<T>(x: &[T]) -> (T, T) {
        let mean = sum_map(x, |x| x) / T::from_f64(x.len() as f64);
        (mean, sum_map(x, |x| (x - mean) * (x - mean)))
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
    /// g = `source`, where there is one, and 0 where `y`, where there is one, is not positive; returns Σ g and Σ g·(x − mean).
    fn sum_plane<T>(g: &mut [T], source: Option<&[T]>, y: Option<&[T]>, x: &[T], mean: T) -> (T, T) {
        let masked = |g: T, y: T| if y > T::zero() { g } else { T::zero() };
        match (source, y) {
            (None, None) => sum_values(g, x, x, x, mean, |g, _, _| g),
            (None, Some(y)) => sum_values(g, y, y, x, mean, |g, y, _| masked(g, y)),
            (Some(source), None) => sum_values(g, source, source, x, mean, |_, source, _| source),
            (Some(source), Some(y)) => sum_values(g, source, y, x, mean, |_, source, y| masked(source, y)),
        }
    }
}

/// g[i] = value(g[i], a[i], b[i]); returns Σ g and Σ g·(x − mean), each as [`sum_map`] adds up, in one pass.
#[inline(always)]
fn sum_values<T: Real>(g: &mut [T], a: &[T], b: &[T], x: &[T], mean: T, value: impl Fn(T, T, T) -> T) -> (T, T) {
    let (mut sums, mut products) = ([T::zero(); LANES], [T::zero(); LANES]);
    let (whole, rest) = g.as_chunks_mut::<LANES>();
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (x, x_rest) = x.as_chunks::<LANES>();
    for (((g, a), b), x) in whole.iter_mut().zip(a).zip(b).zip(x) {
        for lane in 0..LANES {
            g[lane] = value(g[lane], a[lane], b[lane]);
            sums[lane] += g[lane];
            products[lane] += g[lane] * (x[lane] - mean);
        }
    }
    let lanes = sums.iter_mut().zip(&mut products);
    let rest = rest.iter_mut().zip(a_rest).zip(b_rest).zip(x_rest);
    for ((sum, product), (((g, &a), &b), &x)) in lanes.zip(rest) {
        *g = value(*g, a, b);
        *sum += *g;
        *product += *g * (x - mean);
    }
    (add_lanes(sums), add_lanes(products))
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
