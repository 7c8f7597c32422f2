//! Export of ONNX packages: what the graph is calibrated on, and what it is worth.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::shipping::{BATCH_SIZE, EXPORT_IMAGES, batches, measure};
use super::{ExportReport, QuantizeReport, SessionError};
use crate::data::{Batch, BatchSource, Dataset, Example, SplitPart};
use crate::device::Watch;
use crate::evaluation::{Evaluation, evaluate_with};
use crate::export::onnx::{OnnxModel, pixels_tensor, write_onnx_package};
use crate::export::{Checkpoint, ExportError, Quality, TargetPreset};
use crate::models::{DataShape, Network};
use crate::quant::{PostTraining, QuantScheme};

/// Writes the package of `checkpoint`, measured through its own graph on the validation part of `dataset`.
pub(super) fn export(
    checkpoint: &Checkpoint,
    target: &TargetPreset,
    options: &PostTraining,
    output: &Path,
    dataset: &Arc<Dataset>,
    watch: Watch<'_>,
) -> Result<ExportReport, SessionError> {
    let card = &checkpoint.card;
    let source = batches(card, dataset)?;
    let float = OnnxModel::new(checkpoint, watch)?;
    let model = match target.scheme {
        QuantScheme::Int8 => {
            let images = pixels_of(&source, SplitPart::Train, options.calibration_samples, card.model.data_shape());
            float.quantized(images.map(|batch| batch.map(|batch| batch.inputs)), watch)?
        }
        QuantScheme::F32
        | QuantScheme::F16
        | QuantScheme::Bf16
        | QuantScheme::Int4
        | QuantScheme::Int4K
        | QuantScheme::Ternary
        | QuantScheme::TernaryBase3 => float,
    };
    let network = Network::new(&card.model)?;
    let before = measure(card, &network, &checkpoint.weights, dataset, EXPORT_IMAGES, watch)?;
    let evaluator = model.evaluator()?;
    let images = pixels_of(&source, SplitPart::Validation, EXPORT_IMAGES, card.model.data_shape());
    let after =
        evaluate_with::<SessionError>(|inputs| Ok(evaluator.logits(inputs)?), images.map(|batch| Ok(batch?)), watch)?;
    let quality = quality(checkpoint, &model, options, &before, &after);
    let written = write_onnx_package(checkpoint, target, &model, output, Some(&Quality::from(&quality)), watch)?;
    Ok(ExportReport {
        target: target.id.clone(),
        package: written.package,
        files: written.files,
        quality,
        edge: None,
        run_command: written.run_command,
        notes: written.notes,
    })
}

/// Images of a part as the graph reads them, evenly spread, with their classes.
fn pixels_of(
    source: &BatchSource,
    part: SplitPart,
    max_images: usize,
    shape: DataShape,
) -> impl Iterator<Item = Result<Batch, ExportError>> {
    let num_batches = source.num_examples(part).min(max_images).div_ceil(BATCH_SIZE);
    let mut examples = source.evaluation_examples(part, max_images);
    let batches = std::iter::from_fn(move || {
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for example in examples.by_ref().take(BATCH_SIZE) {
            if let Example::Image { pixels, label } = example {
                images.push(pixels);
                labels.push(label);
            }
        }
        let DataShape::Images { channels, height, width, .. } = shape else { return None };
        (!images.is_empty()).then(|| {
            let count = labels.len();
            let inputs = pixels_tensor(&images, (channels, height, width))?;
            Ok(Batch { inputs, targets: Tensor::from_vec(labels, count, &Device::Cpu)? })
        })
    });
    // Nothing is cut off: whoever shows progress asks for their number.
    batches.take(num_batches)
}

fn quality(
    checkpoint: &Checkpoint,
    model: &OnnxModel,
    options: &PostTraining,
    before: &Evaluation,
    after: &Evaluation,
) -> QuantizeReport {
    let size = model.size();
    let method = match model.num_calibration_images() {
        0 => "batch norm folded".to_owned(),
        count => format!("nearest, activations calibrated on {count} images"),
    };
    let plain = PostTraining { calibration_samples: options.calibration_samples, ..PostTraining::default() };
    let mut notes = Vec::new();
    if *options != plain {
        let note = "ONNX weights are rounded each by itself, in one width: other options than the number of calibration \
                    samples were left out";
        notes.push(note.to_owned());
    }
    QuantizeReport {
        scheme: model.scheme(),
        metric: before.metric().0.to_owned(),
        before: before.metric().1,
        after: after.metric().1,
        loss_before: before.loss,
        loss_after: after.loss,
        num_examples: after.num_examples,
        bytes_before: checkpoint.weights.iter().map(|(_, tensor)| tensor.elem_count() as u64 * 4).sum(),
        bytes_after: size.bytes,
        bits_per_weight: size.bits_per_weight(),
        tensor_errors: model.tensor_errors().to_vec(),
        method,
        layers: Vec::new(),
        speeds: Vec::new(),
        tables: None,
        notes,
        output: None,
        report: None,
    }
}
