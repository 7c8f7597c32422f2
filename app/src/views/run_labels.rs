//! Names that tell runs apart: runs of one recipe are often called the same.

use std::collections::BTreeMap;
use std::path::Path;

use foretrain_engine::session::{LoadedRun, RunConfig, RunSummary};
use jiff::tz::TimeZone;

use super::recipe_fields::{RecipeCard, RecipeField, recipe_fields};
use crate::widgets::number;

/// Most differences in a name; the rest is counted.
const MAX_PARTS: usize = 3;

/// What a run is known by.
#[derive(Debug, Clone, Copy)]
pub struct RunIdentity<'a> {
    /// Its name, which others may have, too.
    pub name: &'a str,
    /// Its recipe.
    pub config: Option<&'a RunConfig>,
    /// When it began, milliseconds since the Unix epoch.
    pub started_unix_ms: Option<u64>,
    /// Its folder, which no other has.
    pub folder: &'a Path,
}

impl<'a> RunIdentity<'a> {
    /// Of a run in a list.
    #[must_use]
    pub fn of_summary(run: &'a RunSummary) -> Self {
        let RunSummary { name, config, started_unix_ms, folder, .. } = run;
        Self { name, config: config.as_deref(), started_unix_ms: *started_unix_ms, folder }
    }

    /// Of a run read back.
    #[must_use]
    pub fn of_loaded(run: &'a LoadedRun) -> Self {
        let started_unix_ms = run.log.first().map(|entry| entry.unix_ms);
        Self { name: &run.config.name, config: Some(&run.config), started_unix_ms, folder: &run.folder }
    }

    /// When it began, in words; empty where its log does not tell.
    #[must_use]
    pub fn started(&self, zone: &TimeZone) -> String {
        self.started_unix_ms.map_or_else(String::new, |unix_ms| number::moment(unix_ms, zone))
    }
}

/// What a run is called among others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunLabel {
    /// Its name with as much as tells it from every other: "glyphs · balanced · seed 8".
    pub name: String,
    /// Everything in which its recipe differs from those of the same name.
    pub differences: Vec<String>,
}

/// A label for each run, in order. A name that is the only one of its kind stays as it is.
#[must_use]
pub fn run_labels(runs: &[RunIdentity<'_>], zone: &TimeZone) -> Vec<RunLabel> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, run) in runs.iter().enumerate() {
        groups.entry(run.name).or_default().push(index);
    }
    let mut labels: Vec<RunLabel> = vec![RunLabel::default(); runs.len()];
    for (name, members) in groups {
        let recipes: Vec<Vec<RecipeField>> =
            members.iter().map(|&index| runs[index].config.map_or_else(Vec::new, recipe_fields)).collect();
        let is_single = members.len() == 1;
        for (recipe, &index) in recipes.iter().zip(&members) {
            let differences = if is_single { Vec::new() } else { differences(recipe, &recipes) };
            labels[index] = RunLabel { name: joined(name, &differences), differences };
        }
        tell_apart(&mut labels, &members, |index| runs[index].started(zone));
        let folder_of =
            |index: usize| runs[index].folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tell_apart(&mut labels, &members, folder_of);
    }
    labels
}

fn joined(name: &str, differences: &[String]) -> String {
    let num_left = differences.len().saturating_sub(MAX_PARTS);
    let parts = differences.iter().take(MAX_PARTS).cloned().chain((num_left > 0).then(|| format!("+{num_left}")));
    std::iter::once(name.to_owned()).chain(parts).collect::<Vec<_>>().join(" · ")
}

/// Adds `more` to each label among `members` that stands for several runs.
fn tell_apart(labels: &mut [RunLabel], members: &[usize], more: impl Fn(usize) -> String) {
    let names: Vec<String> = members.iter().map(|&index| labels[index].name.clone()).collect();
    for (name, &index) in names.iter().zip(members) {
        let more = more(index);
        if !more.is_empty() && names.iter().filter(|other| *other == name).count() > 1 {
            labels[index].name = format!("{name} · {more}");
        }
    }
}

/// Fields of `recipe` whose value is another in one of `others`: tier and seed first, the rest as the form has them.
fn differences(recipe: &[RecipeField], others: &[Vec<RecipeField>]) -> Vec<String> {
    let mut found: Vec<&RecipeField> =
        recipe.iter().filter(|field| others.iter().any(|other| differs(field, recipe, other))).collect();
    found.sort_by_key(|field| match field.name {
        "Tier" => 0,
        "Seed" => 1,
        _ => 2,
    });
    found.into_iter().map(RecipeField::short).collect()
}

/// The numbers of different tiers differ because the tiers do: that says nothing more.
fn differs(field: &RecipeField, recipe: &[RecipeField], other: &[RecipeField]) -> bool {
    let tier_of = |recipe: &[RecipeField]| value_of("Tier", recipe).map(str::to_owned);
    let is_other = value_of(field.name, other).is_some_and(|value| value != field.value);
    is_other && (field.card != RecipeCard::Tier || field.name == "Tier" || tier_of(recipe) == tier_of(other))
}

fn value_of<'a>(name: &str, recipe: &'a [RecipeField]) -> Option<&'a str> {
    recipe.iter().find(|field| field.name == name).map(|field| field.value.as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::state::Catalog;

    fn recipe() -> RunConfig {
        Catalog::load().recipes[0].config.clone()
    }

    /// Labels of runs that are all called "digits", begun 10 seconds apart.
    fn labels(configs: &[RunConfig]) -> Vec<String> {
        let identity = |(index, config)| RunIdentity {
            name: "digits",
            config: Some(config),
            started_unix_ms: Some(10_000 * index as u64),
            folder: Path::new("/runs/digits"),
        };
        let runs: Vec<RunIdentity<'_>> = configs.iter().enumerate().map(identity).collect();
        run_labels(&runs, &TimeZone::UTC).into_iter().map(|label| label.name).collect()
    }

    #[test]
    fn runs_of_one_name_are_told_apart_by_tier_seed_and_recipe() {
        let (mut seeded, mut slow) = (recipe(), recipe());
        seeded.seed = recipe().seed + 1;
        slow.optimizer.learning_rate = 1e-4;
        slow.tier = "aggressive".to_owned();
        slow.hybrid.max_predict_steps += 7;
        let own = recipe();
        let rate = format!("{:.2e}", own.optimizer.learning_rate);
        assert_eq!(
            labels(&[own.clone(), seeded, slow]),
            [
                format!("digits · {} · seed {} · rate, matrices {rate}", own.tier, own.seed),
                format!("digits · {} · seed {} · rate, matrices {rate}", own.tier, own.seed + 1),
                format!("digits · aggressive · seed {} · rate, matrices 1.00e-4", own.seed),
            ]
        );
    }

    #[test]
    fn the_same_recipe_twice_is_told_apart_by_when_it_began() {
        let found = labels(&[recipe(), recipe()]);
        assert_eq!(found, ["digits · 1970-01-01 00:00:00", "digits · 1970-01-01 00:00:10"]);
    }

    #[test]
    fn a_name_that_is_the_only_one_stays_as_it_is() {
        assert_eq!(labels(&[recipe()]), ["digits"]);
    }

    #[test]
    fn many_differences_are_counted() {
        let mut other = recipe();
        (other.seed, other.batch_size, other.num_steps, other.keep_last) = (99, 33, 44, 9);
        let found = labels(&[recipe(), other]);
        assert_eq!(found[1], "digits · seed 99 · steps 44 · batch size 33 · +1");
    }
}
