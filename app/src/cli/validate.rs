//! `foretrain validate`.

use std::path::{Path, PathBuf};

use foretrain_engine::data::SplitPart;
use foretrain_engine::device::Watch;
use foretrain_engine::memory::format_bytes;
use foretrain_engine::session::{self, Validated};
use serde_json::json;

use super::data_arg::DataArgs;
use super::{CliError, CommonArgs, driver, output, run_arg};
use crate::folders;

/// Measure a checkpoint on a dataset.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain validate --checkpoint glyphs-cnn
  foretrain validate --checkpoint path/to/run/checkpoints/step-00000400 --data path/to/mnist --part test --json
  foretrain validate --checkpoint model_int8.safetensors
  foretrain validate --checkpoint packages/digits-cpu
  foretrain validate --checkpoint path/to/model.gguf --data held-out.txt")]
pub struct ValidateArgs {
    /// Checkpoint folder, run by its folder or name (its best checkpoint is taken), package folder, safetensors file of
    /// `foretrain quantize`, folder of Hugging Face transformers or GGUF file; models of others need --data.
    #[arg(long, visible_alias = "input", value_name = "FOLDER|FILE|NAME")]
    pub checkpoint: PathBuf,
    /// Dataset; the run's own when left out.
    #[command(flatten)]
    pub data: DataArgs,
    /// Part to measure on. The test part is for final figures.
    #[arg(long, value_enum, default_value_t = Part::Validation)]
    pub part: Part,
    /// Common options.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Part of a dataset, as typed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Part {
    /// What the weights learned from.
    Train,
    /// What choices were made on.
    Validation,
    /// What nothing was chosen on.
    Test,
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// Runs the subcommand.
pub(super) fn run(args: &ValidateArgs) -> Result<(), CliError> {
    let part = match args.part {
        Part::Train => SplitPart::Train,
        Part::Validation => SplitPart::Validation,
        Part::Test => SplitPart::Test,
    };
    let data = args.data.spec()?;
    let checkpoint = run_arg::model("--checkpoint", &args.checkpoint, args.common.runs_folder()?)?;
    let cancel = driver::interrupt_flag()?;
    let measure = |watch: Watch<'_>| {
        let validated = session::validate(&checkpoint, data.as_ref(), part, &folders::cache(), watch);
        validated.map_err(|error| CliError::from_session(&error))
    };
    let Validated { card, dataset_name, measured, sequence_length, notes } = driver::with_bar(&cancel, measure)?;
    if !measured.loss.is_finite() {
        return Err(CliError::Failed(format!(
            "measuring a checkpoint: expected a finite loss, found {} after step {}. Did its run diverge? \
             Choose an earlier checkpoint. {}",
            measured.loss,
            card.step,
            checkpoint.display()
        )));
    }
    let mut table = output::table(&["figure", "value"]);
    table.add_row(vec!["checkpoint".to_owned(), format!("{}, step {}", card.name, card.step)]);
    table.add_row(vec!["weights of".to_owned(), weights_of(&checkpoint)]);
    let (count, unit, part_name) = (measured.num_examples, card.example_unit(), args.part.word());
    let in_sequences = sequence_length.map_or_else(String::new, |length| format!(", in sequences of {length}"));
    let measured_on = format!("{dataset_name}: {count} {unit} of the {part_name} part{in_sequences}");
    table.add_row(vec!["measured on".to_owned(), measured_on]);
    table.add_row(vec!["loss".to_owned(), output::metric("loss", measured.loss)]);
    if let Some(accuracy) = measured.accuracy {
        table.add_row(vec!["accuracy".to_owned(), output::metric("accuracy", accuracy)]);
    }
    output::line(table)?;
    for note in &notes {
        output::line(format_args!("- {note}"))?;
    }
    if args.common.json {
        output::print_json(&json!({
            "weights": output::path_text(&checkpoint), "data": dataset_name, "part": args.part.word(), "step": card.step,
            "sequence_length": sequence_length, "measured": measured, "notes": notes,
        }))?;
    }
    Ok(())
}

/// Where the weights that were measured lie; a file with its size.
fn weights_of(path: &Path) -> String {
    match path.metadata() {
        Ok(found) if found.is_file() => format!("{}, {}", path.display(), format_bytes(found.len())),
        _ => path.display().to_string(),
    }
}
