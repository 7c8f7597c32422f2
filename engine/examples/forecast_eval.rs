//! How good the loss forecaster is on recorded runs: every model, every range of horizons, and what it costs.
//!
//! `cargo run -p foretrain-engine --release --example forecast_eval -- RUN/metrics.jsonl …`
//!
//! Each file is replayed as if the run happened now. CRPS (continuous ranked probability score) and error are in
//! units of ln(loss), so 0.1 is about 10%; covered is the share of losses inside the calibrated 90% interval, to lie
//! between 85 and 95%.
#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::time::Instant;

use foretrain_engine::hybrid::ForecastModel;
use foretrain_engine::hybrid::forecast::{Bucket, BucketScore, Evaluation, RecordedStep, reliability, replay};
use foretrain_engine::session::StepMetrics;

/// The forecaster's own randomness; the recorded runs have theirs.
const SEED: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        return Err("name at least one metrics.jsonl of a run".into());
    }
    let runs = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let mut all = Evaluation::default();
    println!("| covered, % | {} |", Bucket::ALL.map(Bucket::label).join(" | "));
    println!("| --- | --- | --- | --- | --- |");
    for (file, run) in files.iter().zip(&runs) {
        let evaluation = Evaluation::of(run, SEED);
        let covered = Bucket::ALL.map(|bucket| percent(evaluation.used(bucket)));
        println!("| {file} | {} |", covered.join(" | "));
        all.add(&evaluation);
    }
    println!("\n| steps ahead | model | forecasts | CRPS | error | covered, % | below, % | width |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for bucket in Bucket::ALL {
        for model in ForecastModel::ALL {
            print_row(bucket, model.label(), all.model(model, bucket));
        }
        print_row(bucket, "**the one in use**", all.used(bucket));
    }
    let used = ForecastModel::ALL.map(|model| format!("{} {:.0}%", model.label(), 100.0 * all.share_used(model)));
    println!("\nIn use: {}.", used.join(", "));

    let started = Instant::now();
    let forecasts: Vec<_> = runs.iter().map(|run| replay(run, SEED)).collect();
    let num_steps: usize = runs.iter().map(Vec::len).sum();
    let step_ms = 1e3 * started.elapsed().as_secs_f64() / num_steps as f64;
    println!("Cost: {step_ms:.3} ms a step, mean of {num_steps}.");
    let rows = runs.iter().zip(&forecasts).flat_map(|(run, forecasts)| run.iter().zip(forecasts));
    let (count, curve) = reliability(rows.filter_map(|(row, forecast)| Some(((*forecast)?, row.loss))));
    let points = curve.iter().map(|point| format!("{:.0}: {:.0}", 100.0 * point.nominal, 100.0 * point.observed));
    println!("Stated: found, % of {count} losses, as shown: {}.", points.collect::<Vec<_>>().join(", "));
    Ok(())
}

fn read(file: &str) -> Result<Vec<RecordedStep>, Box<dyn Error>> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("reading {file}: {error}"))?;
    let rows = text
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{file}: not a step of a run: {error}")))
        .collect::<Result<Vec<StepMetrics>, _>>()?;
    let peak = rows.iter().map(|row| row.learning_rate).fold(f32::MIN_POSITIVE, f32::max);
    let recorded = |row: &StepMetrics| RecordedStep {
        step: row.step,
        phase: row.phase,
        loss: row.loss,
        grad_norm: row.grad_norm,
        rho: row.rho,
        learning_rate_factor: row.learning_rate / peak,
    };
    Ok(rows.iter().map(recorded).collect())
}

fn print_row(bucket: Bucket, name: &str, score: &BucketScore) {
    let count = score.num_forecasts.max(1) as f64;
    let [crps, error] = [score.crps_sum, score.error_sum].map(|sum| sum / count);
    let intervals = score.num_intervals.max(1) as f64;
    let below = 100.0 * score.num_below as f64 / intervals;
    let width = score.width_sum / intervals;
    println!(
        "| {} | {name} | {} | {crps:.4} | {error:.4} | {} | {below:.1} | {width:.2} |",
        bucket.label(),
        score.num_forecasts,
        percent(score),
    );
}

/// Share of losses inside their interval; blank where none was claimed.
fn percent(score: &BucketScore) -> String {
    let share = 100.0 * score.num_inside as f64 / score.num_intervals as f64;
    if share.is_finite() { format!("{share:.1}") } else { "–".to_owned() }
}
