//! What a recipe would need: memory from its config, time from a few real steps.

use std::sync::Arc;
use std::time::Instant;

use super::preparing::{check_recipe, fitted_model, trainer_and_batches};
use super::{PlanReport, RunConfig, SessionError};
use crate::data::Dataset;
use crate::device::{Watch, compute_pool};
use crate::memory::{self, MemoryPlan, PlanInput, PlanKind, format_bytes};
use crate::models::Network;
use crate::offload::{self, OffloadInput, Precision};

/// Steps are measured until this long has passed, at least one after the first.
const MEASURE_LIMIT_MS: f64 = 1_500.0;

/// What memory the recipe may take, and where that comes from.
pub(super) fn budget(config: &RunConfig) -> (u64, String) {
    if config.memory_budget_bytes == 0 {
        return memory::default_budget();
    }
    let source = format!("the budget of {} in the settings", format_bytes(config.memory_budget_bytes));
    (config.memory_budget_bytes, source)
}

/// Bytes by kind against the recipe's budget; allocates nothing.
pub(super) fn plan_memory(config: &RunConfig, network: &Network, dataset_bytes: u64) -> MemoryPlan {
    let (budget_bytes, budget_source) = budget(config);
    memory::plan(&PlanInput {
        network,
        optimizer: &config.optimizer,
        schedule: &config.schedule,
        predict: config.hybrid.strategy.predicts(),
        qat: config.qat.is_some(),
        has_teacher: config.qat.is_some_and(|qat| qat.distillation.is_some()),
        precision: config.precision,
        batch_size: config.batch_size,
        num_micro_batches: config.num_micro_batches,
        sequence_length: config.sequence_length,
        num_threads: config.num_threads,
        dataset_bytes,
        budget_bytes,
        budget_source,
    })
}

/// [`plan_memory`] for one training, which has a way more to fit: from disk, block by block.
pub(super) fn plan_run(config: &RunConfig, network: &Network, dataset_bytes: u64) -> MemoryPlan {
    let mut plan = plan_memory(config, network, dataset_bytes);
    if !plan.fits() {
        plan.remedies.extend(from_disk(config, network, dataset_bytes));
    }
    plan
}

/// What streaming would take, for a recipe that it can follow and a model that fits then.
fn from_disk(config: &RunConfig, network: &Network, dataset_bytes: u64) -> Option<String> {
    if config.qat.is_some() {
        return None;
    }
    let (budget_bytes, budget_source) = budget(config);
    let streamed = |batch_size: usize| {
        let plan = offload::plan(&OffloadInput {
            network,
            precision: Precision::default(),
            products: config.precision,
            batch_size,
            sequence_length: config.sequence_length,
            num_threads: config.num_threads,
            dataset_bytes,
            budget_bytes,
            budget_source: budget_source.clone(),
        })?;
        plan.memory.fits().then_some((batch_size, plan))
    };
    let (batch_size, plan) = streamed(config.batch_size).or_else(|| streamed(1))?;
    Some(format!(
        "blocks streamed from a disk with {} free, in batches of {batch_size}: {} (on the command line: foretrain train \
         --offload FOLDER)",
        format_bytes(plan.disk_bytes_by_block),
        format_bytes(plan.memory.total_bytes()),
    ))
}

/// [`plan_memory`] for `count` trainings that take turns: what a step needs is there once, what stays between steps for
/// each of them.
pub(super) fn plan_side_by_side(config: &RunConfig, network: &Network, dataset_bytes: u64, count: usize) -> MemoryPlan {
    let mut plan = plan_memory(config, network, dataset_bytes);
    if count < 2 {
        return plan;
    }
    for item in &mut plan.items {
        let stays = match item.kind {
            PlanKind::Weights | PlanKind::Optimizer | PlanKind::WeightAverage | PlanKind::RollbackSnapshot => true,
            PlanKind::Gradients
            | PlanKind::Activations
            | PlanKind::Logits
            | PlanKind::QuantizedWeights
            | PlanKind::Evaluation
            | PlanKind::Dataset
            | PlanKind::Runtime => false,
        };
        if stays && item.bytes > 0 {
            item.bytes = item.bytes.saturating_mul(count as u64);
            item.how = format!("{count} trainings in turns x ({})", item.how);
        }
    }
    plan.items.sort_by_key(|item| std::cmp::Reverse(item.bytes));
    plan
}

/// Plans memory and, when it fits, measures a full step on the recipe's own data.
/// `may_measure` is false while a run goes on, whose pace it would spoil.
pub(super) fn plan(
    config: &RunConfig,
    dataset: &Arc<Dataset>,
    may_measure: bool,
    watch: Watch<'_>,
) -> Result<PlanReport, SessionError> {
    let mut config = config.clone();
    config.model = fitted_model(&config, dataset)?;
    check_recipe(&config, dataset)?;
    let network = Arc::new(config.network()?);
    let plan = plan_run(&config, &network, dataset.bytes());
    let full_step_ms = if plan.fits() && may_measure {
        compute_pool(config.num_threads)?.install(|| measure_full_step(&config, dataset, &network, watch))?
    } else {
        None
    };
    let num_train = dataset.split().num_train;
    let mut warnings = Vec::new();
    let batch_tokens = match &**dataset {
        Dataset::Images(_) => config.batch_size,
        Dataset::Text(_) => config.batch_size * config.sequence_length,
    };
    if batch_tokens > num_train {
        warnings.push(format!("a batch of {batch_tokens} is larger than the training part of {num_train}"));
    }
    Ok(PlanReport {
        num_params: network.num_params() as u64,
        plan,
        full_step_ms,
        vanilla_seconds: full_step_ms.map(|ms| ms * config.num_steps as f64 / 1e3),
        warnings,
    })
}

fn measure_full_step(
    config: &RunConfig,
    dataset: &Arc<Dataset>,
    network: &Arc<Network>,
    watch: Watch<'_>,
) -> Result<Option<f64>, SessionError> {
    let (mut trainer, batches) = trainer_and_batches(config, network, dataset)?;
    let started = Instant::now();
    let mut steps_ms = Vec::new();
    // The first step also builds thread pools and pages: it is not counted.
    for number in 0..8 {
        watch.step("measuring a training step", number, Some(8))?;
        let step_started = Instant::now();
        trainer.vanilla_step(&batches.train_batch(number)?)?;
        let step_ms = step_started.elapsed().as_secs_f64() * 1e3;
        if number > 0 {
            steps_ms.push(step_ms);
        }
        if !steps_ms.is_empty() && started.elapsed().as_secs_f64() * 1e3 > MEASURE_LIMIT_MS {
            break;
        }
    }
    steps_ms.sort_by(f64::total_cmp);
    Ok(steps_ms.get(steps_ms.len() / 2).copied())
}
