//! What would make a run fit: each remedy is a plan of its own that was checked against the budget.

use super::beside_gpu::fits_beside_gpu;
use super::planner::{Case, Place, PlanInput, Tensors};
use super::{Remedy, format_bytes, planner::grouped};
use crate::models::ops::Kept;
use crate::models::{ModelPreset, Network};
use crate::optim::{OptimizerConfig, OptimizerKind, Schedule, StatePlace, StatePrecision};

/// Shortest sequence worth proposing, tokens.
const MIN_SEQUENCE: usize = 32;

/// Fewest images over which batch norm's statistics are worth having (Wu and He 2018, arXiv 1803.08494, figure 1:
/// the error grows quickly below).
const MIN_NORM_IMAGES: usize = 16;

/// More parts than this are tried only as single examples.
const MAX_PARTS: usize = 4096;

/// Changes that fit, mildest first; the last one is always the memory that it would take as it is.
pub(super) fn remedies(case: &Case, input: &PlanInput<'_>) -> Vec<Remedy> {
    let budget = input.budget_bytes;
    let mut remedies: Vec<Remedy> = settings(case, input).into_iter().collect();
    let in_words = [
        shorter(case, budget),
        smaller_batch(case, budget),
        micro_batches_and_shorter(case, budget),
        leaner_state(case, input),
        smaller_model(case, input),
    ];
    remedies.extend(in_words.into_iter().flatten().map(Remedy::in_words));
    let total = format_bytes(case.total_bytes());
    remedies.push(Remedy::in_words(match case.place {
        Place::Processor => format!("a memory budget of {total} (this run as it is)"),
        Place::Gpu => format!("a GPU with {total} free and a limit as high, or the processor (this run as it is)"),
    }));
    remedies
}

/// The mildest settings that fit: smaller parts of a batch; with layers that are computed again, which costs a forward
/// pass; with optimizer states of 8 bits, which are rounded; with both. The last two are our kernels'. On a GPU, before all
/// else than smaller parts, with optimizer states in the machine's memory, where it has room, of 8 bits if need be. Where
/// none fit, the budget that the thriftiest need.
fn settings(case: &Case, input: &PlanInput<'_>) -> Option<Remedy> {
    let budget = input.budget_bytes;
    let has_kernels = case.place == Place::Processor;
    let recompute = |case: &Case| {
        let can = case.reads_text() && case.kept == Kept::Activations;
        can.then(|| Case { kept: Kept::Input, ..case.clone() })
    };
    let offload = || Case { state_place: StatePlace::HostMemory, ..case.clone() };
    let offloaded = (case.place == Place::Gpu && !case.is_offloaded()).then(offload);
    let coded = || {
        let optimizer = OptimizerConfig { states: StatePrecision::EightBit, ..input.optimizer.clone() };
        let tensors = Tensors::of(&input.network.specs(), &optimizer, case.num_threads);
        Case { states: StatePrecision::EightBit, tensors, ..offloaded.as_ref().unwrap_or(case).clone() }
    };
    let coded = (case.states == StatePrecision::F32).then(coded);
    let steps = [Some(case.clone()), offloaded.clone(), recompute(case), offloaded.as_ref().and_then(recompute)];
    let steps = steps.into_iter().chain([coded.clone(), coded.as_ref().and_then(recompute)]).flatten();
    let in_parts = |milder: Case| std::iter::once(milder.clone()).chain(more_parts(&milder).collect::<Vec<_>>());
    let has_room = |case: &Case| fits_beside_gpu(case, input.beside_budget_bytes);
    let cases: Vec<Case> = steps.flat_map(in_parts).filter(has_room).collect();
    if let Some((fit, bytes)) = first_fit(cases.iter().cloned(), budget) {
        let what = format!("{}: {bytes}, {}", changes(case, &fit), price(case, &fit));
        return Some(Remedy { settings: Some(fit.settings()), ..Remedy::in_words(what) });
    }
    let least = cases.iter().min_by_key(|case| case.total_bytes()).filter(|_| has_kernels)?;
    let changes = changes(case, least);
    if changes.is_empty() {
        return None;
    }
    let (bytes, price) = (format_bytes(least.total_bytes()), price(case, least));
    Some(Remedy::in_words(format!("a memory budget of {bytes} with {changes}: {price}")))
}

/// What `fit` has otherwise than `case`, in words.
pub(super) fn changes(case: &Case, fit: &Case) -> String {
    let mut what = Vec::new();
    if fit.num_micro_batches != case.num_micro_batches {
        let (size, parts) = (grouped(fit.micro_batch() as u64), grouped(fit.num_micro_batches as u64));
        what.push(format!("micro-batches of {size} ({parts} parts)"));
    }
    if fit.kept != case.kept {
        what.push("activation checkpointing".to_owned());
    }
    if fit.states != case.states {
        what.push("8-bit optimizer states".to_owned());
    }
    if fit.state_place != case.state_place {
        what.push(match fit.state_place {
            StatePlace::HostMemory => "optimizer states in the machine's memory".to_owned(),
            StatePlace::WithWeights => "optimizer states on the GPU".to_owned(),
        });
    }
    what.join(", ")
}

/// What it costs to run as `fit` instead of as `case`.
pub(super) fn price(case: &Case, fit: &Case) -> String {
    let mut changes = Vec::new();
    if fit.num_micro_batches != case.num_micro_batches && fit.has_batch_norm() {
        changes.push(format!("batch norm sees {} images at a time", grouped(fit.micro_batch() as u64)));
    }
    if fit.states != case.states {
        changes.push("states are rounded".to_owned());
    }
    let result = if changes.is_empty() {
        "the same result but for rounding".to_owned()
    } else {
        format!("another result, because {}", changes.join(" and "))
    };
    // As measured on GPT-2 11M on the processor, docs/experiments/memory-features.
    let time = if fit.kept != case.kept {
        "about a third more computing"
    } else if case.place == Place::Gpu {
        "slower, by how much was not measured on a GPU"
    } else if fit.micro_batch() < case.micro_batch().min(case.num_threads) {
        "up to a third slower, because parts hold fewer examples than there are threads"
    } else {
        "a little slower"
    };
    match (fit.state_place, case.state_place) {
        // A gradient goes there, and a weight there and back; Muon's direction comes in place of its weight.
        (StatePlace::HostMemory, StatePlace::WithWeights) => {
            format!("{result}, {time}, and each step moves up to 12 bytes a weight between the GPU and memory")
        }
        (StatePlace::WithWeights, StatePlace::HostMemory) => {
            format!("{result}, without copies between the GPU and memory")
        }
        (StatePlace::HostMemory, StatePlace::HostMemory) | (StatePlace::WithWeights, StatePlace::WithWeights) => {
            format!("{result}, {time}")
        }
    }
}

/// Parts of a batch to try: every larger number that cuts it into equal parts, to single examples. With batch norm, as
/// long as enough images are normalized together.
fn more_parts(case: &Case) -> impl Iterator<Item = Case> {
    let (batch_size, current) = (case.batch_size, case.num_micro_batches);
    let few = 1..batch_size.min(MAX_PARTS + 1);
    let larger = few.chain([batch_size]).filter(move |&parts| parts > current && batch_size.is_multiple_of(parts));
    let cut = larger.map(|num_micro_batches| Case { num_micro_batches, ..case.clone() });
    cut.filter(|case| !case.has_batch_norm() || case.micro_batch() >= MIN_NORM_IMAGES)
}

fn first_fit(mut cases: impl Iterator<Item = Case>, budget: u64) -> Option<(Case, String)> {
    let fits = |case: Case| Some((case.total_bytes(), case)).filter(|(bytes, _)| *bytes <= budget);
    cases.find_map(fits).map(|(bytes, case)| (case, format_bytes(bytes)))
}

fn shorter_cases(case: &Case) -> impl Iterator<Item = Case> {
    let longest = if case.reads_text() { case.sequence_length } else { 0 };
    let halved = std::iter::successors(Some(longest / 2), |length| Some(length / 2));
    let long_enough = halved.take_while(|&length| length >= MIN_SEQUENCE);
    long_enough.map(|sequence_length| Case { sequence_length, ..case.clone() })
}

fn shorter(case: &Case, budget: u64) -> Option<String> {
    let (fit, bytes) = first_fit(shorter_cases(case), budget)?;
    Some(format!("sequences of {} tokens: {bytes}", grouped(fit.sequence_length as u64)))
}

fn smaller_batch(case: &Case, budget: u64) -> Option<String> {
    let halved = std::iter::successors(Some(case.batch_size / 2), |size| Some(size / 2)).take_while(|&size| size > 0);
    // As many of the parts as still cut it into equal ones.
    let with_size = |batch_size| {
        let num_micro_batches = common_divisor(batch_size, case.num_micro_batches);
        Case { batch_size, num_micro_batches, ..case.clone() }
    };
    let (fit, bytes) = first_fit(halved.map(with_size), budget)?;
    let parts = if fit.num_micro_batches == case.num_micro_batches {
        String::new()
    } else {
        format!(" in {} parts", grouped(fit.num_micro_batches as u64))
    };
    Some(format!("batches of {}{parts}: {bytes}", grouped(fit.batch_size as u64)))
}

/// The largest number that divides both, neither of them 0 (Euclid).
fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// Only when neither alone is enough.
fn micro_batches_and_shorter(case: &Case, budget: u64) -> Option<String> {
    if first_fit(more_parts(case), budget).is_some() || shorter(case, budget).is_some() {
        return None;
    }
    let one_by_one = Case { num_micro_batches: case.batch_size, ..case.clone() };
    let (fit, bytes) = first_fit(shorter_cases(&one_by_one), budget)?;
    let (micro_batch, tokens) = (grouped(fit.micro_batch() as u64), grouped(fit.sequence_length as u64));
    Some(format!("micro-batches of {micro_batch} with sequences of {tokens} tokens: {bytes}"))
}

/// Muon keeps one number per matrix weight where AdamW keeps two; a cosine schedule needs no average.
fn leaner_state(case: &Case, input: &PlanInput<'_>) -> Option<String> {
    let muon = OptimizerConfig { kind: OptimizerKind::Muon, ..input.optimizer.clone() };
    let tensors = Tensors::of(&input.network.specs(), &muon, case.num_threads);
    let muon_case = Case { tensors, ..case.clone() };
    let cosine = Schedule::Cosine { warmup_fraction: 0.05, final_fraction: 0.0 };
    let changes = [
        ("a cosine schedule without weight average", Case { schedule: cosine, ..case.clone() }),
        ("Muon, which keeps half of AdamW's state for matrices", muon_case.clone()),
        ("Muon and a cosine schedule without weight average", Case { schedule: cosine, ..muon_case }),
    ];
    let fitting = |(what, case): (&str, Case)| {
        let bytes = case.total_bytes();
        (bytes <= input.budget_bytes).then(|| format!("{what}: {}", format_bytes(bytes)))
    };
    changes.into_iter().find_map(fitting)
}

/// The largest preset below this model, of its own family if possible, for the same data and batch, then in
/// micro-batches.
fn smaller_model(case: &Case, input: &PlanInput<'_>) -> Option<String> {
    let data = case.config.data_shape();
    let candidate = |preset: ModelPreset| {
        let config = preset.config(data).ok()?;
        let specs = Network::new(&config).ok()?.specs();
        let tensors = Tensors::of(&specs, input.optimizer, case.num_threads);
        let is_smaller = tensors.num_params < case.tensors.num_params;
        is_smaller.then(|| (preset, Case { config, tensors, ..case.clone() }))
    };
    let mut smaller: Vec<(ModelPreset, Case)> = ModelPreset::ALL.into_iter().filter_map(candidate).collect();
    let family = std::mem::discriminant(&case.config);
    smaller.sort_by_key(|(_, case)| {
        (std::mem::discriminant(&case.config) != family, std::cmp::Reverse(case.tensors.num_params))
    });
    smaller.into_iter().find_map(|(preset, case)| {
        let as_it_is = first_fit([case.clone()].into_iter(), input.budget_bytes);
        let (fit, bytes) = as_it_is.or_else(|| first_fit(more_parts(&case), input.budget_bytes))?;
        let batch = if fit.num_micro_batches == input.num_micro_batches.max(1) {
            "with this batch".to_owned()
        } else {
            format!("in micro-batches of {}", grouped(fit.micro_batch() as u64))
        };
        Some(format!("a smaller model: {} needs {bytes} {batch}", preset.label()))
    })
}
