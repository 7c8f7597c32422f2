//! Noun phrases and clauses whose verbs agree however far away they are.

use super::words::{ACTS, BEINGS, DEEDS, MANNERS, NUMBERS, PLACES, Word};
use crate::data::draw::Draw;

/// One or many: what a verb must agree with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    One,
    Many,
}

impl Count {
    /// The form of `word`.
    pub fn of(self, word: Word) -> &'static str {
        match self {
            Self::One => word.one,
            Self::Many => word.many,
        }
    }
}

/// A random entry; every list of the vocabulary has some.
pub(super) fn any<T: Copy>(list: &[T], draw: &mut Draw) -> T {
    list[draw.below(list.len())]
}

/// "these two hungry foxes that the miller fears", with its count; clauses nest up to `depth` deep.
pub(super) fn noun_phrase(depth: u32, draw: &mut Draw) -> (String, Count) {
    let count = if draw.chance(0.5) { Count::One } else { Count::Many };
    let mut phrase = match count {
        Count::One => any(&["the", "this", "that", "every", "each", "one", "the"], draw).to_owned(),
        Count::Many => match draw.below(4) {
            0 => NUMBERS[2 + draw.below(8)].to_owned(),
            1 => format!("these {}", NUMBERS[2 + draw.below(4)]),
            _ => any(&["the", "these", "those", "many", "some", "all", "few"], draw).to_owned(),
        },
    };
    if draw.chance(0.4) {
        phrase.push(' ');
        phrase.push_str(any(&MANNERS, draw));
    }
    phrase.push(' ');
    phrase.push_str(count.of(any(&BEINGS, draw)));
    if depth > 0 && draw.chance(0.55) {
        phrase.push_str(&relative_clause(count, depth - 1, draw));
    } else if draw.chance(0.15) {
        phrase.push(' ');
        phrase.push_str(any(&PLACES, draw));
    }
    (phrase, count)
}

/// " that sleeps by the river" or " that the two old goats follow": what says more about a noun of `count`.
fn relative_clause(count: Count, depth: u32, draw: &mut Draw) -> String {
    match draw.below(3) {
        0 => format!(" that {}", act(count, draw)),
        1 => {
            let (object, _) = noun_phrase(depth, draw);
            format!(" that {} {object}", count.of(any(&DEEDS, draw)))
        }
        _ => {
            let (subject, subject_count) = noun_phrase(depth, draw);
            format!(" that {subject} {}", subject_count.of(any(&DEEDS, draw)))
        }
    }
}

/// What a subject of `count` does: "sleeps by the river".
pub(super) fn act(count: Count, draw: &mut Draw) -> String {
    let act = count.of(any(&ACTS, draw));
    if draw.chance(0.4) { format!("{act} {}", any(&PLACES, draw)) } else { act.to_owned() }
}

/// A main clause without its capital and full stop.
pub(super) fn clause(depth: u32, draw: &mut Draw) -> String {
    let (subject, count) = noun_phrase(depth, draw);
    if draw.chance(0.45) {
        format!("{subject} {}", act(count, draw))
    } else {
        let (object, _) = noun_phrase(depth.saturating_sub(1), draw);
        format!("{subject} {} {object}", count.of(any(&DEEDS, draw)))
    }
}

/// A remark in brackets, which may hold another in square ones.
pub(super) fn remark(draw: &mut Draw) -> String {
    let inner = if draw.chance(0.3) { format!(" [{}]", clause(1, draw)) } else { String::new() };
    format!("({}{inner})", clause(1, draw))
}

/// The same with a capital letter.
pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
