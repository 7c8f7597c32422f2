//! Experiments: run on the trainer thread, since they would spoil a run's pace and it theirs.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::outlet::Outlet;
use super::planning::Placed;
use super::preparing::{check_recipe, trial_recipe};
use super::trainer_thread::Inbox;
use super::worker::Shelf;
use super::{
    EventKind, ExperimentJob, ExperimentKind, Failure, JobId, RunConfig, SessionError, planning, presets, reports,
};
use crate::data::Dataset;
use crate::device::{CancelFlag, ComputeDevice, Lanes, MachineRecord, Progress, Watch, resolved_num_threads};
use crate::experiment::{
    ArenaPlan, Conditions, Contender, CorrectionsPlan, FeaturesPlan, Ground, GrowthPlan, LadderPlan, Measured,
    MemoryFeature, OnRace, QuantizationPlan, RaceView, Report, Rung, RungSize, TiersPlan, TrialRecipe, arena,
    corrections, features, growth, ladder, quantization, tiers,
};
use crate::hybrid::{GateRule, Strategy, TierPreset};
use crate::models::ops::Kept;
use crate::models::{DataShape, Network, ops};

/// A race is shown this often at most.
const VIEW_INTERVAL: Duration = Duration::from_millis(200);

/// Does an experiment and writes its report; the event names the folder.
pub(super) fn run(
    job: JobId,
    asked: ExperimentJob,
    cancel: &CancelFlag,
    inbox: Inbox<'_>,
    shelf: &Shelf,
    outlet: &mut Outlet,
) -> Result<(), SessionError> {
    reports::reserve(&asked.output)?;
    if asked.config.start_from.is_some() {
        let what = "experiments train every contender from its seed; leave out the model to start from".to_owned();
        return Err(SessionError::Recipe { what });
    }
    let shared = Mutex::new((&mut *outlet, Instant::now()));
    let tell = |progress: Progress| {
        if let Ok(mut shared) = shared.lock() {
            refuse_runs(inbox, shared.0);
            shared.0.send(job, EventKind::Progress(progress));
        }
    };
    let on_race = |view: RaceView| {
        if let Ok(mut shared) = shared.lock()
            && shared.1.elapsed() > VIEW_INTERVAL
        {
            shared.1 = Instant::now();
            shared.0.send(job, EventKind::Raced(Arc::new(view)));
        }
    };
    let eyes = (Watch::new(cancel, &tell), &on_race as OnRace<'_>);
    let report = measure(&asked, shelf, eyes)?;
    reports::write_report(&report, &asked.output)?;
    outlet.send(job, EventKind::Experimented { report: Arc::new(report), folder: asked.output });
    Ok(())
}

fn measure(asked: &ExperimentJob, shelf: &Shelf, eyes: (Watch<'_>, OnRace<'_>)) -> Result<Report, SessionError> {
    let started = Instant::now();
    let config = &asked.config;
    let lanes = Lanes::of_machine(config.num_threads)?;
    let dataset = lanes.alone(|| shelf.load_anew(&config.data, eyes.0))?;
    let recipe = trial_recipe(config);
    let first_seeds = |count: u64| (0..count).map(|number| config.seed.wrapping_add(number)).collect();
    let following_seeds = |count: u64| (1..=count).map(|number| config.seed.wrapping_add(number)).collect();
    let conditions = |ground: &Ground, device: ComputeDevice| {
        let model = format!("{} parameters, {}", ground.network.num_params(), config.name);
        conditions(asked, &dataset, (model, ground.lanes.count(), device), started)
    };
    match &asked.kind {
        ExperimentKind::Arena { rate_factors, batch_divisors, num_seeds } => {
            let plan = ArenaPlan {
                recipe,
                vanilla: presets::tier("vanilla")?.config(),
                rate_factors: rate_factors.clone(),
                batch_divisors: batch_divisors.clone(),
                seeds: following_seeds(*num_seeds),
                tuning_seed: config.seed,
            };
            let (ground, device) = ground(config, &dataset, (plan.num_side_by_side(), lanes), eyes.0)?;
            let result = arena(&ground, &plan, eyes)?;
            Ok(Report::Arena(Measured { conditions: conditions(&ground, device), result }))
        }
        ExperimentKind::Corrections { confidence_thresholds, horizons, num_seeds } => {
            let plan = CorrectionsPlan {
                recipe,
                confidence_thresholds: confidence_thresholds.clone(),
                horizons: horizons.clone(),
                seeds: first_seeds(*num_seeds),
            };
            let (ground, device) = ground(config, &dataset, (1, lanes), eyes.0)?;
            let result = corrections(&ground, &plan, eyes)?;
            Ok(Report::Corrections(Measured { conditions: conditions(&ground, device), result }))
        }
        ExperimentKind::Tiers { strategy, num_seeds } => {
            let plan = TiersPlan { tiers: tier_contenders(&recipe, *strategy)?, seeds: first_seeds(*num_seeds) };
            let (ground, device) = ground(config, &dataset, (plan.tiers.len(), lanes), eyes.0)?;
            let result = tiers(&ground, &plan, eyes)?;
            Ok(Report::Tiers(Measured { conditions: conditions(&ground, device), result }))
        }
        ExperimentKind::Ladder { sizes, minutes_per_rung, loss_tolerance } => {
            let plan = LadderPlan {
                sizes: sizes.clone(),
                recipe,
                vanilla: presets::tier("vanilla")?.config(),
                seconds_per_rung: 60.0 * minutes_per_rung,
                loss_tolerance: *loss_tolerance,
                max_examples: config.max_validation_examples,
                seed: config.seed,
            };
            let config = ladder_config(config, sizes, &dataset, eyes.0)?;
            let opened = config.device.open()?;
            let rungs = sizes.iter().map(|&size| rung(&config, size, &dataset)).collect::<Result<Vec<_>, _>>()?;
            // Rungs that don't fit are not climbed.
            let may_keep = |rung: &Rung| rung.memory.has_room() || !rung.memory.fits();
            if config.device == ComputeDevice::Cpu && rungs.iter().all(may_keep) {
                ops::keep_freed_pages();
            }
            let result = ladder((&dataset, &opened, &Arc::new(lanes)), &plan, rungs, eyes)?;
            let labels = sizes.iter().map(|size| size.label()).collect::<Vec<_>>().join(", ");
            let model = format!("GPT-2 in sizes {labels}, {}", config.name);
            // A rung's two trainings are timed against each other, alone.
            let conditions = self::conditions(asked, &dataset, (model, 1, config.device), started);
            Ok(Report::Ladder(Measured { conditions, result }))
        }
        ExperimentKind::Growth { share, orders, rate_factors, num_seeds } => {
            let (ground, device) = ground(config, &dataset, (GrowthPlan::NUM_SIDE_BY_SIDE, lanes), eyes.0)?;
            let plan = GrowthPlan {
                recipe: TrialRecipe { hybrid: presets::tier("vanilla")?.config(), ..recipe },
                model: ground.network.config().clone(),
                share: *share,
                orders: orders.clone(),
                rate_factors: rate_factors.clone(),
                seeds: following_seeds(*num_seeds),
                tuning_seed: config.seed,
            };
            let result = growth(&ground, &plan, eyes)?;
            Ok(Report::Growth(Measured { conditions: conditions(&ground, device), result }))
        }
        ExperimentKind::Quantization { trainings, calibration_samples, num_seeds } => {
            let recipe = TrialRecipe { qat: None, ..recipe };
            let plan = QuantizationPlan::new(&recipe, trainings, *calibration_samples, first_seeds(*num_seeds));
            // Memory as those need it that train for fewer bits.
            let config = RunConfig { qat: trainings.last().copied(), ..config.clone() };
            let (ground, device) = ground(&config, &dataset, (plan.contenders.len(), lanes), eyes.0)?;
            let result = quantization(&ground, &plan, eyes)?;
            Ok(Report::Quantization(Measured { conditions: conditions(&ground, device), result }))
        }
        ExperimentKind::Features { features: asked_features, num_seeds } => {
            let recipe = TrialRecipe { hybrid: presets::tier("vanilla")?.config(), qat: None, ..recipe };
            let plan = FeaturesPlan::new(
                recipe,
                asked_features.clone(),
                first_seeds(*num_seeds),
                config.max_validation_examples,
            );
            let config = plain(config, &plan.recipe);
            // Its kernels are what features are of.
            let config = RunConfig { device: ComputeDevice::Cpu, ..config };
            // Trainings are timed against each other, alone.
            let lane = Lanes::new(1, config.num_threads)?;
            let (ground, device) = ground(&config, &dataset, (asked_features.len() + 1, lane), eyes.0)?;
            plan.check(&ground.network)?;
            let planned_bytes = planned_bytes(&config, &plan, &ground)?;
            let folder = asked.output.parent().unwrap_or(&asked.output);
            let result = features(&ground, &plan, (&planned_bytes, folder), eyes)?;
            Ok(Report::Features(Measured { conditions: conditions(&ground, device), result }))
        }
    }
}

/// `config` with what a trial's recipe says.
fn plain(config: &RunConfig, recipe: &TrialRecipe) -> RunConfig {
    RunConfig {
        hybrid: recipe.hybrid.clone(),
        optimizer: recipe.optimizer.clone(),
        qat: None,
        num_micro_batches: recipe.num_micro_batches,
        precision: recipe.precision,
        kept: Kept::Activations,
        ..config.clone()
    }
}

/// Peaks of memory that plans say: of plain training, and with each feature.
fn planned_bytes(config: &RunConfig, plan: &FeaturesPlan, ground: &Ground) -> Result<Vec<u64>, SessionError> {
    let Ground { network, dataset, .. } = ground;
    let held = |config: &RunConfig| {
        let network = Network::keeping(network.config(), config.kept)?;
        Ok::<_, SessionError>(planning::place(config, &network, dataset.bytes(), 1)?.plan.total_bytes())
    };
    let with = |&feature: &MemoryFeature| match feature.stored() {
        Some(precision) => {
            let plan = planning::streamed(config, network, (dataset.bytes(), None), precision);
            Ok(plan.map_or(u64::MAX, |plan| plan.memory.total_bytes()))
        }
        None => held(&RunConfig { kept: feature.kept(), ..plain(config, &feature.in_recipe(&plan.recipe)) }),
    };
    std::iter::once(held(config)).chain(plan.features.iter().map(with)).collect()
}

fn conditions(
    asked: &ExperimentJob,
    dataset: &Dataset,
    (model, num_side_by_side, device): (String, usize, ComputeDevice),
    started: Instant,
) -> Conditions {
    Conditions {
        title: asked.title.clone(),
        dataset: in_words(dataset),
        model,
        machine: MachineRecord::here().computing_on(device),
        num_threads: resolved_num_threads(asked.config.num_threads),
        num_side_by_side,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: asked.commit.clone(),
        day: asked.day.clone(),
        command: asked.command.clone(),
        seconds: started.elapsed().as_secs_f64(),
    }
}

/// The recipe's network fitted to the data, for races of `count` trainings, as many at once as there are lanes; one
/// lane alone where the memory suffices for no more.
/// Errors: numbers that cannot work, and a memory plan over the budget.
fn ground(
    config: &RunConfig,
    dataset: &Arc<Dataset>,
    (count, mut lanes): (usize, Lanes),
    watch: Watch<'_>,
) -> Result<(Ground, ComputeDevice), SessionError> {
    let config = RunConfig { model: config.model.fitted_to(dataset.shape())?, ..config.clone() };
    check_recipe(&config, dataset)?;
    let network = Arc::new(config.network()?);
    let place_for = |lanes: usize| planning::place(&config, &network, dataset.bytes(), count * lanes);
    let mut placed = place_for(lanes.count())?;
    if lanes.count() > 1 && (!placed.plan.fits() || placed.config.device != place_for(1)?.config.device) {
        lanes = Lanes::new(1, config.num_threads)?;
        placed = place_for(1)?;
    }
    let device = settled(placed, watch)?;
    let ground = Ground { network, dataset: Arc::clone(dataset), device: device.open()?, lanes: Arc::new(lanes) };
    Ok((ground, device))
}

/// The device, when its memory suffices; tells why it is this one where the recipe left that open.
fn settled(placed: Placed, watch: Watch<'_>) -> Result<ComputeDevice, SessionError> {
    if !placed.plan.fits() {
        return Err(SessionError::Memory { plan: Box::new(placed.plan) });
    }
    if placed.may_keep_pages() {
        ops::keep_freed_pages();
    }
    if let Some(why) = placed.why {
        watch.step(&why, 0, None)?;
    }
    Ok(placed.config.device)
}

/// The recipe with each tier, vanilla first; `strategy` takes the place of the tiers' own.
fn tier_contenders(recipe: &TrialRecipe, strategy: Option<Strategy>) -> Result<Vec<Contender>, SessionError> {
    let contender = |tier: TierPreset| {
        let mut hybrid = tier.config();
        if let Some(strategy) = strategy.filter(|_| hybrid.strategy.predicts()) {
            hybrid.strategy = strategy;
            if !strategy.samples() {
                // The gate counts what a sample costs.
                hybrid.gate = GateRule::Open;
            }
        }
        Contender {
            name: tier.name,
            what: tier.summary,
            recipe: TrialRecipe { hybrid, ..recipe.clone() },
            begins: None,
        }
    };
    Ok(presets::tiers()?.into_iter().map(contender).collect())
}

/// The ladder's recipe with a device that is settled: by what its largest size needs, each example by itself.
fn ladder_config(
    config: &RunConfig,
    sizes: &[RungSize],
    dataset: &Dataset,
    watch: Watch<'_>,
) -> Result<RunConfig, SessionError> {
    if config.device != ComputeDevice::Auto {
        return Ok(config.clone());
    }
    let DataShape::Text { vocab_size } = dataset.shape() else { return Err(no_text(dataset)) };
    let mut largest: Option<Placed> = None;
    for size in sizes {
        let rung =
            RunConfig { model: size.config(vocab_size)?, num_micro_batches: config.batch_size, ..config.clone() };
        let placed = planning::place(&rung, &rung.network()?, dataset.bytes(), 2)?;
        if largest.as_ref().is_none_or(|largest| placed.plan.total_bytes() > largest.plan.total_bytes()) {
            largest = Some(placed);
        }
    }
    let Some(placed) = largest else { return Ok(config.clone()) };
    let device = placed.config.device;
    if let Some(why) = placed.why {
        watch.step(&why, 0, None)?;
    }
    Ok(RunConfig { device, ..config.clone() })
}

fn no_text(dataset: &Dataset) -> SessionError {
    let what = format!("the ladder trains language models, but {} holds images. Choose a text", dataset.name());
    SessionError::Recipe { what }
}

/// The ladder's rung of this size: its batch is cut into as few parts as fit.
fn rung(config: &RunConfig, size: RungSize, dataset: &Dataset) -> Result<Rung, SessionError> {
    let DataShape::Text { vocab_size } = dataset.shape() else { return Err(no_text(dataset)) };
    let mut config = RunConfig { model: size.config(vocab_size)?, ..config.clone() };
    check_recipe(&config, dataset)?;
    let network = Arc::new(config.network()?);
    let asked = config.num_micro_batches;
    let counts = (asked..=config.batch_size).filter(|count| config.batch_size.is_multiple_of(*count));
    let mut memory = planning::place(&config, &network, dataset.bytes(), 2)?.plan;
    for count in counts {
        config.num_micro_batches = count;
        memory = planning::place(&config, &network, dataset.bytes(), 2)?.plan;
        if memory.fits() {
            break;
        }
    }
    Ok(Rung { size, network, num_micro_batches: config.num_micro_batches, memory })
}

fn in_words(dataset: &Dataset) -> String {
    let split = dataset.split();
    format!(
        "{}, {} to train on, {} to validate, {} to test ({}), fingerprint {}",
        dataset.name(),
        split.num_train,
        split.num_validation,
        split.num_test,
        split.rule,
        dataset.fingerprint()
    )
}

/// Tells whoever wants a run meanwhile that there can be none.
pub(super) fn refuse_runs(inbox: Inbox<'_>, outlet: &mut Outlet) {
    while let Ok(asked) = inbox.runs.try_recv() {
        outlet.send(asked.job, EventKind::Rejected(Failure::of(&SessionError::Busy)));
    }
}
