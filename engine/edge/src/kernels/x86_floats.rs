//! Kernels of floats for x86-64: written once, compiled for the vectors of each set.

/// Defines `f32_rows`, `f16_rows`, `bf16_rows`, `mix_f32`, `mix_f16` and `read_all` with vectors of `$width` floats. The file
/// that uses this hands them out only after it has detected the features.
macro_rules! float_kernels {
    (
        features: $features:literal,
        vector: $vector:ty,
        width: $width:literal,
        zero: $zero:path,
        load: $load:path,
        store: $store:path,
        multiply_add: $multiply_add:path,
        repeat: $repeat:path,
        sum: $sum:path,
        load_f16: $load_f16:expr,
        load_bf16: $load_bf16:expr,
    ) => {
        float_kernels!(@rows f32_rows, 4, |p: *const u8| $load(p.cast()), f32::from_le_bytes,
            $features, $width, $zero, $load, $multiply_add, $sum);
        float_kernels!(@rows f16_rows, 2, $load_f16, |bytes| half::f16::from_le_bytes(bytes).to_f32(),
            $features, $width, $zero, $load, $multiply_add, $sum);
        float_kernels!(@rows bf16_rows, 2, $load_bf16, |bytes| half::bf16::from_le_bytes(bytes).to_f32(),
            $features, $width, $zero, $load, $multiply_add, $sum);
        float_kernels!(@mix mix_f32, 4, |p: *const u8| $load(p.cast()), f32::from_le_bytes,
            $features, $vector, $width, $load, $store, $multiply_add, $repeat);
        float_kernels!(@mix mix_f16, 2, $load_f16, |bytes| half::f16::from_le_bytes(bytes).to_f32(),
            $features, $vector, $width, $load, $store, $multiply_add, $repeat);

        fn read_all(bytes: &[u8]) -> u64 {
            /// Four streams with a prefetch each: a plain one does not fill a core's share of the memory's rate.
            #[target_feature(enable = $features)]
            fn inner(bytes: &[u8]) -> u64 {
                let ahead = ahead();
                let stream = bytes.len() / 4 / 64 * 64;
                let mut all = [0_u64; 8];
                for line in (0..stream).step_by(64) {
                    for number in 0..4 {
                        let line = &bytes[number * stream + line..][..64];
                        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(ahead).cast());
                        for (all, word) in all.iter_mut().zip(line.as_chunks::<8>().0) {
                            *all ^= u64::from_le_bytes(*word);
                        }
                    }
                }
                let rest = &bytes[4 * stream..];
                all.iter().fold($crate::kernels::scalar::read_all(rest), |all, word| all ^ word)
            }
            // SAFETY: this set of kernels is handed out only where its features were detected.
            unsafe { inner(bytes) }
        }
    };
    // `$read` turns a pointer to `$width` weights of `$size` bytes into a vector of floats, `$one` reads a single weight.
    (@rows $name:ident, $size:literal, $read:expr, $one:expr,
        $features:literal, $width:literal, $zero:path, $load:path, $multiply_add:path, $sum:path) => {
        fn $name(rows: &[u8], runs: Runs, x: &[f32], out: &mut [f32]) {
            /// # Safety
            /// `R` rows of `x.len()` weights, `apart` bytes from start to start, must be readable from `rows` on.
            #[target_feature(enable = $features)]
            unsafe fn dot<const R: usize>(rows: *const u8, apart: usize, x: &[f32]) -> [f32; R] {
                let ahead = ahead();
                let one: fn([u8; $size]) -> f32 = $one;
                let (len, whole) = (x.len(), x.len() / $width * $width);
                let mut sums = [$zero(); R];
                for i in (0..whole).step_by($width) {
                    // SAFETY: a vector from i on is within x.
                    let input = unsafe { $load(x.as_ptr().add(i)) };
                    for (r, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: by this function's contract; loads need no alignment, a prefetch no valid address.
                        let weights = unsafe {
                            let weights = rows.add(r * apart + i * $size);
                            _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(ahead).cast());
                            $read(weights)
                        };
                        *sum = $multiply_add(weights, input, *sum);
                    }
                }
                std::array::from_fn(|r| {
                    let mut sum = $sum(sums[r]);
                    for i in whole..len {
                        // SAFETY: by this function's contract.
                        let weight = unsafe { rows.add(r * apart + i * $size).cast::<[u8; $size]>().read() };
                        sum += one(weight) * x[i];
                    }
                    sum
                })
            }
            let row_bytes = x.len() * $size;
            if row_bytes == 0 {
                out.fill(0.0);
                return;
            }
            let num_rows = rows_there(rows, row_bytes, runs, out.len());
            let start = |row: usize| rows.as_ptr().wrapping_add(row * row_bytes);
            // SAFETY: the `num_rows` rows lie within `rows`; the features were detected.
            let many = |first, apart| unsafe { dot::<4>(start(first), apart * row_bytes, x) };
            // SAFETY: as above.
            let one = |row| unsafe { dot::<1>(start(row), 0, x)[0] };
            fill_rows(runs, &mut out[..num_rows], many, one);
        }
    };
    (@mix $name:ident, $size:literal, $read:expr, $one:expr,
        $features:literal, $vector:ty, $width:literal, $load:path, $store:path, $multiply_add:path, $repeat:path) => {
        fn $name(rows: &[u8], weights: &[f32], y: &mut [f32]) {
            /// Columns from `first` on, `N` vectors of them.
            ///
            /// # Safety
            /// Each of `weights` must have its row of `y.len()` numbers in `rows`; the columns must lie within `y`.
            #[target_feature(enable = $features)]
            unsafe fn columns<const N: usize>(rows: &[u8], weights: &[f32], y: &mut [f32], first: usize) {
                // SAFETY: the columns lie within `y`, and within the row of each weight; nothing needs alignment.
                unsafe {
                    let target = y.as_mut_ptr().add(first);
                    let mut sums: [$vector; N] = std::array::from_fn(|n| $load(target.add(n * $width)));
                    let mut row = rows.as_ptr().wrapping_add(first * $size);
                    for weight in weights {
                        let weight = $repeat(*weight);
                        for (n, sum) in sums.iter_mut().enumerate() {
                            *sum = $multiply_add($read(row.add(n * $width * $size)), weight, *sum);
                        }
                        row = row.wrapping_add(y.len() * $size);
                    }
                    for (n, sum) in sums.into_iter().enumerate() {
                        $store(target.add(n * $width), sum);
                    }
                }
            }
            let row_bytes = y.len() * $size;
            if row_bytes == 0 {
                return;
            }
            let one: fn([u8; $size]) -> f32 = $one;
            let weights = &weights[..weights.len().min(rows.len() / row_bytes)];
            let mut first = 0;
            // SAFETY: there are as many rows as weights, and columns end within `y`; the features were detected.
            unsafe {
                while first + 4 * $width <= y.len() {
                    columns::<4>(rows, weights, y, first);
                    first += 4 * $width;
                }
                while first + $width <= y.len() {
                    columns::<1>(rows, weights, y, first);
                    first += $width;
                }
            }
            for (row, weight) in rows.chunks_exact(row_bytes).zip(weights) {
                for (y, x) in y.iter_mut().zip(row.as_chunks::<$size>().0).skip(first) {
                    *y += weight * one(*x);
                }
            }
        }
    };
}

pub(super) use float_kernels;
