//! Convolutions as sums of shifted rows: any geometry, and the faster way for few channels.

use rayon::prelude::*;

use super::kernel::{BLOCK, RowDots, ShiftedSums, copy_row};
use super::pass::Merge;
use super::plan::{GradientPhase, GradientPlan, InputPlan, Planes, Sizes};
use crate::buffers::{rows_per_task, unwritten};
use crate::lanes::{Kernel, Lanes, Vectors};
use crate::profile::{self, Kind};

/// Multiplications above which the channels of one group are shared out over threads.
const SHARED_WORK: usize = 1 << 24;

/// Copies images (n, channels, height, width) into zeroed `rows`.
struct PackInput<'a, T> {
    sizes: &'a Sizes,
    plan: &'a InputPlan,
    images: &'a [T],
    rows: &'a mut [T],
}

impl<T: Vectors> Kernel<T> for PackInput<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = T>>(self) {
        let Self { sizes: s, plan, images, rows } = self;
        let (planes, padding) = (&plan.planes, s.padding);
        for (channel_index, channel) in images.chunks_exact(s.height * s.width).enumerate() {
            let (image, channel_of_image) = (channel_index / s.in_channels, channel_index % s.in_channels);
            for (phase_index, &(phase_y, phase_x)) in plan.phases.iter().enumerate() {
                let base = (channel_of_image * plan.phases.len() + phase_index) * planes.row + image * planes.plane;
                // Row j of the phase holds y = stride·j + phase − padding; likewise for columns.
                let first = |phase: usize| padding.saturating_sub(phase).div_ceil(s.stride);
                let (first_row, first_column) = (first(phase_y), first(phase_x));
                let x0 = first_column * s.stride + phase_x - padding;
                for row in first_row.. {
                    let y = row * s.stride + phase_y - padding;
                    if y >= s.height || row * planes.pitch >= planes.plane {
                        break;
                    }
                    let start = base + row * planes.pitch + first_column;
                    let from = &channel[y * s.width + x0..(y + 1) * s.width];
                    let room = planes.pitch - first_column;
                    if s.stride == 1 {
                        copy_row::<L>(from, &mut rows[start..start + from.len()]);
                    } else {
                        for (to, from) in rows[start..start + room].iter_mut().zip(from.iter().step_by(s.stride)) {
                            *to = *from;
                        }
                    }
                }
            }
        }
    }
}

/// Copies the output gradient (n, channels, out_height, out_width) into zeroed `rows` at the given pitch.
struct PackGradient<'a, T> {
    sizes: &'a Sizes,
    dy: &'a [T],
    rows: &'a mut [T],
    planes: &'a Planes,
    /// From one channel to the next.
    row: usize,
}

impl<T: Vectors> Kernel<T> for PackGradient<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = T>>(self) {
        let Self { sizes: s, dy, rows, planes, row } = self;
        let (out_height, out_width) = (s.out_height(), s.out_width());
        for (index, channel) in dy.chunks_exact(out_height * out_width).enumerate() {
            let (image, channel_of_image) = (index / s.out_channels, index % s.out_channels);
            let base = channel_of_image * row + image * planes.plane + planes.lead.0 * planes.pitch + planes.lead.1;
            for (y, from) in channel.chunks_exact(out_width).enumerate() {
                let start = base + y * planes.pitch;
                copy_row::<L>(from, &mut rows[start..start + out_width]);
            }
        }
    }
}

/// Rearranges `weight(m, k)` to (blocks of m, k, BLOCK), zero beyond the last m.
fn pack_weights<T: Vectors>(rows: usize, taps: usize, weight: impl Fn(usize, usize) -> T + Sync) -> Vec<T> {
    let mut packed = vec![T::zero(); rows.next_multiple_of(BLOCK) * taps];
    let blocks = packed.par_chunks_exact_mut((BLOCK * taps).max(1)).enumerate();
    blocks.with_min_len(rows_per_task(BLOCK * taps)).for_each(|(block, packed)| {
        let _timing = profile::time(Kind::Convolution);
        for (tap, packed) in packed.chunks_exact_mut(BLOCK).enumerate() {
            for (lane, packed) in packed.iter_mut().enumerate().take(rows - (block * BLOCK).min(rows)) {
                *packed = weight(block * BLOCK + lane, tap);
            }
        }
    });
    packed
}

/// Runs [`ShiftedSums`] on every block of output rows.
fn shifted_sums<T: Vectors>(rows: &[T], offsets: &[usize], weights: &[T], out: &mut [T], len: usize) {
    let taps = offsets.len();
    let block = |(out, weights): (&mut [T], &[T])| {
        let _timing = profile::time(Kind::Convolution);
        T::dispatch(ShiftedSums { rows, offsets, weights, out, len });
    };
    if weights.len() * len > SHARED_WORK {
        out.par_chunks_mut(BLOCK * len).zip(weights.par_chunks(BLOCK * taps)).for_each(block);
    } else {
        out.chunks_mut(BLOCK * len).zip(weights.chunks(BLOCK * taps)).for_each(block);
    }
}

/// The forward pass.
pub(super) struct DirectForward<T> {
    sizes: Sizes,
    /// Images per group.
    pub group: usize,
    plan: InputPlan,
    weights: Vec<T>,
}

/// Working memory of a thread, and the result of [`DirectForward::run`].
pub(super) struct DirectForwardBuffers<T> {
    rows: Vec<T>,
    out: Vec<T>,
}

impl<T: Vectors> DirectForward<T> {
    /// `weight`: (out, in, kh, kw).
    pub fn new(sizes: Sizes, weight: &[T]) -> Self {
        let group = sizes.group();
        let (plan, taps) = (InputPlan::new(&sizes, group), sizes.taps());
        let weights = pack_weights(sizes.out_channels, taps, |channel, tap| weight[channel * taps + tap]);
        Self { sizes, group, plan, weights }
    }

    pub fn buffers(&self) -> DirectForwardBuffers<T> {
        let channels = self.sizes.out_channels.next_multiple_of(BLOCK);
        let out = unwritten(channels * self.plan.planes.len);
        DirectForwardBuffers { rows: vec![T::zero(); self.plan.buffer(&self.sizes)], out }
    }

    /// Convolves up to a group of images (n, in, h, w).
    pub fn run(&self, images: &[T], buffers: &mut DirectForwardBuffers<T>) {
        T::dispatch(PackInput { sizes: &self.sizes, plan: &self.plan, images, rows: &mut buffers.rows });
        let len = self.plan.planes.len;
        shifted_sums(&buffers.rows, &self.plan.offsets, &self.weights, &mut buffers.out, len);
    }

    /// An output channel of an image of the last run: rows of (out_width), [`DirectForward::pitch`] apart.
    pub fn plane<'a>(&self, buffers: &'a DirectForwardBuffers<T>, image: usize, channel: usize) -> &'a [T] {
        let planes = &self.plan.planes;
        let start = channel * planes.len + image * planes.plane;
        &buffers.out[start..start + (self.sizes.out_height() - 1) * planes.pitch + self.sizes.out_width()]
    }

    /// From a row of [`DirectForward::plane`] to the next.
    pub fn pitch(&self) -> usize {
        self.plan.planes.pitch
    }
}

/// The backward passes.
pub(super) struct DirectBackward<T> {
    sizes: Sizes,
    /// Images per group.
    pub group: usize,
    plan: InputPlan,
    /// Absent when the input needs no gradient.
    input: Option<InputGradient<T>>,
}

struct InputGradient<T> {
    plan: GradientPlan,
    /// Packed weights of each phase.
    weights: Vec<Vec<T>>,
}

/// Working memory of a thread.
pub(super) struct DirectBackwardBuffers<T> {
    rows: Vec<T>,
    gradients: Vec<T>,
    gradient_rows: Vec<T>,
    out: Vec<T>,
}

impl<T: Vectors> DirectBackward<T> {
    /// `weight`: (out, in, kh, kw), when the input's gradient is wanted.
    pub fn new(sizes: Sizes, weight: Option<&[T]>) -> Self {
        let group = sizes.group();
        let input = weight.map(|weight| {
            let plan = GradientPlan::new(&sizes, group);
            let packed = |phase: &GradientPhase| {
                let taps = phase.taps.len().max(1);
                let at = |channel: usize, k: usize| {
                    let (ky, kx) = phase.taps[k % taps];
                    let kernel = (k / taps * sizes.in_channels + channel) * sizes.kernel.0 + ky;
                    weight[kernel * sizes.kernel.1 + kx]
                };
                pack_weights(sizes.in_channels, phase.offsets.len(), at)
            };
            let weights = plan.phases.iter().map(packed).collect();
            InputGradient { plan, weights }
        });
        Self { sizes, group, plan: InputPlan::new(&sizes, group), input }
    }

    pub fn buffers(&self) -> DirectBackwardBuffers<T> {
        let s = &self.sizes;
        let (gradient_rows, out) = match &self.input {
            Some(input) => (input.plan.buffer(s), s.in_channels.next_multiple_of(BLOCK) * input.plan.planes.len),
            None => (0, 0),
        };
        let zeros = |len: usize| vec![T::zero(); len];
        DirectBackwardBuffers {
            rows: zeros(self.plan.buffer(s)),
            gradients: zeros(s.out_channels * self.plan.planes.len),
            gradient_rows: zeros(gradient_rows),
            out: unwritten(out),
        }
    }

    /// Adds the weight gradient of up to a group of images to `dw`, (out, in, kh, kw).
    pub fn weights(&self, images: &[T], dy: &[T], dw: &mut [T], buffers: &mut DirectBackwardBuffers<T>) {
        let (s, planes) = (&self.sizes, &self.plan.planes);
        if images.len() < self.group * s.image() {
            // Fewer images than the last group had: nothing of it may remain.
            buffers.rows.fill(T::zero());
            buffers.gradients.fill(T::zero());
        }
        T::dispatch(PackInput { sizes: s, plan: &self.plan, images, rows: &mut buffers.rows });
        T::dispatch(PackGradient { sizes: s, dy, rows: &mut buffers.gradients, planes, row: planes.len });
        let (rows, offsets, len) = (buffers.rows.as_slice(), self.plan.offsets.as_slice(), planes.len);
        let dots = |(out, gradients): (&mut [T], &[T])| {
            let _timing = profile::time(Kind::Convolution);
            T::dispatch(RowDots { rows, offsets, gradients, out, len });
        };
        let taps = s.taps();
        if s.num_weights() * len > SHARED_WORK {
            dw.par_chunks_mut(BLOCK * taps).zip(buffers.gradients.par_chunks(BLOCK * len)).for_each(dots);
        } else {
            dots((dw, &buffers.gradients));
        }
    }

    /// Merges the input gradient of up to a group of images into `dx`, (n, in, h, w).
    pub fn input(&self, dy: &[T], dx: &mut [T], merge: Merge, buffers: &mut DirectBackwardBuffers<T>) {
        let Some(input) = &self.input else { return };
        let (s, plan) = (&self.sizes, &input.plan);
        let planes = &plan.planes;
        if dx.len() < self.group * s.image() {
            buffers.gradient_rows.fill(T::zero());
        }
        T::dispatch(PackGradient { sizes: s, dy, rows: &mut buffers.gradient_rows, planes, row: planes.row });
        for (phase, weights) in plan.phases.iter().zip(&input.weights) {
            if !phase.taps.is_empty() {
                shifted_sums(&buffers.gradient_rows, &phase.offsets, weights, &mut buffers.out, planes.len);
            } else if merge == Merge::Replace {
                buffers.out.fill(T::zero());
            } else {
                continue;
            }
            T::dispatch(UnpackPixels { sizes: s, plan, phase: phase.phase, out: &buffers.out, dx, merge });
        }
    }
}

/// Merges one phase of the input gradient, rows of `out`, into its pixels, (n, channels, height, width).
struct UnpackPixels<'a, T> {
    sizes: &'a Sizes,
    plan: &'a GradientPlan,
    phase: (usize, usize),
    out: &'a [T],
    dx: &'a mut [T],
    merge: Merge,
}

impl<T: Vectors> Kernel<T> for UnpackPixels<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = T>>(self) {
        let Self { sizes: s, plan, phase, out, dx, merge } = self;
        let planes = &plan.planes;
        // Index i of the planes is pixel stride·(i + first) + phase − padding.
        let index = |pixel: usize| (pixel + s.padding) / s.stride - plan.first;
        let pixels = |phase: usize| {
            let start = (phase + s.stride - s.padding % s.stride) % s.stride;
            move |size: usize| (start..size).step_by(s.stride)
        };
        let (rows, columns) = (pixels(phase.0), pixels(phase.1));
        for (channel_index, dx) in dx.chunks_exact_mut(s.height * s.width).enumerate() {
            let (image, channel) = (channel_index / s.in_channels, channel_index % s.in_channels);
            for y in rows(s.height) {
                let row = channel * planes.len + image * planes.plane + index(y) * planes.pitch;
                let Some(x0) = columns(s.width).next() else { continue };
                let from = &out[row + index(x0)..];
                let dx = &mut dx[y * s.width..(y + 1) * s.width];
                match (s.stride, merge) {
                    (1, Merge::Replace) => copy_row::<L>(&from[..s.width], dx),
                    (1, Merge::Add) => dx.iter_mut().zip(from).for_each(|(dx, from)| *dx += *from),
                    (_, Merge::Replace) => columns(s.width).zip(from).for_each(|(x, from)| dx[x] = *from),
                    (_, Merge::Add) => columns(s.width).zip(from).for_each(|(x, from)| dx[x] += *from),
                }
            }
        }
    }
}
