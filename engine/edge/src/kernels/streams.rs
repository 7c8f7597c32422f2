//! Rows taken several at a time, far apart: a core gets the memory's full rate only where it reads several long runs side
//! by side. Four neighboring rows are one short run, which the processor's prefetchers follow too late.

/// How far ahead of what is read a kernel fetches, bytes. Farther, lines fall out of the first-level cache unread; nearer,
/// they come too late. Measured together with [`fill_rows`]: 15 GB/s of the 15 that one core can read, where 6 KiB and
/// neighboring rows gave 9.
pub(super) const AHEAD: usize = 2 * 1024;

/// Fills `out`, a number for each row: `R` rows at a time, each an `R`th of all rows after the one before it, and what is
/// left over one by one. `many(first, apart)` answers for the rows `first`, `first + apart`, …; `one(row)` for a single.
pub(super) fn fill_rows<T: Copy, const R: usize>(
    out: &mut [T],
    many: impl Fn(usize, usize) -> [T; R],
    one: impl Fn(usize) -> T,
) {
    let apart = out.len() / R;
    for first in 0..apart {
        for (r, value) in many(first, apart).into_iter().enumerate() {
            out[r * apart + first] = value;
        }
    }
    for (row, value) in out.iter_mut().enumerate().skip(R * apart) {
        *value = one(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_filled_once() {
        for num_rows in 0..20 {
            let mut out = vec![usize::MAX; num_rows];
            fill_rows::<_, 4>(&mut out, |first, apart| std::array::from_fn(|r| first + r * apart), |row| row);
            assert_eq!(out, (0..num_rows).collect::<Vec<_>>());
        }
    }
}
