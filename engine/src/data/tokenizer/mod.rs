//! Tokenizers: every kind ends as one that saves to a Hugging Face `tokenizer.json`.
//!
//! Invariants: text that is cut into pieces gives the same tokens as in one go; a `tokenizer.json` that this room
//! wrote loads back as the kind that it was; no character that a tokenizer does not know goes uncounted.

mod cuts;
mod encoder;
mod format;
#[cfg(test)]
mod tests;
mod unknown;

pub(crate) use encoder::DOCUMENT_ENDS;
pub(in crate::data) use encoder::TextEncoder;
pub(crate) use encoder::has_vocabulary_of;
