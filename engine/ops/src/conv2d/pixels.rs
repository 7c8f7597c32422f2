//! Images as dense planes (channels, height, width), and as pixels with their channels side by side: NCHW and NHWC.

use super::pass::Merge;
use super::winograd_tiles::LANE;
use crate::real::Real;
use crate::simd::kernel;

/// Where an image's pixels lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pixels {
    /// Channels, height, width.
    pub size: (usize, usize, usize),
    /// From a row of pixels to the next.
    pub row: usize,
    /// From a pixel to the next, a multiple of [`LANE`].
    pub pitch: usize,
}

/// Planes to pixels. Channels that fill up the last vector of a pixel may become zero.
pub(super) fn pixels_from_planes<T: Real>(planes: &[T], at: Pixels, pixels: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if let (Some(planes), Some(pixels)) = (T::as_f32(planes), T::as_f32_mut(pixels))
        && avx512::is_available()
    {
        return avx512::pixels_from_planes(planes, at, pixels);
    }
    one_by_one(planes, at, pixels);
}

/// Pixels to planes, over what is there or onto it.
pub(super) fn planes_from_pixels<T: Real>(pixels: &[T], at: Pixels, planes: &mut [T], merge: Merge) {
    #[cfg(target_arch = "x86_64")]
    if let (Some(pixels), Some(planes)) = (T::as_f32(pixels), T::as_f32_mut(planes))
        && avx512::is_available()
    {
        return avx512::planes_from_pixels(pixels, at, planes, merge);
    }
    back_one_by_one(pixels, at, planes, merge);
}

kernel! {
    fn one_by_one<T>(planes: &[T], at: Pixels, pixels: &mut [T]) {
        let Pixels { size: (channels, height, width), row, pitch } = at;
        for first in (0..channels).step_by(LANE) {
            let last = (first + LANE).min(channels);
            for y in 0..height {
                for channel in first..last {
                    let from = &planes[(channel * height + y) * width..][..width];
                    let to = &mut pixels[y * row + channel..];
                    for (x, &from) in from.iter().enumerate() {
                        to[x * pitch] = from;
                    }
                }
            }
        }
    }
}

kernel! {
    fn back_one_by_one<T>(pixels: &[T], at: Pixels, planes: &mut [T], merge: Merge) {
        let Pixels { size: (channels, height, width), row, pitch } = at;
        for first in (0..channels).step_by(LANE) {
            let last = (first + LANE).min(channels);
            for y in 0..height {
                for channel in first..last {
                    let to = &mut planes[(channel * height + y) * width..][..width];
                    let from = &pixels[y * row + channel..];
                    match merge {
                        Merge::Replace => to.iter_mut().enumerate().for_each(|(x, to)| *to = from[x * pitch]),
                        Merge::Add => to.iter_mut().enumerate().for_each(|(x, to)| *to += from[x * pitch]),
                    }
                }
            }
        }
    }
}

/// Sixteen channels of sixteen pixels at a time, turned in registers.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    #![allow(unsafe_code, reason = "vector instructions on slices whose bounds are asserted before")]

    use std::arch::x86_64::*;

    use super::{LANE, Merge, Pixels};
    use crate::simd::{VectorUnit, vector_unit};
    use crate::transpose::{mask, transposed};

    pub(super) fn is_available() -> bool {
        vector_unit() == VectorUnit::Avx512
    }

    pub(super) fn pixels_from_planes(planes: &[f32], at: Pixels, pixels: &mut [f32]) {
        assert!(at.fits(planes.len(), pixels.len()) && is_available());
        // SAFETY: AVX-512 is there, and the image lies in both slices.
        unsafe { turn(planes, at, pixels) }
    }

    pub(super) fn planes_from_pixels(pixels: &[f32], at: Pixels, planes: &mut [f32], merge: Merge) {
        assert!(at.fits(planes.len(), pixels.len()) && is_available());
        // SAFETY: AVX-512 is there, and the image lies in both slices.
        unsafe { turn_back(pixels, at, planes, merge) }
    }

    impl Pixels {
        /// Whether an image lies in slices of so many numbers.
        fn fits(&self, planes: usize, pixels: usize) -> bool {
            let (channels, height, width) = self.size;
            let last = (height - 1) * self.row + (width - 1) * self.pitch;
            channels * height * width <= planes && last + channels.next_multiple_of(LANE) <= pixels
        }

        /// Where sixteen pixels from this one on lie, as many as there are.
        fn next(&self, first: usize) -> ([usize; LANE], usize) {
            let (_, height, width) = self.size;
            let (mut y, mut x) = (first / width, first % width);
            let starts = std::array::from_fn(|_| {
                let start = y * self.row + x * self.pitch;
                (y, x) = if x + 1 == width { (y + 1, 0) } else { (y, x + 1) };
                start
            });
            (starts, (height * width - first).min(LANE))
        }
    }

    /// Safety: the image lies in both slices.
    #[target_feature(enable = "avx512f")]
    unsafe fn turn(planes: &[f32], at: Pixels, pixels: &mut [f32]) {
        let (channels, height, width) = at.size;
        let plane = height * width;
        for first in (0..plane).step_by(LANE) {
            let (starts, count) = at.next(first);
            for channel in (0..channels).step_by(LANE) {
                let numbers = |index: usize| {
                    let lanes = if channel + index < channels { mask(count) } else { 0 };
                    let from = planes.as_ptr().wrapping_add((channel + index) * plane + first);
                    // SAFETY: lanes beyond the plane and planes beyond the last are masked out, and not touched.
                    _mm512_castps_si512(unsafe { _mm512_maskz_loadu_ps(lanes, from) })
                };
                let turned = transposed(std::array::from_fn(numbers));
                for (numbers, start) in turned.into_iter().zip(starts).take(count) {
                    // SAFETY: a pixel has room for a vector from each sixteenth channel on.
                    unsafe {
                        _mm512_storeu_ps(pixels.as_mut_ptr().add(start + channel), _mm512_castsi512_ps(numbers));
                    }
                }
            }
        }
    }

    /// Safety: the image lies in both slices.
    #[target_feature(enable = "avx512f")]
    unsafe fn turn_back(pixels: &[f32], at: Pixels, planes: &mut [f32], merge: Merge) {
        let (channels, height, width) = at.size;
        let plane = height * width;
        for first in (0..plane).step_by(LANE) {
            let (starts, count) = at.next(first);
            for channel in (0..channels).step_by(LANE) {
                let numbers = |index: usize| {
                    let lanes = if index < count { u16::MAX } else { 0 };
                    let from = pixels.as_ptr().wrapping_add(starts[index] + channel);
                    // SAFETY: pixels beyond the last are masked out, and not touched.
                    _mm512_castps_si512(unsafe { _mm512_maskz_loadu_ps(lanes, from) })
                };
                let turned = transposed(std::array::from_fn(numbers));
                for (numbers, channel) in turned.into_iter().zip(channel..channels) {
                    let to = planes.as_mut_ptr().wrapping_add(channel * plane + first);
                    // SAFETY: lanes beyond the plane are masked out, and not touched.
                    unsafe {
                        let mut sum = _mm512_castsi512_ps(numbers);
                        if merge == Merge::Add {
                            sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask(count), to), sum);
                        }
                        _mm512_mask_storeu_ps(to, mask(count), sum);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sides and channels that fill no vector, and such that do.
    #[test]
    fn planes_become_pixels_and_come_back() {
        for (size, spare) in [((1, 1, 1), 0), ((16, 4, 4), 0), ((37, 5, 7), 9), ((64, 8, 8), 64), ((20, 1, 33), 3)] {
            let (channels, height, width): (usize, usize, usize) = size;
            let pitch = channels.next_multiple_of(LANE);
            let at = Pixels { size, row: width * pitch + spare, pitch };
            let planes: Vec<f32> = (0..channels * height * width).map(|i| (i % 251) as f32 - 90.0).collect();
            let mut pixels = vec![7.5; height * at.row];
            pixels_from_planes(&planes, at, &mut pixels);
            for (index, pixel) in planes.iter().enumerate() {
                let (channel, y, x) = (index / (height * width), index / width % height, index % width);
                assert_eq!(pixels[y * at.row + x * pitch + channel].to_bits(), pixel.to_bits(), "{size:?} {index}");
            }
            // Nothing else is written but zeros that fill up a pixel's last vector.
            for (index, number) in pixels.iter().enumerate() {
                let (x, channel) = (index % at.row / pitch, index % at.row % pitch);
                let is_filled_up = x < width && channel >= channels;
                let is_beside = x >= width && *number == 7.5;
                assert!(
                    (x < width && channel < channels)
                        || is_beside
                        || (is_filled_up && (*number == 7.5 || *number == 0.0))
                );
            }
            for merge in [Merge::Replace, Merge::Add] {
                let [mut back, mut expected] = [(); 2].map(|()| vec![2.0; planes.len()]);
                planes_from_pixels(&pixels, at, &mut back, merge);
                back_one_by_one(&pixels, at, &mut expected, merge);
                assert_eq!(back, expected, "{size:?} {merge:?}");
                assert_eq!(back == planes, merge == Merge::Replace);
            }
        }
    }
}
