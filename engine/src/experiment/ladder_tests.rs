#![allow(clippy::unwrap_used, reason = "tests")]

use super::super::literal;
use super::*;
use crate::device::CancelFlag;
use crate::memory::{PlanItem, PlanKind};

#[test]
fn sizes_are_what_their_names_say() {
    let count =
        |size: RungSize, vocab_size| Network::new(&size.config(vocab_size).unwrap()).unwrap().num_params() as f64;
    for (size, vocab_size, expected) in [
        (RungSize::P100K, 60, 0.12e6),
        (RungSize::P1M, 60, 1.03e6),
        (RungSize::P11M, 60, 10.8e6),
        (RungSize::P124M, 50_257, 124.4e6),
    ] {
        let found = count(size, vocab_size);
        assert!((found / expected - 1.0).abs() < 0.02, "{}: {found}", size.label());
        assert_eq!(RungSize::from_label(&size.label().to_uppercase()), Some(size));
    }
    assert_eq!(RungSize::from_label("7b"), None);
}

#[test]
fn the_verdict_says_how_far_each_rung_got() {
    let verdict = literal::ladder().verdict();
    for expected in [
        "Rung 100k: all 40 steps; the hybrid's loss is +0.50% against vanilla's (within 1%), at 2.00 times its speed",
        "Rung 1m: 12 of 40 steps, the loss so far 1.0500 nats; the hybrid's loss is +5.00% against vanilla's (not within 1%)",
        "Rung 11m was not opened.",
    ] {
        assert!(verdict.contains(expected), "{verdict}");
    }
}

/// Rungs of two sizes, the first with `bytes` for a budget of 10, on text of a few words.
fn climb_with(bytes: u64) -> LadderResult {
    let dataset = literal::text();
    let plan = LadderPlan {
        sizes: vec![RungSize::P100K, RungSize::P1M],
        // So short a time that each rung ends after its first step.
        seconds_per_rung: 1e-9,
        // Whatever one step gives.
        loss_tolerance: 10.0,
        ..literal::ladder().plan
    };
    let DataShape::Text { vocab_size } = dataset.shape() else { panic!("text") };
    let rung = |&size: &RungSize| Rung {
        size,
        network: Arc::new(Network::new(&size.config(vocab_size).unwrap()).unwrap()),
        num_micro_batches: 1,
        memory: MemoryPlan {
            items: vec![PlanItem { kind: PlanKind::Weights, bytes, how: String::new() }],
            budget_bytes: 10,
            budget_source: "a test".to_owned(),
            remedies: Vec::new(),
        },
    };
    let rungs = plan.sizes.iter().map(rung).collect();
    let cancel = CancelFlag::default();
    let watch = Watch::new(&cancel, &|_| {});
    let lanes = Arc::new(Lanes::new(1, 1).unwrap());
    ladder((&dataset, &Device::Cpu, &lanes), &plan, rungs, (watch, &|_| {})).unwrap()
}

#[test]
fn a_rung_out_of_time_has_trained_both_for_equally_many_steps() {
    let result = climb_with(5);
    for rung in &result.rungs {
        let RungOutcome::Trained { vanilla, hybrid } = &rung.outcome else { panic!("{rung:?}") };
        assert_eq!((vanilla.num_steps, hybrid.num_steps), (1, 1));
        assert!(hybrid.validation.loss.is_finite() && rung.speed_up().is_some());
    }
}

#[test]
fn no_rung_opens_above_one_without_memory() {
    let result = climb_with(11);
    let outcomes: Vec<&RungOutcome> = result.rungs.iter().map(|rung| &rung.outcome).collect();
    assert!(
        matches!(outcomes.as_slice(), [RungOutcome::NoMemory { needed_bytes: 11, .. }, RungOutcome::NotOpened]),
        "{outcomes:?}"
    );
    assert!(result.verdict().contains("a test"), "{}", result.verdict());
}

#[test]
fn rungs_are_climbed_from_the_smallest_up() {
    let plan = literal::ladder().plan;
    plan.check().unwrap();
    let sizes = vec![RungSize::P1M, RungSize::P100K];
    LadderPlan { sizes, ..plan.clone() }.check().unwrap_err();
    LadderPlan { seconds_per_rung: 0.0, ..plan }.check().unwrap_err();
}
