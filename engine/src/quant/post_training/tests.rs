//! Whole networks through post-training quantization.
#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::device::{CancelFlag, Watch};
use crate::models::ops::check::{max_difference, wave};
use crate::models::{
    CnnConfig, Forward, GateActivation, Gpt2Config, InputObserver, LayerInput, LlamaConfig, Mode, ModelConfig, Network,
    Params, ResNetConfig, TensorKind, initial_params,
};
use crate::quant::{Container, QuantError, QuantScheme, Storage, TensorPlan, plan};
use crate::unwatched;

fn gpt2() -> ModelConfig {
    ModelConfig::Gpt2(Gpt2Config {
        vocab_size: 11,
        n_positions: 16,
        n_embd: 32,
        n_layer: 2,
        n_head: 2,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.1,
    })
}

fn llama() -> ModelConfig {
    ModelConfig::Llama(LlamaConfig {
        vocab_size: 11,
        max_position_embeddings: 16,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        rms_norm_eps: 1e-5,
        rope_theta: 100.0,
        tie_word_embeddings: false,
        initializer_range: 0.1,
        hidden_act: GateActivation::Silu,
        sub_norms: false,
    })
}

fn cnn() -> ModelConfig {
    ModelConfig::Cnn(CnnConfig {
        in_channels: 2,
        image_size: (8, 8),
        channels: vec![8, 8],
        hidden_size: 32,
        num_classes: 5,
    })
}

fn resnet() -> ModelConfig {
    ModelConfig::ResNet(ResNetConfig {
        num_channels: 2,
        image_size: (8, 8),
        embedding_size: 4,
        hidden_sizes: vec![4, 8],
        depths: vec![1, 1],
        num_classes: 5,
    })
}

/// A network, weights and a calibration set of two batches.
fn case(config: &ModelConfig) -> (Network, Params, Vec<Tensor>) {
    let network = Network::new(config).unwrap();
    let (weights, buffers) = initial_params(&network, 7, &Device::Cpu).unwrap();
    let inputs = (0..2_u32).map(|batch| match config {
        ModelConfig::Gpt2(_) | ModelConfig::Llama(_) => {
            let tokens: Vec<u32> = (0..6 * 12).map(|i| (i * i + batch * 5 + i / 7) % 11).collect();
            Tensor::from_vec(tokens, (6, 12), &Device::Cpu).unwrap()
        }
        ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => {
            let x = wave(&[16, 2, 8, 8], 1.0 + f64::from(batch)).unwrap();
            x.to_dtype(DType::F32).unwrap()
        }
    });
    (network, weights.into_iter().chain(buffers).collect(), inputs.collect())
}

fn planned(network: &Network, scheme: QuantScheme, container: Container) -> (QuantScheme, Container, Vec<TensorPlan>) {
    (scheme, container, plan(&network.specs(), scheme, container))
}

fn compensated() -> PostTraining {
    PostTraining { rounding: Rounding::Compensated, ..PostTraining::default() }
}

/// Remembers which layers were seen, with the shapes of their inputs.
#[derive(Debug, Default)]
struct Names(std::cell::RefCell<Vec<(String, Vec<usize>)>>);

impl InputObserver for Names {
    fn observe(&self, weight: &str, input: LayerInput<'_>) -> candle_core::Result<()> {
        let (LayerInput::Rows(x) | LayerInput::Images { x, .. }) = input;
        self.0.borrow_mut().push((weight.to_owned(), x.dims().to_vec()));
        Ok(())
    }
}

#[test]
fn every_matrix_is_observed_and_answers_stay() {
    for config in [gpt2(), llama(), cnn(), resnet()] {
        let (network, weights, inputs) = case(&config);
        let names = Names::default();
        let plain = network.forward(&Forward::new(&weights, Mode::Eval), &inputs[0]).unwrap();
        let pass = Forward::new(&weights, Mode::Eval).observed_by(&names);
        let observed = network.forward(&pass, &inputs[0]).unwrap();
        let distance = max_difference(&plain, &observed).unwrap();
        // Fused layers are computed from their parts when they are watched; sums have another order then.
        assert!(distance < 1e-5, "{config:?}: {distance}");
        let seen: Vec<String> = names.0.into_inner().into_iter().map(|(name, _)| name).collect();
        for spec in network.specs() {
            if matches!(spec.kind, TensorKind::Matrix | TensorKind::Head) {
                assert_eq!(seen.iter().filter(|name| **name == spec.name).count(), 1, "{}", spec.name);
            }
        }
    }
}

#[test]
fn outputs_lose_less_and_bytes_are_those_planned() {
    for config in [gpt2(), llama(), cnn(), resnet()] {
        let (network, weights, inputs) = case(&config);
        for scheme in [QuantScheme::Int8, QuantScheme::Int4, QuantScheme::Ternary, QuantScheme::TernaryBase3] {
            for container in [Container::Safetensors, Container::Gguf] {
                let is_text = matches!(config, ModelConfig::Gpt2(_) | ModelConfig::Llama(_));
                if container == Container::Gguf && !is_text {
                    continue;
                }
                let plans = planned(&network, scheme, container);
                let bytes: u64 = plans.2.iter().map(TensorPlan::num_bytes).sum();
                let found =
                    quantize_calibrated(&network, &weights, plans, &inputs, &compensated(), unwatched!()).unwrap();
                assert_eq!(found.weights.bytes(), bytes, "{config:?} {scheme:?}");
                assert_eq!(found.weights.tensors().len(), network.specs().len());
                assert!(!found.output_errors.is_empty());
                let squares = |of: fn(&OutputError) -> f64| -> f64 {
                    found.output_errors.values().map(|error| of(error).powi(2)).sum()
                };
                assert!(found.output_errors.values().all(|error| error.stored <= error.nearest * (1.0 + 1e-9)));
                let (nearest, stored) = (squares(|error| error.nearest), squares(|error| error.stored));
                assert!(stored < 0.95 * nearest, "{scheme:?} {container:?}: {nearest} {stored}");
                // What is told of a layer is what its stored weights do.
                network.forward(&Forward::new(&found.weights.dequantized().unwrap(), Mode::Eval), &inputs[0]).unwrap();
            }
        }
    }
}

#[test]
fn twice_is_the_same() {
    let (network, weights, inputs) = case(&gpt2());
    let run = || {
        let plans = planned(&network, QuantScheme::Ternary, Container::Safetensors);
        let found = quantize_calibrated(&network, &weights, plans, &inputs, &compensated(), unwatched!()).unwrap();
        format!("{:?}", found.weights.tensors().iter().map(|tensor| format!("{:?}", tensor.data)).collect::<Vec<_>>())
    };
    assert_eq!(run(), run());
}

#[test]
fn without_compensation_it_is_plain_rounding() {
    let (network, weights, inputs) = case(&llama());
    let plans = || planned(&network, QuantScheme::Int8, Container::Safetensors);
    let found =
        quantize_calibrated(&network, &weights, plans(), &inputs, &PostTraining::default(), unwatched!()).unwrap();
    let plain = crate::quant::quantize(&network.specs(), &weights, QuantScheme::Int8).unwrap();
    let (found_params, plain_params) = (found.weights.dequantized().unwrap(), plain.dequantized().unwrap());
    for (name, tensor) in plain_params.iter() {
        assert_eq!(max_difference(tensor, found_params.get(name).unwrap()).unwrap(), 0.0, "{name}");
    }
    assert!(found.output_errors.values().all(|error| error.stored == error.nearest && error.nearest > 0.0));
}

#[test]
fn rows_and_blocks_have_scales_of_their_own() {
    let ModelConfig::Gpt2(config) = gpt2() else { panic!("gpt2 expected") };
    let (network, weights, inputs) = case(&ModelConfig::Gpt2(Gpt2Config { n_embd: 256, n_layer: 1, ..config }));
    for rounding in Rounding::ALL {
        let mean = |ternary_scales| {
            let options = PostTraining { rounding, ternary_scales, ..PostTraining::default() };
            let plans = planned(&network, QuantScheme::Ternary, Container::Gguf);
            let found = quantize_calibrated(&network, &weights, plans, &inputs, &options, unwatched!()).unwrap();
            assert!(found.weights.tensors().iter().any(|tensor| tensor.plan.storage == Storage::Ternary));
            found.output_errors.values().map(|error| error.stored).sum::<f64>()
        };
        let [tensor, row, block] = TernaryScales::ALL.map(mean);
        // Normal weights of one width: finer scales gain little, but they are there.
        assert!(row != tensor && block != row && block < tensor * 1.2, "{rounding:?}: {tensor} {row} {block}");
    }
}

#[test]
fn two_of_four_are_zero_and_the_rest_makes_up_for_it() {
    let (network, weights, inputs) = case(&llama());
    for scheme in [QuantScheme::Int8, QuantScheme::Ternary] {
        let run = |rounding| {
            let options = PostTraining { rounding, sparsity: Some(Sparsity::TwoOfFour), ..PostTraining::default() };
            let plans = planned(&network, scheme, Container::Safetensors);
            let found = quantize_calibrated(&network, &weights, plans, &inputs, &options, unwatched!()).unwrap();
            for tensor in found.weights.tensors().iter().filter(|tensor| !tensor.plan.storage.is_float()) {
                for four in tensor.output_major_values().unwrap().chunks_exact(4) {
                    assert!(four.iter().filter(|value| **value == 0.0).count() >= 2, "{}", tensor.plan.name);
                }
                assert!(tensor.zero_share().unwrap() >= 0.5);
            }
            found.output_errors.values().map(|error| error.stored.powi(2)).sum::<f64>()
        };
        let (nearest, compensated) = (run(Rounding::Nearest), run(Rounding::Compensated));
        assert!(compensated < 0.9 * nearest, "{scheme:?}: {nearest} {compensated}");
    }
}

#[test]
fn bad_calibrations_and_weights_are_refused() {
    let (network, weights, inputs) = case(&gpt2());
    let run = |weights: &Params, inputs: &[Tensor]| {
        let plans = planned(&network, QuantScheme::Int8, Container::Safetensors);
        quantize_calibrated(&network, weights, plans, inputs, &compensated(), unwatched!()).unwrap_err()
    };
    assert!(matches!(run(&weights, &[]), QuantError::Calibration { .. }));
    let name = "transformer.h.1.mlp.c_fc.weight";
    let mut diverged = weights.clone();
    diverged.insert(name, (weights.get(name).unwrap() * f64::NAN).unwrap());
    let message = run(&diverged, &inputs).to_string();
    assert!(message.contains(name) && message.contains("NaN"), "{message}");
    let norm = "transformer.h.0.ln_1.weight";
    let mut huge = weights.clone();
    huge.insert(norm, (weights.get(norm).unwrap() * 1e30).unwrap());
    let message = run(&huge, &inputs).to_string();
    assert!(message.contains("calibrating") && message.contains("attn.c_attn"), "{message}");
    // Images where tokens are expected.
    let images = Tensor::zeros((2, 3, 4, 4), DType::F32, &Device::Cpu).unwrap();
    assert!(matches!(run(&weights, &[images]), QuantError::Model(_)));
}

#[test]
fn a_set_flag_ends_it() {
    let (network, weights, inputs) = case(&cnn());
    let cancel = CancelFlag::default();
    cancel.set();
    let watch = Watch::new(&cancel, &|_| {});
    let plans = planned(&network, QuantScheme::Int8, Container::Safetensors);
    let ended = quantize_calibrated(&network, &weights, plans, &inputs, &compensated(), watch);
    assert!(matches!(ended, Err(QuantError::Cancelled(_))));
    assert!(matches!(equalized(&network, &weights, &inputs, watch), Err(QuantError::Cancelled(_))));
}

#[test]
fn options_are_checked() {
    let refused = |options: PostTraining| options.check().unwrap_err().to_string();
    assert!(refused(PostTraining { calibration_samples: 0, ..compensated() }).contains("calibration samples"));
    for bits in [0.0, -1.0, f64::NAN, 33.0] {
        assert!(refused(PostTraining { budget_bits: Some(bits), ..PostTraining::default() }).contains("budget"));
    }
    assert!(PostTraining { calibration_samples: 0, ..PostTraining::default() }.check().is_ok());
    for method in Rounding::ALL {
        assert_eq!(Rounding::from_label(method.label()), Some(method));
    }
    for scales in TernaryScales::ALL {
        assert_eq!(TernaryScales::from_label(scales.label()), Some(scales));
    }
}
