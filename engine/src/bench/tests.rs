//! A measurement from end to end on the smallest model, and the process that computes with PyTorch where it is at hand.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; what is skipped is said aloud")]

use std::path::PathBuf;

use super::peer::{Peer, PeerPlan, PeerPython};
use super::*;
use crate::device::{CancelFlag, Watch};
use crate::hybrid::TierPreset;
use crate::models::ops::Precision;
use crate::unwatched;

fn plan(models: Vec<BenchModel>) -> TrainBenchPlan {
    TrainBenchPlan {
        models,
        precision: Precision::F32,
        num_threads: 1,
        rounds: 2,
        seconds_per_turn: 0.0,
        peer: None,
        scratch: std::env::temp_dir(),
    }
}

fn vanilla() -> crate::hybrid::HybridConfig {
    TierPreset::all().unwrap().into_iter().find(|tier| tier.name == "vanilla").unwrap().config()
}

#[test]
fn every_turn_is_counted_and_sizes_shrink() {
    let speed = bench_train(&plan(vec![BenchModel::MnistCnn]), &vanilla(), unwatched!()).unwrap();
    let [case] = speed.cases.as_slice() else { panic!("{speed:?}") };
    assert_eq!((case.step.num_steps, case.forward.num_steps), (4, 4));
    assert!(case.step.least_ms > 0.0 && case.step.least_ms <= case.step.median_ms);
    assert!(case.step.median_ms <= case.step.most_ms);
    let batches: Vec<usize> = case.scaling.iter().map(|point| point.size.batch).collect();
    assert_eq!(batches, [32, 64]);
    let page = speed.markdown();
    assert!(page.contains("| mnist-cnn, ") && !page.contains("PyTorch"), "{page}");
    let json = serde_json::to_string(&speed).unwrap();
    assert_eq!(serde_json::from_str::<TrainSpeed>(&json).unwrap().markdown(), page);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let refused = |plan: TrainBenchPlan| bench_train(&plan, &vanilla(), unwatched!()).unwrap_err().to_string();
    assert!(refused(plan(vec![])).contains("at least one model, found none"));
    assert!(refused(TrainBenchPlan { rounds: 0, ..plan(BenchModel::ALL.to_vec()) }).contains("at least one round"));
    let images = refused(TrainBenchPlan { precision: Precision::Bf16, ..plan(vec![BenchModel::MnistCnn]) });
    let expected = Precision::Bf16.missing().unwrap_or("language models alone in bf16, found mnist-cnn");
    assert!(images.contains(expected), "{images}");
    let no_python =
        PeerPlan { python: PeerPython::Given("no/such/python".into()), variants: vec![TorchVariant::Eager] };
    let found = refused(TrainBenchPlan { peer: Some(no_python), ..plan(vec![BenchModel::MnistCnn]) });
    assert!(found.contains("no/such/python") && found.contains("does not start"), "{found}");
}

#[test]
fn a_cancelled_measurement_ends() {
    let flag = CancelFlag::default();
    flag.set();
    let watch = Watch::new(&flag, &|_| {});
    let ended = bench_train(&plan(vec![BenchModel::MnistCnn]), &vanilla(), watch);
    assert!(matches!(ended, Err(BenchError::Cancelled(_))), "{ended:?}");
}

#[test]
fn a_process_that_says_nothing_sensible_is_an_error() {
    // Python without torch, or no Python at all: both end with words.
    let python = PathBuf::from(if cfg!(windows) { "python" } else { "python3" });
    let start = Peer::start(&PeerPlan { python: PeerPython::Given(python), variants: vec![] }, 1, unwatched!());
    if let Err(error) = start {
        let said = error.to_string();
        assert!(said.contains("torch cannot be imported") || said.contains("does not start"), "{said}");
    }
}

#[test]
fn both_sides_compute_the_same_losses() {
    let Some(python) = std::env::var_os("FORETRAIN_TORCH_PYTHON") else {
        eprintln!("SKIPPED: name a Python that has torch in FORETRAIN_TORCH_PYTHON to compare losses with PyTorch's");
        return;
    };
    let peer = PeerPlan { python: PeerPython::Given(python.into()), variants: vec![TorchVariant::Eager] };
    let models = vec![BenchModel::Gpt2Char, BenchModel::MnistCnn, BenchModel::ResNet20];
    let speed = bench_train(&TrainBenchPlan { peer: Some(peer), ..plan(models) }, &vanilla(), unwatched!()).unwrap();
    for case in &speed.cases {
        let [PeerSpeed { outcome: PeerOutcome::Measured { loss_difference, .. }, .. }] = case.peers.as_slice() else {
            panic!("{case:?}")
        };
        assert!(loss_difference.abs() < 1e-3, "{}: {loss_difference}", case.model.label());
    }
}
