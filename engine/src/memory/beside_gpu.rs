//! What a run on a GPU keeps in the machine's memory.

use super::planner::{CUDA_HOST_BYTES, Case, F32, PROGRAM_BYTES, Place, PlanInput, Tensors};
use super::remedies::{changes, price};
use super::{MemoryPlan, PlanItem, PlanKind, Remedy, format_bytes};
use crate::optim::{OptimizerConfig, StatePlace, StatePrecision};

/// The peak of the machine's share of a run on a GPU, against `budget`: bytes, and where they come from. Allocates no tensor.
#[must_use]
pub fn plan_beside_gpu(input: &PlanInput<'_>, (budget_bytes, budget_source): (u64, String)) -> MemoryPlan {
    let case = Case::of(input);
    let mut items = items(&case);
    items.sort_by_key(|item| std::cmp::Reverse(item.bytes));
    let mut plan = MemoryPlan { items, budget_bytes, budget_source, remedies: Vec::new() };
    if !plan.fits() {
        plan.remedies = remedies(&case, input, budget_bytes);
    }
    plan
}

/// Whether that share of `case` stays within `budget_bytes`; a run on the processor has none.
pub(super) fn fits_beside_gpu(case: &Case, budget_bytes: u64) -> bool {
    match case.place {
        Place::Processor => true,
        Place::Gpu => total_bytes(case) <= budget_bytes,
    }
}

fn total_bytes(case: &Case) -> u64 {
    items(case).iter().fold(0, |sum, item| sum.saturating_add(item.bytes))
}

fn items(case: &Case) -> Vec<PlanItem> {
    // A copy is made while an older one is there, as what to go back to.
    let saving = case.state();
    let (program, cuda) = (format_bytes(PROGRAM_BYTES), format_bytes(CUDA_HOST_BYTES));
    let program = format!("{program} for program and allocator, {cuda} for CUDA and its libraries, not measured");
    let mut items = vec![
        case.snapshot(),
        PlanItem {
            kind: PlanKind::Runtime,
            bytes: (PROGRAM_BYTES + CUDA_HOST_BYTES).saturating_add(saving),
            how: format!("{program}, {} while saving", format_bytes(saving)),
        },
    ];
    if case.is_offloaded() {
        let on_its_way = case.tensors.largest.saturating_mul(2 * F32);
        let how = format!(
            "{}; {} for the largest tensor's weights and gradients",
            case.optimizer_how(),
            format_bytes(on_its_way)
        );
        let bytes = case.tensors.optimizer_bytes.saturating_add(on_its_way);
        items.push(PlanItem { kind: PlanKind::Optimizer, bytes, how });
    }
    if case.dataset_bytes > 0 {
        let how = "examples of all parts, as loaded, with the tokenizer of texts".to_owned();
        items.push(PlanItem { kind: PlanKind::Dataset, bytes: case.dataset_bytes, how });
    }
    items
}

/// Changes that fit, mildest first; the last one is the memory that it would take as it is.
fn remedies(case: &Case, input: &PlanInput<'_>, budget_bytes: u64) -> Vec<Remedy> {
    let on_gpu = Case { state_place: StatePlace::WithWeights, ..case.clone() };
    let on_gpu =
        Some(on_gpu).filter(|fit| fit.states == StatePrecision::F32 && fit.total_bytes() <= input.budget_bytes);
    let coded = || {
        let optimizer = OptimizerConfig { states: StatePrecision::EightBit, ..input.optimizer.clone() };
        let tensors = Tensors::of(&input.network.specs(), &optimizer, case.num_threads);
        Case { states: StatePrecision::EightBit, tensors, ..case.clone() }
    };
    let coded = (case.states == StatePrecision::F32).then(coded);
    let cases = if case.is_offloaded() { [on_gpu, coded] } else { [None, None] };
    let fitting = |fit: Case| {
        let bytes = total_bytes(&fit);
        let what = format!("{}: {}, {}", changes(case, &fit), format_bytes(bytes), price(case, &fit));
        (bytes <= budget_bytes).then(|| Remedy { settings: Some(fit.settings()), ..Remedy::in_words(what) })
    };
    let total = format_bytes(total_bytes(case));
    let as_it_is = Remedy::in_words(format!("a memory budget of {total} beside the GPU (this run as it is)"));
    cases.into_iter().flatten().filter_map(fitting).chain([as_it_is]).collect()
}
