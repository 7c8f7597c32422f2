//! Forecasts of recorded runs that nothing was tuned on.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::super::reliability::reliability;
use super::*;

/// The recorded curves, each by its name.
fn curves() -> Vec<(&'static str, Vec<RecordedStep>)> {
    let mut curves: Vec<(&str, Vec<RecordedStep>)> = Vec::new();
    for line in include_str!("fixtures/curves.csv").lines() {
        match line.strip_prefix("# ") {
            Some(name) if !name.contains(' ') => curves.push((name, Vec::new())),
            Some(_) => {}
            None => {
                let (_, run) = curves.last_mut().unwrap();
                run.push(recorded(run.len() as u64 + 1, line));
            }
        }
    }
    curves
}

fn recorded(step: u64, line: &str) -> RecordedStep {
    let fields: Vec<&str> = line.split(',').collect();
    let phase = match fields[0] {
        "W" => Phase::Warmup,
        "F" => Phase::Full,
        "P" => Phase::Predict,
        "C" => Phase::Correct,
        other => panic!("no phase: {other}"),
    };
    RecordedStep {
        step,
        phase,
        loss: fields[1].parse().unwrap(),
        grad_norm: fields[2].parse().ok(),
        learning_rate_factor: fields[3].parse().unwrap(),
        rho: fields[4].parse().unwrap_or(f32::NAN),
    }
}

fn evaluated() -> Evaluation {
    let mut all = Evaluation::default();
    curves().iter().for_each(|(_, run)| all.add(&Evaluation::of(run, 1)));
    all
}

#[test]
fn intervals_cover_85_to_95_percent_of_runs_they_were_not_tuned_on() {
    let all = evaluated();
    for bucket in Bucket::ALL {
        let score = all.used(bucket);
        let share = score.num_inside as f64 / score.num_intervals as f64;
        assert!((0.85..=0.95).contains(&share), "{}: {share}", bucket.label());
        assert!(score.num_intervals < score.num_forecasts, "early forecasts claim no interval");
    }
}

#[test]
fn the_model_in_use_is_as_good_as_the_best_one() {
    let all = evaluated();
    let crps = |score: &BucketScore| score.crps_sum / score.num_forecasts as f64;
    for bucket in Bucket::ALL {
        let scores = ForecastModel::ALL.map(|model| crps(all.model(model, bucket)));
        let best = scores.into_iter().min_by(f64::total_cmp).unwrap();
        let used = crps(all.used(bucket));
        assert!(used < 1.03 * best, "{}: {used}, models {scores:?}", bucket.label());
        // Over a few steps a level hardly moves; farther on persistence has nothing to say.
        let limit = match bucket {
            Bucket::Next | Bucket::Near => 0.99,
            Bucket::Middle | Bucket::Far => 0.9,
        };
        assert!(used < limit * scores[0], "{}: {used}, models {scores:?}", bucket.label());
    }
}

#[test]
fn what_a_run_shows_is_reliable() {
    let mut shown = Vec::new();
    for (name, run) in curves() {
        let forecasts = replay(&run, 1);
        assert!(forecasts[0].is_none() && forecasts[20].is_some(), "{name}");
        let first = forecasts[20].unwrap();
        assert!(first.interval.is_none() && first.model.is_some(), "{name}: nothing to calibrate on yet");
        shown.extend(run.iter().zip(forecasts).filter_map(|(row, forecast)| Some((forecast?, row.loss))));
    }
    let (count, curve) = reliability(shown);
    assert!(count > 1500, "{count}");
    for point in curve {
        assert!((point.observed - point.nominal).abs() < 0.06, "{point:?}");
    }
}

#[test]
fn a_run_with_holes_is_evaluated_where_it_can_be() {
    let (_, mut run) = curves().swap_remove(0);
    run[100].loss = f32::NAN;
    run[150].loss = f32::INFINITY;
    run.drain(200..210);
    let evaluation = Evaluation::of(&run, 1);
    let score = evaluation.used(Bucket::Far);
    assert!(score.num_forecasts > 0 && score.crps_sum.is_finite());
    assert_eq!(Evaluation::of(&[], 1), Evaluation::default());
}
