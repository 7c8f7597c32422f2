//! Programs that tests start.

use std::ffi::OsStr;
use std::process::Command;

/// Starts `program`, by the words of `FORETRAIN_TEST_RUNNER` where that is set: an emulator and its arguments, as a process
/// that is emulated itself cannot start another of its kind.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let runner = std::env::var("FORETRAIN_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let Some(emulator) = words.next() else { return Command::new(program) };
    let mut command = Command::new(emulator);
    command.args(words).arg(program);
    command
}
