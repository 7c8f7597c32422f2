//! The lock on the tier that is not proven, and the card that says what prediction saves.

use egui_kittest::kittest::Queryable;
use foretrain::state::{CorrectionFigures, LOCKED_TIER, RecipeKey};
use foretrain::theme::ThemeChoice;
use foretrain_engine::session::{Command, EventKind, JobId, RunStatus};

use crate::scene::{self, Window, click, tell};

/// The window with the form on the tier behind the lock.
fn locked() -> Window {
    let mut harness = scene::window_of(scene::SIZE, ThemeChoice::Dark);
    let draft = harness.state_mut().saved_mut().draft.as_mut().unwrap();
    draft.config.tier = LOCKED_TIER.to_owned();
    harness.run_steps(6);
    harness
}

/// What a click on the start button asks for.
fn starts(harness: &mut Window) -> usize {
    click(harness, "Start training");
    scene::commands(harness).iter().filter(|command| matches!(command, Command::Start(..))).count()
}

const EXPERT: &str = "Use it anyway (expert)";

#[test]
fn the_lock_refuses_and_the_expert_switch_opens_it_for_this_recipe_alone() {
    let mut harness = locked();
    harness.get_by_label_contains("It was not measured yet");
    assert_eq!(starts(&mut harness), 0);
    harness.get_by_label_contains("is locked for this recipe");
    click(&mut harness, "Dismiss");
    click(&mut harness, EXPERT);
    harness.get_by_label_contains("Used without proof on this recipe");
    let kept = harness.state().saved().tier_lock.clone();
    assert!(kept.access(LOCKED_TIER, &scene::config()).is_open(), "it is saved");
    harness.state_mut().saved_mut().draft.as_mut().unwrap().config.batch_size = 128;
    harness.run_steps(2);
    harness.get_by_label_contains("It was not measured yet");
    assert_eq!(starts(&mut harness), 0, "another recipe");
    harness.state_mut().saved_mut().draft.as_mut().unwrap().config.batch_size = 256;
    harness.run_steps(2);
    assert_eq!(starts(&mut harness), 1);
}

#[test]
fn what_was_measured_opens_the_lock_or_says_what_is_missing() {
    for (error_reduction, expected) in [(0.97, 1), (0.61, 0)] {
        let mut harness = locked();
        let figures = CorrectionFigures { error_reduction, overhead: 0.021, num_divergences: 0 };
        harness.state_mut().live_mut().experiments.measured = Some((RecipeKey::of(&scene::config()), figures));
        // Any event will do: what was measured is noted with it.
        tell(&mut harness, JobId(999), EventKind::Cancelled);
        harness.run_steps(2);
        harness.get_by_label_contains(&format!("{:.1}%", 100.0 * error_reduction));
        harness.get_by_label_contains("2.1%, met");
        assert_eq!(harness.query_by_label(EXPERT).is_some(), expected == 0);
        assert_eq!(starts(&mut harness), expected);
    }
}

#[test]
fn the_savings_card_says_why_predict_is_in_use() {
    let run = scene::snapshot(900, RunStatus::Training);
    let harness = scene::window_with(run, ThemeChoice::Dark);
    assert!(harness.query_all_by_label("importance").count() >= 1);
    assert!(harness.query_all_by_label_contains("Since step ").count() >= 1);
}
