//! The last check of a package: the runtime that ships opens it and answers like the trainer's network does.

use std::path::Path;

use candle_core::{D, Device, Tensor};
use foretrain_edge::{Activations, Package};
use rand::RngExt;

use super::{Checkpoint, ExportError, Preprocessing};
use crate::device::Watch;
use crate::device::seed::{Stream, stream};
use crate::models::{DataShape, Forward, Mode, Network, Params};
use crate::quant::{QuantScheme, QuantizedWeights};

/// Random images, or token sequences, that both are asked about.
pub(super) const NUM_INPUTS: u64 = 4;
/// Longest random token sequence.
const MAX_TOKENS: usize = 32;
/// Seed of the random inputs: any number, the same for every package.
const SEED: u64 = 0x5eed;
/// Largest relative distance of the stored weights' answers to the trainer's, for weights of every type: both sides
/// compute in f32 from the same numbers and differ in the order of sums only. A wrong layout, row order, sign or scale
/// gives a tenth to several times the answers' spread.
pub(super) const WEIGHTS_TOLERANCE: f64 = 2e-3;
/// Largest relative distance of the integer kernels' answers to those of the same rounded inputs multiplied as floats,
/// beyond what rounding itself costs. The integer sums are exact, so only the order of float sums differs; now and then
/// that rounds an input to its other neighbour, and through many layers two such roundings of one input may end as far
/// from each other as from the unrounded answer. A kernel that is wrong for some row length or packing gives a distance
/// near or above 1.
const KERNELS_TOLERANCE: f64 = 0.02;
/// What rounding activations to 8 bits usually costs, as a relative distance. It is no mistake of the package, so more
/// is told and not refused: one outlier takes the 127 levels of a whole layer's input, as in language models and in
/// networks that are shown noise, which these inputs are. What it costs on real data is measured at the export.
const USUAL_ROUNDING: f64 = 0.15;

/// How far the shipped runtime's answers are from the trainer's, on the same stored weights, each cause by itself.
///
/// Distances are ‖a - b‖₂ / ‖b - mean(b)‖₂ over all answers (logits of images, losses of next tokens).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReadBack {
    /// Random inputs compared.
    pub num_inputs: u64,
    /// The stored weights, multiplied with inputs as they are, against the trainer's network: at most 0.002.
    pub weights_distance: f64,
    /// The same, for integer weights as they are run.
    pub integers: Option<IntegerReadBack>,
}

/// How far integer kernels are from what the stored weights mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IntegerReadBack {
    /// The kernels that ship against the same rounded activations multiplied as floats: at most 0.02 more than
    /// `rounding_distance`.
    pub kernels_distance: f64,
    /// What rounding activations to 8 bits costs by itself: rounded ones multiplied as floats against the trainer's
    /// network.
    pub rounding_distance: f64,
}

impl ReadBack {
    /// In words.
    pub(super) fn note(&self) -> String {
        // Two digits are enough; "within 0.00%" would claim more than was measured.
        let percent = |distance: f64| (distance * 100.0).max(0.01);
        let (count, weights) = (self.num_inputs, percent(self.weights_distance));
        let stored = format!(
            "Read back: with the stored weights, foretrain-edge answers {count} random inputs within {weights:.2}% of the \
             trainer's network"
        );
        let Some(IntegerReadBack { rounding_distance, kernels_distance }) = self.integers else { return stored };
        let (rounding, kernels) = (percent(rounding_distance), percent(kernels_distance));
        if rounding_distance > USUAL_ROUNDING {
            let usual = USUAL_ROUNDING * 100.0;
            return format!(
                "{stored}; as it runs, rounding activations to 8 bits moves these answers by {rounding:.0}%, where up to \
                 {usual:.0}% is usual, because a few activations are far larger than the rest. Compare its measured quality \
                 with the checkpoint's; bf16 rounds none"
            );
        }
        format!(
            "{stored}; as it runs, rounding activations to 8 bits moves these answers by {rounding:.2}%, its \
             kernels by {kernels:.2}%"
        )
    }
}

/// Opens the package in `folder` and compares its answers with the network's: the stored weights
/// first, then, for integer weights, the kernels that the runtime ships with.
/// Errors: [`ExportError::Runtime`] when it does not open or answer; [`ExportError::ReadBack`] when answers differ by
/// more than the order of sums explains, or are not finite.
pub(super) fn read_back(
    checkpoint: &Checkpoint,
    weights: &QuantizedWeights,
    folder: &Path,
    watch: Watch<'_>,
) -> Result<ReadBack, ExportError> {
    let failed =
        |tried| move |error: foretrain_edge::EdgeError| ExportError::Runtime { tried, what: error.to_string() };
    let open =
        |activations| Package::open_with(folder, activations).map_err(failed("opening the package in foretrain-edge"));
    let package = open(Activations::Bytes)?;
    let inputs: Vec<Input> = (0..NUM_INPUTS).map(|index| random_input(checkpoint, index)).collect();
    let trainer = trainer_answers(checkpoint, weights, &inputs)?;
    let answers = |package: &Package| {
        let mut answers = Vec::new();
        for (index, input) in (0..).zip(&inputs) {
            watch.step("running the package", index, Some(NUM_INPUTS))?;
            let answer = match input {
                Input::Pixels { pixels, .. } => package.logits(pixels),
                Input::Tokens(tokens) => package.token_losses(tokens),
            };
            answers.extend(answer.map_err(failed("running the package"))?);
        }
        if answers.len() != trainer.len() {
            let (expected, found) = (format!("{} numbers", trainer.len()), answers.len().to_string());
            return Err(ExportError::ReadBack { what: "answers of foretrain-edge".to_owned(), expected, found });
        }
        Ok(answers)
    };
    let shipped = answers(&package)?;
    match weights.scheme() {
        QuantScheme::F32 | QuantScheme::F16 | QuantScheme::Bf16 => judge(ReadBack {
            num_inputs: NUM_INPUTS,
            weights_distance: relative_distance(&shipped, &trainer),
            integers: None,
        }),
        QuantScheme::Int8
        | QuantScheme::Int4
        | QuantScheme::Int4K
        | QuantScheme::Ternary
        | QuantScheme::TernaryBase3 => {
            let stored = answers(&open(Activations::Floats)?)?;
            let rounded = answers(&open(Activations::RoundedFloats)?)?;
            judge(ReadBack {
                num_inputs: NUM_INPUTS,
                weights_distance: relative_distance(&stored, &trainer),
                integers: Some(IntegerReadBack {
                    kernels_distance: relative_distance(&shipped, &rounded),
                    rounding_distance: relative_distance(&rounded, &trainer),
                }),
            })
        }
    }
}

/// What the trainer's network answers with the stored weights, of which those of one block are unpacked at a time.
fn trainer_answers(
    checkpoint: &Checkpoint,
    weights: &QuantizedWeights,
    inputs: &[Input],
) -> Result<Vec<f32>, ExportError> {
    let network = Network::new(&checkpoint.card.model)?;
    let tensors = inputs.iter().map(|input| match input {
        Input::Pixels { pixels, shape } => normalized(&checkpoint.card.preprocessing, pixels, *shape),
        // The last token is only predicted.
        Input::Tokens(tokens) => token_row(tokens.split_last().map_or(&[][..], |(_, read)| read)),
    });
    let mut answers = Vec::new();
    network.forward_by_blocks(
        |block| Ok(weights.dequantized_for(block)?),
        tensors.collect::<Result<_, _>>()?,
        |number, logits| {
            answers.extend(match inputs.get(number) {
                Some(Input::Tokens(tokens)) => token_losses(logits, tokens)?,
                Some(Input::Pixels { .. }) | None => logits.flatten_all()?.to_vec1()?,
            });
            Ok::<_, ExportError>(())
        },
    )?;
    Ok(answers)
}

/// Passes a package that answers at these distances, when it is the one that was meant.
/// Errors: [`ExportError::ReadBack`].
fn judge(found: ReadBack) -> Result<ReadBack, ExportError> {
    let what = "answers of foretrain-edge with the stored weights";
    check(what, found.weights_distance, "the trainer's network", WEIGHTS_TOLERANCE)?;
    if let Some(integers) = &found.integers {
        let reference = "the same rounded inputs multiplied as floats";
        // NaN stays NaN here, and is refused.
        let tolerance = KERNELS_TOLERANCE + integers.rounding_distance;
        let what = "answers of foretrain-edge with the integer kernels";
        check(what, integers.kernels_distance, reference, tolerance)?;
    }
    Ok(found)
}

/// Refuses a distance above `tolerance`, and one that is no number.
pub(super) fn check(what: &str, distance: f64, reference: &str, tolerance: f64) -> Result<(), ExportError> {
    if distance <= tolerance {
        return Ok(());
    }
    Err(ExportError::ReadBack {
        what: what.to_owned(),
        expected: format!("a relative distance of at most {tolerance:.3} to {reference}"),
        found: format!("{distance:.4}"),
    })
}

/// What both are asked about.
pub(super) enum Input {
    /// (channels, height, width), 0 to 255.
    Pixels {
        pixels: Vec<u8>,
        shape: (usize, usize, usize),
    },
    Tokens(Vec<u32>),
}

/// The random input number `index` for a model of this shape.
pub(super) fn random_input(checkpoint: &Checkpoint, index: u64) -> Input {
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

/// The trainer's answer to one image (channels, height, width).
pub(super) fn image_logits(
    network: &Network,
    params: &Params,
    preprocessing: &Preprocessing,
    pixels: &[u8],
    shape: (usize, usize, usize),
) -> Result<Vec<f32>, ExportError> {
    let logits = network.forward(&Forward::new(params, Mode::Eval), &normalized(preprocessing, pixels, shape)?)?;
    Ok(logits.flatten_all()?.to_vec1()?)
}

/// One image (channels, height, width) as the network reads it, (1, channels, height, width).
fn normalized(
    preprocessing: &Preprocessing,
    pixels: &[u8],
    (channels, height, width): (usize, usize, usize),
) -> Result<Tensor, ExportError> {
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
    Ok(Tensor::from_vec(input, (1, channels, height, width), &Device::Cpu)?)
}

/// (1, t)
fn token_row(tokens: &[u32]) -> Result<Tensor, ExportError> {
    Ok(Tensor::from_slice(tokens, (1, tokens.len()), &Device::Cpu)?)
}

/// Nats of each next token, from the logits (1, n - 1, vocab) after all but the last of n tokens: n - 1 numbers.
fn token_losses(logits: &Tensor, tokens: &[u32]) -> Result<Vec<f32>, ExportError> {
    let logits = logits.squeeze(0)?;
    let next = tokens.get(1..).unwrap_or_default();
    let targets = Tensor::from_slice(next, (next.len(), 1), &Device::Cpu)?;
    let chosen = logits.contiguous()?.gather(&targets, D::Minus1)?.squeeze(1)?;
    let normalizer = logits.log_sum_exp(D::Minus1)?;
    Ok((normalizer - chosen)?.to_vec1()?)
}

/// ‖a - b‖₂ / ‖b - mean(b)‖₂: the mean is taken out, because losses of next tokens all lie around ln(vocabulary),
/// and what they have in common would hide how they differ.
pub(super) fn relative_distance(a: &[f32], b: &[f32]) -> f64 {
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
    use foretrain_edge::{CacheFormat, Model};

    use super::*;
    use crate::export::test_model::{tiny_bitnet, tiny_llama, tiny_vision};
    use crate::export::{TargetPreset, export_package, quantize_for_target};
    use crate::models::{Activation, MlpConfig, ModelConfig, ops};
    use crate::quant::{FakeQuantizer, TableType, Tables};
    use crate::unwatched;

    /// What becomes of a package with integer weights at these distances.
    #[track_caller]
    fn check_integers(weights_distance: f64, kernels_distance: f64, rounding_distance: f64, expected: &str) {
        let integers = Some(IntegerReadBack { kernels_distance, rounding_distance });
        let found = match judge(ReadBack { num_inputs: NUM_INPUTS, weights_distance, integers }) {
            Ok(read_back) if read_back.note().contains("is usual") => "noted",
            Ok(_) => "passed",
            Err(_) => "refused",
        };
        assert_eq!(found, expected, "{weights_distance} {kernels_distance} {rounding_distance}");
    }

    #[test]
    fn what_rounding_explains_is_noted_and_all_else_is_refused() {
        check_integers(0.002, 0.02, 0.15, "passed");
        check_integers(0.002, 0.02, 0.16, "noted");
        check_integers(0.002, 0.02, 3.0, "noted");
        check_integers(0.0021, 0.0, 0.0, "refused");
        // Rounding explains as much again in the kernels, and no more.
        check_integers(0.0, 0.119, 0.1, "passed");
        check_integers(0.0, 0.121, 0.1, "refused");
        check_integers(0.0, 0.021, 0.0, "refused");
        check_integers(0.0, 0.0, f64::NAN, "refused");
        check_integers(f64::NAN, 0.0, 0.0, "refused");
        check_integers(0.0, f64::NAN, 0.0, "refused");
        for (distance, passes) in [(0.002, true), (0.0021, false), (f64::NAN, false)] {
            let floats = ReadBack { num_inputs: NUM_INPUTS, weights_distance: distance, integers: None };
            assert_eq!(judge(floats).is_ok(), passes, "{distance}");
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

    /// What quantization-aware training computes with is what the runtime computes: ternary weights, inputs of integer
    /// matrices rounded to 8 bits. Here no kernel multiplies, and keys and values stay f32, so that only the order of sums
    /// differs; an input that lies between two bytes may then take the other one, on some processors more of them than on
    /// others (0.008 of the distance to floats with AVX2, 0.027 with AMX).
    #[test]
    fn training_rounds_inputs_as_the_runtime_does() {
        let root = tempfile::tempdir().unwrap();
        let mlp = tiny_vision(ModelConfig::Mlp(MlpConfig {
            in_channels: 1,
            image_size: (8, 8),
            hidden_sizes: vec![32, 64],
            num_classes: 3,
            activation: Activation::Relu,
        }));
        let (llama, bitnet) = (tiny_llama(root.path()), tiny_bitnet(root.path()));
        for (name, checkpoint) in [("mlp", mlp), ("llama", llama), ("bitnet", bitnet)] {
            for scheme in [QuantScheme::Ternary, QuantScheme::Int8] {
                let folder = root.path().join(format!("{name}-{}", scheme.label()));
                // Training keeps the tables of ternary weights in half precision.
                let tables =
                    if scheme == QuantScheme::Ternary { Tables::both(TableType::F16) } else { Tables::default() };
                let target = TargetPreset::for_scheme(scheme).with_tables(tables);
                export_package(&checkpoint, &target, &folder, None, unwatched!()).unwrap();
                let network = Network::new(&checkpoint.card.model).unwrap();
                let answers = |activations| {
                    let quantizer = FakeQuantizer::new(&network.specs(), scheme).reading(activations);
                    let params = quantizer.quantized(&checkpoint.weights).unwrap();
                    let of = |index| match random_input(&checkpoint, index) {
                        Input::Pixels { pixels, shape } => {
                            image_logits(&network, &params, &checkpoint.card.preprocessing, &pixels, shape).unwrap()
                        }
                        Input::Tokens(tokens) => {
                            let read = token_row(&tokens[..tokens.len() - 1]).unwrap();
                            let logits = network.forward(&Forward::new(&params, Mode::Eval), &read).unwrap();
                            token_losses(&logits, &tokens).unwrap()
                        }
                    };
                    (0..NUM_INPUTS).flat_map(of).collect::<Vec<f32>>()
                };
                let runtime = (0..NUM_INPUTS).flat_map(|index| match random_input(&checkpoint, index) {
                    Input::Pixels { pixels, .. } => {
                        Package::open_with(&folder, Activations::RoundedFloats).unwrap().logits(&pixels).unwrap()
                    }
                    Input::Tokens(tokens) => {
                        let model = Model::open_with(&folder, Activations::RoundedFloats).unwrap();
                        model.with_cache_format(CacheFormat::F32).token_losses(&tokens).unwrap()
                    }
                });
                let runtime: Vec<f32> = runtime.collect();
                let rounded = relative_distance(&answers(ops::Activations::Int8), &runtime);
                let floats = relative_distance(&answers(ops::Activations::Floats), &runtime);
                assert!(rounded < 0.1 * floats && floats > 1e-3, "{name} {scheme:?}: {rounded} against {floats}");
            }
        }
    }

    /// Mistakes that a comparison of bytes cannot see, because both sides would make them: each is refused, in every
    /// integer scheme. One scale of 2 in a single matrix is at the lower end: here it changes answers by about a third.
    #[test]
    fn wrong_layouts_and_scales_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let checkpoint = tiny_llama(root.path());
        let name = "model.layers.0.self_attn.q_proj.weight";
        let right = checkpoint.weights.get(name).unwrap().clone();
        // Rows of a head in llama.cpp's order instead of transformers'.
        let order: Vec<u32> = (0..64_u32).map(|row| row / 16 * 16 + row % 2 * 8 + row % 16 / 2).collect();
        let mistakes = [
            ("rows permuted", right.index_select(&Tensor::new(order, &Device::Cpu).unwrap(), 0).unwrap()),
            ("turned", right.t().unwrap().contiguous().unwrap()),
            ("scale halved", (&right * 0.5).unwrap()),
            ("sign lost", right.neg().unwrap()),
        ];
        for scheme in [QuantScheme::Int8, QuantScheme::Int4, QuantScheme::Ternary, QuantScheme::TernaryBase3] {
            let target = TargetPreset::for_scheme(scheme);
            let folder = root.path().join(scheme.label());
            let written = export_package(&checkpoint, &target, &folder, None, unwatched!()).unwrap();
            let integers = written.read_back.integers.unwrap();
            assert!(written.read_back.weights_distance < 1e-5, "{:?}", written.read_back);
            assert!(integers.kernels_distance < KERNELS_TOLERANCE, "{integers:?}");
            assert!((0.001..1.0).contains(&integers.rounding_distance), "{integers:?}");
            for (mistake, tensor) in &mistakes {
                let mut wrong = checkpoint.clone();
                wrong.weights.insert(name, tensor.clone());
                let weights = quantize_for_target(&wrong, &target, unwatched!()).unwrap();
                match read_back(&wrong, &weights, &folder, unwatched!()) {
                    Err(ExportError::ReadBack { what, .. }) => {
                        assert!(what.contains("stored weights"), "{mistake}: {what}");
                    }
                    other => panic!("{mistake} passed in {}: {other:?}", scheme.label()),
                }
            }
        }
    }
}
