//! Text out of a language model: sampling, streaming, losses.

mod generate;
mod guard;
mod losses;
mod sampler;
mod stream;

pub use generate::{GenerateOptions, Generated};

pub(crate) use generate::generate;
pub(crate) use guard::guarded;
pub(crate) use losses::token_losses;
