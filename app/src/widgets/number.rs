//! Numbers as people read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Bytes in binary units with three digits: "1.46 MiB".
#[must_use]
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scaled = value as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        // 1000, not 1024: four digits before the point are one too many.
        if scaled < 1000.0 {
            break;
        }
        scaled /= 1024.0;
        unit = next;
    }
    format!("{} {unit}", three_digits(scaled))
}

/// With separators: "105,866".
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// In thousands, millions, billions: "106K", "1.24B".
#[must_use]
pub fn short_count(value: f64) -> String {
    let size = value.abs();
    if size >= 1e9 {
        format!("{}B", three_digits(value / 1e9))
    } else if size >= 1e6 {
        format!("{}M", three_digits(value / 1e6))
    } else if size >= 1e4 {
        format!("{}K", three_digits(value / 1e3))
    } else if size >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        three_digits(value)
    }
}

/// Three significant digits without an exponent: "1.46", "14.6", "146".
#[must_use]
pub fn three_digits(value: f64) -> String {
    let size = value.abs();
    let decimals = if size >= 99.95 {
        0
    } else if size >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

/// Tokens a second that nobody waits for any more.
pub const FASTEST: f64 = 100_000.0;

/// A predicted speed, with separators: "4,560", "12.5"; "over 100,000" where the model is so small that its weights' way
/// through memory is no bound.
#[must_use]
pub fn tokens_per_second(value: f64) -> String {
    if value > FASTEST {
        format!("over {}", count(FASTEST as u64))
    } else if value >= 1000.0 {
        count(value.round() as u64)
    } else {
        three_digits(value)
    }
}

/// A measured value of any size with four significant digits: "0.01234", "2.315", "1.2e-7", "NaN".
#[must_use]
pub fn value(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return if value.is_nan() { "NaN".to_owned() } else { format!("{value}") };
    }
    if size == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e6).contains(&size) {
        return format!("{value:.2e}");
    }
    let decimals = (3 - size.log10().floor() as i32).clamp(0, 7) as usize;
    format!("{value:.decimals$}")
}

/// An uncertainty with two significant digits: "0.0073".
#[must_use]
pub fn two_digits(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || size == 0.0 || !(1e-4..1e6).contains(&size) {
        return self::value(value);
    }
    let decimals = (1 - size.log10().floor() as i32).clamp(0, 6) as usize;
    format!("{value:.decimals$}")
}

/// An end of an interval with three significant digits: "0.0734".
#[must_use]
pub fn interval_end(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || size == 0.0 || !(1e-4..1e6).contains(&size) {
        return self::value(value);
    }
    let decimals = (2 - size.log10().floor() as i32).clamp(0, 6) as usize;
    format!("{value:.decimals$}")
}

/// A time to wait or that has passed: "0.4 s", "42 s", "3 min 10 s", "2 h 05 min".
#[must_use]
pub fn seconds(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return "—".to_owned();
    }
    if value < 10.0 {
        return format!("{value:.1} s");
    }
    let whole = value.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..172_800 => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{:.1} days", value / 86_400.0),
    }
}

/// Milliseconds: "0.42 ms", "12.3 ms", "1.20 s".
#[must_use]
pub fn milliseconds(value: f64) -> String {
    if value >= 1000.0 { format!("{:.2} s", value / 1000.0) } else { format!("{} ms", three_digits(value)) }
}

/// A share of 1 as percent with one decimal: "48.6%".
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// Clock time in `zone` of a moment in milliseconds since the Unix epoch: "14:03:59".
#[must_use]
pub fn clock(unix_ms: u64, zone: &TimeZone) -> String {
    in_zone(unix_ms, zone, "%H:%M:%S")
}

/// Date and clock time in `zone` of a moment in milliseconds since the Unix epoch: "2026-11-28 14:03:59".
#[must_use]
pub fn moment(unix_ms: u64, zone: &TimeZone) -> String {
    in_zone(unix_ms, zone, "%Y-%m-%d %H:%M:%S")
}

fn in_zone(unix_ms: u64, zone: &TimeZone, format: &str) -> String {
    let moment = i64::try_from(unix_ms).ok().and_then(|unix_ms| Timestamp::from_millisecond(unix_ms).ok());
    moment.map_or_else(|| "—".to_owned(), |moment| zone.to_datetime(moment).strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_three_digits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(1023 * 1024), "1.00 MiB");
        assert_eq!(bytes(25_125_558_681), "23.4 GiB");
    }

    #[test]
    fn counts_are_separated() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(105_866), "105,866");
        assert_eq!(short_count(105_866.0), "106K");
        assert_eq!(short_count(1_237_000_000.0), "1.24B");
        assert_eq!(short_count(0.5), "0.50");
    }

    #[test]
    fn speeds_are_separated_and_end_where_they_say_nothing() {
        let speeds = [12.5, 123.4, 7914.2, 100_000.0, 5_083_515.0].map(tokens_per_second);
        assert_eq!(speeds, ["12.5", "123", "7,914", "100,000", "over 100,000"]);
    }

    #[test]
    fn values_keep_their_size() {
        assert_eq!(value(2.31481), "2.315");
        assert_eq!(value(0.012_345), "0.01235");
        assert_eq!(value(1.234e-7), "1.23e-7");
        assert_eq!(value(f64::NAN), "NaN");
        assert_eq!(value(-0.5), "-0.5000");
        assert_eq!(two_digits(0.007_33), "0.0073");
        assert_eq!(two_digits(12.4), "12");
        assert_eq!([0.073_42, 2.345, 123.4, f64::NAN].map(interval_end), ["0.0734", "2.35", "123", "NaN"]);
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(seconds(0.42), "0.4 s");
        assert_eq!(seconds(190.0), "3 min 10 s");
        assert_eq!(seconds(7500.0), "2 h 05 min");
        assert_eq!(seconds(f64::NAN), "—");
    }

    #[test]
    fn clocks_show_the_time_of_their_zone() {
        assert_eq!(clock(50_639_000, &TimeZone::UTC), "14:03:59");
        assert_eq!(moment(50_639_000, &TimeZone::UTC), "1970-01-01 14:03:59");
        assert_eq!(clock(50_639_000, &jiff::tz::offset(-5).to_time_zone()), "09:03:59");
        assert_eq!(clock(u64::MAX, &TimeZone::UTC), "—");
    }
}
