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
mod unknown;

pub use answer::Finish;
pub use batch::{Batch, Progress};
pub use generate::Generated;
pub use options::GenerateOptions;
pub use unknown::Unknown;

pub(crate) use generate::{Generator, encode, generate, num_passed_over};
pub(crate) use guard::guarded;
pub(crate) use losses::{text_losses, token_logits, token_losses};
pub(crate) use memory::Memory;
pub(crate) use unknown::unknown;
