//! Experiments: what a click asks for, and how a race and a report are shown.

use std::sync::Arc;

use egui::{Rect, Vec2};
use egui_kittest::kittest::{NodeT, Queryable};
use foretrain::state::{Access, Catalog, DataKind, Draft, LOCKED_TIER, RaceAxis, Screen};
use foretrain::theme::ThemeChoice;
use foretrain_engine::device::Progress;
use foretrain_engine::hybrid::Strategy;
use foretrain_engine::session::{
    Blame, Command, EventKind, ExperimentJob, ExperimentKind, Failure, JobId, PlanReport, ReportSummary, StopReason,
};

use crate::reports::{corrections, experimented, ladder, race, report_of, tiers};
use crate::scene::{self, Window, click, tell};

/// The experiments in a window of `size`.
fn experiments_of(size: [f32; 2], theme: ThemeChoice) -> Window {
    let mut harness = scene::window_of(size, theme);
    harness.state_mut().saved_mut().screen = Screen::Compare;
    harness.run_steps(4);
    click(&mut harness, "Experiments");
    harness
}

fn experiments() -> Window {
    experiments_of(scene::SIZE, ThemeChoice::Dark)
}

/// What the window asked for, without what a screen asks by itself.
fn commands(harness: &mut Window) -> Vec<Command> {
    scene::commands(harness).into_iter().filter(|command| !matches!(command, Command::ListReports(..))).collect()
}

/// Clicks on the button that starts it; returns what was asked of the engine.
#[track_caller]
fn start(harness: &mut Window) -> (JobId, ExperimentJob) {
    harness.get_by_label("Start the arena").scroll_to_me();
    harness.run_steps(4);
    click(harness, "Start the arena");
    let sent = commands(harness);
    let [Command::Experiment(job, asked)] = sent.as_slice() else { panic!("expected Experiment, found {sent:?}") };
    (*job, (**asked).clone())
}

#[test]
fn one_click_starts_the_quick_arena_of_the_form() {
    let mut harness = experiments();
    let (_, job) = start(&mut harness);
    let ExperimentKind::Arena { rate_factors, batch_divisors, num_seeds } = &job.kind else { panic!("an arena") };
    assert_eq!((rate_factors.as_slice(), batch_divisors.as_slice(), *num_seeds), (&[1.0, 2.0][..], &[1, 2][..], 1));
    assert_eq!(job.config, scene::config());
    assert!(job.output.starts_with("/runs/experiments") && job.output.to_string_lossy().ends_with("-glyphs-cnn"));
    assert!(job.title.starts_with("glyphs-cnn with AdamW"), "{}", job.title);
    for part in ["--preset glyphs", "--tier balanced", "--seeds 1", "--rates 1,2", "--batch-divisors 1,2"] {
        assert!(job.command.contains(part), "{part} in {}", job.command);
    }
}

#[test]
fn what_is_chosen_is_what_is_compared() {
    let mut harness = experiments();
    click(&mut harness, "Thorough");
    click(&mut harness, "×8");
    click(&mut harness, "÷4");
    harness.state_mut().saved_mut().experiments.num_seeds = 5;
    let (_, job) = start(&mut harness);
    let ExperimentKind::Arena { rate_factors, batch_divisors, num_seeds } = &job.kind else { panic!("an arena") };
    assert_eq!(rate_factors.as_slice(), [0.5, 1.0, 2.0, 4.0, 8.0]);
    assert_eq!((batch_divisors.as_slice(), *num_seeds), (&[1, 2][..], 5));
}

#[test]
fn corrections_can_be_measured_and_open_the_lock() {
    let mut harness = experiments();
    click(&mut harness, "Corrections");
    click(&mut harness, "50 steps");
    click(&mut harness, "Start the corrections");
    let sent = commands(&mut harness);
    let [Command::Experiment(job, asked)] = sent.as_slice() else { panic!("expected Experiment, found {sent:?}") };
    let ExperimentKind::Corrections { confidence_thresholds, horizons, num_seeds } = &asked.kind else {
        panic!("corrections")
    };
    assert_eq!((confidence_thresholds.as_slice(), horizons.as_slice(), *num_seeds), (&[0.55][..], &[50, 75][..], 1));
    tell(&mut harness, *job, corrections(0.01));
    harness.run_steps(4);
    harness.get_by_label_contains("took away 98.0% of the forecasts' error");
    assert!(harness.query_all_by_label("98.0%").count() >= 1, "it stands in the table");
    harness.get_by_label("Training loss over steps");
    let access = |harness: &Window| harness.state().saved().tier_lock.access(LOCKED_TIER, &scene::config());
    assert!(matches!(access(&harness), Access::Proven(_)), "{:?}", access(&harness));
    // The last measurement counts.
    click(&mut harness, "Start the corrections");
    let Some(Command::Experiment(job, _)) = commands(&mut harness).pop() else { panic!("no experiment") };
    tell(&mut harness, job, corrections(0.4));
    assert!(matches!(access(&harness), Access::Locked(Some(_))), "{:?}", access(&harness));
}

/// Chooses the experiment called `choice` and starts it by the button called `button`.
#[track_caller]
fn start_other(harness: &mut Window, choice: &str, button: &str) -> (JobId, ExperimentKind) {
    click(harness, choice);
    harness.run_steps(4);
    click(harness, button);
    let sent = commands(harness);
    let [Command::Experiment(job, asked)] = sent.as_slice() else { panic!("expected Experiment, found {sent:?}") };
    (*job, asked.kind.clone())
}

#[test]
fn tiers_are_compared_and_their_figures_shown() {
    let mut harness = experiments();
    let (job, kind) = start_other(&mut harness, "Tiers", "Compare the tiers");
    assert_eq!(kind, ExperimentKind::Tiers { strategy: None, num_seeds: 1 });
    tell(&mut harness, job, tiers());
    harness.run_steps(4);
    for text in ["bold", "75.0%", "-8.82 %", "99.0%"] {
        assert!(harness.query_all_by_label(text).count() >= 1, "{text}");
    }
    harness.get_by_label("Training loss over steps");
}

#[test]
fn a_ladder_needs_text_and_says_how_far_each_rung_came() {
    let mut harness = experiments();
    click(&mut harness, "Ladder");
    harness.run_steps(2);
    harness.get_by_label_contains("Choose a recipe that trains on text");
    let recipe = Catalog::load().recipe("grammar-gpt2-char").cloned().unwrap();
    harness.state_mut().saved_mut().draft = Some(Draft::of(&recipe));
    harness.run_steps(4);
    let (job, kind) = start_other(&mut harness, "Ladder", "Climb the ladder");
    let ExperimentKind::Ladder { sizes, minutes_per_rung, .. } = kind else { panic!("a ladder") };
    assert_eq!((sizes.len(), minutes_per_rung), (2, 3.0));
    tell(&mut harness, job, ladder());
    harness.run_steps(4);
    for text in ["100k", "+0.00 %", "needs 8.0 GiB"] {
        assert!(harness.query_all_by_label(text).count() >= 1, "{text}");
    }
}

#[test]
fn what_cannot_be_compared_is_not_started_and_said_why() {
    let mut harness = experiments();
    for rate in ["×1", "×2"] {
        click(&mut harness, rate);
    }
    harness.get_by_label_contains("at least one learning rate");
    click(&mut harness, "Start the arena");
    click(&mut harness, "Quick");
    let set = |harness: &mut Window, batch_size: usize, strategy: Strategy, kind: DataKind| {
        let draft = harness.state_mut().saved_mut().draft.as_mut().unwrap();
        (draft.config.batch_size, draft.config.hybrid.strategy, draft.data.kind) = (batch_size, strategy, kind);
        harness.run_steps(2);
    };
    for (batch_size, strategy, kind, why) in [
        (255, Strategy::Importance, DataKind::Glyphs, "cannot be divided by 2"),
        (256, Strategy::None, DataKind::Glyphs, "never predicts"),
        (256, Strategy::Importance, DataKind::Idx, "Choose the folder with the IDX files"),
    ] {
        set(&mut harness, batch_size, strategy, kind);
        harness.get_by_label_contains(why);
        click(&mut harness, "Start the arena");
    }
    assert_eq!(commands(&mut harness), []);
}

#[test]
fn the_time_is_estimated_from_a_measured_step_only() {
    let mut harness = experiments();
    harness.get_by_label_contains("no step of this recipe was measured yet");
    harness.run_steps(8);
    let asked = harness.state_mut().take_pending().into_iter().find_map(|command| match command {
        Command::Plan(job, _) => Some(job),
        _ => None,
    });
    let plan = PlanReport {
        num_params: 105_866,
        plan: scene::plan(),
        full_step_ms: Some(20.0),
        remedy_step_ms: None,
        vanilla_seconds: Some(24.0),
        warnings: Vec::new(),
    };
    tell(&mut harness, asked.expect("the step is measured"), EventKind::Planned(Box::new(plan)));
    harness.run_steps(2);
    // 24 times 1,200 steps and 180 short ones.
    harness.get_by_label_contains("About 9 min 40 s of steps, at 20.0 ms for a full step");
}

#[test]
fn a_race_shows_its_stage_progress_and_curves() {
    let mut harness = experiments();
    let (job, _) = start(&mut harness);
    harness.get_by_label("Waiting for the engine");
    // Half of the last of fifteen.
    let what = "stage 15 of 15: comparing: seed 1".to_owned();
    tell(&mut harness, job, EventKind::Progress(Progress { what, done: 14_500, total: Some(15_000) }));
    harness.run_steps(2);
    harness.get_by_label("Stage 15 of 15: comparing: seed 1");
    let meter = harness.get_by_label("Progress of the experiment");
    let share = meter.accesskit_node().data().numeric_value().unwrap();
    // All but half of the last 4,800 of 28,980 steps.
    assert!((share - (1.0 - 2_400.0 / 28_980.0)).abs() < 1e-3, "{share}");
    assert!(harness.query_by_label("Training loss over steps").is_none(), "no curve was measured yet");
    tell(&mut harness, job, EventKind::Raced(Arc::new(race())));
    harness.run_steps(4);
    harness.get_by_label("Training loss over steps");
    for name in ["hybrid", "vanilla, same steps", "vanilla, same time", "frozen"] {
        assert!(harness.query_all_by_label(name).count() >= 1, "{name} has a curve");
    }
    let curves = &harness.state().live().experiments.curves;
    assert_eq!(curves.iter().map(|curve| curve.over(RaceAxis::Cost).len()).collect::<Vec<_>>(), [20; 4]);
    for (axis, label) in [("Time", "Training loss over seconds"), ("Cost", "Training loss over cost in full steps")] {
        click(&mut harness, axis);
        harness.get_by_label(label);
    }
}

#[test]
fn an_arena_is_cancelled_once_and_can_be_started_again() {
    let mut harness = experiments();
    let (job, _) = start(&mut harness);
    click(&mut harness, "Cancel the experiment");
    click(&mut harness, "Cancelling…");
    assert_eq!(commands(&mut harness), [Command::Stop], "it is asked once");
    tell(&mut harness, job, EventKind::Cancelled);
    harness.run_steps(2);
    let (again, _) = start(&mut harness);
    assert_ne!(job, again);
}

#[test]
fn no_run_starts_and_no_step_is_measured_meanwhile() {
    let mut harness = experiments();
    start(&mut harness);
    harness.run_steps(12);
    harness.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::Enter);
    harness.run_steps(12);
    let pending = harness.state_mut().take_pending();
    let disturbs = |command: &Command| matches!(command, Command::Start(..) | Command::Plan(..));
    assert!(!pending.iter().any(disturbs), "{pending:?}");
    harness.get_by_label_contains("An experiment is going on");
}

#[test]
fn a_failure_is_told_and_a_crash_is_one() {
    let mut harness = experiments();
    for kind in [
        EventKind::Rejected(Failure { message: "all 2 settings diverged".to_owned(), plan: None, blame: Blame::Work }),
        EventKind::Ended(StopReason::Crashed("all 2 settings diverged".to_owned())),
    ] {
        let (job, _) = start(&mut harness);
        tell(&mut harness, job, kind);
        harness.run_steps(2);
        harness.get_by_label_contains("all 2 settings diverged");
        assert_eq!(harness.state().live().ended, None, "no run ended");
        click(&mut harness, "Dismiss");
    }
}

#[test]
fn a_report_shows_verdict_figures_and_curves() {
    let mut harness = experiments();
    let (job, _) = start(&mut harness);
    tell(&mut harness, job, experimented(1));
    harness.run_steps(4);
    harness.get_by_label_contains("Prediction saved 75.0% of the example-backwards");
    harness.get_by_label_contains("One seed has no interval");
    harness.get_by_label("Training loss over steps");
    for text in ["0.03100", "99.00%", "25.0%", "30 s"] {
        assert!(harness.query_all_by_label(text).count() >= 1, "{text}");
    }
    harness.get_by_label("Held-out loss of frozen");
    harness.get_by_label("Copy command").click();
    harness.step();
    let copied = harness.output().platform_output.commands.iter().any(|command| {
        matches!(command, egui::OutputCommand::CopyText(text) if text == "foretrain experiment arena --preset glyphs")
    });
    assert!(copied);
    harness.get_by_label("How each contender was tuned").scroll_to_me();
    harness.run_steps(4);
    click(&mut harness, "How each contender was tuned");
    harness.run_steps(20);
    assert!(harness.query_all_by_label("learning rate 0.008: diverged").count() >= 4);
}

#[test]
fn a_report_without_a_prediction_says_so() {
    for (backwards, expected) in [(307_200, 1), (307_000, 0)] {
        let mut harness = experiments();
        let (job, _) = start(&mut harness);
        let report = Arc::new(report_of(1, backwards));
        tell(&mut harness, job, EventKind::Experimented { report, folder: "/runs/experiments/one".into() });
        harness.run_steps(4);
        assert_eq!(harness.query_all_by_label_contains("Nothing was predicted").count().min(1), expected);
    }
}

#[test]
fn several_seeds_have_intervals() {
    let mut harness = experiments();
    let (job, _) = start(&mut harness);
    tell(&mut harness, job, experimented(3));
    harness.run_steps(4);
    assert!(harness.query_by_label_contains("One seed has no interval").is_none());
    assert!(harness.query_all_by_label_contains("95% interval: ").count() >= 1);
    assert!(harness.query_all_by_label_contains("0.03200 (0.02952 to 0.03448)").count() >= 1);
}

fn summaries() -> Vec<ReportSummary> {
    let one = |name: &str, problem: Option<&str>| ReportSummary {
        folder: format!("/runs/experiments/{name}").into(),
        title: format!("title of {name}"),
        day: "2026-01-01".to_owned(),
        seconds: 75.0,
        problem: problem.map(str::to_owned),
    };
    vec![one("two", None), one("one", None), one("broken", Some("expected a number, found nothing"))]
}

#[test]
fn past_reports_are_opened_again() {
    let mut harness = scene::window(ThemeChoice::Light);
    harness.state_mut().saved_mut().screen = Screen::Compare;
    harness.run_steps(4);
    click(&mut harness, "Experiments");
    let asked = harness.state_mut().take_pending().into_iter().find_map(|command| match command {
        Command::ListReports(job, folder) => Some((job, folder)),
        _ => None,
    });
    let (job, folder) = asked.expect("the reports are asked for");
    assert_eq!(folder, std::path::Path::new("/runs/experiments"));
    tell(&mut harness, job, EventKind::Reports(summaries()));
    harness.run_steps(2);
    harness.get_by_label_contains("expected a number, found nothing");
    click(&mut harness, "Open report one");
    let sent = commands(&mut harness);
    let [Command::OpenReport(job, folder)] = sent.as_slice() else { panic!("expected OpenReport, found {sent:?}") };
    assert_eq!(folder, std::path::Path::new("/runs/experiments/one"));
    tell(&mut harness, *job, experimented(1));
    harness.run_steps(4);
    harness.get_by_label_contains("Prediction saved 75.0%");
    click(&mut harness, "Open report one");
    assert_eq!(commands(&mut harness), [], "it is open already");
    // Meanwhile one that goes on is not lost.
    start(&mut harness);
    assert!(harness.query_by_label_contains("Prediction saved").is_none());
    click(&mut harness, "Open report one");
    harness.get_by_label_contains("Prediction saved 75.0%");
    click(&mut harness, "Back to the experiment that goes on");
    harness.get_by_label("Waiting for the engine");
}

#[test]
fn closing_names_the_experiment_and_ends_it() {
    let mut harness = experiments();
    let (job, _) = start(&mut harness);
    let viewport = harness.input_mut().viewports.entry(egui::ViewportId::ROOT).or_default();
    viewport.events.push(egui::ViewportEvent::Close);
    harness.run_steps(3);
    harness.get_by_label("An experiment is going on");
    click(&mut harness, "Cancel it and close");
    assert_eq!(commands(&mut harness), [Command::Stop]);
    tell(&mut harness, job, EventKind::Cancelled);
    harness.step();
    let closes = |viewport: &egui::ViewportOutput| viewport.commands.contains(&egui::ViewportCommand::Close);
    assert!(harness.output().viewport_output.values().any(closes));
}

#[track_caller]
fn check_inside(size: [f32; 2], what: &str, rect: Rect) {
    let window = Rect::from_min_size(egui::Pos2::ZERO, Vec2::from(size)).expand(0.5);
    assert!(window.x_range().contains(rect.left()) && window.x_range().contains(rect.right()), "{what}: {rect}");
}

#[test]
fn everything_fits_the_least_window() {
    for theme in [ThemeChoice::Dark, ThemeChoice::Light] {
        let size = [720.0, 480.0];
        let mut harness = experiments_of(size, theme);
        for label in ["Start the arena", "Quick", "Thorough", "×0.25", "×8", "÷8", "Change it on Run"] {
            check_inside(size, label, harness.get_by_label(label).rect());
        }
        // The left pane takes 45% beside the rail; nothing in it may be wider than what its margins leave.
        let pane = 76.0 + 0.45 * (size[0] - 76.0);
        let button = harness.get_by_label("Start the arena").rect();
        assert!(button.right() <= pane - 24.0 + 1.0, "{button} in a pane that ends at {pane}");
        let (job, _) = start(&mut harness);
        tell(&mut harness, job, EventKind::Raced(Arc::new(race())));
        harness.run_steps(4);
        for label in ["Cancel the experiment", "Training loss over steps", "Steps", "Time", "Cost", "Log scale"] {
            check_inside(size, label, harness.get_by_label(label).rect());
        }
        tell(&mut harness, job, experimented(3));
        harness.run_steps(4);
        for label in ["Open folder", "Copy command", "Copy path", "Training loss over steps"] {
            check_inside(size, label, harness.get_by_label(label).rect());
        }
    }
}
