//! The built-in text of rounds: each line sings one random sequence of letters again and again. Depth matters here.
//!
//! `cebhmcebhmcebhm…`: letters and length are another line's no more, so that after the first round each letter follows
//! from what came after it a round ago, and from nothing else. Finding that takes two attention layers, one that tells
//! each letter which came before it and one that looks for the letter at hand among those (an induction head: Olsson et
//! al. 2022, arXiv 2209.11895); a transformer of one block cannot do it, however long it trains. What it can learn is
//! which letters a line has, and which of them are due.
//!
//! Invariant: document `i` is a function of `i` alone and the same on every machine.

use super::draw::Draw;
use super::generated_text::GeneratedText;

/// Letters.
const LETTERS: &[u8] = b"abcdefghijklmnop";
/// Shortest and longest round, letters; none comes twice in a round.
const SHORTEST: usize = 4;
const LONGEST: usize = 9;
/// Letters of a line.
const LENGTH: usize = 63;

/// The rounds.
pub(super) const ROUNDS: GeneratedText =
    GeneratedText { name: "rounds", version: 1, seed: 0x726f_756e_6473, num_bytes: 1_000_000, end: "\n", document };

/// One line.
fn document(draw: &mut Draw) -> String {
    let length = SHORTEST + draw.below(LONGEST + 1 - SHORTEST);
    let order = draw.permutation(LETTERS.len());
    let round = order.into_iter().take(length).filter_map(|index| LETTERS.get(index as usize));
    let mut text: String = round.map(|&letter| char::from(letter)).cycle().take(LENGTH).collect();
    text.push('\n');
    text
}
