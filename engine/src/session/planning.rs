//! What a recipe would need: memory from its config, time from a few real steps.

use std::sync::Arc;
use std::time::Instant;

use super::preparing::{check_recipe, fitted_model, trainer_and_batches};
use super::{PlanReport, RunConfig, SessionError};
use crate::data::Dataset;
use crate::device::{
    ComputeDevice, ComputeError, Gpu, GpuBudget, GpuError, Placement, Watch, compute_pool, start_gpu, usable_gpu,
    usable_gpus,
};
use crate::hybrid::Strategy;
use crate::memory::{self, MemoryPlan, Place, PlanInput, PlanKind, Remedy, format_bytes, step_flops};
use crate::models::{Network, ops};
use crate::offload::{self, OffloadInput, OffloadPlan, Precision};

/// Steps are measured until this long has passed, at least one after the first.
const MEASURE_LIMIT_MS: f64 = 1_500.0;

/// Most work of a forward pass for which a step is measured although the recipe does not fit: steps of a second or a few.
const MOST_FLOPS: u64 = 200_000_000_000;

/// Where a run computes, and what it needs there.
pub(super) struct Placed {
    /// The recipe with a device that is settled.
    pub(super) config: RunConfig,
    /// Memory of that device; the machine's share of a run on a GPU where that is what does not fit.
    pub(super) plan: MemoryPlan,
    /// The machine's share has a quarter more room than a run on a GPU needs.
    has_room_beside: bool,
    /// Why it is this device, where the recipe left that open, and what of the recipe means nothing there.
    pub(super) why: Option<String>,
}

impl Placed {
    /// Whether memory that a step frees may be kept for the next: where the processor computes, or moves the optimizer's
    /// state, and has room.
    pub(super) fn may_keep_pages(&self) -> bool {
        match self.config.device {
            ComputeDevice::Cpu | ComputeDevice::Auto => self.plan.has_room(),
            ComputeDevice::Cuda(_) => self.has_room_beside && !self.config.optimizer.state_place.is_with_weights(),
        }
    }
}

/// Settles the recipe's device and plans its memory for `count` trainings that take turns. A plan that does not
/// fit is the caller's to refuse. Errors: a GPU that cannot be used.
pub(super) fn place(
    config: &RunConfig,
    network: &Network,
    dataset_bytes: u64,
    count: usize,
) -> Result<Placed, SessionError> {
    let (device, why) = match config.device {
        ComputeDevice::Cpu | ComputeDevice::Cuda(_) => (config.device, None),
        ComputeDevice::Auto if !config.optimizer.states.is_full() && config.optimizer.state_place.is_with_weights() => {
            let why = "Computing on the processor: its kernels keep optimizer states in 8 bits.";
            (ComputeDevice::Cpu, Some(why.to_owned()))
        }
        ComputeDevice::Auto => {
            let unbounded = GpuBudget { bytes: u64::MAX, source: String::new() };
            let needed_bytes = plan_on_gpu(config, network, (dataset_bytes, count), unbounded).total_bytes();
            let needs = (needed_bytes, config.vram_limit_bytes);
            let Placement { device, why } = Placement::choose(usable_gpus(), needs, format_bytes, starter(config));
            (device, Some(why))
        }
    };
    check_precision(config, device, why.as_deref())?;
    let config = RunConfig { device, ..config.clone() };
    match device {
        ComputeDevice::Cpu | ComputeDevice::Auto => {
            let plan = plan_on_processor(&config, network, dataset_bytes, count);
            let note = (!config.optimizer.state_place.is_with_weights()).then(|| NO_OFFLOAD.to_owned());
            let why = [why, note].into_iter().flatten().reduce(|why, note| format!("{why} {note}"));
            Ok(Placed { config, plan, has_room_beside: false, why })
        }
        ComputeDevice::Cuda(index) => {
            let gpu = gpu_for(&config, index)?;
            let gpu_budget = GpuBudget::of(&gpu, config.vram_limit_bytes, format_bytes);
            let (plan, has_room_beside) = plans_of_gpu(&config, network, (dataset_bytes, count), gpu_budget);
            Ok(Placed { config, plan, has_room_beside, why })
        }
    }
}

/// GPU `index`. Errors: one that cannot be used, or does not make the recipe's products.
pub(super) fn gpu_for(config: &RunConfig, index: usize) -> Result<Gpu, ComputeError> {
    let found = usable_gpu(index).and_then(|gpu| check_products(config, &gpu).map(|()| gpu));
    found.map_err(|source| ComputeError::Cuda { index, source })
}

/// Starts a GPU that makes the recipe's products.
pub(super) fn starter(config: &RunConfig) -> impl Fn(&Gpu) -> Result<(), GpuError> {
    |gpu| check_products(config, gpu).and_then(|()| start_gpu(gpu))
}

fn check_products(config: &RunConfig, gpu: &Gpu) -> Result<(), GpuError> {
    if config.precision == ops::Precision::Bf16 { gpu.check_bf16() } else { Ok(()) }
}

/// Refuses products that the processor cannot make, where that is the `device` that was settled, and `why`.
pub(super) fn check_precision(
    config: &RunConfig,
    device: ComputeDevice,
    why: Option<&str>,
) -> Result<(), SessionError> {
    match (device, config.precision.missing()) {
        (ComputeDevice::Cpu, Some(missing)) => {
            let why = why.map_or_else(String::new, |why| format!("{why} There, "));
            let what = format!("precision {}: {why}{missing}", config.precision.label());
            Err(SessionError::Recipe { what })
        }
        _ => Ok(()),
    }
}

/// What `--optimizer-offload` comes to on the processor.
const NO_OFFLOAD: &str =
    "The optimizer's state is in the machine's memory anyway: offloading it changes nothing on the processor.";

/// The GPU's plan, or the one of the machine's share where that alone does not fit; and whether the latter has room.
fn plans_of_gpu(
    config: &RunConfig,
    network: &Network,
    (dataset_bytes, count): (u64, usize),
    gpu_budget: GpuBudget,
) -> (MemoryPlan, bool) {
    let gpu_bytes = gpu_budget.bytes;
    let plan = plan_on_gpu(config, network, (dataset_bytes, count), gpu_budget);
    let input = plan_input(config, network, Place::Gpu, (dataset_bytes, (gpu_bytes, String::new())));
    let beside = times_trainings(memory::plan_beside_gpu(&input, budget(config)), count);
    let has_room = beside.has_room();
    (if plan.fits() && !beside.fits() { beside } else { plan }, has_room)
}

fn plan_on_gpu(
    config: &RunConfig,
    network: &Network,
    (dataset_bytes, count): (u64, usize),
    gpu_budget: GpuBudget,
) -> MemoryPlan {
    let gpu_budget = (gpu_budget.bytes, gpu_budget.source);
    let input = plan_input(config, network, Place::Gpu, (dataset_bytes, gpu_budget));
    times_trainings(memory::plan(&input), count)
}

/// What memory of the machine the recipe may take, and where that comes from.
fn budget(config: &RunConfig) -> (u64, String) {
    if config.memory_budget_bytes == 0 {
        return memory::default_budget();
    }
    let source = format!("the budget of {} in the settings", format_bytes(config.memory_budget_bytes));
    (config.memory_budget_bytes, source)
}

/// Bytes by kind of `count` trainings on the processor that take turns, against the recipe's budget; allocates nothing.
/// One alone has a way more to fit: from disk, block by block.
fn plan_on_processor(config: &RunConfig, network: &Network, dataset_bytes: u64, count: usize) -> MemoryPlan {
    let input = plan_input(config, network, Place::Processor, (dataset_bytes, budget(config)));
    let mut plan = times_trainings(memory::plan(&input), count);
    if count < 2 && !plan.fits() {
        plan.remedies.extend(from_disk(config, network, dataset_bytes));
    }
    plan
}

fn plan_input<'a>(
    config: &'a RunConfig,
    network: &'a Network,
    place: Place,
    (dataset_bytes, (budget_bytes, budget_source)): (u64, (u64, String)),
) -> PlanInput<'a> {
    PlanInput {
        place,
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
        beside_budget_bytes: budget(config).0,
    }
}

/// What streaming would take, for a recipe that it can follow and a model that fits then.
fn from_disk(config: &RunConfig, network: &Network, dataset_bytes: u64) -> Option<Remedy> {
    if config.qat.is_some() {
        return None;
    }
    let streamed = |batch_size: usize| {
        // As `--offload` does where no tier is named.
        let mut plain = RunConfig { batch_size, ..config.clone() };
        plain.hybrid.strategy = Strategy::None;
        let plan = streamed(&plain, network, (dataset_bytes, None), Precision::default())?;
        plan.memory.fits().then_some((batch_size, plan))
    };
    let (batch_size, plan) = streamed(config.batch_size).or_else(|| streamed(1))?;
    let what = format!(
        "blocks streamed from a disk with {} free, in batches of {batch_size}: {} (on the command line: foretrain train \
         --offload FOLDER)",
        format_bytes(plan.disk_bytes_by_block),
        format_bytes(plan.memory.total_bytes()),
    );
    Some(Remedy { streamed_batch: Some(batch_size), ..Remedy::in_words(what) })
}

/// What a training of this recipe takes that is streamed from disk, with passes computed on a GPU where a budget of one is
/// given; `None` for images.
pub(super) fn streamed(
    config: &RunConfig,
    network: &Network,
    (dataset_bytes, gpu): (u64, Option<GpuBudget>),
    precision: Precision,
) -> Option<OffloadPlan> {
    let (budget_bytes, budget_source) = budget(config);
    offload::plan(&OffloadInput {
        network,
        precision,
        products: config.precision,
        batch_size: config.batch_size,
        sequence_length: config.sequence_length,
        num_threads: config.num_threads,
        sampling: config.hybrid.strategy.samples().then_some(config.hybrid.slice_fraction),
        dataset_bytes,
        budget_bytes,
        budget_source,
        gpu,
    })
}

/// A plan of one training as that of `count` that take turns: what a step needs is there once, what stays between steps
/// for each of them.
fn times_trainings(mut plan: MemoryPlan, count: usize) -> MemoryPlan {
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
    // They were found for one.
    plan.remedies.iter_mut().for_each(|remedy| remedy.settings = None);
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
    let Placed { config, plan, why, .. } = place(&config, &network, dataset.bytes(), 1)?;
    let measure = |config: &RunConfig, network: &Arc<Network>| {
        compute_pool(config.num_threads)?.install(|| measure_full_step(config, dataset, network, watch))
    };
    let (full_step_ms, remedy_step_ms) = match plan.remedies.iter().find_map(|remedy| remedy.settings) {
        _ if !may_measure => (None, None),
        _ if plan.fits() => (measure(&config, &network)?, None),
        // What they cost is best told by a step with them, unless that takes long.
        Some(settings) if step_flops(&config.model, config.batch_size, config.sequence_length) <= MOST_FLOPS => {
            let mut thrifty = config.clone();
            thrifty.take_memory_settings(settings);
            (None, measure(&thrifty, &Arc::new(thrifty.network()?))?)
        }
        Some(_) | None => (None, None),
    };
    let num_train = dataset.split().num_train;
    let mut warnings: Vec<String> = why.into_iter().collect();
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
        remedy_step_ms,
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::data::DatasetSpec;
    use crate::models::DataShape;
    use crate::models::ops::{Kept, Precision};
    use crate::optim::{StatePlace, StatePrecision};
    use crate::session::{recipe, tier};

    fn config(device: ComputeDevice) -> (RunConfig, Network) {
        let recipe = recipe("grammar-gpt2-char").unwrap();
        let config = recipe.run_config(&tier("vanilla").unwrap(), DatasetSpec::Grammar).unwrap();
        let network = Network::new(&config.model.fitted_to(DataShape::Text { vocab_size: 30 }).unwrap()).unwrap();
        (RunConfig { device, ..config }, network)
    }

    #[test]
    fn auto_is_settled_and_says_why() {
        let (auto, network) = config(ComputeDevice::Auto);
        let placed = place(&auto, &network, 0, 1).unwrap();
        assert!(placed.config.device != ComputeDevice::Auto && placed.why.is_some());
        let (named, network) = config(ComputeDevice::Cpu);
        let placed = place(&named, &network, 0, 1).unwrap();
        assert_eq!((placed.config.device, placed.why), (ComputeDevice::Cpu, None));
    }

    #[test]
    fn a_precision_that_only_a_gpu_has_takes_one_or_is_refused_with_both_reasons() {
        let (auto, network) = config(ComputeDevice::Auto);
        match place(&RunConfig { precision: Precision::F16, ..auto }, &network, 0, 1) {
            Ok(placed) => assert!(matches!(placed.config.device, ComputeDevice::Cuda(_))),
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.contains("precision fp16: Computing on the processor") && text.contains("GPUs alone"),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn layers_that_are_computed_again_take_less_of_a_gpu() {
        let (config, network) = config(ComputeDevice::Cuda(0));
        let again = Network::keeping(network.config(), Kept::Input).unwrap();
        let activations = |network| {
            let unbounded = GpuBudget { bytes: u64::MAX, source: String::new() };
            let plan = plan_on_gpu(&config, network, (0, 1), unbounded);
            plan.items.iter().find(|item| item.kind == PlanKind::Activations).unwrap().bytes
        };
        let (again, plain) = (activations(&again), activations(&network));
        assert!(again < plain, "{again} of {plain}");
    }

    #[test]
    fn eight_bit_states_are_the_processor_s() {
        let (mut auto, network) = config(ComputeDevice::Auto);
        auto.optimizer.states = StatePrecision::EightBit;
        let placed = place(&auto, &network, 0, 1).unwrap();
        assert_eq!(placed.config.device, ComputeDevice::Cpu);
        assert!(placed.why.unwrap().contains("8 bits"));
    }

    #[test]
    fn eight_bit_states_in_host_memory_leave_the_device_open() {
        let (mut auto, network) = config(ComputeDevice::Auto);
        (auto.optimizer.states, auto.optimizer.state_place) = (StatePrecision::EightBit, StatePlace::HostMemory);
        let placed = place(&auto, &network, 0, 1).unwrap();
        assert!(!placed.why.unwrap().contains("in 8 bits"));
    }

    #[test]
    fn a_gpu_without_bf16_makes_other_products() {
        let (mut config, _) = config(ComputeDevice::Cuda(0));
        let name = "A model".to_owned();
        let old = Gpu {
            index: 0,
            name,
            total_bytes: 1,
            free_bytes: 1,
            uuid: String::new(),
            compute_capability: Some((7, 5)),
        };
        assert!(check_products(&config, &old).is_ok());
        config.precision = Precision::Bf16;
        let told = starter(&config)(&old).unwrap_err().to_string();
        assert!(told.contains("7.5") && told.contains("fp16"), "{told}");
    }

    #[test]
    fn states_in_host_memory_are_nothing_new_on_the_processor() {
        let (mut named, network) = config(ComputeDevice::Cpu);
        let plain = place(&named, &network, 0, 1).unwrap();
        named.optimizer.state_place = StatePlace::HostMemory;
        let placed = place(&named, &network, 0, 1).unwrap();
        assert_eq!((placed.plan, placed.why.as_deref()), (plain.plan, Some(NO_OFFLOAD)));
    }

    #[test]
    fn a_run_on_a_gpu_needs_the_machine_s_memory_too() {
        let (mut config, network) = config(ComputeDevice::Cuda(0));
        config.optimizer.state_place = StatePlace::HostMemory;
        let plans = |config: &RunConfig, bytes| {
            let budget = GpuBudget { bytes, source: "what is free of a GPU".to_owned() };
            plans_of_gpu(config, &network, (1 << 20, 1), budget)
        };
        config.memory_budget_bytes = 1 << 40;
        let (ample, has_room) = plans(&config, 1 << 40);
        assert!(ample.fits() && has_room && ample.budget_source.contains("GPU"));
        let placed = Placed { config: config.clone(), plan: ample.clone(), has_room_beside: true, why: None };
        assert!(placed.may_keep_pages());
        // The machine has too little: its part is what is refused, by its kinds.
        config.memory_budget_bytes = 1 << 20;
        let (refused, has_room) = plans(&config, 1 << 40);
        assert!(!refused.fits() && !has_room && refused.budget_source.contains("in the settings"));
        assert!(refused.items.iter().any(|item| item.kind == PlanKind::Dataset));
        let told = SessionError::Memory { plan: Box::new(refused) }.to_string();
        assert!(told.contains("beside the GPU"), "{told}");
        // Neither has enough: the GPU's is told first.
        let (refused, _) = plans(&config, ample.total_bytes() - 1);
        assert!(!refused.fits() && refused.budget_source.contains("GPU"));
    }

    #[test]
    fn a_plan_for_a_gpu_is_about_its_memory_alone() {
        let (config, network) = config(ComputeDevice::Cuda(0));
        let budget = |bytes| GpuBudget { bytes, source: "what is free of a GPU".to_owned() };
        let ample = plan_on_gpu(&config, &network, (1 << 40, 1), budget(u64::MAX));
        let here = plan_on_processor(&config, &network, 1 << 40, 1);
        assert!(ample.fits() && ample.items.iter().all(|item| item.kind != PlanKind::Dataset));
        assert!(here.items.iter().any(|item| item.kind == PlanKind::Dataset));
        // Layers composed of many operations keep more.
        let of = |plan: &MemoryPlan, kind| plan.items.iter().find(|item| item.kind == kind).unwrap().bytes;
        assert!(of(&ample, PlanKind::Activations) > of(&here, PlanKind::Activations));
        let tight = plan_on_gpu(&config, &network, (1 << 40, 1), budget(ample.total_bytes() - 1));
        assert!(
            !tight.fits() && tight.remedies.iter().any(|remedy| remedy.what.contains("GPU")),
            "{:?}",
            tight.remedies
        );
    }
}
