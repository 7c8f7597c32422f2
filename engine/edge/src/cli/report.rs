//! What goes to people on standard error.

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

/// Tells people why nothing came of it.
#[allow(clippy::print_stderr, reason = "a command line's error belongs on the error stream")]
pub fn report(error: &anyhow::Error) {
    eprintln!("error: {}", in_words(error));
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
