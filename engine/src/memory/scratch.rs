//! What operations work with beside their inputs and results: buffers of threads, factors and partial sums of weight gradients.

use super::layers::{plus, times};
use crate::models::ops::{WinogradRoom, winograd_room};

/// Most numbers in the factors of weight gradients that fused layers collect (`models::ops::sequence`).
const MAX_FACTOR_NUMBERS: u64 = 32 << 20;

/// Numbers in the buffers of images that are convolved together (`models::ops::conv2d::plan`).
const GROUP_NUMBERS: u64 = 192 * 1024;
/// A backward pass holds about three such buffers: of the input, of the gradients of output and input.
const GROUP_BUFFERS: u64 = 3;
/// Numbers in all partial weight gradients of a convolution, and how many there are (`models::ops::conv2d::gradients`).
const PARTIAL_NUMBERS: u64 = 4 << 20;
const PARTIALS: std::ops::RangeInclusive<u64> = 2..=16;

/// By what a network is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Scratch {
    /// Operations that need none.
    #[default]
    None,
    /// Layers over sequences.
    Sequences(Sequences),
    /// Convolutions.
    Convolutions(Convolutions),
}

impl Scratch {
    /// Numbers in use at once, with `num_examples` in the graph together.
    pub(super) fn in_use(self, num_examples: u64, num_threads: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Sequences(sequences) => sequences.in_use(num_examples, num_threads),
            Self::Convolutions(convolutions) => convolutions.in_use(num_threads),
        }
    }

    /// Weights that are packed for products, in use and then waiting for the next layer.
    pub(super) fn packed(self, num_examples: u64, num_threads: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Convolutions(convolutions) => convolutions.packed(num_examples, num_threads),
            Self::Sequences(sequences) => sequences.packed(num_examples, num_threads),
        }
    }

    /// Numbers that wait for the next step in buffers that operations give back for later.
    pub(super) fn shelved(self, num_examples: u64, num_threads: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Convolutions(convolutions) => convolutions.in_winograds_domain(num_threads),
            Self::Sequences(sequences) => {
                let gradients = sequences.weights;
                let scratch = sequences.in_use(num_examples, num_threads).saturating_sub(gradients);
                sequences.saved.saturating_mul(num_examples).saturating_add(scratch)
            }
        }
    }
}

/// Layers over sequences, one sequence per task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sequences {
    /// What all layers save of one sequence. It is kept for the backward pass, in buffers that are used again.
    pub(super) saved: u64,
    /// What a thread works with on the way forward.
    pub(super) forward: u64,
    /// And on the way back.
    pub(super) backward: u64,
    /// Factors of weight gradients that one sequence leaves in a layer.
    pub(super) factors: u64,
    /// Weights of one layer.
    pub(super) weights: u64,
}

impl Sequences {
    /// Sequences whose factors are multiplied together.
    pub(super) fn group(self, num_examples: u64) -> u64 {
        let most = (MAX_FACTOR_NUMBERS / self.factors.max(1)).max(1);
        num_examples.div_ceil(num_examples.div_ceil(most).max(1))
    }

    /// A layer's weights, packed for a whole batch, where each thread reads them several times.
    pub(super) fn packed(self, num_examples: u64, num_threads: u64) -> u64 {
        if num_examples / num_threads.max(1) > 1 { self.weights } else { 0 }
    }

    fn in_use(self, num_examples: u64, num_threads: u64) -> u64 {
        let group = self.group(num_examples);
        let forward = num_threads.min(num_examples).saturating_mul(self.forward);
        let backward = num_threads.min(group).saturating_mul(self.backward);
        plus(&[forward.max(backward), group.saturating_mul(self.factors), self.weights])
    }
}

/// The largest of a network's convolutions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Convolutions {
    /// Numbers in the buffers of one image.
    image: u64,
    /// Partial weight gradients.
    partials: u64,
    /// Numbers in a group's tiles in Winograd's domain.
    tiles: u64,
    /// Numbers in the largest kernels there, with the images of a group and what the number of groups is a multiple of.
    filters: u64,
    groups: (u64, u64),
    /// Numbers in the largest kernels of many groups.
    light_filters: u64,
}

/// Groups of a batch, at least, where kernels are small.
const MANY_GROUPS: u64 = 8;

impl Convolutions {
    pub(super) fn add(&mut self, convolution: &Convolution) {
        self.image = self.image.max(convolution.image());
        self.partials = self.partials.max(convolution.partials());
        if let Some(WinogradRoom { tiles, filters, group, shares }) = convolution.in_winograds_domain() {
            let (filters, shares) = (filters as u64, shares as u64);
            self.tiles = self.tiles.max(tiles as u64);
            if filters > self.filters {
                (self.filters, self.groups) = (filters, (group as u64, shares));
            }
            if shares >= MANY_GROUPS {
                self.light_filters = self.light_filters.max(filters);
            }
        }
    }

    fn in_use(self, num_threads: u64) -> u64 {
        let group = GROUP_NUMBERS.max(self.image).saturating_mul(GROUP_BUFFERS);
        let all = plus(&[num_threads.saturating_mul(group), self.partials]);
        all.saturating_add(self.in_winograds_domain(num_threads))
    }

    /// The largest kernels that threads pack: for several groups of images each.
    fn packed(self, num_examples: u64, num_threads: u64) -> u64 {
        let (group, shares) = self.groups;
        let num_groups = num_examples.div_ceil(group.max(1));
        let num_groups = num_groups.checked_next_multiple_of(shares.max(1)).unwrap_or(num_groups);
        let packs = |num_groups: u64| num_groups / num_threads.max(1) > 1;
        if packs(num_groups) {
            self.filters
        } else if packs(MANY_GROUPS) {
            self.light_filters
        } else {
            0
        }
    }

    /// Tiles and the kernels' gradient of each thread, and the kernels; all in buffers that wait for the next step.
    fn in_winograds_domain(self, num_threads: u64) -> u64 {
        num_threads.saturating_mul(self.tiles.saturating_add(self.filters)).saturating_add(self.filters)
    }
}

/// A convolution of one image, both ends as (channels, height, width), padded to keep the size at stride 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Convolution {
    pub(super) input: [usize; 3],
    pub(super) output: [usize; 3],
    /// Its height and width.
    pub(super) kernel: usize,
}

impl Convolution {
    fn num_weights(&self) -> u64 {
        times(&[self.input[0], self.output[0], self.kernel, self.kernel])
    }

    pub(super) fn flops(&self) -> u64 {
        let pixels = times(&[2, self.output[1], self.output[2]]);
        pixels.saturating_mul(self.num_weights())
    }

    /// What it takes in Winograd's domain, where it is computed there.
    fn in_winograds_domain(&self) -> Option<WinogradRoom> {
        let [inputs, height, width] = self.input;
        let [outputs, out_height, out_width] = self.output;
        let fits = self.kernel == 3 && (height, width) == (out_height, out_width);
        winograd_room([inputs, outputs], (height, width)).filter(|_| fits)
    }

    /// Padded input and output.
    fn image(&self) -> u64 {
        let [channels, height, width] = self.input;
        let padding = self.kernel / 2;
        let padded = [channels, height.saturating_add(padding), width.saturating_add(padding)];
        plus(&[times(&padded), times(&self.output)])
    }

    /// Partial weight gradients, of which the first becomes the sum; and two more where weights are rearranged for both ways.
    fn partials(&self) -> u64 {
        let num_weights = self.num_weights();
        let num_partials = (PARTIAL_NUMBERS / num_weights.max(1)).clamp(*PARTIALS.start(), *PARTIALS.end());
        let rearranged = if self.in_winograds_domain().is_some() { 0 } else { 2 };
        num_partials.saturating_add(rearranged).saturating_mul(num_weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_limited_by_factors_and_threads() {
        // Two sequences' factors fit 32M numbers.
        let sequences = Sequences { saved: 7, forward: 100, backward: 1000, factors: 12 << 20, weights: 500 };
        let scratch = Scratch::Sequences(sequences);
        assert_eq!(scratch.in_use(8, 4), 2 * 1000 + 2 * (12 << 20) + 500);
        assert_eq!(scratch.in_use(1, 4), 1000 + (12 << 20) + 500, "no more than there are");
        let thin = Sequences { factors: (32 << 20) / 11, ..sequences };
        assert_eq!([0, 1, 11, 12, 23].map(|count| thin.group(count)), [0, 1, 11, 6, 8], "of about equal size");
        assert_eq!(scratch.shelved(8, 4), 8 * 7 + 2 * 1000 + 2 * (12 << 20), "gradients are not shelved");
        let wide = Scratch::Sequences(Sequences { forward: 900, ..sequences });
        assert_eq!(wide.in_use(8, 4), 4 * 900 + 2 * (12 << 20) + 500, "more threads on the way forward");
        assert_eq!([1, 7, 8].map(|count| scratch.packed(count, 4)), [0, 0, 500]);
    }

    #[test]
    fn convolutions_are_groups_by_threads_and_partial_sums() {
        let mut convolutions = Convolutions::default();
        convolutions.add(&Convolution { input: [3, 32, 32], output: [16, 32, 32], kernel: 3 });
        let first = 3 * 16 * 9;
        let scratch = Scratch::Convolutions(convolutions);
        assert_eq!(scratch.in_use(64, 2), 2 * 3 * 192 * 1024 + (16 + 2) * first);
        // Wider than a group, heavier than the partial sums allow.
        convolutions.add(&Convolution { input: [512, 32, 32], output: [512, 32, 32], kernel: 3 });
        let (image, weights) = (512 * 33 * 33 + 512 * 32 * 32, 512 * 512 * 9);
        let (tiles, filters) = (36 * 8 * 8 * 1024, 36 * 512 * 512);
        let in_winograds_domain = 2 * (tiles + filters) + filters;
        let wide = Scratch::Convolutions(convolutions);
        assert_eq!(wide.in_use(1, 2), 2 * 3 * image + 2 * weights + in_winograds_domain);
        assert_eq!((scratch.shelved(64, 2), wide.shelved(64, 2)), (0, in_winograds_domain));
    }
}
