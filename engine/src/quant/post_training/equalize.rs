//! Channels scaled against each other, so that weights and activations share the difficulty of being rounded, without
//! changing what the network computes.
//!
//! A channel that leaves one layer and enters the next is divided by a scale where it leaves and multiplied where it
//! enters. That is exact wherever only products lie between: a norm's weight and the matrix behind it, the two halves of
//! a gated layer, values and the output projection, convolutions around a ReLU.
//! Sources: Xiao et al. 2022, arXiv 2211.10438, equation 4 (SmoothQuant), for the scale; Nagel et al. 2019,
//! arXiv 1906.04721, section 4.1, for layers around a ReLU.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::joints::{Joint, Place, joints};
use super::maxima::MaximaObserver;
use crate::device::Watch;
use crate::models::{Forward, Mode, Network, Params};
use crate::quant::QuantError;

/// Share of the difficulty that goes from activations to weights.
const MIGRATION: f64 = 0.5;
/// Scales stay within this factor of 1, so that a channel that is hardly used does no harm.
const MOST: f64 = 1e3;

/// `weights` of `network` equalized by the largest activations over `inputs`, batches as the network reads them; the
/// function stays the same. Returns how many joints there were.
/// Errors: those of the forward pass.
pub fn equalized(
    network: &Network,
    weights: &Params,
    inputs: &[Tensor],
    watch: Watch<'_>,
) -> Result<(Params, usize), QuantError> {
    let joints = joints(network.config());
    if joints.is_empty() {
        return Ok((weights.clone(), 0));
    }
    let observer = MaximaObserver::default();
    for (done, input) in inputs.iter().enumerate() {
        watch.step("measuring activations", done as u64, Some(inputs.len() as u64))?;
        network.forward(&Forward::new(weights, Mode::Eval).observed_by(&observer), input)?;
    }
    let maxima = observer.into_maxima();
    let mut equalized = weights.clone();
    for joint in &joints {
        watch.check()?;
        let scales = scales(joint, &equalized, &maxima)?;
        let inverses: Vec<f64> = scales.iter().map(|scale| scale.recip()).collect();
        for (places, factors) in [(&joint.leaves, &inverses), (&joint.enters, &scales)] {
            for place in places {
                let tensor = scaled(equalized.get(&place.tensor)?, place, factors)?;
                equalized.insert(place.tensor.clone(), tensor);
            }
        }
    }
    Ok((equalized, joints.len()))
}

/// `max |x|^α / max |w|^(1-α)` per channel, 1 where there is nothing to go by; the geometric mean is 1, so that a norm's
/// weight stays where it is on the whole.
fn scales(joint: &Joint, weights: &Params, maxima: &BTreeMap<String, Vec<f32>>) -> Result<Vec<f64>, QuantError> {
    let mut of_inputs = vec![0.0_f32; joint.num_channels];
    let mut of_weights = vec![0.0_f32; joint.num_channels];
    for place in &joint.enters {
        let tensor = weights.get(&place.tensor)?.detach().to_dtype(DType::F32)?;
        let along = tensor.transpose(0, place.axis)?.contiguous()?.flatten_from(1)?.abs()?.max(1)?.to_vec1::<f32>()?;
        let read = maxima.get(&place.tensor).map_or(&[][..], Vec::as_slice);
        for (largest, found) in [(&mut of_inputs, read), (&mut of_weights, &along[..])] {
            for (channel, &found) in place.channels.iter().zip(found) {
                if let Some(known) = channel.and_then(|channel| largest.get_mut(channel)) {
                    *known = known.max(found);
                }
            }
        }
    }
    let scale = |(&x, &w): (&f32, &f32)| {
        let is_usable = x > 0.0 && w > 0.0 && x.is_finite() && w.is_finite();
        if is_usable { f64::from(x).powf(MIGRATION) / f64::from(w).powf(1.0 - MIGRATION) } else { 1.0 }
    };
    let raw: Vec<f64> = of_inputs.iter().zip(&of_weights).map(scale).collect();
    let mean = (raw.iter().map(|scale| scale.ln()).sum::<f64>() / raw.len().max(1) as f64).exp();
    Ok(raw.into_iter().map(|scale| (scale / mean).clamp(MOST.recip(), MOST)).collect())
}

/// `tensor` times the factor of each channel, along the place's axis.
fn scaled(tensor: &Tensor, place: &Place, factors: &[f64]) -> Result<Tensor, QuantError> {
    let of_index = |channel: &Option<usize>| channel.and_then(|channel| factors.get(channel)).copied().unwrap_or(1.0);
    let factors: Vec<f64> = place.channels.iter().map(of_index).collect();
    let mut shape = vec![1; tensor.rank()];
    if let Some(len) = shape.get_mut(place.axis) {
        *len = factors.len();
    }
    let factors = Tensor::from_vec(factors, shape, tensor.device())?.to_dtype(tensor.dtype())?;
    Ok(tensor.detach().broadcast_mul(&factors)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::models::ops::check::{max_difference, wave};
    use crate::models::{
        Activation, CnnConfig, GateActivation, Gpt2Config, LlamaConfig, MlpConfig, ModelConfig, ResNetConfig,
        initial_params,
    };
    use crate::unwatched;

    /// The network's answers before and after, in f64, from weights that are far from balanced.
    #[track_caller]
    fn check(config: &ModelConfig, input: &Tensor, least_joints: usize) {
        let network = Network::new(config).unwrap();
        let (weights, buffers) = initial_params(&network, 3, &Device::Cpu).unwrap();
        let all: Params = weights.into_iter().chain(buffers).collect();
        let uneven = |name: &str, tensor: &Tensor| {
            let wave = wave(tensor.dims(), 0.9)?;
            let tensor = tensor.to_dtype(DType::F64)?;
            if name.ends_with("running_var") { tensor + wave.abs()? } else { (tensor + (wave * 0.3)?)? * 1.3 }
        };
        let weights = all.map(uneven).unwrap();
        let answers = |weights: &Params| network.forward(&Forward::new(weights, Mode::Eval), input).unwrap();
        let (after, num_joints) = equalized(&network, &weights, std::slice::from_ref(input), unwatched!()).unwrap();
        assert!(num_joints >= least_joints, "{num_joints}");
        let size = answers(&weights).abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
        let distance = max_difference(&answers(&weights), &answers(&after)).unwrap();
        assert!(size > 0.1 && distance < 1e-9 * size, "{distance} of {size}");
        let moved =
            weights.iter().filter(|(name, tensor)| max_difference(tensor, after.get(name).unwrap()).unwrap() > 1e-3);
        assert!(moved.count() >= 2 * least_joints);
    }

    #[test]
    fn the_function_stays() {
        let tokens = Tensor::new(&[[1_u32, 5, 2, 8, 0], [3, 3, 7, 1, 4]], &Device::Cpu).unwrap();
        let gpt2 = Gpt2Config {
            vocab_size: 9,
            n_positions: 8,
            n_embd: 8,
            n_layer: 2,
            n_head: 2,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
        };
        check(&ModelConfig::Gpt2(gpt2), &tokens, 6);
        let llama = LlamaConfig {
            vocab_size: 9,
            max_position_embeddings: 8,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            rms_norm_eps: 1e-5,
            rope_theta: 100.0,
            tie_word_embeddings: false,
            initializer_range: 0.02,
            hidden_act: GateActivation::Silu,
            sub_norms: false,
        };
        let bitnet = LlamaConfig { hidden_act: GateActivation::Relu2, sub_norms: true, ..llama.clone() };
        check(&ModelConfig::Llama(llama), &tokens, 8);
        check(&ModelConfig::Llama(bitnet), &tokens, 8);
        let images = wave(&[3, 2, 8, 8], 1.0).unwrap();
        let cnn =
            CnnConfig { in_channels: 2, image_size: (8, 8), channels: vec![4, 6], hidden_size: 10, num_classes: 5 };
        check(&ModelConfig::Cnn(cnn), &images, 3);
        let mlp = MlpConfig {
            in_channels: 2,
            image_size: (8, 8),
            hidden_sizes: vec![12, 7],
            num_classes: 5,
            activation: Activation::Relu,
        };
        check(&ModelConfig::Mlp(mlp), &images, 2);
        let resnet = ResNetConfig {
            num_channels: 2,
            image_size: (8, 8),
            embedding_size: 4,
            hidden_sizes: vec![4, 6],
            depths: vec![1, 2],
            num_classes: 5,
        };
        check(&ModelConfig::ResNet(resnet), &images, 3);
    }

    #[test]
    fn large_activations_lend_to_weights() {
        let joint = Joint {
            num_channels: 2,
            leaves: Vec::new(),
            enters: vec![Place::new("w".to_owned(), 1, [Some(0), Some(1), None])],
        };
        let tensor = Tensor::new(&[[1.0_f32, 1.0, 9.0], [0.5, -1.0, 9.0]], &Device::Cpu).unwrap();
        let weights: Params = [("w".to_owned(), tensor)].into_iter().collect();
        let maxima = BTreeMap::from([("w".to_owned(), vec![16.0, 1.0, 100.0])]);
        // 4 and 1, over their geometric mean of 2.
        let found = scales(&joint, &weights, &maxima).unwrap();
        assert!((found[0] - 2.0).abs() < 1e-12 && (found[1] - 0.5).abs() < 1e-12, "{found:?}");
        let silent = BTreeMap::from([("w".to_owned(), vec![0.0, 0.0, 0.0])]);
        assert_eq!(scales(&joint, &weights, &silent).unwrap(), [1.0, 1.0]);
    }
}
