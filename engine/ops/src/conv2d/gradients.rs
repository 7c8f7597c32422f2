//! All gradients of a convolution, over all groups.

use rayon::prelude::*;

use super::pass::{Backward, BackwardBuffers, Merge};
use super::plan::Sizes;
use crate::buffers::unwritten;
use crate::lanes::Vectors;
use crate::profile::{self, Kind};
use crate::real::sum_map;
use crate::simd::kernel;

/// Numbers in all partial weight gradients together.
const PARTIAL_ELEMENTS: usize = 4 << 20;
/// Partial weight gradients at most.
const MAX_PARTIALS: usize = 16;
/// Weights whose partial gradients are added up at once.
const SUMMED: usize = 16 * 1024;

/// Where the gradient of the input, (n, in, h, w), goes.
#[derive(Debug)]
pub(crate) enum InputGradient<'a, T> {
    /// Nowhere.
    Unwanted,
    /// Over what is there.
    Write(&'a mut [T]),
    /// Onto what is there.
    Add(&'a mut [T]),
}

/// What besides the gradient of the weight is computed.
#[derive(Debug)]
pub(crate) struct Wanted<'a, T> {
    pub input: InputGradient<'a, T>,
    /// The gradient of a bias.
    pub bias: bool,
}

/// Gradients of `weight`, (out, in, kh, kw), and of a bias, (out) or empty where it is not wanted, for input `x`, where
/// `output_gradient(first, dy)` writes the output gradient of the images from `first` on to `dy`, (images, out, out_height,
/// out_width).
///
/// Sums have one order for any number of threads: groups within a partial sum, then the partial sums.
pub(crate) fn gradients<T: Vectors>(
    sizes: Sizes,
    x: &[T],
    weight: &[T],
    wanted: Wanted<'_, T>,
    output_gradient: impl Fn(usize, &mut [T]) + Sync,
) -> (Vec<T>, Vec<T>) {
    let partials = (PARTIAL_ELEMENTS / sizes.num_weights()).clamp(2, MAX_PARTIALS);
    gradients_in(partials, sizes, x, weight, wanted, output_gradient)
}

/// The same, in at most `partials` partial sums.
pub(super) fn gradients_in<T: Vectors>(
    partials: usize,
    sizes: Sizes,
    x: &[T],
    weight: &[T],
    wanted: Wanted<'_, T>,
    output_gradient: impl Fn(usize, &mut [T]) + Sync,
) -> (Vec<T>, Vec<T>) {
    let (dx, merge) = match wanted.input {
        InputGradient::Unwanted => (None, Merge::Replace),
        InputGradient::Write(dx) => (Some(dx), Merge::Replace),
        InputGradient::Add(dx) => (Some(dx), Merge::Add),
    };
    let pass = Backward::new(sizes, dx.is_some().then_some(weight));
    let num_groups = sizes.batch.div_ceil(pass.group);
    let images = num_groups.div_ceil(partials) * pass.group;
    let dx_parts = dx.map(|dx| dx.chunks_mut(images * sizes.image()).map(Some).collect::<Vec<_>>());
    let mut dx_parts = dx_parts.unwrap_or_default();
    dx_parts.resize_with(sizes.batch.div_ceil(images), || None);

    let num_biases = if wanted.bias { sizes.out_channels } else { 0 };
    let buffers = || (pass.buffers(), unwritten::<T>(pass.group * sizes.out_image()));
    let partial = |(buffers, dy): &mut (BackwardBuffers<T>, Vec<T>), (part, mut dx): (usize, Option<&mut [T]>)| {
        let _timing = profile::time(Kind::Convolution);
        pass.begin(buffers);
        let (mut dw, mut db) = (pass.room_for_weights(sizes.num_weights()), vec![T::zero(); num_biases]);
        let (start, end) = (part * images, ((part + 1) * images).min(sizes.batch));
        for first in (start..end).step_by(pass.group) {
            let last = (first + pass.group).min(end);
            let dy = &mut dy[..(last - first) * sizes.out_image()];
            output_gradient(first, dy);
            let dx =
                dx.as_mut().map(|dx| (&mut dx[(first - start) * sizes.image()..(last - start) * sizes.image()], merge));
            pass.run(&x[first * sizes.image()..last * sizes.image()], dy, &mut dw, dx, buffers);
            if wanted.bias {
                add_planes(dy, sizes.out_height() * sizes.out_width(), &mut db);
            }
        }
        pass.finish_weights(&mut dw, buffers);
        (dw, db)
    };
    let parts: Vec<(Vec<T>, Vec<T>)> = dx_parts.into_par_iter().enumerate().map_init(buffers, partial).collect();
    let _timing = profile::time(Kind::Convolution);
    let mut parts = parts.into_iter();
    let (mut dw, mut db) = parts.next().unwrap_or_default();
    let parts = parts.as_slice();
    dw.par_chunks_mut(SUMMED).enumerate().for_each(|(index, dw)| {
        let _timing = profile::time(Kind::Convolution);
        parts.iter().for_each(|(part, _)| add_to(dw, &part[index * SUMMED..][..dw.len()]));
    });
    parts.iter().for_each(|(_, part)| add_to(&mut db, part));
    (dw, db)
}

kernel! {
    /// Adds the sum of each plane of `dy`, (n, channels, plane), to its channel of `sums`.
    fn add_planes<T>(dy: &[T], plane: usize, sums: &mut [T]) {
        for image in dy.chunks_exact(plane * sums.len()) {
            for (sum, plane) in sums.iter_mut().zip(image.chunks_exact(plane)) {
                *sum += sum_map(plane, |x| x);
            }
        }
    }
}

kernel! {
    /// sums += terms
    fn add_to<T>(sums: &mut [T], terms: &[T]) {
        for (sum, &term) in sums.iter_mut().zip(terms) {
            *sum += term;
        }
    }
}
