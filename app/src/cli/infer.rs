//! `foretrain infer`.

use std::path::PathBuf;
use std::time::Instant;

use foretrain_edge::{EdgeError, GenerateOptions, Package};
use foretrain_engine::device::CancelFlag;
use foretrain_engine::session;
use serde_json::json;

use super::{CliError, CommonArgs, driver, number_arg, output, path_arg, run_arg};
use crate::folders;

/// Run a package: continue a prompt or classify images.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  foretrain infer --package packages/digits-cpu --image seven.png
  foretrain infer --package packages/story-cpu --prompt \"Once upon\" --max-tokens 100 --temperature 0.8
  foretrain infer --package grammar-gpt2-char --prompt \"The \"")]
pub struct InferArgs {
    /// Package folder, as `foretrain export` writes it, or a checkpoint folder or a run by its folder or name (its best
    /// checkpoint is taken), which runs in floats as it was saved.
    #[arg(long, visible_alias = "input", value_name = "FOLDER|NAME")]
    pub package: PathBuf,
    /// Text to go on from.
    #[arg(long, conflicts_with = "image")]
    pub prompt: Option<String>,
    /// Images to classify (PNG or JPEG).
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub image: Vec<PathBuf>,
    /// Tokens to add.
    #[arg(long, default_value_t = 128)]
    pub max_tokens: usize,
    /// 0 picks the likeliest token; higher is more surprising.
    #[arg(long, default_value_t = 0.8, value_parser = number_arg::parse_temperature)]
    pub temperature: f32,
    /// Consider only this many of the likeliest tokens; 0 considers all.
    #[arg(long, default_value_t = 40)]
    pub top_k: usize,
    /// Consider only the likeliest tokens that together have this probability; 1 considers all.
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    /// Consider only tokens at least this many times as likely as the likeliest; 0 considers all.
    #[arg(long, default_value_t = 0.0)]
    pub min_p: f32,
    /// Make the last 64 tokens less likely; 1 changes nothing.
    #[arg(long, default_value_t = 1.0)]
    pub repeat_penalty: f32,
    /// End before this text would come; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Seed of the sampling.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Common options.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Runs the subcommand.
pub(super) fn run(args: &InferArgs) -> Result<(), CliError> {
    let model = run_arg::model("--package", &args.package, args.common.runs_folder()?)?;
    for image in &args.image {
        path_arg::check_there("--image", "a PNG or JPEG file", image)?;
    }
    // Ctrl-C may end the process at any time: packages are whole or absent.
    let cancel = CancelFlag::default();
    let folder = driver::with_bar(&cancel, |watch| {
        session::package_to_run(&model, &folders::cache(), watch).map_err(|error| CliError::from_session(&error))
    })?;
    if folder != model {
        output::note(format_args!("running the checkpoint as it was saved, in floats: {}", model.display()));
    }
    let package = Package::open(&folder).map_err(|error| CliError::from_edge(&error))?;
    match &args.prompt {
        Some(prompt) => generate(&package, prompt, args),
        None if args.image.is_empty() => {
            let (option, wanted) = match package.tokenizer() {
                Some(_) => ("--prompt", "a text for this language model to go on from"),
                None => ("--image", "pictures for this image model to classify"),
            };
            Err(CliError::Usage(format!("{option}: expected {wanted}, found nothing")))
        }
        None => classify(&package, args),
    }
}

fn generate(package: &Package, prompt: &str, args: &InferArgs) -> Result<(), CliError> {
    let options = GenerateOptions {
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repeat_penalty: args.repeat_penalty,
        seed: args.seed,
        stop: args.stop.clone(),
        ..GenerateOptions::default()
    };
    if package.tokenizer().is_none() {
        let found = "an image model; give it --image";
        return Err(CliError::Usage(format!("--prompt: expected a language model, found {found}")));
    }
    options.check().map_err(|error| CliError::from_edge(&error))?;
    let unseen = unseen(package, prompt).map_err(|error| CliError::from_edge(&error))?;
    for warning in &unseen {
        output::note(format_args!("warning: --prompt: {warning}"));
    }
    output::piece(prompt)?;
    let mut printed = Ok(());
    let mut show = |piece: &str| {
        printed = output::piece(piece);
        // A closed pipe ends the generation.
        printed.is_ok()
    };
    let generated = package.generate(prompt, &options, &mut show).map_err(|error| CliError::from_edge(&error))?;
    printed?;
    output::line("")?;
    let per_token_ms = generated.decode_ms / generated.num_tokens.max(1) as f64;
    output::note(format_args!(
        "{} tokens, {per_token_ms:.2} ms each, prompt {:.1} ms",
        generated.num_tokens, generated.prompt_ms
    ));
    if args.common.json {
        output::print_json(&json!({
            "text": generated.text, "num_tokens": generated.num_tokens,
            "prompt_ms": generated.prompt_ms, "decode_ms": generated.decode_ms, "warnings": unseen,
        }))?;
    }
    Ok(())
}

/// What the model does not see of a prompt, a sentence each.
fn unseen(package: &Package, prompt: &str) -> Result<Vec<String>, EdgeError> {
    let model = package.language_model()?;
    let unknown = model.unknown(prompt)?;
    let num_tokens = model.prompt_tokens(prompt)?.len();
    let mut told = Vec::new();
    if !unknown.is_empty() {
        told.push(unknown.to_string());
    }
    match model.num_passed_over(num_tokens) {
        0 => {}
        passed_over => {
            let most = model.max_positions();
            told.push(format!(
                "{num_tokens} tokens, and the model has {most} positions: the first {passed_over} are not read"
            ));
        }
    }
    Ok(told)
}

fn classify(package: &Package, args: &InferArgs) -> Result<(), CliError> {
    if package.tokenizer().is_some() {
        let found = "a language model; give it --prompt";
        return Err(CliError::Usage(format!("--image: expected an image model, found {found}")));
    }
    let mut table = output::table(&["image", "class", "probability", "ms"]);
    let mut answers = Vec::new();
    for path in &args.image {
        let pixels = package.read_image(path).map_err(|error| CliError::from_edge(&error))?;
        let started = Instant::now();
        let classes = package.classify(&pixels).map_err(|error| CliError::from_edge(&error))?;
        let latency_ms = started.elapsed().as_secs_f64() * 1e3;
        let best = classes.iter().max_by(|a, b| a.1.total_cmp(&b.1)).cloned().unwrap_or_default();
        table.add_row(vec![
            path.display().to_string().into(),
            best.0.as_str().into(),
            output::number(format!("{:.1} %", best.1 * 100.0)),
            output::number(format!("{latency_ms:.2}")),
        ]);
        answers.push(json!({
            "image": output::path_text(path), "class": best.0, "probability": best.1, "classes": classes,
        }));
    }
    output::line(table)?;
    if args.common.json { output::print_json(&json!({ "images": answers })) } else { Ok(()) }
}
