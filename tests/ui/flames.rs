//! The bar of where the time goes.

use egui_kittest::kittest::Queryable;
use foretrain::theme::ThemeChoice;
use foretrain_engine::device::ComputeDevice;
use foretrain_engine::session::{HistoryView, RunConfig, RunSnapshot, RunStatus, StepMetrics};

use crate::scene::{self, window_with};

const BAR: &str = "Shares of the time by phase and by operation";

#[test]
fn phases_and_operations_show_their_shares_and_from_how_many_steps() {
    let harness = scene::training(900);
    harness.get_by_label(BAR);
    for name in ["Warmup", "Full", "Predict", "Correct", "Validation", "Other"] {
        assert!(harness.query_all_by_label_contains(&format!("{name} ")).count() >= 1, "{name}");
    }
    for operation in ["Convolutions", "Pooling", "Matrix products", "Optimizer", "Other and waiting"] {
        assert!(harness.query_all_by_label(operation).count() >= 1, "{operation}");
    }
    assert_eq!(harness.query_all_by_label("Attention").count(), 0, "this network has none");
    harness.get_by_label("Operations: measured in 45 sampled steps");
}

/// The run of the scene with its rows changed.
fn changed(last: u64, change: impl Fn(&mut StepMetrics)) -> RunSnapshot {
    let run = scene::snapshot(last, RunStatus::Training);
    let mut rows: Vec<StepMetrics> = run.history.iter().copied().collect();
    rows.iter_mut().for_each(change);
    RunSnapshot { history: rows.into_iter().collect(), ..run }
}

#[test]
fn nothing_shows_before_it_was_measured() {
    let harness = window_with(changed(40, |row| row.operations = None), ThemeChoice::Dark);
    harness.get_by_label(BAR);
    harness.get_by_label("Operations are timed in one of 20 steps: none yet.");
    assert_eq!(harness.query_all_by_label("Convolutions").count(), 0);
    let run = changed(40, |row| row.operations = None);
    let on_gpu = RunConfig { device: ComputeDevice::Cuda(0), ..(*run.config).clone() };
    let harness = window_with(RunSnapshot { config: on_gpu.into(), ..run }, ThemeChoice::Dark);
    harness.get_by_label("Operations are timed on the processor only.");
    let run = scene::snapshot(0, RunStatus::Training);
    let harness = window_with(RunSnapshot { history: HistoryView::default(), ..run }, ThemeChoice::Dark);
    assert!(harness.query_by_label(BAR).is_none());
}

#[test]
fn what_is_under_the_pointer_tells_its_share_and_seconds() {
    let mut harness = scene::training(900);
    let bar = harness.get_by_label(BAR).rect();
    // Warmup stands first; right below it, its largest operation.
    for (height, expected) in [(0.25, "Warmup: "), (0.75, "Convolutions in Warmup: ")] {
        harness.hover_at(bar.left_top() + egui::vec2(2.0, bar.height() * height));
        harness.run_steps(40);
        assert!(harness.query_all_by_label_contains(expected).count() >= 1, "{expected}");
    }
}
