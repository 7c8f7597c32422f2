//! What is told besides an answer or instead of one: to people on standard error, and with `--json` to programs on standard
//! output, as `foretrain` does.

use std::fmt::Display;
use std::io::Write;

use serde_json::json;

/// The exit code of what was understood and failed.
const FAILED: u8 = 1;

/// `error` and its causes. Each is told once: many of our messages quote their cause.
pub(super) fn in_words(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

/// Tells why nothing came of it; returns the exit code.
#[allow(clippy::print_stderr, reason = "a command line's error belongs on the error stream")]
pub fn report(error: &anyhow::Error, is_json: bool, out: &mut impl Write) -> u8 {
    let words = in_words(error);
    eprintln!("error: {words}");
    if is_json {
        write_json(&words, FAILED.into(), out);
    }
    FAILED
}

/// Tells people something to know about an answer that comes all the same.
#[allow(clippy::print_stderr, reason = "standard output is for the answer")]
pub(super) fn warn(words: impl Display) {
    eprintln!("warning: {words}");
}

/// What `--json` writes instead of an answer.
pub(super) fn write_json(words: &str, exit_code: i32, out: &mut impl Write) {
    // The exit code says the same to a reader that went away.
    let _ = writeln!(out, "{}", json!({"error": words, "exit_code": exit_code}));
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        let cause = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let path = "/nofile".into();
        let quoting = foretrain_edge::EdgeError::Read { path, source: cause(), hint: "Is it there?" };
        let words = in_words(&quoting.into());
        assert_eq!(words.matches(&cause().to_string()).count(), 1, "{words}");
        let bare: anyhow::Result<()> = Err(cause()).context("listening");
        assert_eq!(bare.map_err(|error| in_words(&error)), Err(format!("listening: {}", cause())));
    }
}
