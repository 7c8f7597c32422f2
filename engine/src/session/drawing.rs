//! Charts into files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{ChartFormat, ChartJob, Naming, SessionError};
use crate::chart::{ChartError, render_png, render_svg};
use crate::device::Watch;
use crate::device::atomic_file::{self, WriteError};

/// Writes one file for each format; returns their paths. Nothing is written over, and nothing before all are drawn.
pub(super) fn draw(job: &ChartJob, watch: Watch<'_>) -> Result<Vec<PathBuf>, SessionError> {
    let mut drawn = Vec::new();
    for format in &job.formats {
        watch.check()?;
        drawn.push((format.ending(), rendered(job, *format)?));
    }
    let folder = job.output.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).map_err(|source| WriteError::new("making the folder", folder, source))?;
    let base = free_base(job)?;
    let mut paths = Vec::new();
    for (ending, bytes) in drawn {
        let path = with_suffix(&base, &format!(".{ending}"));
        write_new(&path, &bytes)?;
        paths.push(path);
    }
    Ok(paths)
}

fn rendered(job: &ChartJob, format: ChartFormat) -> Result<Vec<u8>, ChartError> {
    match format {
        ChartFormat::Svg => render_svg(&job.chart, job.theme).map(String::into_bytes),
        ChartFormat::Png { scale } => render_png(&job.chart, job.theme, scale),
    }
}

/// The path without ending under which no file of this job exists.
fn free_base(job: &ChartJob) -> Result<PathBuf, SessionError> {
    // A dangling link is taken, too.
    let taken = |base: &Path| {
        let paths = job.formats.iter().map(|format| with_suffix(base, &format!(".{}", format.ending())));
        paths.into_iter().find(|path| path.symlink_metadata().is_ok())
    };
    let Some(path) = taken(&job.output) else { return Ok(job.output.clone()) };
    let mut numbered = (2..=u32::MAX).map(|number| with_suffix(&job.output, &format!("-{number}")));
    let free = match job.naming {
        Naming::Exact => None,
        Naming::NextFree => numbered.find(|base| taken(base).is_none()),
    };
    free.ok_or_else(|| WriteError::new("writing", &path, std::io::ErrorKind::AlreadyExists.into()).into())
}

/// `path` with more at its end; a dot in its name stays.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let beside = with_suffix(path, ".new");
    atomic_file::write_bytes(&beside, bytes)?;
    let published = atomic_file::publish_file(&beside, path);
    if published.is_err() {
        // What cannot take its place is of no use.
        let _ = std::fs::remove_file(&beside);
    }
    published
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::chart::{Axis, Chart, CurvePanel, Panel, Series, Theme};
    use crate::device::{CancelFlag, Progress};

    fn job(output: PathBuf, naming: Naming) -> ChartJob {
        let series = vec![Series::line("Loss", 0, [(0.0, 2.0), (10.0, 1.0)])];
        let panel = CurvePanel { x: Axis::new("Step", ""), y: Axis::new("Loss", "nats"), series, ..Default::default() };
        let chart = Chart { width: 400, height: 300, panels: vec![Panel::Curves(panel)], ..Chart::default() };
        let formats = vec![ChartFormat::Png { scale: 2.0 }, ChartFormat::Svg];
        ChartJob { chart, theme: Theme::Dark, formats, output, naming }
    }

    fn draw_job(job: &ChartJob) -> Result<Vec<PathBuf>, SessionError> {
        draw(job, Watch::new(&CancelFlag::default(), &|_: Progress| {}))
    }

    #[test]
    fn each_format_is_a_file_and_none_is_written_over() {
        let root = tempfile::tempdir().unwrap();
        let output = root.path().join("new folder").join("plots v1.2");
        let first = draw_job(&job(output.clone(), Naming::NextFree)).unwrap();
        assert_eq!(first, [with_suffix(&output, ".png"), with_suffix(&output, ".svg")]);
        let picture = image::open(&first[0]).unwrap();
        assert_eq!((picture.width(), picture.height()), (800, 600));
        assert!(std::fs::read_to_string(&first[1]).unwrap().starts_with("<svg"));

        // One taken name moves both files on.
        std::fs::remove_file(&first[0]).unwrap();
        let second = draw_job(&job(output.clone(), Naming::NextFree)).unwrap();
        assert_eq!(second, [with_suffix(&output, "-2.png"), with_suffix(&output, "-2.svg")]);
        let error = draw_job(&job(output.clone(), Naming::Exact)).unwrap_err();
        assert!(matches!(error, SessionError::Write(_)), "{error}");
        assert_eq!(std::fs::read_dir(output.parent().unwrap()).unwrap().count(), 3, "nothing half done");
    }

    #[test]
    fn what_cannot_be_drawn_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let mut job = job(root.path().join("folder").join("plots"), Naming::Exact);
        job.chart.height = 10;
        assert!(matches!(draw_job(&job), Err(SessionError::Chart(_))));
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
