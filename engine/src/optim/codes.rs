//! Numbers of 8 bits for the moments of optimizers: a magnitude of seven decades, relative to the largest of its 2048.
//!
//! Source: Dettmers et al. 2021, arXiv 2110.02861: block-wise quantization (section 2.1) with the dynamic tree type
//! (section 1.3, and without a sign for the second moment, section 2.2). A decade 10^-k is cut into 2^(6-k) equal parts for
//! signed numbers and twice as many for unsigned ones; a code stands for the middle of a part; 0 and 1 are exact.
//! One change: a second moment above 0 never becomes 0, because it is divided by
//! (the zero-point problem of Li et al. 2023, arXiv 2309.01507, section 4.1).

use std::sync::LazyLock;

use rayon::prelude::*;

/// Numbers that share a scale.
pub(crate) const GROUP: usize = 2048;

/// Decades of a magnitude: 10^-7 to 1.
const DECADES: i32 = 7;

/// Numbers of this type, in ± 1 or in 0 to 1.
#[derive(Debug)]
pub(crate) struct Codes {
    /// Value of each code.
    values: [f32; 256],
    /// A magnitude above this belongs to the next larger code.
    bounds: [f32; 256],
    /// Code of the least magnitude with these upper 16 bits, up to those of 1.
    first: Vec<u8>,
    is_signed: bool,
}

/// For the first moment.
pub(crate) static SIGNED: LazyLock<Codes> = LazyLock::new(|| Codes::new(true));
/// For the second moment.
pub(crate) static UNSIGNED: LazyLock<Codes> = LazyLock::new(|| Codes::new(false));

impl Codes {
    fn new(is_signed: bool) -> Self {
        // Magnitudes: 0, the parts of all decades, 1. There are 129 for signed numbers, 256 for unsigned ones.
        let mut magnitudes = vec![0.0_f64];
        for decade in 0..DECADES {
            let num_parts = 1_u32 << (decade + i32::from(!is_signed));
            let top = 10_f64.powi(decade - DECADES + 1);
            let part = |i: u32| top * (0.1 + 0.9 * (f64::from(i) + 0.5) / f64::from(num_parts));
            magnitudes.extend((0..num_parts).map(part));
        }
        magnitudes.push(1.0);
        let mut values = [0.0; 256];
        let mut bounds = [f32::INFINITY; 256];
        for (code, &magnitude) in magnitudes.iter().enumerate() {
            values[code] = magnitude as f32;
            if let Some(next) = magnitudes.get(code + 1) {
                bounds[code] = ((magnitude + next) / 2.0) as f32;
            }
            // Negative numbers have no 0 and no 1: their codes follow those of the positive ones.
            if is_signed && code > 0 && code + 1 < magnitudes.len() {
                values[128 + code] = -magnitude as f32;
            }
        }
        let last = (1.0_f32.to_bits() >> 16) as usize;
        let least = |cell: usize| f32::from_bits((cell as u32) << 16);
        let first =
            (0..=last).map(|cell| bounds.iter().take_while(|&&bound| least(cell) > bound).count() as u8).collect();
        Self { values, bounds, first, is_signed }
    }

    /// The number of `code`.
    #[inline]
    fn decode(&self, code: u8) -> f32 {
        self.values[code as usize]
    }

    /// The code nearest to `x`, which is in ± 1, or in 0 to 1 without a sign; a second moment above 0 gets one above 0.
    #[inline]
    fn encode(&self, x: f32) -> u8 {
        let magnitude = x.abs().min(1.0);
        let cell = (magnitude.to_bits() >> 16) as usize;
        // No two bounds lie in one cell: a cell is at most 1/256 wide, a part at least 0.9/128.
        let code = self.first.get(cell).copied().unwrap_or(0);
        let code = code + u8::from(magnitude > self.bounds[code as usize]);
        if self.is_signed {
            if x < 0.0 && code > 0 { 128 + code.min(127) } else { code }
        } else if code == 0 && magnitude > 0.0 {
            1
        } else {
            code
        }
    }

    /// Writes the numbers of up to [`GROUP`] codes.
    pub(crate) fn read(&self, codes: &[u8], scale: f32, out: &mut [f32]) {
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = self.decode(code) * scale;
        }
    }

    /// Writes the codes of up to [`GROUP`] numbers and returns their scale, the largest magnitude; NaN where a number is not
    /// finite, so that all of them read as NaN.
    pub(crate) fn write(&self, numbers: &[f32], codes: &mut [u8]) -> f32 {
        // Magnitudes are in the order of their bits, infinity and NaN above all others.
        let scale = f32::from_bits(numbers.iter().fold(0, |largest, x| largest.max(x.abs().to_bits())));
        if !scale.is_finite() {
            codes.fill(0);
            return f32::NAN;
        }
        // The inverse of the least numbers is infinite; they are 0 for every purpose.
        let inverse = 1.0 / scale;
        if !inverse.is_finite() {
            codes.fill(0);
            return 0.0;
        }
        for (code, &x) in codes.iter_mut().zip(numbers) {
            *code = self.encode(x * inverse);
        }
        scale
    }
}

/// Up to [`GROUP`] codes and their scale.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) codes: &'a mut [u8],
    pub(crate) scale: &'a mut f32,
}

/// A state buffer of codes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Coded {
    pub(super) codes: Vec<u8>,
    /// One for each [`GROUP`] of them.
    pub(super) scales: Vec<f32>,
}

/// Codes and scales group by group.
pub(crate) fn groups<'a>(codes: &'a mut [u8], scales: &'a mut [f32]) -> impl IndexedParallelIterator<Item = Group<'a>> {
    codes.par_chunks_mut(GROUP).zip(scales.par_iter_mut()).map(|(codes, scale)| Group { codes, scale })
}

impl Coded {
    pub(super) fn zeros(count: usize) -> Self {
        Self { codes: vec![0; count], scales: vec![0.0; count.div_ceil(GROUP)] }
    }

    pub(super) fn groups(&mut self) -> impl IndexedParallelIterator<Item = Group<'_>> {
        groups(&mut self.codes, &mut self.scales)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance of the code chosen for `x` and that of the best code.
    fn distances(codes: &Codes, x: f32) -> (f32, f32) {
        let found = (codes.decode(codes.encode(x)) - x).abs();
        let best = codes.values.iter().map(|value| (value - x).abs()).fold(f32::INFINITY, f32::min);
        (found, best)
    }

    #[test]
    fn the_nearest_code_is_chosen() {
        for i in 0..200_001 {
            let x = ((i as f32 / 200_000.0) * 18.0 - 18.0).exp();
            for (codes, x) in [(&*SIGNED, x), (&*SIGNED, -x), (&*UNSIGNED, x)] {
                let (found, best) = distances(codes, x);
                let is_lifted = !codes.is_signed && x < codes.values[1];
                assert!(is_lifted || found <= best * 1.000_01 + 1e-12, "{x}: {found}, could be {best}");
            }
        }
    }

    #[test]
    fn the_tables_are_the_papers() {
        let mut signed = SIGNED.values.to_vec();
        signed.sort_by(f32::total_cmp);
        signed.dedup();
        assert_eq!(signed.len(), 256, "all codes differ");
        // The top decade of signed numbers: 64 parts of 0.9/64.
        assert!((SIGNED.decode(127) - (1.0 - 0.9 / 128.0)).abs() < 1e-6);
        assert_eq!((SIGNED.decode(128), SIGNED.decode(0), UNSIGNED.decode(255)), (1.0, 0.0, 1.0));
        assert!((SIGNED.decode(1) - 0.55e-6).abs() < 1e-12 && (UNSIGNED.decode(1) - 0.325e-6).abs() < 1e-12);
    }

    #[test]
    fn a_group_keeps_its_largest_number_and_its_zeros() {
        let numbers = [0.0, -3e-4, 2e-4, 1e-9, 3e-4];
        let mut codes = [9; 5];
        let scale = SIGNED.write(&numbers, &mut codes);
        let mut back = [0.0; 5];
        SIGNED.read(&codes, scale, &mut back);
        assert_eq!((scale, back[0], back[4]), (3e-4, 0.0, 3e-4));
        assert!((back[1] + 3e-4).abs() < 3e-6 && (back[2] - 2e-4).abs() < 3e-6);
        assert_eq!(SIGNED.write(&[0.0; 5], &mut codes), 0.0);
        assert_eq!(codes, [0; 5]);
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut codes = [9; 3];
            let scale = SIGNED.write(&[1.0, bad, 2.0], &mut codes);
            let mut back = [0.0; 3];
            SIGNED.read(&codes, scale, &mut back);
            assert!(back.iter().all(|x| x.is_nan()), "{back:?}");
        }
    }

    #[test]
    fn a_second_moment_never_vanishes() {
        let mut codes = [0; 2];
        let scale = UNSIGNED.write(&[1.0, 1e-20], &mut codes);
        let mut back = [0.0; 2];
        UNSIGNED.read(&codes, scale, &mut back);
        assert!(back[1] > 0.0, "{back:?}");
    }
}
