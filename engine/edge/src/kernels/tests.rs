//! Every kernel against the reference on random ragged lengths, and the reference against plain arithmetic.
#![allow(clippy::unwrap_used, reason = "tests")]

use foretrain_ternary::Packing;
use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::gguf::encode_q8_0;

fn floats(max_len: usize) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-2.0_f32..2.0, 0..max_len)
}

fn int8s(max_len: usize) -> impl Strategy<Value = Vec<i8>> {
    prop::collection::vec(-127_i8..=127, 0..max_len)
}

fn exact(weights: impl Iterator<Item = f32>, x: &[f32]) -> f64 {
    weights.zip(x).map(|(w, x)| f64::from(w) * f64::from(*x)).sum()
}

fn near(found: f32, expected: f64) -> bool {
    (f64::from(found) - expected).abs() < 1e-3
}

proptest! {
    #[test]
    fn float_rows(weights in floats(200), x in floats(200)) {
        let f32s: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        let f16s: Vec<u8> = weights.iter().flat_map(|w| f16::from_f32(*w).to_le_bytes()).collect();
        let bf16s: Vec<u8> = weights.iter().flat_map(|w| bf16::from_f32(*w).to_le_bytes()).collect();
        let expected = exact(weights.iter().copied(), &x);
        prop_assert!(near(scalar::dot_f32(&f32s, &x), expected) && near(dot_f32(&f32s, &x), expected));
        let expected = exact(weights.iter().map(|w| f16::from_f32(*w).to_f32()), &x);
        prop_assert!(near(scalar::dot_f16(&f16s, &x), expected) && near(dot_f16(&f16s, &x), expected));
        let expected = exact(weights.iter().map(|w| bf16::from_f32(*w).to_f32()), &x);
        prop_assert!(near(scalar::dot_bf16(&bf16s, &x), expected) && near(dot_bf16(&bf16s, &x), expected));
    }

    #[test]
    fn int8_rows_bit_for_bit(weights in prop::collection::vec(any::<i8>(), 0..300), x in int8s(300)) {
        let bytes: Vec<u8> = weights.iter().map(|w| w.cast_unsigned()).collect();
        let expected: i32 = weights.iter().zip(&x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
        prop_assert_eq!(scalar::dot_i8(&bytes, &x), expected);
        prop_assert_eq!(dot_i8(&bytes, &x), expected);
    }

    #[test]
    fn q8_0_rows(weights in prop::collection::vec(-2.0_f32..2.0, 160), x in int8s(200)) {
        let blocks = encode_q8_0(&weights).unwrap();
        let (reference, found) = (scalar::dot_q8_0(&blocks, &x), dot_q8_0(&blocks, &x));
        prop_assert!((reference - found).abs() <= 1e-4 * (1.0 + reference.abs()), "{reference} {found}");
    }

    #[test]
    fn ternary_rows_bit_for_bit(
        trits in prop::collection::vec(-1_i8..=1, 128 * 25),
        row in 0_usize..4,
        num_groups in 0_usize..21,
        x in prop::collection::vec(-127_i8..=127, 128 * 20),
    ) {
        let blocks = Packing::Tq2_0.pack(&trits, 1.0).unwrap();
        let x = &x[..x.len().min(num_groups * 128)];
        let expected: i32 =
            trits[row * 128..].iter().zip(x).map(|(&t, &x)| i32::from(t + 1) * i32::from(x)).sum();
        prop_assert_eq!(scalar::dot_tq2_0(&blocks, row, x), expected);
        prop_assert_eq!(dot_tq2_0(&blocks, row, x), expected);
    }

    #[test]
    fn ternary_rows_of_any_bytes(
        blocks in prop::collection::vec(any::<u8>(), 0..700),
        first_group in 0_usize..12,
        x in prop::collection::vec(-127_i8..=127, 0..1500),
    ) {
        prop_assert_eq!(dot_tq2_0(&blocks, first_group, &x), scalar::dot_tq2_0(&blocks, first_group, &x));
    }

    #[test]
    fn quantized_inputs_are_within_half_a_step(x in floats(100)) {
        let quantized = quantize(&x);
        prop_assert_eq!(quantized.sum, quantized.values.iter().map(|&q| i32::from(q)).sum::<i32>());
        for (x, &q) in x.iter().zip(&quantized.values) {
            prop_assert!((-127..=127).contains(&q));
            prop_assert!((x - f32::from(q) * quantized.scale).abs() <= quantized.scale * 0.501);
        }
    }
}

#[test]
fn extremes_do_not_saturate() {
    let (weights, x) = (vec![0x80_u8; 64], vec![127_i8; 64]);
    assert_eq!(dot_i8(&weights, &x), -128 * 127 * 64);
    assert_eq!(dot_i8(&weights, &[-127; 64]), 128 * 127 * 64);
    let blocks = vec![0xff_u8; 66 * 20];
    let x = vec![-127_i8; 256 * 20];
    assert_eq!(dot_tq2_0(&blocks, 0, &x), 3 * -127 * 256 * 20);
}

#[test]
fn trouble_in_the_input_stays_visible() {
    assert!(quantize(&[1.0, f32::NAN]).scale.is_nan());
    assert!(quantize(&[f32::NEG_INFINITY]).scale.is_nan());
    assert_eq!(quantize(&[0.0, -0.0]), Quantized { values: vec![0, 0], scale: 0.0, sum: 0 });
    assert_eq!(quantize(&[1e-45]).scale, 0.0);
    assert_eq!(quantize(&[-2.0, 1.0]).values, [-127, 64]);
}
