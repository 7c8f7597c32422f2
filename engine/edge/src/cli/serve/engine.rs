//! The thread that computes: it takes jobs as slots become free and steps all that are running together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use foretrain_edge::{Batch, Finish, GenerateOptions, Model, Progress, with_threads};

/// A prompt to continue.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) prompt: Vec<u32>,
    pub(super) options: GenerateOptions,
    pub(super) news: Sender<News>,
    /// Set when nobody wants the answer any more.
    pub(super) is_unwanted: Arc<AtomicBool>,
}

/// What becomes of a job.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Its turn has come; so many tokens of the prompt were known.
    Started(usize),
    /// More text.
    Text(String),
    /// It is over, after so many new tokens.
    Ended(Finish, usize),
    /// It cannot be done; why.
    Failed(String),
}

/// A job in its slot.
struct Running {
    slot: usize,
    job: Job,
}

/// Works until `jobs` has no more senders.
pub(super) fn run(model: &Model, num_slots: usize, num_threads: usize, jobs: &Receiver<Job>) {
    let mut batch = model.batch(num_slots);
    let mut running = Vec::new();
    while let Ok(job) = jobs.recv() {
        start(&mut batch, &mut running, job);
        // Threads live while there is work: they would spin in between.
        with_threads(num_threads, || {
            while !batch.is_idle() {
                let has_more = take_jobs(&mut batch, &mut running, jobs);
                step(&mut batch, &mut running);
                if !has_more && running.is_empty() {
                    return;
                }
            }
        });
    }
}

/// Fills free slots with waiting jobs. False when no more can come.
fn take_jobs(batch: &mut Batch<'_>, running: &mut Vec<Running>, jobs: &Receiver<Job>) -> bool {
    while batch.has_room() {
        match jobs.try_recv() {
            Ok(job) => start(batch, running, job),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        }
    }
    true
}

fn start(batch: &mut Batch<'_>, running: &mut Vec<Running>, mut job: Job) {
    if job.is_unwanted.load(Ordering::SeqCst) {
        return;
    }
    // News that nobody reads any more are noticed by `is_unwanted`.
    match batch.start(std::mem::take(&mut job.prompt), &job.options) {
        Ok((slot, num_cached)) => {
            let _ = job.news.send(News::Started(num_cached));
            running.push(Running { slot, job });
        }
        Err(error) => {
            let _ = job.news.send(News::Failed(error.to_string()));
        }
    }
}

fn step(batch: &mut Batch<'_>, running: &mut Vec<Running>) {
    running.retain(|Running { slot, job }| {
        let is_unwanted = job.is_unwanted.load(Ordering::SeqCst);
        if is_unwanted {
            batch.cancel(*slot);
        }
        !is_unwanted
    });
    match batch.step() {
        Ok(all) => {
            for Progress { slot, text, finish, num_tokens } in all {
                let Some(at) = running.iter().position(|running| running.slot == slot) else { continue };
                let job = running.get(at).map(|running| &running.job);
                if let Some(job) = job {
                    if !text.is_empty() {
                        let _ = job.news.send(News::Text(text));
                    }
                    if let Some(finish) = finish {
                        let _ = job.news.send(News::Ended(finish, num_tokens));
                    }
                }
                if finish.is_some() {
                    running.swap_remove(at);
                }
            }
        }
        Err(error) => {
            for Running { job, .. } in running.drain(..) {
                let _ = job.news.send(News::Failed(error.to_string()));
            }
        }
    }
}
