//! A streamed training, step by step.

use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;

use super::desk::Desk;
use super::model::write_model;
use super::records::Records;
use super::{OffloadBatches, OffloadEnding, OffloadForecast, OffloadJob, OffloadReport, OffloadedModel};
use crate::data::{BatchConfig, BatchSource, Dataset, SplitPart};
use crate::device::{CancelFlag, Gauges, Watch};
use crate::evaluation::EvaluationError;
use crate::hybrid::Pilot;
use crate::import::ModelReader;
use crate::memory::MemoryPlan;
use crate::models::{Network, TensorSpec};
use crate::offload::{FirstWeights, LedTrainer, OffloadError, OffloadSettings, OffloadTrainer};
use crate::session::{EventKind, RunConfig, SessionError, ValidationPoint};

/// Share of the time between two validations that one may take.
const VALIDATION_SHARE: f64 = 0.1;

/// Computing of a sequence in a step over that in a validation: forward, forward again, and twice as much on the way back.
const STEP_PASSES: f64 = 4.0;

/// Trains until all steps are done, the guard ends it, or the user does.
pub(super) fn train(
    (asked, config, settings): (&OffloadJob, &RunConfig, &OffloadSettings),
    (network, dataset): (&Arc<Network>, &Arc<Dataset>),
    forecast: &OffloadForecast,
    (watch, cancel): (Watch<'_>, &CancelFlag),
    desk: &Desk<'_>,
) -> Result<OffloadReport, SessionError> {
    // Once: what two openings of a GPU hold does not go together.
    let device = config.device.open()?;
    let batches = BatchSource::new(
        Arc::clone(dataset),
        BatchConfig {
            batch_size: config.batch_size,
            sequence_length: config.sequence_length,
            augmentation: config.augmentation,
            seed: config.seed,
            device: device.clone(),
        },
    )?;
    let mut led = open(config, (network, device), (settings, forecast), watch)?;
    let records = Records::new(&asked.folder);
    let (earlier, mut validations) = records.settle(led.trainer())?;
    desk.begin((config, &asked.folder), (network.num_params() as u64, forecast), (&earlier, &validations));
    desk.send(EventKind::Started { folder: Some(asked.folder.clone()) });
    let num_earlier = validations.len();
    let mut steps = Vec::new();
    let mut has_held_out = true;
    loop {
        let trainer = led.trainer();
        if has_held_out && is_validation_due(asked, config, trainer.num_steps(), validations.last()) {
            desk.validate();
            match validate(config, trainer, &batches, watch) {
                Ok(point) => {
                    records.add_validation(&point)?;
                    desk.record_validation(&point);
                    desk.send(EventKind::Validated(Box::new(point)));
                    validations.push(point);
                }
                Err(OffloadError::Cancelled(_)) => break,
                // A text of a few words has nothing to hold out.
                Err(OffloadError::Evaluation(error)) if matches!(*error, EvaluationError::Empty) => {
                    has_held_out = false;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if led.trainer().num_steps() >= config.num_steps || led.must_stop() {
            break;
        }
        desk.obey(cancel);
        let number = match asked.batches {
            OffloadBatches::Data => led.trainer().num_steps(),
            OffloadBatches::First => 0,
        };
        match led.step(&batches.train_batch(number)?, watch) {
            Ok(step) => {
                records.add_step(&step)?;
                desk.record(&step, led.trainer().keeps_snapshots());
                desk.send(EventKind::Streamed(Box::new(step.clone())));
                steps.push(step);
            }
            Err(OffloadError::Cancelled(_)) => break,
            Err(error) => return Err(error.into()),
        }
        if let Some(what) = desk.passed_limit() {
            return Err(SessionError::GpuLimit { what });
        }
    }
    let is_stopped_by_guard = led.must_stop();
    let is_finished = led.trainer().num_steps() >= config.num_steps && !is_stopped_by_guard && !cancel.is_set();
    if is_finished {
        // Its room may be what the model needs.
        led.discard_snapshot()?;
    }
    let trainer = led.trainer();
    let model = if is_finished && asked.ending == OffloadEnding::Model {
        write_model(trainer, config, dataset, &asked.folder, watch)?
    } else {
        OffloadedModel::Blocks
    };
    Ok(OffloadReport {
        folder: asked.folder.clone(),
        step: trainer.num_steps(),
        is_finished,
        is_stopped_by_guard,
        commit: trainer.commit(),
        saved: trainer.describe(),
        steps,
        validations: validations.split_off(num_earlier),
        planned_bytes: forecast.plan.memory.total_bytes(),
        peak_bytes: Gauges::default().read().process_peak_bytes,
        device: config.device,
        planned_gpu_bytes: forecast.plan.gpu.as_ref().map(MemoryPlan::total_bytes),
        peak_gpu_bytes: desk.peak_gpu_bytes(),
        model,
    })
}

/// True after every so many steps and at the end, unless that was measured before. A training that sees one batch alone
/// shows that a model can learn, not that it does.
fn is_validation_due(asked: &OffloadJob, config: &RunConfig, step: u64, last: Option<&ValidationPoint>) -> bool {
    let is_time = step > 0 && (step.is_multiple_of(config.validation_interval.max(1)) || step >= config.num_steps);
    asked.batches == OffloadBatches::Data && is_time && last.is_none_or(|point| point.step != step)
}

/// Measures the present weights on held-out texts: the same each time.
fn validate(
    config: &RunConfig,
    trainer: &OffloadTrainer,
    batches: &BatchSource,
    watch: Watch<'_>,
) -> Result<ValidationPoint, OffloadError> {
    let started = Instant::now();
    let held_out = batches.evaluation_batches(SplitPart::Validation, num_validation_examples(config));
    let measured = trainer.evaluate(held_out, watch)?;
    Ok(ValidationPoint {
        step: trainer.num_steps(),
        loss: measured.loss,
        accuracy: None,
        num_examples: measured.num_examples,
        seconds: started.elapsed().as_secs_f64(),
        whole: None,
        quantized: None,
    })
}

/// Texts to measure on: the recipe's number, as far as that takes a tenth of the time between two validations; at least
/// one.
fn num_validation_examples(config: &RunConfig) -> usize {
    // Whatever number of steps is asked for: a training that goes on for more of them measures the same texts.
    let affordable = VALIDATION_SHARE * STEP_PASSES * config.validation_interval as f64 * config.batch_size as f64;
    config.max_validation_examples.min((affordable as usize).max(1))
}

/// The training of `settings`; a new one takes over the weights of the model that it starts from, tensor by tensor.
fn open(
    config: &RunConfig,
    (network, device): (&Arc<Network>, Device),
    (settings, forecast): (&OffloadSettings, &OffloadForecast),
    watch: Watch<'_>,
) -> Result<LedTrainer, SessionError> {
    let mut reader = config.start_from.as_deref().map(ModelReader::open).transpose()?;
    let mut first = reader.as_mut().map(|reader| {
        |spec: &TensorSpec| reader.values(spec).map_err(|error| OffloadError::FirstWeights { source: Box::new(error) })
    });
    let first = first.as_mut().map(|first| first as &mut FirstWeights<'_>);
    let trainer = OffloadTrainer::open(Arc::clone(network), &config.optimizer, settings, first, watch)?;
    let mut pilot = Pilot::without_snapshots(config.hybrid.clone(), config.schedule, config.num_steps, config.seed)?;
    if let Some(costs) = forecast.rates.and_then(|rates| rates.step_costs) {
        pilot.set_step_costs(costs);
    }
    let trainer = trainer.with_products(config.precision).computing_on(device);
    let led = LedTrainer::new(trainer, pilot)?;
    Ok(led.with_snapshots_every(config.checkpoint_interval))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::data::DatasetSpec;
    use crate::session::{recipe, tier};

    #[test]
    fn validation_takes_a_tenth_of_the_time_at_most() {
        let config = recipe("grammar-gpt2-char").unwrap();
        let config = config.run_config(&tier("vanilla").unwrap(), DatasetSpec::Grammar).unwrap();
        let of = |interval, batch_size| {
            num_validation_examples(&RunConfig {
                validation_interval: interval,
                batch_size,
                max_validation_examples: 64,
                ..config.clone()
            })
        };
        // 50 steps of one sequence each take as long as 200 forward passes.
        assert_eq!([of(50, 1), of(50, 8), of(1, 1)], [20, 64, 1]);
    }
}
