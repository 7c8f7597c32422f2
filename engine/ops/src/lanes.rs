//! Vectors of the processor that runs, chosen when the program runs: AVX-512, AVX2 with FMA, or plain arrays that the
//! compiler maps to what every processor of the target has (SSE2, NEON).
#![allow(unsafe_code, reason = "vector instructions and raw loads; each kernel states the bounds it relies on")]

use super::real::Real;
use super::simd::{VectorUnit, vector_unit};

/// A number type with kernels on explicit vectors.
pub(super) trait Vectors: Real {
    /// Runs `kernel` with the widest vectors of this processor.
    fn dispatch<K: Kernel<Self>>(kernel: K) -> K::Output;
}

/// Code that is compiled once per kind of vector.
pub(super) trait Kernel<T> {
    /// What it returns.
    type Output;
    /// Must be `#[inline(always)]`, and so must what it calls: only then does it use the vectors of its caller.
    fn run<L: Lanes<Real = T>>(self) -> Self::Output;
}

/// A kind of vector. Its functions may run only where the processor has it, which [`Vectors::dispatch`] sees to.
pub(super) trait Lanes: Copy {
    /// Number type.
    type Real: Real;
    /// The vector.
    type Vector: Copy;
    /// Numbers in a vector.
    const WIDTH: usize;
    /// Vector registers.
    const NUM_REGISTERS: usize;

    /// Reads `WIDTH` numbers, unaligned.
    unsafe fn load(from: *const Self::Real) -> Self::Vector;
    /// Writes `WIDTH` numbers, unaligned.
    unsafe fn store(to: *mut Self::Real, vector: Self::Vector);
    /// The same number in each lane.
    unsafe fn splat(value: Self::Real) -> Self::Vector;
    /// Zero in each lane.
    #[inline(always)]
    unsafe fn zero() -> Self::Vector {
        // SAFETY: the caller's promise that the processor has this kind.
        unsafe { Self::splat(<Self::Real as candle_core::WithDType>::from_f64(0.0)) }
    }
    /// a·b + c
    unsafe fn multiply_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// Sum of the lanes, in one fixed order.
    unsafe fn sum(vector: Self::Vector) -> Self::Real;
}

/// Arrays of `N` numbers.
#[derive(Clone, Copy)]
pub(super) struct Portable<T, const N: usize>(std::marker::PhantomData<T>);

impl<T: Real, const N: usize> Lanes for Portable<T, N> {
    type Real = T;
    type Vector = [T; N];
    const WIDTH: usize = N;
    const NUM_REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn load(from: *const T) -> [T; N] {
        // SAFETY: the caller vouches for `WIDTH` readable numbers.
        unsafe { from.cast::<[T; N]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut T, vector: [T; N]) {
        // SAFETY: the caller vouches for `WIDTH` writable numbers.
        unsafe { to.cast::<[T; N]>().write_unaligned(vector) }
    }

    #[inline(always)]
    unsafe fn splat(value: T) -> [T; N] {
        [value; N]
    }

    #[inline(always)]
    unsafe fn multiply_add(a: [T; N], b: [T; N], c: [T; N]) -> [T; N] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    unsafe fn sum(vector: [T; N]) -> T {
        vector.into_iter().fold(T::zero(), |sum, x| sum + x)
    }
}

impl Vectors for f64 {
    /// f64 serves gradient checks, so plain arrays are fast enough.
    fn dispatch<K: Kernel<Self>>(kernel: K) -> K::Output {
        kernel.run::<Portable<Self, 2>>()
    }
}

impl Vectors for f32 {
    fn dispatch<K: Kernel<Self>>(kernel: K) -> K::Output {
        match vector_unit() {
            // SAFETY: `vector_unit` found AVX-512.
            #[cfg(target_arch = "x86_64")]
            VectorUnit::Avx512 => unsafe { x86::run_avx512(kernel) },
            // SAFETY: `vector_unit` found AVX2 and FMA.
            #[cfg(target_arch = "x86_64")]
            VectorUnit::Avx2 => unsafe { x86::run_avx2(kernel) },
            #[cfg(not(target_arch = "x86_64"))]
            VectorUnit::Avx512 | VectorUnit::Avx2 => kernel.run::<Portable<Self, 4>>(),
            VectorUnit::Baseline => kernel.run::<Portable<Self, 4>>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Kernel, Lanes};

    #[target_feature(enable = "avx512f")]
    pub(super) fn run_avx512<K: Kernel<f32>>(kernel: K) -> K::Output {
        kernel.run::<Avx512>()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn run_avx2<K: Kernel<f32>>(kernel: K) -> K::Output {
        kernel.run::<Avx2>()
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx512;

    // SAFETY, for every block below: `Vectors::dispatch` chose this kind after asking the processor for AVX-512;
    // the callers of `load` and `store` vouch for `WIDTH` numbers at the pointer.
    impl Lanes for Avx512 {
        type Real = f32;
        type Vector = __m512;
        const WIDTH: usize = 16;
        const NUM_REGISTERS: usize = 32;

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, vector: __m512) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(to, vector) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn sum(vector: __m512) -> f32 {
            // SAFETY: see above.
            unsafe { _mm512_reduce_add_ps(vector) }
        }
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx2;

    // SAFETY, for every block below: `Vectors::dispatch` chose this kind after asking the processor for AVX2 and FMA;
    // the callers of `load` and `store` vouch for `WIDTH` numbers at the pointer.
    impl Lanes for Avx2 {
        type Real = f32;
        type Vector = __m256;
        const WIDTH: usize = 8;
        const NUM_REGISTERS: usize = 16;

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m256 {
            // SAFETY: see above.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, vector: __m256) {
            // SAFETY: see above.
            unsafe { _mm256_storeu_ps(to, vector) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> __m256 {
            // SAFETY: see above.
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn multiply_add(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: see above.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn sum(vector: __m256) -> f32 {
            let mut lanes = [0.0; 8];
            // SAFETY: see above; `lanes` has room for 8.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), vector) };
            let half = |i: usize| lanes[i] + lanes[i + 4];
            (half(0) + half(2)) + (half(1) + half(3))
        }
    }
}
