//! How much memory there is, and how to write it down.

use crate::device::system_memory_bytes;

/// Share of the machine's memory that a run may plan with; the rest is for the system and the window.
const SHARE: f64 = 0.8;
/// Budget on systems that do not tell their memory, bytes.
const UNKNOWN_BYTES: u64 = 4 << 30;

/// The budget when the user sets none, bytes, and where it comes from: "80% of this machine's 23.4 GiB".
#[must_use]
pub fn default_budget() -> (u64, String) {
    match system_memory_bytes() {
        Some(bytes) => {
            let source = format!("{:.0}% of this machine's {}", SHARE * 100.0, format_bytes(bytes));
            ((bytes as f64 * SHARE) as u64, source)
        }
        None => (UNKNOWN_BYTES, format!("{} assumed: this system does not tell", format_bytes(UNKNOWN_BYTES))),
    }
}

/// "512 B", "3.1 GiB": bytes in the largest binary unit that leaves at least 1, one decimal.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS.get(unit).copied().unwrap_or("B"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_change_where_they_should() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (3_328_599_654, "3.1 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(format_bytes(bytes), text);
        }
    }

    #[test]
    fn the_default_is_four_fifths_of_the_machine() {
        let (bytes, source) = default_budget();
        let machine = system_memory_bytes().unwrap_or(UNKNOWN_BYTES * 5 / 4);
        assert!(bytes.abs_diff(machine / 5 * 4) < 16, "{bytes} of {machine}");
        assert!(source.contains("this"), "{source}");
    }
}
