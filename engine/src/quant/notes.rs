//! What a measured quantization means, in words. Every sentence rests on the numbers handed in.

use super::{QuantScheme, QuantizedWeights, Storage, TensorPlan};
use crate::models::TensorKind;

/// Validation figures of one precision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasuredQuality {
    /// Loss, nats per image or token.
    pub loss: f64,
    /// Share of right answers; `None` for language models.
    pub accuracy: Option<f64>,
}

/// Accuracy points (of 1) that we call kept, and past which we warn.
const KEPT_ACCURACY: f64 = 0.002;
const LOST_ACCURACY: f64 = 0.01;
/// Growth of the loss that we call kept, and past which we warn (for models without an accuracy).
const KEPT_LOSS: f64 = 0.005;
const LOST_LOSS: f64 = 0.05;

/// Sentences for the report: sizes by storage, the worst tensor, what the metric did, what to do about it.
#[must_use]
pub fn quality_notes(weights: &QuantizedWeights, before: MeasuredQuality, after: MeasuredQuality) -> Vec<String> {
    let mut notes = storage_notes(weights);
    notes.push(metric_note(weights.scheme(), before, after));
    notes
}

/// What is stored how, and where the error is: needs no measurement of the model.
#[must_use]
pub fn storage_notes(weights: &QuantizedWeights) -> Vec<String> {
    let mut notes = Vec::new();
    let total = weights.num_weights().max(1) as f64;
    let share = |storage: Storage| {
        let stored = weights.tensors().iter().filter(|tensor| tensor.plan.storage == storage);
        stored.map(|tensor| tensor.plan.num_weights()).sum::<usize>() as f64 / total
    };
    let shares: Vec<String> = Storage::ALL
        .into_iter()
        .filter(|storage| share(*storage) > 0.0)
        .map(|storage| format!("{:.1}% {}", share(storage) * 100.0, storage.label()))
        .collect();
    notes.push(format!(
        "Stored as {}: {:.2} bits per weight over everything",
        shares.join(", "),
        weights.bits_per_weight()
    ));
    notes.extend(fallback_note(weights));
    let worst = weights.tensors().iter().max_by(|a, b| a.relative_error.total_cmp(&b.relative_error));
    if let Some(worst) = worst.filter(|worst| worst.relative_error > 0.0) {
        notes.push(format!(
            "Largest change: {} in {}, {:.1}% of its norm",
            worst.plan.name,
            worst.plan.storage.label(),
            worst.relative_error * 100.0
        ));
    }
    notes
}

/// Tensors that are stored in another way than the scheme asks, because their rows fill no blocks.
fn fallback_note(weights: &QuantizedWeights) -> Option<String> {
    let (kind, storage, fallback) = match weights.scheme() {
        QuantScheme::Ternary => ("ternary", Storage::Ternary, Storage::Q8Blocks),
        QuantScheme::TernaryBase3 => ("ternary", Storage::TernaryBase3, Storage::Q8Blocks),
        QuantScheme::Int4K => ("Q4_K", Storage::Q4KBlocks, Storage::Q4Blocks),
        QuantScheme::F32 | QuantScheme::F16 | QuantScheme::Bf16 | QuantScheme::Int8 | QuantScheme::Int4 => return None,
    };
    let is_fallback = |plan: &TensorPlan| plan.kind == TensorKind::Matrix && plan.storage == fallback;
    let count = weights.tensors().iter().filter(|tensor| is_fallback(&tensor.plan)).count();
    let (fallback, storage) = (fallback.label(), storage.label());
    let are = if count == 1 { "tensor is" } else { "tensors are" };
    (count > 0).then(|| {
        format!("{count} {are} {fallback}, not {kind}: rows that are no multiple of 256 fill no blocks of {storage}")
    })
}

fn metric_note(scheme: QuantScheme, before: MeasuredQuality, after: MeasuredQuality) -> String {
    let label = scheme.label();
    if !after.loss.is_finite() {
        return format!("The {label} model's loss is not finite: do not ship it; take a more precise scheme");
    }
    let advice = match scheme {
        QuantScheme::Ternary | QuantScheme::TernaryBase3 => {
            "These weights were not trained for three values: take int8, or fine-tune them with --qat ternary"
        }
        QuantScheme::Int4 | QuantScheme::Int4K => "Take int8, or look at the tensors with the largest change",
        QuantScheme::Int8 => "Take bf16, or look at the tensors with the largest change",
        QuantScheme::F32 | QuantScheme::F16 | QuantScheme::Bf16 => "Take f32, and check the weights for outliers",
    };
    let (lost, kept, limit, change) = match (before.accuracy, after.accuracy) {
        (Some(before), Some(after)) => {
            let lost = before - after;
            let change = format!("accuracy {:.2}% became {:.2}%", before * 100.0, after * 100.0);
            (lost, KEPT_ACCURACY, LOST_ACCURACY, change)
        }
        _ => {
            let lost = (after.loss - before.loss) / before.loss.abs().max(1e-9);
            (lost, KEPT_LOSS, LOST_LOSS, format!("loss {:.4} became {:.4} nats", before.loss, after.loss))
        }
    };
    if lost > limit {
        format!("{label} costs quality: {change}. {advice}")
    } else if lost > kept {
        format!("{label} costs a little: {change}")
    } else {
        format!("{label} keeps the quality: {change}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(scheme: QuantScheme, before: (f64, Option<f64>), after: (f64, Option<f64>), expected: &str) {
        let quality = |(loss, accuracy)| MeasuredQuality { loss, accuracy };
        let note = metric_note(scheme, quality(before), quality(after));
        assert!(note.starts_with(expected), "{note}");
    }

    #[test]
    fn words_follow_the_numbers() {
        check(QuantScheme::Int8, (0.04, Some(0.988)), (0.041, Some(0.9875)), "int8 keeps the quality: accuracy 98.80%");
        check(
            QuantScheme::Ternary,
            (0.04, Some(0.988)),
            (2.0, Some(0.41)),
            "ternary costs quality: accuracy 98.80% became 41.00%. These weights",
        );
        check(QuantScheme::Int8, (1.70, None), (1.72, None), "int8 costs a little: loss 1.7000 became 1.7200");
        check(QuantScheme::Ternary, (1.70, None), (f64::NAN, None), "The ternary model's loss is not finite");
    }
}
