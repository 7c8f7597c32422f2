//! Text out of a language model: sampling, streaming, losses.
#![forbid(unsafe_code)]

mod generate;
mod guard;
mod losses;
mod sampler;
mod stream;

pub use generate::{GenerateOptions, Generated};

pub(crate) use generate::{generate, tokens};
pub(crate) use guard::guarded;
pub(crate) use losses::{text_losses, token_logits, token_losses};
