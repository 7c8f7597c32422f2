//! Ending a text before a string that its reader does not want to see.

/// Looks for stop strings in text that comes piece by piece, and holds back what may be the start of one.
#[derive(Debug, Clone)]
pub(super) struct StopFinder {
    stops: Vec<String>,
    held: String,
}

/// What may be shown of the text so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// This much more; perhaps nothing.
    More(String),
    /// This much more; then a stop string came.
    Last(String),
}

impl StopFinder {
    /// Empty stop strings are left out: they would stop every text.
    pub(super) fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Takes `piece` in.
    pub(super) fn push(&mut self, piece: &str) -> Shown {
        self.held.push_str(piece);
        // The first match counts, whichever string it is of. Both are whole characters, so it starts at one.
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = first {
            self.held.truncate(at);
            return Shown::Last(std::mem::take(&mut self.held));
        }
        let kept = self.stops.iter().map(|stop| started(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        Shown::More(std::mem::replace(&mut self.held, rest))
    }

    /// What was held back: no more text comes.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `text` that `stop` starts with. That end starts where a character starts, since `stop`
/// does.
fn started(text: &str, stop: &str) -> usize {
    let (text, stop) = (text.as_bytes(), stop.as_bytes());
    let longest = text.len().min(stop.len().saturating_sub(1));
    (1..=longest).rev().find(|&len| text.get(text.len() - len..) == stop.get(..len)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The pieces shown for `pieces`, joined by "|", "!" at a stop.
    #[track_caller]
    fn check(stops: &[&str], pieces: &[&str], expected: &str) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut finder = StopFinder::new(&stops);
        let mut shown = Vec::new();
        for piece in pieces {
            match finder.push(piece) {
                Shown::More(text) => shown.push(text),
                Shown::Last(text) => {
                    shown.push(text + "!");
                    assert_eq!(shown.join("|"), expected);
                    return;
                }
            }
        }
        shown.push(finder.finish());
        assert_eq!(shown.join("|"), expected);
    }

    #[test]
    fn a_stop_string_across_pieces_is_never_shown_in_part() {
        check(&["\nUser:"], &["Hi", "\n", "Us", "er", ": x"], "Hi||||!");
        check(&["\nUser:"], &["Hi\n", "Use", " it"], "Hi||\nUse it|");
        check(&["ab", "b"], &["xab"], "x!");
        check(&["aab"], &["a", "a", "a", "b"], "||a|!");
        check(&["é→"], &["né", "→"], "n|!");
        check(&["→!"], &["a→", "?"], "a|→?|");
        check(&[""], &["ab"], "ab|");
        check(&["end"], &["the e", "n"], "the ||en");
    }

    proptest! {
        #[test]
        fn any_cut_shows_the_text_before_the_first_stop(
            text in "[ab→]{0,12}",
            stops in prop::collection::vec("[ab→]{1,3}", 0..3),
            cuts in prop::collection::vec(1_usize..4, 12),
        ) {
            let first = stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
            let mut finder = StopFinder::new(&stops);
            let (mut shown, mut has_stopped) = (String::new(), false);
            let mut chars = text.chars().peekable();
            for cut in cuts {
                let piece: String = chars.by_ref().take(cut).collect();
                match finder.push(&piece) {
                    Shown::More(more) => shown.push_str(&more),
                    Shown::Last(last) => {
                        shown.push_str(&last);
                        has_stopped = true;
                        break;
                    }
                }
            }
            if !has_stopped {
                shown.push_str(&finder.finish());
            }
            prop_assert_eq!(has_stopped, first.is_some());
            // Pieces may end a match of one string before an earlier one of a longer string is whole.
            match first {
                Some(_) => prop_assert!(stops.iter().all(|stop| !shown.contains(stop.as_str())) && text.starts_with(&shown)),
                None => prop_assert_eq!(shown, text),
            }
        }
    }
}
