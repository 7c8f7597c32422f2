//! Every geometry against candle's own convolution, gradients against central differences, every kind of vector.
#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::{DType, Tensor, Var};

use super::kernel::{BLOCK, RowDots, ShiftedSums};
use super::plan::Sizes;
use super::*;
use crate::check::{gradient_error, max_difference, wave};
use crate::lanes::{Kernel, Portable, Vectors};
use crate::{Epilogue, max_pool2d};

/// x, weight, stride, padding
const GEOMETRIES: [([usize; 4], [usize; 4], usize, usize); 13] = [
    ([3, 2, 6, 7], [5, 2, 3, 3], 1, 1),
    ([9, 3, 8, 8], [16, 3, 3, 3], 1, 1),
    ([2, 16, 4, 4], [9, 16, 3, 3], 1, 1),
    ([2, 3, 8, 8], [4, 3, 3, 3], 2, 1),
    ([2, 3, 7, 9], [4, 3, 3, 3], 2, 1),
    ([2, 3, 8, 6], [8, 3, 1, 1], 2, 0),
    ([2, 3, 5, 5], [4, 3, 1, 1], 1, 0),
    ([1, 2, 9, 8], [3, 2, 5, 3], 1, 2),
    ([1, 2, 9, 8], [3, 2, 3, 3], 3, 1),
    ([1, 2, 9, 8], [3, 2, 3, 2], 2, 0),
    ([2, 1, 3, 3], [1, 1, 3, 3], 1, 0),
    ([1, 1, 11, 10], [2, 1, 4, 4], 3, 2),
    ([2, 2, 3, 37], [3, 2, 3, 3], 1, 1),
];

fn inputs(x: &[usize], weight: &[usize]) -> [Tensor; 3] {
    [wave(x, 1.0).unwrap(), wave(weight, 0.5).unwrap(), wave(&weight[..1], 0.3).unwrap()]
}

/// Output and gradients of Σ y·probe.
fn run(
    inputs: &[Tensor; 3],
    config: Conv2dConfig,
    conv: fn(&Tensor, &Tensor, Option<&Tensor>, Conv2dConfig) -> candle_core::Result<Tensor>,
) -> Vec<Tensor> {
    let vars = inputs.each_ref().map(|t| Var::from_tensor(t).unwrap());
    let y = conv(&vars[0], &vars[1], Some(&vars[2]), config).unwrap();
    let probe = wave(y.dims(), 1.0).unwrap().to_dtype(y.dtype()).unwrap();
    let grads = (&y * probe).unwrap().sum_all().unwrap().backward().unwrap();
    let mut found = vec![y.detach()];
    found.extend(vars.iter().map(|var| grads.get(var).unwrap().clone()));
    found
}

#[test]
fn agrees_with_candle_in_every_geometry() {
    // candle cannot differentiate windows that are not square.
    for (x, weight, stride, padding) in GEOMETRIES.into_iter().filter(|(_, weight, ..)| weight[2] == weight[3]) {
        for epilogue in [Epilogue::Identity, Epilogue::Relu] {
            for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
                let config = Conv2dConfig { stride, padding, epilogue };
                let inputs = inputs(&x, &weight).map(|t| t.to_dtype(dtype).unwrap());
                let (ours, theirs) = (run(&inputs, config, conv2d), run(&inputs, config, composed));
                for (part, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                    assert_eq!(a.dims(), b.dims());
                    let difference = max_difference(a, b).unwrap();
                    assert!(difference < tolerance, "{x:?} {weight:?} {config:?} part {part}: {difference}");
                }
            }
        }
    }
}

/// Wide enough for Winograd's domain: sides that tiles fill and that they do not, channels that fill no vector, more images
/// than a group.
#[test]
fn winograds_domain_agrees_with_candle() {
    for (x, weight, outputs) in [
        ([3, 64, 6, 6], [64, 64, 3, 3], 2),
        ([2, 65, 5, 6], [70, 65, 3, 3], 2),
        ([19, 64, 3, 1], [67, 64, 3, 3], 2),
        ([33, 64, 8, 8], [64, 64, 3, 3], 4),
        ([2, 65, 13, 14], [70, 65, 3, 3], 4),
        ([5, 64, 15, 16], [67, 64, 3, 3], 4),
        ([9, 33, 16, 13], [32, 33, 3, 3], 4),
    ] {
        let sizes = Sizes::new(&x, &weight, 1, 1).unwrap();
        let domain = winograd::Winograd::of(sizes).unwrap();
        assert!(domain.group < x[0], "several groups");
        assert_eq!(domain.positions(), (outputs + 2) * (outputs + 2), "{x:?}");
        let config = Conv2dConfig { stride: 1, padding: 1, epilogue: Epilogue::Relu };
        // Values are up to 10 or so, gradients of weights up to 50; the larger tiles lose about four bits of an f32.
        for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 5e-4)] {
            let inputs = inputs(&x, &weight).map(|t| t.to_dtype(dtype).unwrap());
            let (ours, theirs) = (run(&inputs, config, conv2d), run(&inputs, config, composed));
            for (part, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                let difference = max_difference(a, b).unwrap();
                assert!(difference < tolerance, "{x:?} {weight:?} {dtype:?} part {part}: {difference}");
            }
        }
    }
}

/// The larger tiles weigh numbers: what that costs sums in f32, beside those of a direct convolution.
#[test]
fn larger_tiles_lose_few_bits() {
    let config = Conv2dConfig { stride: 1, padding: 1, epilogue: Epilogue::Identity };
    let [exact, single] = [DType::F64, DType::F32].map(|dtype| {
        let inputs = inputs(&[32, 128, 8, 8], &[64, 128, 3, 3]).map(|t| t.to_dtype(dtype).unwrap());
        [conv2d, composed].map(|conv| run(&inputs, config, conv))
    });
    let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
    for (part, limit) in [4.0, 16.0, 4.0].into_iter().enumerate() {
        let [ours, direct] = [0, 1].map(|way| {
            let found = single[way][part].to_dtype(DType::F64).unwrap();
            norm(&(found - &exact[1][part]).unwrap()) / norm(&exact[1][part])
        });
        assert!(ours < limit * direct, "part {part}: {ours:e}, directly {direct:e}");
    }
}

#[test]
fn winograds_domain_is_for_wide_3x3_of_stride_1() {
    let of = |side: usize, weight: [usize; 4], stride, padding| {
        let sizes = Sizes::new(&[64, weight[1], side, side], &weight, stride, padding).unwrap();
        winograd::Winograd::of(sizes).is_some()
    };
    assert!(of(8, [64, 64, 3, 3], 1, 1) && of(4, [64, 64, 3, 3], 1, 1) && of(8, [32, 32, 3, 3], 1, 1));
    for (weight, stride, padding) in [([64, 64, 3, 3], 2, 1), ([64, 64, 1, 1], 1, 0), ([64, 3, 3, 3], 1, 1)] {
        assert!(!of(8, weight, stride, padding), "{weight:?} {stride} {padding}");
    }
    assert!(!of(4, [32, 32, 3, 3], 1, 1), "small tiles of few channels");
    let positions = |batch| {
        let sizes = Sizes::new(&[batch, 64, 8, 8], &[64, 64, 3, 3], 1, 1).unwrap();
        winograd::Winograd::of(sizes).unwrap().positions()
    };
    assert_eq!([8, 64].map(positions), [16, 36], "products of few rows");
}

#[test]
fn gradients_are_central_differences() {
    for (x, weight, stride, padding) in GEOMETRIES {
        let config = Conv2dConfig { stride, padding, epilogue: Epilogue::Identity };
        let error =
            gradient_error(&inputs(&x, &weight), |t| conv2d(&t[0], &t[1], Some(&t[2]), config)?.sqr()?.sum_all());
        let error = error.unwrap();
        assert!(error < 1e-6, "{x:?} {weight:?} {config:?}: {error}");
    }
}

#[test]
fn pooling_in_the_same_pass_changes_nothing() {
    for (x, weight) in [([3, 2, 6, 7], [5, 2, 3, 3]), ([9, 3, 8, 8], [16, 3, 3, 3])] {
        let pooled = |x: &Tensor, w: &Tensor, b: Option<&Tensor>, _| conv2d_relu_pool(x, w, b.unwrap(), 1);
        let apart = |x: &Tensor, w: &Tensor, b: Option<&Tensor>, config| max_pool2d(&conv2d(x, w, b, config)?);
        let config = Conv2dConfig { stride: 1, padding: 1, epilogue: Epilogue::Relu };
        let inputs = inputs(&x, &weight);
        for (part, (a, b)) in run(&inputs, config, pooled).iter().zip(run(&inputs, config, apart)).enumerate() {
            assert!(max_difference(a, &b).unwrap() < 1e-12, "{x:?} part {part}");
        }
        let error = gradient_error(&inputs, |t| conv2d_relu_pool(&t[0], &t[1], &t[2], 1)?.sqr()?.sum_all()).unwrap();
        assert!(error < 1e-6, "{error}");
    }
}

#[test]
fn without_bias_and_without_an_input_gradient() {
    let [x, weight, _] = inputs(&[2, 3, 6, 6], &[4, 3, 3, 3]);
    let config = Conv2dConfig { stride: 1, padding: 1, epilogue: Epilogue::Identity };
    let weight = Var::from_tensor(&weight).unwrap();
    let gradient = |y: Tensor| y.sqr().unwrap().sum_all().unwrap().backward().unwrap().get(&weight).unwrap().clone();
    let ours = gradient(conv2d(&x, &weight, None, config).unwrap());
    let theirs = gradient(composed(&x, &weight, None, config).unwrap());
    assert!(max_difference(&ours, &theirs).unwrap() < 1e-10);
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let check = |x: &[usize], weight: &[usize], part: &str| {
        let (x, weight) = (Tensor::zeros(x, DType::F32, &candle_core::Device::Cpu).unwrap(), weight);
        let weight = Tensor::zeros(weight, DType::F32, &candle_core::Device::Cpu).unwrap();
        let config = Conv2dConfig { stride: 1, padding: 1, epilogue: Epilogue::Identity };
        let message = conv2d(&x, &weight, None, config).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    };
    check(&[0, 3, 8, 8], &[4, 3, 3, 3], "positive");
    check(&[1, 3, 8], &[4, 3, 3, 3], "expected x (n, c, h, w)");
    check(&[1, 2, 8, 8], &[4, 3, 3, 3], "channels");
    check(&[1, 3, 2, 2], &[4, 3, 5, 5], "larger than");
}

/// Buffers serve one group after the other, and one partial sum after the other where threads are few.
#[test]
fn partial_sums_of_several_groups_are_the_same_on_any_number_of_threads() {
    let numbers = |n: usize| -> Vec<f32> { wave(&[n], 1.0).unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap() };
    for (x, weight, stride) in [
        ([19, 3, 9, 7], [5, 3, 3, 3], 1),
        ([19, 3, 9, 7], [5, 3, 3, 3], 2),
        ([19, 64, 5, 4], [65, 64, 3, 3], 1),
        ([19, 64, 14, 13], [65, 64, 3, 3], 1),
    ] {
        let sizes = Sizes::new(&x, &weight, stride, 1).unwrap();
        let (images, weights) = (numbers(x.iter().product()), numbers(weight.iter().product()));
        let gradient = numbers(sizes.batch * sizes.out_image());
        let run = |partials: usize, num_threads: usize, adds: bool| {
            let mut dx = vec![if adds { 1.0 } else { f32::NAN }; images.len()];
            let input = if adds { InputGradient::Add(&mut dx) } else { InputGradient::Write(&mut dx) };
            let of_images = |first: usize, dy: &mut [f32]| {
                dy.copy_from_slice(&gradient[first * sizes.out_image()..][..dy.len()]);
            };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads).build().unwrap();
            let wanted = Wanted { input, bias: true };
            let (dw, db) =
                pool.install(|| gradients::gradients_in(partials, sizes, &images, &weights, wanted, of_images));
            [dx, dw, db]
        };
        let found = run(2, 1, false);
        assert_eq!(found, run(2, 4, false), "{x:?}");
        let [dx, dw, db] = run(16, 2, true);
        let added: Vec<f32> = found[0].iter().map(|dx| dx + 1.0).collect();
        for (a, b) in [(&added, &dx), (&found[1], &dw), (&found[2], &db)] {
            let largest = a.iter().fold(1.0_f32, |largest, a| largest.max(a.abs()));
            let is_near = a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * largest);
            assert!(is_near, "{x:?} stride {stride}: one group to a partial sum differs");
        }
    }
}

#[test]
fn groups_are_even_and_cover_the_batch() {
    let sizes = Sizes::new(&[64, 16, 32, 32], &[16, 16, 3, 3], 1, 1).unwrap();
    assert_eq!(sizes.group(), 4, "16 groups of 4, not 13 of 5");
    for (batch, most) in [(1, 5), (7, 3), (9, 100), (128, 6), (100, 1)] {
        let group = plan::even_group(batch, most, 8);
        assert!((1..=most).contains(&group) && batch.div_ceil(group) >= batch.min(8) / 2, "{batch} {most} {group}");
    }
    let single = Sizes { batch: 1, ..sizes };
    assert_eq!(single.group(), 1);
}

/// Both kernels on plain arrays of several widths must give what the widest vectors give.
#[test]
fn kinds_of_vectors_agree() {
    let numbers = |n: usize| -> Vec<f32> { wave(&[n], 1.0).unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap() };
    let (len, offsets) = (112, [0, 3, 17, 40, 41]);
    let (rows, weights, gradients) = (numbers(len + 41), numbers(5 * BLOCK), numbers(7 * len));
    let sums = |by: fn(ShiftedSums<'_, f32>)| {
        let mut out = vec![0.0; BLOCK * len];
        by(ShiftedSums { rows: &rows, offsets: &offsets, weights: &weights, out: &mut out, len });
        out
    };
    let dots = |by: fn(RowDots<'_, f32>)| {
        let mut out = vec![0.0; 7 * 5];
        by(RowDots { rows: &rows, offsets: &offsets, gradients: &gradients, out: &mut out, len });
        out
    };
    let close = |a: Vec<f32>, b: Vec<f32>| assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4));
    close(sums(|k| f32::dispatch(k)), sums(|k| k.run::<Portable<f32, 4>>()));
    close(sums(|k| f32::dispatch(k)), sums(|k| k.run::<Portable<f32, 16>>()));
    close(dots(|k| f32::dispatch(k)), dots(|k| k.run::<Portable<f32, 4>>()));
    close(dots(|k| f32::dispatch(k)), dots(|k| k.run::<Portable<f32, 8>>()));
}
