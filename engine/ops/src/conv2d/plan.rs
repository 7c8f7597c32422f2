//! How a convolution is laid out in memory.
//!
//! Images are copied into rows of zero-padded planes, one row per input channel (and per phase of the stride), the
//! images of a group end to end. In that layout every tap of the kernel is the same row read from another start, so
//! that a convolution is `out[o][p] = Σ_k w[o][k] · row[offset_k + p]` over one flat index `p`, without an im2col
//! matrix. Neighboring rows and images share their padding; the few positions that fall on it are computed and
//! thrown away.

use candle_core::{Result, bail};

/// Flat lengths are multiples of this, the widest vector, so that kernels need no scalar tail.
pub(super) const MAX_WIDTH: usize = 16;

/// Numbers in the buffers of a group, 768 KiB of f32: they stay in the second-level cache.
const GROUP_ELEMENTS: usize = 192 * 1024;
/// Above this many weights they stream through the cache per group, so groups are made larger.
const HEAVY_WEIGHTS: usize = 256 * 1024;

/// Sizes of a convolution, (n, c, h, w) by (out, c, kh, kw).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub batch: usize,
    pub in_channels: usize,
    pub height: usize,
    pub width: usize,
    pub out_channels: usize,
    pub kernel: (usize, usize),
    pub stride: usize,
    pub padding: usize,
}

impl Sizes {
    /// Checks shapes. Errors: another rank, channels that differ, an empty side, a window larger than the image.
    pub fn new(x: &[usize], weight: &[usize], stride: usize, padding: usize) -> Result<Self> {
        let (&[batch, in_channels, height, width], &[out_channels, weight_channels, kh, kw]) = (x, weight) else {
            bail!("conv2d: expected x (n, c, h, w) and weight (out, c, kh, kw), found {x:?} and {weight:?}");
        };
        if in_channels != weight_channels {
            bail!("conv2d: x {x:?} has {in_channels} channels, weight {weight:?} reads {weight_channels}");
        }
        if x.contains(&0) || weight.contains(&0) || stride == 0 {
            bail!("conv2d: every size must be positive, found x {x:?}, weight {weight:?}, stride {stride}");
        }
        if height + 2 * padding < kh || width + 2 * padding < kw {
            bail!("conv2d: the {kh}x{kw} window is larger than x {x:?} with {padding} of padding");
        }
        Ok(Self { batch, in_channels, height, width, out_channels, kernel: (kh, kw), stride, padding })
    }

    pub fn out_height(&self) -> usize {
        (self.height + 2 * self.padding - self.kernel.0) / self.stride + 1
    }

    pub fn out_width(&self) -> usize {
        (self.width + 2 * self.padding - self.kernel.1) / self.stride + 1
    }

    /// Numbers in an input image.
    pub fn image(&self) -> usize {
        self.in_channels * self.height * self.width
    }

    /// Numbers in an output image.
    pub fn out_image(&self) -> usize {
        self.out_channels * self.out_height() * self.out_width()
    }

    /// Weights per output channel.
    pub fn taps(&self) -> usize {
        self.in_channels * self.kernel.0 * self.kernel.1
    }

    pub fn num_weights(&self) -> usize {
        self.out_channels * self.taps()
    }

    /// Padding beyond the window would need more zeros between rows than the layout has.
    pub fn is_supported(&self) -> bool {
        self.padding < self.kernel.0 && self.padding < self.kernel.1
    }

    /// Images that are computed together; a function of the sizes alone, so that sums have one order whatever the
    /// number of threads.
    pub fn group(&self) -> usize {
        let plane = (self.height + self.padding) * (self.width + self.padding);
        let out_plane = self.out_height() * self.out_width();
        let per_image = self.in_channels * plane + self.out_channels * out_plane;
        let shares = if self.num_weights() > HEAVY_WEIGHTS { 4 } else { 8 };
        even_group(self.batch, GROUP_ELEMENTS / per_image, shares)
    }
}

/// Images of a group of at most `most` of `batch`: where the batch allows, groups are equal and their number is a multiple of
/// `shares`, so that a few threads end together.
pub(super) fn even_group(batch: usize, most: usize, shares: usize) -> usize {
    let most = most.clamp(1, batch.div_ceil(shares));
    batch.div_ceil(batch.div_ceil(most).next_multiple_of(shares))
}

/// Where one axis of the input lies in the planes: `at = stride·index + phase − padding`.
#[derive(Debug, Clone, Copy)]
struct Axis {
    size: usize,
    out: usize,
    kernel: usize,
}

/// The planes of one side of a convolution.
#[derive(Debug, Clone)]
pub(super) struct Planes {
    /// From a row of an image to the next.
    pub pitch: usize,
    /// From an image of the group to the next.
    pub plane: usize,
    /// From a channel's phase to the next.
    pub row: usize,
    /// Computed positions, a multiple of [`MAX_WIDTH`], when the group is full.
    pub len: usize,
    /// Zeros before an image's first row and column (input gradient only).
    pub lead: (usize, usize),
}

fn round_up(len: usize) -> usize {
    len.next_multiple_of(MAX_WIDTH)
}

/// The input, as the forward pass and the weight gradient read it.
#[derive(Debug, Clone)]
pub(super) struct InputPlan {
    pub planes: Planes,
    /// Phases of the stride that some tap reads.
    pub phases: Vec<(usize, usize)>,
    /// Start of each tap, in the order of the weights (channel, ky, kx).
    pub offsets: Vec<usize>,
}

impl InputPlan {
    pub fn new(s: &Sizes, group: usize) -> Self {
        let axis = |size, kernel| Axis { size, out: (size + 2 * s.padding - kernel) / s.stride + 1, kernel };
        let (y, x) = (axis(s.height, s.kernel.0), axis(s.width, s.kernel.1));
        // With stride 1 a row's trailing zeros are the next row's leading ones.
        let extent = |axis: Axis| match s.stride {
            1 => (axis.size + s.padding).max(axis.out),
            stride => axis.out + (axis.kernel - 1) / stride,
        };
        let (rows, pitch) = (extent(y), extent(x));
        let plane = rows * pitch;
        let len = round_up((group - 1) * plane + (y.out - 1) * pitch + x.out);
        let reach = (y.kernel - 1) / s.stride * pitch + (x.kernel - 1) / s.stride;
        let row = (group * plane).max(len + reach);
        let used = |kernel: usize| 0..s.stride.min(kernel);
        let phases: Vec<_> = used(y.kernel).flat_map(|py| used(x.kernel).map(move |px| (py, px))).collect();
        let phases_across = used(x.kernel).len();
        let mut offsets = Vec::with_capacity(s.taps());
        for channel in 0..s.in_channels {
            for ky in 0..y.kernel {
                for kx in 0..x.kernel {
                    let phase = (ky % s.stride) * phases_across + kx % s.stride;
                    let start = (channel * phases.len() + phase) * row;
                    offsets.push(start + ky / s.stride * pitch + kx / s.stride);
                }
            }
        }
        Self { planes: Planes { pitch, plane, row, len, lead: (0, 0) }, phases, offsets }
    }

    /// Numbers in the buffer.
    pub fn buffer(&self, s: &Sizes) -> usize {
        s.in_channels * self.phases.len() * self.planes.row
    }
}

/// One phase of the input gradient: the input pixels that the same taps reach.
#[derive(Debug, Clone)]
pub(super) struct GradientPhase {
    pub phase: (usize, usize),
    /// Kernel positions (ky, kx), in the order of `offsets` within an output channel.
    pub taps: Vec<(usize, usize)>,
    /// Start of each (output channel, tap).
    pub offsets: Vec<usize>,
}

/// The output gradient, as the input gradient reads it.
#[derive(Debug, Clone)]
pub(super) struct GradientPlan {
    pub planes: Planes,
    pub phases: Vec<GradientPhase>,
    /// Index of the first input pixel of the planes, in steps of the stride.
    pub first: usize,
}

impl GradientPlan {
    pub fn new(s: &Sizes, group: usize) -> Self {
        let first = s.padding / s.stride;
        let reach = |kernel: usize| (kernel - 1) / s.stride;
        let (reach_y, reach_x) = (reach(s.kernel.0), reach(s.kernel.1));
        let lead = (reach_y - first, reach_x - first);
        let last = |size: usize| (s.padding + size - 1) / s.stride;
        let rows = (last(s.height) + 1).max(s.out_height() + lead.0);
        let pitch = (last(s.width) + 1).max(s.out_width() + lead.1);
        let plane = rows * pitch;
        let len = round_up((group - 1) * plane + (last(s.height) - first) * pitch + last(s.width) - first + 1);
        let row = (group * plane).max(len + reach_y * pitch + reach_x);
        let mut phases = Vec::new();
        for phase_y in 0..s.stride {
            for phase_x in 0..s.stride {
                let mut taps = Vec::new();
                for ky in (phase_y..s.kernel.0).step_by(s.stride) {
                    taps.extend((phase_x..s.kernel.1).step_by(s.stride).map(|kx| (ky, kx)));
                }
                let start = |(ky, kx): (usize, usize)| (reach_y - ky / s.stride) * pitch + reach_x - kx / s.stride;
                let starts = |channel: usize| taps.iter().map(move |tap| channel * row + start(*tap));
                let offsets = (0..s.out_channels).flat_map(starts).collect();
                phases.push(GradientPhase { phase: (phase_y, phase_x), taps, offsets });
            }
        }
        Self { planes: Planes { pitch, plane, row, len, lead }, phases, first }
    }

    /// Numbers in the buffer.
    pub fn buffer(&self, s: &Sizes) -> usize {
        s.out_channels * self.planes.row
    }
}
