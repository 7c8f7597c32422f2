//! A past run as typed: its folder, the folder's name, or the run's own name where only one has it.

use std::path::{Component, Path, PathBuf};

use foretrain_engine::session::{RunSummary, list_runs};

use super::{CliError, path_arg};

/// Runs suggested for a name that none has, at most.
const MAX_SUGGESTIONS: usize = 3;

/// The folder of the run that `asked` names: a path, or a name of one of the runs in `root`.
///
/// Errors: usage when no run, or more than one, has that name, with the runs that it may have meant; an unreadable
/// `root`.
pub(super) fn find(option: &str, asked: &Path, root: &Path) -> Result<PathBuf, CliError> {
    if is_run(asked) {
        return Ok(asked.to_owned());
    }
    let mut components = asked.components();
    let is_name = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    if !is_name {
        return Err(CliError::Usage(format!("{option}: {}. {}", not_a_run(asked), asked.display())));
    }
    let place = root.join(asked);
    if is_run(&place) {
        return Ok(place);
    }
    let runs = list_runs(root).map_err(CliError::from_display)?;
    let name = asked.to_string_lossy();
    let named: Vec<&RunSummary> = runs.iter().filter(|run| run.name.eq_ignore_ascii_case(&name)).collect();
    match named.as_slice() {
        [run] => Ok(run.folder.clone()),
        [] => {
            let found = if asked.exists() { format!("; in this folder, {}", not_a_run(asked)) } else { String::new() };
            let hint = suggestion(&runs, &name, root);
            Err(CliError::Usage(format!("{option}: no run is called {name:?}{found}. {hint}")))
        }
        several => Err(CliError::Usage(format!(
            "{option}: {} runs are called {name:?}. Name one by its folder: {}",
            several.len(),
            folder_names(several.iter().copied())
        ))),
    }
}

/// The model that `asked` names: any path that is there, or a run as [`find`] knows it.
///
/// Errors: usage for a path with nothing there; those of [`find`].
pub(super) fn model(option: &str, asked: &Path, root: &Path) -> Result<PathBuf, CliError> {
    if asked.exists() {
        return Ok(asked.to_owned());
    }
    if asked.components().count() > 1 {
        path_arg::check_there(option, "a checkpoint, a run, or a model of another kind", asked)?;
        // What is there and cannot be looked at is for its reader to say.
        return Ok(asked.to_owned());
    }
    find(option, asked, root)
}

fn is_run(folder: &Path) -> bool {
    folder.join("config.ron").exists()
}

fn not_a_run(path: &Path) -> &'static str {
    match path.metadata() {
        Ok(place) if place.is_dir() => "expected a run's folder, found one without config.ron",
        Ok(_) => "expected a run's folder, found a file",
        Err(_) => "expected a run's folder, found nothing",
    }
}

fn folder_names<'a>(runs: impl Iterator<Item = &'a RunSummary>) -> String {
    runs.map(folder_name).collect::<Vec<_>>().join(", ")
}

fn folder_name(run: &RunSummary) -> String {
    run.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The nearest runs, or where to look.
fn suggestion(runs: &[RunSummary], asked: &str, root: &Path) -> String {
    if runs.is_empty() {
        return format!("There are no runs in {}; --runs names another folder", root.display());
    }
    let mut near: Vec<(usize, &RunSummary)> = runs
        .iter()
        .map(|run| (distance(asked, &run.name).min(distance(asked, &folder_name(run))), run))
        // Half of it typed wrong is another name.
        .filter(|(distance, _)| *distance <= asked.chars().count() / 2)
        .collect();
    near.sort_by_key(|(distance, _)| *distance);
    if near.is_empty() {
        return "`foretrain runs list` shows them all".to_owned();
    }
    format!("Did you mean {}?", folder_names(near.iter().take(MAX_SUGGESTIONS).map(|(_, run)| *run)))
}

/// Letters to insert, delete or replace to get from one to the other, upper and lower case alike.
/// Source: Levenshtein 1966, by the usual table of which one row is kept.
fn distance(a: &str, b: &str) -> usize {
    let letters = |text: &str| text.to_lowercase().chars().collect::<Vec<_>>();
    let (a, b) = (letters(a), letters(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("digits", "digits"), 0);
        assert_eq!(distance("Digts", "digits"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
    }
}
