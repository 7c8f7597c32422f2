//! The passes of a convolution over one group of images, each in the way that its geometry allows and favors.

use super::direct::{DirectBackward, DirectBackwardBuffers, DirectForward, DirectForwardBuffers};
use super::plan::Sizes;
use super::winograd::{Winograd, WinogradBackward, WinogradBackwardBuffers, WinogradBuffers, WinogradForward};
use crate::buffers::unwritten;
use crate::lanes::Vectors;
use crate::profile::{self, Kind};

/// What happens to what is in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// It is overwritten.
    Replace,
    /// It is added to.
    Add,
}

/// The forward pass.
pub(super) struct Forward<T: Vectors> {
    /// Images per group.
    pub group: usize,
    way: ForwardWay<T>,
}

enum ForwardWay<T: Vectors> {
    Direct(DirectForward<T>),
    Winograd(WinogradForward<T>, usize),
}

/// Working memory of a thread, and the result of [`Forward::run`].
pub(super) enum ForwardBuffers<T: Vectors> {
    Direct(DirectForwardBuffers<T>),
    Winograd(WinogradBuffers<T>),
}

impl<T: Vectors> Forward<T> {
    /// `weight`: (out, in, kh, kw).
    pub fn new(sizes: Sizes, weight: &[T]) -> Self {
        let _timing = profile::time(Kind::Convolution);
        match Winograd::of(sizes) {
            Some(domain) => Self {
                group: domain.group,
                way: ForwardWay::Winograd(WinogradForward::new(domain, weight), sizes.out_width()),
            },
            None => {
                let direct = DirectForward::new(sizes, weight);
                Self { group: direct.group, way: ForwardWay::Direct(direct) }
            }
        }
    }

    pub fn buffers(&self) -> ForwardBuffers<T> {
        match &self.way {
            ForwardWay::Direct(direct) => ForwardBuffers::Direct(direct.buffers()),
            ForwardWay::Winograd(winograd, _) => ForwardBuffers::Winograd(winograd.buffers()),
        }
    }

    /// Convolves up to a group of images (n, in, h, w). Does nothing with another pass's buffers.
    pub fn run(&self, images: &[T], buffers: &mut ForwardBuffers<T>) {
        match (&self.way, buffers) {
            (ForwardWay::Direct(direct), ForwardBuffers::Direct(buffers)) => direct.run(images, buffers),
            (ForwardWay::Winograd(winograd, _), ForwardBuffers::Winograd(buffers)) => winograd.run(images, buffers),
            (ForwardWay::Direct(_), ForwardBuffers::Winograd(_))
            | (ForwardWay::Winograd(..), ForwardBuffers::Direct(_)) => {}
        }
    }

    /// An output channel of an image of the last run: rows of (out_width), [`Forward::pitch`] apart. Empty with another
    /// pass's buffers.
    pub fn plane<'a>(&self, buffers: &'a ForwardBuffers<T>, image: usize, channel: usize) -> &'a [T] {
        match (&self.way, buffers) {
            (ForwardWay::Direct(direct), ForwardBuffers::Direct(buffers)) => direct.plane(buffers, image, channel),
            (ForwardWay::Winograd(winograd, _), ForwardBuffers::Winograd(buffers)) => {
                winograd.plane(buffers, image, channel)
            }
            (ForwardWay::Direct(_), ForwardBuffers::Winograd(_))
            | (ForwardWay::Winograd(..), ForwardBuffers::Direct(_)) => &[],
        }
    }

    /// From a row of [`Forward::plane`] to the next.
    pub fn pitch(&self) -> usize {
        match &self.way {
            ForwardWay::Direct(direct) => direct.pitch(),
            ForwardWay::Winograd(_, width) => *width,
        }
    }
}

/// The backward passes.
pub(super) struct Backward<T: Vectors> {
    /// Images per group.
    pub group: usize,
    way: BackwardWay<T>,
}

enum BackwardWay<T: Vectors> {
    Direct(DirectBackward<T>),
    Winograd(WinogradBackward<T>),
}

/// Working memory of a thread.
pub(super) enum BackwardBuffers<T: Vectors> {
    Direct(DirectBackwardBuffers<T>),
    Winograd(WinogradBackwardBuffers<T>),
}

impl<T: Vectors> Backward<T> {
    /// `weight`: (out, in, kh, kw), when the input's gradient is wanted.
    pub fn new(sizes: Sizes, weight: Option<&[T]>) -> Self {
        let _timing = profile::time(Kind::Convolution);
        match Winograd::of(sizes) {
            Some(domain) => {
                Self { group: domain.group, way: BackwardWay::Winograd(WinogradBackward::new(domain, weight)) }
            }
            None => {
                let direct = DirectBackward::new(sizes, weight);
                Self { group: direct.group, way: BackwardWay::Direct(direct) }
            }
        }
    }

    pub fn buffers(&self) -> BackwardBuffers<T> {
        match &self.way {
            BackwardWay::Direct(direct) => BackwardBuffers::Direct(direct.buffers()),
            BackwardWay::Winograd(winograd) => BackwardBuffers::Winograd(winograd.buffers()),
        }
    }

    /// Forgets the weight gradient that was added up in `buffers`.
    pub fn begin(&self, buffers: &mut BackwardBuffers<T>) {
        if let BackwardBuffers::Winograd(buffers) = buffers {
            buffers.begin();
        }
    }

    /// A weight gradient for [`Self::run`] to add to or [`Self::finish_weights`] to write over.
    pub fn room_for_weights(&self, num_weights: usize) -> Vec<T> {
        match &self.way {
            BackwardWay::Direct(_) => vec![T::zero(); num_weights],
            BackwardWay::Winograd(_) => unwritten(num_weights),
        }
    }

    /// Gradients of up to a group of images: the weights' added to `dw`, (out, in, kh, kw), or written there by
    /// [`Self::finish_weights`]; the input's merged into `dx`, (n, in, h, w), where it is wanted. Does nothing with
    /// another pass's buffers.
    pub fn run(
        &self,
        images: &[T],
        dy: &[T],
        dw: &mut [T],
        dx: Option<(&mut [T], Merge)>,
        buffers: &mut BackwardBuffers<T>,
    ) {
        match (&self.way, buffers) {
            (BackwardWay::Direct(direct), BackwardBuffers::Direct(buffers)) => {
                direct.weights(images, dy, dw, buffers);
                if let Some((dx, merge)) = dx {
                    direct.input(dy, dx, merge, buffers);
                }
            }
            (BackwardWay::Winograd(winograd), BackwardBuffers::Winograd(buffers)) => {
                winograd.weights(images, dy, buffers);
                if let Some((dx, merge)) = dx {
                    winograd.input(dx, merge, buffers);
                }
            }
            (BackwardWay::Direct(_), BackwardBuffers::Winograd(_))
            | (BackwardWay::Winograd(_), BackwardBuffers::Direct(_)) => {}
        }
    }

    /// Writes to `dw` what was added up in the buffers, where it was.
    pub fn finish_weights(&self, dw: &mut [T], buffers: &BackwardBuffers<T>) {
        if let (BackwardWay::Winograd(winograd), BackwardBuffers::Winograd(buffers)) = (&self.way, buffers) {
            winograd.finish_weights(dw, buffers);
        }
    }
}
