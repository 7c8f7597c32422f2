//! Minimal filtering with three taps along one side of a tile, F(2, 3) and F(4, 3): what the transforms of Winograd's domain
//! do to each column and then to each row.
//!
//! F(4, 3) multiplies 36 numbers for 16 outputs of a plane, F(2, 3) 64, the convolution itself 144. Its transforms weigh
//! numbers by up to 8, so that f32 loses about one more bit; how much is tested.
//! Source: Lavin and Gray 2015, arXiv 1509.09308, section 4.1, 4.3.
#![allow(unsafe_code, reason = "vector instructions; every function runs where the processor has them")]

use crate::lanes::Lanes;

/// Most numbers along a side of a tile.
pub(super) const MAX_SIDE: usize = 6;
/// Most outputs along a side.
pub(super) const MAX_OUTPUTS: usize = 4;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filtering {
    /// F(2, 3).
    Two,
    /// F(4, 3).
    Four,
}

impl Filtering {
    /// Outputs along a side of a tile.
    pub fn outputs(self) -> usize {
        match self {
            Self::Two => Two::OUTPUTS,
            Self::Four => Four::OUTPUTS,
        }
    }

    /// Positions of a transformed tile.
    pub fn positions(self) -> usize {
        (self.outputs() + 2).pow(2)
    }
}

/// The matrices Bᵀ, Aᵀ and G and their adjoints. Vectors are as long as the larger filtering's; what is beyond
/// [`Self::OUTPUTS`] and [`Self::SIDE`] is neither read nor of meaning.
///
/// Safety of all: the processor has `L`.
pub(super) trait Steps {
    /// Outputs along a side of a tile.
    const OUTPUTS: usize;
    /// Inputs along a side, and products.
    const SIDE: usize = Self::OUTPUTS + 2;

    /// Inputs to factors, Bᵀ x.
    unsafe fn bt<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; MAX_SIDE];
    /// B x.
    unsafe fn b<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; MAX_SIDE];
    /// Products to outputs, Aᵀ x.
    unsafe fn at<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; MAX_OUTPUTS];
    /// A x.
    unsafe fn a<L: Lanes>(x: [L::Vector; MAX_OUTPUTS]) -> [L::Vector; MAX_SIDE];
    /// Taps to factors, G x.
    unsafe fn g<L: Lanes>(x: [L::Vector; 3]) -> [L::Vector; MAX_SIDE];
    /// Gᵀ x.
    unsafe fn gt<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; 3];
}

/// a + b. Safety: the processor has `L`.
#[inline(always)]
pub(super) unsafe fn add<L: Lanes>(a: L::Vector, b: L::Vector) -> L::Vector {
    // SAFETY: the caller's promise.
    unsafe { plus_times::<L>(b, 1.0, a) }
}

/// a − b. Safety: the processor has `L`.
#[inline(always)]
unsafe fn subtract<L: Lanes>(a: L::Vector, b: L::Vector) -> L::Vector {
    // SAFETY: the caller's promise.
    unsafe { plus_times::<L>(a, -1.0, b) }
}

/// a + factor · b. Safety: the processor has `L`.
#[inline(always)]
unsafe fn plus_times<L: Lanes>(a: L::Vector, factor: f64, b: L::Vector) -> L::Vector {
    // SAFETY: the caller's promise.
    unsafe { L::multiply_add(b, L::splat(<L::Real as candle_core::WithDType>::from_f64(factor)), a) }
}

/// factor · a. Safety: the processor has `L`.
#[inline(always)]
unsafe fn times<L: Lanes>(factor: f64, a: L::Vector) -> L::Vector {
    // SAFETY: the caller's promise.
    unsafe { plus_times::<L>(L::zero(), factor, a) }
}

/// F(2, 3).
pub(super) struct Two;

impl Steps for Two {
    const OUTPUTS: usize = 2;

    #[inline(always)]
    unsafe fn bt<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; MAX_SIDE] {
        // SAFETY: the caller's promise.
        unsafe {
            let [sum, difference] = [add::<L>(x[1], x[2]), subtract::<L>(x[2], x[1])];
            [subtract::<L>(x[0], x[2]), sum, difference, subtract::<L>(x[1], x[3]), L::zero(), L::zero()]
        }
    }

    #[inline(always)]
    unsafe fn b<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; MAX_SIDE] {
        // SAFETY: the caller's promise.
        unsafe {
            let [sum, difference] = [add::<L>(x[1], x[2]), subtract::<L>(x[1], x[2])];
            let inner = [add::<L>(difference, x[3]), subtract::<L>(sum, x[0])];
            [x[0], inner[0], inner[1], times::<L>(-1.0, x[3]), L::zero(), L::zero()]
        }
    }

    #[inline(always)]
    unsafe fn at<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; MAX_OUTPUTS] {
        // SAFETY: the caller's promise.
        unsafe {
            let [sum, difference] = [add::<L>(x[1], x[2]), subtract::<L>(x[1], x[2])];
            [add::<L>(x[0], sum), subtract::<L>(difference, x[3]), L::zero(), L::zero()]
        }
    }

    #[inline(always)]
    unsafe fn a<L: Lanes>(x: [L::Vector; MAX_OUTPUTS]) -> [L::Vector; MAX_SIDE] {
        // SAFETY: the caller's promise.
        unsafe {
            let inner = [add::<L>(x[0], x[1]), subtract::<L>(x[0], x[1])];
            [x[0], inner[0], inner[1], times::<L>(-1.0, x[1]), L::zero(), L::zero()]
        }
    }

    #[inline(always)]
    unsafe fn g<L: Lanes>(x: [L::Vector; 3]) -> [L::Vector; MAX_SIDE] {
        // SAFETY: the caller's promise.
        unsafe {
            let outer = times::<L>(0.5, add::<L>(x[0], x[2]));
            let inner = [plus_times::<L>(outer, 0.5, x[1]), plus_times::<L>(outer, -0.5, x[1])];
            [x[0], inner[0], inner[1], x[2], L::zero(), L::zero()]
        }
    }

    #[inline(always)]
    unsafe fn gt<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; 3] {
        // SAFETY: the caller's promise.
        unsafe {
            let half = times::<L>(0.5, add::<L>(x[1], x[2]));
            [add::<L>(x[0], half), times::<L>(0.5, subtract::<L>(x[1], x[2])), add::<L>(half, x[3])]
        }
    }
}

/// F(4, 3).
pub(super) struct Four;

impl Steps for Four {
    const OUTPUTS: usize = 4;

    #[inline(always)]
    unsafe fn bt<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; MAX_SIDE] {
        // SAFETY: the caller's promise.
        unsafe {
            let [sum, difference] = [plus_times::<L>(x[4], -4.0, x[2]), plus_times::<L>(x[3], -4.0, x[1])];
            let [far, wide] = [subtract::<L>(x[4], x[2]), subtract::<L>(x[3], x[1])];
            [
                plus_times::<L>(plus_times::<L>(x[4], -5.0, x[2]), 4.0, x[0]),
                add::<L>(sum, difference),
                subtract::<L>(sum, difference),
                plus_times::<L>(far, 2.0, wide),
                plus_times::<L>(far, -2.0, wide),
                plus_times::<L>(plus_times::<L>(x[5], -5.0, x[3]), 4.0, x[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn b<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; MAX_SIDE] {
        // SAFETY: the caller's promise.
        unsafe {
            let [near, near_difference] = [add::<L>(x[1], x[2]), subtract::<L>(x[1], x[2])];
            let [far, far_difference] = [add::<L>(x[3], x[4]), subtract::<L>(x[3], x[4])];
            let odd = plus_times::<L>(near_difference, 2.0, far_difference);
            let outer = times::<L>(-4.0, near_difference);
            [
                times::<L>(4.0, x[0]),
                plus_times::<L>(plus_times::<L>(outer, -2.0, far_difference), 4.0, x[5]),
                plus_times::<L>(plus_times::<L>(times::<L>(-1.0, far), -4.0, near), -5.0, x[0]),
                plus_times::<L>(odd, -5.0, x[5]),
                add::<L>(x[0], add::<L>(near, far)),
                x[5],
            ]
        }
    }

    #[inline(always)]
    unsafe fn at<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; MAX_OUTPUTS] {
        // SAFETY: the caller's promise.
        unsafe {
            let [near, near_difference] = [add::<L>(x[1], x[2]), subtract::<L>(x[1], x[2])];
            let [far, far_difference] = [add::<L>(x[3], x[4]), subtract::<L>(x[3], x[4])];
            [
                add::<L>(x[0], add::<L>(near, far)),
                plus_times::<L>(near_difference, 2.0, far_difference),
                plus_times::<L>(near, 4.0, far),
                plus_times::<L>(add::<L>(near_difference, x[5]), 8.0, far_difference),
            ]
        }
    }

    #[inline(always)]
    unsafe fn a<L: Lanes>(x: [L::Vector; MAX_OUTPUTS]) -> [L::Vector; MAX_SIDE] {
        // SAFETY: the caller's promise.
        unsafe {
            let [even, odd] = [add::<L>(x[0], x[2]), add::<L>(x[1], x[3])];
            let [far_even, far_odd] =
                [plus_times::<L>(x[0], 4.0, x[2]), plus_times::<L>(times::<L>(2.0, x[1]), 8.0, x[3])];
            [
                x[0],
                add::<L>(even, odd),
                subtract::<L>(even, odd),
                add::<L>(far_even, far_odd),
                subtract::<L>(far_even, far_odd),
                x[3],
            ]
        }
    }

    #[inline(always)]
    unsafe fn g<L: Lanes>(x: [L::Vector; 3]) -> [L::Vector; MAX_SIDE] {
        // SAFETY: the caller's promise.
        unsafe {
            let near = times::<L>(-1.0 / 6.0, add::<L>(x[0], x[2]));
            let far = plus_times::<L>(times::<L>(1.0 / 24.0, x[0]), 1.0 / 6.0, x[2]);
            [
                times::<L>(0.25, x[0]),
                plus_times::<L>(near, -1.0 / 6.0, x[1]),
                plus_times::<L>(near, 1.0 / 6.0, x[1]),
                plus_times::<L>(far, 1.0 / 12.0, x[1]),
                plus_times::<L>(far, -1.0 / 12.0, x[1]),
                x[2],
            ]
        }
    }

    #[inline(always)]
    unsafe fn gt<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; 3] {
        // SAFETY: the caller's promise.
        unsafe {
            let near = times::<L>(-1.0 / 6.0, add::<L>(x[1], x[2]));
            let far = add::<L>(x[3], x[4]);
            let odd = times::<L>(1.0 / 6.0, subtract::<L>(x[2], x[1]));
            [
                plus_times::<L>(plus_times::<L>(near, 1.0 / 24.0, far), 0.25, x[0]),
                plus_times::<L>(odd, 1.0 / 12.0, subtract::<L>(x[3], x[4])),
                plus_times::<L>(add::<L>(near, x[5]), 1.0 / 6.0, far),
            ]
        }
    }
}
