//! Quantization: what fewer bits cost, with training for them and without, at equal steps.
//!
//! Full precision and the trainings for quantized weights have the same seeds and as many steps, in turns in one process;
//! nothing is tuned. The weights of full precision are then stored in each of [`QuantizationPlan::FORMS`], calibrated on
//! the training part where a form asks for it. All are measured as a package stores them: what was trained for with inputs
//! as in training, what is stored after training with floats.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::race::{Contender, Ground, OnRace, Terms, trained};
use super::stages::{Eyes, Stages};
use super::trial::{Exam, HeldOut, Trial, TrialResult};
use super::{ExperimentError, TrialRecipe};
use crate::device::Watch;
use crate::models::{ModelError, Network};
use crate::quant::{
    Container, PostTraining, QatConfig, QuantScheme, Rounding, TensorPlan, plan, quantize_calibrated, quantize_planned,
};

/// What to compare, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizationPlan {
    /// Full precision, which all others are compared with, then trainings for quantized weights.
    pub contenders: Vec<Contender>,
    /// Images or sequences of the training part that calibrated forms look at.
    pub calibration_samples: usize,
    /// Seeds, the same for each contender.
    pub seeds: Vec<u64>,
}

/// One way to store weights after training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    /// How weights are stored.
    pub scheme: QuantScheme,
    /// How they find their codes.
    pub rounding: Rounding,
}

/// The weights of full precision, stored in one form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredForm {
    /// Which.
    pub form: Form,
    /// Bits per number over all tensors, scales counted.
    pub bits_per_weight: f64,
    /// One measurement per seed; `None` when full precision diverged.
    pub results: Vec<Option<HeldOut>>,
}

/// Everything measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizationResult {
    /// The plan.
    pub plan: QuantizationPlan,
    /// For each contender, in the plan's order: bits per number over all tensors as stored, scales counted.
    pub bits_per_weight: Vec<f64>,
    /// For each contender, in that order, one result per seed.
    pub trained: Vec<Vec<TrialResult>>,
    /// Full precision, stored after training.
    pub stored: Vec<StoredForm>,
}

impl QuantizationPlan {
    /// How full precision is stored after training.
    pub const FORMS: [Form; 5] = [
        Form { scheme: QuantScheme::Int8, rounding: Rounding::Nearest },
        Form { scheme: QuantScheme::Int4, rounding: Rounding::Nearest },
        Form { scheme: QuantScheme::Int4, rounding: Rounding::Compensated },
        Form { scheme: QuantScheme::Ternary, rounding: Rounding::Nearest },
        Form { scheme: QuantScheme::Ternary, rounding: Rounding::Compensated },
    ];

    /// `recipe` in full precision and with each of `trainings`, otherwise the same.
    #[must_use]
    pub fn new(recipe: &TrialRecipe, trainings: &[QatConfig], calibration_samples: usize, seeds: Vec<u64>) -> Self {
        let contender = |name: String, what: String, qat| Contender {
            name,
            what,
            recipe: TrialRecipe { qat, ..recipe.clone() },
            begins: None,
        };
        let full = contender("full precision".to_owned(), "trained and stored as 32-bit floats".to_owned(), None);
        let trained = trainings.iter().map(|qat| {
            let label = qat.scheme.label();
            let start = (qat.start_fraction * 100.0).round();
            let teacher = qat.distillation.map_or("", |_| ", with a teacher");
            let ramp = match qat.ramp_fraction {
                0.0 => String::new(),
                share => format!(", along a ramp over {}%", (share * 100.0).round()),
            };
            let rate = match qat.learning_rate_factor {
                1.0 => String::new(),
                factor => format!(", at {factor} times the rate from there on"),
            };
            let what = format!("as many steps, {label} after {start}% of them{ramp}{rate}{teacher}");
            contender(format!("{label}, trained for{teacher}"), what, Some(*qat))
        });
        Self { contenders: std::iter::once(full).chain(trained).collect(), calibration_samples, seeds }
    }

    /// Errors: [`ExperimentError::Plan`], and settings of quantization-aware training out of range.
    pub fn check(&self) -> Result<(), ExperimentError> {
        let refuse = |expected, found: String| Err(ExperimentError::Plan { expected, found });
        if self.seeds.is_empty() {
            return refuse("at least one seed", "none".to_owned());
        }
        if self.calibration_samples == 0 {
            return refuse("at least one example to calibrate on", "none".to_owned());
        }
        let is_quantized: Vec<bool> = self.contenders.iter().map(|contender| contender.recipe.qat.is_some()).collect();
        if !matches!(is_quantized.as_slice(), [false, rest @ ..] if rest.iter().all(|is| *is)) {
            let names: Vec<&str> = self.contenders.iter().map(|contender| contender.name.as_str()).collect();
            return refuse("full precision and then trainings for quantized weights", names.join(", "));
        }
        let steps = |contender: &Contender| contender.recipe.num_steps;
        if self.contenders.windows(2).any(|pair| pair.iter().map(steps).min() != pair.iter().map(steps).max()) {
            return refuse(
                "as many steps for all",
                format!("{:?}", self.contenders.iter().map(steps).collect::<Vec<_>>()),
            );
        }
        for qat in self.contenders.iter().filter_map(|contender| contender.recipe.qat) {
            qat.check()?;
        }
        Ok(())
    }
}

/// Trains all contenders with every seed, and stores full precision in every form.
/// Errors: a plan that cannot be, and whatever a training or a quantization fails with.
pub fn quantization(
    ground: &Ground,
    plan: &QuantizationPlan,
    eyes: (Watch<'_>, OnRace<'_>),
) -> Result<QuantizationResult, ExperimentError> {
    plan.check()?;
    let stages = Stages::new(2 * plan.seeds.len() as u64);
    let eyes = Eyes::new(eyes, &stages);
    let contenders: Vec<&Contender> = plan.contenders.iter().collect();
    let bits = |scheme| bits_per_weight(&ground.network, scheme);
    let mut result = QuantizationResult {
        plan: plan.clone(),
        bits_per_weight: contenders
            .iter()
            .map(|contender| bits(contender.recipe.qat.map_or(QuantScheme::F32, |qat| qat.scheme)))
            .collect(),
        trained: vec![Vec::new(); contenders.len()],
        stored: QuantizationPlan::FORMS
            .map(|form| StoredForm { form, bits_per_weight: bits(form.scheme), results: Vec::new() })
            .to_vec(),
    };
    let with_seed = |&seed: &u64| {
        let what = format!("all in turns, seed {seed}");
        let trials = trained(ground, &contenders, &Terms::new(&what, seed), eyes)?;
        let stored = store(ground, trials.first(), (plan, seed), eyes)?;
        let finish = |trial: Trial| trial.finish(Exam::FINAL, eyes.watch());
        Ok::<_, ExperimentError>((trials.into_iter().map(finish).collect::<Result<Vec<_>, _>>()?, stored))
    };
    for (trained, stored) in ground.lanes.side_by_side(&plan.seeds, with_seed)? {
        result.trained.iter_mut().zip(trained).for_each(|(results, trained)| results.push(trained));
        result.stored.iter_mut().zip(stored).for_each(|(form, stored)| form.results.push(stored));
    }
    Ok(result)
}

/// Full precision in every form, measured.
fn store(
    Ground { network, device, .. }: &Ground,
    full: Option<&Trial>,
    (plan, seed): (&QuantizationPlan, u64),
    eyes: Eyes<'_>,
) -> Result<Vec<Option<HeldOut>>, ExperimentError> {
    let stage = eyes.begin(&format!("storing full precision, seed {seed}"));
    let Some(full) = full.filter(|full| !full.has_diverged()) else {
        eyes.end(&stage);
        return Ok(vec![None; QuantizationPlan::FORMS.len()]);
    };
    // Codes are found on the processor, wherever training was.
    let here = |tensor: &Tensor| tensor.to_device(&Device::Cpu).map_err(ModelError::from);
    let weights = full.params()?.map(|_, tensor| here(tensor))?;
    let inputs = full.training_inputs(plan.calibration_samples)?;
    let inputs = inputs.iter().map(here).collect::<Result<Vec<_>, _>>()?;
    let mut measured = Vec::new();
    for (done, form) in QuantizationPlan::FORMS.into_iter().enumerate() {
        eyes.tell(&stage, done as f64 / QuantizationPlan::FORMS.len() as f64)?;
        let target = (form.scheme, Container::Safetensors, plans(network, form.scheme));
        let options = PostTraining { rounding: form.rounding, ..PostTraining::default() };
        // Progress is that of the stage.
        let quiet = Watch::new(eyes.watch().cancel_flag(), &|_| {});
        let stored = match form.rounding {
            Rounding::Nearest => quantize_planned(&weights, target, &options, quiet)?,
            Rounding::Compensated => quantize_calibrated(network, &weights, target, &inputs, &options, quiet)?.weights,
        };
        let there = |_: &str, tensor: &Tensor| tensor.to_device(device).map_err(ModelError::from);
        measured.push(Some(full.measured(&stored.dequantized()?.map(there)?, Exam::FINAL, quiet)?));
    }
    eyes.end(&stage);
    Ok(measured)
}

fn plans(network: &Network, scheme: QuantScheme) -> Vec<TensorPlan> {
    plan(&network.specs(), scheme, Container::Safetensors)
}

fn bits_per_weight(network: &Network, scheme: QuantScheme) -> f64 {
    let plans = plans(network, scheme);
    let num_weights: usize = plans.iter().map(TensorPlan::num_weights).sum();
    let bytes: u64 = plans.iter().map(TensorPlan::num_bytes).sum();
    8.0 * bytes as f64 / num_weights.max(1) as f64
}
