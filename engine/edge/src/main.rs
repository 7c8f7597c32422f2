//! Command line of the edge runtime: `run`, `classify`, `perplexity`, `bench`, `info`.
//!
//! Exit codes: 0 done, 1 failed, 2 arguments that were not understood.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = cli::parse();
    let mut out = std::io::stdout().lock();
    match cli::run(&arguments, &mut out) {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if cli::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(cli::report(&error, arguments.is_json(), &mut out)),
    }
}
