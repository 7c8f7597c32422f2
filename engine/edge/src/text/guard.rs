//! Calls into the tokenizer library, which panics on some tokenizer files instead of refusing them.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `call`; a panic inside becomes an error in words, as its other errors do.
pub(crate) fn guarded<T, E: std::fmt::Display>(call: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    // The library's objects are read only through `&self` here and dropped after a failure, so nothing half-changed
    // is seen again.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("an unknown failure");
            Err(format!("a failure inside the tokenizer library: {text}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn a_panic_becomes_words() {
        let result: Result<(), String> = guarded(|| -> Result<(), String> { panic!("odd {}", 3) });
        assert_eq!(result, Err("a failure inside the tokenizer library: odd 3".to_owned()));
        assert_eq!(guarded(|| Err::<(), _>("plain")), Err("plain".to_owned()));
        assert_eq!(guarded(|| Ok::<_, String>(1)), Ok(1));
    }
}
