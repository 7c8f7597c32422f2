//! `README.md` of a package: how to run it, where it comes from, what it is worth, where it ends.

use std::fmt::Write;
use std::path::Path;

use super::gguf_metadata::unknown_to_llama_cpp;
use super::{CardRecipe, EdgeFigures, ModelCard, PackageFormat, Preprocessing, Quality, StoredSize, TargetPreset};
use crate::quant::{QuantScheme, QuantizedWeights, TableChoice, fallback_note};

/// Builds the runtime alone, which building the studio does not.
const EDGE_BUILD: &str = "cargo build --release -p foretrain-edge";

/// How to run a package without the studio, in a sentence.
pub(super) fn runtime_note() -> String {
    format!(
        "`foretrain infer` has foretrain-edge built in; alone, for a device that only runs packages, it is built with \
         `{EDGE_BUILD}`"
    )
}

/// The command that tries a package in `folder`.
pub(super) fn run_command(card: &ModelCard, folder: &Path) -> String {
    format!("foretrain infer --package {} {}", quoted(&folder.to_string_lossy()), example_input(card))
}

/// What the text is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Readme<'a> {
    pub card: &'a ModelCard,
    pub target: &'a TargetPreset,
    pub weights: &'a QuantizedWeights,
    /// Name of the weight file.
    pub weights_file: &'a str,
    pub quality: Option<&'a Quality>,
    /// What the runtime that ships makes of the package.
    pub edge: Option<&'a EdgeFigures>,
    /// How embedding and head were chosen.
    pub tables: Option<&'a TableChoice>,
    /// Sentences about the storage, without their full stops.
    pub notes: &'a [String],
}

impl Readme<'_> {
    /// The text, in Markdown.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self { card, target, weights, notes, .. } = *self;
        writeln!(out, "# {}\n", card.name)?;
        writeln!(
            out,
            "A {} with {}, trained on {} and stored as {}{} for: {} ({}).\n",
            card.family(),
            card.size_label(),
            card.dataset_name,
            weights.scheme().label(),
            if self.has_fallback() { ", as far as it can be (see Storage)," } else { "" },
            target.name,
            target.examples
        )?;
        writeln!(out, "## Run it\n\nIn this folder:\n\n```sh")?;
        let verb = if card.is_language_model() { "run" } else { "classify" };
        writeln!(out, "foretrain infer --package . {}", example_input(card))?;
        writeln!(out, "```\n")?;
        writeln!(out, "Or, on a device that only runs packages, with the runtime alone:\n\n```sh")?;
        writeln!(out, "{EDGE_BUILD}  # in Foretrain's source folder; gives target/release/foretrain-edge")?;
        writeln!(out, "foretrain-edge {verb} --package . {}", example_input(card))?;
        writeln!(out, "```\n")?;
        let is_folder = weights.scheme().is_float() || target.format == PackageFormat::Transformers;
        write_other_runtimes(out, card, is_folder, self.weights_file, notes)?;
        write_quality(out, card, StoredSize::of(weights), self.quality)?;
        if self.quality.is_some() {
            writeln!(out, "\"In this package\" is what the trainer's network makes of the stored weights.\n")?;
        }
        if let Some(edge) = self.edge {
            let what = card.example_unit();
            let (metric, measured) = (card.metric(), metric_text(card.metric(), edge.metric));
            writeln!(
                out,
                "The package itself, read back and run by foretrain-edge on {} validation {what}: {metric} {measured}.\n",
                edge.num_examples
            )?;
        }
        if let Some(tables) = self.tables.filter(|tables| !tables.tried.is_empty()) {
            writeln!(out, "{}", tables.markdown())?;
        }
        writeln!(out, "## Storage\n\n{}.\n", target.why)?;
        if self.has_fallback() {
            writeln!(out, "This model takes {:.2} bits per weight.\n", weights.bits_per_weight())?;
        }
        for note in notes {
            writeln!(out, "- {note}.")?;
        }
        write_provenance(out, card)?;
        write_limits(out, card, weights.scheme(), self.has_fallback())?;
        writeln!(out, "## Files\n\nSizes and SHA-256 of every file are in `manifest.json`.")
    }

    /// True where tensors are stored in another way than the scheme asks.
    fn has_fallback(&self) -> bool {
        let plans = self.weights.tensors().iter().map(|tensor| &tensor.plan);
        fallback_note(plans, self.weights.scheme(), self.weights.container()).is_some()
    }
}

fn write_other_runtimes(
    out: &mut String,
    card: &ModelCard,
    is_folder_of_transformers: bool,
    weights_file: &str,
    notes: &[String],
) -> std::fmt::Result {
    if !card.is_language_model() {
        return Ok(());
    }
    let has_vocabulary = !notes.iter().any(|note| note.contains("no vocabulary"));
    if weights_file == "model.gguf" && has_vocabulary && unknown_to_llama_cpp(card).is_none() {
        writeln!(out, "In llama.cpp:\n\n```sh\nllama-cli -m model.gguf -p \"Once upon a time\"\n```\n")?;
    } else if weights_file != "model.gguf" && is_folder_of_transformers {
        writeln!(
            out,
            "In Python, with transformers:\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
             tokenizer = AutoTokenizer.from_pretrained(\".\")\nmodel = AutoModelForCausalLM.from_pretrained(\".\")\n\
             tokens = tokenizer(\"Once upon a time\", return_tensors=\"pt\")\n\
             print(tokenizer.decode(model.generate(tokens.input_ids, max_new_tokens=50)[0]))\n```\n"
        )?;
    }
    Ok(())
}

/// The table of figures.
pub(super) fn write_quality(
    out: &mut String,
    card: &ModelCard,
    size: StoredSize,
    quality: Option<&Quality>,
) -> std::fmt::Result {
    writeln!(out, "## Quality\n")?;
    match quality {
        Some(quality) => {
            writeln!(out, "Measured on {} validation {}.\n", quality.num_examples, card.example_unit())?;
            writeln!(out, "| | as trained (f32) | in this package |\n|---|---|---|")?;
            let (before, after) =
                (metric_text(&quality.metric, quality.before), metric_text(&quality.metric, quality.after));
            writeln!(out, "| {} | {before} | {after} |", quality.metric)?;
            if quality.metric != "loss" {
                writeln!(out, "| loss, nats | {:.4} | {:.4} |", quality.loss_before, quality.loss_after)?;
            }
        }
        None => {
            writeln!(out, "Not measured for this package.\n\n| | as trained (f32) | in this package |\n|---|---|---|")?;
        }
    }
    writeln!(
        out,
        "| weights, bytes | {} | {} |\n| bits per weight | 32 | {:.2} |\n",
        size.num_weights * 4,
        size.bytes,
        size.bits_per_weight()
    )?;
    if let Some(quality) = quality {
        writeln!(out, "Rounded by: {}.\n", quality.method)?;
    } else {
        let figure = |value: Option<f64>| value.map_or("not measured".to_owned(), |value| format!("{value:.4}"));
        writeln!(out, "Validation loss of the checkpoint: {}.\n", figure(card.validation_loss))?;
    }
    Ok(())
}

/// A metric as people read it.
fn metric_text(metric: &str, value: f64) -> String {
    if metric == "accuracy" { format!("{:.2}%", value * 100.0) } else { format!("{value:.4}") }
}

/// Data, recipe, version.
pub(super) fn write_provenance(out: &mut String, card: &ModelCard) -> std::fmt::Result {
    writeln!(out, "\n## Where it comes from\n")?;
    if card.tier == ModelCard::IMPORTED {
        writeln!(out, "- Read from a model that others wrote; what it learned from, and how, is not recorded.")?;
        return writeln!(out, "- Exported by Foretrain {}.\n", card.version);
    }
    writeln!(
        out,
        "- Data: {}; split: {} ({} training, {} validation, {} test {}).",
        card.dataset_name,
        card.split.rule,
        card.split.num_train,
        card.split.num_validation,
        card.split.num_test,
        card.example_unit()
    )?;
    writeln!(out, "- Recipe: {} tier, step {} of {}.", card.tier, card.step, card.num_steps)?;
    if let Some(CardRecipe { optimizer, batch_size, seed, qat, start_from }) = &card.recipe {
        let (rule, rate) = (optimizer.kind.name(), optimizer.learning_rate);
        let each = if card.is_language_model() { "sequences" } else { "images" };
        writeln!(out, "- Optimizer: {rule}, peak learning rate {rate}; batches of {batch_size} {each}; seed {seed}.")?;
        if let Some(qat) = qat {
            writeln!(out, "- Trained for {} weights.", qat.scheme.label())?;
        }
        if let Some(model) = start_from {
            let name = model.file_name().unwrap_or_default().to_string_lossy();
            writeln!(out, "- Its weights started from those of {name}.")?;
        }
    }
    writeln!(out, "- Trained and exported by Foretrain {}.", card.version)?;
    writeln!(out, "- The whole record is in `manifest.json` under `provenance`.\n")
}

fn write_limits(out: &mut String, card: &ModelCard, scheme: QuantScheme, has_fallback: bool) -> std::fmt::Result {
    write_model_limits(out, card)?;
    match scheme {
        QuantScheme::Ternary | QuantScheme::TernaryBase3 => writeln!(
            out,
            "- Its matrices {}; the table above says what that cost.\n",
            match (card.trained_for, has_fallback) {
                (Some(QuantScheme::Ternary | QuantScheme::TernaryBase3), false) => {
                    "were trained for three values, and are stored as they were trained"
                }
                (Some(QuantScheme::Ternary | QuantScheme::TernaryBase3), true) => {
                    "were trained for three values, which those keep that are stored in more bits"
                }
                (_, false) => "were rounded to three values after training",
                (_, true) => "were rounded after training: to three values where they are stored so, else to more",
            }
        ),
        QuantScheme::Int8 | QuantScheme::Int4 | QuantScheme::Int4K => {
            writeln!(out, "- foretrain-edge also rounds activations to 8 bits.\n")
        }
        QuantScheme::F32 | QuantScheme::F16 | QuantScheme::Bf16 => writeln!(out),
    }
}

/// What the model itself cannot do.
pub(super) fn write_model_limits(out: &mut String, card: &ModelCard) -> std::fmt::Result {
    writeln!(out, "## Limits\n")?;
    match &card.preprocessing {
        Preprocessing::Images { classes, .. } => {
            writeln!(out, "- It knows {} classes and always answers with one of them.", classes.len())?;
            writeln!(out, "- Images unlike its training data (other size, colors or framing) are answered poorly.")?;
        }
        Preprocessing::Text => {
            writeln!(
                out,
                "- It continues text like its training data; it has not been taught to follow instructions."
            )?;
            if let Some(positions) = card.model.max_positions() {
                writeln!(out, "- It sees at most {positions} tokens at once.")?;
                if let Some(trained) = card.sequence_length.filter(|trained| *trained < positions) {
                    writeln!(
                        out,
                        "- It was trained on {trained} tokens at a time: positions past that were never learned."
                    )?;
                }
            }
        }
    }
    Ok(())
}

fn example_input(card: &ModelCard) -> &'static str {
    if card.is_language_model() { "--prompt \"Once upon a time\"" } else { "--image PICTURE.png" }
}

/// As a shell reads it in one piece.
pub(super) fn quoted(path: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:".contains(c);
    if path.chars().all(is_plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
