//! What a measured quantization means, in words. Every sentence rests on the numbers handed in.

use super::{Container, QuantScheme, QuantizedWeights, Sparsity, Storage, TensorPlan};
use crate::models::TensorKind;

/// Validation figures of one precision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasuredQuality {
    /// Loss, nats per image or token.
    pub loss: f64,
    /// Share of right answers; `None` for language models.
    pub accuracy: Option<f64>,
}

/// What became of the quality, in one of three words: for sentences and for colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QualityChange {
    /// As good as before.
    Kept,
    /// It costs a little.
    Little,
    /// It costs quality: there is advice what to do.
    Lost,
}

/// Accuracy points (of 1) that we call kept, and past which we warn.
const KEPT_ACCURACY: f64 = 0.002;
const LOST_ACCURACY: f64 = 0.01;
/// Growth of the loss that we call kept, and past which we warn (for models without an accuracy).
const KEPT_LOSS: f64 = 0.005;
const LOST_LOSS: f64 = 0.05;

impl MeasuredQuality {
    /// What became of it in `after`: by accuracy where there is one, else by the growth of the loss.
    #[must_use]
    pub fn change_to(self, after: Self) -> QualityChange {
        let (lost, kept, limit) = match (self.accuracy, after.accuracy) {
            (Some(before), Some(after)) => (before - after, KEPT_ACCURACY, LOST_ACCURACY),
            _ => ((after.loss - self.loss) / self.loss.abs().max(1e-9), KEPT_LOSS, LOST_LOSS),
        };
        if !after.loss.is_finite() || lost > limit {
            QualityChange::Lost
        } else if lost > kept {
            QualityChange::Little
        } else {
            QualityChange::Kept
        }
    }
}

/// Sentences for the report: sizes by storage, the worst tensor, what the metric did, what to do about it.
/// `sparsity`: what was asked for beside the scheme.
#[must_use]
pub fn quality_notes(
    weights: &QuantizedWeights,
    sparsity: Option<Sparsity>,
    before: MeasuredQuality,
    after: MeasuredQuality,
) -> Vec<String> {
    let mut notes = storage_notes(weights);
    notes.push(metric_note(weights.scheme(), sparsity, before, after));
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
    let plans = weights.tensors().iter().map(|tensor| &tensor.plan);
    notes.extend(fallback_note(plans, weights.scheme(), weights.container()));
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

/// Tensors that are stored in another way than the scheme asks, because their rows fill no blocks, and what does better;
/// `None` where there are none.
#[must_use]
pub fn fallback_note<'a>(
    plans: impl Iterator<Item = &'a TensorPlan>,
    scheme: QuantScheme,
    container: Container,
) -> Option<String> {
    // Other containers have ternary tensors whatever their rows.
    let is_gguf = container == Container::Gguf;
    let (kind, storage, fallbacks) = match scheme {
        QuantScheme::Ternary if is_gguf => ("ternary", Storage::Ternary, &[Storage::Q8Blocks, Storage::F16][..]),
        QuantScheme::TernaryBase3 if is_gguf => {
            ("ternary", Storage::TernaryBase3, &[Storage::Q8Blocks, Storage::F16][..])
        }
        QuantScheme::Int4K => ("Q4_K", Storage::Q4KBlocks, &[Storage::Q4Blocks][..]),
        QuantScheme::F32
        | QuantScheme::F16
        | QuantScheme::Bf16
        | QuantScheme::Int8
        | QuantScheme::Int4
        | QuantScheme::Ternary
        | QuantScheme::TernaryBase3 => return None,
    };
    let without_blocks: Vec<&TensorPlan> = plans
        .filter(|plan| plan.kind == TensorKind::Matrix && !plan.rows().1.is_multiple_of(foretrain_ternary::BLOCK_LEN))
        .collect();
    let in_storage = |fallback: &Storage| {
        let count = without_blocks.iter().filter(|plan| plan.storage == *fallback).count();
        let are = if count == 1 { "tensor is" } else { "tensors are" };
        (count > 0).then(|| format!("{count} {are} {}", fallback.label()))
    };
    let found: Vec<String> = fallbacks.iter().filter_map(in_storage).collect();
    if found.is_empty() {
        return None;
    }
    let remedy = if is_gguf && storage != Storage::Q4KBlocks {
        ". In safetensors, for foretrain-edge, all matrices are ternary: target Edge board (edge-board)"
    } else {
        ""
    };
    let (found, storage) = (found.join(" and "), storage.label());
    Some(format!("{found}, not {kind}: rows that are no multiple of 256 fill no blocks of {storage}{remedy}"))
}

fn metric_note(
    scheme: QuantScheme,
    sparsity: Option<Sparsity>,
    before: MeasuredQuality,
    after: MeasuredQuality,
) -> String {
    let label = scheme.label();
    if !after.loss.is_finite() {
        return format!("The {label} model's loss is not finite: do not ship it; take a more precise scheme");
    }
    let change = match (before.accuracy, after.accuracy) {
        (Some(before), Some(after)) => format!("accuracy {:.2}% became {:.2}%", before * 100.0, after * 100.0),
        _ => format!("loss {:.4} became {:.4} nats", before.loss, after.loss),
    };
    match before.change_to(after) {
        QualityChange::Lost => format!("{label} costs quality: {change}. {}", advice(scheme, sparsity)),
        QualityChange::Little => format!("{label} costs a little: {change}"),
        QualityChange::Kept => format!("{label} keeps the quality: {change}"),
    }
}

/// What to do where quality was lost. Words of the window and of the command line alike: no option of either is named.
fn advice(scheme: QuantScheme, sparsity: Option<Sparsity>) -> String {
    // Float types keep every weight: nothing was set to zero there.
    if let Some(sparsity) = sparsity.filter(|_| !scheme.is_float()) {
        return format!(
            "Its sparsity ({}) has a part in that, and maybe most of it: measure {} without it first",
            sparsity.label(),
            scheme.label()
        );
    }
    let advice = match scheme {
        QuantScheme::Ternary | QuantScheme::TernaryBase3 => {
            "These weights were not trained for three values: take int8, or fine-tune them with training for ternary weights"
        }
        QuantScheme::Int4 | QuantScheme::Int4K => "Take int8, or look at the tensors with the largest change",
        QuantScheme::Int8 => "Take bf16, or look at the tensors with the largest change",
        QuantScheme::F32 | QuantScheme::F16 | QuantScheme::Bf16 => "Take f32, and check the weights for outliers",
    };
    advice.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Init, TensorSpec};
    use crate::quant::plan;

    #[track_caller]
    fn check(scheme: QuantScheme, before: (f64, Option<f64>), after: (f64, Option<f64>), expected: &str) {
        let quality = |(loss, accuracy)| MeasuredQuality { loss, accuracy };
        let note = metric_note(scheme, None, quality(before), quality(after));
        assert!(note.starts_with(expected), "{note}");
        // The window shows it, too.
        assert!(!note.contains("--"), "{note}");
    }

    #[test]
    fn sparsity_is_told_before_a_more_precise_scheme() {
        let quality = |accuracy| MeasuredQuality { loss: 0.5, accuracy: Some(accuracy) };
        let note = |scheme, after| metric_note(scheme, Some(Sparsity::TwoOfFour), quality(0.965), quality(after));
        let lossy = note(QuantScheme::Int8, 0.82);
        assert!(lossy.contains("sparsity (2:4)") && lossy.ends_with("measure int8 without it first"), "{lossy}");
        assert!(!note(QuantScheme::Int8, 0.964).contains("sparsity"));
        assert!(note(QuantScheme::Bf16, 0.82).ends_with("check the weights for outliers"));
    }

    #[test]
    fn ternary_tensors_without_blocks_are_told_with_a_remedy() {
        let spec = |name: &str, kind, columns| TensorSpec {
            name: name.to_owned(),
            shape: vec![64, columns],
            kind,
            init: Init::Constant(0.0),
        };
        let specs = [
            // An embedding makes it a language model.
            spec("wte", TensorKind::Embedding, 96),
            spec("q", TensorKind::Matrix, 96),
            spec("k", TensorKind::Matrix, 256),
            spec("v", TensorKind::Matrix, 100),
        ];
        let scheme = QuantScheme::Ternary;
        let note = |container| fallback_note(plan(&specs, scheme, container).iter(), scheme, container);
        let found = note(Container::Gguf).unwrap_or_default();
        assert!(found.starts_with("1 tensor is Q8_0 and 1 tensor is F16, not ternary"), "{found}");
        assert!(found.ends_with("all matrices are ternary: target Edge board (edge-board)"), "{found}");
        assert_eq!(note(Container::Safetensors), None);
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
