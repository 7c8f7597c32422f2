//! The built-in text: documents from a stochastic grammar of our own, with agreement over long distances.
//!
//! What agrees: subject and verb across nested relative clauses; determiners and nouns; a character's name (those in -a
//! are she, in -o he, in -en they) with its pronouns, and its belonging with the color it was given, over the whole
//! document; counts that add up; quotes and brackets that close in order.
//!
//! Invariant: document `i` is a function of `i` alone and the same on every machine.

mod phrase;
mod story;
mod words;

use super::generated_text::GeneratedText;

/// The stories.
pub(super) const GRAMMAR: GeneratedText = GeneratedText {
    name: "grammar",
    version: 1,
    seed: 0x6772_616d_6d61,
    num_bytes: 2_000_000,
    end: "\n\n",
    document: story::document,
};
