//! The command that does in a terminal what the window is asked for, as far as there are options for it.

use std::path::Path;

use foretrain_engine::data::{DatasetSpec, TokenizerSpec};
use foretrain_engine::hybrid::GateRule;
use foretrain_engine::models::ops::Kept;
use foretrain_engine::optim::OptimizerKind;
use foretrain_engine::session::RunConfig;

use super::{Catalog, Draft, ExperimentChoice, ExperimentsSaved, preset_of};
use crate::views::recipe_fields;

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// `foretrain experiment …` for `config`, which `draft` makes. What has no option stands behind a `#`, so that the line
/// can be pasted and still says what it leaves out.
#[must_use]
pub fn experiment_command(catalog: &Catalog, draft: &Draft, config: &RunConfig, how: &ExperimentsSaved) -> String {
    let name = match how.choice {
        ExperimentChoice::Arena => "arena",
        ExperimentChoice::Corrections => "corrections",
        ExperimentChoice::Tiers => "tiers",
        ExperimentChoice::Ladder => "ladder",
    };
    let mut words = vec![format!("foretrain experiment {name}")];
    let tier = match how.choice {
        ExperimentChoice::Arena | ExperimentChoice::Corrections | ExperimentChoice::Ladder => TierWords::Named,
        ExperimentChoice::Tiers => TierWords::All,
    };
    let left_out = recipe_words(catalog, (draft, config), tier, &mut words);
    match how.choice {
        ExperimentChoice::Arena | ExperimentChoice::Corrections | ExperimentChoice::Tiers => {
            words.push(format!("--seeds {}", how.num_seeds));
        }
        ExperimentChoice::Ladder => {}
    }
    match how.choice {
        ExperimentChoice::Arena => {
            words.push(format!("--rates {}", list(&how.rate_factors)));
            words.push(format!("--batch-divisors {}", list(&how.batch_divisors)));
        }
        ExperimentChoice::Corrections => {
            words.push(format!("--confidence {}", list(&how.thresholds)));
            words.push(format!("--horizons {}", list(&how.horizons)));
        }
        ExperimentChoice::Tiers => {}
        ExperimentChoice::Ladder => {
            words.push(format!("--rungs {}", list(&how.rungs.iter().map(|size| size.label()).collect::<Vec<_>>())));
            words.push(format!("--minutes-per-rung {}", how.minutes_per_rung));
        }
    }
    if !left_out.is_empty() {
        words.push(format!("# without an option: {}", left_out.join("; ")));
    }
    words.join(" ")
}

fn list<T: ToString>(numbers: &[T]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Whether a command names a tier.
#[derive(Clone, Copy)]
enum TierWords {
    /// The recipe's.
    Named,
    /// It compares all of them, each with what is its own.
    All,
}

/// Adds the options that make `config` from a preset; returns what they cannot say.
fn recipe_words(
    catalog: &Catalog,
    (draft, config): (&Draft, &RunConfig),
    tier: TierWords,
    words: &mut Vec<String>,
) -> Vec<String> {
    words.push(format!("--preset {}", quoted(&draft.recipe)));
    let Some(recipe) = catalog.recipe(&draft.recipe) else { return vec![format!("the preset {}", draft.recipe)] };
    let mut made = recipe.config.clone();
    match tier {
        TierWords::Named => {
            words.push(format!("--tier {}", quoted(&config.tier)));
            if let Some(tier) = catalog.tier(&config.tier) {
                made.hybrid = tier.config();
            }
        }
        TierWords::All => made.hybrid = config.hybrid.clone(),
    }
    made.tier.clone_from(&config.tier);
    (made.seed, made.num_threads) = (0, 0);
    if made.data != config.data {
        words.push(data_words(&config.data));
        made.data = config.data.clone();
    }
    if let Some(preset) = preset_of(&config.model) {
        if preset_of(&made.model) != Some(preset) {
            words.push(format!("--model {}", quoted(preset.label())));
        }
        made.model = config.model.clone();
    }
    if made.hybrid.strategy != config.hybrid.strategy {
        words.push(format!("--strategy {}", config.hybrid.strategy.label()));
        made.hybrid.strategy = config.hybrid.strategy;
        if !made.hybrid.strategy.samples() {
            made.hybrid.gate = GateRule::Open;
        }
    }
    if made.optimizer.kind != config.optimizer.kind {
        let kind = match config.optimizer.kind {
            OptimizerKind::AdamW => "adamw",
            OptimizerKind::Muon => "muon",
        };
        words.push(format!("--optimizer {kind}"));
        made.optimizer.kind = config.optimizer.kind;
    }
    if made.precision != config.precision {
        words.push(format!("--precision {}", config.precision.label()));
        made.precision = config.precision;
    }
    if made.optimizer.states != config.optimizer.states {
        words.push(format!("--optimizer-states {}", config.optimizer.states.label()));
        made.optimizer.states = config.optimizer.states;
    }
    if made.optimizer.state_place != config.optimizer.state_place {
        words.push("--optimizer-offload".to_owned());
        made.optimizer.state_place = config.optimizer.state_place;
    }
    if config.kept == Kept::Input {
        words.push("--activation-checkpointing".to_owned());
        made.kept = config.kept;
    }
    let mut option = |name: &str, made: &mut u64, wanted: u64| {
        if *made != wanted {
            words.push(format!("--{name} {wanted}"));
            *made = wanted;
        }
    };
    option("steps", &mut made.num_steps, config.num_steps);
    option("seed", &mut made.seed, config.seed);
    for (name, made, wanted) in [
        ("batch-size", &mut made.batch_size, config.batch_size),
        ("micro-batches", &mut made.num_micro_batches, config.num_micro_batches),
        ("sequence-length", &mut made.sequence_length, config.sequence_length),
        ("threads", &mut made.num_threads, config.num_threads),
    ] {
        let mut number = *made as u64;
        option(name, &mut number, wanted as u64);
        *made = wanted;
    }
    if made.optimizer.learning_rate.to_bits() != config.optimizer.learning_rate.to_bits() {
        words.push(format!("--learning-rate {}", config.optimizer.learning_rate));
        made.optimizer.learning_rate = config.optimizer.learning_rate;
    }
    if made.device != config.device {
        words.push(format!("--device {}", config.device));
        made.device = config.device;
    }
    if config.vram_limit_bytes > 0 {
        words.push(format!("--vram-limit {}", config.vram_limit_bytes as f64 / GIB));
    }
    // An experiment neither saves nor validates on the way.
    (made.validation_interval, made.checkpoint_interval) = (config.validation_interval, config.checkpoint_interval);
    (made.max_validation_examples, made.keep_last) = (config.max_validation_examples, config.keep_last);
    let known = recipe_fields(&made);
    recipe_fields(config).iter().filter(|field| !known.contains(field)).map(crate::views::RecipeField::short).collect()
}

fn data_words(data: &DatasetSpec) -> String {
    let place = |path: &Path, kind: &str| format!("--data {} --kind {kind}", quoted(&path.display().to_string()));
    let tokens = |tokenizer: &TokenizerSpec| match tokenizer {
        TokenizerSpec::Byte => " --tokenizer byte".to_owned(),
        TokenizerSpec::Char => " --tokenizer char".to_owned(),
        TokenizerSpec::Gpt2 { folder: path } | TokenizerSpec::File { path } => {
            format!(" --tokenizer {}", quoted(&path.display().to_string()))
        }
    };
    match data {
        DatasetSpec::Glyphs => "--data glyphs".to_owned(),
        DatasetSpec::Grammar => "--data grammar".to_owned(),
        DatasetSpec::Rounds => "--data rounds".to_owned(),
        DatasetSpec::Idx { path } => place(path, "idx"),
        DatasetSpec::Cifar10 { path } => place(path, "cifar10"),
        DatasetSpec::ImageFolder { path, image_size } => {
            format!("{} --image-size {}", place(path, "images"), image_size.0)
        }
        DatasetSpec::Text { path, tokenizer } => format!("{}{}", place(path, "text"), tokens(tokenizer)),
        DatasetSpec::Jsonl { path, field, tokenizer } => {
            format!("{} --field {}{}", place(path, "jsonl"), quoted(field), tokens(tokenizer))
        }
    }
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_./:,=+@".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Settings;

    fn command(change: impl FnOnce(&mut Draft)) -> String {
        command_of(change, &ExperimentsSaved::default())
    }

    fn command_of(change: impl FnOnce(&mut Draft), how: &ExperimentsSaved) -> String {
        let catalog = Catalog::load();
        let Some(recipe) = catalog.recipe("glyphs-cnn") else { return String::new() };
        let mut draft = Draft::of(recipe);
        change(&mut draft);
        let config = draft.run_config(&Settings::default());
        config.map_or_else(|error| error, |config| experiment_command(&catalog, &draft, &config, how))
    }

    #[test]
    fn a_preset_as_it_is_needs_no_option() {
        let seed = Catalog::load().recipe("glyphs-cnn").map_or(0, |recipe| recipe.config.seed);
        let seed = if seed == 0 { String::new() } else { format!(" --seed {seed}") };
        let expected = format!(
            "foretrain experiment arena --preset glyphs-cnn --tier conservative{seed} --seeds 1 --rates 1,2 --batch-divisors 1,2"
        );
        assert_eq!(command(|_| {}), expected);
    }

    #[test]
    fn changes_become_options_and_the_rest_is_named() {
        let text = command(|draft| {
            draft.config.num_steps = 77;
            draft.config.batch_size = 32;
            draft.config.optimizer.weight_decay = 0.5;
            draft.data.kind = crate::state::DataKind::Idx;
            draft.data.path = "/data/my digits".to_owned();
        });
        for part in ["--steps 77", "--batch-size 32", "--data '/data/my digits' --kind idx", "weight decay 0.5"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn corrections_have_options_of_their_own() {
        let how = ExperimentsSaved { choice: ExperimentChoice::Corrections, ..ExperimentsSaved::thorough() };
        let text = command_of(|_| {}, &how);
        assert!(text.starts_with("foretrain experiment corrections --preset glyphs-cnn"), "{text}");
        assert!(text.ends_with("--seeds 3 --confidence 0.55,0.6,0.65 --horizons 30,50,75"), "{text}");
    }

    #[test]
    fn tiers_name_none_and_a_ladder_takes_no_seeds() {
        let of = |choice| command_of(|_| {}, &ExperimentsSaved { choice, ..ExperimentsSaved::quick() });
        let tiers = of(ExperimentChoice::Tiers);
        assert!(tiers.starts_with("foretrain experiment tiers") && !tiers.contains("--tier "), "{tiers}");
        let ladder = of(ExperimentChoice::Ladder);
        assert!(ladder.ends_with("--rungs 100k,1m --minutes-per-rung 3") && !ladder.contains("--seeds"), "{ladder}");
    }
}
