//! Every set of kernels that runs here against the reference, on random ragged shapes and unaligned addresses, and the
//! reference against plain arithmetic.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;

use foretrain_ternary::{BLOCK_BYTES, Packing};
use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::gguf::{Q3_K_BLOCK_BYTES, Q4_K_BLOCK_BYTES, decode_q4_0, encode_q8_0, q8_0_from_q4_0};

thread_local! {
    /// The set that this thread computes with instead of the process's.
    static CHOSEN: Cell<Option<&'static Kernels>> = const { Cell::new(None) };
}

/// The set of [`with_each_set`].
pub(super) fn chosen() -> Option<&'static Kernels> {
    CHOSEN.get()
}

/// Calls `check` with the name of each set that runs here, while [`active`] is that set on this thread.
pub(crate) fn with_each_set(check: impl Fn(&str)) {
    for kernels in available() {
        CHOSEN.set(Some(kernels));
        check(kernels.name);
        CHOSEN.set(None);
    }
}

/// One kernel of a set.
type Choice = fn(&Kernels) -> FloatRowsKernel;

fn floats(max_len: usize) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-2.0_f32..2.0, 0..max_len)
}

fn int8s(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<i8>> {
    prop::collection::vec(prop_oneof![8 => -127_i8..=127, 1 => Just(-127), 1 => Just(127)], len)
}

fn bytes(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![8 => any::<u8>(), 1 => Just(0x80), 1 => Just(0xff)], len)
}

/// The same values, `by` behind the address that an allocation has; they end where it ends.
fn shifted<T: Copy + Default>(values: &[T], by: usize) -> Vec<T> {
    [&vec![T::default(); by], values].concat()
}

/// How triples are read in all sets, and in the layout of words without its vectors.
fn triple_kernels() -> Vec<(&'static str, &'static TripleKernels)> {
    let sets = available().into_iter().map(|kernels| (kernels.name, kernels.triples));
    sets.chain([("words", &triple_words::REFERENCE)]).collect()
}

/// The products of a group of `rows` with `x`.
fn triple_products(kernels: &TripleKernels, rows: &[i8], x: &[i8]) -> [i32; GROUP_ROWS] {
    let mut group = vec![0; (kernels.group_bytes)(x.len())];
    (kernels.pack_group)(rows, x.len(), &mut group);
    let (mut tables, mut out) = (vec![0; (kernels.table_bytes)(x.len())], [0; GROUP_ROWS]);
    (kernels.fill_tables)(x, &mut tables);
    (kernels.rows)(&group, &tables, &mut out);
    out
}

fn near(found: f32, expected: f64, magnitude: f64) -> bool {
    (f64::from(found) - expected).abs() <= 1e-5 * magnitude.max(1.0)
}

#[test]
fn this_processor_has_the_sets_that_it_should() {
    let names: Vec<&str> = available().iter().map(|kernels| kernels.name).collect();
    assert_eq!(names[0], "scalar");
    assert_eq!(active().name, *names.last().unwrap());
    #[cfg(target_arch = "x86_64")]
    assert_eq!(names.contains(&"avx512-vnni"), is_x86_feature_detected!("avx512vnni"));
    #[cfg(target_arch = "aarch64")]
    assert!(names.contains(&"neon"));
}

proptest! {
    #[test]
    fn float_rows(weights in floats(700), x in floats(70), shift in 0_usize..4) {
        let rows = weights.len() / x.len().max(1);
        let stored: [(Vec<u8>, Vec<f32>, Choice); 3] = [
            (weights.iter().flat_map(|w| w.to_le_bytes()).collect(), weights.clone(), |kernels| kernels.f32_rows),
            (
                weights.iter().flat_map(|w| f16::from_f32(*w).to_le_bytes()).collect(),
                weights.iter().map(|w| f16::from_f32(*w).to_f32()).collect(),
                |kernels| kernels.f16_rows,
            ),
            (
                weights.iter().flat_map(|w| bf16::from_f32(*w).to_le_bytes()).collect(),
                weights.iter().map(|w| bf16::from_f32(*w).to_f32()).collect(),
                |kernels| kernels.bf16_rows,
            ),
        ];
        for (bytes, exact, kernel) in stored {
            for kernels in available() {
                let mut out = vec![0.0; rows];
                kernel(kernels)(&shifted(&bytes, shift)[shift..], Runs::ONE, &x, &mut out);
                for (row, found) in exact.chunks(x.len().max(1)).zip(out) {
                    let expected: f64 = row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                    prop_assert!(near(found, expected, 4.0 * x.len() as f64), "{} {found} {expected}", kernels.name);
                }
            }
        }
    }

    #[test]
    fn mixes(rows in floats(700), weights in floats(8), y in floats(150), shift in 0_usize..4) {
        let full: Vec<u8> = rows.iter().flat_map(|w| w.to_le_bytes()).collect();
        let half: Vec<u8> = rows.iter().flat_map(|w| f16::from_f32(*w).to_le_bytes()).collect();
        for kernels in available() {
            for (bytes, kernel, reference) in
                [(&full, kernels.mix_f32, scalar::KERNELS.mix_f32), (&half, kernels.mix_f16, scalar::KERNELS.mix_f16)]
            {
                let (mut found, mut expected) = (y.clone(), y.clone());
                kernel(&shifted(bytes, shift)[shift..], &weights, &mut found);
                reference(bytes, &weights, &mut expected);
                for (found, expected) in found.iter().zip(expected) {
                    prop_assert!(near(*found, f64::from(expected), 40.0), "{} {found} {expected}", kernels.name);
                }
            }
        }
    }

    #[test]
    fn int8_rows_bit_for_bit(
        values in bytes(0..1200),
        x in int8s(0..300),
        shift in 0_usize..64,
        x_shift in 0_usize..64,
    ) {
        let rows = values.len() / x.len().max(1);
        let expected: Vec<i32> = (0..rows)
            .map(|row| {
                let products = values[row * x.len()..].iter().zip(&x);
                products.map(|(w, &x)| i32::from(w.cast_signed()) * i32::from(x)).sum()
            })
            .collect();
        for kernels in available() {
            let mut out = vec![0; rows];
            (kernels.int8_rows)(&shifted(&values, shift)[shift..], Runs::ONE, &shifted(&x, x_shift)[x_shift..], &mut out);
            prop_assert_eq!(&out, &expected, "{}", kernels.name);
        }
    }

    #[test]
    fn q8_0_rows(weights in prop::collection::vec(-2.0_f32..2.0, 7 * 96), x in int8s(96), rows in 0_usize..8) {
        let blocks = encode_q8_0(&weights).unwrap();
        let mut expected = vec![0.0; rows];
        (scalar::KERNELS.q8_0_rows)(&blocks, Runs::ONE, &x, &mut expected);
        for kernels in available() {
            let mut out = vec![0.0; rows];
            (kernels.q8_0_rows)(&shifted(&blocks, 1)[1..], Runs::ONE, &x, &mut out);
            for (found, expected) in out.iter().zip(&expected) {
                prop_assert!(near(*found, f64::from(*expected), 400.0), "{} {found} {expected}", kernels.name);
            }
        }
    }

    #[test]
    fn q4_0_rows_as_q8_0_bit_for_bit(
        codes in bytes(18 * 3 * 9),
        scales in prop::collection::vec(-2.0_f32..2.0, 3 * 9),
        x in int8s(96),
        rows in 0_usize..=9,
        shift in 0_usize..64,
    ) {
        let mut blocks = codes;
        for (block, scale) in blocks.chunks_mut(18).zip(&scales) {
            block[..2].copy_from_slice(&f16::from_f32(*scale).to_le_bytes());
        }
        let mut wider = Vec::new();
        q8_0_from_q4_0(&blocks, &mut wider);
        let own = &blocks[..rows * 3 * 18];
        for kernels in available() {
            let (mut out, mut expected) = (vec![9.0; rows], vec![9.0; rows]);
            (kernels.q8_0_rows)(&wider, Runs::ONE, &x, &mut expected);
            (kernels.q4_0_rows)(&shifted(own, shift)[shift..], Runs::ONE, &x, &mut out);
            prop_assert_eq!(&out, &expected, "{}", kernels.name);
        }
        let mut out = vec![9.0; rows];
        (scalar::KERNELS.q4_0_rows)(own, Runs::ONE, &x, &mut out);
        for (row, found) in decode_q4_0(own).chunks(96).zip(out) {
            let expected: f64 = row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            prop_assert!(near(found, expected, 2e4), "{found} {expected}");
        }
    }

    /// Tiles give each input what the same set's rows give it alone, whatever sums are rounded to; a whole number with
    /// whole numbers as scales, the reference's, too.
    #[test]
    fn q8_0_tiles_as_rows_bit_for_bit(
        codes in bytes(34 * 40 * 5),
        scales in prop::collection::vec(-4.0_f32..4.0, 40 * 5),
        has_whole_scales: bool,
        blocks_per_row in 1_usize..6,
        rows in 0_usize..=40,
        inputs in 1_usize..40,
        shift in 0_usize..64,
        seed: u64,
    ) {
        let mut blocks = codes;
        for (block, scale) in blocks.chunks_mut(34).zip(&scales) {
            let scale = if has_whole_scales { scale.round() } else { *scale };
            block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        }
        let mut state = seed | 1;
        let len = blocks_per_row * 32;
        let x: Vec<f32> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 - 8e6
        }).take(len * inputs).collect();
        let rows_of = |kernels: &Kernels| {
            let x = Quantized::new(&x, len, kernels);
            let mut out = vec![0.0; rows * inputs];
            for (input, out) in out.chunks_mut(rows.max(1)).enumerate() {
                (kernels.q8_0_rows)(&blocks, Runs::ONE, x.row(input), out);
            }
            out
        };
        let expected = rows_of(&scalar::KERNELS);
        for kernels in available() {
            let alone = rows_of(kernels);
            if has_whole_scales {
                prop_assert_eq!(&alone, &expected, "{}", kernels.name);
            }
            let Some(tiles) = kernels.q8_0_tiles else { continue };
            let mut out = vec![9.0; rows * inputs];
            let own = blocks[..rows * blocks_per_row * 34].to_vec();
            tiles(&shifted(&own, shift)[shift..], &Quantized::new(&x, len, kernels), &mut out);
            prop_assert_eq!(&out, &alone, "{}", kernels.name);
        }
    }

    /// With a scale of 1 and few blocks, sums of floats are whole numbers that they hold exactly.
    #[test]
    fn blocks_of_any_bytes_bit_for_bit(
        codes in bytes(66 * 12),
        blocks_per_row in 1_usize..4,
        x in int8s(256 * 3),
        shift in 0_usize..64,
        x_shift in 0_usize..64,
    ) {
        let one = f16::ONE.to_le_bytes();
        let mut q8_0 = codes[..34 * 23].to_vec();
        q8_0.chunks_mut(34).for_each(|block| block[..2].copy_from_slice(&one));
        let mut trits = codes;
        trits.chunks_mut(BLOCK_BYTES).for_each(|block| block[BLOCK_BYTES - 2..].copy_from_slice(&one));
        for (blocks, block_len, num_blocks) in [(&q8_0, 32, 23), (&trits, 256, 12)] {
            let x = &x[..blocks_per_row * block_len];
            let sums: Vec<i32> = x.chunks(256).map(|x| x.iter().map(|&x| i32::from(x)).sum()).collect();
            let products = |kernels: &Kernels| {
                let (blocks, x) = (shifted(blocks, shift), shifted(x, x_shift));
                let mut out = vec![0.0; num_blocks / blocks_per_row];
                if block_len == 32 {
                    (kernels.q8_0_rows)(&blocks[shift..], Runs::ONE, &x[x_shift..], &mut out);
                } else {
                    (kernels.ternary_block_rows)(&blocks[shift..], Runs::ONE, &x[x_shift..], &sums, &mut out);
                }
                out
            };
            let expected = products(&scalar::KERNELS);
            prop_assert!(expected.iter().all(|sum| sum.fract() == 0.0 && sum.abs() < (1 << 24) as f32));
            for kernels in available() {
                prop_assert_eq!(&products(kernels), &expected, "{} {}", kernels.name, block_len);
            }
        }
    }

    #[test]
    fn ternary_rows_bit_for_bit(
        trits in prop::collection::vec(-1_i8..=1, 128 * 48),
        first_group in 0_usize..4,
        groups in 0_usize..8,
        rows in 0_usize..6,
        x in int8s(128 * 8),
        shift in 0_usize..64,
        x_shift in 0_usize..64,
    ) {
        let blocks = Packing::Tq2_0.pack(&trits, 1.0).unwrap();
        let x = &x[..groups * 128];
        let expected: Vec<i32> = (0..rows)
            .map(|row| {
                let trits = &trits[(first_group + row * groups) * 128..];
                trits.iter().zip(x).map(|(&t, &x)| i32::from(t + 1) * i32::from(x)).sum()
            })
            .collect();
        for kernels in available() {
            let mut out = vec![0; rows];
            let rows = TernaryRows { blocks: &shifted(&blocks, shift)[shift..], first_group };
            (kernels.ternary_rows)(rows, Runs::ONE, &shifted(x, x_shift)[x_shift..], &mut out);
            prop_assert_eq!(&out, &expected, "{}", kernels.name);
        }
    }

    #[test]
    fn ternary_rows_of_any_bytes(
        blocks in bytes(0..900),
        first_group in 0_usize..12,
        x in int8s(0..700),
        rows in 0_usize..7,
    ) {
        let x = &x[..x.len() / 128 * 128];
        let mut expected = vec![0; rows];
        let given = TernaryRows { blocks: &blocks, first_group };
        (scalar::KERNELS.ternary_rows)(given, Runs::ONE, x, &mut expected);
        for kernels in available() {
            let mut out = vec![0; rows];
            (kernels.ternary_rows)(given, Runs::ONE, x, &mut out);
            prop_assert_eq!(&out, &expected, "{}", kernels.name);
        }
    }

    #[test]
    fn triples_bit_for_bit(
        seed: u64,
        rows in 0_usize..600,
        x in int8s(0..300),
        missing in 0_usize..2,
        shift in 0_usize..64,
    ) {
        let cols = x.len();
        let mut state = seed | 1;
        let trits: Vec<i8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as i8 % 2
        }).take(rows * cols).collect();
        let row = |row: usize| &trits[row * cols..][..cols];
        let num_groups = rows.div_ceil(GROUP_ROWS);
        // A group that is not there gives 0.
        let there = num_groups.saturating_sub(missing) * GROUP_ROWS;
        let products = |row: &[i8]| row.iter().zip(&x).map(|(&t, &x)| i32::from(t) * i32::from(x)).sum();
        let expected: Vec<i32> = (0..rows).map(|at| if at < there { products(row(at)) } else { 0 }).collect();
        for (name, kernels) in triple_kernels() {
            let group_bytes = (kernels.group_bytes)(cols);
            let mut groups = vec![0xff; num_groups * group_bytes];
            for (number, group) in groups.chunks_mut(group_bytes).enumerate() {
                let first = number * GROUP_ROWS;
                let own: Vec<i8> = (first..rows.min(first + GROUP_ROWS)).flat_map(row).copied().collect();
                (kernels.pack_group)(&own, cols, group);
                let mut codes = CodeRows::default();
                codes.resize(PANEL_ROWS, cols, 3);
                (0..PANEL_ROWS).for_each(|row| codes.row_mut(row)[..cols].fill(0xff));
                (kernels.unpack_group)(group, cols, &mut codes);
                for place in 0..GROUP_ROWS {
                    let trit = |col| own.get(place * cols + col).copied().unwrap_or_default();
                    let expected: Vec<u8> = (0..cols).map(|col| (trit(col) + 1).cast_unsigned()).collect();
                    prop_assert_eq!(&codes.row(place)[..cols], &expected, "{}", name);
                    prop_assert!(codes.row(place)[cols..].iter().all(|code| *code == 0), "{}", name);
                }
            }
            let groups = &groups[..there / GROUP_ROWS * group_bytes];
            let mut tables = vec![9; (kernels.table_bytes)(cols) + shift];
            (kernels.fill_tables)(&shifted(&x, shift)[shift..], &mut tables[shift..]);
            let mut out = vec![9; rows];
            (kernels.rows)(&shifted(groups, shift)[shift..], &tables[shift..], &mut out);
            prop_assert_eq!(&out, &expected, "{}", name);
        }
    }

    #[test]
    fn ternary_blocks_with_scales(
        codes in bytes(BLOCK_BYTES * 12),
        scales in prop::collection::vec(0.0_f32..3.0, 12),
        blocks_per_row in 0_usize..4,
        x in int8s(256 * 3),
    ) {
        let mut blocks = codes;
        for (block, scale) in blocks.chunks_mut(BLOCK_BYTES).zip(&scales) {
            block[BLOCK_BYTES - 2..].copy_from_slice(&f16::from_f32(*scale).to_le_bytes());
        }
        let x = &x[..blocks_per_row * 256];
        let sums: Vec<i32> = x.chunks(256).map(|x| x.iter().map(|&x| i32::from(x)).sum()).collect();
        let rows = 12_usize.checked_div(blocks_per_row).unwrap_or(2).min(7);
        let mut expected = vec![0.0; rows];
        (scalar::KERNELS.ternary_block_rows)(&blocks, Runs::ONE, x, &sums, &mut expected);
        for kernels in available() {
            let mut out = vec![0.0; rows];
            (kernels.ternary_block_rows)(&shifted(&blocks, 1)[1..], Runs::ONE, x, &sums, &mut out);
            for (found, expected) in out.iter().zip(&expected) {
                prop_assert!(near(*found, f64::from(*expected), 1e6), "{} {found} {expected}", kernels.name);
            }
        }
    }

    #[test]
    fn many_inputs_bit_for_bit(
        len in 1_usize..300,
        rows in 1_usize..=PANEL_ROWS,
        inputs in 1_usize..40,
        is_small: bool,
        is_extreme: bool,
        seed: u64,
    ) {
        let mut state = seed | 1;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as usize
        };
        // Extremes are -127 or 127 once they are rounded.
        let extreme = move |number: usize| if number.is_multiple_of(2) { -8e6 } else { 8e6 };
        let input = |number: usize| if is_extreme { extreme(number) } else { number as f32 - 8e6 };
        let x: Vec<f32> = (0..len * inputs).map(|_| input(random())).collect();
        let mut codes = CodeRows::default();
        let largest = if is_small { 3 } else { u8::MAX };
        // Rows of another length before must leave no trace.
        codes.resize(PANEL_ROWS, 333, u8::MAX);
        (0..PANEL_ROWS).for_each(|row| codes.row_mut(row).fill(0xff));
        codes.resize(rows, len, largest);
        for row in 0..rows {
            codes.row_mut(row)[..len].fill_with(|| if is_extreme { largest } else { random() as u8 & largest });
        }
        let mut expected = vec![0; rows * inputs];
        (scalar::KERNELS.multiply)(&codes, &Quantized::new(&x, len, &scalar::KERNELS), &mut expected);
        for kernels in available() {
            let mut out = vec![0; rows * inputs];
            (kernels.multiply)(&codes, &Quantized::new(&x, len, kernels), &mut out);
            prop_assert_eq!(&out, &expected, "{}", kernels.name);
        }
    }

    #[test]
    fn quantized_inputs_are_within_half_a_step(x in floats(400), rows in 1_usize..4) {
        let len = x.len() / rows;
        if len == 0 {
            return Ok(());
        }
        let reference = Quantized::new(&x[..rows * len], len, &scalar::KERNELS);
        prop_assert_eq!(reference.num_rows(), rows);
        for (row, x) in x.chunks_exact(len).take(rows).enumerate() {
            prop_assert_eq!(reference.sums[row], reference.row(row).iter().map(|&q| i32::from(q)).sum::<i32>());
            prop_assert_eq!(reference.block_sums(row).iter().sum::<i32>(), reference.sums[row]);
            for (x, &q) in x.iter().zip(reference.row(row)) {
                prop_assert!((-127..=127).contains(&q));
                prop_assert!((x - f32::from(q) * reference.scales[row]).abs() <= reference.scales[row] * 0.501);
            }
        }
        for kernels in available() {
            let found = Quantized::new(&x[..rows * len], len, kernels);
            for row in 0..rows {
                prop_assert_eq!(found.row(row), reference.row(row));
                prop_assert_eq!((found.scales[row], found.sums[row]), (reference.scales[row], reference.sums[row]));
            }
        }
    }

    #[test]
    fn plain_loops(x in prop::collection::vec(-30.0_f32..30.0, 0..100), codes in bytes(0..300), shift in -5.0_f32..5.0) {
        for kernels in available() {
            let squares: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            prop_assert!(near((kernels.sum_of_squares)(&x), squares, squares));
            let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            prop_assert_eq!((kernels.largest_magnitude)(&x), largest);
            let mut found = x.clone();
            let sum = f64::from((kernels.exp_shifted)(&mut found, shift));
            let exact: Vec<f64> = x.iter().map(|x| f64::from(x - shift).exp()).collect();
            for (found, exact) in found.iter().zip(&exact) {
                prop_assert!((f64::from(*found) / exact - 1.0).abs() < 1e-6, "{found} {exact}");
            }
            let exact_sum: f64 = exact.iter().sum();
            prop_assert!((sum - exact_sum).abs() <= 1e-5 * exact_sum);
            let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert_eq!((kernels.largest)(&x), most);
            let sums: Vec<i32> = x.iter().map(|x| (x * 1e7) as i32).collect();
            let mut found = vec![0.0; x.len()];
            (kernels.rescale)(&sums, -7, &x, 0.5, &mut found);
            let expected = sums.iter().zip(&x).map(|(sum, scale)| sum.wrapping_add(7) as f32 * scale * 0.5);
            prop_assert_eq!(found, expected.collect::<Vec<_>>());
            let (mut gate, up) = (x.clone(), vec![2.0; x.len()]);
            (kernels.silu_mul)(&mut gate, &up);
            for (found, x) in gate.iter().zip(&x) {
                let exact = 2.0 * f64::from(*x) / (1.0 + (-f64::from(*x)).exp());
                prop_assert!((f64::from(*found) - exact).abs() <= 1e-5 * exact.abs().max(1e-6), "{found} {exact}");
            }
            for (unpack, block_bytes) in [
                (|kernels: &Kernels| kernels.q3_k_floats) as fn(&Kernels) -> UnpackFloatsKernel,
                |kernels| kernels.q4_k_floats,
            ].into_iter().zip([Q3_K_BLOCK_BYTES, Q4_K_BLOCK_BYTES]) {
                let len = codes.len() / block_bytes * 256;
                let (mut found, mut expected) = (vec![9.0; len], vec![9.0; len]);
                unpack(kernels)(&codes, &mut found);
                unpack(&scalar::KERNELS)(&codes, &mut expected);
                // Which NaN a product with NaN gives is not said.
                let bits = |x: Vec<f32>| x.into_iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() });
                prop_assert!(bits(found).eq(bits(expected)), "{}", kernels.name);
            }
            let groups = &codes[..codes.len() / 32 * 32];
            let (mut found, mut expected) = (vec![9; groups.len() * 4], vec![9; groups.len() * 4]);
            (kernels.unpack)(groups, &mut found);
            (scalar::KERNELS.unpack)(groups, &mut expected);
            prop_assert_eq!(found, expected);
            prop_assert_eq!((kernels.read_all)(&codes), scalar::read_all(&codes));
        }
    }
}

#[test]
fn rows_in_runs_are_the_rows_themselves() {
    /// What a kernel makes of some of the rows from a byte on.
    type Products = fn(&Kernels, &[u8], usize, Runs, &mut [f32]);
    const COLS: usize = 256;
    fn x() -> Vec<i8> {
        (0..COLS).map(|i| (i * 37 % 255) as u8 as i8).collect()
    }
    fn floats() -> Vec<f32> {
        x().into_iter().map(f32::from).collect()
    }
    fn exact(out: &mut [f32], product: impl Fn(&mut [i32])) {
        let mut sums = vec![0; out.len()];
        product(&mut sums);
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
    }
    let forms: [(&str, usize, Products); 9] = [
        ("f32", 4 * COLS, |kernels, bytes, at, runs, out| (kernels.f32_rows)(&bytes[at..], runs, &floats(), out)),
        ("f16", 2 * COLS, |kernels, bytes, at, runs, out| (kernels.f16_rows)(&bytes[at..], runs, &floats(), out)),
        ("bf16", 2 * COLS, |kernels, bytes, at, runs, out| (kernels.bf16_rows)(&bytes[at..], runs, &floats(), out)),
        ("q8_0", 34 * 8, |kernels, bytes, at, runs, out| (kernels.q8_0_rows)(&bytes[at..], runs, &x(), out)),
        ("q4_0", 18 * 8, |kernels, bytes, at, runs, out| (kernels.q4_0_rows)(&bytes[at..], runs, &x(), out)),
        ("int8", COLS, |kernels, bytes, at, runs, out| {
            exact(out, |sums| (kernels.int8_rows)(&bytes[at..], runs, &x(), sums));
        }),
        ("trits", 66, |kernels, bytes, at, runs, out| {
            let rows = TernaryRows { blocks: bytes, first_group: at / 66 * 2 };
            exact(out, |sums| (kernels.ternary_rows)(rows, runs, &x(), sums));
        }),
        ("trits of half blocks", 33, |kernels, bytes, at, runs, out| {
            let rows = TernaryRows { blocks: bytes, first_group: at / 33 };
            exact(out, |sums| (kernels.ternary_rows)(rows, runs, &x()[..COLS / 2], sums));
        }),
        ("trits with scales", 66, |kernels, bytes, at, runs, out| {
            (kernels.ternary_block_rows)(&bytes[at..], runs, &x(), &[7], out);
        }),
    ];
    for (form, row_bytes, products) in forms {
        // Small numbers in every form: no byte is above 0x33.
        let bytes: Vec<u8> = (0..34 * row_bytes).map(|i| (i * 29 % 0x33) as u8).collect();
        for (kernels, len) in available().into_iter().flat_map(|kernels| (0..5).map(move |len| (kernels, len))) {
            let one = |row: usize| {
                let mut out = [9.0];
                products(kernels, &bytes, row * row_bytes, Runs::ONE, &mut out);
                out[0]
            };
            for (num, first) in [(2, 3), (3, 1), (4, 2), (8, 0)] {
                let runs = Runs { num, apart: 4 };
                let mut out = vec![9.0; num * len];
                products(kernels, &bytes, first * row_bytes, runs, &mut out);
                let expected: Vec<f32> = (0..num * len).map(|at| one(first + at / len * 4 + at % len)).collect();
                assert_eq!(out, expected, "{} {form} {runs:?} {len}", kernels.name);
            }
        }
    }
}

#[test]
fn extremes_do_not_saturate() {
    for kernels in available() {
        let mut out = [0; 5];
        for input in [127_i8, -127] {
            (kernels.int8_rows)(&[0x80; 5 * 64], Runs::ONE, &[input; 64], &mut out);
            assert_eq!(out, [-128 * i32::from(input) * 64; 5], "{}", kernels.name);
        }
        let (blocks, x) = (vec![0xff_u8; 66 * 20 * 5], vec![-127_i8; 256 * 20]);
        (kernels.ternary_rows)(TernaryRows { blocks: &blocks, first_group: 0 }, Runs::ONE, &x, &mut out);
        assert_eq!(out, [3 * -127 * 256 * 20; 5], "{}", kernels.name);
        let mut codes = CodeRows::default();
        codes.resize(PANEL_ROWS, 256 * 20, u8::MAX);
        (0..PANEL_ROWS).for_each(|row| codes.row_mut(row)[..256 * 20].fill(u8::MAX));
        let mut out = [0; 40 * PANEL_ROWS];
        (kernels.multiply)(&codes, &Quantized::new(&[-1.0; 256 * 20 * 40], 256 * 20, kernels), &mut out);
        assert!(out.iter().all(|sum| *sum == 255 * -127 * 256 * 20), "{}", kernels.name);
    }
}

#[test]
fn extremes_of_triples_do_not_saturate() {
    for (name, kernels) in triple_kernels() {
        for (trit, input) in [(1, -127_i8), (-1, -127), (-1, 127), (1, 126), (-1, 126), (-1, -126)] {
            let out = triple_products(kernels, &[trit; 5000 * GROUP_ROWS], &[input; 5000]);
            assert_eq!(out, [i32::from(trit) * i32::from(input) * 5000; GROUP_ROWS], "{name}");
        }
    }
}

#[test]
fn the_longest_rows_fit() {
    for kernels in available() {
        let blocks = vec![0xff_u8; 66 * (MAX_TERNARY_LEN / 256)];
        let mut out = [0];
        for input in [127_i8, -127] {
            let x = vec![input; MAX_TERNARY_LEN];
            (kernels.ternary_rows)(TernaryRows { blocks: &blocks, first_group: 0 }, Runs::ONE, &x, &mut out);
            assert_eq!(i64::from(out[0]), 3 * i64::from(input) * MAX_TERNARY_LEN as i64, "{}", kernels.name);
            let values = vec![0x80; MAX_INT8_LEN];
            (kernels.int8_rows)(&values, Runs::ONE, &x[..MAX_INT8_LEN], &mut out);
            assert_eq!(i64::from(out[0]), -128 * i64::from(input) * MAX_INT8_LEN as i64, "{}", kernels.name);
            let x = vec![input; MAX_TRIPLES_LEN];
            let out = triple_products(kernels.triples, &vec![-1; x.len()], &x);
            assert_eq!(out[0], -i32::from(input) * MAX_TRIPLES_LEN as i32, "{}", kernels.name);
        }
    }
}

#[test]
fn exponentials_at_the_ends() {
    for kernels in available() {
        let mut x = [-1e30, -88.0, 0.0, 88.6, 89.0, f32::NAN, f32::NEG_INFINITY, f32::INFINITY];
        (kernels.exp_shifted)(&mut x, 0.0);
        assert_eq!((x[0], x[1], x[2], x[6]), (0.0, 0.0, 1.0, 0.0), "{}", kernels.name);
        assert!((f64::from(x[3]) / 88.6_f64.exp() - 1.0).abs() < 1e-5 && x[4] == f32::INFINITY);
        assert!(x[5].is_nan() && x[7] == f32::INFINITY);
    }
}

#[test]
fn trouble_in_the_input_stays_visible() {
    for kernels in available() {
        let quantize = |x: &[f32]| Quantized::new(x, x.len(), kernels);
        assert!(quantize(&[1.0, f32::NAN]).scales[0].is_nan());
        assert!(quantize(&[f32::NEG_INFINITY]).scales[0].is_nan());
        let zeros = quantize(&[0.0, -0.0]);
        assert_eq!((zeros.row(0), zeros.scales[0], zeros.sums[0]), (&[0_i8, 0][..], 0.0, 0));
        assert_eq!(quantize(&[1e-45]).scales[0], 0.0);
        assert_eq!(quantize(&[-2.0, 1.0]).row(0), [-127, 64]);
    }
}
