//! Programs that tests start.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

/// The emulator of another processor and its arguments, where the tests run under one: in words, in `FORETRAIN_TEST_RUNNER`.
fn emulator() -> String {
    std::env::var("FORETRAIN_TEST_RUNNER").unwrap_or_default()
}

/// Starts `program`, by the emulator where there is one: a process that is emulated itself cannot start another of its kind.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let emulator = emulator();
    let mut words = emulator.split_whitespace();
    let Some(first) = words.next() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(words).arg(program);
    command
}

/// True where the tests run under an emulator, which takes ten to thirty times as long for an instruction.
#[allow(dead_code, reason = "the tests for C do not ask")]
pub fn is_emulated() -> bool {
    !emulator().is_empty()
}

/// How long a test waits for a program before it fails.
#[allow(dead_code, reason = "the tests for C do not wait")]
pub fn deadline() -> Duration {
    Duration::from_secs(if is_emulated() { 900 } else { 60 })
}
