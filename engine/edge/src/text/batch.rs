//! Several continuations that go on together: each step reads the weights once for all of them.

use tokenizers::Tokenizer;

use super::answer::{Answer, Finish, Step};
use super::memory::Memory;
use super::options::GenerateOptions;
use crate::EdgeError;
use crate::models::{LanguageModel, Part};

/// What a step added to one continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Which one: the number that [`Batch::start`] gave.
    pub slot: usize,
    /// More text to show; may be empty.
    pub text: String,
    /// Why it ended, with this step.
    pub finish: Option<Finish>,
    /// New tokens so far.
    pub num_tokens: usize,
}

/// A number of slots, each for one continuation at a time. A slot remembers its text, so that a prompt which starts like
/// it is read from where it differs.
#[derive(Debug)]
pub struct Batch<'m> {
    model: &'m LanguageModel,
    tokenizer: &'m Tokenizer,
    slots: Vec<Slot<'m>>,
}

#[derive(Debug)]
struct Slot<'m> {
    memory: Memory,
    running: Option<Running<'m>>,
    /// When it was started last, in starts: the oldest is taken when no slot knows the prompt.
    last_start: u64,
}

#[derive(Debug)]
struct Running<'m> {
    answer: Answer<'m>,
    /// Tokens that are to be read: the rest of the prompt, then one at a time.
    pending: Vec<u32>,
}

impl<'m> Batch<'m> {
    /// A batch of `num_slots`, at least 1.
    pub(crate) fn new(model: &'m LanguageModel, tokenizer: &'m Tokenizer, num_slots: usize) -> Self {
        let slot = |_| Slot { memory: Memory::empty(model), running: None, last_start: 0 };
        Self { model, tokenizer, slots: (0..num_slots.max(1)).map(slot).collect() }
    }

    /// True when another continuation can start.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.slots.iter().any(|slot| slot.running.is_none())
    }

    /// True when no continuation is going on.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.slots.iter().all(|slot| slot.running.is_none())
    }

    /// Starts to continue `prompt` in the free slot that holds most of it. Returns the slot's number and how many of the
    /// prompt's tokens need not be read. Nothing is computed before the next [`Batch::step`].
    ///
    /// Errors: [`EdgeError::Input`] for bad options, a token that is none of the model's, an empty prompt or one that
    /// leaves no position for an answer, and when no slot is free.
    pub fn start(&mut self, prompt: Vec<u32>, options: &GenerateOptions) -> Result<(usize, usize), EdgeError> {
        options.check()?;
        let refuse = |expected: String, found: String| Err(EdgeError::input("continuing a prompt", expected, found));
        let most = self.model.max_positions().saturating_sub(1);
        if prompt.is_empty() || prompt.len() > most {
            return refuse(format!("a prompt of 1 to {most} tokens"), format!("{} tokens", prompt.len()));
        }
        if let Some(bad) = prompt.iter().find(|&&token| token as usize >= self.model.vocab_size()) {
            return refuse(format!("tokens below {}", self.model.vocab_size()), format!("token {bad}"));
        }
        let last_start = self.slots.iter().map(|slot| slot.last_start).max().unwrap_or(0) + 1;
        let free = self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.running.is_none());
        let best =
            free.max_by_key(|(_, slot)| (slot.memory.common_prefix(&prompt), std::cmp::Reverse(slot.last_start)));
        let Some((number, slot)) = best else {
            return refuse("a free slot".to_owned(), "none".to_owned());
        };
        let cached = slot.memory.common_prefix(&prompt);
        slot.memory.truncate(cached);
        slot.last_start = last_start;
        let pending = prompt.get(cached..).unwrap_or_default().to_vec();
        let answer = Answer::new(self.tokenizer, self.model.end_tokens(), prompt, options);
        slot.running = Some(Running { answer, pending });
        Ok((number, cached))
    }

    /// Ends the continuation in `slot`.
    pub fn cancel(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.running = None;
        }
    }

    /// Goes on with all continuations: by a token each, or by a piece of a prompt that is being read. Those that read
    /// prompts have no progress to tell yet.
    ///
    /// Errors: [`EdgeError::Format`] for damaged weights, [`EdgeError::Tokenizer`]; then all continuations have ended and
    /// their memory is gone.
    pub fn step(&mut self) -> Result<Vec<Progress>, EdgeError> {
        let result = self.try_step();
        if result.is_err() {
            for slot in &mut self.slots {
                slot.running = None;
                slot.memory = Memory::empty(self.model);
            }
        }
        result
    }

    fn try_step(&mut self) -> Result<Vec<Progress>, EdgeError> {
        let pending = self.slots.iter().map(Slot::num_pending).collect::<Vec<_>>();
        let shares = shares(&pending, self.model.tokens_at_once());
        let mut parts = Vec::new();
        for (slot, &share) in self.slots.iter_mut().zip(&shares) {
            if let (Some(running), 1..) = (&slot.running, share) {
                let tokens = running.pending.get(..share).unwrap_or_default();
                slot.memory.tokens.extend_from_slice(tokens);
                parts.push(Part { tokens, cache: &mut slot.memory.cache });
            }
        }
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let hidden = self.model.forward_together(&mut parts)?;
        // The last row of each that has read all of its tokens.
        let width = self.model.width();
        let (mut rows, mut ready) = (Vec::new(), Vec::new());
        let mut end = 0;
        for (number, (slot, &share)) in self.slots.iter_mut().zip(&shares).enumerate() {
            let Some(running) = &mut slot.running else { continue };
            end += share * width;
            running.pending.drain(..share);
            if running.pending.is_empty() {
                rows.extend_from_slice(hidden.get(end - width..end).unwrap_or_default());
                ready.push(number);
            }
        }
        if ready.is_empty() {
            return Ok(Vec::new());
        }
        let logits = self.model.logits(&rows)?;
        let mut all = Vec::with_capacity(ready.len());
        for (number, logits) in ready.into_iter().zip(logits.chunks_exact(self.model.vocab_size().max(1))) {
            let Some(slot) = self.slots.get_mut(number) else { continue };
            let Some(running) = &mut slot.running else { continue };
            let Step { mut text, token, mut finish } = running.answer.step(logits)?;
            if let Some(token) = token {
                running.pending.push(token);
                if slot.memory.tokens.len() >= self.model.max_positions() {
                    let rest = running.answer.finish(Finish::Length, String::new())?;
                    text.push_str(&rest.text);
                    finish = rest.finish;
                }
            }
            all.push(Progress { slot: number, text, finish, num_tokens: running.answer.num_tokens() });
            if finish.is_some() {
                slot.running = None;
            }
        }
        Ok(all)
    }
}

impl Slot<'_> {
    fn num_pending(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.pending.len())
    }
}

/// How many of its `pending` tokens each reads in a step: those with one come first, and prompts share what is left of
/// `most`, so that no long prompt holds up the others' answers.
fn shares(pending: &[usize], most: usize) -> Vec<usize> {
    let num_single = pending.iter().filter(|&&count| count == 1).count();
    let num_long = pending.iter().filter(|&&count| count > 1).count();
    let each = (most.saturating_sub(num_single) / num_long.max(1)).max(1);
    pending.iter().map(|&count| count.min(each)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_on_while_prompts_are_read() {
        assert_eq!(shares(&[1, 0, 1], 256), [1, 0, 1]);
        assert_eq!(shares(&[1, 1000, 3], 256), [1, 127, 3]);
        assert_eq!(shares(&[1000], 160), [160]);
        assert_eq!(shares(&[5; 300], 256), [1; 300]);
        assert_eq!(shares(&[], 256), [] as [usize; 0]);
    }
}
