//! Measurements in, decisions out.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::super::forecast::Rates;
use super::super::synthetic::LossCurve;
use super::*;

fn conservative() -> HybridConfig {
    HybridConfig {
        strategy: Strategy::Importance,
        gate: GateRule::ByCost,
        max_predict_steps: 50,
        confidence_threshold: 0.6,
        correction_interval: 15,
        divergence_sigma: 2.2,
        check_interval: 3,
        slice_fraction: 0.125,
        min_slice_fraction: 0.0625,
        gate_cost: 0.9,
        gate_hold_steps: 20,
        warmup_fraction: 0.05,
    }
}

fn rules(config: HybridConfig) -> Rules {
    let plan = Plan { seed: 0, num_steps: 1000, rates: Rates::Recorded(vec![1.0]) };
    Rules { config, warmup_steps: 5, plan, qat: None, keeps_snapshots: true, untrained_loss: 0.0 }
}

/// What a calm run measures: sampling pays, gradients agree.
fn calm(loss: f64) -> Measured {
    Measured {
        loss,
        rho: Some(0.1),
        grad_norm: Some(1.0),
        cosine: Some(0.95),
        learning_rate_factor: 1.0,
        has_finite_weights: true,
    }
}

/// Runs `num_steps` of `measure(step, phase)`: the phases in runs ("W5 F20 P15"), and the divergences.
fn replay(
    config: HybridConfig,
    num_steps: u64,
    measure: impl Fn(u64, Phase) -> Measured,
) -> (String, Vec<(u64, Divergence, Recovery)>) {
    let rules = rules(config);
    let mut control = Control::new(&rules.config);
    let mut runs: Vec<(Phase, usize)> = Vec::new();
    let mut divergences = Vec::new();
    for step in 1..=num_steps {
        control.begin_step(&rules);
        let phase = control.phase();
        match runs.last_mut() {
            Some((last, count)) if *last == phase => *count += 1,
            Some(_) | None => runs.push((phase, 1)),
        }
        let judgement = control.judge(&rules, &measure(step, phase));
        divergences.extend(judgement.divergence.map(|(found, recovery)| (step, found, recovery)));
    }
    let letter = |phase| match phase {
        Phase::Warmup => 'W',
        Phase::Full => 'F',
        Phase::Predict => 'P',
        Phase::Correct => 'C',
    };
    let text: Vec<String> = runs.iter().map(|&(phase, count)| format!("{}{count}", letter(phase))).collect();
    (text.join(" "), divergences)
}

#[track_caller]
fn check(config: HybridConfig, num_steps: u64, measure: impl Fn(u64, Phase) -> Measured, phases: &str) {
    let (found, divergences) = replay(config, num_steps, measure);
    assert_eq!(found, phases, "{divergences:?}");
}

fn falling(step: u64) -> f64 {
    LossCurve::falling(1, 0.05).measured(step)
}

#[test]
fn an_open_gate_makes_most_steps_predict() {
    check(
        conservative(),
        140,
        |step, _| calm(falling(step)),
        "W5 F15 P15 C1 P10 F1 P15 C1 P15 C1 P8 F1 P15 C1 P15 C1 P15 C1 P4",
    );
}

#[test]
fn vanilla_never_predicts() {
    let vanilla = HybridConfig { strategy: Strategy::None, ..conservative() };
    check(vanilla, 140, |step, _| Measured { rho: None, ..calm(falling(step)) }, "W5 F135");
}

#[test]
fn a_shut_gate_stays_in_full() {
    check(conservative(), 140, |step, _| Measured { rho: Some(0.9), ..calm(falling(step)) }, "W5 F135");
}

#[test]
fn a_gate_that_shuts_ends_prediction() {
    let rho = |step| if step < 40 { 0.1 } else { 0.9 };
    check(
        conservative(),
        80,
        |step, _| Measured { rho: Some(rho(step)), ..calm(falling(step)) },
        "W5 F15 P15 C1 P6 F38",
    );
}

#[test]
fn disagreeing_gradients_end_prediction() {
    let doubtful = |step: u64, _| Measured { cosine: Some(0.4), ..calm(falling(step)) };
    check(conservative(), 62, doubtful, "W5 F15 P15 C1 F20 P6");
}

#[test]
fn an_unforeseen_loss_delays_prediction() {
    let patient = HybridConfig { gate_hold_steps: 60, confidence_threshold: 0.85, ..conservative() };
    check(patient.clone(), 70, |step, _| calm(falling(step)), "W5 F55 P10");
    // Shortly before Predict would begin, the loss drops to a fifth: good news, but not what was forecast.
    let dropping = |step| if step < 57 { falling(step) } else { 0.2 * falling(step) };
    let (phases, divergences) = replay(patient, 120, |step, _| calm(dropping(step)));
    let full_steps: u32 = phases.split(' ').nth(1).and_then(|run| run.strip_prefix('F')?.parse().ok()).unwrap();
    assert!((61..110).contains(&full_steps) && divergences.is_empty(), "{phases} {divergences:?}");
}

#[test]
fn a_spike_that_stays_ends_prediction() {
    let loss = |step| if step < 50 { falling(step) } else { 9.0 };
    let (phases, divergences) = replay(conservative(), 60, |step, _| calm(loss(step)));
    assert_eq!(phases, "W5 F15 P15 C1 P10 F1 P7 F6");
    let (step, found, recovery) = divergences[0];
    assert_eq!((step, recovery), (54, Recovery::BackToFull));
    assert!(found.value > found.limit);
}

#[test]
fn what_ended_prediction_is_told_in_words() {
    let rules = rules(conservative());
    let mut control = Control::new(&rules.config);
    let told = (1..=60).filter_map(|step| {
        let [_, event] = control.begin_step(&rules);
        control.judge(&rules, &calm(if step < 50 { falling(step) } else { 9.0 }));
        if let Some(HybridEvent::Phase { why, .. }) = event { Some(why) } else { None }
    });
    let why = told.last().unwrap();
    assert!(why.starts_with("divergence: loss spike (") && why.ends_with("against a limit of 2.200)"), "{why}");
}

#[test]
fn the_step_that_diverged_shows_the_signal_that_told() {
    let rules = rules(conservative());
    let mut control = Control::new(&rules.config);
    let diverged = (1..=60).find_map(|step| {
        control.begin_step(&rules);
        let loss = if step < 50 { falling(step) } else { 9.0 };
        let judgement = control.judge(&rules, &calm(loss));
        judgement.divergence.map(|(found, _)| (found, judgement.signals))
    });
    let (found, signals) = diverged.unwrap();
    assert_eq!(signals.loss_z, Some(found.value));
    control.begin_step(&rules);
    let after = control.judge(&rules, &calm(9.0)).signals;
    assert_eq!(after.loss_z, None, "the answer to it gets time to work");
}

#[test]
fn a_correct_that_compared_nothing_decides_nothing() {
    let rules = rules(conservative());
    let mut control = Control::new(&rules.config);
    let mut corrections = Vec::new();
    for step in 1..=64 {
        control.begin_step(&rules);
        // The first Correct finds good agreement, the second an empty sample.
        let cosine = (step < 40).then_some(0.95);
        let judgement = control.judge(&rules, &Measured { cosine, ..calm(falling(step)) });
        if control.phase() == Phase::Correct {
            corrections.push((judgement.correction.map(|correction| correction.cosine), control.confidence()));
        }
    }
    assert_eq!(corrections[..2], [(Some(0.95), Some(0.95)), (None, None)]);
    assert_eq!(control.phase(), Phase::Predict, "prediction went on");
}

#[test]
fn a_run_that_the_guard_ended_can_be_taken_up_again() {
    let rules = rules(conservative());
    let mut control = Control::new(&rules.config);
    assert_eq!(control.take_up_again(&rules), None, "nothing ended it");
    let mut step = 0;
    while !control.must_stop() {
        step += 1;
        control.begin_step(&rules);
        control.judge(&rules, &calm(if step < 50 { falling(step) } else { 9.0 }));
    }
    let event = control.take_up_again(&rules);
    assert!(matches!(event, Some(HybridEvent::Phase { to: Phase::Full, .. })), "{event:?}");
    assert!(!control.must_stop() && control.ladder.is_calm(control.step()));
    assert_eq!(control.learning_rate_cut(), CUT * CUT_AT_RESTORE, "the learning rate stays cut");
    control.begin_step(&rules);
    assert_eq!(control.phase(), Phase::Full);
    let again = control.judge(&rules, &calm(f64::NAN)).divergence;
    assert!(matches!(again, Some((_, Recovery::BackToFull))), "the ladder starts at its first rung");
}

#[test]
fn a_lasting_divergence_climbs_the_ladder() {
    let loss = |step| if step < 50 { falling(step) } else { 9.0 };
    let (_, divergences) = replay(conservative(), 100, |step, _| calm(loss(step)));
    let recoveries: Vec<Recovery> = divergences.iter().map(|&(_, _, recovery)| recovery).collect();
    let ladder = [Recovery::BackToFull, Recovery::CutLearningRate, Recovery::Restore, Recovery::Stop];
    assert_eq!(recoveries[..4], ladder);
}

#[test]
fn nan_is_answered_at_once() {
    let measure = |step, _| calm(if step == 30 { f64::NAN } else { falling(step) });
    let (phases, divergences) = replay(conservative(), 60, measure);
    assert_eq!(divergences.len(), 1);
    assert!(matches!(divergences[0], (30, _, Recovery::BackToFull)));
    assert_eq!(phases, "W5 F15 P10 F20 P10");
}

#[test]
fn weights_that_are_not_finite_are_restored_at_once() {
    let measure = |step, _| Measured { has_finite_weights: step != 30, ..calm(falling(step)) };
    let (_, divergences) = replay(conservative(), 60, measure);
    assert_eq!(divergences.len(), 1, "{divergences:?}");
    let (step, found, recovery) = divergences[0];
    assert_eq!((step, found.kind, recovery), (30, DivergenceKind::WeightsNotFinite, Recovery::RestoreWeights));
}

#[test]
fn a_divergence_is_not_trusted_before_it_is_one() {
    let rules = rules(conservative());
    let mut control = Control::new(&rules.config);
    for step in 1..=50 {
        control.begin_step(&rules);
        assert_eq!(control.judge(&rules, &calm(falling(step))).divergence, None);
        assert!(control.is_trusted(&rules) || step < 10, "step {step}");
    }
    for step in 51..=53 {
        control.begin_step(&rules);
        assert_eq!(control.judge(&rules, &calm(9.0)).divergence, None, "step {step}: too early for a verdict");
        assert!(!control.is_trusted(&rules), "step {step}");
    }
}

#[test]
fn healthy_runs_of_any_noise_trigger_nothing() {
    for noise in [0.005, 0.05, 0.2, 0.5, 0.9] {
        for seed in 0..20 {
            let curve = LossCurve::falling(seed, noise);
            let norms = LossCurve::falling(seed + 1000, 1.5 * noise);
            let measure = |step, phase| {
                let sampled = if phase == Phase::Predict { 1.7 } else { 1.0 };
                Measured { grad_norm: Some(sampled * norms.measured(step)), ..calm(curve.measured(step)) }
            };
            let (phases, divergences) = replay(conservative(), 1000, measure);
            assert!(divergences.is_empty(), "noise {noise}, seed {seed}: {divergences:?}");
            assert!(phases.contains('P'), "noise {noise}, seed {seed}: a foreseeable run predicts: {phases}");
        }
    }
}

#[test]
fn the_slice_follows_rho_and_the_agreement() {
    let config = HybridConfig { slice_fraction: 0.25, min_slice_fraction: 0.0625, ..conservative() };
    let slice = |rho: f64, slice_per_rho: f64| {
        let mut control = Control::new(&config);
        control.gate.smooth(rho);
        control.slice_per_rho = slice_per_rho;
        control.slice_fraction(&config)
    };
    assert_eq!(slice(0.1, 1.0), 0.1);
    assert_eq!(slice(0.02, 1.0), 0.0625, "not below the tier's least");
    assert_eq!(slice(0.4, 1.0), 0.25, "not above the tier's most while gradients agree");
    assert_eq!(slice(0.4, 1.5), 0.375, "where they disagree, more");
    assert_eq!(slice(0.4, 6.0), 0.5, "but not above half");
    assert_eq!(next_slice_per_rho(1.0, 0.8), 1.5);
    assert_eq!(next_slice_per_rho(1.5, 0.95), 1.5);
    assert!((next_slice_per_rho(1.5, 0.99) - 1.35).abs() < 1e-12);
    assert_eq!(next_slice_per_rho(1.0, 0.99), 1.0);
}

#[test]
fn horizon_and_corrections_adapt_within_the_tier() {
    // Good agreement: the horizon begins at half and grows to the tier's; corrections stay as far apart as it allows.
    let well = |step: u64, _| calm(falling(step));
    check(
        conservative(),
        200,
        well,
        "W5 F15 P15 C1 P10 F1 P15 C1 P15 C1 P8 F1 P15 C1 P15 C1 P15 C1 P5 F1 P15 C1 P15 C1 P15 C1 P5 F1 P4",
    );
    // Poor but sufficient agreement: corrections come every 7, then every 3 steps.
    let poor = |step: u64, _| Measured { cosine: Some(0.7), ..calm(falling(step)) };
    check(conservative(), 60, poor, "W5 F15 P15 C1 P7 C1 P3 C1 F1 P3 C1 P3 C1 P3");
}

#[test]
fn a_perfect_forecaster_never_trips_the_guard() {
    for (seed, noise) in (0..20).flat_map(|seed| [(seed, 0.02), (seed, 0.1), (seed, 0.5)]) {
        let rules = rules(conservative());
        let mut control = Control::new(&rules.config);
        let curve = LossCurve::falling(seed, noise);
        let mut predicted = 0;
        for step in 1..=400 {
            control.begin_step(&rules);
            let phase = control.phase();
            // Once there is a forecast, the run does exactly what it says.
            let outlook = control.forecaster.outlook(step, phase, &rules.plan);
            let loss =
                outlook.and_then(|outlook| outlook.in_nats().interval).map(|interval| f64::from(interval.median));
            let judgement = control.judge(&rules, &calm(loss.unwrap_or_else(|| curve.measured(step))));
            assert!(judgement.divergence.is_none(), "{noise} {seed} {step}: {:?}", judgement.divergence);
            predicted += u32::from(phase.predicts());
        }
        assert!(predicted > 200, "seed {seed}: {predicted}");
    }
}

#[test]
fn a_forecast_says_who_made_it() {
    let rules = rules(conservative());
    let mut control = Control::new(&rules.config);
    let mut forecasts = Vec::new();
    for step in 1..=200 {
        control.begin_step(&rules);
        forecasts.extend(control.judge(&rules, &calm(falling(step))).forecast);
    }
    assert!(forecasts.iter().all(|forecast| forecast.model.is_some()));
    assert!(forecasts.last().is_some_and(|forecast| forecast.interval.is_some()));
}

#[test]
fn a_blow_up_is_seen_through_any_noise() {
    for (noise, factor) in [(0.05, 2.0), (0.2, 4.0), (0.5, 12.0)] {
        for seed in 0..20 {
            let curve = LossCurve::falling(seed, noise);
            let loss = |step| curve.measured(step) * if step < 100 { 1.0 } else { factor };
            let (_, divergences) = replay(conservative(), 140, |step, _| calm(loss(step)));
            let first = divergences.first().map(|&(step, ..)| step);
            assert!(matches!(first, Some(100..=105)), "noise {noise}, seed {seed}: {divergences:?}");
        }
    }
}

#[test]
fn a_blow_up_that_scatters_does_not_become_the_norm() {
    // Recorded: a two-layer perceptron whose learning rate became 30 times as large at step 61.
    #[rustfmt::skip]
    let losses = [
        1.45, 1.37, 1.4, 1.08, 1.08, 0.749, 0.572, 0.481, 0.328, 0.349, 0.407, 0.253, 0.317, 0.188, 0.131, 0.212,
        0.108, 0.187, 0.167, 0.108, 0.311, 0.3, 0.0411, 0.0787, 0.107, 0.158, 0.0837, 0.309, 0.21, 0.141, 0.152,
        0.2, 0.132, 0.0957, 0.121, 0.333, 0.157, 0.24, 0.224, 0.157, 0.115, 0.274, 0.125, 0.116, 0.415, 0.213, 0.17,
        0.0936, 0.118, 0.188, 0.169, 0.273, 0.0562, 0.213, 0.115, 0.0482, 0.0941, 0.438, 0.0764, 0.108, 0.0866,
        3.96, 2.83, 1.13, 2.36, 1.05, 0.818, 1.67, 0.564, 1.09, 0.746, 3.16, 1.93, 1.19, 1.16, 0.163, 0.838, 0.334,
        0.328, 0.943, 3.39, 1.38, 2.32, 2.37, 1.41, 13.8, 13.5, 4.62, 0.43, 1.88,
    ];
    let eager = HybridConfig {
        max_predict_steps: 12,
        correction_interval: 4,
        check_interval: 1,
        gate_hold_steps: 4,
        ..conservative()
    };
    let (_, divergences) = replay(eager, 90, |step, _| calm(losses[step as usize - 1]));
    let steps: Vec<u64> = divergences.iter().map(|&(step, ..)| step).collect();
    assert!(steps.len() >= 3 && steps[0] >= 62 && steps[2] <= 80, "{divergences:?}");
}

#[test]
fn a_saved_control_decides_like_the_original() {
    let rules = rules(conservative());
    let mut control = Control::new(&rules.config);
    let go = |control: &mut Control, steps: std::ops::Range<u64>| {
        for step in steps {
            control.begin_step(&rules);
            control.judge(&rules, &calm(falling(step)));
        }
    };
    go(&mut control, 1..45);
    let text = serde_json::to_string(&control).unwrap();
    let mut twin: Control = serde_json::from_str(&text).unwrap();
    assert_eq!(twin, control);
    go(&mut control, 45..150);
    go(&mut twin, 45..150);
    assert_eq!(twin, control);
}
