//! Where an axis has its ticks, and what they say.

/// A place on an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    /// Straightened value.
    pub(super) at: f64,
    /// What it says; empty for a line of the grid alone.
    pub(super) label: String,
}

/// Multiples of 1, 2 or 5 times a power of ten between `low` and `high`, at most about `most`.
pub(super) fn linear(low: f64, high: f64, most: f64, is_whole: bool) -> Vec<Tick> {
    let Some(step) = step(low, high, most, is_whole) else { return Vec::new() };
    let values = multiples(low, high, step);
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let format = Format::of(largest, step);
    values.into_iter().map(|value| Tick { at: value, label: format.text(value) }).collect()
}

/// Powers of ten between `10^low` and `10^high`, with 2 and 5 between them where there is room; at most about `most`
/// labels.
pub(super) fn log(low: f64, high: f64, most: f64) -> Vec<Tick> {
    let num_decades = high - low;
    // Powers from here on; a tick that rounding puts a hair outside still counts.
    let (first, last) = ((low - 1e-9).ceil(), (high + 1e-9).floor());
    if last - first < 1.0 {
        return within_a_decade(low, high, most);
    }
    let stride = (num_decades / most).ceil().max(1.0);
    let per_decade = most / num_decades;
    let labelled: &[f64] = match per_decade {
        many if many >= 4.0 => &[1.0, 2.0, 5.0],
        some if some >= 2.5 => &[1.0, 3.0],
        _ => &[1.0],
    };
    let mut ticks = Vec::new();
    let mut decade = low.floor();
    while decade <= last {
        let is_labelled = (decade / stride).fract() == 0.0;
        for factor in 1..10 {
            let at = decade + f64::from(factor).log10();
            let is_named = is_labelled && labelled.contains(&f64::from(factor));
            // Lines between powers are for few decades.
            let is_drawn = is_named || (stride == 1.0 && (factor == 1 || num_decades <= 5.0));
            if is_drawn && (low - 1e-9..=high + 1e-9).contains(&at) {
                let label = if is_named { short(f64::from(factor) * 10f64.powf(decade)) } else { String::new() };
                ticks.push(Tick { at, label });
            }
        }
        decade += 1.0;
    }
    ticks
}

/// A short logarithmic axis has 1, 2 and 5 times powers of ten, or where these are too few the ticks of a linear one.
fn within_a_decade(low: f64, high: f64, most: f64) -> Vec<Tick> {
    let powers = [low.floor(), low.floor() + 1.0, low.floor() + 2.0];
    let marks = powers.into_iter().flat_map(|power| [1.0, 2.0, 5.0].map(|factor: f64| power + factor.log10()));
    let marks: Vec<_> = marks.filter(|at| (low - 1e-9..=high + 1e-9).contains(at)).collect();
    if marks.len() >= 3 {
        return marks.into_iter().map(|at| Tick { at, label: short(10f64.powf(at)) }).collect();
    }
    let mut ticks = linear(10f64.powf(low), 10f64.powf(high), most, false);
    ticks.iter_mut().for_each(|tick| tick.at = tick.at.log10());
    ticks
}

/// A value alone, with three significant digits: "0.0123", "45.7k", "1.2×10⁻⁷".
pub(super) fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { "n/a".to_owned() };
    }
    let digits = |value: f64| 10f64.powf(value.abs().log10().floor() - 2.0);
    // Rounded first: 9999.9 is 10k, not 10000.
    let step = digits(value);
    let value = (value / step).round() * step;
    let format = Format::of(value.abs(), digits(value));
    let text = format.number(value);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    // A power of ten needs no factor.
    if text == "1" && format.suffix.starts_with('×') {
        return format.suffix.trim_start_matches('×').to_owned();
    }
    format!("{text}{}", format.suffix)
}

/// Values of one kind, written with the same number of decimals: three digits for the largest, at least two for the
/// smallest, as far as four for the largest allow it.
pub(super) fn alike(values: &[f64]) -> Vec<String> {
    let sizes = || values.iter().map(|value| value.abs()).filter(|size| size.is_finite() && *size > 0.0);
    let (largest, smallest) = (sizes().fold(0.0, f64::max), sizes().fold(f64::INFINITY, f64::min));
    if largest == 0.0 {
        return values.iter().map(|value| short(*value)).collect();
    }
    let power = |size: f64| (size.log10() + 1e-12).floor();
    let digits = (power(smallest) - 1.0).min(power(largest) - 2.0).max(power(largest) - 3.0);
    let format = Format::of(largest, 10f64.powf(digits));
    values.iter().map(|value| if value.is_finite() { format.text(*value) } else { short(*value) }).collect()
}

/// The smallest step that gives at most `most` ticks.
fn step(low: f64, high: f64, most: f64, is_whole: bool) -> Option<f64> {
    let least = (high - low) / most.max(1.0);
    if !(least.is_finite() && least > 0.0) {
        return None;
    }
    let power = 10f64.powf(least.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= least * 0.999_999)?;
    let step = if is_whole { step.max(1.0) } else { step };
    step.is_normal().then_some(step)
}

fn multiples(low: f64, high: f64, step: f64) -> Vec<f64> {
    // An end that rounding puts a hair outside still counts.
    let (first, last) = ((low / step - 1e-6).ceil(), (high / step + 1e-6).floor());
    let count = (last - first + 1.0).clamp(0.0, 100.0) as usize;
    (0..count).map(|index| (first + index as f64) * step).collect()
}

/// How all numbers of an axis are written.
struct Format {
    /// What they are divided by.
    unit: f64,
    decimals: usize,
    suffix: String,
}

impl Format {
    /// For numbers up to `largest` in steps of `step`.
    fn of(largest: f64, step: f64) -> Self {
        let (unit, suffix) = match largest {
            size if size >= 1e15 || (size > 0.0 && size < 0.999e-3) => {
                let exponent = (size.log10() + 1e-9).floor();
                (10f64.powf(exponent), format!("×10{}", superscript(exponent as i32)))
            }
            size if size >= 0.999_999e9 => (1e9, "G".to_owned()),
            size if size >= 0.999_999e6 => (1e6, "M".to_owned()),
            size if size >= 0.999_999e4 => (1e3, "k".to_owned()),
            _ => (1.0, String::new()),
        };
        let decimals = decimals(step / unit);
        if decimals > 3 && unit > 1.0 && largest < 1e15 {
            // Steps far smaller than the numbers: all digits, else neighbours would read the same.
            return Self { unit: 1.0, decimals: self::decimals(step), suffix: String::new() };
        }
        Self { unit, decimals, suffix }
    }

    fn number(&self, value: f64) -> String {
        let decimals = self.decimals;
        let text = format!("{:.decimals$}", value / self.unit);
        match text.strip_prefix('-') {
            // A real minus is as wide as a plus; and nothing is "-0".
            Some(size) if size.chars().any(|c| c.is_ascii_digit() && c != '0') => format!("−{size}"),
            Some(size) => size.to_owned(),
            None => text,
        }
    }

    fn text(&self, value: f64) -> String {
        if value == 0.0 { "0".to_owned() } else { format!("{}{}", self.number(value), self.suffix) }
    }
}

/// Decimals that tell multiples of `step` apart.
fn decimals(step: f64) -> usize {
    (-(step.abs().log10() + 1e-9).floor()).clamp(0.0, 15.0) as usize
}

fn superscript(exponent: i32) -> String {
    let digit = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        c => c.to_digit(10).and_then(|digit| char::from_u32(0x2070 + digit)).unwrap_or(c),
    };
    exponent.to_string().chars().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_linear((low, high, most): (f64, f64, f64), labels: &str) {
        let ticks = linear(low, high, most, false);
        let found: Vec<_> = ticks.iter().map(|tick| tick.label.as_str()).collect();
        assert_eq!(found.join(" "), labels, "{low} to {high}");
    }

    #[test]
    fn linear_ticks_are_numbers_that_people_write() {
        check_linear((0.0, 1.0, 5.0), "0 0.2 0.4 0.6 0.8 1.0");
        check_linear((0.0, 2.31, 5.0), "0 0.5 1.0 1.5 2.0");
        check_linear((-3.0, 3.0, 4.0), "−2 0 2");
        check_linear((0.0, 1000.0, 5.0), "0 200 400 600 800 1000");
        check_linear((0.0, 12_000.0, 6.0), "0 2k 4k 6k 8k 10k 12k");
        check_linear((0.0, 2.5e6, 5.0), "0 0.5M 1.0M 1.5M 2.0M 2.5M");
        check_linear((0.0, 3.2e-4, 4.0), "0 1×10⁻⁴ 2×10⁻⁴ 3×10⁻⁴");
        check_linear((1e-9, 3e-9, 2.0), "1×10⁻⁹ 2×10⁻⁹ 3×10⁻⁹");
        check_linear((0.93, 0.95, 4.0), "0.930 0.935 0.940 0.945 0.950");
        check_linear((1e9, 1e9 + 4.0, 4.0), "1000000000 1000000001 1000000002 1000000003 1000000004");
        check_linear((0.0, 4e18, 4.0), "0 1×10¹⁸ 2×10¹⁸ 3×10¹⁸ 4×10¹⁸");
    }

    #[test]
    fn whole_numbers_have_no_ticks_between_them() {
        let labels: Vec<_> = linear(3.0, 5.0, 10.0, true).into_iter().map(|tick| tick.label).collect();
        assert_eq!(labels, ["3", "4", "5"]);
    }

    #[test]
    fn ticks_lie_inside_and_are_few() {
        let mut size = 1e-300;
        while size < 1e300 {
            for (low, high) in [(0.0, size), (-size, size), (0.99 * size, size), (-size, -0.3 * size)] {
                for most in [1.0, 3.0, 8.0, 40.0] {
                    let ticks = linear(low, high, most, false);
                    assert!(ticks.len() as f64 <= most + 1.0, "{low} to {high}: {}", ticks.len());
                    let slack = (high - low) * 1e-5;
                    assert!(ticks.iter().all(|tick| (low - slack..=high + slack).contains(&tick.at)));
                    assert!(ticks.windows(2).all(|pair| pair[0].label != pair[1].label), "{low} to {high}: {ticks:?}");
                }
            }
            size *= 37.0;
        }
    }

    #[track_caller]
    fn check_log((low, high, most): (f64, f64, f64), labels: &str) {
        let ticks = log(low.log10(), high.log10(), most);
        let found: Vec<_> = ticks.iter().map(|tick| tick.label.as_str()).filter(|label| !label.is_empty()).collect();
        assert_eq!(found.join(" "), labels, "{low} to {high}");
    }

    #[test]
    fn logarithmic_ticks_are_powers_first() {
        check_log((0.01, 100.0, 6.0), "0.01 0.1 1 10 100");
        check_log((1.0, 1e4, 20.0), "1 2 5 10 20 50 100 200 500 1000 2000 5000 10k");
        check_log((1e-6, 1e-2, 5.0), "10⁻⁶ 10⁻⁵ 10⁻⁴ 0.001 0.01");
        check_log((1e-12, 1e12, 5.0), "10⁻¹⁰ 10⁻⁵ 1 100k 10G");
        check_log((2.0, 7.0, 6.0), "2 3 4 5 6 7");
        check_log((0.11, 9.9, 6.0), "0.2 0.5 1 2 5");
        check_log((0.31, 0.33, 4.0), "0.310 0.315 0.320 0.325 0.330");
    }

    #[test]
    fn values_side_by_side_have_the_same_decimals() {
        let cases: [(&[f64], &str); 6] = [
            (&[1.9, 2.6, 0.4], "1.90 2.60 0.40"),
            (&[0.912, 0.87, 0.9911], "0.912 0.870 0.991"),
            (&[21_000.0, 35_321.0], "21.0k 35.3k"),
            (&[100.0, 0.013], "100.0 0.0"),
            (&[0.0, f64::NAN, -12.0], "0 n/a −12.0"),
            (&[0.0], "0"),
        ];
        for (values, texts) in cases {
            assert_eq!(alike(values).join(" "), texts);
        }
    }

    #[test]
    fn single_values_have_three_digits() {
        let cases = [(0.012_345, "0.0123"), (45_678.0, "45.7k"), (9999.9, "10k"), (0.93, "0.93"), (100.0, "100")];
        let more =
            [(1234.0, "1230"), (-2.5, "−2.5"), (1.2e-7, "1.2×10⁻⁷"), (0.0, "0"), (f64::NAN, "n/a"), (1e-4, "10⁻⁴")];
        for (value, text) in cases.into_iter().chain(more) {
            assert_eq!(short(value), text);
        }
    }
}
