//! Experiments: run on the trainer thread, since they would spoil a run's pace and it theirs; their reports on disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::outlet::Outlet;
use super::preparing::{check_recipe, trial_recipe};
use super::trainer_thread::Inbox;
use super::worker::Shelf;
use super::{EventKind, ExperimentJob, ExperimentKind, Failure, JobId, ReportSummary, SessionError, planning, presets};
use crate::chart::{Theme, render_svg};
use crate::data::Dataset;
use crate::device::atomic_file::{self, WriteError};
use crate::device::{CancelFlag, MachineRecord, Progress, Watch, compute_pool, resolved_num_threads};
use crate::experiment::{ArenaPlan, ArenaReport, Conditions, Ground, RaceView, arena};
use crate::models::Network;

/// A race is shown this often at most.
const VIEW_INTERVAL: Duration = Duration::from_millis(200);

/// Name of the file that a report is made from.
const REPORT_JSON: &str = "report.json";

/// Does an experiment and writes its report; the event names the folder.
pub(super) fn run(
    job: JobId,
    asked: ExperimentJob,
    cancel: &CancelFlag,
    inbox: Inbox<'_>,
    shelf: &Shelf,
    outlet: &mut Outlet,
) -> Result<(), SessionError> {
    // Before hours of work rather than after.
    refuse_taken(&asked.output)?;
    let shared = Mutex::new((&mut *outlet, Instant::now()));
    let tell = |progress: Progress| {
        if let Ok(mut shared) = shared.lock() {
            refuse_runs(inbox, shared.0);
            shared.0.send(job, EventKind::Progress(progress));
        }
    };
    let on_race = |view: RaceView| {
        if let Ok(mut shared) = shared.lock()
            && shared.1.elapsed() > VIEW_INTERVAL
        {
            shared.1 = Instant::now();
            shared.0.send(job, EventKind::Raced(Arc::new(view)));
        }
    };
    let watch = Watch::new(cancel, &tell);
    let started = Instant::now();
    let report =
        compute_pool(asked.config.num_threads)?.install(|| measure(&asked, shelf, watch, &on_race, started))?;
    write_report(&report, &asked.output)?;
    outlet.send(job, EventKind::Experimented { report: Arc::new(report), folder: asked.output });
    Ok(())
}

fn measure(
    asked: &ExperimentJob,
    shelf: &Shelf,
    watch: Watch<'_>,
    on_race: &(dyn Fn(RaceView) + Sync),
    started: Instant,
) -> Result<ArenaReport, SessionError> {
    let mut config = asked.config.clone();
    let dataset = shelf.load_anew(&config.data, watch)?;
    config.model = config.model.fitted_to(dataset.shape())?;
    check_recipe(&config, &dataset)?;
    let network = Arc::new(Network::new(&config.model)?);
    let plan = planning::plan_memory(&config, &network, dataset.bytes());
    if !plan.fits() {
        return Err(SessionError::Memory { plan: Box::new(plan) });
    }
    let ExperimentKind::Arena { rate_factors, batch_divisors, num_seeds } = &asked.kind;
    let plan = ArenaPlan {
        recipe: trial_recipe(&config),
        vanilla: presets::tier("vanilla")?.config(),
        rate_factors: rate_factors.clone(),
        batch_divisors: batch_divisors.clone(),
        seeds: (1..=*num_seeds).map(|number| config.seed + number).collect(),
        tuning_seed: config.seed,
    };
    let ground = Ground { network, dataset, device: config.device.open()? };
    let result = arena(&ground, &plan, (watch, on_race))?;
    let conditions = Conditions {
        title: asked.title.clone(),
        dataset: in_words(&ground.dataset),
        model: format!("{} parameters, {}", ground.network.num_params(), config.name),
        machine: MachineRecord::here(),
        num_threads: resolved_num_threads(config.num_threads),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: asked.commit.clone(),
        day: asked.day.clone(),
        command: asked.command.clone(),
        seconds: started.elapsed().as_secs_f64(),
    };
    Ok(ArenaReport { conditions, result })
}

fn in_words(dataset: &Dataset) -> String {
    let split = dataset.split();
    format!(
        "{}, {} to train on, {} to validate, {} to test ({}), fingerprint {}",
        dataset.name(),
        split.num_train,
        split.num_validation,
        split.num_test,
        split.rule,
        dataset.fingerprint()
    )
}

/// Tells whoever wants a run meanwhile that there can be none.
fn refuse_runs(inbox: Inbox<'_>, outlet: &mut Outlet) {
    while let Ok(asked) = inbox.runs.try_recv() {
        outlet.send(asked.job, EventKind::Rejected(Failure::of(&SessionError::Busy)));
    }
}

/// Writes `report.json`, `README.md` and the charts into a new folder, which is whole or absent.
/// Errors: the folder exists, or cannot be written.
pub fn write_report(report: &ArenaReport, folder: &Path) -> Result<(), SessionError> {
    refuse_taken(folder)?;
    let json = serde_json::to_vec_pretty(report)
        .map_err(|source| WriteError::new("writing", &folder.join(REPORT_JSON), std::io::Error::other(source)))?;
    let mut files = vec![(REPORT_JSON.to_owned(), json), ("README.md".to_owned(), report.markdown().into_bytes())];
    for (name, chart) in report.charts() {
        files.push((format!("{name}.svg"), render_svg(&chart, Theme::Light)?.into_bytes()));
    }
    let partial = partial_of(folder);
    // What a killed process left.
    let _ = std::fs::remove_dir_all(&partial);
    std::fs::create_dir_all(&partial).map_err(|source| WriteError::new("making the folder", &partial, source))?;
    let written = files.iter().try_for_each(|(name, bytes)| atomic_file::write_bytes(&partial.join(name), bytes));
    let published = written.and_then(|()| atomic_file::publish_folder(&partial, folder));
    if published.is_err() {
        let _ = std::fs::remove_dir_all(&partial);
    }
    Ok(published?)
}

/// Reads the `report.json` in `folder`, to write the report again without measuring again.
/// Errors: [`SessionError::Recipe`] naming the file and what does not parse.
pub fn read_report(folder: &Path) -> Result<ArenaReport, SessionError> {
    let path = folder.join(REPORT_JSON);
    let refuse = |what: String| SessionError::Recipe { what: format!("reading the report: {what}. {path:?}") };
    let text = std::fs::read_to_string(&path).map_err(|error| refuse(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))
}

/// Reports below `root`, newest first by their folders' names, which begin with the time; folders without a report are
/// passed over. Errors: `root` is there and cannot be read.
pub fn list_reports(root: &Path) -> Result<Vec<ReportSummary>, SessionError> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        // No experiment was ever made here.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SessionError::Recipe { what: format!("listing the reports: {error}. {root:?}") }),
    };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let written = folders.into_iter().rev().filter(|folder| folder.join(REPORT_JSON).exists());
    Ok(written.map(summarize_report).collect())
}

fn summarize_report(folder: PathBuf) -> ReportSummary {
    match read_report(&folder) {
        Ok(ArenaReport { conditions, .. }) => {
            let Conditions { title, day, seconds, .. } = conditions;
            ReportSummary { folder, title, day, seconds, problem: None }
        }
        Err(error) => {
            let title = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            ReportSummary { folder, title, day: String::new(), seconds: 0.0, problem: Some(error.to_string()) }
        }
    }
}

fn refuse_taken(folder: &Path) -> Result<(), SessionError> {
    match folder.symlink_metadata() {
        Ok(_) => Err(WriteError::new("writing the report to", folder, std::io::ErrorKind::AlreadyExists.into()).into()),
        Err(_) => Ok(()),
    }
}

fn partial_of(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    folder.with_file_name(name)
}
