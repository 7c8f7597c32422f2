//! The rules against references in f64, state, and what must never happen.

#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::{DType, Device, Tensor};
use rand::RngExt;

use super::kernels::{self, AdamWNumbers, MomentsMut};
use super::muon::MatrixView;
use super::{
    Gradients, OptimError, Optimizer, OptimizerConfig, OptimizerKind, StatePlace, StatePrecision, WeightAverage,
};
use crate::device::seed::{Stream, stream};
use crate::models::ops::without_kernels;
use crate::models::{Init, ParamStore, Params, TensorKind, TensorSpec};

fn config(kind: OptimizerKind) -> OptimizerConfig {
    OptimizerConfig {
        kind,
        learning_rate: 0.02,
        adam_learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.1,
        momentum: 0.9,
        newton_schulz_steps: 5,
        clip_norm: None,
        states: StatePrecision::F32,
        state_place: StatePlace::WithWeights,
    }
}

/// Both rules with both kinds of state.
fn all_configs() -> impl Iterator<Item = OptimizerConfig> {
    [OptimizerKind::AdamW, OptimizerKind::Muon]
        .into_iter()
        .flat_map(|kind| StatePrecision::ALL.map(|states| OptimizerConfig { states, ..config(kind) }))
}

fn spec(name: &str, shape: &[usize], kind: TensorKind) -> TensorSpec {
    TensorSpec { name: name.to_owned(), shape: shape.to_vec(), kind, init: Init::Constant(0.0) }
}

/// A matrix large enough for several chunks, GPT-2's fused attention, a convolution, an embedding, a vector.
fn specs() -> Vec<TensorSpec> {
    vec![
        spec("wide.weight", &[70, 300], TensorKind::Matrix),
        spec("h.0.attn.c_attn.weight", &[16, 48], TensorKind::Matrix),
        spec("conv.weight", &[8, 4, 3, 3], TensorKind::Matrix),
        spec("wte.weight", &[40, 16], TensorKind::Embedding),
        spec("bias", &[16], TensorKind::Vector),
    ]
}

fn random(shape: &[usize], index: u64) -> Tensor {
    let mut rng = stream(7, Stream::Init, index);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn random_params(specs: &[TensorSpec], seed: u64) -> Params {
    let tensor =
        |(index, spec): (usize, &TensorSpec)| (spec.name.clone(), random(&spec.shape, seed * 1000 + index as u64));
    specs.iter().enumerate().map(tensor).collect()
}

fn store(specs: &[TensorSpec]) -> ParamStore {
    ParamStore::new(random_params(specs, 1), Params::default(), &Device::Cpu).unwrap()
}

fn gradients(specs: &[TensorSpec], step: u64) -> Gradients {
    Gradients::from_tensors(random_params(specs, 100 + step)).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(params: &Params) -> Vec<(String, Vec<u32>)> {
    let bits = |(name, tensor): (&str, &Tensor)| {
        let tensor = tensor.to_dtype(DType::F32).unwrap();
        (name.to_owned(), values(&tensor).into_iter().map(f32::to_bits).collect())
    };
    params.iter().map(bits).collect()
}

#[test]
fn adamw_follows_the_paper() {
    let specs = [spec("w", &[150, 200], TensorKind::Matrix), spec("b", &[5], TensorKind::Vector)];
    let config = config(OptimizerKind::AdamW);
    let store = store(&specs);
    let mut optimizer = Optimizer::new(&config, &specs).unwrap();
    // Algorithm 2 of arXiv 1711.05101, in f64, weight by weight.
    let mut reference: Vec<(String, f64, Vec<[f64; 3]>)> = store
        .vars()
        .map(|(name, var)| {
            let decay = if name == "b" { 0.0 } else { config.weight_decay };
            (name.to_owned(), decay, values(var).into_iter().map(|w| [f64::from(w), 0.0, 0.0]).collect())
        })
        .collect();
    for step in 1..=20_u32 {
        let gradients = gradients(&specs, u64::from(step));
        let factor = 1.0 / f64::from(step);
        optimizer.step(&store, &gradients, factor).unwrap();
        for (name, decay, weights) in &mut reference {
            for ([w, m, v], g) in weights.iter_mut().zip(values(gradients.get(name).unwrap())) {
                let (g, lr) = (f64::from(g), config.learning_rate * factor);
                *m = config.beta1 * *m + (1.0 - config.beta1) * g;
                *v = config.beta2 * *v + (1.0 - config.beta2) * g * g;
                let m_hat = *m / (1.0 - config.beta1.powi(step.cast_signed()));
                let v_hat = *v / (1.0 - config.beta2.powi(step.cast_signed()));
                *w -= lr * (m_hat / (v_hat.sqrt() + config.epsilon) + *decay * *w);
            }
        }
    }
    for ((name, var), (_, _, expected)) in store.vars().zip(&reference) {
        for (found, [expected, ..]) in values(var).into_iter().zip(expected) {
            assert!((f64::from(found) - expected).abs() < 2e-6, "{name}: expected {expected}, found {found}");
        }
    }
}

#[test]
fn composed_adamw_equals_the_fused_one() {
    let numbers = AdamWNumbers {
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        learning_rate: 0.01,
        weight_decay: 0.1,
        correction1: 0.19,
        correction2: 0.0199,
    };
    let shape = [50, 401];
    let (w, g, m) = (random(&shape, 1), random(&shape, 2), random(&shape, 3));
    let v = random(&shape, 4).sqr().unwrap();
    let [w2, m2, v2] = kernels::adamw_composed(&w, &g, (&m, &v), numbers).unwrap();
    let (mut m1, mut v1) = (values(&m), values(&v));
    kernels::adamw_in_place(&w, &g, MomentsMut::F32(&mut m1, &mut v1), numbers).unwrap();
    for (fused, composed) in [(values(&w), w2), (m1, m2), (v1, v2)] {
        for (fused, composed) in fused.iter().zip(values(&composed)) {
            assert!((fused - composed).abs() < 1e-6, "{fused} {composed}");
        }
    }
}

#[test]
fn restored_state_continues_bit_for_bit() {
    for config in all_configs() {
        let specs = specs();
        let mut store = store(&specs);
        let mut optimizer = Optimizer::new(&config, &specs).unwrap();
        let mut average = WeightAverage::new(&store, 0.98).unwrap();
        let run = |store: &ParamStore, optimizer: &mut Optimizer, average: &mut WeightAverage, steps| {
            for step in steps {
                optimizer.step(store, &gradients(&specs, step), 0.5).unwrap();
                average.update(store).unwrap();
            }
            [store.snapshot().unwrap(), optimizer.state().unwrap(), average.state().unwrap()]
        };
        let [weights, state, average_state] = run(&store, &mut optimizer, &mut average, 0..4);
        let unbroken = run(&store, &mut optimizer, &mut average, 4..8).map(|params| bits(&params));

        store.restore(&weights).unwrap();
        let mut optimizer = Optimizer::new(&config, &specs).unwrap();
        optimizer.load_state(&state).unwrap();
        let mut average = WeightAverage::new(&store, 0.98).unwrap();
        average.load_state(&average_state).unwrap();
        assert_eq!(optimizer.num_steps(), 4);
        let resumed = run(&store, &mut optimizer, &mut average, 4..8).map(|params| bits(&params));
        assert_eq!(unbroken, resumed);
    }
}

#[test]
fn state_before_the_first_step_restores_too() {
    let specs = specs();
    let mut optimizer = Optimizer::new(&config(OptimizerKind::Muon), &specs).unwrap();
    let fresh = optimizer.state().unwrap();
    optimizer.step(&store(&specs), &gradients(&specs, 1), 1.0).unwrap();
    optimizer.load_state(&fresh).unwrap();
    assert_eq!((optimizer.num_steps(), optimizer.state().unwrap().len()), (0, 1));
}

#[test]
fn state_of_another_model_is_refused_and_changes_nothing() {
    let specs = specs();
    let mut optimizer = Optimizer::new(&config(OptimizerKind::AdamW), &specs).unwrap();
    optimizer.step(&store(&specs), &gradients(&specs, 1), 1.0).unwrap();
    let good = optimizer.state().unwrap();
    let mut bad = good.clone();
    bad.insert("adam.v.bias", random(&[17], 1));
    assert!(matches!(optimizer.load_state(&bad), Err(OptimError::Shape { .. })));
    let muon = Optimizer::new(&config(OptimizerKind::Muon), &specs).unwrap().load_state(&good);
    assert!(matches!(muon, Err(OptimError::MissingState { .. })));
    assert_eq!(bits(&good), bits(&optimizer.state().unwrap()));
}

/// Singular values of a (rows, columns) matrix: square roots of the eigenvalues of its smaller Gram matrix, by Jacobi.
fn singular_values(matrix: &Tensor) -> Vec<f64> {
    let matrix = matrix.to_dtype(DType::F64).unwrap();
    let (rows, columns) = matrix.dims2().unwrap();
    let transposed = matrix.t().unwrap();
    let gram = if rows <= columns { matrix.matmul(&transposed) } else { transposed.matmul(&matrix) };
    let mut a: Vec<Vec<f64>> = gram.unwrap().to_vec2().unwrap();
    let n = a.len();
    for _ in 0..30 {
        for (p, q) in (0..n).flat_map(|p| (p + 1..n).map(move |q| (p, q))) {
            let theta = 0.5 * (2.0 * a[p][q]).atan2(a[q][q] - a[p][p]);
            let (s, c) = theta.sin_cos();
            for row in &mut a {
                (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
            }
            #[allow(clippy::needless_range_loop, reason = "two rows are changed at once")]
            for k in 0..n {
                (a[p][k], a[q][k]) = (c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]);
            }
        }
    }
    (0..n).map(|i| a[i][i].max(0.0).sqrt()).collect()
}

#[test]
fn five_iterations_make_singular_values_near_one() {
    for shape in [[24, 60], [60, 24], [16, 16]] {
        // A random square matrix can have a singular value next to zero, which no few iterations lift: shift it.
        let shift = Tensor::eye(shape[0].max(shape[1]), DType::F32, &Device::Cpu).unwrap();
        let shift = shift.narrow(0, 0, shape[0]).unwrap().narrow(1, 0, shape[1]).unwrap();
        let matrix = (random(&shape, 5) + (shift * 4.0).unwrap()).unwrap();
        let found = singular_values(&MatrixView::Whole.orthogonalized(&matrix, 5).unwrap());
        assert!(found.iter().all(|s| (0.67..1.21).contains(s)), "{shape:?}: {found:?}");
        let before = singular_values(&matrix);
        assert!(before.iter().any(|s| !(0.67..1.21).contains(s)), "the input is no test: {before:?}");
    }
}

#[test]
fn the_kernel_equals_candles_products() {
    for shape in [[70, 150], [150, 70], [96, 96], [1, 5]] {
        let matrix = random(&shape, 8);
        let found = MatrixView::Whole.orthogonalized(&matrix, 5).unwrap();
        let expected = without_kernels(|| MatrixView::Whole.orthogonalized(&matrix, 5).unwrap());
        for (found, expected) in values(&found).into_iter().zip(values(&expected)) {
            assert!((found - expected).abs() < 1e-4, "{shape:?}: {found} for {expected}");
        }
    }
}

#[test]
fn fused_attention_is_three_matrices() {
    let name = "transformer.h.0.attn.c_attn.weight";
    let view = MatrixView::of(name, &[12, 36]).unwrap();
    assert_eq!(view, MatrixView::ThreeColumns);
    let weight = random(&[12, 36], 6);
    let together = view.orthogonalized(&weight, 5).unwrap();
    for part in 0..3 {
        let alone = weight.narrow(1, part * 12, 12).unwrap().contiguous().unwrap();
        let alone = MatrixView::Whole.orthogonalized(&alone, 5).unwrap();
        assert_eq!(values(&alone), values(&together.narrow(1, part * 12, 12).unwrap()));
    }
    assert!((view.step_scale(&[12, 36]) - 0.2 * 12.0_f64.sqrt()).abs() < 1e-12);
    assert_eq!(MatrixView::of("bias", &[12]), None);
    assert!((MatrixView::Whole.step_scale(&[8, 4, 3, 3]) - 0.2 * 6.0).abs() < 1e-12);
}

#[test]
fn muon_moves_by_its_formula() {
    let specs = [spec("w", &[6, 10], TensorKind::Matrix)];
    let config = config(OptimizerKind::Muon);
    let store = store(&specs);
    let before = store.snapshot().unwrap().get("w").unwrap().clone();
    let mut optimizer = Optimizer::new(&config, &specs).unwrap();
    let gradient = random(&[6, 10], 9);
    let gradients = Gradients::from_tensors([("w".to_owned(), gradient.clone())]).unwrap();
    optimizer.step(&store, &gradients, 0.5).unwrap();
    let direction = MatrixView::Whole.orthogonalized(&gradient, 5).unwrap();
    let (lr, scale) = (0.01, 0.2 * 10.0_f64.sqrt());
    let expected = ((before * (1.0 - lr * 0.1)).unwrap() - (direction * (lr * scale)).unwrap()).unwrap();
    for (found, expected) in values(&store.detached().get("w").unwrap().clone()).into_iter().zip(values(&expected)) {
        assert!((found - expected).abs() < 1e-5, "expected {expected}, found {found}");
    }
}

#[test]
fn both_rules_find_the_bottom_of_a_bowl() {
    for config in all_configs() {
        let specs = specs();
        // Fast enough for Muon, whose steps have one length, to cross the largest singular value, 15.
        let config = OptimizerConfig { weight_decay: 0.0, learning_rate: 0.05, ..config };
        let store = store(&specs);
        let mut optimizer = Optimizer::new(&config, &specs).unwrap();
        let loss = |store: &ParamStore| {
            let terms = store.tracked().map(|_, w| w.sqr()?.sum_all()).unwrap();
            let terms: Vec<Tensor> = terms.into_iter().map(|(_, term)| term).collect();
            Tensor::stack(&terms, 0).unwrap().sum_all().unwrap()
        };
        let start = loss(&store).to_scalar::<f32>().unwrap();
        for step in 0..300 {
            let gradients = Gradients::from_backward(&loss(&store).backward().unwrap(), &store).unwrap();
            optimizer.step(&store, &gradients, 1.0 - f64::from(step) / 300.0).unwrap();
        }
        let end = loss(&store).to_scalar::<f32>().unwrap();
        assert!(end < start * 1e-3, "{config:?}: {start} to {end}");
    }
}

#[test]
fn zero_gradients_move_nothing() {
    for config in all_configs() {
        let specs = specs();
        let store = store(&specs);
        let before = bits(&store.snapshot().unwrap());
        let zeros = specs.iter().map(|s| (s.name.clone(), Tensor::zeros(s.shape.as_slice(), DType::F32, &Device::Cpu)));
        let zeros = Gradients::from_tensors(zeros.map(|(name, zero)| (name, zero.unwrap()))).unwrap();
        let config = OptimizerConfig { weight_decay: 0.0, ..config };
        let mut optimizer = Optimizer::new(&config, &specs).unwrap();
        for _ in 0..3 {
            optimizer.step(&store, &zeros, 1.0).unwrap();
        }
        assert_eq!(before, bits(&store.snapshot().unwrap()));
    }
}

#[test]
fn a_wrong_set_of_gradients_is_refused_before_anything_moves() {
    let specs = specs();
    let store = store(&specs);
    let before = bits(&store.snapshot().unwrap());
    let mut optimizer = Optimizer::new(&config(OptimizerKind::AdamW), &specs).unwrap();
    let error = optimizer.step(&store, &gradients(&specs[..4], 1), 1.0);
    assert!(matches!(error, Err(OptimError::MissingGradient { name }) if name == "bias"));
    let mut wrong = random_params(&specs, 3);
    wrong.insert("wte.weight", random(&[16, 40], 1));
    let error = optimizer.step(&store, &Gradients::from_tensors(wrong).unwrap(), 1.0);
    assert!(matches!(error, Err(OptimError::Shape { name, .. }) if name == "wte.weight"));
    assert_eq!(before, bits(&store.snapshot().unwrap()));
}

#[test]
fn settings_out_of_range_name_their_key() {
    let bad = OptimizerConfig { beta2: 1.0, ..config(OptimizerKind::AdamW) };
    let error = Optimizer::new(&bad, &specs()).unwrap_err().to_string();
    assert!(error.contains("beta2") && error.contains("found 1"), "{error}");
}

#[test]
fn the_average_forgets_the_start_and_follows() {
    let specs = [spec("w", &[3], TensorKind::Vector)];
    let mut store = store(&specs);
    let set = |store: &mut ParamStore, value: f32| {
        let weights = [("w".to_owned(), Tensor::full(value, 3, &Device::Cpu).unwrap())];
        store.restore(&weights.into_iter().collect()).unwrap();
    };
    set(&mut store, 1000.0);
    let mut average = WeightAverage::new(&store, 0.98).unwrap();
    set(&mut store, 1.0);
    let mut expected = 1000.0_f64;
    for t in 0..40 {
        average.update(&store).unwrap();
        let decay = (f64::from(1 + t) / f64::from(10 + t)).min(0.98);
        expected = decay * expected + (1.0 - decay);
    }
    let found = values(average.params(&store).unwrap().get("w").unwrap())[0];
    assert!((f64::from(found) - expected).abs() < 1e-4, "expected {expected}, found {found}");
    assert!(found < 1.01, "the initial weights still show: {found}");
}

/// A weight and a batch norm's running mean, both `value`.
fn with_buffer(value: f32) -> ParamStore {
    let params = |name: &str| -> Params {
        [(name.to_owned(), Tensor::full(value, 3, &Device::Cpu).unwrap())].into_iter().collect()
    };
    ParamStore::new(params("w"), params("norm.running_mean"), &Device::Cpu).unwrap()
}

#[test]
fn buffers_are_averaged_like_the_weights_they_belong_to() {
    let mut average = WeightAverage::new(&with_buffer(8.0), 0.98).unwrap();
    for value in [1.0, 2.0, 3.0] {
        average.update(&with_buffer(value)).unwrap();
    }
    let read =
        |average: &WeightAverage, name: &str| values(average.params(&with_buffer(3.0)).unwrap().get(name).unwrap());
    let averaged = read(&average, "w");
    assert!(averaged[0] > 1.0 && averaged[0] < 3.0, "{averaged:?}");
    assert_eq!(read(&average, "norm.running_mean"), averaged, "not those of the last step");

    let state = average.state().unwrap();
    let mut restored = WeightAverage::new(&with_buffer(0.0), 0.98).unwrap();
    restored.load_state(&state).unwrap();
    for average in [&mut average, &mut restored] {
        average.update(&with_buffer(4.0)).unwrap();
    }
    assert_eq!(bits(&restored.state().unwrap()), bits(&average.state().unwrap()));
}

#[test]
fn a_state_without_averaged_buffers_loads_still() {
    let mut average = WeightAverage::new(&with_buffer(1.0), 0.98).unwrap();
    average.update(&with_buffer(2.0)).unwrap();
    let is_weight = |name: &str| !name.contains("running_mean");
    let saved = average.state().unwrap();
    let earlier: Params = saved.clone().into_iter().filter(|(name, _)| is_weight(name)).collect();
    assert_eq!(earlier.len() + 1, saved.len());
    average.load_state(&earlier).unwrap();
    let mean = |average: &WeightAverage, present: f32| {
        values(average.params(&with_buffer(present)).unwrap().get("norm.running_mean").unwrap())[0]
    };
    assert_eq!(mean(&average, 7.0), 7.0, "the present ones stand in");
    average.update(&with_buffer(5.0)).unwrap();
    assert_eq!(mean(&average, 7.0), 5.0, "the average starts there");
    average.load_state(&saved).unwrap();
    assert_eq!(bits(&average.state().unwrap()), bits(&saved), "and takes in a state that has them");
}

#[test]
fn planned_state_is_what_is_kept() {
    for config in all_configs() {
        let specs = specs();
        let mut optimizer = Optimizer::new(&config, &specs).unwrap();
        optimizer.step(&store(&specs), &gradients(&specs, 1), 1.0).unwrap();
        let bytes = |tensor: &Tensor| (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
        let state = optimizer.state().unwrap();
        let kept: u64 = state.iter().filter(|(name, _)| *name != "step").map(|(_, tensor)| bytes(tensor)).sum();
        assert_eq!(config.state_bytes(&specs), kept, "{config:?}");
    }
}

#[test]
fn eight_bits_take_a_quarter_and_small_tensors_stay_as_they_are() {
    let specs = [spec("large", &[100, 300], TensorKind::Matrix), spec("small", &[40, 100], TensorKind::Matrix)];
    let coded = OptimizerConfig { states: StatePrecision::EightBit, ..config(OptimizerKind::AdamW) };
    // 30,000 codes with the scales of 15 groups, 4,000 numbers of f32; two moments.
    assert_eq!(coded.state_bytes(&specs), 2 * (30_000 + 15 * 4 + 4_000 * 4));
    let mut optimizer = Optimizer::new(&coded, &specs).unwrap();
    optimizer.step(&store(&specs), &gradients(&specs, 1), 1.0).unwrap();
    let state = optimizer.state().unwrap();
    let dtype = |name: &str| state.find(name).unwrap().dtype();
    assert_eq!([dtype("adam.v.large"), dtype("adam.v.small")], [DType::U8, DType::F32]);
}

#[test]
fn eight_bit_states_move_weights_nearly_as_those_of_f32() {
    for kind in [OptimizerKind::AdamW, OptimizerKind::Muon] {
        let specs = specs();
        let moved = |states: StatePrecision| {
            let store = store(&specs);
            let mut optimizer = Optimizer::new(&OptimizerConfig { states, ..config(kind) }, &specs).unwrap();
            for step in 0..10 {
                optimizer.step(&store, &gradients(&specs, step), 1.0).unwrap();
            }
            let start = values(&random_params(&specs, 1).get("wide.weight").unwrap().clone());
            let end = values(&store.detached().get("wide.weight").unwrap().clone());
            start.iter().zip(end).map(|(start, end)| f64::from(end - start)).collect::<Vec<_>>()
        };
        let (full, coded) = (moved(StatePrecision::F32), moved(StatePrecision::EightBit));
        let square = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
        let away = square(&mut full.iter().zip(&coded).map(|(full, coded)| full - coded));
        let ratio = (away / square(&mut full.iter().copied())).sqrt();
        assert!(ratio > 0.0 && ratio < 0.05, "{kind:?}: {ratio}");
    }
}

#[test]
fn a_state_of_other_numbers_is_refused_by_name() {
    let specs = specs();
    let [full, coded] = StatePrecision::ALL.map(|states| OptimizerConfig { states, ..config(OptimizerKind::AdamW) });
    for (saving, loading) in [(&full, &coded), (&coded, &full)] {
        let mut optimizer = Optimizer::new(saving, &specs).unwrap();
        optimizer.step(&store(&specs), &gradients(&specs, 1), 1.0).unwrap();
        let saved = optimizer.state().unwrap();
        let refused = Optimizer::new(loading, &specs).unwrap().load_state(&saved).unwrap_err();
        assert!(
            matches!(&refused, OptimError::StatePrecision { name, .. } if name == "adam.m.wide.weight"),
            "{refused}"
        );
        assert!(refused.to_string().contains("--optimizer-states"), "{refused}");
    }
}

#[test]
fn eight_bit_states_are_the_processor_s() {
    let coded = OptimizerConfig { states: StatePrecision::EightBit, ..config(OptimizerKind::AdamW) };
    let specs = specs();
    let mut optimizer = Optimizer::new(&coded, &specs).unwrap();
    let refused = without_kernels(|| optimizer.step(&store(&specs), &gradients(&specs, 1), 1.0));
    assert!(matches!(refused, Err(OptimError::NoEightBitStates)), "{refused:?}");
}

/// Weights and state after a few steps.
fn after_steps(config: &OptimizerConfig, num_steps: u64) -> [Params; 2] {
    let specs = specs();
    let store = store(&specs);
    let mut optimizer = Optimizer::new(config, &specs).unwrap();
    for step in 0..num_steps {
        optimizer.step(&store, &gradients(&specs, step), 0.5).unwrap();
    }
    [store.snapshot().unwrap(), optimizer.state().unwrap()]
}

fn offloaded(config: &OptimizerConfig) -> OptimizerConfig {
    OptimizerConfig { state_place: StatePlace::HostMemory, ..config.clone() }
}

/// Where a GPU would compute, our kernels move what stays in the machine's memory.
#[test]
fn states_in_host_memory_are_those_of_kernels_bit_for_bit() {
    for config in all_configs() {
        let [weights, state] = after_steps(&config, 6);
        let [moved_weights, moved_state] = without_kernels(|| after_steps(&offloaded(&config), 6));
        assert_eq!(bits(&state), bits(&moved_state), "{config:?}");
        // Muon's directions are orthogonalized where the weights are, by other products.
        let is_muon = |name: &str| config.kind == OptimizerKind::Muon && !["wte.weight", "bias"].contains(&name);
        for ((name, kernels), (_, moved)) in weights.iter().zip(moved_weights.iter()) {
            let pairs = values(kernels).into_iter().zip(values(moved));
            if is_muon(name) {
                pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{name}: {a} and {b}"));
            } else {
                pairs.for_each(|(a, b)| assert_eq!(a.to_bits(), b.to_bits(), "{name}, {config:?}"));
            }
        }
    }
}

/// Muon computes with the same numbers as with its momentum beside the weights; AdamW rounds as our kernels do.
#[test]
fn states_in_host_memory_train_as_those_with_the_weights() {
    for kind in [OptimizerKind::AdamW, OptimizerKind::Muon] {
        let config = config(kind);
        let [composed, moved] =
            [config.clone(), offloaded(&config)].map(|config| without_kernels(|| after_steps(&config, 6)));
        for (composed, moved) in composed.iter().zip(&moved) {
            for ((name, composed), (_, moved)) in
                composed.iter().zip(moved.iter()).filter(|((name, _), _)| *name != "step")
            {
                for (a, b) in values(composed).into_iter().zip(values(moved)) {
                    assert!((a - b).abs() < 1e-5, "{name}: {a} and {b}");
                }
            }
        }
        let matrix = |params: &Params| bits(params).into_iter().find(|(name, _)| name == "wide.weight").unwrap();
        let is_same = matrix(&composed[0]) == matrix(&moved[0]);
        assert_eq!(is_same, kind == OptimizerKind::Muon, "{kind:?}");
    }
}

#[test]
fn on_the_processor_the_place_of_states_changes_nothing() {
    for config in all_configs() {
        let [plain, offloaded] =
            [config.clone(), offloaded(&config)].map(|config| after_steps(&config, 4).map(|params| bits(&params)));
        assert_eq!(plain, offloaded);
    }
}

/// Kernels, a GPU's weights with their states, and states in the machine's memory take up each other's.
#[test]
fn a_state_goes_on_wherever_states_are_kept() {
    type Ways<'a> = [(&'a str, bool, StatePlace); 3];
    let ways: Ways<'_> = [
        ("kernels", true, StatePlace::WithWeights),
        ("with the weights", false, StatePlace::WithWeights),
        ("in host memory", false, StatePlace::HostMemory),
    ];
    for config in all_configs() {
        let can = |&(_, has_kernels, place): &(&str, bool, StatePlace)| {
            config.states.is_full() || has_kernels || place == StatePlace::HostMemory
        };
        let run = |(_, has_kernels, state_place): (&str, bool, StatePlace), saved: Option<&[Params; 2]>, steps| {
            let train = || {
                let specs = specs();
                let mut store = store(&specs);
                let config = OptimizerConfig { state_place, ..config.clone() };
                let mut optimizer = Optimizer::new(&config, &specs).unwrap();
                if let Some([weights, state]) = saved {
                    store.restore(weights).unwrap();
                    optimizer.load_state(state).unwrap();
                    assert_eq!(bits(&optimizer.state().unwrap()), bits(state), "before a step");
                }
                for step in steps {
                    optimizer.step(&store, &gradients(&specs, step), 0.5).unwrap();
                }
                [store.snapshot().unwrap(), optimizer.state().unwrap()]
            };
            if has_kernels { train() } else { without_kernels(train) }
        };
        for from in ways.iter().filter(|way| can(way)) {
            let saved = run(*from, None, 0..4);
            let unbroken = run(*from, None, 0..8);
            for to in ways.iter().filter(|way| can(way)) {
                let resumed = run(*to, Some(&saved), 4..8);
                if from == to {
                    assert_eq!(resumed.each_ref().map(bits), unbroken.each_ref().map(bits), "{from:?}");
                }
                for ((name, resumed), (_, unbroken)) in resumed[0].iter().zip(unbroken[0].iter()) {
                    for (a, b) in values(resumed).into_iter().zip(values(unbroken)) {
                        assert!((a - b).abs() < 1e-4, "{name}: {a} and {b}, from {from:?} to {to:?}");
                    }
                }
            }
        }
    }
}
