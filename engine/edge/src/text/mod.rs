//! Text out of a language model: sampling, streaming, stop strings, batches, losses.
#![forbid(unsafe_code)]

mod answer;
mod batch;
mod generate;
mod guard;
mod losses;
mod memory;
mod options;
mod sampler;
mod stops;
mod stream;

pub use answer::Finish;
pub use batch::{Batch, Progress};
pub use generate::Generated;
pub use options::GenerateOptions;

pub(crate) use generate::{Generator, generate, tokens};
pub(crate) use guard::guarded;
pub(crate) use losses::{text_losses, token_logits, token_losses};
pub(crate) use memory::Memory;
