//! Compiles a loop for the vector units this processor has, and picks one at run time.
//!
//! A plain build targets the oldest x86-64, whose vectors hold 4 floats. [`kernel!`] compiles the
//! same safe Rust body three times (baseline, AVX2, AVX-512) and calls the widest one there is.
//! Bodies are written so that the compiler can vectorize them: no calls into the C library, and
//! sums kept in [`LANES`] independent parts.

/// Independent partial sums in a reduction: two of the widest vectors.
pub(super) const LANES: usize = 32;

/// Instruction sets a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only x86-64 chooses at run time"))]
pub(super) enum VectorUnit {
    /// What the build targets.
    Baseline,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, VL, DQ, BW.
    Avx512,
}

/// The widest unit of this processor.
#[inline]
pub(super) fn vector_unit() -> VectorUnit {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("fma")
        {
            return VectorUnit::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return VectorUnit::Avx2;
        }
    }
    VectorUnit::Baseline
}

/// `kernel! { fn name<T>(argument: Type, ...) -> Output { body } }`: a function, over [`Real`](super::real::Real) `T`
/// where it names one, that runs on the widest vector unit. Helpers it calls must be `#[inline(always)]`. `kernel! { for Kind: fn … }` counts
/// its time as that of an operation of this [`Kind`](super::profile::Kind).
macro_rules! kernel {
    (for $kind:ident: $($function:tt)*) => { $crate::simd::kernel! { [$kind] $($function)* } };
    ([$($kind:ident)?] $(#[$meta:meta])* $vis:vis fn $name:ident $(<$t:ident>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code, reason = "calls a version compiled for vector units that were detected")]
        #[allow(clippy::too_many_arguments, reason = "a kernel takes plain slices")]
        $vis fn $name$(<$t: $crate::real::Real>)?($($arg: $ty),*) $(-> $out)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "a kernel takes plain slices")]
            fn body$(<$t: $crate::real::Real>)?($($arg: $ty),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "a kernel takes plain slices")]
            fn avx512$(<$t: $crate::real::Real>)?($($arg: $ty),*) $(-> $out)? {
                body$(::<$t>)?($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "a kernel takes plain slices")]
            fn avx2$(<$t: $crate::real::Real>)?($($arg: $ty),*) $(-> $out)? {
                body$(::<$t>)?($($arg),*)
            }

            $(let _timing = $crate::profile::time($crate::profile::Kind::$kind);)?
            match $crate::simd::vector_unit() {
                // SAFETY: `vector_unit` found every feature that `avx512` is compiled with.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::VectorUnit::Avx512 => unsafe { avx512$(::<$t>)?($($arg),*) },
                // SAFETY: `vector_unit` found every feature that `avx2` is compiled with.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::VectorUnit::Avx2 => unsafe { avx2$(::<$t>)?($($arg),*) },
                #[cfg(not(target_arch = "x86_64"))]
                $crate::simd::VectorUnit::Avx512 | $crate::simd::VectorUnit::Avx2 => {
                    body$(::<$t>)?($($arg),*)
                }
                $crate::simd::VectorUnit::Baseline => body$(::<$t>)?($($arg),*),
            }
        }
    };
    ($($function:tt)*) => { $crate::simd::kernel! { [] $($function)* } };
}

pub(super) use kernel;
