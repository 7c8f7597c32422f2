//! Minimal filtering with three taps along one side of a tile, F(2, 3) and F(4, 3): what the transforms of Winograd's domain
//! do to each column and then to each row.
//!
//! F(4, 3) multiplies 36 numbers for 16 outputs of a plane, F(2, 3) 64, the convolution itself 144. Its transforms weigh
//! numbers, so that f32 loses some bits, which a test bounds: with points that are reciprocal half as much as with the usual
//! 0, ±1, ±2.
//! Source: Lavin and Gray 2015, arXiv 1509.09308, sections 4.1, 4.3; Alam et al. 2022, ACM TECS 21(6), 10.1145/3524069 (points).
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
    F2,
    /// F(4, 3).
    F4,
}

impl Filtering {
    /// Outputs along a side of a tile.
    pub fn outputs(self) -> usize {
        match self {
            Self::F2 => F2::OUTPUTS,
            Self::F4 => F4::OUTPUTS,
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
pub(super) struct F2;

impl Steps for F2 {
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

/// F(4, 3), by way of the points 0, ±[`NEAR`], ±[`FAR`] and ∞.
pub(super) struct F4;

const NEAR: f64 = std::f64::consts::FRAC_1_SQRT_2;
/// Its reciprocal.
const FAR: f64 = std::f64::consts::SQRT_2;

impl Steps for F4 {
    const OUTPUTS: usize = 4;

    #[inline(always)]
    unsafe fn bt<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; MAX_SIDE] {
        // SAFETY: the caller's promise.
        unsafe {
            let (near_even, near_odd) = (plus_times::<L>(x[4], -2.0, x[2]), plus_times::<L>(x[3], -2.0, x[1]));
            let (far_even, far_odd) = (plus_times::<L>(x[4], -0.5, x[2]), plus_times::<L>(x[3], -0.5, x[1]));
            [
                plus_times::<L>(add::<L>(x[0], x[4]), -2.5, x[2]),
                plus_times::<L>(near_even, NEAR, near_odd),
                plus_times::<L>(near_even, -NEAR, near_odd),
                plus_times::<L>(far_even, FAR, far_odd),
                plus_times::<L>(far_even, -FAR, far_odd),
                plus_times::<L>(add::<L>(x[1], x[5]), -2.5, x[3]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn b<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; MAX_SIDE] {
        // SAFETY: the caller's promise.
        unsafe {
            let (near_even, near_odd) = (add::<L>(x[1], x[2]), subtract::<L>(x[1], x[2]));
            let (far_even, far_odd) = (add::<L>(x[3], x[4]), subtract::<L>(x[3], x[4]));
            let even = plus_times::<L>(times::<L>(-2.0, near_even), -0.5, far_even);
            [
                x[0],
                plus_times::<L>(plus_times::<L>(x[5], -FAR, near_odd), -NEAR, far_odd),
                plus_times::<L>(even, -2.5, x[0]),
                plus_times::<L>(plus_times::<L>(times::<L>(NEAR, near_odd), FAR, far_odd), -2.5, x[5]),
                add::<L>(x[0], add::<L>(near_even, far_even)),
                x[5],
            ]
        }
    }

    #[inline(always)]
    unsafe fn at<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; MAX_OUTPUTS] {
        // SAFETY: the caller's promise.
        unsafe {
            let (near_even, near_odd) = (add::<L>(x[1], x[2]), subtract::<L>(x[1], x[2]));
            let (far_even, far_odd) = (add::<L>(x[3], x[4]), subtract::<L>(x[3], x[4]));
            [
                add::<L>(x[0], add::<L>(near_even, far_even)),
                plus_times::<L>(times::<L>(NEAR, near_odd), FAR, far_odd),
                plus_times::<L>(times::<L>(0.5, near_even), 2.0, far_even),
                plus_times::<L>(plus_times::<L>(x[5], 0.5 * NEAR, near_odd), 2.0 * FAR, far_odd),
            ]
        }
    }

    #[inline(always)]
    unsafe fn a<L: Lanes>(x: [L::Vector; MAX_OUTPUTS]) -> [L::Vector; MAX_SIDE] {
        // SAFETY: the caller's promise.
        unsafe {
            let (near_even, near_odd) = (plus_times::<L>(x[0], 0.5, x[2]), plus_times::<L>(x[1], 0.5, x[3]));
            let (far_even, far_odd) = (plus_times::<L>(x[0], 2.0, x[2]), plus_times::<L>(x[1], 2.0, x[3]));
            [
                x[0],
                plus_times::<L>(near_even, NEAR, near_odd),
                plus_times::<L>(near_even, -NEAR, near_odd),
                plus_times::<L>(far_even, FAR, far_odd),
                plus_times::<L>(far_even, -FAR, far_odd),
                x[3],
            ]
        }
    }

    #[inline(always)]
    unsafe fn g<L: Lanes>(x: [L::Vector; 3]) -> [L::Vector; MAX_SIDE] {
        // SAFETY: the caller's promise.
        unsafe {
            let near = plus_times::<L>(times::<L>(-2.0 / 3.0, x[0]), -1.0 / 3.0, x[2]);
            let far = plus_times::<L>(times::<L>(1.0 / 6.0, x[0]), 1.0 / 3.0, x[2]);
            [
                x[0],
                plus_times::<L>(near, -2.0 / 3.0 * NEAR, x[1]),
                plus_times::<L>(near, 2.0 / 3.0 * NEAR, x[1]),
                plus_times::<L>(far, FAR / 6.0, x[1]),
                plus_times::<L>(far, -FAR / 6.0, x[1]),
                x[2],
            ]
        }
    }

    #[inline(always)]
    unsafe fn gt<L: Lanes>(x: [L::Vector; MAX_SIDE]) -> [L::Vector; 3] {
        // SAFETY: the caller's promise.
        unsafe {
            let (near_even, near_odd) = (add::<L>(x[1], x[2]), subtract::<L>(x[1], x[2]));
            let (far_even, far_odd) = (add::<L>(x[3], x[4]), subtract::<L>(x[3], x[4]));
            [
                plus_times::<L>(plus_times::<L>(x[0], -2.0 / 3.0, near_even), 1.0 / 6.0, far_even),
                plus_times::<L>(times::<L>(-2.0 / 3.0 * NEAR, near_odd), FAR / 6.0, far_odd),
                plus_times::<L>(x[5], 1.0 / 3.0, subtract::<L>(far_even, near_even)),
            ]
        }
    }
}
