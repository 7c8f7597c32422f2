//! Against candle's own operations and central differences, for each kind of statistics.
#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::{DType, Device, Result, Tensor, Var};

use super::*;
use crate::Epilogue;
use crate::check::{gradient_error, max_difference, wave};

const EPS: f64 = 1e-5;

/// One weight, scale and shift after another, for layers (out, in, kernel).
fn weights(layers: &[(usize, usize, usize)]) -> Vec<Tensor> {
    let tensors = layers.iter().flat_map(|&(o, i, k)| {
        let scale = wave(&[o], 0.4).unwrap().affine(1.0, 1.0).unwrap();
        [wave(&[o, i, k, k], 0.5).unwrap(), scale, wave(&[o], 0.3).unwrap()]
    });
    tensors.collect()
}

/// Given moments of `channels`.
fn given(channels: usize) -> (Tensor, Tensor) {
    (wave(&[channels], 0.5).unwrap(), wave(&[channels], 0.4).unwrap().affine(1.0, 1.0).unwrap())
}

fn layer<'a>(t: &'a [Tensor], stride: usize, statistics: Statistics<'a>) -> ConvNorm<'a> {
    let padding = t[0].dims()[2] / 2;
    ConvNorm { weight: &t[0], scale: &t[1], shift: &t[2], stride, padding, eps: EPS, statistics }
}

/// Output and gradients of Σ y·probe, of two functions of the same inputs.
fn check_same(inputs: &[Tensor], tolerance: f64, f: impl Fn(&[Tensor]) -> Tensor, g: impl Fn(&[Tensor]) -> Tensor) {
    let run = |function: &dyn Fn(&[Tensor]) -> Tensor| {
        let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
        let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let y = function(&tracked);
        let probe = wave(y.dims(), 1.0).unwrap().to_dtype(y.dtype()).unwrap();
        let grads = (&y * probe).unwrap().sum_all().unwrap().backward().unwrap();
        let mut found = vec![y.detach()];
        found.extend(vars.iter().map(|var| grads.get(var).unwrap().clone()));
        found
    };
    for (part, (a, b)) in run(&f).iter().zip(run(&g)).enumerate() {
        let difference = max_difference(a, &b).unwrap();
        assert!(difference < tolerance, "part {part}: {difference}");
    }
}

fn in_f32(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect()
}

#[test]
fn batch_norm_agrees_with_candle_and_with_central_differences() {
    let (mean, var) = given(3);
    for statistics in [Statistics::Batch, Statistics::Given { mean: &mean, var: &var }] {
        for epilogue in [Epilogue::Identity, Epilogue::Relu] {
            let mut inputs = vec![wave(&[4, 3, 5, 6], 1.0).unwrap()];
            inputs.extend(weights(&[(3, 1, 1)]).split_off(1));
            let affine = |t: &'_ [Tensor]| -> (Tensor, Tensor) { (t[1].clone(), t[2].clone()) };
            #[allow(clippy::type_complexity, reason = "the signature that both forms share")]
            let apply =
                |t: &[Tensor], by: fn(&Tensor, Statistics<'_>, Affine<'_>) -> Result<(Tensor, Option<Moments>)>| {
                    let (weight, bias) = affine(t);
                    by(&t[0], statistics, Affine { weight: &weight, bias: &bias, eps: EPS, epilogue }).map(|(y, _)| y)
                };
            check_same(&inputs, 1e-12, |t| apply(t, batch_norm).unwrap(), |t| apply(t, composed).unwrap());
            let error = gradient_error(&inputs, |t| apply(t, batch_norm)?.powf(3.0)?.sum_all()).unwrap();
            assert!(error < 1e-6, "{error}");
        }
    }
}

#[test]
fn moments_are_those_of_the_batch() {
    let x = wave(&[4, 3, 5, 6], 1.0).unwrap().affine(1.0, 7.0).unwrap();
    let (one, zero) = (Tensor::ones(3, DType::F64, &Device::Cpu).unwrap(), Tensor::zeros(3, DType::F64, &Device::Cpu));
    let affine = Affine { weight: &one, bias: &zero.unwrap(), eps: EPS, epilogue: Epilogue::Identity };
    let (_, ours) = batch_norm(&x, Statistics::Batch, affine).unwrap();
    let (_, theirs) = composed(&x, Statistics::Batch, affine).unwrap();
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!((ours.count, ours.count), (120, theirs.count));
    assert!(max_difference(&ours.mean, &theirs.mean).unwrap() < 1e-12);
    assert!(max_difference(&ours.var, &theirs.var).unwrap() < 1e-12);
    // Nothing is taken from given moments.
    let statistics = Statistics::Given { mean: &ours.mean, var: &ours.var };
    assert!(batch_norm(&x, statistics, affine).unwrap().1.is_none());
}

#[test]
fn conv_norm_agrees_with_candle_and_with_central_differences() {
    let (mean, var) = given(4);
    for statistics in [Statistics::Batch, Statistics::Given { mean: &mean, var: &var }] {
        for (stride, epilogue) in [(1, Epilogue::Relu), (2, Epilogue::Identity)] {
            let mut inputs = vec![wave(&[3, 2, 6, 6], 1.0).unwrap()];
            inputs.extend(weights(&[(4, 2, 3)]));
            let ours = |t: &[Tensor]| conv_norm(&t[0], layer(&t[1..], stride, statistics), epilogue).map(|(y, _)| y);
            let theirs = |t: &[Tensor]| layer(&t[1..], stride, statistics).composed(&t[0], epilogue).unwrap().0;
            check_same(&inputs, 1e-11, |t| ours(t).unwrap(), theirs);
            let error = gradient_error(&inputs, |t| ours(t)?.powf(3.0)?.sum_all()).unwrap();
            assert!(error < 1e-6, "{error}");
        }
    }
}

/// The shortcut's layer comes third when there is one.
fn block<'a>(t: &'a [Tensor], stride: usize, statistics: [Statistics<'a>; 3]) -> ResidualBlock<'a> {
    let [first, second, third] = statistics;
    ResidualBlock {
        first: layer(&t[1..], stride, first),
        second: layer(&t[4..], 1, second),
        shortcut: t.get(7..).filter(|t| !t.is_empty()).map(|t| layer(t, stride, third)),
    }
}

#[test]
fn residual_block_agrees_with_candle_and_with_central_differences() {
    let (mean, var) = given(4);
    let same = vec![(4, 4, 3), (4, 4, 3)];
    let halved = vec![(4, 3, 3), (4, 4, 3), (4, 3, 1)];
    for statistics in [[Statistics::Batch; 3], [Statistics::Given { mean: &mean, var: &var }; 3]] {
        for (layers, channels, stride) in [(&same, 4, 1), (&halved, 3, 2)] {
            let mut inputs = vec![wave(&[3, channels, 6, 6], 1.0).unwrap()];
            inputs.extend(weights(layers));
            let ours = |t: &[Tensor]| residual_block(&t[0], block(t, stride, statistics)).map(|(y, _)| y);
            let theirs = |t: &[Tensor]| residual::composed(&t[0], block(t, stride, statistics)).unwrap().0;
            check_same(&inputs, 1e-10, |t| ours(t).unwrap(), theirs);
            let error = gradient_error(&inputs, |t| ours(t)?.sqr()?.sum_all()).unwrap();
            assert!(error < 1e-5, "{layers:?}: {error}");
        }
    }
    let mut inputs = in_f32(&[wave(&[3, 3, 6, 6], 1.0).unwrap()]);
    inputs.extend(in_f32(&weights(&halved)));
    let statistics = [Statistics::Batch; 3];
    let ours = |t: &[Tensor]| residual_block(&t[0], block(t, 2, statistics)).unwrap().0;
    check_same(&inputs, 1e-3, ours, |t| residual::composed(&t[0], block(t, 2, statistics)).unwrap().0);
}

#[test]
fn an_untracked_input_leaves_the_weights_their_gradients() {
    let x = wave(&[3, 3, 6, 6], 1.0).unwrap();
    let weights = weights(&[(4, 3, 3), (4, 4, 3), (4, 3, 1)]);
    let check = |tensors: &[Tensor]| {
        let mut t = vec![x.clone()];
        t.extend_from_slice(tensors);
        residual_block(&t[0], block(&t, 2, [Statistics::Batch; 3])).map(|(y, _)| y)
    };
    let error = gradient_error(&weights, |t| check(t)?.sqr()?.sum_all()).unwrap();
    assert!(error < 1e-5, "{error}");
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let x = wave(&[2, 3, 6, 6], 1.0).unwrap();
    let t = weights(&[(4, 3, 3)]);
    let error = |result: Result<(Tensor, Option<Moments>)>| result.unwrap_err().to_string();
    let affine = Affine { weight: &t[1], bias: &t[2], eps: EPS, epilogue: Epilogue::Identity };
    assert!(error(batch_norm(&x, Statistics::Batch, affine)).contains("expected weight and bias (3)"));
    let empty = Tensor::zeros((0, 4, 6, 6), DType::F32, &Device::Cpu).unwrap();
    assert!(error(batch_norm(&empty, Statistics::Batch, affine)).contains("not empty"));
    assert!(error(conv_norm(&empty, layer(&t, 1, Statistics::Batch), Epilogue::Relu)).contains("channels"));
    let (mean, var) = given(5);
    let wrong = Statistics::Given { mean: &mean, var: &var };
    assert!(error(conv_norm(&x, layer(&t, 1, wrong), Epilogue::Relu)).contains("moments of 4 channels"));
}
