//! All gradients of a convolution, over all groups.

use rayon::prelude::*;

use super::pass::Backward;
use super::plan::Sizes;
use crate::models::ops::buffers::unwritten;
use crate::models::ops::lanes::Vectors;
use crate::models::ops::real::sum_of;
use crate::models::ops::simd::kernel;

/// Numbers in all partial weight gradients together.
const PARTIAL_ELEMENTS: usize = 4 << 20;
/// Partial weight gradients at most.
const MAX_PARTIALS: usize = 16;

/// Which gradients are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub input: bool,
    pub bias: bool,
}

/// Gradients as flat buffers.
pub(super) struct Gradients<T> {
    /// (n, in, h, w)
    pub input: Option<Vec<T>>,
    /// (out, in, kh, kw)
    pub weight: Vec<T>,
    /// (out)
    pub bias: Option<Vec<T>>,
}

/// Gradients for input `x` and `weight`, where `output_gradient(first, dy)` writes the output gradient of the images
/// from `first` on to `dy`, (images, out, out_height, out_width).
///
/// Sums have one order for any number of threads: groups within a partial sum, then the partial sums.
pub(super) fn gradients<T: Vectors>(
    sizes: Sizes,
    x: &[T],
    weight: &[T],
    wanted: Wanted,
    output_gradient: impl Fn(usize, &mut [T]) + Sync,
) -> Gradients<T> {
    let pass = Backward::new(sizes, wanted.input.then_some(weight));
    let num_groups = sizes.batch.div_ceil(pass.group);
    let partials = (PARTIAL_ELEMENTS / sizes.num_weights()).clamp(2, MAX_PARTIALS);
    let images = num_groups.div_ceil(partials) * pass.group;
    let mut dx = unwritten::<T>(if wanted.input { x.len() } else { 0 });
    let num_parts = sizes.batch.div_ceil(images);
    let mut dx_parts: Vec<&mut [T]> = dx.chunks_mut(images * sizes.image()).collect();
    dx_parts.resize_with(num_parts, Default::default);

    let parts: Vec<(Vec<T>, Vec<T>)> = dx_parts
        .into_par_iter()
        .enumerate()
        .map(|(part, dx)| {
            let mut buffers = pass.buffers();
            let mut dy = unwritten::<T>(pass.group * sizes.out_image());
            let mut dw = vec![T::zero(); sizes.num_weights()];
            let mut db = vec![T::zero(); if wanted.bias { sizes.out_channels } else { 0 }];
            let (start, end) = (part * images, ((part + 1) * images).min(sizes.batch));
            for first in (start..end).step_by(pass.group) {
                let last = (first + pass.group).min(end);
                let dy = &mut dy[..(last - first) * sizes.out_image()];
                output_gradient(first, dy);
                pass.weights(&x[first * sizes.image()..last * sizes.image()], dy, &mut dw, &mut buffers);
                if wanted.input {
                    let dx = &mut dx[(first - start) * sizes.image()..(last - start) * sizes.image()];
                    pass.input(dy, dx, &mut buffers);
                }
                if wanted.bias {
                    add_planes(dy, sizes.out_height() * sizes.out_width(), &mut db);
                }
            }
            (dw, db)
        })
        .collect();
    let (mut dw, mut db) = (Vec::new(), Vec::new());
    for (weight, bias) in parts {
        if dw.is_empty() {
            (dw, db) = (weight, bias);
        } else {
            add_to(&mut dw, &weight);
            add_to(&mut db, &bias);
        }
    }
    Gradients { input: wanted.input.then_some(dx), weight: dw, bias: wanted.bias.then_some(db) }
}

kernel! {
    /// Adds the sum of each plane of `dy`, (n, channels, plane), to its channel of `sums`.
    fn add_planes<T>(dy: &[T], plane: usize, sums: &mut [T]) {
        for image in dy.chunks_exact(plane * sums.len()) {
            for (sum, plane) in sums.iter_mut().zip(image.chunks_exact(plane)) {
                *sum += sum_of(plane.len(), |i| plane[i]);
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
