//! Arguments, and one file per subcommand.

mod bench;
mod chat;
mod classify;
mod generate;
mod info;
mod model_arguments;
mod perplexity;
mod report;
mod serve;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use foretrain_edge::{EdgeError, Package, refuse_unfinished};

pub use report::report;

const EXAMPLES: &str = "\
Examples:
  foretrain-edge info --package packages/digits-edge
  foretrain-edge classify --package packages/digits-edge --image three.png seven.png
  foretrain-edge run --package packages/shakespeare-cpu --prompt \"ROMEO:\" --max-tokens 200
  foretrain-edge run --gguf model-TQ2_0.gguf --prompt \"Once\" --temperature 0 --json
  foretrain-edge chat --gguf model-TQ2_0.gguf
  foretrain-edge serve --gguf model-TQ2_0.gguf --port 8080
  foretrain-edge perplexity --package packages/shakespeare-cpu --text held-out.txt --json";

/// Runs packages that Foretrain exported, and GGUF files, on the CPU alone.
#[derive(Debug, Parser)]
#[command(name = "foretrain-edge", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// Compute with these kernels instead of the fastest that this processor runs: scalar, avx2, avx-vnni, avx512-vnni,
    /// amx-int8, neon or neon-dotprod. For comparing them: speed differs, texts only
    /// after a sum of floats that rounds otherwise.
    #[arg(long, global = true, value_name = "SET", env = "FORETRAIN_EDGE_KERNELS")]
    kernels: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Continue a prompt with a language model, word by word.
    Run(generate::RunArguments),
    /// Talk with a language model.
    Chat(chat::ChatArguments),
    /// Answer over HTTP as OpenAI's interface does.
    Serve(serve::ServeArguments),
    /// Name what pictures show with an image model.
    Classify(classify::ClassifyArguments),
    /// Measure how well a language model predicts a text.
    Perplexity(perplexity::PerplexityArguments),
    /// Measure how fast a language model runs here.
    Bench(bench::BenchArguments),
    /// Show what a package holds.
    Info(info::InfoArguments),
}

/// What subcommands for any package take.
#[derive(Debug, Args)]
struct PackageArguments {
    /// Folder of the package (the one that holds manifest.json).
    #[arg(long, value_name = "DIR")]
    package: PathBuf,
    /// Print one JSON object on one line instead of text.
    #[arg(long)]
    json: bool,
}

impl PackageArguments {
    fn open(&self) -> Result<Package, EdgeError> {
        refuse_unfinished(&self.package)?;
        Package::open(&self.package)
    }
}

impl Arguments {
    /// True when the answer is wanted as JSON.
    pub fn is_json(&self) -> bool {
        match &self.command {
            Command::Run(arguments) => arguments.json,
            Command::Chat(_) | Command::Serve(_) => false,
            Command::Classify(arguments) => arguments.common.json,
            Command::Perplexity(arguments) => arguments.json,
            Command::Bench(arguments) => arguments.json,
            Command::Info(arguments) => arguments.common.json,
        }
    }
}

/// Reads the process's arguments; ends the process on wrong ones, `--help` and `--version`.
pub fn parse() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|error| {
        // What was not understood cannot be asked whether it has the option.
        if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
            let words = error.render().to_string();
            report::write_json(
                words.trim().trim_start_matches("error: "),
                error.exit_code(),
                &mut std::io::stdout().lock(),
            );
        }
        error.exit()
    })
}

/// Runs the subcommand, writing its answer to `out`.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<()> {
    if let Some(name) = &arguments.kernels {
        foretrain_edge::choose_kernels(name)?;
    }
    match &arguments.command {
        Command::Run(arguments) => generate::run(arguments, out),
        Command::Chat(arguments) => chat::run(arguments, out),
        Command::Serve(arguments) => serve::run(arguments, out),
        Command::Classify(arguments) => classify::run(arguments, out),
        Command::Perplexity(arguments) => perplexity::run(arguments, out),
        Command::Bench(arguments) => bench::run(arguments, out),
        Command::Info(arguments) => info::run(arguments, out),
    }
}

/// True when whoever read our output went away.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io_error = error.downcast_ref::<std::io::Error>();
    io_error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
