//! The last check of a package: the runtime that ships opens it and answers like the trainer's network does.

use std::path::Path;

use candle_core::{D, Device, Tensor};
use foretrain_edge::Package;
use rand::RngExt;

use super::{Checkpoint, ExportError, Preprocessing};
use crate::device::Watch;
use crate::device::seed::{Stream, stream};
use crate::models::{DataShape, Forward, Mode, Network, Params};
use crate::quant::{QuantScheme, QuantizedWeights};

/// Random images, or token sequences, that both are asked about.
const NUM_INPUTS: u64 = 4;
/// Longest random token sequence.
const MAX_TOKENS: usize = 32;
/// Seed of the random inputs: any number, the same for every package.
const SEED: u64 = 0x5eed;
/// Largest relative distance for float weights: both sides compute in f32 and differ in the order of sums only.
const FLOAT_TOLERANCE: f64 = 2e-3;
/// Usual relative distance for int8 and ternary weights: the runtime also rounds activations to 8 bits, layer after
/// layer. Deep networks whose activations have outliers go beyond it although their package is right.
const QUANTIZED_USUAL: f64 = 0.15;
/// Largest relative distance for int8 and ternary weights. A wrong layout, row order or sign gives distances above 1.
const QUANTIZED_TOLERANCE: f64 = 0.5;

/// How far the shipped runtime's answers are from the trainer's, on the same stored weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReadBack {
    /// Random inputs compared.
    pub num_inputs: u64,
    /// ‖runtime - trainer‖₂ / ‖trainer - mean‖₂ over all answers (logits of images, losses of next tokens).
    pub relative_distance: f64,
    /// The largest distance that is usual; above it, the note says so.
    pub usual: f64,
    /// The largest distance that passes.
    pub tolerance: f64,
}

impl ReadBack {
    /// In words.
    pub(super) fn note(&self) -> String {
        let percent = self.relative_distance * 100.0;
        let (count, usual) = (self.num_inputs, self.usual * 100.0);
        if self.relative_distance > self.usual {
            return format!(
                "Read back: foretrain-edge answers {count} random inputs {percent:.1}% away from the trainer's network, \
                 where up to {usual:.0}% is usual: it rounds activations to 8 bits, which costs more where a few of them \
                 are far larger than the rest. Compare its measured quality with the checkpoint's; bf16 rounds none"
            );
        }
        format!(
            "Read back: foretrain-edge answers {count} random inputs within {percent:.2}% of the trainer's network \
             (usual: up to {usual:.1}%)"
        )
    }
}

/// Opens the package in `folder`, verifies its checksums, and compares its answers with the network's.
/// Errors: [`ExportError::Runtime`] when it does not open or answer; [`ExportError::ReadBack`] when answers differ.
pub(super) fn read_back(
    checkpoint: &Checkpoint,
    weights: &QuantizedWeights,
    folder: &Path,
    watch: Watch<'_>,
) -> Result<ReadBack, ExportError> {
    let failed =
        |tried| move |error: foretrain_edge::EdgeError| ExportError::Runtime { tried, what: error.to_string() };
    watch.step("verifying checksums", 0, None)?;
    let package = Package::open(folder).map_err(failed("opening the package in foretrain-edge"))?;
    package.verify_checksums().map_err(failed("verifying the package"))?;
    let network = Network::new(&checkpoint.card.model)?;
    let params = weights.dequantized()?;
    let (mut runtime, mut trainer) = (Vec::new(), Vec::new());
    for index in 0..NUM_INPUTS {
        watch.step("running the package", index, Some(NUM_INPUTS))?;
        match random_input(checkpoint, index) {
            Input::Pixels { pixels, shape } => {
                runtime.extend(package.logits(&pixels).map_err(failed("running the package"))?);
                trainer.extend(image_logits(&network, &params, &checkpoint.card.preprocessing, &pixels, shape)?);
            }
            Input::Tokens(tokens) => {
                runtime.extend(package.token_losses(&tokens).map_err(failed("running the package"))?);
                trainer.extend(token_losses(&network, &params, &tokens)?);
            }
        }
    }
    if runtime.len() != trainer.len() {
        let (expected, found) = (format!("{} numbers", trainer.len()), runtime.len().to_string());
        return Err(ExportError::ReadBack { what: "answers of foretrain-edge".to_owned(), expected, found });
    }
    judge(relative_distance(&runtime, &trainer), weights.scheme())
}

/// Whether a package that answers at this distance is the one that was meant. Errors: [`ExportError::ReadBack`].
fn judge(relative_distance: f64, scheme: QuantScheme) -> Result<ReadBack, ExportError> {
    let (usual, tolerance) = match scheme {
        QuantScheme::F32 | QuantScheme::F16 | QuantScheme::Bf16 => (FLOAT_TOLERANCE, FLOAT_TOLERANCE),
        QuantScheme::Int8 | QuantScheme::Ternary => (QUANTIZED_USUAL, QUANTIZED_TOLERANCE),
    };
    // A distance that is no number must not pass.
    if relative_distance.is_nan() || relative_distance > tolerance {
        return Err(ExportError::ReadBack {
            what: "answers of foretrain-edge".to_owned(),
            expected: format!("a relative distance of at most {tolerance} to the trainer's network"),
            found: format!("{relative_distance:.4}"),
        });
    }
    Ok(ReadBack { num_inputs: NUM_INPUTS, relative_distance, usual, tolerance })
}

enum Input {
    /// (channels, height, width), 0 to 255.
    Pixels {
        pixels: Vec<u8>,
        shape: (usize, usize, usize),
    },
    Tokens(Vec<u32>),
}

fn random_input(checkpoint: &Checkpoint, index: u64) -> Input {
    let mut rng = stream(SEED, Stream::Sample, index);
    match checkpoint.card.model.data_shape() {
        DataShape::Images { channels, height, width, .. } => {
            let pixels = (0..channels * height * width).map(|_| rng.random::<u8>()).collect();
            Input::Pixels { pixels, shape: (channels, height, width) }
        }
        DataShape::Text { vocab_size } => {
            let count = MAX_TOKENS.min(checkpoint.card.model.max_positions().unwrap_or(MAX_TOKENS));
            // One more than the positions: the last token is only predicted.
            let last = u32::try_from(vocab_size.max(1)).unwrap_or(u32::MAX);
            Input::Tokens((0..=count).map(|_| rng.random_range(0..last)).collect())
        }
    }
}

fn image_logits(
    network: &Network,
    params: &Params,
    preprocessing: &Preprocessing,
    pixels: &[u8],
    (channels, height, width): (usize, usize, usize),
) -> Result<Vec<f32>, ExportError> {
    let (mean, std) = match preprocessing {
        Preprocessing::Images { mean, std, .. } => (mean.clone(), std.clone()),
        Preprocessing::Text => (vec![0.0; channels], vec![1.0; channels]),
    };
    let plane = (height * width).max(1);
    let normalize = |(index, pixel): (usize, &u8)| {
        let channel = index / plane;
        let at = |values: &[f32], default| values.get(channel).copied().unwrap_or(default);
        (f32::from(*pixel) / 255.0 - at(&mean, 0.0)) / at(&std, 1.0)
    };
    let input: Vec<f32> = pixels.iter().enumerate().map(normalize).collect();
    let input = Tensor::from_vec(input, (1, channels, height, width), &Device::Cpu)?;
    let logits = network.forward(&Forward::new(params, Mode::Eval), &input)?;
    Ok(logits.flatten_all()?.to_vec1()?)
}

/// Nats of each next token: n tokens give n - 1 numbers.
fn token_losses(network: &Network, params: &Params, tokens: &[u32]) -> Result<Vec<f32>, ExportError> {
    let count = tokens.len().saturating_sub(1);
    let tokens = Tensor::from_slice(tokens, (1, tokens.len()), &Device::Cpu)?;
    let logits = network.forward(&Forward::new(params, Mode::Eval), &tokens.narrow(1, 0, count)?.contiguous()?)?;
    let logits = logits.squeeze(0)?;
    let targets = tokens.narrow(1, 1, count)?.squeeze(0)?.unsqueeze(1)?.contiguous()?;
    let chosen = logits.contiguous()?.gather(&targets, D::Minus1)?.squeeze(1)?;
    let normalizer = logits.log_sum_exp(D::Minus1)?;
    Ok((normalizer - chosen)?.to_vec1()?)
}

/// ‖a - b‖₂ / ‖b - mean(b)‖₂: the mean is taken out, because losses of next tokens all lie around ln(vocabulary),
/// and what they have in common would hide how they differ.
fn relative_distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |value: f64| value * value;
    let mean = b.iter().map(|b| f64::from(*b)).sum::<f64>() / b.len().max(1) as f64;
    let distance: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let spread: f64 = b.iter().map(|b| square(f64::from(*b) - mean)).sum();
    // A network that answers the same everywhere (all weights zero) is matched by answering that.
    if spread > 0.0 { (distance / spread).sqrt() } else { distance.sqrt() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::export::test_model::tiny_llama;
    use crate::export::{TargetPreset, export_package, quantize_for_target};
    use crate::unwatched;

    #[track_caller]
    fn check(distance: f64, scheme: QuantScheme, expected: &str) {
        let found = match judge(distance, scheme) {
            Ok(read_back) if read_back.note().contains("rounds activations to 8 bits") => "noted",
            Ok(_) => "passed",
            Err(_) => "refused",
        };
        assert_eq!(found, expected, "{distance} in {}", scheme.label());
    }

    #[test]
    fn distances_are_passed_noted_or_refused() {
        for scheme in [QuantScheme::Int8, QuantScheme::Ternary] {
            check(0.15, scheme, "passed");
            check(0.151, scheme, "noted");
            check(0.5, scheme, "noted");
            check(0.501, scheme, "refused");
            check(f64::NAN, scheme, "refused");
        }
        for scheme in [QuantScheme::F32, QuantScheme::F16, QuantScheme::Bf16] {
            check(0.002, scheme, "passed");
            check(0.0021, scheme, "refused");
            check(f64::NAN, scheme, "refused");
        }
    }

    #[test]
    fn distances() {
        assert_eq!(relative_distance(&[1.0, 3.0], &[1.0, 3.0]), 0.0);
        assert_eq!(relative_distance(&[3.0, 1.0], &[1.0, 3.0]), 2.0);
        // A common offset does not make answers look alike.
        assert_eq!(relative_distance(&[103.0, 101.0], &[101.0, 103.0]), 2.0);
        assert_eq!(relative_distance(&[5.0], &[5.0]), 0.0);
        assert!(relative_distance(&[f32::NAN], &[5.0]).is_nan());
    }

    /// Mistakes that a comparison of bytes cannot see, because both sides would make them: each is noticed, in the
    /// scheme with the widest tolerance. One scale of 2 in a single matrix is at the lower end: here it changes answers
    /// by about a third.
    #[test]
    fn wrong_layouts_and_scales_do_not_pass_unnoticed() {
        let root = tempfile::tempdir().unwrap();
        let checkpoint = tiny_llama(root.path());
        let name = "model.layers.0.self_attn.q_proj.weight";
        let right = checkpoint.weights.get(name).unwrap().clone();
        let target = TargetPreset::for_scheme(QuantScheme::Int8);
        let folder = root.path().join("package");
        let written = export_package(&checkpoint, &target, &folder, None, unwatched!()).unwrap();
        assert!(written.read_back.relative_distance < 0.12, "{:?}", written.read_back);
        // Rows of a head in llama.cpp's order instead of transformers'.
        let order: Vec<u32> = (0..64_u32).map(|row| row / 16 * 16 + row % 2 * 8 + row % 16 / 2).collect();
        let permuted = right.index_select(&Tensor::new(order, &Device::Cpu).unwrap(), 0).unwrap();
        let mistakes = [
            ("rows permuted", permuted, true),
            ("turned", right.t().unwrap().contiguous().unwrap(), true),
            ("scale halved", (&right * 0.5).unwrap(), false),
            ("sign lost", right.neg().unwrap(), true),
        ];
        for (mistake, tensor, is_refused) in mistakes {
            let mut wrong = checkpoint.clone();
            wrong.weights.insert(name, tensor);
            let weights = quantize_for_target(&wrong, &target, unwatched!()).unwrap();
            match read_back(&wrong, &weights, &folder, unwatched!()) {
                Err(ExportError::ReadBack { found, .. }) => assert!(!found.is_empty(), "{mistake}"),
                Ok(noted) if !is_refused && noted.relative_distance > noted.usual => {}
                other => panic!("{mistake} passed: {other:?}"),
            }
        }
    }
}
