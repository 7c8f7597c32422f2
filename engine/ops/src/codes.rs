//! Numbers of 8 bits for the moments of optimizers: a magnitude of seven decades, relative to the largest of its 2048.
//!
//! Source: Dettmers et al. 2021, arXiv 2110.02861: block-wise quantization (section 2.1) with the dynamic tree type
//! (section 1.3, and without a sign for the second moment, section 2.2). A decade 10^-k is cut into 2^(6-k) equal parts for
//! signed numbers and twice as many for unsigned ones; a code stands for the middle of a part; 0 and 1 are exact.
//! One change: a second moment above 0 never becomes 0, because it is divided by
//! (the zero-point problem of Li et al. 2023, arXiv 2309.01507, section 4.1).

use std::sync::LazyLock;

use super::simd::kernel;

/// Numbers that share a scale.
pub const GROUP: usize = 2048;

/// 2^23: from here on f32 has no fractions.
const FLOAT_OF_INTEGERS: f32 = 8_388_608.0;

/// Decades of a magnitude: 10^-7 to 1.
const DECADES: usize = 7;

/// Numbers of this type, in ± 1 or in 0 to 1.
#[derive(Debug)]
pub struct Codes {
    /// Value of each code.
    values: [f32; 256],
    steps: Steps,
}

/// Where codes begin: one number of each kind for each decade, so that a code is found by comparing and counting, many
/// numbers at a time.
#[derive(Debug, Clone, Copy)]
struct Steps {
    /// A magnitude of at least this lies in the decade, or beyond it.
    starts: [f32; DECADES],
    /// Least magnitude of its first part.
    lows: [f32; DECADES],
    /// Parts in a unit.
    densities: [f32; DECADES],
    /// Its last part.
    lasts: [i32; DECADES],
    /// Code of its first part.
    codes: [i32; DECADES],
    /// A magnitude of at most this is 0; without a sign, only 0 is.
    zero: f32,
    /// A magnitude above this is 1, whose code this is.
    one: (f32, i32),
    is_signed: bool,
}

/// For the first moment.
pub static SIGNED: LazyLock<Codes> = LazyLock::new(|| Codes::new(true));
/// For the second moment.
pub static UNSIGNED: LazyLock<Codes> = LazyLock::new(|| Codes::new(false));

impl Codes {
    fn new(is_signed: bool) -> Self {
        let steps = Steps::new(is_signed);
        let mut values = [0.0; 256];
        for decade in 0..DECADES {
            for part in 0..=steps.lasts[decade] {
                let magnitude = (f64::from(part) + 0.5) * part_of(decade, is_signed) + 0.1 * top(decade);
                let code = (steps.codes[decade] + part) as usize;
                values[code] = magnitude as f32;
                // Negative numbers have no 0 and no 1: their codes follow those of the positive ones.
                if is_signed {
                    values[128 + code] = -magnitude as f32;
                }
            }
        }
        values[steps.one.1 as usize] = 1.0;
        Self { values, steps }
    }

    /// Writes the numbers of up to [`GROUP`] codes.
    pub fn read(&self, codes: &[u8], scale: f32, out: &mut [f32]) {
        decode(codes, scale, &self.values, out);
    }

    /// Writes the codes of up to [`GROUP`] numbers and returns their scale, the largest magnitude; NaN where a number is not
    /// finite, so that all of them read as NaN.
    pub fn write(&self, numbers: &[f32], codes: &mut [u8]) -> f32 {
        let scale = f32::from_bits(largest(numbers));
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
        encode(numbers, inverse, &self.steps, codes);
        scale
    }
}

impl Steps {
    fn new(is_signed: bool) -> Self {
        let part = |decade: usize| part_of(decade, is_signed);
        let of = |f: &dyn Fn(usize) -> f64| std::array::from_fn(|decade| f(decade) as f32);
        let num_parts = |decade: usize| 1_i32 << (decade + usize::from(!is_signed));
        let last = DECADES - 1;
        Self {
            // The parts of the next decade are five times as wide: halfway between the middles of the two that meet.
            starts: of(&|decade| if decade == 0 { 0.0 } else { top(decade - 1) + part(decade - 1) }),
            lows: of(&|decade| 0.1 * top(decade)),
            densities: of(&|decade| 1.0 / part(decade)),
            lasts: std::array::from_fn(|decade| num_parts(decade) - 1),
            codes: std::array::from_fn(|decade| 1 + (0..decade).map(num_parts).sum::<i32>()),
            zero: if is_signed { ((0.1 * top(0) + 0.5 * part(0)) / 2.0) as f32 } else { 0.0 },
            one: ((1.0 - 0.25 * part(last)) as f32, 1 + (0..DECADES).map(num_parts).sum::<i32>()),
            is_signed,
        }
    }

    /// The code nearest to `x`, which is in ± 1, or in 0 to 1 without a sign; a second moment above 0 gets one above 0.
    #[inline(always)]
    fn code(&self, x: f32) -> u8 {
        let magnitude = x.abs();
        let (mut low, mut density) = (self.lows[0], self.densities[0]);
        let (mut last, mut first) = (self.lasts[0], self.codes[0]);
        for decade in 1..DECADES {
            let is_beyond = magnitude >= self.starts[decade];
            low = if is_beyond { self.lows[decade] } else { low };
            density = if is_beyond { self.densities[decade] } else { density };
            last = if is_beyond { self.lasts[decade] } else { last };
            first = if is_beyond { self.codes[decade] } else { first };
        }
        // A cast keeps the loop from being vectorized: of 2^23 and a number, the last bits are that number, rounded.
        let part = ((magnitude - low) * density).max(0.0) - 0.5 + FLOAT_OF_INTEGERS;
        let part = part.to_bits() as i32 - FLOAT_OF_INTEGERS.to_bits() as i32;
        let code = first + part.max(0).min(last);
        let code = if magnitude > self.one.0 { self.one.1 } else { code };
        let code = if magnitude <= self.zero { 0 } else { code };
        let is_negative = self.is_signed & (x < 0.0) & (code > 0);
        (if is_negative { 128 + code.min(127) } else { code }) as u8
    }
}

/// Largest magnitude of a decade.
fn top(decade: usize) -> f64 {
    10_f64.powi(decade as i32 - DECADES as i32 + 1)
}

/// Width of its parts.
fn part_of(decade: usize, is_signed: bool) -> f64 {
    0.9 * top(decade) / f64::from(1_u32 << (decade + usize::from(!is_signed)))
}

kernel! {
    fn decode(codes: &[u8], scale: f32, values: &[f32; 256], out: &mut [f32]) {
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = values[code as usize] * scale;
        }
    }
}

kernel! {
    /// Bits of the largest magnitude: they are in the order of magnitudes, infinity and NaN above all others.
    fn largest(numbers: &[f32]) -> u32 {
        numbers.iter().fold(0, |largest, x| largest.max(x.abs().to_bits()))
    }
}

kernel! {
    fn encode(numbers: &[f32], inverse: f32, steps: &Steps, codes: &mut [u8]) {
        let steps = *steps;
        for (code, &x) in codes.iter_mut().zip(numbers) {
            *code = steps.code(x * inverse);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance of the code chosen for `x` and that of the best code.
    fn distances(codes: &Codes, x: f32) -> (f32, f32) {
        let found = (codes.values[codes.steps.code(x) as usize] - x).abs();
        let best = codes.values.iter().map(|value| (value - x).abs()).fold(f32::INFINITY, f32::min);
        (found, best)
    }

    #[test]
    fn the_nearest_code_is_chosen() {
        for i in 0..200_001 {
            let x = ((i as f32 / 200_000.0) * 18.0 - 18.0).exp();
            for (codes, x) in [(&*SIGNED, x), (&*SIGNED, -x), (&*UNSIGNED, x)] {
                let (found, best) = distances(codes, x);
                let is_lifted = !codes.steps.is_signed && x < codes.values[1];
                assert!(is_lifted || found <= best * 1.000_01 + 1e-12, "{x}: {found}, could be {best}");
            }
        }
    }

    #[test]
    fn every_code_is_that_of_its_own_number() {
        for codes in [&*SIGNED, &*UNSIGNED] {
            for code in 0..=255 {
                assert_eq!(codes.steps.code(codes.values[code as usize]), code);
            }
            // What rounding makes a little larger than the largest, and nothing.
            assert_eq!(codes.values[codes.steps.code(1.000_001) as usize], 1.0);
            assert_eq!(codes.steps.code(0.0), 0);
        }
        assert_eq!(SIGNED.values[SIGNED.steps.code(-1.0) as usize], SIGNED.values[255]);
        assert_eq!(SIGNED.steps.code(-0.0), 0);
    }

    #[test]
    fn the_tables_are_the_papers() {
        let mut signed = SIGNED.values.to_vec();
        signed.sort_by(f32::total_cmp);
        signed.dedup();
        assert_eq!(signed.len(), 256, "all codes differ");
        // The top decade of signed numbers: 64 parts of 0.9/64.
        assert!((SIGNED.values[127] - (1.0 - 0.9 / 128.0)).abs() < 1e-6);
        assert_eq!((SIGNED.values[128], SIGNED.values[0], UNSIGNED.values[255]), (1.0, 0.0, 1.0));
        assert!((SIGNED.values[1] - 0.55e-6).abs() < 1e-12 && (UNSIGNED.values[1] - 0.325e-6).abs() < 1e-12);
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
