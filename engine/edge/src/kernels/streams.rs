//! Rows one by one, or several at a time, far apart: a core gets the memory's full rate only where it reads several long
//! runs side by side. Four neighboring rows are one short run, which the processor's prefetchers follow too late.
#![forbid(unsafe_code)]

use crate::runtime::Runs;

/// How far ahead of what is read a kernel fetches, bytes; 0 where the processor does that better by itself.
///
/// Farther, lines fall out of the first-level cache unread; nearer, they come too late. Measured together with
/// [`fill_rows`] on a Xeon: 15 GB/s of the 15 that one core can read, where 6 KiB and neighboring rows gave 9. AMD's own
/// prefetchers follow the runs, and fetching ahead hinders them: on a Zen 4 one thread made 60 tokens a second with it, 72
/// with a distance of 0, where the line that is named is read right then (1.1B shape).
#[cfg(target_arch = "x86_64")]
pub(super) fn ahead() -> usize {
    if follows_runs() { 0 } else { 2 * 1024 }
}

/// True where the processor's own prefetchers follow several runs: AMD's. A run need not be as long then.
pub(crate) fn follows_runs() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        static FOLLOWS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *FOLLOWS.get_or_init(|| {
            let vendor = std::arch::x86_64::__cpuid(0);
            [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// How many of `out_len` rows of `row_bytes` lie within `bytes`, from the first row on: of several runs all or none.
#[cfg(target_arch = "x86_64")]
pub(super) fn rows_there(bytes: &[u8], row_bytes: usize, runs: Runs, out_len: usize) -> usize {
    let there = bytes.len().checked_div(row_bytes).unwrap_or_default();
    match runs.span(out_len) {
        Some(span) if span <= there => out_len,
        _ if runs.num == 1 => there,
        _ => 0,
    }
}

/// Fills `out`, a number for each row in `runs`: `R` rows at a time, of a run each, and what is left over one by one. A
/// single run is as `R` runs of an `R`th of its rows. `many(first, apart)` answers for the rows `first`, `first + apart`,
/// …; `one(row)` for a single.
#[cfg(target_arch = "x86_64")]
pub(super) fn fill_rows<T: Copy, const R: usize>(
    runs: Runs,
    out: &mut [T],
    many: impl Fn(usize, usize) -> [T; R],
    one: impl Fn(usize) -> T,
) {
    let cut = if runs.num == 1 { Runs { num: R, apart: out.len() / R } } else { runs };
    let len = out.len() / cut.num;
    let num_whole = cut.num / R * R;
    for run in (0..num_whole).step_by(R) {
        for first in 0..len {
            for (r, value) in many(run * cut.apart + first, cut.apart).into_iter().enumerate() {
                out[(run + r) * len + first] = value;
            }
        }
    }
    for (index, value) in out.iter_mut().enumerate().skip(num_whole * len) {
        *value = one(runs.place(index, len));
    }
}

/// Fills `out`, a number for each row of `row_bytes` of `bytes` in `runs` that is there: a row of each run after the other.
pub(super) fn each_row<T>(bytes: &[u8], row_bytes: usize, runs: Runs, out: &mut [T], product: impl Fn(&[u8]) -> T) {
    let len = out.len() / runs.num;
    for index in (0..len).flat_map(|first| (first..runs.num * len).step_by(len)) {
        let row = runs.place(index, len);
        if let Some(row) = bytes.get(row * row_bytes..(row + 1) * row_bytes) {
            out[index] = product(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_filled_once() {
        let all = (0..40).map(|num_rows| (Runs::ONE, num_rows));
        let cut = [2, 3, 4, 8].map(|num| (0..4).map(move |len| (Runs { num, apart: 5 }, num * len)));
        for (runs, num_rows) in all.chain(cut.into_iter().flatten()) {
            let expected: Vec<usize> = match runs.num {
                1 => (0..num_rows).collect(),
                num => (0..num).flat_map(|run| (0..num_rows / num).map(move |row| run * 5 + row)).collect(),
            };
            let bytes: Vec<u8> = (0..40).flat_map(|row| [row; 3]).collect();
            let mut out = vec![usize::MAX; num_rows];
            each_row(&bytes, 3, runs, &mut out, |row| usize::from(row[0]));
            assert_eq!(out, expected, "{runs:?}");
            let span = expected.last().map_or(0, |last| last + 1);
            assert_eq!(runs.span(num_rows), Some(span), "{runs:?}");
            assert!(runs.num == 1 || runs.span(num_rows + 1).is_none(), "{runs:?}: no equal runs");
            #[cfg(target_arch = "x86_64")]
            {
                let mut out = vec![usize::MAX; num_rows];
                fill_rows::<_, 4>(runs, &mut out, |first, apart| std::array::from_fn(|r| first + r * apart), |row| row);
                assert_eq!(out, expected, "{runs:?}");
                assert_eq!(rows_there(&bytes[..3 * span], 3, runs, num_rows), num_rows, "{runs:?}");
                if num_rows > 0 {
                    let fewer = if runs.num == 1 { num_rows - 1 } else { 0 };
                    assert_eq!(rows_there(&bytes[..3 * span - 1], 3, runs, num_rows), fewer, "{runs:?}");
                }
            }
        }
    }
}
