//! An experiment's report on disk: `report.json`, and what is made from it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{ReportSummary, SessionError};
use crate::chart::{Theme, render_svg};
use crate::device::atomic_file::{self, WriteError};
use crate::experiment::{Conditions, Report};

/// Name of the file that a report is made from.
const REPORT_JSON: &str = "report.json";

/// Name of the page.
const PAGE: &str = "README.md";

/// A report that cannot be read, or has no place to be written to.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Nothing is written over.
    #[error(
        "writing the report: expected a name that is free, found something there. Choose another folder, or delete that one. {path:?}"
    )]
    Taken {
        /// What was asked for.
        path: PathBuf,
    },
    /// There is none.
    #[error("reading the report: expected a folder with a report.json, found none. {path:?}")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("reading the report: expected what foretrain experiment wrote, found {found}. {path:?}")]
    Damaged {
        /// What was found: line, column and what was expected there.
        found: String,
        /// The file.
        path: PathBuf,
    },
}

impl ReportError {
    /// True when another request would help.
    pub(super) fn is_wrong_request(&self) -> bool {
        match self {
            Self::Taken { .. } | Self::Missing { .. } => true,
            Self::Damaged { .. } => false,
        }
    }
}

/// Writes `report.json`, `README.md` and the charts into a new folder, which is whole or absent.
/// Errors: the folder exists, or cannot be written.
pub fn write_report(report: &Report, folder: &Path) -> Result<(), SessionError> {
    let json = serde_json::to_vec_pretty(report)
        .map_err(|source| WriteError::new("writing", &folder.join(REPORT_JSON), std::io::Error::other(source)))?;
    write_json(&json, folder)?;
    Ok(())
}

/// Makes the report in `folder` again from its `report.json`, into a new folder: the same bytes, unless the program makes
/// other reports than the one that wrote it. Errors: those of [`read_report`] and [`write_report`].
pub fn rewrite_report(folder: &Path, output: &Path) -> Result<Report, SessionError> {
    // What is read is not worth reading when there is no place for it.
    refuse_taken(output)?;
    let (json, _) = read_json(folder)?;
    write_json(&json, output)
}

/// Reads the `report.json` in `folder`. Errors: [`ReportError::Missing`] and [`ReportError::Damaged`].
pub fn read_report(folder: &Path) -> Result<Report, SessionError> {
    Ok(read_json(folder)?.1)
}

/// Reports below `root`, newest first by their folders' names, which begin with the time; folders without a report are
/// passed over. Errors: `root` is there and cannot be read.
pub fn list_reports(root: &Path) -> Result<Vec<ReportSummary>, SessionError> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        // No experiment was ever made here.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SessionError::Recipe { what: format!("listing the reports: {error}. {root:?}") }),
    };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let written = folders.into_iter().rev().filter(|folder| folder.join(REPORT_JSON).exists());
    Ok(written.map(summarize_report).collect())
}

fn summarize_report(folder: PathBuf) -> ReportSummary {
    match read_json(&folder) {
        Ok((_, report)) => {
            let Conditions { title, day, seconds, .. } = report.conditions().clone();
            ReportSummary { folder, title, day, seconds, problem: None }
        }
        Err(error) => {
            let title = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            ReportSummary { folder, title, day: String::new(), seconds: 0.0, problem: Some(error.to_string()) }
        }
    }
}

/// Refuses a place where there is something.
pub(super) fn refuse_taken(folder: &Path) -> Result<(), ReportError> {
    match folder.symlink_metadata() {
        Ok(_) => Err(ReportError::Taken { path: folder.to_owned() }),
        Err(_) => Ok(()),
    }
}

fn read_json(folder: &Path) -> Result<(Vec<u8>, Report), ReportError> {
    let path = folder.join(REPORT_JSON);
    let json = match std::fs::read(&path) {
        Ok(json) => json,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(ReportError::Missing { path });
        }
        Err(error) => return Err(ReportError::Damaged { found: error.to_string(), path }),
    };
    match Report::from_json(&json) {
        Ok(report) => Ok((json, report)),
        Err(error) => Err(ReportError::Damaged { found: error.to_string(), path }),
    }
}

/// Writes these bytes and what is made from them alone: a reader of JSON may be off by a number's last bit, so that what
/// was measured and what is read back are not quite the same, and the page must not depend on which of the two it shows.
fn write_json(json: &[u8], folder: &Path) -> Result<Report, SessionError> {
    refuse_taken(folder)?;
    let damaged = |error: serde_json::Error| ReportError::Damaged { found: error.to_string(), path: folder.to_owned() };
    let report = Report::from_json(json).map_err(damaged)?;
    let mut files = vec![(REPORT_JSON.to_owned(), json.to_vec()), (PAGE.to_owned(), report.markdown().into_bytes())];
    for (name, chart) in report.charts() {
        files.push((format!("{name}.svg"), render_svg(&chart, Theme::Light)?.into_bytes()));
    }
    publish(&files, folder)?;
    Ok(report)
}

/// Files by name into a new folder, which is whole or absent. Errors: the folder exists, or cannot be written.
pub(super) fn publish(files: &[(String, Vec<u8>)], folder: &Path) -> Result<(), SessionError> {
    refuse_taken(folder)?;
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

/// Makes sure that a report can be written as `folder`, before hours of measuring rather than after.
/// Errors: it exists, or its place cannot be made.
pub(super) fn reserve(folder: &Path) -> Result<(), SessionError> {
    refuse_taken(folder)?;
    let partial = partial_of(folder);
    std::fs::create_dir_all(&partial).map_err(|source| WriteError::new("making the folder", &partial, source))?;
    // An empty one goes; what another process writes there stays.
    let _ = std::fs::remove_dir(&partial);
    Ok(())
}

fn partial_of(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    folder.with_file_name(name)
}
