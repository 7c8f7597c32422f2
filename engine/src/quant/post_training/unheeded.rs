//! Options that change nothing about one way to store a model: they are left out, and told.

use foretrain_ternary::{BLOCK_LEN, TernaryRule};

use super::{PostTraining, Rounding, TernaryScales};
use crate::models::TensorKind;
use crate::quant::{QuantScheme, Storage, TensorPlan};

impl PostTraining {
    /// Leaves out what has nothing to work on in tensors that are stored as `plans` say; returns a sentence for each,
    /// without its full stop, and for what works on some of them only.
    pub(super) fn leave_out_unheeded(&mut self, plans: &[TensorPlan], scheme: QuantScheme) -> Vec<String> {
        let label = scheme.label();
        let mut notes = Vec::new();
        if !plans.iter().any(|plan| plan.kind != TensorKind::Embedding && !plan.storage.is_float()) {
            let why = format!("{label} has no matrices of integers here");
            if self.rounding == Rounding::Compensated {
                self.rounding = Rounding::Nearest;
                notes.push(format!("GPTQ was left out: {why}"));
            }
            if self.sparsity.take().is_some() {
                notes.push(format!("Sparsity was left out: {why}"));
            }
        }
        notes.extend(self.leave_out_scales(plans, label));
        notes.extend(self.leave_out_rule(plans, label));
        if !self.is_calibrated() && self.calibration_samples != Self::DEFAULT_SAMPLES {
            self.calibration_samples = Self::DEFAULT_SAMPLES;
            let what =
                "The number of calibration samples was left out: only GPTQ, equalizing and mixing precisions calibrate";
            notes.push(what.to_owned());
        }
        notes
    }

    fn leave_out_scales(&mut self, plans: &[TensorPlan], label: &str) -> Option<String> {
        let asked = match self.ternary_scales {
            TernaryScales::Tensor => return None,
            TernaryScales::Row => "Ternary scales by row",
            TernaryScales::Block => "Ternary scales by block of 256",
        };
        let is_packed = |plan: &&TensorPlan| matches!(plan.storage, Storage::Ternary | Storage::TernaryBase3);
        let keeps_one = |plan: &&TensorPlan| !plan.rows().1.is_multiple_of(BLOCK_LEN);
        let num_packed = plans.iter().filter(is_packed).count();
        let kept: Vec<&str> = plans.iter().filter(is_packed).filter(keeps_one).map(|plan| plan.name.as_str()).collect();
        if num_packed > kept.len() {
            let (few, all) = (kept.len(), num_packed);
            let first = kept.first()?;
            return Some(format!(
                "{few} of {all} ternary tensors keep one scale, {first} the first of them: their rows fill no whole blocks of \
                 {BLOCK_LEN}"
            ));
        }
        self.ternary_scales = TernaryScales::default();
        let why = if !kept.is_empty() {
            format!("rows fill no whole blocks of {BLOCK_LEN}, so that each tensor keeps one scale")
        } else if plans.iter().any(|plan| plan.storage == Storage::BitnetRows) {
            "transformers' BitNet has one scale for each tensor".to_owned()
        } else {
            format!("{label} stores no tensor here as trits")
        };
        Some(format!("{asked} were left out: {why}"))
    }

    fn leave_out_rule(&mut self, plans: &[TensorPlan], label: &str) -> Option<String> {
        if self.ternary_rule == TernaryRule::default() {
            return None;
        }
        let is_ternary =
            |plan: &TensorPlan| matches!(plan.storage, Storage::Ternary | Storage::TernaryBase3 | Storage::BitnetRows);
        if !plans.iter().any(is_ternary) {
            self.ternary_rule = TernaryRule::default();
            return Some(format!("The ternary rule was left out: {label} stores no tensor here as trits"));
        }
        let with_gptq = "With GPTQ the ternary rule counts only for layers whose outputs lose less by rounding each weight \
                         by itself";
        (self.rounding == Rounding::Compensated).then(|| with_gptq.to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::Sparsity;
    use super::*;
    use crate::models::{Init, TensorSpec};
    use crate::quant::{Container, plan};

    /// Notes on all options at once, for a network with a matrix of each of these row lengths.
    fn notes(row_lens: &[usize], scheme: QuantScheme, container: Container) -> (PostTraining, String) {
        let spec = |(number, row_len): (usize, &usize)| TensorSpec {
            name: format!("matrix{number}"),
            shape: vec![4, *row_len],
            kind: if number == 0 { TensorKind::Embedding } else { TensorKind::Matrix },
            init: Init::Constant(0.0),
        };
        let specs: Vec<TensorSpec> = std::iter::once(&8).chain(row_lens).enumerate().map(spec).collect();
        let mut options = PostTraining {
            rounding: Rounding::Compensated,
            ternary_scales: TernaryScales::Row,
            ternary_rule: TernaryRule::Threshold,
            sparsity: Sparsity::from_label("0.5"),
            calibration_samples: 64,
            ..PostTraining::default()
        };
        let notes = options.leave_out_unheeded(&plan(&specs, scheme, container), scheme);
        (options, notes.join("; "))
    }

    #[test]
    fn what_has_nothing_to_work_on_is_left_out() {
        let (left, told) = notes(&[256], QuantScheme::Bf16, Container::Safetensors);
        assert_eq!(left, PostTraining::default());
        for what in ["GPTQ was", "Sparsity was", "scales by row were", "ternary rule was", "calibration samples was"] {
            assert!(told.contains(what), "{what}: {told}");
        }
        let (left, told) = notes(&[256], QuantScheme::Int8, Container::Safetensors);
        assert!(left.rounding == Rounding::Compensated && left.sparsity.is_some(), "{left:?}");
        assert!(told.contains("int8 stores no tensor here as trits") && !told.contains("GPTQ was"), "{told}");
        assert!(left.calibration_samples == 64 && !told.contains("calibration samples"), "{told}");
        let (left, told) = notes(&[100], QuantScheme::Ternary, Container::Safetensors);
        assert!(left.ternary_scales == TernaryScales::Tensor && told.contains("no whole blocks of 256"), "{told}");
        let (_, told) = notes(&[256], QuantScheme::Ternary, Container::Transformers);
        assert!(told.contains("BitNet has one scale"), "{told}");
    }

    #[test]
    fn what_works_on_some_tensors_stays_and_is_told() {
        let (left, told) = notes(&[100, 256], QuantScheme::Ternary, Container::Safetensors);
        assert_eq!(left.ternary_scales, TernaryScales::Row);
        assert!(told.contains("1 of 2 ternary tensors keep one scale, matrix1"), "{told}");
        assert!(told.contains("With GPTQ the ternary rule counts only"), "{told}");
        let (left, told) = notes(&[256], QuantScheme::Ternary, Container::Safetensors);
        assert!(left.ternary_scales == TernaryScales::Row && !told.contains("scale"), "{told}");
    }
}
